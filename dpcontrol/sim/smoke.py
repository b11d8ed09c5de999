"""Incompressible flow with a buoyant marker on a staggered grid: smoke in a box."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dpcontrol.kernels import Kernel
from dpcontrol.kernels.native import can_run
from dpcontrol.results import UsageError
from dpcontrol.sim.base import Simulator, Value, align, require_positive
from dpcontrol.sim.grid import Grid
from dpcontrol.sim.located import Field
from dpcontrol.sim.located_operators import velocity_fields
from dpcontrol.sim.smoke_kernel import SmokeKernel, fits
from dpcontrol.sim.staggered import (
    SCHEMES,
    Faces,
    beyond_centres,
    beyond_faces,
    pressure_solver,
    projected,
    to_centres,
    to_faces,
    travelled_at_faces,
)
from dpcontrol.tree import Tree, describe

State = dict[str, Tensor]


@dataclass(frozen=True)
class Smoke(Simulator):
    r"""Inviscid incompressible flow that carries a marker (smoke, heat), which lifts it.

    .. math::
        s_t + u \cdot \nabla s = q, \qquad
        u_t + u \cdot \nabla u = -\nabla p + b s \, e_y + F, \qquad
        \nabla \cdot u = 0

    ==========  ==========================  ================================================================
    symbol      name                        unit (length ``L``, time ``T``, amount of marker ``S``)
    ==========  ==========================  ================================================================
    ``s``       state["marker"]             ``S``, ``(scenarios, nx, ny)``, cell centres
    ``u``       state["velocity_x"] ...     ``L / T``, ``(scenarios, nx - 1, ny)``, ``(scenarios, nx, ny - 1)``: the
                                            free faces between walls (``n`` along periodic axes), see :class:`Grid`
    ``F``       control                     ``L / T^2``, ``(scenarios, axes, nx, ny)``, cell centres, held for a step
    ``b``       buoyancy                    ``L / T^2 / S``
    ``q``       inflow                      ``S / T``, a number or a field ``(scenarios, nx, ny)``
    ``p``                                   ``L^2 / T^2``, pressure over density
    ==========  ==========================  ================================================================

    **State**: the dict above; in three dimensions with ``nz`` and ``velocity_z``. ``y`` points upwards (``x`` in one
    dimension makes no sense and is refused). A start without ``marker`` has clean air, one without velocities is at
    rest; so that one of both can be sought alone.

    **Boundary conditions**: those of the grid: closed walls (no-slip or free-slip) or periodic axes; the marker
    continues constantly beyond walls.

    **Scheme**: one step, first order in time,

    1. marker: ``marker_scheme`` with the velocity of the beginning of the step, then ``+ dt q``;
    2. velocity: ``velocity_scheme`` by itself, then ``+ dt (b s e_y + F)`` with the *new* marker, averaged to faces;
    3. the exact orthogonal projection onto velocities without divergence.

    The velocity given at the start need not be free of divergence: the first advection uses it as it is.
    Advection is stable for any ``dt``; accuracy asks for ``u dt / h`` of about one, and ``b s dt^2 / h`` well below.
    The marker is not conserved exactly (semi-Lagrangian advection is no flux form). Kinks: the derivative jumps where a
    back-traced point crosses a cell centre and where MacCormack's clamping sets in. Clamped values themselves jump
    where the point crosses into another cell, so that losses are continuous with ``"semi_lagrangian"`` only.

    **Speed**: on the CPU, with Numba installed, rollouts go through compiled loops and keep their states only
    (:mod:`dpcontrol.sim.smoke_kernel`): a gradient costs about half; per cell 1.7 times as much in 3-D as in 2-D.

    **Parameters**: ``buoyancy``, ``inflow``.

    **Source**: J. Stam, "Stable fluids", SIGGRAPH 1999, section 3; A. Selle et al., J. Sci. Comput. 35 (2008) 350
    (MacCormack).

    **Good values**: ``Smoke(Grid((32, 40)), dt=1.0)``, an inflow of 1/3 in a disc of a few cells, 20 steps.

    Args:
        grid: cells, extent and sides.
        dt: time step.
        buoyancy: ``b``, of either sign.
        inflow: ``q``; usually given by the scenarios, as an entry ``inflow``.
        marker_scheme, velocity_scheme: ``"mac_cormack"`` (second order in space) or ``"semi_lagrangian"``.

    Raises:
        UsageError: for a one-dimensional grid, a ``dt`` that is not positive, an unknown scheme; at the start of a
            rollout, for a state with other entries or shapes; in a step, for a control of another shape.
    """

    grid: Grid
    dt: float
    buoyancy: Value = 1.0
    inflow: Value = 0.0
    marker_scheme: str = "mac_cormack"
    velocity_scheme: str = "semi_lagrangian"

    def __post_init__(self) -> None:
        require_positive("dt", self.dt)
        if len(self.grid.cells) < 2:
            raise UsageError(
                f"smoke needs a grid of two or three axes, y upwards; found cells={self.grid.cells}."
            )
        for scheme in (self.marker_scheme, self.velocity_scheme):
            if scheme not in SCHEMES:
                raise UsageError(f"schemes of advection are {', '.join(SCHEMES)}; found {scheme!r}.")

    @property
    def parameters(self) -> Mapping[str, Value]:
        return {"buoyancy": self.buoyancy, "inflow": self.inflow}

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the velocity components in the state."""
        return tuple(f"velocity_{axis}" for axis in self.grid.axes)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the entries of a state, without the scenario axis."""
        faces = {name: self.grid.faces(axis) for axis, name in enumerate(self.names)}
        return {"marker": self.grid.cells, **faces}

    def start(self, initial: Tree, parameters: Mapping[str, Tensor]) -> State:
        """The state, its shapes checked; entries that are missing are zero."""
        shapes = self.shapes
        if not isinstance(initial, dict) or not initial or not set(initial) <= set(shapes):
            raise UsageError(
                f"the state of smoke is a dict with some of {', '.join(shapes)}; found {describe(initial)}."
            )
        for name, value in initial.items():
            if tuple(value.shape[1:]) != shapes[name]:
                raise UsageError(
                    f"{name} of this grid has the shape (scenarios, {', '.join(map(str, shapes[name]))}); "
                    f"found {tuple(value.shape)}."
                )
        given = next(iter(initial.values()))
        return {
            name: initial[name] if name in initial else given.new_zeros(len(given), *shape)
            for name, shape in shapes.items()
        }

    def prepare(self, parameters: Mapping[str, Tensor], scenario: Mapping[str, Tree]) -> dict[str, Any]:
        """Everything times ``dt``, and the tables of the pressure solver."""
        template = parameters["buoyancy"]
        return {
            "lift": template * self.dt,
            "inflow": parameters["inflow"] * self.dt,
            "solver": pressure_solver(self.grid, template),
        }

    def step(
        self, state: State, control: Tensor | None, coefficients: Mapping[str, Any], noise: Tree, t: float
    ) -> State:
        """Advect, let marker flow in, lift, push, project; see the class."""
        grid = self.grid
        velocity: Faces = tuple(state[name] for name in self.names)
        centred = to_centres(velocity, grid)
        scale = [self.dt / h for h in grid.spacing]
        travelled = [part * factor for part, factor in zip(centred, scale, strict=True)]
        marker = SCHEMES[self.marker_scheme](state["marker"], travelled, beyond_centres(grid))
        marker = marker + align(coefficients["inflow"], marker)
        lift = marker * align(coefficients["lift"], marker)
        pushed = []
        for axis, part in enumerate(velocity):
            along = travelled_at_faces(velocity, centred, axis, scale, grid)
            moved = SCHEMES[self.velocity_scheme](part, along, beyond_faces(axis, grid))
            force = self._force(lift if axis == 1 else None, control, axis)
            pushed.append(moved if force is None else moved + to_faces(force, axis, grid))
        free = projected(tuple(pushed), grid, coefficients["solver"])
        return {"marker": marker, **dict(zip(self.names, free, strict=True))}

    def fields(self, state: State) -> dict[str, Field]:
        """``marker`` in the centres, ``velocity_x`` ... on all faces, in the plane ``vorticity`` on the corners.

        Of a state at one moment, ``(scenarios, *shape)``.
        """
        velocity = tuple(state[name] for name in self.names)
        return {
            "marker": Field(state["marker"], self.grid, "centre"),
            **velocity_fields(velocity, self.grid),
        }

    def kernel(self, state: State, control: Tensor | None, noise: Tree, coefficients: Any) -> Kernel | None:
        """Compiled lookups, where numba is installed, on the CPU and in a single precision."""
        plain = can_run(state, control, coefficients["lift"], coefficients["inflow"])
        if not plain or not fits((len(self.grid.cells), *self.grid.cells), control, state):
            return None
        return SmokeKernel(self.grid, self.dt, self.names, self.marker_scheme, self.velocity_scheme)

    def _force(self, lift: Tensor | None, control: Tensor | None, axis: int) -> Tensor | None:
        """Lift and control along an axis, times ``dt``, in the cell centres."""
        if control is None:
            return lift
        wanted = (len(self.grid.cells), *self.grid.cells)
        if tuple(control.shape[1:]) != wanted:
            raise UsageError(
                f"the control is a force in the cell centres, (scenarios, {', '.join(map(str, wanted))}); "
                f"found {tuple(control.shape)}."
            )
        push = control[:, axis]
        return push * self.dt if lift is None else torch.add(lift, push, alpha=self.dt)
