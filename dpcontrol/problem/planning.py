"""What the gradient of a problem will take, said before anything is run: bytes, and steps that are run again."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dpcontrol import tree
from dpcontrol.engine.gradients import Auto, Checkpointed, Full, GradientMode
from dpcontrol.engine.memory import MEASURED_STEPS, SavedBytes, available_bytes, physical_bytes, stored
from dpcontrol.engine.schedule import plan
from dpcontrol.problem.again import arranged
from dpcontrol.problem.base import Problem, View
from dpcontrol.problem.course import Course
from dpcontrol.problem.rolling import Loop, free_steps, open_loop
from dpcontrol.problem.stretches import kernel_ahead
from dpcontrol.results import UsageError
from dpcontrol.tree import Tree

EXAMPLE = 20


@dataclass(frozen=True)
class GradientCost:
    """What one mode keeps, in bytes, and how many steps it runs again on the way back."""

    mode: GradientMode
    bytes: int
    recomputed: int
    stored_states: int


@dataclass(frozen=True)
class GradientPlan:
    """What :func:`plan_gradient` found.

    Attributes:
        steps: steps of the loop; ``scenarios`` go through it together.
        state_bytes: one state of all scenarios, with the objective's memories and the running loss: exact.
        step_bytes: what one step keeps while its own derivative is taken: measured.
        available: memory that can be taken now.
        costs: of ``Full``, of stored states and of fewer stored states.
        chosen: what the problem's own mode does.
    """

    problem: str
    mode: GradientMode
    steps: int
    scenarios: int
    state_bytes: int
    step_bytes: int
    available: int
    costs: tuple[GradientCost, ...]
    chosen: GradientCost

    def __str__(self) -> str:
        head = (
            f"gradient of {self.problem}: {self.steps:,} steps of {self.scenarios:,} scenarios, "
            f"{in_words(self.state_bytes)} a state, {in_words(self.available)} available"
        )
        lines = [f"  {_name(cost.mode):<28}{self._sentence(cost)}" for cost in self.costs]
        return "\n".join([head, *lines, f"  in use: {self.mode}: {self._sentence(self.chosen)}"])

    def _sentence(self, cost: GradientCost) -> str:
        if isinstance(cost.mode, Full):
            return f"keeps {in_words(cost.bytes)}, no step is run again"
        if not cost.mode.exact:
            return f"biased: keeps at most {in_words(cost.bytes)}, no step is run again"
        again = f"{cost.recomputed:,} steps run again ({cost.recomputed / max(self.steps, 1):.2f} for each)"
        if cost.recomputed == self.steps:
            again = "every step run twice"
        beside = f"and {in_words(self.step_bytes)} for the step at hand"
        return f"{cost.stored_states:,} stored states: {in_words(cost.bytes)} {beside}; {again}"


def plan_gradient(problem: Problem, z: Tree = None) -> GradientPlan:
    """Bytes and recomputation of a problem's gradient in every exact mode, before it is computed.

    Sizes of states and numbers of steps are exact (see :class:`dpcontrol.engine.schedule.Plan`); what ``Full`` keeps is
    measured on the loop's first steps and multiplied.

    Args:
        problem: what will be differentiated.
        z: where; by default at the start guess.

    Raises:
        UsageError: if the problem offers no gradient.
    """
    if View.GRADIENT not in problem.offers:
        raise UsageError(f"{problem.name} offers no gradient, so there is nothing to plan.")
    sought = tree.map(
        lambda leaf: leaf.detach().requires_grad_(leaf.is_floating_point()), z or problem.start()
    )
    course, loop, _ = open_loop(problem, sought)
    state = [leaf for leaf in tree.leaves(loop.carry) if isinstance(leaf, torch.Tensor)]
    size, steps = physical_bytes(state), loop.steps
    whole, one = _kept_by_full(course, loop)
    available = available_bytes(state[0].device)

    def cost(mode: GradientMode) -> GradientCost:
        by_kernel = loop.open and kernel_ahead(course, loop, mode) is not None
        if by_kernel and not isinstance(mode, Full):
            held = physical_bytes(tree.split_tensors(loop.carry[0])[0])
            return GradientCost(mode, steps * held, steps, steps)
        if isinstance(mode, Auto):
            room = mode.room(lambda: available)
            return cost(Full() if whole <= room or steps <= 1 else stored(room, size, steps))
        if not isinstance(mode, Checkpointed) or not steps:
            return GradientCost(mode, whole, 0, 0)
        lengths = arranged(course, loop, mode) if loop.open else None
        if lengths is not None:
            kept = -(-steps // lengths[0]) if mode.states(size, steps) >= steps else mode.states(size, steps)
            again = len(lengths) + (kernel_ahead(course, loop, Full()) is not None)
            return GradientCost(mode, kept * size, again * steps, kept)
        found = plan(steps, mode.states(size, steps))
        return GradientCost(mode, found.states * size, found.recomputed, found.states)

    few = Checkpointed(snapshots=EXAMPLE if steps > 2 * EXAMPLE else max(steps // 4, 1))
    return GradientPlan(
        problem.name,
        problem.gradient,
        steps,
        problem.scenarios.count,
        size,
        one,
        available,
        tuple(cost(mode) for mode in (Full(), Checkpointed(), few)),
        cost(problem.gradient),
    )


def _kept_by_full(course: Course, loop: Loop) -> tuple[int, int]:
    """Bytes that the whole loop keeps under :class:`Full`, and those of one step: measured on its first steps."""
    if not loop.steps:
        return 0, 0
    beside = [
        leaf for leaf in tree.leaves((loop.carry, loop.inputs, loop.constants)) if isinstance(leaf, Tensor)
    ]
    totals = []
    for steps in sorted({min(MEASURED_STEPS, loop.steps), max(min(MEASURED_STEPS, loop.steps) - 1, 1)}):
        with torch.enable_grad(), SavedBytes(beside) as saved:
            free_steps(course, loop.shortened(steps), Full(), keep=False, residuals=False)
        totals.append((steps, saved.total))
    one = totals[-1][1] - totals[0][1] if len(totals) > 1 else totals[0][1]
    return totals[-1][1] + one * (loop.steps - totals[-1][0]), one


def in_words(size: float) -> str:
    """Bytes as people say them: ``1.3 GB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"


def _name(mode: GradientMode) -> str:
    if isinstance(mode, Checkpointed) and mode.snapshots is not None:
        return f"Checkpointed(snapshots={mode.snapshots})"
    return f"{type(mode).__name__}()"
