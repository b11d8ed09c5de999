"""A box of cells, and what its sides are."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from dpcontrol.results import UsageError

WALLS = ("no_slip", "free_slip")
AXES = "xyz"


@dataclass(frozen=True)
class Grid:
    """A uniform grid in one, two or three dimensions; axes are ``x, y, z``, in this order.

    Pressure and markers live at the cell centres ``(i + 1/2) h``; each component of a velocity on the faces that it
    is normal to. A state holds only the faces whose velocity is free: ``n - 1`` along an axis between two walls, where
    entry ``i`` is the face at ``(i + 1) h``; ``n`` along a periodic axis, where entry ``i`` is the face at ``i h``.

    Args:
        cells: number of cells along each axis.
        extent: length of the box along each axis; by default cells have size 1.
        sides: for each axis ``"periodic"`` or a pair (left, right) of

            - ``"no_slip"``: a wall, beyond which the tangential velocity is zero in the missing cells,
            - ``"free_slip"``: a wall, beyond which the tangential velocity continues with its outermost value;

            by default all sides are no-slip walls.

    Raises:
        UsageError: for sizes that are not positive, another number of entries than axes, or an unknown side.
    """

    cells: tuple[int, ...]
    extent: tuple[float, ...] = ()
    sides: tuple[str | tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        count = len(self.cells)
        if not 1 <= count <= 3 or any(not isinstance(n, int) or n < 2 for n in self.cells):
            raise UsageError(
                f"a grid has one to three axes with at least 2 cells each; found cells={self.cells!r}."
            )
        object.__setattr__(self, "extent", self.extent or tuple(float(n) for n in self.cells))
        object.__setattr__(self, "sides", self.sides or (("no_slip", "no_slip"),) * count)
        if len(self.extent) != count or len(self.sides) != count:
            raise UsageError(
                f"extent and sides need one entry for each of the {count} axes; found {self.extent!r} and "
                f"{self.sides!r}."
            )
        if not all(math.isfinite(length) and length > 0 for length in self.extent):
            raise UsageError(f"extent must be positive and finite lengths; found {self.extent!r}.")
        for pair in self.sides:
            walls = isinstance(pair, tuple) and len(pair) == 2 and set(pair) <= set(WALLS)
            if pair != "periodic" and not walls:
                raise UsageError(
                    f'the sides of an axis are "periodic" or a pair of {" and ".join(WALLS)}; found {pair!r}.'
                )

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
        return self.sides[axis] == "periodic"

    def faces(self, axis: int) -> tuple[int, ...]:
        """Shape of the velocity component along ``axis``."""
        return tuple(
            n - 1 if index == axis and not self.periodic(axis) else n for index, n in enumerate(self.cells)
        )

    def centres(self, dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
        """Coordinates of the cell centres, one tensor of the grid's shape for each axis."""
        rows = [
            (torch.arange(n, dtype=dtype) + 0.5) * h for n, h in zip(self.cells, self.spacing, strict=True)
        ]
        return torch.meshgrid(*rows, indexing="ij")
