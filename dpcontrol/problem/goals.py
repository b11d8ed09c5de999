"""What a problem wants its states to be, as far as its objective says so in the state's own terms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dpcontrol import tree
from dpcontrol.problem.base import Problem
from dpcontrol.problem.objective import Closing
from dpcontrol.problem.terms import Reach, Track
from dpcontrol.tree import Tree


@dataclass(frozen=True)
class Goal:
    """Wanted values of one leaf of the state.

    Attributes:
        path: of the leaf, as in :func:`dpcontrol.tree.named_leaves`.
        steps: when they are wanted.
        values: ``(len(steps), scenarios, ...)``.
    """

    path: str
    steps: tuple[int, ...]
    values: Tensor


def goals(problem: Problem, state: Tree) -> list[Goal]:
    """The goals of terms that compare whole leaves of a state with data: ``reach``, ``closing`` and ``track``.

    A term that looks at something computed from the state (``of=``) has no goal that could be shown beside it.

    Args:
        problem: whose objective.
        state: any state of it, leaves ``(scenarios, ...)``.
    """
    found: dict[str, Goal] = {}
    for _, term in problem.objective.terms:
        if isinstance(term, Reach | Track):
            looked_at = term.of(state)
        elif isinstance(term, Closing):
            looked_at = state
        else:
            continue
        name = term.data if isinstance(term, Track) else term.target
        pairs = _pairs(looked_at, problem.scenarios.data[name])
        paths = {id(leaf): path for path, leaf in tree.named_leaves(state)}
        for leaf, wanted in pairs:
            if id(leaf) in paths:
                goal = _goal(paths[id(leaf)], term, wanted, leaf, problem.first + problem.horizon)
                found.setdefault(goal.path, goal)
    return list(found.values())


def _pairs(looked_at: Any, wanted: Any) -> list[tuple[Tensor, Tensor]]:
    if not tree.same_structure(looked_at, wanted):
        return []
    return list(zip(tree.leaves(looked_at), tree.leaves(wanted), strict=True))


def _goal(path: str, term: Reach | Track | Closing, wanted: Tensor, leaf: Tensor, horizon: int) -> Goal:
    if isinstance(term, Track):
        rows = torch.movedim(wanted, 1, 0)
        steps = tuple(range(len(rows))) if term.steps is None else term.steps
    else:
        steps, rows = (horizon,), wanted[None]
    return Goal(path, steps, rows.expand(len(steps), *leaf.shape))
