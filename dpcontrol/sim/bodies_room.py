"""Room that bodies need: away from the sides, from each other, and enough cells across."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dpcontrol.results import UsageError
from dpcontrol.sim.grid import Grid

CLEARANCE = 2.0  # cells between a body and a side: the kernel must not reach beyond
GAP = 1.0  # cells between two surfaces, whose points, moved inwards, are then more than a kernel's half apart
LEAST_RADIUS = 2.0  # cells: below, the points of opposite sides of a disc share their faces
SLACK = 1e-3  # cells: places in float32 are no more exact than that


@dataclass(frozen=True)
class Room:
    """How many cells there are, ``(batch,)``, how many there must be, and the sentence that says so."""

    cells: Tensor
    least: float
    sentence: str

    @property
    def enough(self) -> Tensor:
        """Whether there is room, ``(batch,)``; not where a number is not finite."""
        return (self.cells >= self.least - SLACK) & self.cells.isfinite()


def rooms(grid: Grid, centres: Sequence[Tensor], radii: Sequence[Tensor]) -> list[Room]:
    """Every room that discs need.

    Args:
        grid: of two axes.
        centres: of each disc, ``(batch, 2)``.
        radii: of each, ``(batch,)``.
    """
    coarse, found = max(grid.spacing), []
    for centre, radius in zip(centres, radii, strict=True):
        found.append(Room(radius / coarse, LEAST_RADIUS, "the radius of a body is at least 2 cells"))
        for axis, (h, length) in enumerate(zip(grid.spacing, grid.extent, strict=True)):
            place, name = centre[:, axis], grid.axes[axis]
            if grid.periodic(axis):
                away = (length - 2 * radius) / h + 0 * place  # not finite where the place is not
                sentence = f"a body keeps 1 cell away from its own image along the periodic axis {name}"
                found.append(Room(away, GAP, sentence))
                continue
            away = torch.minimum(place, length - place) - radius
            sentence = f"a body keeps 2 cells away from the sides along {name}"
            found.append(Room(away / h, CLEARANCE, sentence))
    for (one, first), (other, second) in itertools.combinations(zip(centres, radii, strict=True), 2):
        apart = torch.hypot(*(_shortest(one, other, axis, grid) for axis in range(2)))
        found.append(Room((apart - first - second) / coarse, GAP, "two bodies keep 1 cell between them"))
    return found


def has_room(grid: Grid, centres: Sequence[Tensor], radii: Sequence[Tensor]) -> Tensor:
    """Whether all discs of a scenario have room, ``(batch,)``; nothing is read by the host."""
    enough = [room.enough for room in rooms(grid, centres, radii)]
    return torch.stack(torch.broadcast_tensors(*enough)).all(0)


def require_room(grid: Grid, centres: Sequence[Tensor], radii: Sequence[Tensor]) -> None:
    """Read the numbers, and refuse discs without room.

    Raises:
        UsageError: for the first room that is missing, or a number that is not finite.
    """
    for room in rooms(grid, centres, radii):
        if not bool(room.enough.all()):
            raise UsageError(
                f"{room.sentence}; found {float(room.cells.min()):.3g} cells: change centre or radius, or refine the "
                "grid."
            )


def _shortest(one: Tensor, other: Tensor, axis: int, grid: Grid) -> Tensor:
    """The distance along an axis, around a periodic one the shorter way."""
    away, length = one[:, axis] - other[:, axis], grid.extent[axis]
    return torch.remainder(away + 0.5 * length, length) - 0.5 * length if grid.periodic(axis) else away
