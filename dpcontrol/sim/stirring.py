"""A marker stirred by a flow that is chosen anew in every step: kinematics without dynamics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from dpcontrol.kernels import Kernel
from dpcontrol.kernels.native import can_run
from dpcontrol.results import UsageError
from dpcontrol.sim.base import Simulator, require_positive
from dpcontrol.sim.carried import advected
from dpcontrol.sim.grid import Grid
from dpcontrol.sim.smoke_kernel import StirringKernel, fits
from dpcontrol.sim.staggered import (
    SCHEMES,
    Faces,
    beyond_centres,
    beyond_faces,
    curl,
    to_centres,
    travelled_at_faces,
)
from dpcontrol.tree import Tree, describe

State = dict[str, Tensor]


@dataclass(frozen=True)
class Stirring(Simulator):
    r"""A marker carried by the curl of a potential in two dimensions.

    .. math:: s_t + u \cdot \nabla s = 0, \qquad u = (\partial_y \psi, -\partial_x \psi)

    ==========  ======================  ======================================================================
    symbol      name                    unit (length ``L``, time ``T``)
    ==========  ======================  ======================================================================
    ``s``       state["marker"]         any, ``(scenarios, nx, ny)``, cell centres
    ``u``       state["velocity_x"],    ``L / T``, free faces (see :class:`Grid`); the velocity of the last step
                state["velocity_y"]
    ``psi``     control                 ``L^2 / T``, ``(scenarios, nx - 1, ny - 1)``: the inner corners between walls,
                                        where it is zero (``n`` along periodic axes); held for a step
    ==========  ======================  ======================================================================

    Every velocity without divergence and without flow through walls has such a potential (in a box without periodic
    axes). Whoever moves the fluid so pays for the **force** between one velocity and the next,
    :meth:`force`: ``f dt = u_k - advected(u_{k-1})``.

    **State**: the dict above; a start with the marker alone is at rest.

    **Boundary conditions**: closed walls or periodic axes; the marker continues constantly beyond walls.

    **Scheme**: semi-Lagrangian or MacCormack advection over ``dt`` with the velocity in the cell centres; first order
    in time, stable for any ``dt``. The marker is bounded by its start, but its sum is **not conserved**: a search
    may make use of that, so look at it.

    **Source**: P. Holl, V. Koltun, N. Thuerey, "Learning to control PDEs with differentiable physics", ICLR 2020.

    **Good values**: ``Stirring(Grid((64, 64)), dt=1.0)`` with speeds up to a few cells per step.

    Args:
        grid: cells, extent and sides; two axes.
        dt: time step.
        scheme: ``"semi_lagrangian"`` or ``"mac_cormack"``.

    Raises:
        UsageError: for a grid of other than two axes, a ``dt`` that is not positive, an unknown scheme; at the start of
            a rollout, for a state of another shape; in a step, for a control that is missing or of another shape.
    """

    grid: Grid
    dt: float
    scheme: str = "semi_lagrangian"

    def __post_init__(self) -> None:
        require_positive("dt", self.dt)
        if len(self.grid.cells) != 2:
            raise UsageError(f"stirring needs a grid of two axes; found cells={self.grid.cells}.")
        if self.scheme not in SCHEMES:
            raise UsageError(f"schemes of advection are {', '.join(SCHEMES)}; found {self.scheme!r}.")

    @property
    def corners(self) -> tuple[int, ...]:
        """Shape of the potential."""
        return tuple(n if self.grid.periodic(axis) else n - 1 for axis, n in enumerate(self.grid.cells))

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the entries of a state, without the scenario axis."""
        return {
            "marker": self.grid.cells,
            "velocity_x": self.grid.faces(0),
            "velocity_y": self.grid.faces(1),
        }

    def start(self, initial: Tree, parameters: Mapping[str, Tensor]) -> State:
        """The state, its shapes checked; velocities that are missing are zero."""
        shapes = self.shapes
        if not isinstance(initial, dict) or "marker" not in initial or not set(initial) <= set(shapes):
            raise UsageError(
                f"the state of stirring is a dict with the marker and perhaps velocities; found {describe(initial)}."
            )
        for name, value in initial.items():
            if tuple(value.shape[1:]) != shapes[name]:
                raise UsageError(
                    f"{name} of this grid has the shape (scenarios, {', '.join(map(str, shapes[name]))}); "
                    f"found {tuple(value.shape)}."
                )
        marker = initial["marker"]
        return {
            name: initial[name] if name in initial else marker.new_zeros(len(marker), *shape)
            for name, shape in shapes.items()
        }

    def step(self, state: State, control: Tensor | None, coefficients: Any, noise: Tree, t: float) -> State:
        """Carry the marker along for ``dt``; see the class."""
        velocity = self.velocity(control)
        centred = to_centres(velocity, self.grid)
        travelled = [part * factor for part, factor in zip(centred, self._scale, strict=True)]
        marker = SCHEMES[self.scheme](state["marker"], travelled, beyond_centres(self.grid))
        return {"marker": marker, "velocity_x": velocity[0], "velocity_y": velocity[1]}

    def kernel(self, state: State, control: Tensor | None, noise: Tree, coefficients: Any) -> Kernel | None:
        """Compiled lookups, where numba is installed, on the CPU and in a single precision."""
        if control is None or not can_run(state, control) or not fits(self.corners, control, state):
            return None
        return StirringKernel(self.grid, self.dt, self.scheme)

    def velocity(self, control: Tensor | None) -> Faces:
        """The velocity of a potential on the free faces."""
        if control is None or tuple(control.shape[1:]) != self.corners:
            found = "none" if control is None else tuple(control.shape)
            raise UsageError(
                f"the control of stirring is a potential on the corners of the cells, (scenarios, "
                f"{', '.join(map(str, self.corners))}); found {found}."
            )
        return curl(control, self.grid)

    def force(self, state: State, control: Tensor) -> Faces:
        """``(u - advected(u_before)) / dt`` on the free faces, first order in time.

        ``u_before`` is the velocity in ``state``; it is advected by itself, semi-Lagrangian.
        """
        before: Faces = (state["velocity_x"], state["velocity_y"])
        centred = to_centres(before, self.grid)
        parts = []
        for axis, (new, old) in enumerate(zip(self.velocity(control), before, strict=True)):
            along = travelled_at_faces(before, centred, axis, self._scale, self.grid)
            parts.append(
                (new - advected("semi_lagrangian", old, along, beyond_faces(axis, self.grid))) / self.dt
            )
        return tuple(parts)

    @property
    def _scale(self) -> list[float]:
        return [self.dt / h for h in self.grid.spacing]
