r"""Operators on a staggered grid: differences, averages, lookups between points, advection.

Fields are tensors ``(scenarios, *shape)``, with the axes of :class:`~dpcontrol.sim.grid.Grid` last: markers and
pressures on cell centres, velocities as one tensor for each component on the free faces normal to it. All operators
are differentiable to any order, in forward and reverse mode. Sides are periodic or walls at rest; moving walls and
openings are those of ``flow_sides.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dpcontrol.linalg import Poisson, poisson
from dpcontrol.results import UsageError
from dpcontrol.sim.grid import Grid
from dpcontrol.sim.sides import FreeSlip, NoSlip

Faces = tuple[Tensor, ...]
Beyond = tuple[tuple[str, str], ...]  # for each axis and side: "zero", "edge" or "periodic"


# -- differences and averages ----------------------------------------------------------------------------------


def divergence(velocity: Faces, grid: Grid) -> Tensor:
    """``sum_a (v_a[right face] - v_a[left face]) / h_a`` in every cell; second order at cell centres."""
    total: Tensor | None = None
    for axis, (component, h) in enumerate(zip(velocity, grid.spacing, strict=True)):
        part = with_walls(component, axis, grid).diff(dim=axis + 1)
        part = part if h == 1 else part / h
        total = part if total is None else total + part
    assert total is not None
    return total


def gradient(field: Tensor, grid: Grid) -> Faces:
    """``(f[right cell] - f[left cell]) / h_a`` on every free face; minus the adjoint of :func:`divergence`."""
    parts = []
    for axis, h in enumerate(grid.spacing):
        left = field.narrow(axis + 1, -1, 1) if grid.periodic(axis) else None
        full = field if left is None else torch.cat((left, field), axis + 1)
        part = full.diff(dim=axis + 1)
        parts.append(part if h == 1 else part / h)
    return tuple(parts)


def with_walls(component: Tensor, axis: int, grid: Grid) -> Tensor:
    """A velocity component on all ``n + 1`` faces along its axis: with the walls, where it is zero, or wrapped."""
    if grid.periodic(axis):
        return torch.cat((component, component.narrow(axis + 1, 0, 1)), axis + 1)
    return torch.constant_pad_nd(component, _around(axis, component.ndim, 1))


def to_centres(velocity: Faces, grid: Grid) -> Faces:
    """Every component in the cell centres, the mean of two faces; second order."""
    return tuple(to_cells(part, axis, grid) for axis, part in enumerate(velocity))


def to_cells(component: Tensor, axis: int, grid: Grid) -> Tensor:
    """One component in the cell centres; the adjoint of :func:`to_faces`."""
    return _mean_of_neighbours(with_walls(component, axis, grid), axis + 1)


def to_faces(field: Tensor, axis: int, grid: Grid) -> Tensor:
    """A centred field on the free faces normal to ``axis``, the mean of two cells; second order."""
    if grid.periodic(axis):
        field = torch.cat((field.narrow(axis + 1, -1, 1), field), axis + 1)
    return _mean_of_neighbours(field, axis + 1)


def curl(potential: Tensor, grid: Grid) -> Faces:
    r"""Face velocities ``(d psi / dy, -d psi / dx)`` of a potential on the inner corners of a closed 2-D box.

    ``psi`` is ``(scenarios, nx - 1, ny - 1)`` and zero on the walls, so that no flow crosses them; the divergence
    is zero to rounding. On a periodic axis the corners are ``n``, at the left ends of the cells.
    """
    full = with_walls(with_walls(potential, 0, grid), 1, grid)
    hx, hy = grid.spacing
    x = full if grid.periodic(0) else full[:, 1:-1]
    y = full if grid.periodic(1) else full[:, :, 1:-1]
    x = x[:, :-1] if grid.periodic(0) else x
    y = y[:, :, :-1] if grid.periodic(1) else y
    return x.diff(dim=2) / hy, -y.diff(dim=1) / hx


# -- projection ----------------------------------------------------------------------------------------------------


def pressure_solver(grid: Grid, like: Tensor) -> Poisson:
    """The Poisson solver of :func:`projected`, for fields of the dtype and on the device of ``like``.

    Raises:
        UsageError: for a box with openings or moving walls.
    """
    require_closed(grid)
    sides = ["periodic" if grid.periodic(axis) else ("neumann", "neumann") for axis in range(len(grid.cells))]
    return poisson(grid.cells, grid.spacing, sides, dtype=like.dtype, device=like.device)


def projected(velocity: Faces, grid: Grid, solver: Poisson) -> Faces:
    r"""The closest velocity without divergence: ``v - grad p`` with ``div grad p = div v``.

    An orthogonal projection, exact up to rounding. (``p`` is the pressure times ``dt`` over the density.)
    """
    pressure = solver.solve(divergence(velocity, grid))
    return tuple(part - slope for part, slope in zip(velocity, gradient(pressure, grid), strict=True))


# -- lookups between points ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Lookup:
    """Where values are looked up: ``index`` of the lowest corner in the padded, flattened field, and the weights."""

    index: Tensor
    weights: tuple[Tensor, ...]
    padded: tuple[int, ...]


def lookup(displacement: Sequence[Tensor], shape: Sequence[int], beyond: Beyond) -> Lookup:
    """Prepare to look up a field ``(scenarios, *shape)`` at ``i + displacement``, in units of cells.

    The field continues beyond each side: ``"zero"`` (falling linearly to zero at the first missing point),
    ``"edge"`` (constant), ``"periodic"``. Displacements may be of any size.
    """
    flat: Tensor | None = None
    weights = []
    for axis, (offset, n) in enumerate(zip(displacement, shape, strict=True)):
        whole = torch.floor(offset.detach())
        weights.append(offset - whole)
        place = torch.arange(2, n + 2, device=offset.device).view(-1, *[1] * (len(shape) - axis - 1))
        place = place + whole.long()  # relative to its own cell: float32 loses no digits in long rows
        # Two ghost points on each side: an index clamped into the outermost interval finds equal values at both ends.
        # Indices are clamped rather than positions because the index of a NaN is arbitrary, and must stay inside.
        if beyond[axis][0] == "periodic":
            place = (place - 2).remainder(n) + 2
        else:
            place = place.clamp(0, n + 2)
        flat = place if flat is None else torch.add(place, flat, alpha=n + 4) if axis else place
    assert flat is not None
    return Lookup(flat, tuple(weights), tuple(n + 4 for n in shape))


def corner_values(field: Tensor, where: Lookup, beyond: Beyond) -> Tensor:
    """The values at the corners around each point, ``(scenarios, corners, *shape)``; the last axis varies fastest."""
    row = extended(field, beyond).flatten(1)
    offsets = [0]
    for axis in range(len(where.padded)):
        stride = 1
        for n in where.padded[axis + 1 :]:
            stride *= n
        offsets = [start + step for start in offsets for step in (0, stride)]
    index = where.index[:, None] + torch.tensor(offsets, device=field.device).view(
        -1, *[1] * (field.ndim - 1)
    )
    return row.gather(1, index.flatten(1)).view(index.shape)


def blended(corners: Tensor, where: Lookup) -> Tensor:
    """Multilinear interpolation between corner values."""
    for weight in where.weights:
        low, high = corners.chunk(2, 1)
        corners = torch.lerp(low, high, weight[:, None])
    return corners[:, 0]


def interpolated(field: Tensor, displacement: Sequence[Tensor], beyond: Beyond) -> Tensor:
    """Values of a field at ``i + displacement`` (units of cells), multilinear between its points.

    Continuous and piecewise smooth in the displacement: its derivative is that of the cell the point lies in.
    """
    where = lookup(displacement, field.shape[1:], beyond)
    return blended(corner_values(field, where, beyond), where)


# -- advection -----------------------------------------------------------------------------------------------------


def semi_lagrangian(field: Tensor, travelled: Sequence[Tensor], beyond: Beyond) -> Tensor:
    """The field where each point was ``dt`` ago: looked up at ``x - u dt``; first order, stable for any ``dt``.

    Args:
        field: ``(scenarios, *shape)``.
        travelled: ``u dt / h`` at the points of the field, one tensor of its shape for each axis.
        beyond: how the field continues beyond the sides.
    """
    return interpolated(field, [-part for part in travelled], beyond)


def mac_cormack(field: Tensor, travelled: Sequence[Tensor], beyond: Beyond, strength: float = 1.0) -> Tensor:
    """Semi-Lagrangian advection, corrected by half of what a step forth and back changes; second order in space.

    The corrected value is clamped between the corner values of the cell that the point was traced back to, so that
    there are no new extrema; that costs the order at extrema. Clamped values jump where the point crosses into another
    cell, whose corners are others: the result is not continuous in ``travelled``.

    Source: A. Selle, R. Fedkiw, B. Kim, Y. Liu, J. Rossignac, J. Sci. Comput. 35 (2008) 350, sections 3 and 4.
    """
    behind = lookup([-part for part in travelled], field.shape[1:], beyond)
    corners = corner_values(field, behind, beyond)
    moved = blended(corners, behind)
    returned = interpolated(moved, travelled, beyond)
    corrected = torch.add(moved, field - returned, alpha=0.5 * strength)
    low, high = torch.aminmax(corners, dim=1)
    # torch.clamp drops the derivative where low == high, which is where the marker is constant around a point
    return torch.maximum(low, torch.minimum(corrected, high))


SCHEMES = {"semi_lagrangian": semi_lagrangian, "mac_cormack": mac_cormack}


def beyond_centres(grid: Grid) -> Beyond:
    """How a centred field continues: with its outermost value (no flux through walls), or around."""
    return tuple(
        ("periodic", "periodic") if grid.periodic(axis) else ("edge", "edge")
        for axis in range(len(grid.cells))
    )


def beyond_faces(axis: int, grid: Grid) -> Beyond:
    """How the velocity component along ``axis`` continues beyond each side."""
    found = []
    for other in range(len(grid.cells)):
        if grid.periodic(other):
            found.append(("periodic", "periodic"))
        elif other == axis:
            found.append(("zero", "zero"))  # the wall itself is the first missing face
        else:
            left, right = ("edge" if isinstance(side, FreeSlip) else "zero" for side in grid.pair(other))
            found.append((left, right))
    return tuple(found)


def require_closed(grid: Grid) -> None:
    """Refuse openings and moving walls."""
    for axis in range(len(grid.cells)):
        for side in () if grid.periodic(axis) else grid.pair(axis):
            if not isinstance(side, FreeSlip) and side != NoSlip():
                raise UsageError(
                    f"smoke and stirring know periodic axes and walls at rest; found {side!r}: IncompressibleFlow "
                    "takes moving walls and openings."
                )


def travelled_at_faces(
    velocity: Faces, centred: Faces, axis: int, scale: Sequence[float], grid: Grid
) -> Faces:
    """``u dt / h`` on the faces normal to ``axis``; ``centred`` is the velocity in cell centres."""
    return tuple(
        (velocity[other] if other == axis else to_faces(centred[other], axis, grid)) * factor
        for other, factor in enumerate(scale)
    )


# -- the pieces ------------------------------------------------------------------------------------------------------


def _mean_of_neighbours(field: Tensor, dim: int) -> Tensor:
    n = field.shape[dim]
    return torch.lerp(field.narrow(dim, 0, n - 1), field.narrow(dim, 1, n - 1), 0.5)


def _around(axis: int, ndim: int, width: int) -> list[int]:
    """The padding of torch that widens one axis of the grid on both sides."""
    pads = [0] * (2 * (ndim - 1))
    last = ndim - 2 - axis
    pads[2 * last] = pads[2 * last + 1] = width
    return pads


def extended(field: Tensor, beyond: Beyond) -> Tensor:
    """Two ghost points on each side of every axis."""
    if all(pair == ("zero", "zero") for pair in beyond):
        return torch.constant_pad_nd(field, [2, 2] * len(beyond))
    for axis, pair in enumerate(beyond, start=1):
        n = field.shape[axis]
        sides = []
        for kind, end, wrapped in ((pair[0], 0, n - 2), (pair[1], n - 1, 0)):
            if kind == "periodic":
                sides.append(field.narrow(axis, wrapped, 2))
            else:
                edge = field.narrow(axis, end, 1)
                edge = edge if kind == "edge" else torch.zeros_like(edge)
                sides.append(torch.cat((edge, edge), axis))
        field = torch.cat((sides[0], field, sides[1]), axis)
    return field
