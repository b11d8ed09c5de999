"""Open-loop runs under stored states: only where a stretch begins is kept, and it is run again on the way back."""

from __future__ import annotations

import torch

from dpcontrol import tree
from dpcontrol.engine.fused import is_plain
from dpcontrol.engine.gradients import Checkpointed, Full, GradientMode
from dpcontrol.engine.memory import physical_bytes
from dpcontrol.engine.recomputed import recomputed
from dpcontrol.kernels import Kernel
from dpcontrol.problem.course import Course
from dpcontrol.problem.stretches import FreeSteps, Ran, kernel_ahead, refuse_captured, straight
from dpcontrol.tree import Tree

# steps of an eager stretch, whose graph is there while it is reversed: one by one, setting it up would cost more
EAGER_STEPS, EAGER_SHARE, DEEPEST = 8, 8, 4


def run_again(course: Course, loop: FreeSteps, mode: GradientMode) -> Ran | None:
    """Run the steps of an open loop so that a stretch keeps only the state and the memories that it begins with.

    ``None`` where the binomial schedule of single steps is better: eager steps that must do with fewer states than
    there are steps, more steps than stretches of stretches hold, and every transform.

    Raises:
        UsageError: if a step or a cost uses a tensor that requires a gradient and came in by the back door.
    """
    lengths = arranged(course, loop, mode)
    everything = tree.split_tensors((loop.carry, loop.inputs, loop.constants))[0]
    if lengths is None or not torch.is_grad_enabled() or not is_plain(everything):
        return None
    kernel = kernel_ahead(course, loop, Full())
    controls, noise, _ = loop.inputs
    refuse_captured(course, kernel, loop)
    carry = _nested(
        course, kernel, lengths, loop.first, loop.steps, (loop.carry, (controls, noise), loop.constants)
    )
    return Ran(carry, None, None, [])


def arranged(course: Course, loop: FreeSteps, mode: GradientMode) -> list[int] | None:
    """Steps of the stretches, and of the stretches within them; ``None`` where there is no such arrangement."""
    if not isinstance(mode, Checkpointed) or loop.steps < 2:
        return None
    size = physical_bytes(tree.split_tensors(loop.carry)[0])
    states = mode.states(size, loop.steps)
    if kernel_ahead(course, loop, Full()) is not None:
        return arrangement(loop.steps, states)
    return [max(1, min(EAGER_STEPS, loop.steps // EAGER_SHARE))] if states >= loop.steps else None


def arrangement(steps: int, states: int) -> list[int] | None:
    """Lengths of stretches, outer ones first, so that at no time more than ``states`` states are there.

    With ``d`` levels of ``p`` stretches each, ``d p`` beginnings are kept, and of the innermost stretch every state and
    its cotangent; every level runs all steps once more.
    """
    for depth in range(1, DEEPEST + 1):
        parts = states // (depth + 1)
        inner = (states - depth * parts) // 2
        if parts > 0 and inner * parts**depth >= steps:
            lengths = []
            for _ in range(depth):
                steps = -(-steps // parts)
                lengths.append(steps)
            return lengths
    return None


def _nested(
    course: Course, kernel: Kernel | None, lengths: list[int], first: int, total: int, arguments: Tree
) -> Tree:
    """The carry behind ``total`` steps, of which each stretch is one recomputed function."""
    carry, inputs, constants = arguments
    if not lengths:
        return straight(course, kernel, first, total, arguments)
    for begin in range(0, total, lengths[0]):
        count = min(lengths[0], total - begin)

        def onwards(given: Tree, first: int = first + begin, count: int = count) -> Tree:
            return _nested(course, kernel, lengths[1:], first, count, given)

        part = tree.map(lambda leaf, b=begin: leaf[b : b + lengths[0]], inputs)
        carry = recomputed(onwards, (carry, part, constants))
    return carry
