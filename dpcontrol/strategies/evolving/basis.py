r"""Where searches without derivatives move: all numbers, or the coefficients of a few smooth modes.

A point is ``x = start + magnitudes * (B c)``, moved inside the bounds. In time and in every space axis the columns of
``B`` are the cosines of the discrete cosine transform (DCT-II), ``cos(pi k (i + 1/2) / N)``, lowest frequencies first.
They are orthogonal, and scaled such that coefficients of size ``sigma`` make controls of size ``sigma * magnitudes``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dpcontrol import tree
from dpcontrol.meter import Meter
from dpcontrol.results import UsageError
from dpcontrol.strategies.checks import whole
from dpcontrol.tree import Tree

SMOOTH = (
    "control",
    "initial_state",
)  # slots whose axes are time and space; weights and parameters have no neighbours
# Chosen for 400 to 6,000 evaluations per instance, see tests/benchmarks/tune_evolution.py
FULL_UP_TO = 24
FEWEST, MODES = 16, 32
MOST_ENTRIES = 20_000_000


def check_basis(who: str, basis: Any) -> None:
    """Refuse anything but ``None``, ``"auto"`` and a number of modes."""
    if basis is None or basis == "auto":
        return
    if isinstance(basis, str):
        raise UsageError(f'{who}(basis=...) must be None, "auto" or a number of modes; found {basis!r}.')
    whole(who, basis=basis)


def modes_of(basis: str | int | None, layout: Tree) -> int | None:
    """How many modes to search in; ``None`` for the full space."""
    if basis is None:
        return None
    if basis == "auto":
        size = tree.size(layout)
        return None if size <= FULL_UP_TO else min(max(size // 4, FEWEST), MODES)
    return int(basis)


def matrix(layout: Tree, modes: int | None) -> Tensor | None:
    """Modes as columns ``(dimension, modes)`` for the free numbers of one instance; ``None`` for the full space.

    ``layout`` is a dict, slot -> tree of tensors. The lowest frequencies over all smooth leaves are kept, ``modes`` of
    them (at least one per leaf); leaves of other slots are kept whole.
    """
    leaves = [(slot in SMOOTH, leaf) for slot, value in layout.items() for leaf in tree.leaves(value)]
    smooth = [tuple(leaf.shape) for is_smooth, leaf in leaves if is_smooth]
    if modes is None or modes >= sum(math.prod(shape) for shape in smooth):
        return None
    kept = iter(_lowest(smooth, modes))
    like = leaves[0][1]
    blocks = [
        _cosines(leaf.shape, next(kept)) if is_smooth else torch.eye(leaf.numel(), dtype=torch.float64)
        for is_smooth, leaf in leaves
    ]
    return torch.block_diag(*blocks).to(dtype=like.dtype, device=like.device)


def _lowest(shapes: Sequence[tuple[int, ...]], modes: int) -> list[list[tuple[int, ...]]]:
    """For each leaf the wave numbers of its share of the lowest modes."""
    waves = [
        (math.hypot(*wave), index, wave)
        for index, shape in enumerate(shapes)
        for wave in itertools.product(*(range(min(size, modes)) for size in shape))
    ]
    chosen = sorted(waves)[: max(modes, len(shapes))]
    return [[wave for _, leaf, wave in chosen if leaf == index] for index in range(len(shapes))]


def _cosines(shape: Sequence[int], waves: list[tuple[int, ...]]) -> Tensor:
    """Columns ``(entries, modes)``: products of cosines; white coefficients give entries of their size."""
    columns = []
    for wave in waves:
        column = torch.ones(1, dtype=torch.float64)
        for size, k in zip(shape, wave, strict=True):
            place = torch.arange(size, dtype=torch.float64) + 0.5
            column = torch.outer(column, torch.cos(math.pi * k * place / size)).reshape(-1)
        columns.append(column * math.sqrt(len(column) / len(waves)) / torch.linalg.vector_norm(column))
    return torch.stack(columns, 1)


@dataclass(frozen=True)
class SearchSpace:
    """Coefficients ``(rows, size)`` and the points ``(rows, dimension)`` that they stand for.

    Attributes:
        magnitudes: ``(instances, dimension)``.
        limits: bounds ``(instances, dimension)`` each, or ``None``.
        modes: ``(dimension, size)``, or ``None`` for the full space.
    """

    magnitudes: Tensor
    limits: tuple[Tensor, Tensor] | None
    modes: Tensor | None

    @property
    def size(self) -> int:
        """Number of coefficients of one instance."""
        return self.magnitudes.shape[1] if self.modes is None else self.modes.shape[1]

    def points(self, coefficients: Tensor, which: Tensor, centre: Tensor) -> tuple[Tensor, Tensor]:
        """Points inside the bounds, and how far each was moved to get there: the sum of squares in magnitudes.

        ``centre`` ``(rows, dimension)`` are the points of zero coefficients.
        """
        shape = coefficients if self.modes is None else coefficients @ self.modes.T
        scale = self.magnitudes[which]
        wanted = centre + scale * shape
        if self.limits is None:
            return wanted, torch.zeros_like(wanted[:, 0])
        low, high = self.limits
        points = wanted.clamp(low[which], high[which])
        moved = (wanted - points) / torch.where(scale > 0, scale, torch.ones_like(scale))
        return points, moved.square().sum(1)


class SearchSpaces:
    """The space of a problem after each number of restarts: with twice the modes each time, up to all numbers.

    The matrix of modes never grows beyond ``MOST_ENTRIES``: from there on, the modes remain as many as they are.
    """

    def __init__(self, meter: Meter, basis: str | int | None) -> None:
        self._layout = meter.layout()
        self._modes = modes_of(basis, self._layout)
        self._magnitudes, self._limits = meter.magnitudes(), meter.limits()
        self._made: dict[int, SearchSpace] = {}

    def at(self, level: int) -> SearchSpace:
        """The space after ``level`` restarts."""
        if level not in self._made:
            modes, size = self._modes, tree.size(self._layout)
            for _ in range(level):
                if modes is not None and (2 * modes >= size or 2 * modes * size <= MOST_ENTRIES):
                    modes *= 2
            self._made[level] = SearchSpace(self._magnitudes, self._limits, matrix(self._layout, modes))
        return self._made[level]
