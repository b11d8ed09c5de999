"""Numbers of a posterior against each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dpcontrol.plot.framed import ALARM, Head, framed
from dpcontrol.plot.marginals import POINTS, POSTERIOR, TRUTH, Marginal, bounds, density
from dpcontrol.plot.style import INK, MUTED, styled

SHOWN = 1500  # dots of a scatter plot


def pairs_figure(marginals: Sequence[Marginal], divergent: np.ndarray | None, head: Head) -> Any:
    """Each number against each other: dots below the diagonal, correlations above it; divergences in red.

    Args:
        marginals: at most eight can be read.
        divergent: ``(chains, draws)``, which transitions diverged.
        head: title and warnings.
    """
    count = len(marginals)
    values = np.stack([m.values.ravel() for m in marginals])
    bad = np.zeros(values.shape[1], bool) if divergent is None else divergent.ravel()
    kept = np.unique(np.linspace(0, values.shape[1] - 1, SHOWN).round().astype(int))
    with np.errstate(invalid="ignore", divide="ignore"):  # of what never moved there is none
        correlation = np.atleast_2d(np.corrcoef(values))
    with styled():
        size = max(1.35, min(2.3, 11.0 / count))
        figure, body = framed(head, size * count + 0.6, size * count + 0.4)
        grid = body.subplots(count, count, squeeze=False, sharex="col")
        for row in range(count):
            for column in range(count):
                axes = grid[row, column]
                axes.grid(False)
                axes.locator_params(nbins=3)
                if column > row:
                    _correlation(axes, float(correlation[row, column]))
                    continue
                if row == column:
                    _diagonal(axes, values[row], marginals[row])
                else:
                    _scatter(axes, values[[column, row]], kept, bad, (marginals[column], marginals[row]))
                if row == count - 1:
                    axes.set_xlabel(marginals[column].label, fontsize=9.5)
                    axes.tick_params(axis="x", labelrotation=30 if count > 4 else 0)
                if column == 0 and row > 0:
                    axes.set_ylabel(marginals[row].label, fontsize=9.5)
                else:
                    axes.tick_params(labelleft=False)
        body.align_labels()
    return figure


def _scatter(
    axes: Any, pair: np.ndarray, kept: np.ndarray, bad: np.ndarray, about: tuple[Marginal, Marginal]
) -> None:
    axes.plot(*pair[:, kept], ".", color=POSTERIOR, ms=2.4, alpha=0.3, mew=0, rasterized=True)
    if bad.any():
        axes.plot(*pair[:, bad], "o", color=ALARM, ms=3.6, mew=0, zorder=3)
    across, up = about
    if across.truth is not None:
        axes.axvline(across.truth, color=TRUTH, lw=1.1)
    if up.truth is not None:
        axes.axhline(up.truth, color=TRUTH, lw=1.1)
    low, high = np.quantile(pair[1], [0.0005, 0.9995])
    axes.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low)) if high > low else None


def _diagonal(axes: Any, values: np.ndarray, marginal: Marginal) -> None:
    low, high = np.quantile(values, [0.0005, 0.9995])
    margin = 0.05 * (high - low) or 0.5
    points = np.linspace(low - margin, high + margin, POINTS)
    found = density(values, points, bounds(values))
    axes.fill_between(points, found, color=POSTERIOR, alpha=0.22, lw=0)
    axes.plot(points, found, color=POSTERIOR, lw=1.6)
    if marginal.truth is not None:
        axes.axvline(marginal.truth, color=TRUTH, lw=1.1)
    axes.set(xlim=(low - margin, high + margin), yticks=[])
    axes.set_ylim(bottom=0)
    axes.spines["left"].set_visible(False)


def _correlation(axes: Any, value: float) -> None:
    axes.set_axis_off()
    size = 9 + 6 * (abs(value) if value == value else 0.0)
    colour = INK if abs(value) > 0.3 else MUTED
    axes.text(
        0.5,
        0.5,
        f"{value:+.2f}" if value == value else "–",
        transform=axes.transAxes,
        ha="center",
        va="center",
        fontsize=size,
        color=colour,
    )
