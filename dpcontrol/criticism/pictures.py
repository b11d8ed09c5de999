"""Pictures of a calibration's ranks."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable
from typing import Any

import numpy as np

from dpcontrol.criticism.findings import RATE, Calibration, Quantity
from dpcontrol.criticism.ranks import band, below, binned, bins_for
from dpcontrol.plot.style import INK, MUTED, PALETTE, new_figure, styled
from dpcontrol.results import UsageError

BAND = "#dfe5ee"
FINE, WRONG = PALETTE[0], PALETTE[1]


def differences(calibration: Calibration) -> Any:
    """``F(u) - u`` for each quantity, with the simultaneous band of uniform ranks."""
    most, count = calibration.ranked, len(calibration.succeeded)
    # each panel's own share of the false alarms
    limits = band(count, most, RATE / max(1, len(calibration.quantities))) if count else None
    share = np.arange(1, most + 1) / (most + 1)

    def panel(axes: Any, quantity: Quantity) -> None:
        assert limits is not None
        low, high = limits.low / count - share, limits.high / count - share
        axes.fill_between(share, low, high, color=BAND, lw=0, step="mid")
        away = below(quantity.ranks, most) / count - share
        axes.plot(share, away, color=WRONG if quantity.rejected else FINE, drawstyle="steps-mid")
        axes.axhline(0, color=MUTED, lw=0.8)
        reach = 1.15 * max(float(np.abs(away).max()), float(high.max()), float(-low.min()))
        axes.set(xlim=(0, 1), ylim=(-reach, reach))

    said = f"band: left by any of these in one of {1 / RATE:,.0f} calibrations of a right posterior"
    return _page(calibration, panel, "rank / (draws + 1)", "F(u) - u", said)


def histograms(calibration: Calibration) -> Any:
    """Histograms of the ranks, with the range of 99 % of a single bin's count."""
    from scipy.stats import binom

    most, count = calibration.ranked, len(calibration.succeeded)
    bins = bins_for(count, most)

    def panel(axes: Any, quantity: Quantity) -> None:
        low, high = binom.interval(0.99, count, 1 / bins)
        axes.axhspan(low, high, color=BAND, lw=0)
        edges = np.linspace(0, 1, bins + 1)
        heights = binned(quantity.ranks, most, bins)
        colour = WRONG if quantity.rejected else FINE
        axes.bar(edges[:-1], heights, 1 / bins, align="edge", color=colour, alpha=0.75, ec="white")
        axes.axhline(count / bins, color=MUTED, lw=0.8)
        axes.set(xlim=(0, 1), ylim=(0, 1.1 * max(float(heights.max()), float(high))))

    said = "band: 99 % of the counts of a single bin"
    return _page(calibration, panel, "rank / (draws + 1)", "simulations", said)


def _page(
    calibration: Calibration, panel: Callable[[Any, Quantity], None], x: str, y: str, caption: str
) -> Any:
    found = calibration.quantities
    if not found:
        raise UsageError("no simulation has ranks, so there is nothing to draw: see the verdict.")
    columns = min(4, len(found))
    rows = math.ceil(len(found) / columns)
    with styled():
        figure = new_figure(max(7.5, 3.1 * columns), 1.3 + 2.5 * rows)
        panels = figure.subplots(rows, columns, squeeze=False)
        for axes, quantity in zip(panels.flat, found, strict=False):
            panel(axes, quantity)
            axes.set_title(textwrap.fill(quantity.name, 32), fontsize=10.5)
            if quantity.rejected:
                axes.annotate(
                    quantity.words, (0.03, 0.04), xycoords="axes fraction", color=WRONG, fontsize=9.5
                )
        for axes in panels.flat[len(found) :]:
            axes.set_axis_off()
        for axes in panels[:, 0]:
            axes.set_ylabel(y)
        for axes in panels[-1]:
            axes.set_xlabel(x)
        headline = "calibrated" if calibration.passed else "NOT calibrated"
        told = f"{calibration.problem} by {calibration.strategy}: {headline}, {len(calibration.succeeded)} simulations"
        figure.suptitle(told, color=INK if calibration.passed else WRONG)
        figure.supxlabel(caption, fontsize=9.5, color=MUTED)
    return figure
