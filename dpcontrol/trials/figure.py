"""The picture of trials: one line for each trial, one mark for each controller."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from dpcontrol.plot.framed import Head, framed
from dpcontrol.plot.style import FAINT, INK, MUTED, colours, styled

if TYPE_CHECKING:
    from dpcontrol.trials.table import Robustness

SPREAD = 0.56  # of the distance of two lines, over which the marks of a line are spread
CROWDED = 30.0  # a largest loss so many times the smallest one is drawn on a logarithmic axis


def trials_figure(found: Robustness) -> Any:
    """Losses with intervals, trials from top to bottom; what failed stands at the right edge as a cross."""
    laws = [label for label in found.controllers if label.startswith("law: ")]
    others = [label for label in found.controllers if label not in laws]
    paint = colours(others, laws)
    values = [row.estimate.value for row in found.rows]
    finite = [value for value in values if math.isfinite(value)]
    note = "mean loss on the plant with its 95 % interval; the smaller the better"
    if any(row.failures for row in found.rows):
        note += "; a cross at the right edge: some episodes were not finite"
    with styled():
        head = Head(f"{found.problem}: controllers when the world is another one", note)
        figure, body = framed(
            head, 9.0, 1.2 + 0.52 * len(found.trials) + 0.11 * len(values) / len(found.trials)
        )
        axes = body.subplots()
        if finite and min(finite) > 0 and max(finite) > CROWDED * min(finite):
            axes.set_xscale("log")
        _draw(axes, found, paint)
        axes.set_yticks(range(len(found.trials)), found.trials)
        axes.set_ylim(len(found.trials) - 0.5, -0.5)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("loss")
        if not finite:
            axes.set_xticks([])
        handles, labels = axes.get_legend_handles_labels()
        body.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)), fontsize=9.5)
    return figure


def _draw(axes: Any, found: Robustness, paint: dict[str, str]) -> None:
    count = len(found.controllers)
    offsets = np.linspace(-SPREAD / 2, SPREAD / 2, count) if count > 1 else np.zeros(1)
    for line in range(len(found.trials) - 1):
        axes.axhline(line + 0.5, color=FAINT, lw=0.8, zorder=0)
    for label, offset in zip(found.controllers, offsets, strict=True):
        said = False
        for line, trial in enumerate(found.trials):
            row = found.row(label, trial)
            if row.losses is None:
                continue
            colour, y = paint[label], line + offset
            shape = "D" if label.startswith("law: ") else "o"
            words = (
                {} if said else {"label": label.removeprefix("law: ") + (" (law)" if shape == "D" else "")}
            )
            said = True
            value, interval = row.estimate.value, row.estimate.interval
            if not math.isfinite(value):
                edge = axes.get_yaxis_transform()
                axes.plot(0.985, y, "x", color=colour, ms=6, mew=1.8, transform=edge, zorder=4, **words)
                continue
            if interval is not None:
                axes.plot(interval, (y, y), color=colour, lw=1.8, alpha=0.6, zorder=2)
            axes.plot(value, y, shape, color=colour, ms=5.5, mec="white", mew=0.7, zorder=3, **words)
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.spines["left"].set_color(MUTED)
