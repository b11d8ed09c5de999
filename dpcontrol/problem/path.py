"""A stretch of a rollout as one block of tensors, for costs that need no loop over steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch

from dpcontrol import tree
from dpcontrol.tree import Tree


class Moment(NamedTuple):
    """Where a rollout stands: state ``(scenarios, ...)``, control (``None`` behind the last step), step, time."""

    state: Tree
    control: Tree
    k: int
    t: float


@dataclass(frozen=True)
class Path:
    """The stages ``(x_k, u_k)`` of the steps ``first .. first + length - 1``.

    ``start`` is the state that the first of them begins with, leaves ``(scenarios, ...)``; ``after`` are the states
    that they end with, a list of such trees, or one tree with leaves ``(length, scenarios, ...)``; ``controls`` are
    leaves ``(length, scenarios, ...)`` or ``None``; ``dt`` is the time of a step.
    """

    start: Tree
    after: list[Tree] | Tree
    controls: Tree
    first: int
    length: int
    dt: float

    @cached_property
    def states(self) -> Tree:
        """Those that the steps begin with, ``(length, scenarios, ...)``; put together when somebody asks."""
        if isinstance(self.after, list):
            return tree.stack(self._each())
        return tree.map(lambda head, tail: torch.cat([head[None], tail[:-1]]), self.start, self.after)

    @property
    def last(self) -> Tree:
        """The state that the last step ends with."""
        return self.after[-1] if isinstance(self.after, list) else tree.map(lambda leaf: leaf[-1], self.after)

    @property
    def ends(self) -> Tree:
        """The states that the steps end with, ``(length, scenarios, ...)``."""
        return tree.stack(self.after) if isinstance(self.after, list) else self.after

    def select(self, places: Sequence[int]) -> Tree:
        """The states at some places of the stretch (not numbers of steps), leaves ``(places, scenarios, ...)``."""
        if list(places) == list(range(self.length)):
            return self.states
        if isinstance(self.after, list):
            each = self._each()
            return tree.stack([each[place] for place in places])
        return tree.take(self.states, torch.tensor(list(places)))

    def _each(self) -> list[Tree]:
        after = self.after if isinstance(self.after, list) else tree.unbind(self.after)
        return [self.start, *after[:-1]]

    def moments(self) -> Iterator[Moment]:
        """One stage after the other."""
        controls = tree.rows(self.controls, self.length)
        for k, (state, control) in enumerate(zip(self._each(), controls, strict=True), self.first):
            yield Moment(state, control, k, k * self.dt)

    def over_scenarios(self, function: Callable[[Tree], Tree], states: Tree) -> Tree:
        """A batched function of states ``(scenarios, ...)`` at all steps together: ``(steps, scenarios, ...)``."""
        steps, scenarios = tree.leaves(states)[0].shape[:2]
        found = function(tree.map(lambda leaf: leaf.flatten(0, 1), states))
        return tree.map(lambda leaf: leaf.unflatten(0, (steps, scenarios)), found)
