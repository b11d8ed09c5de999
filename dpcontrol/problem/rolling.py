"""Rolling a problem out: the loop in which simulator, objective and what is sought meet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from dpcontrol import tree
from dpcontrol.engine.gradients import Auto, GradientMode
from dpcontrol.engine.memory import choose
from dpcontrol.engine.scan import Body, scan, unbound
from dpcontrol.engine.trajectory import Trajectory, times
from dpcontrol.problem import course as courses
from dpcontrol.problem import objective as folds
from dpcontrol.problem.again import run_again
from dpcontrol.problem.course import Course, Opening, Position
from dpcontrol.problem.objective import Frame, Objective
from dpcontrol.problem.scenarios import Scenarios
from dpcontrol.problem.stretches import Ran, kernel_ahead, run_stretches
from dpcontrol.problem.unknown import Forgetful, Inputs, Law, Unknown
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
    @property
    def opening(self) -> Opening | None: ...
    @property
    def first(self) -> int: ...


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
    opening = problem.opening
    state = data["initial_state" if opening is None else opening.state]
    inputs = problem.unknown.place(z, Inputs(initial_state=state))
    simulator = problem.plant if plant and problem.plant is not None else problem.simulator
    course, position = courses.open_course(
        simulator, problem.objective, problem.parameters, inputs, Frame(data, z), opening
    )
    return course, position, inputs, data if inputs.noise is None else {**data, "noise": inputs.noise}


@dataclass(frozen=True)
class Loop:
    """The free steps of a problem, ready to be run: arguments of :func:`dpcontrol.engine.scan.scan`.

    The carry is ``(state, memories, loss)``, with leaves ``(scenarios, ...)``; in a closed loop the controller's memory
    comes fourth. ``open`` is whether all controls are known beforehand.
    ``first`` is the number of the first step; the body is told how many steps came before.
    """

    body: Body
    carry: Tree
    inputs: Tree
    steps: int
    constants: Tree
    open: bool
    first: int = 0

    def shortened(self, steps: int) -> Loop:
        """Its first steps alone."""
        return replace(self, inputs=tree.map(lambda leaf: leaf[:steps], self.inputs), steps=steps)


def open_loop(
    problem: Rollable,
    z: Mapping[str, Tree],
    scenarios: Tensor | None = None,
    *,
    plant: bool = False,
    keep: bool = False,
    residuals: bool = False,
    law: Law | None = None,
    nudges: Tree = None,
) -> tuple[Course, Loop, Tree]:
    """The course and the loop that :func:`roll` runs, not yet run, and the noise ``(horizon, scenarios, ...)``."""
    course, position, inputs, data = open_problem(problem, z, scenarios, plant=plant)
    steps = problem.free_steps
    given = None if law is None else Forgetful(law)
    acting = given or inputs.acting
    first = problem.first
    noise = _by_step(data.get("noise"))
    if first and inputs.noise is None:
        noise = tree.map(lambda leaf: leaf[first:], noise)
    controls = None if acting is not None else _by_step(inputs.controls)

    def body(carry: Tree, row: Tree, constants: Tree, k: int) -> tuple[Tree, Tree]:
        state, memories, loss, *held = carry
        control, disturbance, nudge = row if row is not None else (None, None, None)
        live, state = state if isinstance(state, Cut) else (state, state)
        live, state = _moved(live, nudge), _moved(state, nudge)
        k = first + k
        here = course.with_constants(constants)
        if held:
            acting = given or problem.unknown.place(here.frame.z, inputs).acting
            assert acting is not None
            control, held[0] = acting.act(held[0], state, k * here.simulator.dt, here.frame.scenario)
        rows = None
        if residuals:
            rows = folds.residual_rows(
                course.objective, here.moment(live, control, k), here.frame, last=False
            )
        after, cost = courses.step(here, Position(state, memories, k), control, disturbance, live=live)
        loss = loss if cost is None else loss + cost
        return (after.state, after.memories, loss, *held), ((after.state, control) if keep else None, rows)

    rows = controls, *(tree.map(lambda leaf: leaf[:steps], value) for value in (noise, nudges))
    carry: tuple[Tree, ...] = position.state, position.memories, courses.total(like=position.state)
    if acting is not None:
        carry = *carry, acting.begin(position.state, data)
    ahead = acting is None and nudges is None
    return course, Loop(body, carry, rows, steps, course.constants(), ahead, first), noise


def free_steps(course: Course, loop: Loop, mode: GradientMode, *, keep: bool, residuals: bool) -> Ran:
    """Run the free steps: in stretches with costs over whole stretches where the mode allows it, else step by step."""
    if (
        torch.is_grad_enabled()
        and isinstance(mode, Auto)
        and (not loop.open or kernel_ahead(course, loop, mode) is None)
    ):
        rows = unbound(loop.inputs, loop.steps)
        mode = choose(mode, loop.body, loop.carry, rows, loop.constants)
    found = run_stretches(course, loop, mode, keep=keep, residuals=residuals) if loop.open else None
    if found is None and loop.open and not keep and not residuals:
        found = run_again(course, loop, mode)
    if found is not None:
        return found
    carry, kept = scan(
        loop.body, loop.carry, loop.inputs, loop.steps, constants=loop.constants, gradient=mode, cut=_held
    )
    path, stage_rows = kept if kept is not None else (None, None)
    rows = [row.transpose(0, 1).reshape(len(carry[2]), -1) for row in stage_rows or []]
    states, acted = path if path is not None else (None, None)
    return Ran(carry, states, acted, rows)


def roll(
    problem: Rollable,
    z: Mapping[str, Tree],
    scenarios: Tensor | None = None,
    *,
    plant: bool = False,
    keep: bool = False,
    residuals: bool = False,
    law: Law | None = None,
    nudges: Tree = None,
) -> Rolled:
    """Roll a problem out under ``z`` (or, for its free steps, under a feedback ``law`` instead).

    Args:
        scenarios: indices ``(m,)`` of the scenarios to run, repetition allowed; per-scenario parts of ``z`` then have
            ``m`` rows.
        plant: run the system that the answer is judged on.
        keep: return the trajectory.
        residuals: return the residuals ``(scenarios, entries)`` of a sum of squares.
        nudges: added to the states ``x_k``, ``k = 0 .. free_steps``, leaves ``(free_steps + 1, scenarios, ...)``: the
            gradient of a loss in them at zero is its adjoint.
    """
    course, loop, noise = open_loop(
        problem, z, scenarios, plant=plant, keep=keep, residuals=residuals, law=law, nudges=nudges
    )
    steps, start = loop.steps, loop.carry[0]
    ran = free_steps(course, loop, problem.gradient, keep=keep, residuals=residuals)
    end = _moved(ran.carry[0], tree.map(lambda leaf: leaf[steps], nudges))
    position, loss = Position(end, ran.carry[1], loop.first + steps), ran.carry[2]
    states, acted, rows = ran.states, ran.controls, list(ran.rows)
    if course.closing is not None:
        last_noise = tree.map(lambda leaf: leaf[steps], noise)
        before = position
        position, control, cost = courses.close(course, position, last_noise)
        loss = courses.total(loss, cost, like=start)
        moment = course.moment(before.state, control, before.k)
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
        when = times(loop.first + problem.horizon, course.simulator.dt, like=start)[loop.first :]
        trajectory = Trajectory(whole, acted, when)
    return Rolled(loss, trajectory, torch.cat(rows, 1) if rows else None)


class Cut(NamedTuple):
    """A state where a biased gradient stops: its own cost still looks back (``live``), what follows does not."""

    live: Tree
    held: Tree


def _held(carry: Tree) -> Tree:
    """The carry with its state held constant, and a controller's memory.

    What the steps before cost keeps its gradient, and so does the cost of this state, which they have led to: else a
    truncated gradient would be that of the last window alone.
    """
    state, memories, loss, *held = carry
    return (Cut(state, tree.detach(state)), memories, loss, *tree.detach(held))


def _moved(state: Tree, nudge: Tree) -> Tree:
    if nudge is None:
        return state
    return tree.map(lambda leaf, by: leaf if by is None else leaf + by, state, nudge)


def _by_step(value: Tree) -> Tree:
    """From ``(scenarios, steps, ...)`` to ``(steps, scenarios, ...)``."""
    return tree.map(lambda leaf: leaf.transpose(0, 1), value)


def _append(sequence: Tree, last: Tree) -> Tree:
    if sequence is None:
        return tree.map(lambda leaf: leaf[None], last)
    return tree.map(lambda rows, row: torch.cat([rows, row[None]]), sequence, last)
