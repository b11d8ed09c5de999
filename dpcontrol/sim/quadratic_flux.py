"""The common part of Burgers and Kuramoto-Sivashinsky: ``u_t + (u^2 / 2)_x = L u + F`` on a periodic interval."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dpcontrol.sim.etdrk import ExponentialScheme, cast
from dpcontrol.sim.spectral import PeriodicBox, require_dealiasing, require_force
from dpcontrol.tree import Tree


@dataclass(frozen=True)
class QuadraticFlux:
    """Fourier Galerkin in space, exponential Runge-Kutta in time; ``L`` is diagonal in Fourier space.

    A stage costs two real transforms and a step one more. States are grid values: a spectral state would save one
    transform of nine, and cost everybody who looks at a state or acts on it.
    """

    box: PeriodicBox
    dt: float
    scheme: ExponentialScheme
    dealiasing: float

    def __post_init__(self) -> None:
        require_dealiasing(self.dealiasing)

    def start(self, initial: Tree) -> Tensor:
        """The state, its shape checked, without the modes that are not kept."""
        self.box.require(initial)
        return self.box.project(initial, self.dealiasing)

    def prepare(self, linear: Tensor, dtype: torch.dtype) -> Any:
        """Coefficients for the symbol of ``L``, ``(modes,)`` or ``(scenarios, modes)``, in double precision."""
        (k,) = self.box.wavenumbers(linear.device, odd=True)
        kept = self.box.kept(self.dealiasing, linear.device)
        return cast(self.scheme.coefficients(linear, self.dt, factor=-0.5j * k, kept=kept), dtype)

    def step(self, state: Tensor, control: Tensor | None, coefficients: Any) -> Tensor:
        """One step."""
        box, force = self.box, None
        if control is not None:
            require_force(control, state)
            force = box.forward(control)

        def squared(spectrum: Tensor) -> Tensor:
            return box.forward(box.inverse(spectrum).square())

        spectrum, first = box.forward(state), box.forward(state.square())
        after = self.scheme.advance(spectrum, squared, first, coefficients, force)
        return box.inverse(after)
