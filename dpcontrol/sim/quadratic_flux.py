"""The common part of Burgers and Kuramoto-Sivashinsky: ``u_t + (u^2 / 2)_x = L u + F`` on a periodic interval."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor

from dpcontrol.kernels import ExponentialKernel, HalfSpectrum, Kernel, Square
from dpcontrol.kernels.native import can_run
from dpcontrol.kernels.spectral_loops import suits
from dpcontrol.kernels.spectral_rows import RowKernel
from dpcontrol.sim.base import Simulator, Value, require_positive
from dpcontrol.sim.constants import Constants
from dpcontrol.sim.etdrk import ETDRK4, ExponentialScheme, cast
from dpcontrol.sim.spectral import (
    PeriodicBox,
    alike,
    fit_scenarios,
    require_dealiasing,
    require_force,
    spread,
)
from dpcontrol.sim.stability import require_stable
from dpcontrol.tree import Tree


@dataclass(frozen=True)
class QuadraticFlux(Simulator):
    """Fourier Galerkin in space, exponential Runge-Kutta in time; ``L`` is diagonal in Fourier space.

    States are grid values, for the sake of everybody who looks at a state or acts on it. A single step therefore costs
    one transform more than its stages do, two each; whole runs stay in Fourier space and save it.
    """

    dt: float
    cells: int
    length: float
    viscosity: Value
    scheme: ExponentialScheme = ETDRK4
    dealiasing: float = 2 / 3
    fused: bool = True

    @abc.abstractmethod
    def symbol(self, viscosity: Value, k2: Tensor) -> Tensor:
        """``L`` in Fourier space, where ``k2`` is the square of the wavenumber; both in double precision."""

    def __post_init__(self) -> None:
        require_positive("dt", self.dt)
        require_positive("viscosity", self.viscosity, zero_allowed=True)
        require_dealiasing(self.dealiasing)
        _ = self.box

    @cached_property
    def box(self) -> PeriodicBox:
        """The grid."""
        return PeriodicBox((self.cells,), (self.length,))

    @cached_property
    def _constants(self) -> Constants:
        return Constants()

    @cached_property
    def transforms(self) -> HalfSpectrum:
        """Between the grid and the modes that are kept."""
        return self.box.transforms(self.dealiasing)

    @property
    def parameters(self) -> Mapping[str, Value]:
        return {"viscosity": self.viscosity}

    def check(self, initial: Tree, parameters: Mapping[str, Tensor]) -> None:
        """Refuse a step that is too long for the initial speed."""
        self.box.require(initial)
        nu, cut = parameters["viscosity"], self.transforms.cut
        (k,) = self.box.wavenumbers(nu.device, odd=True)
        linear = self.symbol(spread(nu, 1), cut(self.box.squared_wavenumber(nu.device)))
        require_stable(self.scheme, self.dt, linear, cut(k).abs(), initial)

    def start(self, initial: Tree, parameters: Mapping[str, Tensor]) -> Tree:
        """``initial``, its shape checked, without the modes that are not kept."""
        self.box.require(initial)
        return self.box.project(initial, self.dealiasing)

    def prepare(self, parameters: Mapping[str, Tensor], scenario: Mapping[str, Tree]) -> Any:
        """The coefficients of the scheme, differentiable in the viscosity."""
        return self._constants.prepared(parameters, lambda: self._coefficients(parameters["viscosity"]))

    def _coefficients(self, nu: Tensor) -> Any:
        cut = self.transforms.cut
        (k,) = self.box.wavenumbers(nu.device, odd=True)
        linear = self.symbol(spread(nu, 1), cut(self.box.squared_wavenumber(nu.device)))
        scheme = self.scheme.coefficients(linear, self.dt, factor=-0.5j * cut(k))
        return {"scheme": cast(scheme, nu.dtype), "force": None}

    def step(self, state: Tree, control: Tree, coefficients: Any, noise: Tree, t: float) -> Tree:
        """One step of the scheme."""
        transforms, force = self.transforms, None
        if control is not None:
            require_force(control, state)
            force = transforms.forward(control)

        def squared(spectrum: Tensor) -> Tensor:
            return transforms.forward(transforms.inverse(spectrum).square())

        spectrum, first = transforms.forward(state), transforms.forward(state.square())
        return transforms.inverse(
            self.scheme.advance(spectrum, squared, first, coefficients["scheme"], force)
        )

    def kernel(self, state: Tree, control: Tree, noise: Tree, coefficients: Any) -> Kernel | None:
        """Whole runs in Fourier space with a hand-written adjoint, unless ``fused`` is off.

        Compiled loops on the CPU where numba is installed and the size suits them, else torch's transforms.
        """
        if not self.fused or not alike(state, control):
            return None
        fitting = fit_scenarios(coefficients["scheme"]["outer"], state)
        if suits(self.cells) and fitting and can_run(state, control):
            return self._constants.kernel(
                coefficients, RowKernel, lambda: RowKernel(self.transforms, self.scheme.stages)
            )
        return ExponentialKernel(self.transforms, Square(self.transforms), self.scheme.stages)
