"""The objectives that people write: ``0.5 * reach(target) + 1e-3 * effort()``.

Built-in costs are plain sums of squares over steps and cells: no half, no ``dt``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from dpcontrol import tree
from dpcontrol.problem.noise import NoiseModel
from dpcontrol.problem.objective import (
    Closing,
    Data,
    Frame,
    Objective,
    Selector,
    Setting,
    Squares,
    Term,
    _identity,
    lift,
)
from dpcontrol.problem.path import Moment, Path
from dpcontrol.problem.together import agree, sees_together
from dpcontrol.results import UsageError
from dpcontrol.tree import Tree


def reach(target: Any, *, of: Selector | None = None) -> Objective:
    r"""``sum |of(x_N) - target|^2``: be there at the end.

    Args:
        target: like ``of(state)``: leaves ``(scenarios, ...)``, or ``(...)`` for one target for all, or the name of an
            entry of the scenarios.
        of: which part of the state counts; all of it by default.
    """
    return Reach(target, of or _identity)


def track(reference: Any, *, steps: Sequence[int] | None = None, of: Selector | None = None) -> Objective:
    r"""``sum_k |of(x_k) - reference_k|^2``, ``k = 0 .. N``: follow a trajectory.

    Args:
        reference: in a trajectory's layout, ``(horizon + 1, scenarios, ...)`` or ``(horizon + 1, ...)``; with ``steps``
            one row per step named. The name of an entry of the scenarios has the scenario axis first.
        steps: the steps that count; all by default.
        of: which part of the state counts.
    """
    return misfit(reference, None, steps=steps, of=of)


def misfit(
    data: Any,
    noise: NoiseModel | None = None,
    *,
    steps: Sequence[int] | None = None,
    of: Selector | None = None,
) -> Objective:
    r"""``-sum_k log p(data_k | of(x_k))``; with ``noise=None`` the sum of squares ``sum_k |of(x_k) - data_k|^2``.

    Args:
        data: measurements in a trajectory's layout, as in :func:`track`.
        noise: the density of a measurement around its prediction.
        steps: the steps at which the rows of ``data`` were taken; all by default.
        of: the observation operator, from a state ``(scenarios, ...)`` to a prediction ``(scenarios, ...)``.
    """
    if noise is None:
        return Track(data, _checked_steps(steps), of or _identity)
    return Misfit(data, noise, _checked_steps(steps), of or _identity)


def effort() -> Objective:
    r"""``sum_k |u_k|^2``: what the control costs."""
    return Effort()


def closing(target: Any, *, gain: float | None = None) -> Objective:
    r"""End at the target exactly: the last control is the one that closes the gap.

    ``u_{N-1} = (target - step(x_{N-1}, 0)) / gain``, so that only ``N - 1`` controls are free. Asks for a control that
    acts on every entry of the state, ``step(x, u) = step(x, 0) + gain * u``, which is verified. The term costs
    nothing; the closing control counts in :func:`effort` like any other.

    Args:
        target: as in :func:`reach`.
        gain: how strongly the control enters a step; the simulator's ``dt`` by default.
    """
    return Closing(target, gain)


def penalty(slot: str, operator: Callable[[Tree], Tree] | None = None) -> Objective:
    r"""``sum |operator(z[slot])|^2``: regularise what is sought.

    Args:
        slot: ``"control"``, ``"initial_state"``, ``"parameters"``.
        operator: from the slot's value to a tree of residuals; per-scenario slots have leaves ``(scenarios, ...)``,
            and so must the residuals. The identity by default.
    """
    return Penalty(slot, operator or _identity)


def cost(
    stage: Callable[..., Tensor] | None = None, terminal: Callable[..., Tensor] | None = None
) -> Objective:
    """Any cost: ``stage(state, control, t)`` at each step and ``terminal(state)`` at the end, each ``(scenarios,)``.

    Both may take ``scenario`` by keyword: the dict of per-scenario data.
    """
    if stage is None and terminal is None:
        raise UsageError("cost() needs stage=..., terminal=..., or both; found neither.")
    return Cost(stage, terminal)


def fold(
    init: Callable[[Tree], Tree],
    stage: Callable[[Tree, Tree, Tree, float], Tree],
    finish: Callable[[Tree, Tree], Tensor],
) -> Objective:
    """A cost that is no sum over steps (a peak, a mean, a spectrum).

    ``memory = init(state)``, then ``memory = stage(memory, state, control, t)`` at each step, then the cost
    ``finish(memory, state)``, shape ``(scenarios,)``.
    """
    return Fold(init, stage, finish)


def target_state(objective: Objective) -> str | None:
    """The entry of the scenarios that holds the state to be at in the end; ``None`` without ``reach`` of a whole state
    or ``closing``."""
    found = [
        term.target
        for _, term in objective.terms
        if isinstance(term, Closing) or (isinstance(term, Reach) and term.of is _identity)
    ]
    return found[0] if found else None


@dataclass(frozen=True)
class Reach(Squares):
    """See :func:`reach`."""

    target: Any
    of: Selector

    def bind(self, setting: Setting) -> tuple[Term, Data]:
        name, data = lift(setting, self.target, self.of(setting.state), "target")
        return Reach(name, self.of), data

    def residuals(self, moment: Moment, frame: Frame, *, last: bool) -> Tree:
        if not last:
            return None
        return tree.map(lambda x, y: x - y, self.of(moment.state), frame.scenario[self.target])

    def residuals_along(self, path: Path, frame: Frame) -> Tree:
        return None


@dataclass(frozen=True)
class Effort(Squares):
    """See :func:`effort`."""

    def residuals(self, moment: Moment, frame: Frame, *, last: bool) -> Tree:
        return None if last else moment.control

    def residuals_along(self, path: Path, frame: Frame) -> Tree:
        return path.controls


@dataclass(frozen=True)
class Penalty(Squares):
    """See :func:`penalty`."""

    slot: str
    operator: Callable[[Tree], Tree]

    def residuals(self, moment: Moment, frame: Frame, *, last: bool) -> Tree:
        if not last:
            return None
        if self.slot not in frame.z:
            raise UsageError(
                f"penalty({self.slot!r}) needs that slot among what is sought, {sorted(frame.z)}."
            )
        count = len(tree.leaves(moment.state)[0])
        found = self.operator(frame.z[self.slot])
        return tree.map(
            lambda leaf: leaf if leaf.ndim and len(leaf) == count else leaf.expand(count, *leaf.shape), found
        )

    def residuals_along(self, path: Path, frame: Frame) -> Tree:
        return None


@dataclass(frozen=True)
class Track(Squares):
    """See :func:`track`."""

    data: Any
    steps: tuple[int, ...] | None
    of: Selector
    at_once: bool = False

    def bind(self, setting: Setting) -> tuple[Term, Data]:
        name, data = _lift_rows(setting, self.data, self.steps, self.of)
        return Track(name, self.steps, self.of, self.of is _identity), data

    def settled(self, paths: Sequence[Path], frame: Frame) -> Term:
        return replace(self, at_once=all(sees_together(self.of, path) for path in paths))

    def residuals_along(self, path: Path, frame: Frame) -> Tree:
        if not self.at_once:
            return super().residuals_along(path, frame)
        found = _compared(self.data, self.steps, self.of, path, frame)
        return None if found is None else tree.map(lambda x, y: x - y, *found)

    def residuals(self, moment: Moment, frame: Frame, *, last: bool) -> Tree:
        row = _row(self.steps, moment.k)
        if row is None:
            return None
        data = tree.map(lambda leaf: leaf[:, row], frame.scenario[self.data])
        return tree.map(lambda x, y: x - y, self.of(moment.state), data)


@dataclass(frozen=True)
class Misfit(Term):
    """See :func:`misfit`."""

    data: Any
    noise: NoiseModel
    steps: tuple[int, ...] | None
    of: Selector
    at_once: bool = False

    def bind(self, setting: Setting) -> tuple[Term, Data]:
        name, data = _lift_rows(setting, self.data, self.steps, self.of, missing=True)
        return Misfit(name, self.noise, self.steps, self.of), data

    def settled(self, paths: Sequence[Path], frame: Frame) -> Term:
        return replace(self, at_once=all(sees_together(self.of, path) for path in paths))

    def along(self, memory: Tree, path: Path, frame: Frame) -> tuple[Tree, Tensor | None]:
        if not self.at_once:
            return self._one_by_one(memory, path, frame)
        found = _compared(self.data, self.steps, self.of, path, frame)
        if found is None:
            return memory, None
        prediction, data = (tree.ravel(part, batch=2) for part in found)
        return memory, -self.noise.log_density(data, prediction, frame.z).sum((0, 2))

    def log_likelihood(self, moment: Moment, frame: Frame) -> Tensor | None:
        """Log-density of each measurement at this step, ``(scenarios, measurements)``."""
        row = _row(self.steps, moment.k)
        if row is None:
            return None
        data = tree.ravel(tree.map(lambda leaf: leaf[:, row], frame.scenario[self.data]), batch=1)
        prediction = tree.ravel(self.of(moment.state), batch=1)
        return self.noise.log_density(data, prediction, frame.z)

    def stage(self, memory: Tree, moment: Moment, frame: Frame) -> tuple[Tree, Tensor | None]:
        found = self.log_likelihood(moment, frame)
        return memory, None if found is None else -found.sum(1)

    def finish(self, memory: Tree, moment: Moment, frame: Frame) -> Tensor | None:
        return self.stage(memory, moment, frame)[1]


@dataclass(frozen=True)
class Cost(Term):
    """See :func:`cost`."""

    stage_cost: Callable[..., Tensor] | None
    terminal_cost: Callable[..., Tensor] | None
    at_once: bool = False

    def settled(self, paths: Sequence[Path], frame: Frame) -> Term:
        at_once = replace(self, at_once=True)
        return at_once if all(agree(self, at_once, path, frame) for path in paths) else self

    def along(self, memory: Tree, path: Path, frame: Frame) -> tuple[Tree, Tensor | None]:
        if self.stage_cost is None:
            return memory, None
        if not self.at_once:
            return self._one_by_one(memory, path, frame)
        like = tree.leaves(path.states)[0]
        steps = torch.arange(path.first, path.first + path.length, dtype=like.dtype, device=like.device)
        # not one flat batch: in such a function a time of one number per step would meet the axes of a state
        axis = 0 if tree.leaves(path.controls) else None
        found = torch.func.vmap(lambda x, u, t: self._at(Moment(x, u, path.first, t), frame), (0, axis, 0))(
            path.states, path.controls, steps * path.dt
        )
        return memory, found.sum(0)

    def stage(self, memory: Tree, moment: Moment, frame: Frame) -> tuple[Tree, Tensor | None]:
        if self.stage_cost is None:
            return memory, None
        return memory, self._at(moment, frame)

    def _at(self, moment: Moment, frame: Frame) -> Tensor:
        assert self.stage_cost is not None
        found = _call(self.stage_cost, frame, moment.state, moment.control, moment.t)
        return _per_scenario(found, moment.state, "stage(state, control, t)")

    def finish(self, memory: Tree, moment: Moment, frame: Frame) -> Tensor | None:
        if self.terminal_cost is None:
            return None
        found = _call(self.terminal_cost, frame, moment.state)
        return _per_scenario(found, moment.state, "terminal(state)")


@dataclass(frozen=True)
class Fold(Term):
    """See :func:`fold`."""

    start: Callable[[Tree], Tree]
    each: Callable[[Tree, Tree, Tree, float], Tree]
    end: Callable[[Tree, Tree], Tensor]

    def init(self, moment: Moment, frame: Frame) -> Tree:
        return self.start(moment.state)

    def stage(self, memory: Tree, moment: Moment, frame: Frame) -> tuple[Tree, Tensor | None]:
        return self.each(memory, moment.state, moment.control, moment.t), None

    def finish(self, memory: Tree, moment: Moment, frame: Frame) -> Tensor | None:
        return _per_scenario(self.end(memory, moment.state), moment.state, "finish(memory, state)")


def _compared(
    name: str, steps: tuple[int, ...] | None, of: Selector, path: Path, frame: Frame
) -> tuple[Tree, Tree] | None:
    """What is predicted and what was measured along a path, ``(steps, scenarios, ...)``; ``None`` for nothing."""
    inside = range(path.first, path.first + path.length)
    if steps is None:
        data = tree.map(lambda leaf: leaf[:, inside.start : inside.stop], frame.scenario[name])
        states = path.states
    else:
        rows = [row for row, k in enumerate(steps) if k in inside]
        if not rows:
            return None
        data = tree.map(lambda leaf: torch.stack([leaf[:, row] for row in rows], 1), frame.scenario[name])
        states = path.select([steps[row] - path.first for row in rows])
    seen = states if of is _identity else path.over_scenarios(of, states)
    return seen, tree.map(lambda leaf: leaf.transpose(0, 1), data)


def _call(function: Callable[..., Tensor], frame: Frame, *arguments: Any) -> Tensor:
    if "scenario" in inspect.signature(function).parameters:
        return function(*arguments, scenario=frame.scenario)
    return function(*arguments)


def _per_scenario(found: Any, state: Tree, what: str) -> Tensor:
    count = len(tree.leaves(state)[0])
    if isinstance(found, Tensor) and not found.is_floating_point():
        raise UsageError(
            f"a cost {what} must be real floating-point numbers; found {str(found.dtype).removeprefix('torch.')}: "
            "a count or a comparison has no gradient; use a smooth measure, or .to(state.dtype)."
        )
    if not isinstance(found, Tensor) or tuple(found.shape) != (count,):
        raise UsageError(
            f"a cost {what} must return one number per scenario, shape ({count},); found {tree.describe(found)}: "
            "sum over all axes but the first."
        )
    return found


def _checked_steps(steps: Sequence[int] | None) -> tuple[int, ...] | None:
    if steps is None:
        return None
    found = tuple(int(k) for k in steps)
    if len(set(found)) != len(found) or any(k < 0 for k in found):
        raise UsageError(f"steps must be different whole numbers from 0 to the horizon; found {found}.")
    return found


def _row(steps: tuple[int, ...] | None, k: int) -> int | None:
    if steps is None:
        return k
    return steps.index(k) if k in steps else None


def _lift_rows(
    setting: Setting, data: Any, steps: tuple[int, ...] | None, of: Selector, *, missing: bool = False
) -> tuple[str, Data]:
    if steps is not None and max(steps) > setting.horizon:
        raise UsageError(
            f"steps go to {max(steps)}, but the horizon is {setting.horizon}: lengthen the horizon."
        )
    rows = setting.horizon + 1 if steps is None else len(steps)
    return lift(setting, data, of(setting.state), "data", rows=rows, missing=missing)


__all__ = ["closing", "cost", "effort", "fold", "misfit", "penalty", "reach", "track"]
