"""Asking a problem a few questions at the door: is its step batched, pure and differentiable, do its costs fit?

A few single steps of two scenarios, so it costs next to nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from dpcontrol import tree
from dpcontrol.engine.trajectory import eager_step
from dpcontrol.problem import course as courses
from dpcontrol.problem import objective as folds
from dpcontrol.problem.base import Problem
from dpcontrol.problem.course import Course, Position
from dpcontrol.problem.rolling import open_problem
from dpcontrol.problem.slots import ControlSequence
from dpcontrol.problem.unknown import Remembering
from dpcontrol.results import USERS_ERRORS, UsageError, first_line
from dpcontrol.tree import Tree

Step = Callable[[Tree, Tree], Tree]


def probe(problem: Problem) -> None:
    """Raise :class:`UsageError` where the step, a cost, a baseline law or the observation does not fit the problem."""
    pair = torch.tensor([0, problem.scenarios.count - 1])
    course, position, control, noise = _first_step(problem, pair)
    if problem.horizon > 0:
        state, control, after = _tried(problem, course, position, control, noise)
        step = _guarded(_step_of(course, noise), state, control)
        with torch.no_grad():
            _is_pure(step, state, control, after)
            _is_batched(problem, state, control, after)
        if problem.differentiable:
            words = (
                "declare a black box with FunctionSimulator(step, differentiable=False) and use cmaes or cem"
            )
            _is_differentiable(step, state, control, "step(state, control)", words)
        if problem.plant is not None:
            _plant_fits(problem, pair, state, control)
        if course.closing is not None:
            _closes(course, position, control, noise)
    else:
        control = _moved(problem, control)
    _costs_fit(problem, course, position, control)
    _laws_fit(problem, course, position, control)
    _observation_fits(problem, position, pair)


def _tried(
    problem: Problem, course: Course, position: Position, control: Tree, noise: Tree
) -> tuple[Tree, Tree, Tree]:
    """State and control to ask about, and the state one step later, which is finite.

    They are moved a little off the start, so that scenarios differ. Where the step is not finite there, the start may
    lie at the end of a domain (that of a root, say) and is asked about itself.
    """
    with torch.no_grad():
        for state, acted in (
            (_spread(position.state, 0.01), _moved(problem, control)),
            (position.state, control),
        ):
            after = _guarded(_step_of(course, noise), state, acted)(state, acted)
            _same_shape(after, state)
            if bool(tree.all_finite(after)):
                return state, acted, after
    path, leaf = next((p, x) for p, x in tree.named_leaves(after) if not bool(torch.isfinite(x).all()))
    bad = int(torch.nonzero(~torch.isfinite(leaf).reshape(len(leaf), -1).all(1))[0])
    raise UsageError(
        f"step(state, control) returned numbers that are not finite at the first step, step 0, in state{path} of "
        f"scenario {(0, problem.scenarios.count - 1)[bad]}; look for a logarithm, a root or a division out of its "
        "range, shorten dt, or start elsewhere."
    )


def _first_step(problem: Problem, scenarios: Tensor) -> tuple[Course, Position, Tree, Tree]:
    """The course of some scenarios at its first position, with the first control and the first noise."""
    guess = problem.start(scenarios)
    with torch.no_grad():
        course, position, inputs, data = open_problem(problem, guess, scenarios, plant=False)
        if inputs.acting is not None:
            control = _policy_control(inputs.acting, position.state, data)
        else:
            control = tree.map(lambda leaf: leaf[:, 0], inputs.controls)
    noise = tree.map(lambda leaf: leaf[:, 0], data.get("noise"))
    return course, position, control, noise


def _moved(problem: Problem, control: Tree) -> Tree:
    """The control, moved a little within its bounds."""
    moved = _spread(control, 0.05)
    for slot in problem.unknown.slots:
        if isinstance(slot, ControlSequence):
            moved = slot.clip(moved)
    return moved


def _policy_control(acting: Remembering, state: Tree, data: Mapping[str, Tree]) -> Tree:
    try:
        return acting.act(acting.begin(state, data), state, 0.0, data)[0]
    except USERS_ERRORS as error:
        raise UsageError(
            f"the policy's network failed with {first_line(error)}; it is called as network(state, t, scenario), with "
            "a state (scenarios, ...), a float and the dict of per-scenario data: wrap it in a module with this "
            "forward."
        ) from error


def _spread(value: Tree, amount: float) -> Tree:
    """The value, moved a little and differently in each entry, reproducibly."""

    def move(leaf: Tensor) -> Tensor:
        wave = torch.cos(1.0 + torch.arange(leaf.numel(), dtype=leaf.dtype, device=leaf.device)).reshape(
            leaf.shape
        )
        return leaf + amount * (leaf.abs() + 0.1) * wave

    return tree.map(move, value)


def _step_of(course: Course, noise: Tree) -> Step:
    """The simulator's step as every loop takes it."""
    step = eager_step(course.simulator)
    return lambda state, control: step(state, (control, noise), course.coefficients, 0)


def _guarded(step: Step, state: Tree, control: Tree) -> Step:
    """The step, with what a user's code raises put into one sentence."""

    def run(x: Tree, u: Tree) -> Tree:
        try:
            return step(x, u)
        except UsageError:
            raise
        except USERS_ERRORS as error:
            hint = (
                "make them fit" if tree.leaves(control) else "nothing that is sought acts, so control is None"
            )
            raise UsageError(
                f"step(state, control) failed with {first_line(error)} - state is {tree.describe(state)}, control is "
                f"{tree.describe(control)}; {hint}."
            ) from error

    return run


def _same_shape(after: Tree, state: Tree) -> None:
    bad_leaf = any(not isinstance(leaf, Tensor) for leaf in tree.leaves(after))
    if bad_leaf or not tree.same_structure(after, state) or tree.describe(after) != tree.describe(state):
        raise UsageError(
            f"step(state, control) must return a state like the one it got, {tree.describe(state)}; "
            f"found {tree.describe(after)}: keep structure, shape and dtype."
        )


def _is_pure(step: Step, state: Tree, control: Tree, after: Tree) -> None:
    before = tree.map(torch.clone, (state, control))
    again = step(state, control)
    if not _equal((state, control), before):
        raise UsageError(
            "step(state, control) changed its input in place; build and return new tensors instead."
        )
    if not _equal(again, after):
        raise UsageError(
            "step(state, control) gave two different answers to the same question; draw randomness beforehand and "
            "pass it in as noise, and keep no state between calls."
        )


def _is_batched(problem: Problem, state: Tree, control: Tree, after: Tree) -> None:
    for chosen in ([0], [1, 0]):
        rows = torch.tensor(chosen)
        course, _, _, noise = _first_step(problem, torch.tensor([0, problem.scenarios.count - 1])[rows])
        some, acted = tree.take(state, rows), tree.take(control, rows)
        step = _guarded(_step_of(course, noise), some, acted)
        found = step(some, acted)
        if not tree.same_structure(found, after) or not _close(found, tree.take(after, rows)):
            raise UsageError(
                "step(state, control) is not batched over scenarios: the answer for one scenario depends on which "
                "others are beside it; treat the leading axis of every tensor as independent scenarios."
            )


def _is_differentiable(step: Step, state: Tree, control: Tree, what: str, otherwise: str) -> None:
    """Compare the derivative in random directions with finite differences; detached paths are found this way."""
    names = {"state": 0, "control": 1} if tree.leaves(control) else {"state": 0}
    for name, position in names.items():
        verdicts = [_derivatives(step, (state, control), position, seed) for seed in range(3)]
        if all(
            abs(exact - measured) > 0.05 * max(abs(exact), abs(measured)) + floor
            for exact, measured, floor in verdicts
        ):
            exact, measured, _ = verdicts[0]
            raise UsageError(
                f"{what} has a wrong gradient in {name}: autograd says {exact:.3g}, a finite difference "
                f"{measured:.3g}; remove .detach(), .item(), .numpy() and rounding, or {otherwise}."
            )


def _derivatives(
    step: Step, point: tuple[Tree, Tree], position: int, seed: int
) -> tuple[float, float, float]:
    """Directional derivative of a random projection of the step: by autograd, by difference, and the error's floor."""
    generator = torch.Generator().manual_seed(seed)

    def draw(leaf: Tensor) -> Tensor:
        return torch.randn(leaf.shape, generator=generator, dtype=leaf.dtype).to(leaf.device)

    base = tree.map(lambda leaf: leaf.detach(), point)
    direction = tree.map(draw, base[position])
    weights = tree.map(draw, step(*base))

    def moved(amount: float | Tensor) -> Tensor:
        arguments = list(base)
        arguments[position] = tree.map(lambda leaf, d: leaf + amount * d, base[position], direction)
        return tree.dot(step(*arguments), weights)

    eps = torch.finfo(tree.leaves(base)[0].dtype).eps
    width = eps ** (1 / 3)
    with torch.no_grad():
        high, low = float(moved(width)), float(moved(-width))
    measured = (high - low) / (2 * width)
    amount = torch.zeros(
        (), dtype=tree.leaves(base)[0].dtype, device=tree.leaves(base)[0].device, requires_grad=True
    )
    with torch.enable_grad():
        value = moved(amount)
        exact = float(torch.autograd.grad(value, amount)[0]) if value.requires_grad else 0.0
    return exact, measured, 100 * eps * (abs(high) + 1) / width


def _closes(course: Course, position: Position, control: Tree, noise: Tree) -> None:
    """Verify that a closing control closes: the control must enter every entry of a step linearly."""
    if tree.describe(control) != tree.describe(position.state):
        raise UsageError(
            f"closing(target) needs a control on every entry of the state; the state is "
            f"{tree.describe(position.state)}, the control {tree.describe(control)}: use reach(target)."
        )
    assert course.closing is not None
    with torch.no_grad():
        free = course.free_step(position, noise)
        acted = course.closing.control(free, course.simulator.dt, course.frame)
        end = _step_of(course, noise)(position.state, acted)
        target = tree.map(lambda t, x: t.expand_as(x), course.frame.scenario[course.closing.target], end)
    if not _close(end, target):
        raise UsageError(
            "closing(target) assumes step(x, u) = step(x, 0) + gain * u, which this simulator does not do for "
            f"gain {course.closing.gain or course.simulator.dt}: pass closing(target, gain=...), or use reach(target)."
        )


def _plant_fits(problem: Problem, pair: Tensor, state: Tree, control: Tree) -> None:
    with torch.no_grad():
        course, _, _, data = open_problem(problem, problem.start(pair), pair, plant=True)
        noise = tree.map(lambda leaf: leaf[:, 0], data.get("noise"))
        try:
            _same_shape(_guarded(_step_of(course, noise), state, control)(state, control), state)
        except UsageError as error:
            raise UsageError(f"the plant does not fit: {error}") from error


def _costs_fit(problem: Problem, course: Course, position: Position, control: Tree) -> None:
    def run(x: Tree, u: Tree) -> Tree:
        moment = course.moment(x, u, 0)
        memories = folds.begin(course.objective, moment, course.frame)
        memories, stage = folds.advance(course.objective, memories, moment, course.frame)
        return courses.total(stage, courses.finish(course, Position(x, memories, 0)), like=position.state)

    try:
        with torch.no_grad():
            found: Any = run(position.state, control)
    except UsageError:
        raise
    except USERS_ERRORS as error:
        raise UsageError(f"the objective failed at the first state with {first_line(error)}.") from error
    if bool(torch.isnan(found).all()):
        raise UsageError(
            "the objective is not a number (NaN) at the initial states; look for a square root, a logarithm or a "
            "division out of its range."
        )
    if problem.differentiable and bool(torch.isfinite(found).all()):
        words = "declare a black box simulator with differentiable=False and use cmaes or cem"
        _is_differentiable(run, _spread(position.state, 0.01), control, "the objective", words)


def _laws_fit(problem: Problem, course: Course, position: Position, control: Tree) -> None:
    for name, law in problem.baselines.items():
        try:
            with torch.no_grad():
                found = law(position.state, 0.0, course.frame.scenario)
        except USERS_ERRORS as error:
            raise UsageError(f"the baseline {name!r} failed with {first_line(error)}.") from error
        if tree.describe(found) != tree.describe(control):
            raise UsageError(
                f"the baseline {name!r} must return a control {tree.describe(control)}; found {tree.describe(found)}."
            )
        if not bool(tree.all_finite(found)):
            raise UsageError(
                f"the baseline {name!r} gave a control that is not finite at the initial states."
            )


def _observation_fits(problem: Problem, position: Position, pair: Tensor) -> None:
    if problem.observation is None:
        return
    if not callable(problem.observation):
        raise UsageError(
            f"observation must be a function from a state to what a controller sees; found {problem.observation!r}."
        )
    initial = tree.take(problem.scenarios.data["initial_state"], pair)
    with torch.no_grad():
        # a first state may have more to it than the initial one; learned controllers are shown both
        for state in (position.state, initial):
            seen = _observed(problem, state)
            if not bool(tree.all_finite(seen)):
                raise UsageError(
                    "observation(state) is not finite at the initial states; look for a logarithm, a root or a "
                    "division out of its range."
                )
        moved = _spread(position.state, 0.01)
        alone, beside = _observed(problem, tree.take(moved, torch.tensor([1]))), _observed(problem, moved)
    if not _close(alone, tree.take(beside, torch.tensor([1]))):
        raise UsageError(
            "observation(state) is not batched over scenarios: what it shows of one depends on which others are "
            "beside it; treat the leading axis of every tensor as independent scenarios."
        )


def _observed(problem: Problem, state: Tree) -> Tree:
    """What a controller sees of some states, like them in the leading axis and in dtype."""
    assert problem.observation is not None
    try:
        seen = problem.observation(state)
    except USERS_ERRORS as error:
        raise UsageError(
            f"observation(state) failed with {first_line(error)} - state is {tree.describe(state)}; make them fit."
        ) from error
    like = tree.leaves(state)[0]
    if not tree.leaves(seen) or any(
        not isinstance(leaf, Tensor) or leaf.shape[:1] != like.shape[:1] or leaf.dtype != like.dtype
        for leaf in tree.leaves(seen)
    ):
        raise UsageError(
            f"observation(state) must return tensors ({len(like)}, ...) of the state's dtype, a row for each scenario; "
            f"the state is {tree.describe(state)}, found {tree.describe(seen)}."
        )
    return seen


def _equal(first: Tree, second: Tree) -> bool:
    pairs = zip(tree.leaves(first), tree.leaves(second), strict=True)
    return all(
        torch.equal(a, b) or bool((torch.isnan(a) & torch.isnan(b) | (a == b)).all()) for a, b in pairs
    )


def _close(first: Tree, second: Tree) -> bool:
    def near(a: Tensor, b: Tensor) -> bool:
        if a.shape != b.shape:
            return False
        tolerance = 200 * torch.finfo(a.dtype).eps
        return torch.allclose(
            a, b, rtol=tolerance, atol=tolerance * (1 + float(b.abs().max())), equal_nan=True
        )

    return all(near(a, b) for a, b in zip(tree.leaves(first), tree.leaves(second), strict=True))
