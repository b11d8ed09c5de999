"""Costs of how far a corrected trajectory is from its reference."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from dpcontrol import tree
from dpcontrol.problem.objective import Frame, Squares, Term
from dpcontrol.problem.path import Moment, Path
from dpcontrol.problem.terms import _per_scenario
from dpcontrol.tree import Tree


def parts_of(state: Tree, like: Tree) -> Tree:
    """The entries of a state that its reference has: a solver may carry more, such as the forces on a body."""
    if isinstance(state, Mapping) and isinstance(like, Mapping):
        return {name: state[name] for name in like}
    return state


@dataclass(frozen=True)
class Follow(Squares):
    r"""``sum_{k=1}^N mean_leaves mean_cells |x_k - r_k|^2 / size^2``: relative mean squares, summed over the steps.

    One is, for each step, an error as large as the reference itself. The first state is given and costs nothing.

    Args:
        data: entry of the scenarios with the reference, leaves ``(scenarios, N + 1, ...)``.
        sizes: typical sizes of the leaves of a state.
    """

    data: str
    sizes: tuple[float, ...]

    def residuals(self, moment: Moment, frame: Frame, *, last: bool) -> Tree:
        if moment.k == 0:
            return None
        row = tree.map(lambda leaf: leaf[:, moment.k], frame.scenario[self.data])
        return self._scaled(moment.state, row, lead=1)

    def residuals_along(self, path: Path, frame: Frame) -> Tree:
        first = max(path.first, 1)
        behind = path.first + path.length
        if behind <= first:
            return None
        rows = tree.map(lambda leaf: leaf[:, first:behind].transpose(0, 1), frame.scenario[self.data])
        states = tree.map(lambda leaf: leaf[first - path.first :], parts_of(path.states, rows))
        return self._scaled(states, rows, lead=2)

    def _scaled(self, states: Tree, rows: Tree, lead: int) -> list[Tensor]:
        seen = parts_of(states, rows)
        pairs = list(zip(tree.leaves(seen), tree.leaves(rows), self.sizes, strict=True))
        return [
            (x - r) * (1 / (size * math.sqrt(len(pairs) * math.prod(x.shape[lead:])))) for x, r, size in pairs
        ]


@dataclass(frozen=True)
class Compare(Term):
    """``sum_{k=1}^N function(x_k, r_k)`` for a user's ``function(state, reference) -> (scenarios,)``."""

    data: str
    function: Callable[[Tree, Tree], Tensor]

    def stage(self, memory: Tree, moment: Moment, frame: Frame) -> tuple[Tree, Tensor | None]:
        if moment.k == 0:
            return memory, None
        row = tree.map(lambda leaf: leaf[:, moment.k], frame.scenario[self.data])
        return memory, _per_scenario(self.function(moment.state, row), moment.state, "loss(state, reference)")

    def finish(self, memory: Tree, moment: Moment, frame: Frame) -> Tensor | None:
        return self.stage(memory, moment, frame)[1]


def relative_norm(state: Tree, reference: Tree) -> Tensor:
    r"""The loss of a step ``|x - r| / |r|``, ``(scenarios,)``, where ``|x|^2`` is the sum of the parts' mean squares.

    Not squared, and of the size that the reference has just then: windows that are followed well, or in which little is
    left of the flow, keep their weight beside those that are not. Squares leave a training to the worst windows, and a
    long rollout passes through all of them.
    """
    pairs = list(zip(tree.leaves(parts_of(state, reference)), tree.leaves(reference), strict=True))
    apart = torch.stack([(x - r).flatten(1).square().mean(1) for x, r in pairs]).sum(0)
    size = torch.stack([r.flatten(1).square().mean(1) for _, r in pairs]).sum(0)
    # the root has no slope at zero: errors below rounding count as rounding
    return (apart / size + torch.finfo(apart.dtype).eps ** 2).sqrt()
