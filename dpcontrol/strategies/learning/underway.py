"""Episodes under way, and the next few steps of them with what every step costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from dpcontrol import tree
from dpcontrol.problem import Problem, Scenarios
from dpcontrol.problem import course as courses
from dpcontrol.problem.course import Course, Position
from dpcontrol.problem.rolling import open_problem
from dpcontrol.tree import Tree


@dataclass(frozen=True)
class Underway:
    """A batch of episodes that stand at the same step: their scenes, and where they stand (``None``: at the start)."""

    scenarios: Scenarios
    position: Position | None = None

    def step(self, problem: Problem) -> int:
        """The step that comes next."""
        return problem.first if self.position is None else self.position.k

    def pack(self) -> Tree:
        """Everything that the rest of the episodes depends on."""
        here = self.position
        where = None if here is None else [here.state, list(here.memories), here.k]
        return {"data": dict(self.scenarios.data), "where": where}

    @staticmethod
    def unpacked(kept: Any, like: Scenarios) -> Underway:
        """From what :meth:`pack` gave; ``like`` are scenarios of the same problem."""
        scenes = Scenarios(kept["data"], like.sampler, like.shared)
        if kept["where"] is None:
            return Underway(scenes)
        state, memories, k = kept["where"]
        return Underway(scenes, Position(state, tuple(memories), k))


@dataclass(frozen=True)
class Stretch:
    """Some steps of a batch of episodes.

    Attributes:
        states: ``x_k`` before each of the steps, and the one behind the last: ``steps + 1`` trees.
        costs: of each step, ``(steps, scenarios)``; at the end of the episodes the last one has all that comes behind
            it, the closing control and the terminal cost.
        first: number of the first step.
        data: per-scenario data, as a controller sees it.
        after: the episodes behind it, held constant; ``None`` where they have ended.
    """

    states: list[Tree]
    costs: Tensor
    first: int
    data: Mapping[str, Tree]
    after: Underway | None


def advance(problem: Problem, z: Mapping[str, Tree], episodes: Underway, steps: int) -> Stretch:
    """The next ``steps`` steps (fewer where the episodes end before) under the controller ``z``, on the simulator.

    What comes before is held constant, so that gradients reach no further back.
    """
    asked = problem.with_scenarios(episodes.scenarios)
    course, position, inputs, data = open_problem(asked, z, None, plant=False)
    if episodes.position is not None:
        position = episodes.position
    acting, end = inputs.acting, problem.first + problem.free_steps
    assert acting is not None
    noise = tree.map(lambda leaf: leaf.transpose(0, 1), data.get("noise"))
    held = acting.begin(position.state, data)
    first, states, costs = position.k, [position.state], []
    for k in range(first, min(first + steps, end)):
        control, held = acting.act(held, position.state, k * course.simulator.dt, course.frame.scenario)
        disturbance = tree.map(lambda leaf, k=k: leaf[k], noise)
        position, cost = courses.step(course, position, control, disturbance)
        costs.append(courses.total(cost, like=position.state))
        states.append(position.state)
    if position.k < end:
        now = replace(position, state=tree.detach(position.state), memories=tree.detach(position.memories))
        return Stretch(states, torch.stack(costs), first, data, Underway(episodes.scenarios, now))
    costs[-1] = costs[-1] + _end(course, position, noise)
    return Stretch(states, torch.stack(costs), first, data, None)


def _end(course: Course, position: Position, noise: Tree) -> Tensor:
    """What comes behind the last action, ``(scenarios,)``."""
    closing = None
    if course.closing is not None:
        last = tree.map(lambda leaf: leaf[position.k], noise)
        position, _, closing = courses.close(course, position, last)
    return courses.total(closing, courses.finish(course, position), like=position.state)
