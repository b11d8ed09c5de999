"""Boxes whose sides are walls: cell centres, sine and cosine transforms, what the sides bring in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dpcontrol.linalg import Box, Transform, poisson
from dpcontrol.results import UsageError
from dpcontrol.sim.sides import FixedFlux, FixedValue, Periodic
from dpcontrol.tree import Tree, describe

Pair = tuple[FixedValue | FixedFlux, FixedValue | FixedFlux] | None
"""The sides of an axis; ``None`` for a periodic one."""


def scalar_sides(given: object) -> Pair:
    """The sides of one axis for a scalar.

    Raises:
        UsageError: for anything else than ``"periodic"`` and pairs of fixed values and fluxes.
    """
    if given == "periodic" or isinstance(given, Periodic):
        return None
    if isinstance(given, tuple) and len(given) == 2:
        left, right = given
        if isinstance(left, FixedValue | FixedFlux) and isinstance(right, FixedValue | FixedFlux):
            return left, right
    raise UsageError(
        f'the sides of an axis are "periodic" or a pair of FixedValue(value) and FixedFlux(slope); found {given!r}.'
    )


@dataclass(frozen=True)
class WalledBox:
    """``cells`` of equal size in a box of side ``lengths``, and what a scalar does on its sides.

    Fields are ``(..., *cells)``, values in the cell centres ``(i + 1/2) h``.

    Raises:
        UsageError: for another number of axes than 1 to 3, sizes that are not positive, unknown sides.
    """

    cells: tuple[int, ...]
    lengths: tuple[float, ...]
    sides: tuple[Pair, ...]

    @staticmethod
    def of(
        cells: tuple[int, ...], lengths: tuple[float, ...] | None, sides: Sequence[object] | None
    ) -> WalledBox:
        """A box with its defaults: unit lengths, zero on all sides."""
        counts = isinstance(cells, tuple) and all(type(n) is int and n >= 2 for n in cells)
        if not counts or not 1 <= len(cells) <= 3:
            raise UsageError(f"cells is one to three whole numbers, each at least 2; found {cells!r}.")
        sizes = lengths or (1.0,) * len(cells)
        given = sides or ((FixedValue(), FixedValue()),) * len(cells)
        if len(sizes) != len(cells) or len(given) != len(cells):
            raise UsageError(
                f"lengths and sides need one entry for each of the {len(cells)} axes; found {lengths!r} and {sides!r}."
            )
        if not all(isinstance(size, int | float) and math.isfinite(size) and size > 0 for size in sizes):
            raise UsageError(f"lengths must be positive and finite; found {lengths!r}.")
        return WalledBox(cells, sizes, tuple(scalar_sides(pair) for pair in given))

    @property
    def spacing(self) -> tuple[float, ...]:
        """Size of a cell along each axis."""
        return tuple(length / n for length, n in zip(self.lengths, self.cells, strict=True))

    @property
    def axes(self) -> range:
        """The axes of a field, counted from the end."""
        return range(-len(self.cells), 0)

    @property
    def kinds(self) -> tuple[str | tuple[str, str], ...]:
        """The sides in the words of :mod:`dpcontrol.linalg`."""
        words = {FixedValue: "dirichlet", FixedFlux: "neumann"}
        return tuple(
            "periodic" if pair is None else (words[type(pair[0])], words[type(pair[1])])
            for pair in self.sides
        )

    @property
    def box(self) -> Box:
        """The same for solves."""
        return Box(self.cells, self.spacing, self.kinds)

    def centres(self, like: Tensor | None = None) -> tuple[Tensor, ...]:
        """Coordinates of the cell centres, one field for each axis; float64 or like a tensor."""
        dtype, device = (torch.float64, None) if like is None else (like.dtype, like.device)
        rows = [
            (torch.arange(n, dtype=dtype, device=device) + 0.5) * h
            for n, h in zip(self.cells, self.spacing, strict=True)
        ]
        return torch.meshgrid(*rows, indexing="ij")

    def modes(self, dtype: torch.dtype, device: torch.device) -> Modes:
        """The transforms between cells and eigenmodes of the Laplacian."""
        solver = poisson(self.cells, self.spacing, self.kinds, dtype=dtype, device=device)
        return Modes(solver.transforms)

    def squares(self, device: torch.device | None = None, *, differences: bool) -> Tensor:
        """Minus the eigenvalues of the Laplacian, in the order of the modes, double precision.

        With ``differences`` those of the second differences, ``(2 / h)^2 sin^2(k h / 2)``; else ``k^2`` itself, for
        which smooth fields that meet homogeneous sides are resolved better than by any power of ``h``.
        """
        total = torch.zeros((), dtype=torch.float64, device=device)
        for n, h, pair in zip(self.cells, self.spacing, self.kinds, strict=True):
            k = torch.arange(n, dtype=torch.float64, device=device)
            if pair == "periodic":
                angle = 2 * math.pi * torch.minimum(k, n - k) / n
            else:
                # the order of the rows of Transform: reversed where the left side is fixed
                same, fixed = pair[0] == pair[1], pair[0] == "dirichlet"
                whole = k if same else k + 0.5
                angle = math.pi * ((n - whole) if fixed else whole) / n
            row = (2 * torch.sin(angle / 2) / h) if differences else angle / h
            total = total[..., None] + row.square()
        return total

    def inflow(self, device: torch.device | None = None) -> Tensor:
        """What the sides add to the Laplacian: ``2 g / h^2`` or ``g / h`` in the outermost cells; double precision."""
        total = torch.zeros(self.cells, dtype=torch.float64, device=device)
        for axis, h, pair in zip(self.axes, self.spacing, self.sides, strict=True):
            for side, end in zip(pair or (), (0, -1), strict=False):
                row = torch.zeros(self.cells[axis], dtype=torch.float64, device=device)
                row[end] = 2 * side.value / h**2 if isinstance(side, FixedValue) else side.slope / h
                total = total + row.reshape(-1, *[1] * (-1 - axis))
        return total

    def on_faces(self, field: Tensor, axis: int) -> Tensor:
        """A field on the ``n + 1`` faces normal to an axis, second order, with what the sides say at both ends."""
        pair, h, n = self.sides[axis], self.spacing[axis], field.shape[axis]
        first, last = field.narrow(axis, 0, 1), field.narrow(axis, n - 1, 1)
        if pair is None:
            full = torch.cat((last, field, first), axis)
            return torch.lerp(full.narrow(axis, 0, n + 1), full.narrow(axis, 1, n + 1), 0.5)
        inner = torch.lerp(field.narrow(axis, 0, n - 1), field.narrow(axis, 1, n - 1), 0.5)
        ends = [
            torch.full_like(cell, side.value) if isinstance(side, FixedValue) else cell + 0.5 * h * side.slope
            for side, cell in zip(pair, (first, last), strict=True)
        ]
        return torch.cat((ends[0], inner, ends[1]), axis)

    def field(self, name: str, value: Tensor) -> Tensor:
        """A parameter as a field ``(scenarios or 1, *cells)``.

        It may be a number, numbers ``(scenarios,)`` (in one dimension a row of cells), a field, or blocks that divide
        it evenly, with an axis of scenarios in front where they differ.

        Raises:
            UsageError: for other shapes.
        """
        axes = len(self.cells)
        if value.ndim == 0 or (value.ndim == 1 and axes > 1):
            value = value.reshape(*value.shape, *[1] * axes)
        shape = value.shape[value.ndim - axes :]
        if not axes <= value.ndim <= axes + 1 or any(
            n % blocks for n, blocks in zip(self.cells, shape, strict=True)
        ):
            raise UsageError(
                f"{name} is a number, a field {self.cells} or blocks that divide it evenly, with an axis of scenarios "
                f"in front where they differ; found the shape {tuple(value.shape)}."
            )
        for axis, n in zip(self.axes, self.cells, strict=True):
            value = value.repeat_interleave(n // value.shape[axis], axis)
        return value if value.ndim > axes else value[None]

    def require(self, state: Tree, *components: int) -> None:
        """Refuse a state that is not a floating tensor ``(scenarios, *components, *cells)``."""
        wanted = (*components, *self.cells)
        if not (isinstance(state, Tensor) and state.is_floating_point() and tuple(state.shape[1:]) == wanted):
            raise UsageError(
                f"the state of this simulator is one floating tensor (scenarios, {', '.join(map(str, wanted))}); "
                f"found {describe(state)}: for one scenario pass state[None], for another grid build it with its size."
            )

    def require_homogeneous(self) -> None:
        """Refuse sides with values or fluxes other than zero."""
        for pair in self.sides:
            for side in pair or ():
                number = side.value if isinstance(side, FixedValue) else side.slope
                if number != 0:
                    raise UsageError(
                        f"a wave's sides are held at zero or free, FixedValue() or FixedFlux(); found {side}."
                    )


@dataclass(frozen=True)
class Modes:
    """Orthogonal transforms along all axes."""

    transforms: tuple[Transform, ...]

    def forward(self, field: Tensor) -> Tensor:
        """Cells to modes."""
        for axis, transform in zip(range(-len(self.transforms), 0), self.transforms, strict=True):
            field = transform.forward(field, axis)
        return field

    def inverse(self, modes: Tensor) -> Tensor:
        """Modes to cells."""
        for axis, transform in zip(range(-len(self.transforms), 0), self.transforms, strict=True):
            modes = transform.inverse(modes, axis)
        return modes
