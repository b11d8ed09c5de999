r"""Gradient, divergence, Laplacian and vorticity of fields that know where they live, and velocities as such fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from dpcontrol.results import UsageError
from dpcontrol.sim.base import Value
from dpcontrol.sim.flow_pressure import gradient_of
from dpcontrol.sim.flow_sides import extended, on_all_faces, side_rules
from dpcontrol.sim.grid import Grid
from dpcontrol.sim.located import Field, OnSide, closed, wrapped
from dpcontrol.sim.sides import FixedFlux, FixedValue, Side
from dpcontrol.tree import describe


def gradient(field: Field) -> tuple[Field, ...]:
    r"""``(f[right cell] - f[left cell]) / h_a`` on all faces, one field for each axis; second order inside.

    On the sides:

    - ``FixedFlux(slope)``: the given slope, exact;
    - ``FixedValue(g)``: ``(9 f_0 - f_1 - 8 g) / (3 h)``, as with the ghost value ``(8 g - 6 f_0 + f_1) / 3`` of the
      parabola through the side and two cells; second order;
    - walls and inflows: 0, and on an outflow ``f = 0``, so ``-+ 2 f_0 / h``, first order: what the pressure of a flow
      does there. For a scalar that does otherwise say so: :meth:`Field.with_sides`.

    Periodic, or between walls, inflows and outflows, minus the adjoint of :func:`divergence`, with the weights of
    :meth:`Field.integral`, among velocities that vanish on walls and inflows.

    Raises:
        UsageError: for a field that is not in the cell centres.
    """
    field.require("centre", "gradient")
    grid, found = field.grid, []
    for axis, inner in enumerate(gradient_of(field.values, grid)):
        h = grid.spacing[axis]

        def outwards(side: Side, cell: Tensor, second: Tensor, h: float = h) -> Tensor:
            if isinstance(side, FixedFlux):
                return torch.full_like(cell, side.slope)
            if isinstance(side, FixedValue):
                return (8 * side.value - 9 * cell + second) / (3 * h)
            return torch.zeros_like(cell)

        def inwards(side: Side, cell: Tensor, second: Tensor, rule: OnSide = outwards) -> Tensor:
            return -rule(side, cell, second)

        values = closed(inner, field.values, axis, grid, (inwards, outwards))
        found.append(Field(values, grid, f"face_{grid.axes[axis]}"))
    return tuple(found)


def divergence(faces: Sequence[Field]) -> Field:
    """``sum_a (v_a[right face] - v_a[left face]) / h_a`` in every cell; second order at the cell centres.

    Of :func:`gradient` the Laplacian. No side enters: what flows through them is among the values.

    Raises:
        UsageError: for anything else than one field for each axis, on its faces.
    """
    grid = _grid_of(faces, "divergence")
    total: Tensor | float = 0.0
    for axis, (part, h) in enumerate(zip(faces, grid.spacing, strict=True)):
        total = total + wrapped(part.values, axis, grid).diff(dim=axis + 1) / h
    assert isinstance(total, Tensor)
    return Field(total, grid, "centre")


def laplacian(field: Field) -> Field:
    r"""``div grad f`` in every cell, by the nearest cells: :func:`divergence` of :func:`gradient`; second order inside.

    In the cells at a ``FixedValue`` or ``FixedFlux`` side the error is first order in ``h``; solutions of
    ``lap f = b`` or ``f_t = lap f`` with these sides are second order everywhere. At an outflow, ``f = 0``, the error
    in the outermost cells does not vanish with ``h`` unless ``f_xx`` does there, as usual; again solutions are second
    order. (The solvers of :mod:`dpcontrol.linalg` and ``WalledHeat`` take that simpler row at fixed values too, for
    its symmetry.)

    Raises:
        UsageError: for a field that is not in the cell centres.
    """
    field.require("centre", "laplacian")
    return divergence(gradient(field))


def curl(faces: Sequence[Field], factors: Mapping[str, Value] | None = None) -> Field:
    """Vorticity ``dv/dx - du/dy`` of a velocity on all corners of a two-dimensional grid; second order inside.

    On the sides the velocity continues as they ask, by ghost values: no shear on free slip and outflow, second order;
    on no-slip sides and inflows the slope over the outermost half cell, first order.

    Args:
        faces: ``(u, v)``.
        factors: of the speeds that moving walls name, ``{"walls": ...}``; by default 1.

    Raises:
        UsageError: for another number of axes than two, other places, or sides of scalars (``FixedValue``).
    """
    grid = _grid_of(faces, "curl")
    if len(grid.cells) != 2:
        raise UsageError(f"curl takes the two components of a flow in a plane; found cells={grid.cells}.")
    rules = side_rules(grid, faces[0].values, _tensors(factors, faces[0].values))
    slopes = []
    for axis, other in ((1, 0), (0, 1)):
        across = [None if index == axis else rules[axis][index] for index in range(2)]
        wide = extended(faces[axis].values, axis, across, around=False)
        if grid.periodic(other):
            wide = torch.cat((wide.narrow(other + 1, -1, 1), wide), other + 1)
        slopes.append(wide.diff(dim=other + 1) / grid.spacing[other])
    return Field(slopes[0] - slopes[1], grid, "corner")


def velocity_fields(
    velocity: Sequence[Tensor], grid: Grid, factors: Mapping[str, Value] | None = None
) -> dict[str, Field]:
    """A velocity as fields: ``velocity_x`` ... on all faces, in two dimensions also its ``vorticity`` on the corners.

    Args:
        velocity: its components on the free faces, as states hold them, each ``(scenarios, *grid.faces(axis))``.
        grid: cells, extent and sides.
        factors: of the given speeds, ``"inflow"`` and ``"walls"``, numbers or one for each scenario; by default 1.

    Raises:
        UsageError: for other shapes, or sides of scalars (``FixedValue``, ``FixedFlux``).
    """
    wanted = [grid.faces(axis) for axis in range(len(grid.cells))]
    if [tuple(part.shape[1:]) for part in velocity] != wanted:
        raise UsageError(
            f"the velocity on this grid has components (scenarios, *shape) of shapes {', '.join(map(str, wanted))}; "
            f"found {describe(tuple(velocity))}."
        )
    rules = side_rules(grid, velocity[0], _tensors(factors, velocity[0]))
    found = {}
    for axis, (name, part) in enumerate(zip(grid.axes, velocity, strict=True)):
        full = part if grid.periodic(axis) else on_all_faces(part, axis, rules[axis], grid)
        found[f"velocity_{name}"] = Field(full, grid, f"face_{name}")
    return {**found, "vorticity": curl(tuple(found.values()), factors)} if len(wanted) == 2 else found


def _tensors(factors: Mapping[str, Value] | None, like: Tensor) -> dict[str, Tensor]:
    return {name: torch.as_tensor(value).to(like) for name, value in (factors or {}).items()}


def _grid_of(faces: Sequence[Field], name: str) -> Grid:
    if not isinstance(faces, list | tuple) or not faces or not all(isinstance(f, Field) for f in faces):
        raise UsageError(
            f"{name} takes a tuple of fields on faces, one for each axis; found {describe(faces)}."
        )
    grid = faces[0].grid
    wanted = [f"face_{axis}" for axis in grid.axes]
    if [part.place for part in faces] != wanted or any(part.grid != grid for part in faces):
        found = ", ".join(part.place for part in faces)
        raise UsageError(f"{name} takes fields at {', '.join(wanted)} of one grid; found {found}.")
    return grid
