"""The Van der Pol oscillator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dpcontrol.sim.base import Value, require_positive
from dpcontrol.sim.ode import System


@dataclass(frozen=True)
class VanDerPol(System):
    r"""An oscillator that feeds small swings and damps large ones, with a forcing.

    .. math:: \ddot x - \mu (1 - x^2) \dot x + x = u

    **State**: ``(x, x')``, ``(scenarios, 2)``, nondimensional (time in units of the inverse natural frequency);
    **control**: ``u``, ``(scenarios, 1)`` or ``None``. **Parameters**: ``nonlinearity`` (``mu``).

    Without control every start but the origin ends in one limit cycle: for ``mu = 1`` its amplitude is 2.00862 and its
    period 6.66329. It becomes stiff for large ``mu``.

    **Source**: B. van der Pol, Phil. Mag. 2 (1926) 978; J. Guckenheimer, P. Holmes, "Nonlinear Oscillations, Dynamical
    Systems, and Bifurcations of Vector Fields", section 2.1.

    **Good values**: ``mu = 1`` with ``dt=0.1`` (RK4), ``mu = 5`` with ``dt=0.02``.

    Raises:
        UsageError: for a negative ``mu``.
    """

    nonlinearity: Value = 1.0

    def __post_init__(self) -> None:
        require_positive("nonlinearity", self.nonlinearity, zero_allowed=True)

    @property
    def components(self) -> tuple[str, ...]:
        return ("position", "velocity")

    @property
    def inputs(self) -> tuple[str, ...]:
        return ("forcing",)

    @property
    def parameters(self) -> Mapping[str, Value]:
        return {"nonlinearity": self.nonlinearity}

    def rate(self, state: Tensor, control: Tensor | None, parameters: Mapping[str, Any], t: float) -> Tensor:
        x, velocity = state.unbind(-1)
        acceleration = parameters["nonlinearity"] * (1 - x * x) * velocity - x
        if control is not None:
            acceleration = acceleration + control[..., 0]
        return torch.stack((velocity, acceleration), -1)
