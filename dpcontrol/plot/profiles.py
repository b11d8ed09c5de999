"""Performance profiles: which share is within a factor of the best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dpcontrol.plot.curves import plain_ticks
from dpcontrol.plot.style import new_figure, styled

MOST = 100.0  # factors beyond this say no more than "far"


def profile_figure(
    ratios: Mapping[str, np.ndarray],
    colours: Mapping[str, str],
    dashes: Mapping[str, Any],
    words: str = "share of runs and scenes",
) -> Any:
    """Steps from 0 to 1: at each factor the share of the ratios that are not above it.

    Args:
        ratios: label -> loss over the best, in ascending order, infinite for what failed.
        colours, dashes: of the labels; those without dashes are drawn boldly.
        words: what the share is of.
    """
    with styled():
        figure = new_figure(11.5, 4.2)
        axes = figure.subplots()
        finite = [row[np.isfinite(row)] for row in ratios.values()]
        # up to where everybody has nearly all
        far = max((float(np.quantile(row, 0.95)) for row in finite if row.size), default=2.0)
        end = float(np.clip(far, 1.2, MOST)) * 1.02
        for label, row in ratios.items():
            inside = np.concatenate([[1.0], row[row <= end], [end]])
            shares = np.searchsorted(row, inside * (1 + 1e-6), side="right") / len(row)
            look = {"ls": dashes[label], "lw": 1.5} if label in dashes else {"lw": 2.4}
            axes.plot(inside, shares, drawstyle="steps-post", color=colours[label], label=label, **look)
        axes.set_xscale("log")
        axes.set_xlim(1.0, end)
        plain_ticks(axes.xaxis, 1.0, end)
        axes.set_ylim(-0.02, 1.03)
        axes.set(xlabel="loss, as a multiple of the lowest that anybody found in that scene", ylabel=words)
        figure.legend(loc="outside right center")
    return figure


def drawable(ratios: Sequence[np.ndarray]) -> bool:
    """Whether there are several ratios to tell apart."""
    return len(ratios) > 1 and any(len(row) > 1 for row in ratios)
