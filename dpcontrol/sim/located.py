r"""Fields that know where on a grid they live, for diagnostics: a sum of values from different places is an error.

States stay dicts of plain tensors; ``Smoke.fields(state)`` and ``IncompressibleFlow.fields(state)`` hand out these.
Everything here is out of place, batched over scenarios, and differentiable to any order.
"""

from __future__ import annotations

import numbers
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dpcontrol.results import UsageError
from dpcontrol.sim.base import Value, align
from dpcontrol.sim.flow_operators import centred_on_faces
from dpcontrol.sim.grid import AXES, Grid
from dpcontrol.sim.sides import FixedFlux, FixedValue, Side
from dpcontrol.tree import describe

Operation = Callable[[Tensor, "Value"], Tensor]
OnSide = Callable[[Side, Tensor, Tensor], Tensor]  # of a side, the cell at it and the next


@dataclass(frozen=True, eq=False)
class Field:
    """Values on a grid, and where on it they are.

    Fields of one grid and place are added, subtracted, multiplied and divided point by point; so are a field and a
    number, or one number for each scenario.

    =============  =================================================  ==========================================
    place          points along each axis, spacing ``h``              shape of ``values`` behind the scenarios
    =============  =================================================  ==========================================
    ``"centre"``   ``(i + 1/2) h``                                    ``n`` along each axis
    ``"face_x"``   ``i h`` along x, ``(i + 1/2) h`` along the others  ``n + 1`` along x (``n`` if periodic), else ``n``
    ``"corner"``   ``i h``, in two dimensions                         ``n + 1`` along each axis (``n`` if periodic)
    =============  =================================================  ==========================================

    Faces on walls and inflows are among them, other than in a state, which has the free ones only:
    :func:`~dpcontrol.sim.located_operators.velocity_fields` goes there, :meth:`free` back.

    Args:
        values: ``(scenarios, *shape)``.
        grid: cells, extent and sides.
        place: ``"centre"``, ``"face_x"``, ``"face_y"``, ``"face_z"`` or ``"corner"``.

    Raises:
        UsageError: for a place that the grid does not have, or values of another shape; in arithmetic, for fields of
            another place, grid or number of scenarios, and for tensors that are not one number for each scenario.
    """

    __array_ufunc__ = None  # numbers of numpy leave arithmetic to this class

    values: Tensor
    grid: Grid
    place: str

    def __post_init__(self) -> None:
        _known(self.place, self.grid)
        shape = self.shape
        if not isinstance(self.values, Tensor) or tuple(self.values.shape[1:]) != shape:
            hint = "" if self.place == "centre" else ": for the velocities of a state take velocity_fields"
            raise UsageError(
                f"values at {self.place} of this grid are a tensor (scenarios, {', '.join(map(str, shape))}); found "
                f"{describe(self.values)}{hint}."
            )

    @property
    def on_nodes(self) -> tuple[bool, ...]:
        """For each axis whether the points are at ``i h``, between the cells."""
        return places(self.grid)[self.place]

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of points along each axis."""
        return tuple(map(len, _rows(self.grid, self.on_nodes)))

    def coordinates(self) -> tuple[Tensor, ...]:
        """Where the values are: one tensor of the field's ``shape`` for each axis, in its dtype and on its device."""
        rows = _rows(self.grid, self.on_nodes)
        return torch.meshgrid(*(row.to(self.values) for row in rows), indexing="ij")

    @staticmethod
    def sampled(function: Callable[..., Tensor], grid: Grid, place: str) -> Field:
        """A function of the coordinates at the points of a place, one scenario, float64.

        ``Field.sampled(lambda x, y: 1 - y**2, grid, "face_x").free()`` is a ``velocity_x`` to start from.
        """
        points = torch.meshgrid(*_rows(grid, _known(place, grid)), indexing="ij")
        found = torch.as_tensor(function(*points), dtype=torch.float64)
        return Field(found.expand(points[0].shape)[None], grid, place)

    def with_sides(self, *sides: object) -> Field:
        """The same values where a scalar meets other sides, ``with_sides((FixedValue(1.0), FixedFlux()), "periodic")``.

        Raises:
            UsageError: for another number of sides than axes, or unknown ones; where an axis becomes periodic, or no
                longer is, for values that are not in the cell centres.
        """
        return replace(self, grid=replace(self.grid, sides=sides))  # type: ignore[arg-type]

    # -- between places --------------------------------------------------------------------------------------------

    def to_centres(self) -> Field:
        """In the cell centres: the mean of the nearest two faces, or four corners; second order."""
        values = self.values
        for axis, node in enumerate(self.on_nodes):
            if node:
                values = _mean(wrapped(values, axis, self.grid), axis + 1)
        return Field(values, self.grid, "centre")

    def to_faces(self, axis: str) -> Field:
        """From the cell centres to all faces normal to ``axis`` (``"x"``, ...): the mean of two cells, second order.

        On a ``FixedValue`` side that value; on ``FixedFlux`` the nearest cell and half a cell of slope, second
        order; on walls and openings the nearest cell, second order if the field has no slope there, else first.

        Raises:
            UsageError: for a field elsewhere, or an unknown axis.
        """
        self.require("centre", "to_faces")
        if axis not in self.grid.axes:
            raise UsageError(f"the axes of this grid are {', '.join(self.grid.axes)}; found {axis!r}.")
        number = AXES.index(axis)
        h = self.grid.spacing[number]

        def on_side(side: Side, cell: Tensor, _: Tensor) -> Tensor:
            if isinstance(side, FixedValue):
                return torch.full_like(cell, side.value)
            return cell + 0.5 * h * side.slope if isinstance(side, FixedFlux) else cell

        inner = centred_on_faces(self.values, number, self.grid)
        return Field(
            closed(inner, self.values, number, self.grid, (on_side, on_side)), self.grid, f"face_{axis}"
        )

    def free(self) -> Tensor:
        """The values on the free faces, as a state holds them; all values of a field elsewhere."""
        if not self.place.startswith("face"):
            return self.values
        axis = self.on_nodes.index(True)
        first, behind = self.grid.free(axis)
        return self.values.narrow(axis + 1, first, behind - first)

    def integral(self) -> Tensor:
        """Over the box, ``(scenarios,)``: midpoint rule along cells, trapezoidal along nodes; second order."""
        values = self.values
        for axis, (node, h) in enumerate(zip(self.on_nodes, self.grid.spacing, strict=True)):
            if node:
                values = _mean(wrapped(values, axis, self.grid), axis + 1)
            values = values * h
        return values.flatten(1).sum(1)

    # -- arithmetic ------------------------------------------------------------------------------------------------

    def __add__(self, other: Field | Value) -> Field:
        return self._joined(other, operator.add)

    def __radd__(self, other: Value) -> Field:
        return self._joined(other, operator.add)

    def __sub__(self, other: Field | Value) -> Field:
        return self._joined(other, operator.sub)

    def __rsub__(self, other: Value) -> Field:
        return self._joined(other, lambda own, given: given - own)

    def __mul__(self, other: Field | Value) -> Field:
        return self._joined(other, operator.mul)

    def __rmul__(self, other: Value) -> Field:
        return self._joined(other, operator.mul)

    def __truediv__(self, other: Field | Value) -> Field:
        return self._joined(other, operator.truediv)

    def __rtruediv__(self, other: Value) -> Field:
        return self._joined(other, lambda own, given: given / own)

    def __neg__(self) -> Field:
        return replace(self, values=-self.values)

    def _joined(self, other: Field | Value, operation: Operation) -> Field:
        count = len(self.values)
        if isinstance(other, Field):
            if other.place != self.place:
                raise UsageError(
                    f"fields are joined point by point where they live; found {self.place} and {other.place}: move one "
                    "with to_centres() or to_faces(axis)."
                )
            if other.grid != self.grid:
                raise UsageError(
                    f"fields are joined point by point on one grid; found {self.grid} and {other.grid}."
                )
            if len({count, len(other.values)} - {1}) > 1:
                raise UsageError(
                    f"fields are joined scenario by scenario; found {count} and {len(other.values)} scenarios."
                )
            return replace(self, values=operation(self.values, other.values))
        if isinstance(other, Tensor) and (other.ndim > 1 or (count > 1 and other.numel() not in (1, count))):
            raise UsageError(
                f"a tensor that meets a field is a number or one for each of its {count} scenarios; found the shape "
                f"{tuple(other.shape)}: say where its values live, Field(values, grid, place)."
            )
        if not isinstance(other, Tensor | numbers.Real):
            raise UsageError(f"a field meets fields, numbers and tensors; found {type(other).__name__}.")
        return replace(self, values=operation(self.values, align(other, self.values)))

    def require(self, place: str, name: str) -> None:
        """Refuse a field elsewhere, in the name of an operator."""
        if self.place != place:
            raise UsageError(f"{name} takes a field at {place}; found one at {self.place}.")


def places(grid: Grid) -> dict[str, tuple[bool, ...]]:
    """The places of a grid's fields; for each axis whether their points are at ``i h``, between the cells."""
    count = len(grid.cells)
    found = {"centre": (False,) * count}
    found |= {f"face_{name}": tuple(name == other for other in grid.axes) for name in grid.axes}
    return {**found, "corner": (True, True)} if count == 2 else found


# -- the pieces ----------------------------------------------------------------------------------------------------


def _known(place: str, grid: Grid) -> tuple[bool, ...]:
    wanted = places(grid)
    if place not in wanted:
        raise UsageError(
            f"a field on a grid with {len(grid.cells)} axes lives at one of {', '.join(wanted)}; found {place!r}."
        )
    return wanted[place]


def _rows(grid: Grid, on_nodes: Sequence[bool]) -> list[Tensor]:
    """Coordinates along each axis."""
    found = []
    for axis, (n, node, h) in enumerate(zip(grid.cells, on_nodes, grid.spacing, strict=True)):
        count = n + int(node and not grid.periodic(axis))
        found.append((torch.arange(count, dtype=torch.float64) + (0.0 if node else 0.5)) * h)
    return found


def wrapped(values: Tensor, axis: int, grid: Grid) -> Tensor:
    """Values on nodes ``0 .. n`` along an axis: of a periodic one the first again at its end."""
    return torch.cat((values, values.narrow(axis + 1, 0, 1)), axis + 1) if grid.periodic(axis) else values


def closed(inner: Tensor, cells: Tensor, axis: int, grid: Grid, on_sides: tuple[OnSide, OnSide]) -> Tensor:
    """Values on the free faces along an axis, and with rules for those on the sides that are not free."""
    if grid.periodic(axis):
        return inner
    dim, n = axis + 1, grid.cells[axis]
    first, behind = grid.free(axis)
    left, right = grid.pair(axis)
    parts = [inner]
    if first == 1:
        parts.insert(0, on_sides[0](left, cells.narrow(dim, 0, 1), cells.narrow(dim, 1, 1)))
    if behind == n:
        parts.append(on_sides[1](right, cells.narrow(dim, n - 1, 1), cells.narrow(dim, n - 2, 1)))
    return torch.cat(parts, dim)


def _mean(values: Tensor, dim: int) -> Tensor:
    n = values.shape[dim] - 1
    return torch.lerp(values.narrow(dim, 0, n), values.narrow(dim, 1, n), 0.5)
