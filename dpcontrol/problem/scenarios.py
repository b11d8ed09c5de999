"""The scenarios that a problem is judged on, and, where there is one, the distribution they come from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from dpcontrol import tree
from dpcontrol.results import USERS_ERRORS, UsageError, first_line
from dpcontrol.tree import Tree

Sampler = Callable[[torch.Generator, int], Mapping[str, Tree]]


@dataclass(frozen=True)
class Scenarios:
    """Named per-scenario data: every leaf of every entry has the leading axis ``(count, ...)``.

    An entry that has the name of one of the simulator's parameters replaces it, scenario by scenario; an entry
    ``noise`` with leaves ``(count, horizon, ...)`` is fed to the simulator step by step.

    Args:
        data: name -> tree of tensors.
        sampler: ``sampler(generator, n)`` draws the same entries for ``n`` fresh scenarios, from that generator alone;
            it is what stochastic training takes its minibatches from.
        shared: entries that are the same for every scenario, which the sampler need not draw.

    Raises:
        UsageError: if leading axes differ, if the sampler is no function, or what is shared no entry.
    """

    data: Mapping[str, Tree]
    sampler: Sampler | None = None
    shared: frozenset[str] = frozenset()

    def __repr__(self) -> str:
        held = ", ".join(f"{name} {tree.describe(value)}" for name, value in self.data.items())
        return f"Scenarios({self.count}: {held}{'' if self.sampler is None else '; more can be drawn'})"

    def __post_init__(self) -> None:
        if not isinstance(self.data, Mapping):
            raise UsageError(
                f"the data of Scenarios are a dict name -> tensor (scenarios, ...); found {self.data!r}."
            )
        if self.sampler is not None and not callable(self.sampler):
            raise UsageError(
                "the sampler of Scenarios is a function sampler(generator, n) that draws n fresh scenarios as a dict "
                f"name -> tensor (n, ...); found {self.sampler!r}."
            )
        strange = sorted(set(self.shared) - set(self.data))
        if strange:
            raise UsageError(f"Scenarios share {', '.join(strange)}, which is no entry of their data.")
        counts = {
            name: {
                0 if isinstance(leaf, (int, float, str)) or not leaf.ndim else len(leaf) for leaf in leaves
            }
            for name, leaves in ((name, tree.leaves(value)) for name, value in self.data.items())
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

    def subset(self, indices: Tensor) -> Scenarios:
        """Some scenarios (repetition allowed), of the same distribution."""
        return Scenarios(self.take(indices), self.sampler, self.shared)

    def draw(self, generator: torch.Generator, n: int) -> Scenarios:
        """``n`` fresh scenarios from the distribution.

        Raises:
            UsageError: if the problem has no distribution of scenarios, or the sampler fails, or draws something else
                than asked.
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
        try:
            own = self.sampler(generator, n)
        except UsageError:
            raise
        except USERS_ERRORS as error:
            raise UsageError(
                f"the sampler of scenarios, called as sampler(generator, {n}), failed with {first_line(error)}."
            ) from error
        if not isinstance(own, Mapping):
            raise UsageError(
                f"the sampler of scenarios must return a dict name -> tensor (n, ...); found {tree.describe(own)}."
            )
        drawn = {**same, **own}
        missing = sorted(set(self.data) - set(drawn))
        if missing:
            raise UsageError(
                f"the sampler of scenarios must draw {sorted(self.data)}; it left out {missing}."
            )
        for name in self.data:
            self._require_alike(name, drawn[name], n)
        return Scenarios(drawn, self.sampler, self.shared)

    def _require_alike(self, name: str, drawn: Tree, n: int) -> None:
        """Refuse draws of another number, structure, dtype or device (their further axes may be longer or shorter)."""
        own = self.data[name]
        pairs = zip(tree.leaves(drawn), tree.leaves(own), strict=False)
        if not tree.same_structure(drawn, own) or any(
            not isinstance(leaf, Tensor) or leaf.shape[:1] != (n,) or leaf.dtype != mine.dtype
            for leaf, mine in pairs
        ):
            raise UsageError(unlike(name, drawn, own, n))
        devices = {leaf.device for leaf in (*tree.leaves(drawn), *tree.leaves(own))}
        if len(devices) > 1:
            raise UsageError(
                f"the sampler of scenarios must draw {name} on the device of the problem's own, "
                f"{tree.leaves(own)[0].device}; found it on {tree.leaves(drawn)[0].device}: move it there."
            )


def unlike(name: str, drawn: Tree, own: Tree, n: int) -> str:
    """The sentence about draws of an entry that are unlike the problem's own."""
    wanted = tree.map(lambda leaf: leaf[:1].expand(n, *leaf.shape[1:]), own)
    return (
        f"the sampler of scenarios, asked for {n}, must draw {name} like the problem's own scenarios, as "
        f"{tree.describe(wanted)}; found {tree.describe(drawn)}: return as many as asked, in this shape and dtype."
    )
