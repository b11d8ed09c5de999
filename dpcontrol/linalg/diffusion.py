r"""The operator ``-div(c grad u) + s u`` on the cells of a box: conductances of the links between neighbours.

A link is what connects a cell with its neighbour through their common face: ``c / h^2``. A side is a link to a
value of zero (``"dirichlet"``, at half the distance: ``2 c / h^2``), no link (``"neumann"``), or the link to the cell
at the other end (``"periodic"``). All tensors have the axes of the box last and any leading axes, which broadcast.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dpcontrol.linalg.poisson import KINDS, Sides
from dpcontrol.results import UsageError

Links = tuple[Tensor, ...]
"""For each axis the conductances, ``n + 1`` along it; periodic ones repeat the first face at the end."""


@dataclass(frozen=True)
class Box:
    """A box of cells: how many along each axis, their size, and what the sides are (see :func:`poisson`)."""

    cells: tuple[int, ...]
    spacing: tuple[float, ...]
    sides: tuple[Sides, ...]

    def __post_init__(self) -> None:
        if not len(self.cells) == len(self.spacing) == len(self.sides) or not 1 <= len(self.cells) <= 3:
            raise UsageError(
                f"cells, spacing and sides need one entry for each of one to three axes; found {len(self.cells)}, "
                f"{len(self.spacing)}, {len(self.sides)}."
            )
        if min(self.cells) < 1 or not min(self.spacing) > 0:
            raise UsageError(f"cells and spacing must be positive; found {self.cells} and {self.spacing}.")
        for pair in self.sides:
            fine = pair == "periodic" or (
                isinstance(pair, tuple) and len(pair) == 2 and set(pair) <= set(KINDS)
            )
            if not fine:
                raise UsageError(
                    f'the sides of an axis are "periodic" or a pair of "neumann" and "dirichlet"; found {pair!r}.'
                )

    @property
    def axes(self) -> range:
        """The axes of a field, counted from the end."""
        return range(-len(self.cells), 0)

    @property
    def closed(self) -> bool:
        """Whether no side fixes the value, so that a constant is undetermined."""
        return not any("dirichlet" in pair for pair in self.sides)

    def periodic(self, axis: int) -> bool:
        """Whether both ends of an axis are the same place."""
        return self.sides[axis] == "periodic"

    def faces(self, axis: int) -> tuple[int, ...]:
        """Shape of the coefficients on the faces normal to an axis: ``n + 1``, or ``n`` where it is periodic."""
        shape = list(self.cells)
        shape[axis] += 0 if self.periodic(axis) else 1
        return tuple(shape)

    def links(self, coefficients: Sequence[Tensor]) -> Links:
        """``c / h^2`` with the sides in it, from coefficients on the faces."""
        found = []
        for axis, h, pair, c in zip(self.axes, self.spacing, self.sides, coefficients, strict=True):
            if pair == "periodic":
                found.append(torch.cat((c, c.narrow(axis, 0, 1)), axis) / h**2)
                continue
            ends = {"neumann": 0.0, "dirichlet": 2.0}
            weight = torch.ones(c.shape[axis], dtype=c.dtype, device=c.device)
            weight[0], weight[-1] = ends[pair[0]], ends[pair[1]]
            found.append(c * (weight / h**2).reshape(-1, *[1] * (-1 - axis)))
        return tuple(found)

    def require(self, coefficients: Sequence[Tensor], field: Tensor, reaction: Tensor | None) -> None:
        """Refuse tensors that do not live on this box."""
        wanted = [self.faces(axis) for axis in self.axes]
        found = [tuple(c.shape[-len(self.cells) :]) for c in coefficients]
        if found != wanted:
            raise UsageError(
                f"the coefficients stand on the faces normal to each axis (n + 1 of them, or n where it is periodic), "
                f"here (..., {'), (..., '.join(', '.join(map(str, shape)) for shape in wanted)}); found {found}."
            )
        for name, tensor in (("right-hand side", field), ("reaction", reaction)):
            if tensor is not None and tuple(tensor.shape[-len(self.cells) :]) != self.cells:
                raise UsageError(
                    f"the {name} stands in the cells, (..., {', '.join(map(str, self.cells))}); found "
                    f"{tuple(tensor.shape)}."
                )


def padded(field: Tensor, axis: int, wrap: bool) -> Tensor:
    """One more value at each end of an axis: from the other end, or zero."""
    if wrap:
        return torch.cat((field.narrow(axis, -1, 1), field, field.narrow(axis, 0, 1)), axis)
    return torch.constant_pad_nd(field, [0, 0] * (-1 - axis) + [1, 1])


def diagonal(links: Links, reaction: Tensor | None) -> Tensor:
    """What multiplies the cell itself: the sum of its links, and the reaction."""
    total = reaction
    for axis, link in zip(range(-len(links), 0), links, strict=True):
        n = link.shape[axis] - 1
        both = link.narrow(axis, 0, n) + link.narrow(axis, 1, n)
        total = both if total is None else total + both
    assert total is not None
    return total


def applied(links: Links, reaction: Tensor | None, field: Tensor, wraps: Sequence[bool]) -> Tensor:
    """``-div(c grad u) + s u`` by fluxes through the faces; linear in each argument and symmetric in ``u``."""
    total = None if reaction is None else reaction * field
    for axis, link, wrap in zip(range(-len(links), 0), links, wraps, strict=True):
        part = (link * padded(field, axis, wrap).diff(dim=axis)).diff(dim=axis)
        total = -part if total is None else total - part
    assert total is not None
    return total


def on_faces(field: Tensor, box: Box, mean: str = "harmonic") -> tuple[Tensor, ...]:
    r"""A coefficient in the cells on the faces between them, second order where it is smooth.

    ``"harmonic"``, ``2 a b / (a + b)``, is right for layers in series, also where the coefficient jumps; faces on a
    side have the value of their cell. Differentiable.

    Raises:
        UsageError: for another mean than ``"harmonic"`` or ``"arithmetic"``.
    """
    if mean not in ("harmonic", "arithmetic"):
        raise UsageError(f'the mean on a face is "harmonic" or "arithmetic"; found {mean!r}.')
    found = []
    for axis in box.axes:
        n = field.shape[axis]
        first, last = field.narrow(axis, 0, 1), field.narrow(axis, n - 1, 1)
        ends = (last, field) if box.periodic(axis) else (first, field, last)
        full = torch.cat(ends, axis)
        left, right = full.narrow(axis, 0, full.shape[axis] - 1), full.narrow(axis, 1, full.shape[axis] - 1)
        found.append(2 * left * right / (left + right) if mean == "harmonic" else 0.5 * (left + right))
    return tuple(found)
