"""Densities of single numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dpcontrol.plot.framed import ALARM, Head, framed
from dpcontrol.plot.style import INK, MUTED, PALETTE, styled

POSTERIOR, TRUTH, REFERENCE = PALETTE[0], PALETTE[1], PALETTE[2]
POINTS = 256
CELLS = 512  # of the histogram that kernels are put on
BOUND = 0.5  # of the highest density: numbers that are so dense at their end have a bound there


@dataclass(frozen=True)
class Marginal:
    """What is known of one number.

    Attributes:
        label: its name.
        values: draws ``(chains, draws)``.
        prior: points and density of the prior, or ``None``.
        truth: its true value, or ``None``.
        reference: mean and sd of a posterior that is known otherwise, or ``None``.
        caption: such as ``0.031 ± 0.004``.
        alarm: what is wrong with its draws; empty where nothing is.
    """

    label: str
    values: np.ndarray
    prior: tuple[np.ndarray, np.ndarray] | None = None
    truth: float | None = None
    reference: tuple[float, float] | None = None
    caption: str = ""
    alarm: str = ""


def bounds(values: np.ndarray) -> tuple[float, float]:
    """Where numbers ``(count,)`` end at a bound, rather than run out; infinite where they do not."""
    low, high, width = float(values.min()), float(values.max()), _width(values)
    if not width > 0:
        return -math.inf, math.inf
    counts, edges = np.histogram(values, CELLS)
    near = max(1, int(2 * width / (edges[1] - edges[0])))
    usual = BOUND * np.convolve(counts, np.ones(near), "valid").max()
    return (low if counts[:near].sum() > usual else -math.inf), (
        high if counts[-near:].sum() > usual else math.inf
    )


def density(
    values: np.ndarray, points: np.ndarray, ends: tuple[float, float] = (-math.inf, math.inf)
) -> np.ndarray:
    """Kernel density of numbers ``(count,)`` at ``points``, reflected at the finite ones of ``ends``.

    Gaussian kernel of Silverman's width ``0.9 min(sd, iqr / 1.34) n^(-1/5)``.
    """
    width = _width(values)
    if not width > 0:
        return np.zeros_like(points)
    counts, edges = np.histogram(values, CELLS)
    centres = 0.5 * (edges[1:] + edges[:-1])
    result = np.zeros_like(points)
    for at in (centres, *(2 * end - centres for end in ends if math.isfinite(end))):
        result += (counts * np.exp(-0.5 * ((points[:, None] - at) / width) ** 2)).sum(1)
    inside = (points >= ends[0]) & (points <= ends[1])
    return np.where(inside, result, 0.0) / (len(values) * width * math.sqrt(2 * math.pi))


def _width(values: np.ndarray) -> float:
    quartiles = np.quantile(values, [0.25, 0.75])
    spread = min(float(values.std()), float(np.ptp(quartiles)) / 1.34) or float(values.std())
    return 0.9 * spread * len(values) ** -0.2


def marginals_figure(marginals: Sequence[Marginal], head: Head) -> Any:
    """Posterior densities beside the prior, the truth and a reference, one panel for each number."""
    with styled():
        columns = min(len(marginals), 4 if len(marginals) > 6 or len(marginals) == 4 else 3)
        rows = math.ceil(len(marginals) / columns)
        figure, body = framed(head, max(7.0, 3.4 * columns), 2.55 * rows + 0.35)
        draw_marginals(body, marginals, columns)
    return figure


def draw_marginals(part: Any, marginals: Sequence[Marginal], columns: int) -> None:
    """Panels of marginals in a (sub)figure, with one legend below them."""
    rows = math.ceil(len(marginals) / columns)
    grid = part.subplots(rows, columns, squeeze=False)
    for axes, marginal in zip(grid.flat, marginals, strict=False):
        _draw_marginal(axes, marginal)
    for axes in list(grid.flat)[len(marginals) :]:
        axes.set_axis_off()
    _legend(part, marginals, 6 if columns > 2 else 3)


def _draw_marginal(axes: Any, marginal: Marginal) -> None:
    values = marginal.values[np.isfinite(marginal.values).all(1)] if marginal.values.size else marginal.values
    pooled = values.ravel()
    axes.set_title(marginal.label, pad=20)
    axes.text(
        0.0,
        1.03,
        marginal.caption,
        transform=axes.transAxes,
        fontsize=9.5,
        color=MUTED,
        va="bottom",
        ha="left",
    )
    if marginal.alarm:
        axes.text(
            1.0, 1.03, marginal.alarm, transform=axes.transAxes, fontsize=9.5, color=ALARM, va="bottom", ha="right",
            fontweight="bold",
        )  # fmt: skip
    axes.set(yticks=[])
    axes.spines["left"].set_visible(False)
    axes.grid(axis="y", visible=False)
    axes.locator_params(axis="x", nbins=5)
    low, high = view(pooled, marginal.truth, marginal.reference)
    points = np.linspace(low, high, POINTS)
    ends = bounds(pooled)
    found = density(pooled, points, ends)
    if marginal.prior is not None:
        at, prior = marginal.prior
        # a prior far higher than the posterior is a spike somewhere else
        axes.plot(at, np.minimum(prior, 3 * found.max() or np.inf), color=MUTED, ls=(0, (4, 2)), lw=1.5)
    each = [density(chain, points, ends) for chain in values] if len(values) > 1 else []
    for chain in each:
        axes.plot(points, chain, color=POSTERIOR, lw=0.8, alpha=0.55)
    axes.fill_between(points, found, color=POSTERIOR, alpha=0.22, lw=0)
    axes.plot(points, found, color=POSTERIOR, lw=2.0)
    if marginal.truth is not None:
        axes.axvline(marginal.truth, color=TRUTH, lw=1.8)
    highest = max((float(chain.max()) for chain in each), default=0.0)
    top = max(float(found.max()), min(highest, 1.5 * float(found.max()))) or 1.0
    mean, sd = float(pooled.mean()), float(pooled.std())
    draw_bar(axes, mean, sd, -0.06 * top, INK, "o")
    if marginal.reference is not None:
        draw_bar(axes, *marginal.reference, -0.14 * top, REFERENCE, "D")
    axes.set_ylim(-0.21 * top if marginal.reference is not None else -0.13 * top, 1.12 * top)
    axes.set_xlim(low, high)


def view(
    pooled: np.ndarray, truth: float | None, reference: tuple[float, float] | None
) -> tuple[float, float]:
    """What an axis reaches over: nearly all draws, the truth, and two sds about the reference."""
    inside = [float(end) for end in np.quantile(pooled, [0.001, 0.999])]
    if truth is not None:
        inside.append(truth)
    if reference is not None:
        mean, sd = reference
        inside += [mean - 2 * sd, mean + 2 * sd]
    margin = 0.06 * (max(inside) - min(inside)) or 0.5
    return min(inside) - margin, max(inside) + margin


def draw_bar(axes: Any, mean: float, sd: float, height: float, colour: str, marker: str) -> None:
    axes.plot([mean - sd, mean + sd], [height, height], color=colour, lw=2.4, solid_capstyle="butt", zorder=3)
    axes.plot([mean], [height], marker, color=colour, ms=5.5, zorder=4)


def _legend(part: Any, marginals: Sequence[Marginal], most: int) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=POSTERIOR, lw=2.4, label="posterior")]
    if any(len(m.values) > 1 for m in marginals):
        handles.append(Line2D([], [], color=POSTERIOR, lw=0.8, alpha=0.7, label="each chain"))
    if any(m.prior is not None for m in marginals):
        handles.append(Line2D([], [], color=MUTED, ls=(0, (4, 2)), lw=1.5, label="prior"))
    if any(m.truth is not None for m in marginals):
        handles.append(Line2D([], [], color=TRUTH, lw=1.8, label="truth"))
    handles.append(Line2D([], [], color=INK, marker="o", ms=5.5, lw=2.4, label="mean ± sd"))
    if any(m.reference is not None for m in marginals):
        handles.append(Line2D([], [], color=REFERENCE, marker="D", ms=5, lw=2.4, label="reference mean ± sd"))
    part.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), most), fontsize=9.5)
