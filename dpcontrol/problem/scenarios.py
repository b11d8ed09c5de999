"""The scenarios that a problem is judged on, and, where there is one, the distribution they come from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from dpcontrol import tree
from dpcontrol.results import UsageError
from dpcontrol.tree import Tree

Sampler = Callable[[torch.Generator, int], Mapping[str, Tree]]


@dataclass(frozen=True)
class Scenarios:
    """Named per-scenario data: every leaf of every entry has the leading axis ``(count, ...)``.

    An entry that has the name of one of the simulator's parameters replaces it, scenario by scenario; an entry
    ``noise`` with leaves ``(count, horizon, ...)`` is fed to the simulator step by step.

    Args:
        data: name -> tree of tensors.
        sampler: ``sampler(generator, n)`` draws the same entries for ``n`` fresh scenarios; it is what stochastic
            training takes its minibatches from.
        shared: entries that are the same for every scenario, which the sampler need not draw.
    """

    data: Mapping[str, Tree]
    sampler: Sampler | None = None
    shared: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        counts = {
            name: {len(leaf) if leaf.ndim else 0 for leaf in tree.leaves(v)} for name, v in self.data.items()
        }
        sizes = set().union(*counts.values()) if counts else set()
        if len(sizes) > 1 or 0 in sizes:
            listed = ", ".join(f"{name} {sorted(size)}" for name, size in counts.items())
            raise UsageError(
                f"every per-scenario entry needs the same leading axis of at least one scenario; found {listed}: "
                "repeat shared data along a leading scenario axis."
            )

    @property
    def count(self) -> int:
        """Number of scenarios (1 where there is no per-scenario data)."""
        leaves = tree.leaves(dict(self.data))
        return len(leaves[0]) if leaves else 1

    def take(self, indices: Tensor | None) -> Mapping[str, Tree]:
        """The data of some scenarios (repetition allowed); of all for ``None``."""
        if indices is None:
            return self.data
        return {name: tree.take(value, indices) for name, value in self.data.items()}

    def draw(self, generator: torch.Generator, n: int) -> Scenarios:
        """``n`` fresh scenarios from the distribution.

        Raises:
            UsageError: if the problem has no distribution of scenarios.
        """
        if self.sampler is None:
            raise UsageError(
                "this problem has a fixed set of scenarios and nothing to draw from: "
                "give it scenarios=Scenarios(data, sampler=...)."
            )
        same = {
            name: tree.map(lambda leaf: leaf[:1].expand(n, *leaf.shape[1:]), self.data[name])
            for name in self.shared
        }
        drawn = {**same, **self.sampler(generator, n)}
        missing = sorted(set(self.data) - set(drawn))
        if missing:
            raise UsageError(
                f"the sampler of scenarios must draw {sorted(self.data)}; it left out {missing}."
            )
        return Scenarios(drawn, self.sampler, self.shared)
