"""A box of cells, and what its sides are."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from dpcontrol.results import UsageError
from dpcontrol.sim.sides import Named, NoSlip, Outflow, Periodic, Side, named

AXES = "xyz"


@dataclass(frozen=True)
class Grid:
    """A uniform grid in one, two or three dimensions; axes are ``x, y, z``, in this order.

    Pressure and markers live at the cell centres ``(i + 1/2) h``; each component of a velocity on the faces that it
    is normal to. A state holds only the faces whose velocity is free, see :meth:`free`: ``n - 1`` along an axis between
    two walls, where entry ``i`` is the face at ``(i + 1) h``; one more for each open side; ``n`` along a periodic
    axis, where entry ``i`` is the face at ``i h``.

    Args:
        cells: number of cells along each axis.
        extent: length of the box along each axis; by default cells have size 1.
        sides: for each axis ``Periodic()`` or a pair (left, right) of the values in ``sim/sides.py``, or a shorthand:

            - ``"periodic"``,
            - ``"no_slip"``, ``NoSlip(velocity)``: a wall that the fluid sticks to, at rest or moving along itself,
            - ``"free_slip"``, ``FreeSlip()``: a wall without friction,
            - ``"inflow"``, ``Inflow(speed)``: a given velocity straight into the box,
            - ``"outflow"``, ``Outflow()``: an opening, pressure zero;

            by default all sides are no-slip walls at rest.

    Raises:
        UsageError: for sizes that are not positive, another number of entries than axes, or an unknown side.
    """

    cells: tuple[int, ...]
    extent: tuple[float, ...] = ()
    sides: tuple[Named | tuple[Named, Named], ...] = ()

    def __post_init__(self) -> None:
        count = len(self.cells)
        if not 1 <= count <= 3 or any(not isinstance(n, int) or n < 2 for n in self.cells):
            raise UsageError(
                f"a grid has one to three axes with at least 2 cells each; found cells={self.cells!r}."
            )
        object.__setattr__(self, "extent", self.extent or tuple(float(n) for n in self.cells))
        object.__setattr__(self, "sides", self.sides or ((NoSlip(), NoSlip()),) * count)
        if len(self.extent) != count or len(self.sides) != count:
            raise UsageError(
                f"extent and sides need one entry for each of the {count} axes; found {self.extent!r} and "
                f"{self.sides!r}."
            )
        if not all(math.isfinite(length) and length > 0 for length in self.extent):
            raise UsageError(f"extent must be positive and finite lengths; found {self.extent!r}.")
        object.__setattr__(self, "sides", tuple(named(given) for given in self.sides))

    @property
    def axes(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(AXES[: len(self.cells)])

    @property
    def spacing(self) -> tuple[float, ...]:
        """Size of a cell along each axis."""
        return tuple(length / n for length, n in zip(self.extent, self.cells, strict=True))

    def periodic(self, axis: int) -> bool:
        """Whether both ends of an axis are the same place."""
        return isinstance(self.sides[axis], Periodic)

    def pair(self, axis: int) -> tuple[Side, Side]:
        """The sides at the left and the right end of an axis that is not periodic."""
        found = self.sides[axis]
        assert isinstance(found, tuple)
        return found  # type: ignore[return-value]

    def free(self, axis: int) -> tuple[int, int]:
        """The first, and one behind the last, of the faces ``0 .. n`` along an axis whose velocity is free."""
        n = self.cells[axis]
        if self.periodic(axis):
            return 0, n
        left, right = self.pair(axis)
        return int(not isinstance(left, Outflow)), n + int(isinstance(right, Outflow))

    def faces(self, axis: int) -> tuple[int, ...]:
        """Shape of the velocity component along ``axis``."""
        first, behind = self.free(axis)
        return tuple(behind - first if index == axis else n for index, n in enumerate(self.cells))

    def places(self, component: int | None, axis: int) -> Tensor:
        """Coordinates along ``axis`` of a velocity component's free points (of the cell centres for ``None``)."""
        h = self.spacing[axis]
        if component == axis:
            return torch.arange(*self.free(axis), dtype=torch.float64) * h
        return (torch.arange(self.cells[axis], dtype=torch.float64) + 0.5) * h

    def centres(self, dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
        """Coordinates of the cell centres, one tensor of the grid's shape for each axis."""
        rows = [
            (torch.arange(n, dtype=dtype) + 0.5) * h for n, h in zip(self.cells, self.spacing, strict=True)
        ]
        return torch.meshgrid(*rows, indexing="ij")
