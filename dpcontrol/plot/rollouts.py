"""Long rollouts of solvers and corrections: errors along them, spectra, and what an error costs."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dpcontrol.plot.curves import plain_ticks
from dpcontrol.plot.style import INK, MUTED, new_figure, styled

ABREAST = 3  # panels in a row
Panels = Mapping[str, Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class Costs:
    """One panel: solvers without a network ``(label, seconds, error)``, and those of them that a line goes through;
    answers label -> (seconds, one error for each seed); seconds of what made the reference, or ``None``."""

    solvers: Sequence[tuple[str, float, float]]
    line: Sequence[tuple[str, float, float]]
    answers: Mapping[str, tuple[float, Sequence[float]]]
    reference: float | None = None


def error_figure(panels: Panels, colours: Mapping[str, str], dashes: Mapping[str, Any]) -> Any:
    """Errors of each step, a panel for each group: medians over seeds, bands from the lowest to the highest.

    Of an even number of seeds it is the upper median: where half of them have failed, the curve ends. What fails in
    its first step has no curve, and is named in the panel.

    Args:
        panels: group -> label -> ``(seeds, steps + 1)``; infinite from where a rollout has failed, where a cross ends
            the curve.
        colours: of each label.
        dashes: of those labels that are no answers.
    """
    with styled():
        figure, row = _panels(len(panels))
        for axes, (name, curves) in zip(row, panels.items(), strict=True):
            for label, rows in curves.items():
                _error_curve(axes, rows, colours[label], dashes.get(label))
            failed = [label for label, rows in curves.items() if not np.isfinite(_upper(rows)[1:2]).all()]
            _missing(axes, "failed in the first step", failed)
            axes.set(xlabel="steps", title=name)
            axes.margins(x=0.02)
        _label(row, "relative error")
        _limit(row, panels, dashes)
        _legend(figure, panels, colours, dashes)
    return figure


def _panels(count: int, *, shared: bool = True) -> tuple[Any, list[Any]]:
    """A figure with so many panels, at most ``ABREAST`` in a row."""
    columns = 2 if count == 4 else min(count, ABREAST)
    rows = math.ceil(count / columns)
    figure = new_figure(11.5, 1.1 + 3.6 * rows)
    grid = list(figure.subplots(rows, columns, sharey=shared, squeeze=False).flat)
    for axes in grid[count:]:
        axes.set_axis_off()
    return figure, grid[:count]


def _label(row: Sequence[Any], words: str) -> None:
    for axes in row:
        if axes.get_subplotspec().is_first_col():
            axes.set_ylabel(words)


def _error_curve(axes: Any, rows: np.ndarray, colour: str, dashes: Any) -> None:
    steps = np.arange(1, rows.shape[1])
    ordered = np.sort(np.where(np.isnan(rows[:, 1:]), np.inf, rows[:, 1:]), axis=0)
    middle = _upper(rows)[1:]
    middle = np.where(np.isfinite(middle) & (middle > 0), middle, np.nan)
    if len(rows) > 1:
        top = np.where(np.isfinite(ordered[-1]), ordered[-1], 1e9)
        low = np.where(np.isfinite(ordered[0]) & (ordered[0] > 0), ordered[0], np.nan)
        axes.fill_between(steps, low, top, color=colour, alpha=0.18, lw=0)
    style = {"ls": dashes, "lw": 1.6} if dashes is not None else {}
    axes.plot(steps, middle, color=colour, **style)
    there = np.flatnonzero(np.isfinite(middle))
    if there.size and there[-1] + 1 < len(middle):
        axes.plot(steps[there[-1]], middle[there[-1]], "x", color=colour, ms=7, mew=2, clip_on=False)


def _upper(rows: np.ndarray) -> np.ndarray:
    """The median over seeds, of an even number the upper one; infinite where the middle seed has failed."""
    upper: np.ndarray = np.sort(np.where(np.isnan(rows), np.inf, rows), axis=0)[len(rows) // 2]
    return upper


def _missing(axes: Any, why: str, labels: Sequence[str]) -> None:
    """Who has no curve in a panel, and why, in its lower left corner."""
    if labels:
        words = textwrap.fill(f"{why}: {', '.join(labels)}", 44)
        axes.text(0.03, 0.03, words, transform=axes.transAxes, fontsize=8.5, color=MUTED, zorder=5)


def _limit(row: Sequence[Any], panels: Panels, dashes: Mapping[str, Any]) -> None:
    """A logarithmic axis that shows everything below three times the solvers' largest error."""
    rows = [(label, part[:, 1:]) for curves in panels.values() for label, part in curves.items()]
    values = np.concatenate([part[np.isfinite(part) & (part > 0)] for _, part in rows])
    bars = [part[np.isfinite(part)].max(initial=0.0) for label, part in rows if label in dashes]
    if not values.size:
        return
    high = min(float(values.max()), 3 * float(max(bars, default=np.inf)) or np.inf)
    low = max(float(values.min()), 1e-4 * high)
    ratio = max(high / low, 1.02)
    for axes in row:
        axes.set_yscale("log")
        axes.set_ylim(low / ratio**0.06, high * ratio**0.08)
    plain_ticks(row[0].yaxis, *row[0].get_ylim())


def spectrum_figure(
    panels: Panels, truths: Mapping[str, np.ndarray], colours: Mapping[str, str], dashes: Mapping[str, Any]
) -> Any:
    """Energy of each whole wavenumber at the end of the comparison, over the reference's, a panel for each group.

    What has failed before the end (at least half of its seeds) has no curve, and is named in the panel.

    Args:
        panels: group -> label -> ``(seeds, wavenumbers)``.
        truths: group -> ``(wavenumbers,)`` of the reference.
        colours, dashes: as for :func:`error_figure`.
    """
    with styled():
        figure, row = _panels(len(panels), shared=False)
        for axes, (name, curves) in zip(row, panels.items(), strict=True):
            truth = truths[name][1:]
            waves = np.arange(1, len(truth) + 1)
            for label, rows in curves.items():
                middle = _upper(rows)[1:]
                middle = np.where(np.isfinite(middle) & (middle > 0), middle, np.nan)
                style = {"ls": dashes[label], "lw": 1.6} if label in dashes else {}
                axes.plot(waves[: len(middle)], middle, color=colours[label], **style)
            failed = [label for label, rows in curves.items() if not np.isfinite(_upper(rows)[1:]).all()]
            _missing(axes, "failed before the end", failed)
            axes.plot(waves, truth, color=INK, lw=1.3, marker="o", ms=2.6, zorder=4)
            axes.set(xlabel="wavenumber", title=name, xscale="log", yscale="log")
            _spectral_limits(axes, truth)
        _label(row, "energy")
        _legend(figure, panels, colours, dashes, "reference")
    return figure


def _spectral_limits(axes: Any, truth: np.ndarray) -> None:
    """What lies far below the reference are waves that rounding has made."""
    fine = truth[truth > 0]
    if fine.size:
        axes.set_ylim(max(0.1 * float(fine.min()), 1e-10 * float(fine.max())), 5 * float(fine.max()))
    plain_ticks(axes.xaxis, *axes.get_xlim())


def cost_figure(panels: Mapping[str, Costs], colours: Mapping[str, str]) -> Any:
    """Errors over costs: a line through the resolutions of the solver; what lies below and left of it pays.

    Args:
        panels: title -> what stands in it.
        colours: of each answer.
    """
    from matplotlib.lines import Line2D

    with styled():
        figure, row = _panels(len(panels))
        for axes, (name, found) in zip(row, panels.items(), strict=True):
            line = [(1e3 * cost, error) for _, cost, error in found.line]
            if line:
                axes.plot(*zip(*line, strict=True), color=MUTED, ls=(0, (5, 2)), lw=1.6)
            for label, cost, error in found.solvers:
                at = (1e3 * cost, error)
                axes.plot(*at, color=MUTED, marker="s", ms=5)
                words = label.replace(", ", "\n")
                axes.annotate(words, at, (7, 3), textcoords="offset points", fontsize=8.5, color=MUTED)
            for label, (cost, errors) in found.answers.items():
                fine = [error for error in errors if np.isfinite(error)]
                if fine:
                    axes.plot(
                        [1e3 * cost] * 2, [min(fine), max(fine)], color=colours[label], lw=3.2, alpha=0.45
                    )
                    axes.plot(1e3 * cost, np.mean(fine), "o", color=colours[label], ms=7.5, zorder=3)
            if found.reference is not None:
                axes.axvline(1e3 * found.reference, color=INK, ls=(0, (1.2, 1.6)), lw=1.3)
            axes.set(xlabel="a coarse step of one trajectory, ms", title=name, xscale="log", yscale="log")
            axes.margins(x=0.18, y=0.12)
        for axes in row:
            plain_ticks(axes.xaxis, *axes.get_xlim())
        _label(row, "relative error")
        plain_ticks(row[0].yaxis, *row[0].get_ylim())
        labels = list(dict.fromkeys(label for found in panels.values() for label in found.answers))
        handles = [
            Line2D([], [], color=colours[label], marker="o", ls="none", ms=7, label=label) for label in labels
        ]
        handles.append(
            Line2D([], [], color=MUTED, ls=(0, (5, 2)), marker="s", ms=5, label="solvers without a network")
        )
        if any(found.reference is not None for found in panels.values()):
            handles.append(
                Line2D([], [], color=INK, ls=(0, (1.2, 1.6)), lw=1.3, label="reference's own solver")
            )
        figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 7))
    return figure


def _legend(
    figure: Any, panels: Panels, colours: Mapping[str, str], dashes: Mapping[str, Any], truth: str = ""
) -> None:
    from matplotlib.lines import Line2D

    labels = list(dict.fromkeys(label for curves in panels.values() for label in curves))
    handles = [
        Line2D(
            [],
            [],
            color=colours[label],
            ls=dashes.get(label, "-"),
            lw=1.6 if label in dashes else 2.6,
            label=label,
        )
        for label in labels
    ]
    if truth:
        handles.append(Line2D([], [], color=INK, lw=1.3, marker="o", ms=2.6, label=truth))
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 6))
