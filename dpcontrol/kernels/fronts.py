"""Direct solves of ``sum_k theta_k P_k^T K P_k u = g`` on a grid of equal blocks, with compiled loops.

Inside of a block the coefficient is constant, so that its equations are ``theta_k`` times those of a reference block.
The nodes inside of the blocks are eliminated once and for all: what they leave on the block's ring, the Schur
complement ``S``, is the same for all blocks up to ``theta_k``. The rings together, the skeleton, are eliminated by
nested dissection: the blocks are halved again and again, and the nodes between two halves go before those around them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dpcontrol.kernels.native import can_run, in_threads, plain


class Reference(NamedTuple):
    """The reference block, nodes numbered row by row, reduced to its ring.

    ``ring`` and ``core`` are the numbers of the nodes around and inside; ``schur`` is ``S`` ``(ring, ring)``, ``lift``
    takes values on the ring into the inside ``(core, ring)``, ``of_core`` is the inverse of the inside ``(core,
    core)``; ``energy`` is the whole matrix ``K``. For the loops: ``packed``, the lower triangle of ``S``, and the
    ``places`` of ``K`` that are not zero with their ``values``.
    """

    ring: np.ndarray
    core: np.ndarray
    schur: np.ndarray
    lift: np.ndarray
    of_core: np.ndarray
    energy: np.ndarray
    packed: np.ndarray
    places: np.ndarray
    values: np.ndarray


def reference(energy: np.ndarray, nodes: tuple[int, int]) -> Reference:
    """The reduction of a block's matrix ``(nodes, nodes)``, nodes ``(x, y)`` counted with both ends."""
    number = np.arange(nodes[0] * nodes[1]).reshape(nodes)
    core = number[1:-1, 1:-1].reshape(-1)
    ring = np.setdiff1d(number.reshape(-1), core)
    of_core = np.linalg.inv(energy[np.ix_(core, core)])
    lift = -of_core @ energy[np.ix_(core, ring)]
    schur = energy[np.ix_(ring, ring)] + energy[np.ix_(ring, core)] @ lift
    schur = 0.5 * (schur + schur.T)
    places = np.argwhere(energy)
    return Reference(
        ring,
        core,
        schur,
        lift,
        of_core,
        energy,
        schur[np.tril_indices(len(ring))],
        places,
        energy[tuple(places.T)],
    )


@dataclass(frozen=True, eq=False)
class Plan:
    """The order of elimination, as arrays for the loops.

    ``fronts`` has, for each front in the order of elimination, its size, how many of its unknowns are eliminated,
    where its unknowns begin in ``index``, and where what it leaves goes on the stack. ``children`` has for each of its
    two parts ``(block or -1, begin, end, place on the stack)``, the range being one of ``target`` (packed entries of
    the front) and ``source`` (packed entries of ``S``). ``spots`` are the nodes of the unknowns, ``rings`` the
    unknowns around each block (the number of unknowns for a node on the boundary), ``cores`` the nodes inside each,
    ``nodes`` all nodes of each in the order of the reference block. ``entries`` are those of the factors, ``updates``
    the products that a factorisation takes.
    """

    fronts: np.ndarray
    children: np.ndarray
    index: np.ndarray
    target: np.ndarray
    source: np.ndarray
    sizes: np.ndarray
    spots: np.ndarray
    rings: np.ndarray
    cores: np.ndarray
    nodes: np.ndarray
    entries: int
    updates: int


def plan(blocks: tuple[int, int], cells: tuple[int, int], block: Reference) -> Plan:
    """Nested dissection of ``blocks`` of ``cells`` each, values on the boundary being given."""
    return _Planner(blocks, cells, block).plan()


class _Planner:
    """Walks through the halves, from the smallest ones up."""

    def __init__(self, blocks: tuple[int, int], cells: tuple[int, int], block: Reference) -> None:
        self.blocks, self.cells, self.block = blocks, cells, block
        nodes = (blocks[0] * cells[0] + 1, blocks[1] * cells[1] + 1)
        self.number = np.arange(nodes[0] * nodes[1]).reshape(nodes)
        x, y = np.meshgrid(*(np.arange(n) for n in nodes), indexing="ij")
        inside = (x > 0) & (x < nodes[0] - 1) & (y > 0) & (y < nodes[1] - 1)
        on_lines = (x % cells[0] == 0) | (y % cells[1] == 0)
        self.spots = self.number[inside & on_lines]
        self.unknown = np.full(self.number.size, len(self.spots))
        self.unknown[self.spots] = np.arange(len(self.spots))
        self.fronts: list[list[int]] = []
        self.children: list[list[list[int]]] = []
        self.index: list[int] = []
        self.target: list[int] = []
        self.source: list[int] = []
        self.high = [0, 0, 0]

    def plan(self) -> Plan:
        bx, by = self.blocks
        nodes = np.array([self._nodes(block) for block in range(bx * by)])
        self._part(0, bx, 0, by, 0)
        entries = updates = 0
        for n, pivots, *_ in self.fronts:
            for k in range(pivots):
                entries += n - k
                updates += (n - k) * (n - k + 1) // 2
        return Plan(
            np.array(self.fronts, dtype=np.int64).reshape(-1, 4),
            np.array(self.children, dtype=np.int64).reshape(-1, 2, 4),
            np.array(self.index, dtype=np.int64),
            np.array(self.target, dtype=np.int64),
            np.array(self.source, dtype=np.int64),
            np.array(self.high, dtype=np.int64),
            self.spots,
            self.unknown[nodes[:, self.block.ring]],
            np.ascontiguousarray(nodes[:, self.block.core]),
            nodes,
            entries,
            updates,
        )

    def _nodes(self, block: int) -> np.ndarray:
        """The nodes of a block, in the order of the reference block."""
        (cx, cy), (x, y) = self.cells, divmod(block, self.blocks[1])
        return self.number[x * cx : (x + 1) * cx + 1, y * cy : (y + 1) * cy + 1].reshape(-1)

    def _around(self, x0: int, x1: int, y0: int, y1: int) -> list[int]:
        """The unknowns around a rectangle of blocks."""
        cx, cy = self.cells
        part = self.number[x0 * cx : x1 * cx + 1, y0 * cy : y1 * cy + 1]
        edge = np.unique(np.concatenate([part[0], part[-1], part[:, 0], part[:, -1]]))
        found = self.unknown[edge]
        return [int(u) for u in found if u < len(self.spots)]

    def _part(self, x0: int, x1: int, y0: int, y1: int, stack: int) -> tuple[list[int], int, int]:
        """Plan a rectangle of blocks whose parts may use the stack from ``stack`` on.

        Returns what it leaves: its unknowns in their order, its block or -1, its place on the stack.
        """
        if (x1 - x0, y1 - y0) == (1, 1):
            block = x0 * self.blocks[1] + y0
            ring = self.unknown[self._nodes(block)[self.block.ring]]
            return [int(u) for u in ring], block, stack
        cx, cy = self.cells
        if ((x1 - x0) * cx >= (y1 - y0) * cy and x1 - x0 > 1) or y1 - y0 == 1:
            middle = (x0 + x1) // 2
            halves = ((x0, middle, y0, y1), (middle, x1, y0, y1))
        else:
            middle = (y0 + y1) // 2
            halves = ((x0, x1, y0, middle), (x0, x1, middle, y1))
        left = self._part(*halves[0], stack)
        above = stack + _packed(len(left[0])) if left[1] < 0 else stack
        right = self._part(*halves[1], above)
        around = self._around(x0, x1, y0, y1)
        between = sorted((set(left[0]) | set(right[0])) - set(around) - {len(self.spots)})
        order = between + around
        self.fronts.append([len(order), len(between), len(self.index), stack])
        self.children.append([self._assembled(part, order) for part in (left, right)])
        self.index.extend(order)
        needed = (_packed(len(order)), len(order), stack + _packed(len(around)))
        self.high = [max(a, b) for a, b in zip(self.high, needed, strict=True)]
        return around, -1, stack

    def _assembled(self, part: tuple[list[int], int, int], order: list[int]) -> list[int]:
        """Where the entries of a part go in a front."""
        unknowns, block, stack = part
        position = {unknown: i for i, unknown in enumerate(order)}
        begin, entry = len(self.target), 0
        for i, one in enumerate(unknowns):
            for other in unknowns[: i + 1]:
                if one in position and other in position:
                    high, low = sorted((position[one], position[other]), reverse=True)
                    self.target.append(_packed(high) + low)
                    self.source.append(entry)
                entry += 1
        return [block, begin, len(self.target), stack]


def _packed(count: int) -> int:
    return count * (count + 1) // 2


@dataclass(frozen=True, eq=False)
class Fronts:
    """The compiled solver of a plan; tensors come in without a graph and go out without one."""

    plan: Plan
    block: Reference

    def can_run(self, *data: Tensor) -> bool:
        """Whether the loops can take such data (see :func:`dpcontrol.kernels.native.can_run`)."""
        return can_run(*data)

    def factor(self, theta: Tensor) -> Tensor:
        """The factors ``(rows, entries)`` for ``theta`` ``(rows, blocks)``, NaN where one is not positive."""
        from dpcontrol.kernels.loops import fronts

        numbers, p = _abreast(theta, 1.0), self.plan
        factors = np.empty((p.entries, numbers.shape[1]), numbers.dtype)
        schur = self.block.packed.astype(numbers.dtype, copy=False)
        order = (p.fronts, p.children, p.target, p.source, p.sizes)

        def call(width: int, first: int) -> None:
            fronts.factor(numbers, schur, order, (0,) * width, first, factors)

        _in_lanes(call, len(theta), p.updates)
        return torch.from_numpy(factors).T[: len(theta)]

    def solve(self, theta: Tensor, factors: Tensor, load: Tensor) -> Tensor:
        """``u`` ``(rows, nodes)`` of loads ``(rows, nodes)``."""
        from dpcontrol.kernels.loops import fronts

        numbers, lower, given = _abreast(theta, 1.0), _abreast(factors, 1.0), _abreast(load, 0.0)
        found, kind, p = np.zeros_like(given), given.dtype, self.plan
        matrices = (part.astype(kind, copy=False) for part in (self.block.of_core, self.block.lift))
        inside = (p.rings, p.cores, p.spots, *matrices)

        def call(width: int, first: int) -> None:
            fronts.solve(numbers, lower, given, (p.fronts, p.index), inside, (0,) * width, first, found)

        _in_lanes(call, len(load), 4 * p.entries)
        return torch.from_numpy(found).T[: len(load)]

    def energies(self, left: Tensor, right: Tensor) -> Tensor:
        """``left^T K_k right`` of each block, ``(rows, blocks)``, of fields ``(rows, nodes)``."""
        from dpcontrol.kernels.loops import fronts

        a, b, nodes = _abreast(left, 0.0), _abreast(right, 0.0), self.plan.nodes
        places, values = self.block.places, self.block.values.astype(a.dtype, copy=False)
        found = np.empty((len(nodes), a.shape[1]), a.dtype)

        def call(width: int, first: int) -> None:
            fronts.energies(a, b, nodes, places, values, (0,) * width, first, found)

        _in_lanes(call, len(left), len(nodes) * len(places))
        return torch.from_numpy(found).T[: len(left)]


def _filled(rows: int) -> int:
    """So many rows that registers of eight, or one of four at the end, are full."""
    rest = rows % 8
    return rows - rest + (0 if rest == 0 else 4 if rest <= 4 else 8)


def _abreast(tensor: Tensor, fill: float) -> np.ndarray:
    """``(rows, entries)`` as an array ``(entries, filled rows)``; not copied where its memory is like that already."""
    turned, width = plain(tensor).T, _filled(len(tensor))
    memory = turned.untyped_storage().nbytes() // turned.element_size() - turned.storage_offset()
    if turned.stride() == (width, 1) and memory >= len(turned) * width:
        return turned.as_strided((len(turned), width), (width, 1)).numpy()
    numbers = turned.numpy()
    found = np.full((len(turned), width), fill, numbers.dtype)
    found[:, : len(tensor)] = numbers
    return found


def _in_lanes(call: Callable[[int, int], Any], rows: int, updates: int) -> None:
    """``call(width, first)`` for all rows, eight or four abreast, in threads where it is worth while."""

    def some(begin: int, end: int) -> None:
        for first in range(begin, end, 8):
            call(8 if end - first > 4 else 4, first)

    in_threads(some, rows, 8, rows * updates)
