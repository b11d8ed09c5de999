r"""Geometric multigrid for ``-div(c grad u) + s u`` on the cells of a box: one V-cycle is linear, symmetric, cheap."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dpcontrol.linalg.diffusion import Box, Links, applied, diagonal, padded

SEMI = 1.5  # axes whose cells are larger than this many times the smallest ones wait for the others
COARSEST = 2  # cells along an axis that is not coarsened any more


@dataclass(frozen=True)
class Transfer:
    """Linear interpolation along one axis, from pairs of cells that were taken together, to the cells."""

    axis: int
    fine: int
    wrap: bool
    to_left: Tensor  # what the left cell of a pair takes of its left neighbour's value
    to_right: Tensor

    def prolong(self, coarse: Tensor) -> Tensor:
        """``P``."""
        axis, n = self.axis, coarse.shape[self.axis]
        slope = padded(coarse, axis, self.wrap).diff(dim=axis)
        left = coarse - self.to_left * slope.narrow(axis, 0, n)
        right = coarse + self.to_right * slope.narrow(axis, 1, n)
        both = torch.stack((left, right), axis).flatten(axis - 1, axis)
        return both if 2 * n == self.fine else both.narrow(axis, 0, self.fine)

    def restrict(self, fine: Tensor) -> Tensor:
        """``P^T``."""
        axis = self.axis
        left, right = _pairs(fine, axis)
        n, beside = left.shape[axis], [0, 0] * (-1 - axis)
        to_left, to_right = self.to_left * left, self.to_right * right
        if self.wrap:
            leftward = torch.cat((to_left, to_left.narrow(axis, 0, 1)), axis)
            rightward = torch.cat((to_right.narrow(axis, n - 1, 1), to_right), axis)
        else:
            leftward = torch.constant_pad_nd(to_left, [*beside, 0, 1])
            rightward = torch.constant_pad_nd(to_right, [*beside, 1, 0])
        return left + right - (rightward - leftward).diff(dim=axis)


@dataclass(frozen=True)
class Level:
    """One grid: its operator, what each half of a sweep multiplies with, and the way to the next coarser grid."""

    links: Links
    diagonal: Tensor
    red: Tensor  # 1 / diagonal in every other cell, zero in the others and where nothing is linked
    black: Tensor
    transfers: tuple[Transfer, ...]
    inverse: Tensor | None  # dense, on the coarsest grid

    def residual(self, right: Tensor, field: Tensor, wraps: Sequence[bool]) -> Tensor:
        """``f - A u``."""
        found = torch.addcmul(right, self.diagonal, field, value=-1)
        for axis, link, wrap in zip(range(-len(wraps), 0), self.links, wraps, strict=True):
            n, beyond = field.shape[axis], padded(field, axis, wrap)
            found = torch.addcmul(found, link.narrow(axis, 0, n), beyond.narrow(axis, 0, n))
            found = torch.addcmul(found, link.narrow(axis, 1, n), beyond.narrow(axis, 2, n))
        return found


@dataclass(frozen=True)
class Multigrid:
    r"""A hierarchy of grids for ``A = -div(c grad .) + s``; made by :func:`multigrid`.

    **Cycle**: V(1, 1) with red-black Gauss-Seidel, the colours in reverse order on the way up, so that the cycle is a
    symmetric operator and CG may be preconditioned with it. Pairs of cells are taken together along each axis
    (an odd last cell stays alone; axes with much larger cells wait); restriction is the transpose of the interpolation.

    **Coefficients**: half of a pair is a resistor ``1 / (k_inner + k_outer)`` of the links on both sides of the cell.
    Values between two coarse centres are interpolated by potential along these resistors in series, and the same
    resistance is the link of the coarse grid. So interpolation does not reach through closed faces or across
    jumps, and smooth coefficients give linear interpolation and the coefficients of the coarse grid.

    **Measured** (tests and ``tests/benchmarks/variable_poisson.py``): CG with it needs 11 to 14 iterations to 1e-10 for
    constant and smooth coefficients and around obstacles (closed or partly closed faces), in 2-D and 3-D, whatever the
    number of cells; 16 to 30 where coefficients jump by factors of thousands at places that no coarse grid sees. Noise
    from cell to cell is what it cannot coarsen well: iterations grow slowly there.

    **Source**: A. Brandt, Math. Comp. 31 (1977) (the method); P. Wesseling, "An Introduction to Multigrid Methods"
    (1992), chapter 5 (cell centres, jumps); the resistors are this file's.
    """

    levels: tuple[Level, ...]
    wraps: tuple[bool, ...]

    def __call__(self, right: Tensor) -> Tensor:
        """An approximate solution of ``A u = f``, ``(..., *cells)``, from zero, by one V-cycle."""
        return self._cycle(right, 0)

    def _cycle(self, right: Tensor, depth: int) -> Tensor:
        level, wraps = self.levels[depth], self.wraps
        if level.inverse is not None:
            flat = right.flatten(-len(wraps)).unsqueeze(-1)
            return (level.inverse @ flat).reshape(right.shape)
        found = level.red * right
        found = torch.addcmul(found, level.black, level.residual(right, found, wraps))
        rest = level.residual(right, found, wraps)
        for transfer in level.transfers:
            rest = transfer.restrict(rest)
        better = self._cycle(rest, depth + 1)
        for transfer in reversed(level.transfers):
            better = transfer.prolong(better)
        found = found + better
        found = torch.addcmul(found, level.black, level.residual(right, found, wraps))
        return torch.addcmul(found, level.red, level.residual(right, found, wraps))


def multigrid(box: Box, links: Links, reaction: Tensor | None = None) -> Multigrid:
    """A hierarchy for non-negative links, those of :meth:`Box.links`, and a reaction in the cells.

    Batched over leading axes, on any device, under ``vmap``.
    """
    wraps = tuple(box.periodic(axis) for axis in box.axes)
    spacing, levels = list(box.spacing), []
    while True:
        cells = [link.shape[axis] - 1 for axis, link in zip(box.axes, links, strict=True)]
        coarsened = [axis for axis in box.axes if cells[axis] > COARSEST]
        here, transfers = (links, reaction), []
        if coarsened:
            limit = SEMI * min(spacing[axis] for axis in coarsened)
            for axis in [axis for axis in coarsened if spacing[axis] <= limit]:
                links, reaction, transfer = _coarsened(links, reaction, axis, wraps[axis])
                transfers.append(transfer)
                spacing[axis] *= 2
        levels.append(_level(*here, tuple(transfers), wraps))
        if not coarsened:
            return Multigrid(tuple(levels), wraps)


def _level(
    links: Links, reaction: Tensor | None, transfers: tuple[Transfer, ...], wraps: tuple[bool, ...]
) -> Level:
    whole = diagonal(links, reaction)
    shares = _reciprocal(whole)
    cells = whole.shape[-len(wraps) :]
    parity = torch.zeros(cells, dtype=torch.long, device=whole.device)
    for axis, n in zip(range(-len(cells), 0), cells, strict=True):
        parity = parity + torch.arange(n, device=whole.device).reshape(-1, *[1] * (-1 - axis))
    even = (parity % 2 == 0).to(whole.dtype)
    inverse = None if transfers else _dense_inverse(links, reaction, whole, wraps)
    return Level(links, whole, shares * even, shares * (1 - even), transfers, inverse)


def _dense_inverse(links: Links, reaction: Tensor | None, whole: Tensor, wraps: Sequence[bool]) -> Tensor:
    cells = whole.shape[-len(wraps) :]
    size = math.prod(cells)
    units = torch.eye(size, dtype=whole.dtype, device=whole.device).reshape(size, *cells)
    columns = [applied(links, reaction, unit.expand_as(whole), wraps).flatten(-len(cells)) for unit in units]
    # a closed box is singular, and so is every cell without links: zero there, as everywhere in this file
    cut = torch.finfo(whole.dtype).eps ** (2 / 3)
    return torch.linalg.pinv(torch.stack(columns, -1), rtol=cut, hermitian=True)


def _coarsened(
    links: Links, reaction: Tensor | None, axis: int, wrap: bool
) -> tuple[Links, Tensor | None, Transfer]:
    """Pairs of cells along one axis taken together."""
    link, beside = links[axis], [1] * (-1 - axis)
    n = link.shape[axis] - 1
    pairs = (n + 1) // 2
    places = torch.arange(0, 2 * pairs + 1, 2, device=link.device).clamp(max=n)
    outer = link.index_select(axis, places)
    inner = link.index_select(axis, torch.arange(1, n, 2, device=link.device))
    both = torch.ones(pairs, dtype=link.dtype, device=link.device)
    ends = torch.ones(pairs + 1, dtype=link.dtype, device=link.device)
    if n % 2:
        inner = torch.constant_pad_nd(inner, [0, 0] * (-1 - axis) + [0, 1])
        both[-1] = 0  # a cell alone is its own centre
    if not wrap:
        ends[0] = ends[-1] = 0.5  # the link to a side is only half as long
    both, level = both.reshape(-1, *beside), outer * ends.reshape(-1, *beside)
    left = both * _reciprocal(inner + level.narrow(axis, 0, pairs))
    right = both * _reciprocal(inner + level.narrow(axis, 1, pairs))
    total = _reciprocal(outer)
    if wrap:
        total = total + torch.cat((left, left.narrow(axis, 0, 1)), axis)
        total = total + torch.cat((right.narrow(axis, pairs - 1, 1), right), axis)
    else:
        zeros = [0, 0] * (-1 - axis)
        total = total + torch.constant_pad_nd(left, [*zeros, 0, 1])
        total = total + torch.constant_pad_nd(right, [*zeros, 1, 0])
    coarse = torch.where(outer > 0, _reciprocal(total), torch.zeros_like(outer))
    transfer = Transfer(
        axis, n, wrap, left * coarse.narrow(axis, 0, pairs), right * coarse.narrow(axis, 1, pairs)
    )
    others = [
        coarse if other == axis else _summed(part, axis)
        for other, part in zip(range(-len(links), 0), links, strict=True)
    ]
    return tuple(others), None if reaction is None else _summed(reaction, axis), transfer


def _pairs(field: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Left and right cells of the pairs along an axis; an odd last cell has a right one of zero."""
    if field.shape[axis] % 2:
        field = torch.constant_pad_nd(field, [0, 0] * (-1 - axis) + [0, 1])
    index = torch.arange(0, field.shape[axis], 2, device=field.device)
    return field.index_select(axis, index), field.index_select(axis, index + 1)


def _summed(field: Tensor, axis: int) -> Tensor:
    left, right = _pairs(field, axis)
    return left + right


def _reciprocal(field: Tensor) -> Tensor:
    """``1 / x`` where ``x`` is positive, else zero."""
    fine = field > 0
    return torch.where(fine, 1 / torch.where(fine, field, torch.ones_like(field)), torch.zeros_like(field))
