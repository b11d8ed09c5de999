"""A problem as an environment: reset, act, be rewarded. The sum of an episode's rewards is minus its loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from dpcontrol import tree
from dpcontrol.problem import course as courses
from dpcontrol.problem.base import Problem, View
from dpcontrol.problem.course import Course, Position
from dpcontrol.problem.rolling import open_problem
from dpcontrol.results import UsageError
from dpcontrol.tree import Tree


@dataclass(frozen=True)
class Episode:
    """Where a batch of episodes stands. ``state`` leaves are ``(scenarios, ...)``; ``steps`` is where actions end."""

    course: Course
    position: Position
    scenario: Mapping[str, Tree]
    steps: int

    @property
    def state(self) -> Tree:
        """The present state."""
        return self.position.state

    @property
    def done(self) -> bool:
        """Whether no action is left."""
        return self.position.k >= self.steps


def reset(problem: Problem, scenarios: Tensor | None = None) -> Episode:
    """Begin an episode in each of the chosen scenarios (all by default), on the plant.

    Raises:
        UsageError: if the unknown does not act step by step.
    """
    if View.ACTING not in problem.offers:
        raise UsageError(
            f"{problem.name} seeks {', '.join(problem.unknown.names)}, which does not act step by step."
        )
    guess = problem.start(scenarios)
    with torch.no_grad():
        course, position, _, data = open_problem(problem, guess, scenarios, plant=True)
    return Episode(course, position, data, problem.first + problem.free_steps)


def advance(episode: Episode, action: Tree) -> tuple[Episode, Tensor]:
    """One step under an action ``(scenarios, ...)``: the next episode state, and the reward ``(scenarios,)``.

    The last action also earns what comes behind it: the closing control and the terminal cost.
    """
    if episode.done:
        raise UsageError("the episode is over; reset() begins another one.")
    course, position = episode.course, episode.position
    noise = _noise_at(episode, position.k)
    position, cost = courses.step(course, position, action, noise)
    costs = [cost]
    if position.k == episode.steps:
        if course.closing is not None:
            position, _, closing_cost = courses.close(course, position, _noise_at(episode, position.k))
            costs.append(closing_cost)
        costs.append(courses.finish(course, position))
    reward = -courses.total(*costs, like=position.state)
    return Episode(course, position, episode.scenario, episode.steps), reward


def _noise_at(episode: Episode, k: int) -> Tree:
    return tree.map(lambda leaf: leaf[:, k], episode.scenario.get("noise"))
