"""How a network on a grid sees a state, and what becomes of its answer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from dpcontrol import tree
from dpcontrol.nets import Padding
from dpcontrol.results import UsageError
from dpcontrol.sim.grid import Grid
from dpcontrol.tree import Tree


@dataclass(frozen=True)
class Channels:
    r"""A state as the channels of a network ``(scenarios, channels, *grid)``, and the network's answer as a correction.

    Each part of a state (a tensor, or the entries of a dict) has leaves ``(scenarios, *components, *grid)``; every
    component is a channel, divided by the part's typical size. Parts on other places of a staggered grid may have a
    cell more or less: they are filled up to the largest at the far ends, with the last value there, and their
    corrections are cut off again. Behind them comes one constant channel for each of the scalar ``inputs``,
    ``(value - centre) / width``. An output is multiplied by the size of its part's corrections.

    Args:
        dimensions: axes of the grid, the last ones of every part.
        parts: the entries of a state that is a dict, those that are seen and corrected; others stay as they are. Empty
            for a state that is one tensor.
        sizes: typical size of each part; 1 by default.
        corrections: typical size of a correction of each part; 1 by default.
        inputs: name of a parameter (or of an entry of the scenarios) -> (centre, width).
    """

    dimensions: int
    parts: tuple[str, ...] = ()
    sizes: tuple[float, ...] = ()
    corrections: tuple[float, ...] = ()
    inputs: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        count = max(len(self.parts), 1)
        for name in ("sizes", "corrections"):
            given = getattr(self, name) or (1.0,) * count
            if len(given) != count or not all(math.isfinite(size) and size > 0 for size in given):
                raise UsageError(
                    f"{name} of channels are {count} positive number(s), one for each part; found {given!r}."
                )
            object.__setattr__(self, name, tuple(float(size) for size in given))
        if self.dimensions not in (1, 2, 3):
            raise UsageError(f"channels live on grids of 1, 2 or 3 axes; found {self.dimensions!r}.")

    def leaves(self, state: Tree) -> list[Tensor]:
        """The parts of a state that are seen.

        Raises:
            UsageError: if it is not such a state.
        """
        found = (
            [state] if not self.parts else [state.get(part) for part in self.parts] if _named(state) else []
        )
        if not found or any(not isinstance(leaf, Tensor) or leaf.ndim <= self.dimensions for leaf in found):
            wanted = f"a dict with {', '.join(self.parts)}" if self.parts else "one tensor"
            raise UsageError(
                f"these channels see {wanted}, with leaves (scenarios, ...) on a grid of {self.dimensions} axes; found "
                f"{tree.describe(state)}."
            )
        return found

    def counts(self, state: Tree) -> tuple[int, int]:
        """How many channels go in and come out."""
        out = sum(self._components(leaf) for leaf in self.leaves(state))
        return out + len(self.inputs), out

    def pack(self, state: Tree, scalars: Mapping[str, Tensor]) -> Tensor:
        """The channels of a state under the scalar inputs, each ``()`` or ``(scenarios,)``."""
        leaves = self.leaves(state)
        grid = self._grid(leaves)
        rows = [self._filled(leaf, grid) * (1 / size) for leaf, size in zip(leaves, self.sizes, strict=True)]
        count = len(leaves[0])
        for name, (centre, width) in self.inputs.items():
            scalar = ((scalars[name] - centre) / width).to(leaves[0])
            rows.append(scalar.reshape(-1, 1, *[1] * len(grid)).expand(count, 1, *grid))
        return torch.cat(rows, 1) if len(rows) > 1 else rows[0]

    def unpack(self, values: Tensor, like: Tree) -> Tree:
        """What a network answers, ``(scenarios, channels, *grid)``, as corrections of the parts of a state."""
        leaves = self.leaves(like)
        split = values.split([self._components(leaf) for leaf in leaves], 1)
        found = []
        for leaf, part, size in zip(leaves, split, self.corrections, strict=True):
            axes = tuple(slice(n) for n in leaf.shape[leaf.ndim - self.dimensions :])
            found.append(size * part[(..., *axes)].reshape(leaf.shape))
        return dict(zip(self.parts, found, strict=True)) if self.parts else found[0]

    def _components(self, leaf: Tensor) -> int:
        return math.prod(leaf.shape[1 : leaf.ndim - self.dimensions])

    def _grid(self, leaves: Sequence[Tensor]) -> tuple[int, ...]:
        shapes = [leaf.shape[leaf.ndim - self.dimensions :] for leaf in leaves]
        return tuple(max(sizes) for sizes in zip(*shapes, strict=True))

    def _filled(self, leaf: Tensor, grid: tuple[int, ...]) -> Tensor:
        channels = leaf.reshape(len(leaf), self._components(leaf), *leaf.shape[leaf.ndim - self.dimensions :])
        lacking = [wanted - n for wanted, n in zip(grid, channels.shape[2:], strict=True)]
        if not any(lacking):
            return channels
        around = [number for more in reversed(lacking) for number in (0, more)]
        return torch.nn.functional.pad(channels, around, "replicate")


def padding(grid: Grid) -> tuple[Padding, ...]:
    """What lies outside of a grid for a network of convolutions, axis by axis: round about it, or the last values."""
    return tuple("circular" if grid.periodic(axis) else "replicate" for axis in range(len(grid.cells)))


def _named(state: Tree) -> bool:
    return isinstance(state, Mapping)
