"""Viscous Burgers' equation: conservative finite volumes of second order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dpcontrol import safe
from dpcontrol.kernels import Kernel
from dpcontrol.kernels.burgers_finite_volume import FiniteVolumeKernel
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
from dpcontrol.tree import Tree

SIDES = ("left_value", "right_value")


@dataclass(frozen=True)
class FiniteVolumeBurgers(Simulator):
    r"""Viscous Burgers' equation in one dimension with a distributed force, in conservation form.

    .. math:: u_t + (u^2 / 2)_x = \nu u_{xx} + F

    ==================  ==========  =====================================================
    symbol              name        unit (nondimensional: ``L`` = 1, ``U`` = 1)
    ==================  ==========  =====================================================
    ``u``               state       speed ``U``
    ``F``               control     acceleration ``U^2 / L``, held during the step
    ``nu``              viscosity   ``U L``; the Reynolds number is ``U L / nu``
    ``h``                           size of a cell, ``(extent[1] - extent[0]) / cells``
    ==================  ==========  =====================================================

    **State**: ``(scenarios, cells)``, averages over the cells (equal to the values at the cell centres
    ``extent[0] + (i + 1/2) h`` up to ``O(h^2)``); the control has the same shape, or is ``None``. The number of
    cells is the state's.

    **Boundary conditions**: ``"periodic"``, or a pair ``(left value, right value)`` that ``u`` has at the ends. With
    little viscosity an end where the flow leaves does not feel its value beyond a layer of one cell.

    **Scheme**: with ``a = u[i] - u[i-1]``, ``b = u[i+1] - u[i]`` the slope in a cell is van Albada's

    .. math:: s_i = \frac{(a b + \epsilon)(a + b)}{a^2 + b^2 + 2 \epsilon}, \quad \epsilon = (h / L)^3 U^2,

    states at a face are ``l = u[i] + s[i]/2`` and ``r = u[i+1] - s[i+1]/2``, the flux is Engquist and Osher's minus the
    diffusive one,

    .. math:: f = \tfrac12 \max(l, 0)^2 + \tfrac12 \min(r, 0)^2 - \nu (u_{i+1} - u_i) / h,

    and time advances by Heun's two stages (strong stability preserving). Order 2 in space and time where ``u`` is
    smooth, extrema included (that is what ``epsilon`` is for); the sum over the cells changes by the fluxes through
    the two ends and the force only, so shocks travel at the right speed. The slope is smooth in ``u`` and the flux is
    once continuously differentiable: gradients exist everywhere, unlike with minmod or an exact Riemann solver.

    Stable for ``dt (|u| / h + 2 nu / h^2) <= 1`` in every cell, see :meth:`check_stability`.

    **Parameters**: ``viscosity``, and ``left_value``, ``right_value`` where the sides have fixed values.

    **Source**: G. D. van Albada, B. van Leer, W. W. Roberts, Astron. Astrophys. 108 (1982) (the slope); B. Engquist,
    S. Osher, Math. Comp. 36 (1981) (the flux); S. Gottlieb, C.-W. Shu, Math. Comp. 67 (1998), section 3 (Heun).

    **Good values**: ``FiniteVolumeBurgers(dt=0.002, viscosity=0.01)`` with 128 cells on (0, 1) and ``|u| <= 1``.

    Args:
        dt: time step.
        viscosity: ``nu``, zero allowed; a number, or a tensor ``()`` or ``(scenarios,)``.
        extent: the two ends of the domain.
        boundary: ``"periodic"``, or ``(left value, right value)``: numbers, or tensors like the viscosity.
        speed: ``U``, a typical speed, by which the limiter tells a smooth extremum from a jump.
        fused: whole runs on the CPU may go through compiled loops (:mod:`dpcontrol.kernels.burgers_finite_volume`,
            needs Numba); ``False`` for the eager step always. The numbers are the same to rounding.

    Raises:
        UsageError: for a negative viscosity, a ``dt`` or speed that is not positive, an unknown boundary; at the
            start of a rollout, for a state of another shape and a ``dt`` beyond the limit; in a step, for a control
            of another shape.
    """

    dt: float
    viscosity: Value
    extent: tuple[float, float] = (0.0, 1.0)
    boundary: str | tuple[Value, Value] = "periodic"
    speed: float = 1.0
    fused: bool = True

    def __post_init__(self) -> None:
        require_positive("dt", self.dt)
        require_positive("viscosity", self.viscosity, zero_allowed=True)
        require_positive("speed", self.speed)
        require_extent(self.extent)
        pair = isinstance(self.boundary, tuple) and len(self.boundary) == 2
        numbers = pair and all(
            isinstance(side, int | float | Tensor) and bool(torch.isfinite(torch.as_tensor(side)).all())
            for side in self.boundary
        )
        if self.boundary != "periodic" and not numbers:
            raise UsageError(
                'boundary must be "periodic" or a pair of finite numbers (left value, right value); '
                f"found {self.boundary!r}."
            )

    @property
    def parameters(self) -> Mapping[str, Value]:
        if isinstance(self.boundary, str):
            return {"viscosity": self.viscosity}
        return {"viscosity": self.viscosity, **dict(zip(SIDES, self.boundary, strict=True))}

    def start(self, initial: Tree, parameters: Mapping[str, Tensor]) -> Tree:
        """``initial``, its shape checked."""
        require_row_of_cells(initial, 3)
        return initial

    def check(self, initial: Tree, parameters: Mapping[str, Tensor]) -> None:
        """Stability, if the numbers are data and the parameters the defaults."""
        given = len(initial) and readable(initial, *parameters.values())
        if given and same_as_defaults(parameters, self.parameters):
            self.check_stability(initial)

    def check_stability(self, state: Tensor) -> None:
        """Compare ``dt`` with ``1 / (|u| / h + 2 nu / h^2)`` in every cell of a state (reads numbers from the device).

        A force may accelerate the flow beyond what its initial state promised: then check a later state.

        Raises:
            UsageError: if ``dt`` is larger somewhere; the sentence names the worst cell, its scenario and speed, and
                the largest stable ``dt``.
        """
        h = (self.extent[1] - self.extent[0]) / state.shape[-1]
        if self._is_surely_stable(state, h):
            return
        speeds = state.detach().abs()
        if not isinstance(self.boundary, str):
            left, right = (
                torch.as_tensor(side, dtype=speeds.dtype, device=speeds.device).reshape(-1).abs()
                for side in self.boundary
            )
            speeds = torch.cat(
                (
                    speeds[:, :1].maximum(left[:, None]),
                    speeds[:, 1:-1],
                    speeds[:, -1:].maximum(right[:, None]),
                ),
                1,
            )
        nu = torch.as_tensor(self.viscosity, dtype=speeds.dtype, device=speeds.device).reshape(-1, 1)
        frequency = speeds / h + 2 * nu / h**2
        worst = int(frequency.argmax())
        scenario, cell = divmod(worst, state.shape[-1])
        highest = float(frequency.flatten()[worst])
        if not self.dt * highest <= 1 + 1e-6:
            raise UsageError(
                f"dt = {self.dt:g} is unstable: in cell {cell} of scenario {scenario} the speed is "
                f"{float(speeds[scenario, cell]):.3g}, which with cells of size {h:.3g} and viscosity "
                f"{float(nu[scenario if len(nu) > 1 else 0]):.3g} needs dt <= {1 / highest:.3g}; reduce dt, or wrap "
                "the simulator in Substeps."
            )

    def _is_surely_stable(self, state: Tensor, h: float) -> bool:
        """Whether even the largest speed with the largest viscosity would be stable: one look at the state, no more."""
        ends = (self.viscosity, *(self.boundary if isinstance(self.boundary, tuple) else ()))
        nu, *sides = (float(v.abs().max()) if isinstance(v, Tensor) else abs(v) for v in ends)
        low, high = state.detach().aminmax()
        fastest = max(-float(low), float(high), *sides, 0.0)
        return self.dt * (fastest / h + 2 * nu / h**2) <= 1 and bool(low <= high)

    def prepare(self, parameters: Mapping[str, Tensor], scenario: Mapping[str, Tree]) -> dict[str, Tensor]:
        """The parameters as columns: ``()`` or ``(scenarios, 1)``."""
        return {
            name: value.reshape(-1, 1) if value.ndim == 1 else value for name, value in parameters.items()
        }

    def step(
        self, state: Tensor, control: Tensor | None, coefficients: Mapping[str, Tensor], noise: Tree, t: float
    ) -> Tensor:
        """Heun's two stages; see the class."""
        first = torch.add(state, self._rate(state, control, coefficients), alpha=self.dt)
        second = torch.add(first, self._rate(first, control, coefficients), alpha=self.dt)
        if control is not None:
            require_shape(second, state, control)
        return torch.lerp(state, second, 0.5)

    def kernel(self, state: Tree, control: Tree, noise: Tree, coefficients: Any) -> Kernel | None:
        """Compiled loops over the scenarios, where Numba is installed, on the CPU and in one precision."""
        fitting = (
            isinstance(state, Tensor)
            and state.ndim == 2
            and (control is None or control.shape == state.shape)
        )
        if not (self.fused and fitting and can_run(state, control, coefficients)):
            return None
        return FiniteVolumeKernel(
            self.dt, self.extent[1] - self.extent[0], self.speed, self.boundary == "periodic"
        )

    def _rate(self, u: Tensor, control: Tensor | None, coefficients: Mapping[str, Tensor]) -> Tensor:
        """``- (f[i+1/2] - f[i-1/2]) / h + F``."""
        cells, length = u.shape[-1], self.extent[1] - self.extent[0]
        inverse_h = cells / length
        if isinstance(self.boundary, str):
            difference = torch.diff(torch.cat((u[:, -1:], u, u[:, :1]), -1))
        else:
            left, right = (coefficients[side].expand(len(u), 1) for side in SIDES)
            # the ghost values 2 v - u make v the value in between, at the face
            ends = 2 * (u[:, :1] - left), 2 * (right - u[:, -1:])
            difference = torch.cat((ends[0], torch.diff(u), ends[1]), -1)
        half_slope = safe.van_albada(difference[:, :-1], difference[:, 1:], cells**-3.0 * self.speed**2) * 0.5
        from_left, from_right = u + half_slope, u - half_slope
        if isinstance(self.boundary, str):
            left, right = from_left[:, -1:], from_right[:, :1]
        rising = torch.relu(torch.cat((left, from_left), -1))
        falling = torch.relu(-torch.cat((from_right, right), -1))
        flux = (rising.square() + falling.square()) * 0.5 - coefficients["viscosity"] * inverse_h * difference
        rate = torch.diff(flux) * -inverse_h
        return rate if control is None else rate + control
