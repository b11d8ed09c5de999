"""Which user functions of an objective may see many steps together: found out once, at the door."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from dpcontrol import tree
from dpcontrol.problem import objective as folds
from dpcontrol.problem.base import Problem
from dpcontrol.problem.path import Path
from dpcontrol.problem.rolling import open_problem
from dpcontrol.tree import Tree

TRIED_STEPS = 16


def settled(problem: Problem) -> Problem:
    """The same problem, whose objective knows for each term whether open-loop runs may cost all steps together.

    A stage cost is tried under ``vmap`` over steps, an observation on one batch of steps and scenarios; the first and
    the last steps of the horizon are tried, on states and controls near the start guess. Where the answers differ, or
    the function cannot be called like that (it looks at its numbers, say), it is called step by step.
    """
    if problem.free_steps < 1:
        return problem
    pair = torch.tensor([0, problem.scenarios.count - 1])
    with torch.no_grad():
        course, position, inputs, _ = open_problem(problem, problem.start(pair), pair, plant=False)
        if inputs.acting is not None:
            return problem
        count = min(TRIED_STEPS, problem.free_steps)
        control = tree.map(lambda leaf: leaf[:, 0], inputs.controls)
        states, controls = _varied(position.state, count + 1), _varied(control, count)
        start = tree.map(lambda leaf: leaf[0], states)
        after = tree.map(lambda leaf: leaf[1:], states)
        paths = [
            Path(start, after, controls, first, count, course.simulator.dt)
            for first in sorted({0, problem.free_steps - count})
        ]
        return replace(problem, objective=folds.settled(problem.objective, paths, course.frame))


def _varied(value: Tree, count: int) -> Tree:
    """``count`` values near the given one, leaves ``(count, scenarios, ...)``, all entries of them different."""

    def vary(leaf: Tensor) -> Tensor:
        wave = torch.cos(torch.arange(count * leaf.numel(), dtype=torch.float64, device=leaf.device))
        return leaf + 0.01 * (leaf.abs() + 0.1) * wave.to(leaf.dtype).reshape(count, *leaf.shape)

    return tree.map(vary, value)
