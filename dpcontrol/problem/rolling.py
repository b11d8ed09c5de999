"""Rolling a problem out: the loop in which simulator, objective and what is sought meet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from dpcontrol import tree
from dpcontrol.engine.gradients import GradientMode
from dpcontrol.engine.scan import scan
from dpcontrol.engine.trajectory import Trajectory, times
from dpcontrol.problem import course as courses
from dpcontrol.problem import objective as folds
from dpcontrol.problem.course import Course, Position
from dpcontrol.problem.objective import Frame, Objective
from dpcontrol.problem.scenarios import Scenarios
from dpcontrol.problem.unknown import Inputs, Law, Unknown
from dpcontrol.sim.base import Simulator
from dpcontrol.tree import Tree


class Rollable(Protocol):
    """The part of a problem that a rollout needs."""

    @property
    def simulator(self) -> Simulator: ...
    @property
    def plant(self) -> Simulator | None: ...
    @property
    def scenarios(self) -> Scenarios: ...
    @property
    def unknown(self) -> Unknown: ...
    @property
    def objective(self) -> Objective: ...
    @property
    def parameters(self) -> Mapping[str, Tree]: ...
    @property
    def gradient(self) -> GradientMode: ...
    @property
    def horizon(self) -> int: ...
    @property
    def free_steps(self) -> int: ...


@dataclass(frozen=True)
class Rolled:
    """The loss ``(scenarios,)``, and what was asked for beside it."""

    loss: Tensor
    trajectory: Trajectory | None = None
    residuals: Tensor | None = None


def open_problem(
    problem: Rollable, z: Mapping[str, Tree], scenarios: Tensor | None, *, plant: bool
) -> tuple[Course, Position, Inputs, Mapping[str, Tree]]:
    """A course at its first position, with the inputs and the per-scenario data of the chosen scenarios."""
    data = problem.scenarios.take(scenarios)
    inputs = problem.unknown.place(z, Inputs(initial_state=data["initial_state"]))
    simulator = problem.plant if plant and problem.plant is not None else problem.simulator
    course, position = courses.open_course(
        simulator, problem.objective, problem.parameters, inputs, Frame(data, z)
    )
    return course, position, inputs, data


def roll(
    problem: Rollable,
    z: Mapping[str, Tree],
    scenarios: Tensor | None = None,
    *,
    plant: bool = False,
    keep: bool = False,
    residuals: bool = False,
    law: Law | None = None,
) -> Rolled:
    """Roll a problem out under ``z`` (or, for its free steps, under a feedback ``law`` instead).

    Args:
        scenarios: indices ``(m,)`` of the scenarios to run, repetition allowed; per-scenario parts of ``z`` then have
            ``m`` rows.
        plant: run the system that the answer is judged on.
        keep: return the trajectory.
        residuals: return the residuals ``(scenarios, entries)`` of a sum of squares.
    """
    course, position, inputs, data = open_problem(problem, z, scenarios, plant=plant)
    steps = problem.free_steps
    closed_loop = law is not None or inputs.law is not None
    noise = _by_step(data.get("noise"))
    free_noise = tree.map(lambda leaf: leaf[:steps], noise)
    controls = None if closed_loop else _by_step(inputs.controls)

    def body(carry: Tree, row: Tree, constants: Tree, k: int) -> tuple[Tree, Tree]:
        state, memories, loss = carry
        here, control = course.with_constants(constants), None
        if closed_loop:
            acting = law or problem.unknown.place(here.frame.z, inputs).law
            assert acting is not None
            control = acting(state, k * here.simulator.dt, here.frame.scenario)
        else:
            control = row[0] if row is not None else None
        rows = None
        if residuals:
            rows = folds.residual_rows(
                course.objective, here.moment(state, control, k), here.frame, last=False
            )
        disturbance = row[1] if row is not None else None
        after, cost = courses.step(here, Position(state, memories, k), control, disturbance)
        loss = loss if cost is None else loss + cost
        return (after.state, after.memories, loss), ((after.state, control) if keep else None, rows)

    zero = courses.total(like=position.state)
    start = position.state
    carry, kept = scan(
        body,
        (start, position.memories, zero),
        (controls, free_noise),
        steps,
        constants=course.constants(),
        gradient=problem.gradient,
    )
    position, loss = Position(carry[0], carry[1], steps), carry[2]
    path, stage_rows = kept if kept is not None else (None, None)
    rows = [row.transpose(0, 1).reshape(len(zero), -1) for row in stage_rows or []]
    states, acted = path if path is not None else (None, None)
    if course.closing is not None:
        last_noise = tree.map(lambda leaf: leaf[steps], noise)
        before = position
        position, control, cost = courses.close(course, position, last_noise)
        loss = courses.total(loss, cost, like=start)
        moment = course.moment(before.state, control, steps)
        if residuals:
            rows += folds.residual_rows(course.objective, moment, course.frame, last=False)
        if keep:
            states = _append(states, position.state)
            acted = _append(acted, control)
    if residuals:
        moment = course.moment(position.state, None, position.k)
        rows += folds.residual_rows(course.objective, moment, course.frame, last=True)
    loss = courses.total(loss, courses.finish(course, position), like=start)
    trajectory = None
    if keep:
        whole = tree.map(lambda leaf: leaf[None], start)
        whole = whole if states is None else tree.map(lambda a, b: torch.cat([a, b]), whole, states)
        trajectory = Trajectory(whole, acted, times(problem.horizon, course.simulator.dt, like=start))
    return Rolled(loss, trajectory, torch.cat(rows, 1) if rows else None)


def _by_step(value: Tree) -> Tree:
    """From ``(scenarios, steps, ...)`` to ``(steps, scenarios, ...)``."""
    return tree.map(lambda leaf: leaf.transpose(0, 1), value)


def _append(sequence: Tree, last: Tree) -> Tree:
    if sequence is None:
        return tree.map(lambda leaf: leaf[None], last)
    return tree.map(lambda rows, row: torch.cat([rows, row[None]]), sequence, last)
