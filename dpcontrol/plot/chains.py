"""Chains over time, and how their ranks are spread: what shows whether they have mixed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dpcontrol.plot.framed import ALARM, Head, framed
from dpcontrol.plot.marginals import Marginal
from dpcontrol.plot.style import INK, MUTED, PALETTE, styled

POINTS = 1000  # of a line; more of them are a band of ink
BINS = 20


def chains_figure(marginals: Sequence[Marginal], divergent: np.ndarray | None, head: Head) -> Any:
    """Traces of all chains, and histograms of their ranks among all draws, a row for each number.

    Where chains have mixed, traces look like noise around one level, and ranks are uniform for each chain: between the
    dotted lines (99 % of independent draws).

    Args:
        marginals: the numbers.
        divergent: ``(chains, draws)``, which transitions diverged.
        head: title and warnings.
    """
    with styled():
        figure, body = framed(head, 11.5, 1.62 * len(marginals) + 0.5)
        grid = body.subplots(len(marginals), 2, squeeze=False, width_ratios=(2.4, 1))
        for (left, right), marginal in zip(grid, marginals, strict=True):
            _trace(left, marginal, divergent)
            _ranks(right, marginal.values)
            left.set_title(marginal.label)
            if marginal.alarm:
                left.set_title(marginal.alarm, loc="right", color=ALARM, fontsize=10)
        grid[0, 1].set_title("ranks of each chain")
        for axes in grid[:-1].flat:
            axes.tick_params(labelbottom=False)
        grid[-1, 0].set_xlabel("draw")
        grid[-1, 1].set_xlabel("rank among all draws")
        _legend(body, len(marginals[0].values), any(marginal.truth is not None for marginal in marginals))
    return figure


def _trace(axes: Any, marginal: Marginal, divergent: np.ndarray | None) -> None:
    draws = marginal.values.shape[1]
    kept = np.unique(np.linspace(0, draws - 1, POINTS).round().astype(int))
    for chain, values in enumerate(marginal.values):
        axes.plot(kept, values[kept], color=PALETTE[chain % len(PALETTE)], lw=0.7, alpha=0.75)
    if divergent is not None and divergent.any():
        where = np.nonzero(divergent.any(0))[0]
        axes.plot(
            where,
            np.zeros(len(where)),
            "|",
            color=ALARM,
            ms=7,
            transform=axes.get_xaxis_transform(),
            clip_on=False,
        )
    if marginal.truth is not None:
        axes.axhline(marginal.truth, color=INK, ls=(0, (4, 2)), lw=1.4)
    axes.margins(x=0.005)
    axes.locator_params(axis="y", nbins=4)


def _ranks(axes: Any, values: np.ndarray) -> None:
    from scipy import stats

    chains, draws = values.shape
    ranks = stats.rankdata(values).reshape(chains, draws)
    bins = min(BINS, max(4, draws // 5))
    edges = np.linspace(0.5, chains * draws + 0.5, bins + 1)
    expected = draws / bins
    for chain, own in enumerate(ranks):
        counts, _ = np.histogram(own, edges)
        axes.stairs(counts / expected, edges, color=PALETTE[chain % len(PALETTE)], lw=1.4, alpha=0.85)
    for bound in stats.binom.ppf([0.005, 0.995], draws, 1 / bins) / expected:
        axes.axhline(bound, color=MUTED, ls=(0, (1.2, 1.6)), lw=1.2)
    axes.set_ylim(bottom=0)
    axes.set_xticks([0, chains * draws])
    axes.set_xlim(0, chains * draws)
    axes.locator_params(axis="y", nbins=4)
    axes.grid(False)


def _legend(part: Any, chains: int, truth: bool) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=PALETTE[chain % len(PALETTE)], lw=2, label=f"chain {chain + 1}")
        for chain in range(min(chains, len(PALETTE)))
    ]
    if truth:
        handles.append(Line2D([], [], color=INK, ls=(0, (4, 2)), lw=1.4, label="truth"))
    part.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=9.5)
