"""Open-loop runs: the controls are known beforehand, so many steps go together, and so do their costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from dpcontrol import tree
from dpcontrol.engine.fused import run_fused
from dpcontrol.engine.gradients import Full, GradientMode
from dpcontrol.engine.memory import physical_bytes
from dpcontrol.engine.recomputed import recomputed
from dpcontrol.engine.trajectory import eager_step, whole_run_kernel
from dpcontrol.kernels import Kernel
from dpcontrol.problem import objective as folds
from dpcontrol.problem.course import Course
from dpcontrol.problem.path import Path
from dpcontrol.results import UsageError
from dpcontrol.tree import Tree

# the states of one stretch: long enough that a call costs nothing, short enough that no run needs all of them at once
STRETCH_BYTES = 2**25


class FreeSteps(Protocol):
    """The part of a loop that is needed here (see :class:`dpcontrol.problem.rolling.Loop`)."""

    @property
    def carry(self) -> Tree: ...
    @property
    def inputs(self) -> Tree: ...
    @property
    def steps(self) -> int: ...
    @property
    def constants(self) -> Tree: ...
    @property
    def first(self) -> int: ...


@dataclass(frozen=True)
class Ran:
    """What the free steps came to: ``(state, memories, loss)`` behind them; and, where they were asked for, the states
    they ended with and their controls ``(steps, scenarios, ...)``, and residuals, each ``(scenarios, entries)``."""

    carry: Tree
    states: Tree
    controls: Tree
    rows: list[Tensor]


def run_stretches(
    course: Course, loop: FreeSteps, mode: GradientMode, *, keep: bool, residuals: bool
) -> Ran | None:
    """Run the steps of an open loop; ``None`` where the mode asks for a loop that stops at every step.

    Without gradient and under :class:`Full` everything goes this way. Under stored states it does where a kernel
    keeps them anyway; the costs of a stretch are then computed again on the way back (see also
    :mod:`dpcontrol.problem.again`).
    """
    full = isinstance(mode, Full) or not torch.is_grad_enabled()
    kernel = kernel_ahead(course, loop, Full() if full else mode)
    if not loop.steps or (kernel is None and not full):
        return None
    if not full:
        refuse_captured(course, kernel, loop)
    state, memories, loss = loop.carry
    controls, noise, _ = loop.inputs
    size = physical_bytes(tree.split_tensors(state)[0])
    length = loop.steps if residuals else max(1, min(loop.steps, STRETCH_BYTES // max(size, 1)))
    firsts = range(0, loop.steps, length)
    paths: list[Tree] = []
    rows: list[Tensor] = []
    for first, acting, disturbing in zip(
        firsts, _split(controls, length, firsts), _split(noise, length, firsts), strict=True
    ):
        count = min(length, loop.steps - first)
        path = stretch(course, kernel, state, (acting, disturbing), loop.first + first, count)
        memories, cost = _costs(course, path, memories, again=not full)
        if residuals:
            rows = folds.residuals_along(course.objective, path, course.frame)
        if keep:
            paths.append(path.ends)
        loss = loss if cost is None else loss + cost
        state = path.last
    states = tree.map(lambda *parts: torch.cat(parts), *paths) if paths else None
    return Ran((state, memories, loss), states, controls if keep else None, rows)


def kernel_ahead(course: Course, loop: FreeSteps, mode: GradientMode) -> Kernel | None:
    """The kernel that runs all steps of an open loop, if there is one and the mode lets it keep the states."""
    controls, noise, _ = loop.inputs
    return whole_run_kernel(
        course.simulator, loop.carry[0], (controls, noise), course.coefficients, loop.steps, mode
    )


def stretch(course: Course, kernel: Kernel | None, state: Tree, inputs: Tree, first: int, count: int) -> Path:
    """Run some steps by the kernel, or one by one."""
    step, dt = eager_step(course.simulator), course.simulator.dt
    if kernel is not None:
        after: Any = run_fused(kernel, step, state, inputs, course.coefficients, count, first=first)
        return Path(state, after, inputs[0], first, count, dt)
    after, here = [], state
    for k, row in enumerate(tree.rows(inputs, count), first):
        here = step(here, row, course.coefficients, k)
        after.append(here)
    return Path(state, after, inputs[0], first, count, dt)


def straight(course: Course, kernel: Kernel | None, first: int, count: int, arguments: Tree) -> Tree:
    """The carry behind some steps, costed together."""
    (state, memories, loss), inputs, constants = arguments
    here = course.with_constants(constants)
    path = stretch(here, kernel, state, inputs, first, count)
    memories, cost = folds.along(here.objective, memories, path, here.frame)
    return path.last, memories, loss if cost is None else loss + cost


def refuse_captured(course: Course, kernel: Kernel | None, loop: FreeSteps) -> None:
    """Run one step on constants: if its result still requires a gradient, a tensor came in by the back door."""
    carry, (controls, noise, _), constants = tree.detach((loop.carry, loop.inputs, loop.constants))
    one: Any = tree.map(lambda leaf: leaf[:1], (controls, noise))
    found = straight(course, kernel, loop.first, 1, (carry, one, constants))
    if any(leaf.requires_grad for leaf in tree.split_tensors(found)[0]):
        raise UsageError(
            "a step or a cost of a run with stored states uses a tensor that requires a gradient but is no argument of "
            "it, and would silently get none: pass it through parameters, scenarios or the unknown, or use Full()."
        )


def _costs(
    course: Course, path: Path, memories: tuple[Tree, ...], *, again: bool
) -> tuple[tuple[Tree, ...], Tensor | None]:
    if not again:
        return folds.along(course.objective, memories, path, course.frame)

    def evaluate(arguments: Tree) -> Tree:
        start, after, controls, before, constants = arguments
        seen = Path(start, after, controls, path.first, path.length, path.dt)
        return folds.along(course.objective, before, seen, course.with_constants(constants).frame)

    found: tuple[tuple[Tree, ...], Tensor | None] = recomputed(
        evaluate, (path.start, path.after, path.controls, memories, course.constants())
    )
    return found


def _split(value: Tree, length: int, firsts: range) -> list[Tree]:
    """Pieces of leaves ``(steps, ...)``; one backward sweep puts all of them together."""
    flat, build = tree.split_tensors(value)
    if not flat:
        return [value] * len(firsts)
    return [build(row) for row in zip(*(leaf.split(length) for leaf in flat), strict=True)]
