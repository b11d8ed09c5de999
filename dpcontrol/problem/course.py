"""One run through a problem, step by step: what rollouts, closed loops and environments have in common.

The cost of every step is known when the step is taken, so the sum of an episode's rewards is minus its loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from dpcontrol import tree
from dpcontrol.engine.trajectory import parameter_values, stepper
from dpcontrol.problem import objective as folds
from dpcontrol.problem.objective import Closing, Frame, Objective
from dpcontrol.problem.path import Moment
from dpcontrol.problem.unknown import Inputs
from dpcontrol.sim.base import Simulator
from dpcontrol.tree import Tree


@dataclass(frozen=True)
class Course:
    """What does not change during a run: the system with its coefficients, the objective, the scenario data."""

    simulator: Simulator
    coefficients: Any
    objective: Objective
    closing: Closing | None
    frame: Frame

    def constants(self) -> Tree:
        """The tensors that every step sees, as a tree: loops take them as explicit arguments."""
        # controls and noise enter row by row; as constants their gradient would be a whole sequence at every step
        sought = {name: value for name, value in self.frame.z.items() if name not in ("control", "noise")}
        return self.coefficients, dict(self.frame.scenario), sought

    def with_constants(self, constants: Tree) -> Course:
        """The same course over other tensors (or over those of a transform)."""
        coefficients, scenario, sought = constants
        return replace(self, coefficients=coefficients, frame=Frame(scenario, {**self.frame.z, **sought}))

    def moment(self, state: Tree, control: Tree, k: int) -> Moment:
        """A moment at step ``k``."""
        return Moment(state, control, k, k * self.simulator.dt)

    def free_step(self, position: Position, noise: Tree) -> Tree:
        """The next state under a zero control of the state's shape (closing controls act on every entry)."""
        return self.after(position, tree.map(torch.zeros_like, position.state), noise)

    def after(self, position: Position, control: Tree, noise: Tree) -> Tree:
        """The next state, by the simulator's kernel where it has one."""
        return stepper(self.simulator)(position.state, (control, noise), self.coefficients, position.k)


@dataclass(frozen=True)
class Opening:
    """Where a problem begins that is a window of another one (see :func:`dpcontrol.problem.windowing.window`).

    Attributes:
        first: the step, and so the time; data of steps are indexed from step 0 as before.
        state: name of the per-scenario entry with the state, as the simulator hands it on (history included).
        memories: name of the entry with the objective's memories; ``None`` begins new ones.
    """

    first: int
    state: str
    memories: str | None = None


@dataclass(frozen=True)
class Position:
    """Where a run stands: the state ``(scenarios, ...)``, the objective's memories, and the step."""

    state: Tree
    memories: tuple[Tree, ...]
    k: int


def open_course(
    simulator: Simulator,
    objective: Objective,
    given: Mapping[str, Any],
    inputs: Inputs,
    frame: Frame,
    opening: Opening | None = None,
) -> tuple[Course, Position]:
    """Everything that is computed once before the first step.

    ``given`` are the problem's parameter values; those sought replace them, per-scenario ones replace both. With an
    ``opening`` the initial state is one that the simulator has started already.
    """
    named = {name: frame.scenario[name] for name in simulator.parameters if name in frame.scenario}
    values = parameter_values(simulator, {**given, **inputs.parameters, **named}, like=inputs.initial_state)
    coefficients = simulator.prepare(values, frame.scenario)
    course = Course(simulator, coefficients, objective, folds.closing_term(objective), frame)
    if opening is None:
        state, first = simulator.start(inputs.initial_state, values), 0
    else:
        state, first = inputs.initial_state, opening.first
    if opening is not None and opening.memories is not None:
        return course, Position(state, frame.scenario[opening.memories], first)
    memories = folds.begin(objective, course.moment(state, None, first), frame)
    return course, Position(state, memories, first)


def step(
    course: Course, position: Position, control: Tree, noise: Tree, *, live: Tree = None
) -> tuple[Position, Tensor | None]:
    """One step under a control: the next position, and the stage cost ``(scenarios,)`` at the present one.

    ``live`` is the same state with a history that the cost is differentiated through and the step is not.
    """
    moment = course.moment(position.state if live is None else live, control, position.k)
    memories, cost = folds.advance(course.objective, position.memories, moment, course.frame)
    return Position(course.after(position, control, noise), memories, position.k + 1), cost


def close(course: Course, position: Position, noise: Tree) -> tuple[Position, Tree, Tensor | None]:
    """The last step of an objective with a closing condition: next position, closing control, stage cost."""
    assert course.closing is not None
    uncontrolled = course.free_step(position, noise)
    control = course.closing.control(uncontrolled, course.simulator.dt, course.frame)
    moment = course.moment(position.state, control, position.k)
    memories, cost = folds.advance(course.objective, position.memories, moment, course.frame)
    target = tree.map(
        lambda end, free: end.expand_as(free), course.frame.scenario[course.closing.target], uncontrolled
    )
    return Position(target, memories, position.k + 1), control, cost


def finish(course: Course, position: Position) -> Tensor | None:
    """The cost ``(scenarios,)`` at the last state."""
    moment = course.moment(position.state, None, position.k)
    return folds.complete(course.objective, position.memories, moment, course.frame)


def total(*costs: Tensor | None, like: Tree) -> Tensor:
    """Sum of costs ``(scenarios,)``; zeros where there is none."""
    found = [cost for cost in costs if cost is not None]
    if not found:
        leaf = tree.leaves(like)[0]
        return torch.zeros(len(leaf), dtype=leaf.dtype, device=leaf.device)
    result = found[0]
    for cost in found[1:]:
        result = result + cost
    return result
