"""The data of the animation: trajectories as small whole numbers, which a script in the report draws on canvases."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dpcontrol.comparison.figures import Look
from dpcontrol.plot.beside import parts
from dpcontrol.plot.fields import IMAGE, Quantity
from dpcontrol.solution import Solution

FRAMES, CELLS, PIXELS = 60, 200, 64
BYTES = 1_100_000  # of all numbers; a third more in base64


def animation(
    solutions: Mapping[str, Solution], drawn: Look, scenarios: Sequence[int], lead: str
) -> dict[str, Any]:
    """Plain values for the script: labels with their looks, times, and each quantity's numbers in base64.

    Args:
        solutions: what moves, references first.
        drawn: colours and dashes.
        scenarios: which ones can be chosen.
        lead: the label that is drawn boldly.
    """
    first = next(iter(solutions.values())).trajectory()
    frames = _chosen(len(first.times), FRAMES)
    split = {label: parts(solution.trajectory()) for label, solution in solutions.items()}
    names = list(dict.fromkeys(quantity.name for own in split.values() for quantity in own))
    labels = list(solutions)
    room = BYTES / max(1, len(names))
    quantities = []
    for name in names:
        group = {label: next((q for q in own if q.name == name), None) for label, own in split.items()}
        quantities.append(_quantity(name, group, frames, list(scenarios), room))
    return {
        "labels": [
            {"name": x, "colour": drawn.colours[x], "dashed": x in drawn.dashes, "lead": x == lead}
            for x in labels
        ],
        "scenarios": list(scenarios),
        "times": [float(first.times[k]) for k in frames],
        "quantities": quantities,
    }


def _chosen(length: int, most: int) -> np.ndarray:
    return np.unique(np.linspace(0, length - 1, min(length, most)).round().astype(int))


def _quantity(
    name: str, group: Mapping[str, Quantity | None], frames: np.ndarray, scenarios: Sequence[int], room: float
) -> dict[str, Any]:
    """One quantity: numbers ``(labels, scenarios, frames, ...)``; a label without it has none."""
    there = {label: quantity for label, quantity in group.items() if quantity is not None}
    kind = next(iter(there.values())).kind
    stacks = {label: _thinned(quantity, frames, scenarios) for label, quantity in there.items()}
    usual = np.concatenate([stack[np.isfinite(stack)].ravel() for stack in stacks.values()])
    low, high = (float(usual.min()), float(usual.max())) if usual.size else (0.0, 1.0)
    view = _view(list(stacks.values()))
    if high <= low:
        low, high = low - 0.5, high + 0.5
    sample = next(iter(stacks.values()))
    width = 1 if kind == IMAGE else 2
    count = sum(stack.size for stack in stacks.values()) * width
    if count > room:  # fewer frames: the script shows the nearest one
        stride = int(np.ceil(count / room))
        stacks = {label: stack[:, ::stride] for label, stack in stacks.items()}
        sample = next(iter(stacks.values()))
    return {
        "name": name,
        "kind": kind,
        "shape": list(sample.shape[1:]),
        "low": low,
        "high": high,
        "view": view,
        "signed": bool(view[0] < -0.02 * max(map(abs, view)) and view[1] > 0.02 * max(map(abs, view))),
        "bytes": width,
        "data": {label: _packed(stack, low, high, width) for label, stack in stacks.items()},
    }


def _view(stacks: Sequence[np.ndarray]) -> list[float]:
    """The numbers that axes and colours reach over: all but those far out of what is usual."""
    spans = [float(np.abs(stack[np.isfinite(stack)]).max(initial=0.0)) for stack in stacks]
    usual = [span for span in spans if span > 0]
    if not usual:
        return [-0.5, 0.5]
    limit = max(span for span in usual if span <= 3 * float(np.median(usual)))
    kept = np.concatenate([stack[np.isfinite(stack) & (np.abs(stack) <= limit)].ravel() for stack in stacks])
    low, high = float(kept.min()), float(kept.max())
    return [low, high] if high > low else [low - 0.5, high + 0.5]


def _thinned(quantity: Quantity, frames: np.ndarray, scenarios: Sequence[int]) -> np.ndarray:
    """``(scenarios, frames, ...)``, space coarse enough for a screen; the last control stays until the end."""
    values = quantity.values[np.minimum(frames, len(quantity.values) - 1)][:, list(scenarios)]
    limit = PIXELS if quantity.kind == IMAGE else CELLS
    for axis in range(2, values.ndim):
        values = values[(slice(None),) * axis + (slice(None, None, max(1, -(-values.shape[axis] // limit))),)]
    return np.moveaxis(values, 1, 0)


def _packed(values: np.ndarray, low: float, high: float, width: int) -> str:
    most = 2 ** (8 * width) - 1
    scaled = (
        np.clip((np.nan_to_num(values, nan=low, posinf=high, neginf=low) - low) / (high - low), 0, 1) * most
    )
    return base64.b64encode(scaled.round().astype("<u1" if width == 1 else "<u2").tobytes()).decode("ascii")
