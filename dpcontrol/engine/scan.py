"""The one time loop."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch

from dpcontrol import tree
from dpcontrol.engine.checkpointing import checkpointed_scan
from dpcontrol.engine.gradients import (
    Auto,
    Checkpointed,
    Full,
    GradientMode,
    StopGradient,
    Tail,
    TruncatedBPTT,
)
from dpcontrol.engine.memory import choose
from dpcontrol.results import UsageError
from dpcontrol.tree import Tree

Body = Callable[[Tree, Tree, Tree, int], tuple[Tree, Tree]]


def scan(
    body: Body,
    carry: Tree,
    inputs: Tree,
    length: int,
    *,
    constants: Tree = None,
    gradient: GradientMode | None = None,
    cut: Callable[[Tree], Tree] = tree.detach,
) -> tuple[Tree, Tree]:
    """Run ``carry, output = body(carry, inputs[k], constants, k)`` for ``k = 0 .. length - 1``.

    Args:
        body: a pure function; every tensor that it needs comes in through its arguments.
        carry: what one step hands to the next.
        inputs: a tree whose leaves have a leading axis of ``length`` (``None`` where nothing enters).
        length: number of steps, zero allowed.
        constants: a tree that every step sees.
        gradient: how the loop is differentiated; ``None`` is :class:`~dpcontrol.engine.gradients.Full`.
        cut: how a biased mode holds a carry constant: all of it, or all but what only sums up what was found before.

    Returns:
        The last carry, and the outputs stacked along a new leading axis (``None`` if the body returned ``None`` or
        there was no step).
    """
    mode = Full() if gradient is None else gradient
    rows = unbound(inputs, length)
    if isinstance(mode, Auto):
        mode = choose(mode, body, carry, rows, constants)
    if isinstance(mode, Checkpointed) and length > 0:
        return checkpointed_scan(body, carry, inputs, length, constants, mode)
    outputs = []
    head = length - mode.swept(length) if isinstance(mode, Tail) else 0
    for k, row in enumerate(rows):
        if k and (k == head or k % _window(mode, length) == 0):
            carry = cut(carry)
        with torch.no_grad() if k < head else nullcontext():
            carry, output = body(carry, row, constants, k)
        outputs.append(output)
    if not outputs or not tree.leaves(outputs[0]):
        return carry, None
    return carry, tree.stack(outputs)


def unbound(inputs: Tree, length: int) -> list[Any]:
    """The rows of a loop's inputs, one per step.

    Raises:
        UsageError: if there are more or fewer.
    """
    rows: list[Any] = tree.unbind(inputs) if tree.leaves(inputs) else [None] * length
    if len(rows) != length:
        raise UsageError(
            f"the inputs of a loop of {length} steps have {len(rows)} rows; give one row per step."
        )
    return rows


def _window(mode: GradientMode, length: int) -> int:
    """After how many steps the carry is held constant."""
    if isinstance(mode, TruncatedBPTT):
        return mode.window
    return 1 if isinstance(mode, StopGradient) else length
