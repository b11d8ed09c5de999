"""Viscous Burgers' equation: Fourier Galerkin on a periodic interval."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from dpcontrol.sim.base import Simulator, Value, require_positive
from dpcontrol.sim.etdrk import ETDRK4, ExponentialScheme
from dpcontrol.sim.quadratic_flux import QuadraticFlux
from dpcontrol.sim.spectral import PeriodicBox, spread
from dpcontrol.tree import Tree


@dataclass(frozen=True)
class SpectralBurgers(Simulator):
    r"""Viscous Burgers' equation with a distributed force, on a periodic interval, without numerical viscosity.

    .. math:: u_t + u u_x = \nu u_{xx} + F

    ==========  ==========  =====================================================
    symbol      name        unit (nondimensional: ``L`` = 1, ``U`` = 1)
    ==========  ==========  =====================================================
    ``u``       state       speed ``U``
    ``F``       control     acceleration ``U^2 / L``, held during the step
    ``nu``      viscosity   ``U L``; the Reynolds number is ``U L / nu``
    ==========  ==========  =====================================================

    **State**: ``(scenarios, cells)``, values at ``x_i = i length / cells``; the control has the same shape or is
    ``None``.

    **Boundary conditions**: periodic.

    **Scheme**: Fourier Galerkin in space (errors fall faster than any power once the thinnest layer, ``nu / U`` wide,
    is resolved), the flux ``u^2/2`` formed on the grid, modes ``|n| >= dealiasing cells / 2`` dropped at the start and
    ever after, in force and state, so that with 2/3 no product is aliased. In time an exponential Runge-Kutta scheme,
    ``ETDRK4`` (measured order 4) or ``ETDRK2`` (2): diffusion sets no limit to ``dt``, the flow does, at about
    ``dt max|u| k_max < 2.5`` (``k_max = dealiasing pi cells / length``). A step costs 9 real transforms (5 with
    ``ETDRK2``), one more with a force. The mean of ``u`` changes by the mean of ``F`` only; the nonlinear term keeps
    the energy. Shocks thinner than the grid ring: take :class:`~dpcontrol.sim.FiniteVolumeBurgers` for those.

    **Parameters**: ``viscosity``.

    **Source**: C. Canuto et al., "Spectral Methods: Fundamentals in Single Domains" (2006), chapter 3 (Galerkin and
    dealiasing); the scheme is Krogstad's, see ``etdrk.py``.

    **Good values**: ``SpectralBurgers(dt=0.005, cells=128, viscosity=0.01)`` for ``|u| <= 1``, length 1.

    Args:
        dt: time step.
        cells: number of grid points.
        length: ``L``.
        viscosity: ``nu``, zero allowed; a number, or a tensor ``()`` or ``(scenarios,)``.
        scheme: ``ETDRK4`` or ``ETDRK2``.
        dealiasing: fraction of the modes that are kept, 1 for all.

    Raises:
        UsageError: for numbers that are not positive, fewer than 4 cells; at the start of a rollout, for a state of
            another shape; in a step, for a control of another shape.
    """

    dt: float
    cells: int = 128
    length: float = 1.0
    viscosity: Value = 0.01
    scheme: ExponentialScheme = ETDRK4
    dealiasing: float = 2 / 3

    def __post_init__(self) -> None:
        require_positive("dt", self.dt)
        require_positive("viscosity", self.viscosity, zero_allowed=True)
        _ = self.row

    @property
    def row(self) -> QuadraticFlux:
        """The grid and the scheme."""
        return QuadraticFlux(
            PeriodicBox((self.cells,), (self.length,)), self.dt, self.scheme, self.dealiasing
        )

    @property
    def parameters(self) -> Mapping[str, Value]:
        return {"viscosity": self.viscosity}

    def start(self, initial: Tree, parameters: Mapping[str, Tensor]) -> Tree:
        """``initial``, its shape checked, without the modes that are not kept."""
        return self.row.start(initial)

    def prepare(self, parameters: Mapping[str, Tensor], scenario: Mapping[str, Tree]) -> Any:
        """The coefficients of the scheme, differentiable in the viscosity."""
        nu = parameters["viscosity"]
        k2 = self.row.box.squared_wavenumber(nu.device)
        return self.row.prepare(-spread(nu, 1) * k2, nu.dtype)

    def step(self, state: Tree, control: Tree, coefficients: Any, noise: Tree, t: float) -> Tree:
        """One step of the scheme."""
        return self.row.step(state, control, coefficients)
