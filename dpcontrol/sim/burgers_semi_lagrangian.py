"""Viscous Burgers' equation: explicit diffusion, then semi-Lagrangian advection."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dpcontrol.kernels import Kernel
from dpcontrol.kernels.burgers_semi_lagrangian import SemiLagrangianKernel
from dpcontrol.kernels.native import can_run
from dpcontrol.results import UsageError
from dpcontrol.sim.base import Simulator, Value, require_positive
from dpcontrol.sim.checks import (
    readable,
    require_extent,
    require_row_of_cells,
    require_shape,
    same_as_defaults,
)
from dpcontrol.sim.interpolate import interpolate
from dpcontrol.tree import Tree

BOUNDARIES = ("zero", "periodic")


@dataclass(frozen=True)
class SemiLagrangianBurgers(Simulator):
    r"""Viscous Burgers' equation in one dimension with a distributed force, advected semi-Lagrangian.

    .. math:: u_t + u u_x = \nu u_{xx} + F

    ==================  ==========  =====================================================
    symbol              name        unit (nondimensional: ``L`` = 1, ``U`` = 1)
    ==================  ==========  =====================================================
    ``u``               state       speed ``U``
    ``F``               control     acceleration ``U^2 / L``, held during the step
    ``nu``              viscosity   ``U L``; the Reynolds number is ``U L / nu``
    ``h``                           size of a cell, ``(extent[1] - extent[0]) / cells``
    ==================  ==========  =====================================================

    **State**: ``(scenarios, cells)``, values at the cell centres ``extent[0] + (i + 1/2) h``; the control has the
    same shape, or is ``None``. The number of cells is the state's.

    **Boundary conditions**: ``"zero"``: ``u = 0`` in the missing cells beyond the ends; ``"periodic"``.

    **Scheme**: one step is

    .. math::
        d_i &= u_i + \nu \, \Delta t \, (u_{i-1} - 2 u_i + u_{i+1}) / h^2, \\
        u_i^{new} &= d(x_i - d_i \Delta t) + \Delta t F_i,

    with ``d(x)`` linear between cell centres. Order 1 in time; the error of interpolation is ``O(h^2)`` per step,
    so that with ``dt`` proportional to ``h`` the whole is of order 1. Stable for any speed; the diffusion needs
    ``nu dt / h^2 <= 1/2``. Neither conservative nor free of numerical diffusion: shocks may travel at a wrong speed
    (see :class:`~dpcontrol.sim.burgers_finite_volume.FiniteVolumeBurgers`). Kinks: the derivative jumps where a
    back-traced point crosses a cell centre; nearly everywhere it is the exact derivative of the step.

    **Parameters**: ``viscosity``.

    **Source**: P. Holl, V. Koltun, N. Thuerey, "Learning to control PDEs with differentiable physics", ICLR 2020
    (the setup); A. Staniforth, J. Côté, Mon. Weather Rev. 119 (1991), section 2 (semi-Lagrangian advection).

    **Good values**: ``SemiLagrangianBurgers(dt=0.03, viscosity=0.003)`` with 32 cells on (0, 1) and
    ``|u| <= 3``, over 32 steps.

    Args:
        dt: time step.
        viscosity: ``nu``, zero allowed; a number, or a tensor ``()`` or ``(scenarios,)``.
        extent: the two ends of the domain.
        boundary: ``"zero"`` or ``"periodic"``.
        fused: whole runs on the CPU may go through compiled loops (:mod:`dpcontrol.kernels.burgers_semi_lagrangian`,
            needs Numba); ``False`` for the eager step always. The numbers are the same to rounding.

    Raises:
        UsageError: for a negative viscosity, a ``dt`` that is not positive, an unknown boundary; at the start of a
            rollout, for a state of another shape and a ``dt`` beyond the limit of the diffusion; in a step, for a
            control of another shape.
    """

    dt: float
    viscosity: Value
    extent: tuple[float, float] = (0.0, 1.0)
    boundary: str = "zero"
    fused: bool = True

    def __post_init__(self) -> None:
        require_positive("dt", self.dt)
        require_positive("viscosity", self.viscosity, zero_allowed=True)
        require_extent(self.extent)
        if self.boundary not in BOUNDARIES:
            raise UsageError(f"boundary must be one of {', '.join(BOUNDARIES)}; found {self.boundary!r}.")

    @property
    def parameters(self) -> Mapping[str, Value]:
        return {"viscosity": self.viscosity}

    def start(self, initial: Tree, parameters: Mapping[str, Tensor]) -> Tree:
        """``initial``, its shape checked."""
        require_row_of_cells(initial, 3)
        return initial

    def check(self, initial: Tree, parameters: Mapping[str, Tensor]) -> None:
        """Stability, if the numbers are data and the parameters the defaults."""
        if readable(initial, *parameters.values()) and same_as_defaults(parameters, self.parameters):
            self.check_stability(initial)

    def check_stability(self, state: Tensor) -> None:
        """Compare ``dt`` with the limit of the explicit diffusion, ``h^2 / (2 nu)`` (reads numbers from the device).

        Raises:
            UsageError: if ``dt`` is larger; the sentence names the scenario and the largest stable ``dt``.
        """
        viscosities = torch.as_tensor(self.viscosity, dtype=torch.float64).reshape(-1)
        worst = int(viscosities.argmax())
        nu, h = float(viscosities[worst]), (self.extent[1] - self.extent[0]) / state.shape[-1]
        if 2 * nu * self.dt > h * h * (1 + 1e-6):
            raise UsageError(
                f"dt = {self.dt:g} is unstable: explicit diffusion with viscosity {nu:g} (scenario {worst}) in cells "
                f"of size {h:g} needs dt <= {h * h / (2 * nu):.3g}; reduce dt, or wrap the simulator in Substeps."
            )

    def prepare(self, parameters: Mapping[str, Tensor], scenario: Mapping[str, Tree]) -> Tensor:
        """``nu dt / L^2``, ``()`` or ``(scenarios, 1)``: the cells are counted in the step, when there is a state."""
        length = self.extent[1] - self.extent[0]
        viscosity = parameters["viscosity"]
        nu = viscosity.reshape(-1, 1) if viscosity.ndim == 1 else viscosity
        return nu * (self.dt / length**2)

    def step(
        self, state: Tensor, control: Tensor | None, coefficients: Tensor, noise: Tree, t: float
    ) -> Tensor:
        """Diffuse, advect the diffused field by itself, push; see the class."""
        cells = state.shape[-1]
        courant = self.dt * cells / (self.extent[1] - self.extent[0])
        bulge = torch.add(_neighbours(state, self.boundary), state, alpha=-2)
        diffused = torch.addcmul(state, bulge, coefficients, value=cells * cells)
        advected = interpolate(diffused, diffused * -courant, self.boundary)
        if control is None:
            return advected
        pushed = torch.add(advected, control, alpha=self.dt)
        require_shape(pushed, state, control)
        return pushed

    def kernel(self, state: Tree, control: Tree, noise: Tree, coefficients: Any) -> Kernel | None:
        """Compiled loops over the scenarios, where Numba is installed, on the CPU and in one precision."""
        fitting = (
            isinstance(state, Tensor)
            and state.ndim == 2
            and (control is None or control.shape == state.shape)
        )
        if not (self.fused and fitting and can_run(state, control, coefficients)):
            return None
        return SemiLagrangianKernel(self.dt, self.extent[1] - self.extent[0], self.boundary == "periodic")


def _neighbours(u: Tensor, boundary: str) -> Tensor:
    """``u[i-1] + u[i+1]``. Padding by a negative number shifts in one kernel, and so does its backward."""
    if boundary == "zero":
        return torch.constant_pad_nd(u, (1, -1)) + torch.constant_pad_nd(u, (-1, 1))
    return u.roll(1, -1) + u.roll(-1, -1)
