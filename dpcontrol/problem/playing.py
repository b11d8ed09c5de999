"""The one loop that scores every controller on a plant, with what goes wrong between them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from dpcontrol import tree
from dpcontrol.engine.trajectory import Trajectory, times
from dpcontrol.problem import course as courses
from dpcontrol.problem.acting import Acting, Outset, require_acting, require_steps
from dpcontrol.problem.base import Problem
from dpcontrol.problem.policy_slot import played
from dpcontrol.problem.rolling import open_problem
from dpcontrol.problem.scenarios import Scenarios
from dpcontrol.problem.slots import ControlSequence
from dpcontrol.problem.terms import Penalty
from dpcontrol.results import UsageError
from dpcontrol.sim.base import Simulator
from dpcontrol.tree import Tree


@dataclass(frozen=True)
class Played:
    """What became of a controller in closed loop.

    Attributes:
        losses: of each scenario, ``(scenarios,)``.
        trajectory: on the plant; ``controls`` are those that were played.
        metrics: the problem's figures.
        memory: the controller's, after the last step.
        seconds: wall time of all its decisions.
    """

    losses: Tensor
    trajectory: Trajectory
    metrics: Mapping[str, float]
    memory: Any
    seconds: float

    @property
    def loss(self) -> float:
        """Mean over the scenarios."""
        return float(self.losses.mean())


@torch.no_grad()
def play(
    problem: Problem,
    controller: Acting,
    *,
    plant: Simulator | None = None,
    scenarios: Scenarios | None = None,
    pushes: Tree = None,
    generator: torch.Generator | None = None,
) -> Played:
    """Close the loop around a controller, and score it.

    Controls are clipped to the bounds of the problem's control. A closing condition takes the last step, as everywhere.
    Without gradients; numbers that are not finite are not an error, they become losses that are not finite.

    Args:
        problem: seeks a control or a policy; what it seeks plays no role here.
        plant: the system that really answers; by default the problem's plant.
        scenarios: other scenes than the problem's own.
        pushes: a disturbance, added to the states ``x_k``, k = 0 .. ``free_steps`` - 1, before the controller sees
            them; leaves ``(free_steps, scenarios, ...)``.
        generator: for what is random in the controller and its sensors; seeded with 0 by default.

    Raises:
        UsageError: if the problem's unknown does not act step by step, for a control of another shape, or where the
            objective has a ``penalty`` on what is sought, which a controller does not have.
    """
    require_acting("play", controller)
    posed = _posed(problem, plant, scenarios)
    course, position, _, data = open_problem(posed, posed.start(), None, plant=True)
    dt, steps = course.simulator.dt, posed.free_steps
    rows = tree.rows(
        tree.map(lambda leaf: leaf.transpose(0, 1)[posed.first :], data.get("noise")), posed.horizon
    )
    outset = Outset(position.state, data, steps, dt, generator or torch.Generator().manual_seed(0))
    began = time.perf_counter()
    memory = controller.init(outset)
    seconds = time.perf_counter() - began
    states, controls, costs = [], [], []
    for k in range(steps):
        push = tree.map(lambda leaf, k=k: leaf[k], pushes)
        position = replace(position, state=_pushed(position.state, push))
        began = time.perf_counter()
        command, memory = controller.act(memory, position.state, position.k * dt, data)
        seconds += time.perf_counter() - began
        if k == 0:
            _check_control(posed, command)
        control = _clipped(posed, command)
        states.append(position.state)
        controls.append(control)
        position, cost = courses.step(course, position, control, rows[k])
        costs.append(cost)
    if course.closing is not None:
        states.append(position.state)
        position, control, cost = courses.close(course, position, rows[steps])
        controls.append(control)
        costs.append(cost)
    costs.append(courses.finish(course, position))
    path = Trajectory(
        tree.stack([*states, position.state]),
        tree.stack(controls),
        times(position.k, dt, like=position.state)[posed.first :],
    )
    losses = courses.total(*costs, like=position.state)
    samples = posed.metric_samples(path)
    figures = {name: float(top.mean() / bottom.mean()) for name, (top, bottom) in samples.items()}
    return Played(losses, path, figures, memory, seconds)


def require_costs_of_steps(problem: Problem) -> None:
    """Refuse an objective that charges for the whole of what is sought.

    Raises:
        UsageError: if it does.
    """
    if any(isinstance(term, Penalty) for _, term in problem.objective.terms):
        raise UsageError(
            f"the objective of {problem.name} has a penalty(...) on what is sought, which no controller can be charged "
            "for as it acts: pose it as a cost of each step, cost(stage=...) or effort()."
        )


def _posed(problem: Problem, plant: Simulator | None, scenarios: Scenarios | None) -> Problem:
    """The problem as it is played, after a look at whether it can be."""
    require_steps(problem)
    require_costs_of_steps(problem)
    posed = problem if scenarios is None else problem.with_scenarios(scenarios)
    (slot,) = posed.unknown.slots
    if isinstance(slot, ControlSequence):  # its start may be one of other scenes, and does not matter
        posed = posed.with_unknown(replace(slot, start=0.0, scale=None))
    return posed if plant is None else replace(posed, plant=plant)


def _check_control(problem: Problem, control: Tree) -> None:
    slot = played(problem.unknown.slots)
    if slot is None:
        return
    wanted = (problem.scenarios.count, *slot.sizes)
    if not isinstance(control, Tensor) or tuple(control.shape) != wanted or control.is_complex():
        raise UsageError(
            f"a control of {problem.name} is real, of shape {wanted}; the controller gave {tree.describe(control)}."
        )


def _clipped(problem: Problem, control: Tree) -> Tree:
    slot = played(problem.unknown.slots)
    return control if slot is None else slot.clip(control)


def _pushed(state: Tree, push: Tree) -> Tree:
    if push is None:
        return state
    return tree.map(lambda leaf, by: leaf if by is None else leaf + by, state, push)
