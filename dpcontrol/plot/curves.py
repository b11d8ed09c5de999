"""Curves: how losses fell, and where strategies ended, with their intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dpcontrol.plot.style import MUTED, PALETTE, new_figure, styled

HistoryColumns = Mapping[str, Sequence[Any]]


@dataclass(frozen=True)
class Course:
    """The histories of all runs of one strategy, and its colour."""

    label: str
    colour: str
    histories: Sequence[HistoryColumns]


@dataclass(frozen=True)
class Level:
    """A loss that others are measured by: a horizontal line."""

    label: str
    value: float
    colour: str
    dashes: Any


@dataclass(frozen=True)
class Mark:
    """Where a strategy ended: a value and its interval (``None`` where there is none).

    ``instead`` stands where the value is not finite.
    """

    label: str
    value: float
    interval: tuple[float, float] | None
    colour: str
    hollow: bool = False
    instead: str = "no finite value"


def draw_history(axes: Any, history: HistoryColumns) -> None:
    """The best loss so far over the simulated steps, and faintly the loss of each evaluation."""
    steps = np.asarray(history["simulated_steps"], float)
    loss = np.asarray(history["loss"], float)
    latest = np.asarray(history.get("latest", []), float)
    if latest.size and np.isfinite(latest).any():
        axes.plot(
            steps, np.where(np.isfinite(latest), latest, np.nan), ".", color=MUTED, ms=3, alpha=0.35, mew=0
        )
    axes.plot(steps, np.where(np.isfinite(loss), loss, np.nan), color=PALETTE[0], drawstyle="steps-post")
    if np.isfinite(loss).any() and loss[np.isfinite(loss)].min() > 0:
        scale_log(axes, loss)
    axes.set(xlabel="simulated steps")
    axes.locator_params(axis="x", nbins=5)
    axes.xaxis.set_major_formatter(_counted())
    axes.set_title("loss, best so far")


def scale_log(axes: Any, values: np.ndarray, top: float = float("inf")) -> None:
    """A logarithmic y axis, with plain numbers as labels where less than two decades are shown.

    What lies above ``top`` leaves the picture.
    """
    finite = values[np.isfinite(values) & (values > 0)]
    low, high = float(finite.min()), min(float(finite.max()), top)
    ratio = max(high / low, 1.02)
    axes.set_yscale("log")
    axes.set_ylim(low / ratio**0.06, high * ratio**0.08)
    plain_ticks(axes.yaxis, *axes.get_ylim())


def plain_ticks(axis: Any, low: float, high: float) -> None:
    """Ticks of a logarithmic axis: 1, 2, 5 and finer where it spans little, powers of ten where it spans much."""
    from matplotlib.ticker import LogLocator, NullFormatter, NullLocator

    ratio = high / low
    if ratio > 200:
        axis.set_major_locator(LogLocator(10, numticks=8))
        axis.set_minor_formatter(NullFormatter())
        return
    steps = (1, 2, 5) if ratio > 6 else (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8)
    ticks = [m * 10.0**e for e in range(-300, 300) for m in steps if low <= m * 10.0**e <= high]
    axis.set_ticks(ticks if len(ticks) > 1 else list(np.linspace(low, high, 4)[1:-1]))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(_short())


def _short() -> Any:
    from matplotlib.ticker import FuncFormatter

    return FuncFormatter(lambda value, _: f"{value:,.6g}" if 1e-3 <= value < 1e6 else f"{value:.3g}")


def _counted() -> Any:
    from matplotlib.ticker import EngFormatter

    return EngFormatter(sep="")


def convergence_figure(courses: Sequence[Course], levels: Sequence[Level], *, ylabel: str = "loss") -> Any:
    """Loss against simulated steps and against seconds: medians over seeds, bands from the lowest to the highest.

    Args:
        courses: what fell.
        levels: what it is measured by, such as simple laws.
        ylabel: what the loss is, with its unit.
    """
    with styled():
        figure = new_figure(11.5, 4.6)
        left, right = figure.subplots(1, 2, sharey=True)
        for axes, column, label in (
            (left, "simulated_steps", "simulated steps"),
            (right, "seconds", "seconds"),
        ):
            for course in courses:
                _draw_course(axes, course, column)
            for level in levels:
                axes.axhline(level.value, color=level.colour, ls=level.dashes, lw=1.5, zorder=1.5)
            axes.set(xlabel=label, xscale="log")
            axes.margins(x=0.02)
        _scale_together(left, courses, levels)
        left.set_ylabel(ylabel)
        left.set_title("against simulated steps")
        right.set_title("against wall time")
        _legend(figure, courses, levels)
    return figure


def _scale_together(axes: Any, courses: Sequence[Course], levels: Sequence[Level]) -> None:
    parts = [np.asarray(history["loss"], float) for course in courses for history in course.histories]
    values = np.concatenate([*parts, np.array([level.value for level in levels])])
    values = values[np.isfinite(values)]
    if values.size and values.min() > 0:
        # where it started is often far above anything of interest
        ends = [part[np.isfinite(part)][-1] for part in parts if np.isfinite(part).any()]
        scale_log(axes, values, top=4 * max([*ends, *(level.value for level in levels)]))


def _legend(figure: Any, courses: Sequence[Course], levels: Sequence[Level]) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=course.colour, lw=2.6, label=course.label) for course in courses]
    handles += [Line2D([], [], color=x.colour, ls=x.dashes, lw=1.5, label=x.label) for x in levels]
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 4))


def median_course(histories: Sequence[HistoryColumns], column: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Where costs are common to all runs: a grid of costs ``(points,)``, and ``(3, points)`` low, median, high loss.

    A run that has ended keeps its last loss: it costs nothing more.
    """
    runs = []
    for history in histories:
        cost, loss = np.asarray(history[column], float), np.asarray(history["loss"], float)
        usable = np.isfinite(loss) & (cost > 0)
        if usable.any():
            runs.append((cost[usable], loss[usable]))
    if not runs:
        return None
    start = max(cost[0] for cost, _ in runs)
    end = max(cost[-1] for cost, _ in runs)
    if len(runs) == 1:
        grid = _thinned(runs[0][0])
    else:
        grid = np.geomspace(start, max(end, start * (1 + 1e-9)), 300)
    rows = [loss[np.clip(np.searchsorted(cost, grid, side="right") - 1, 0, None)] for cost, loss in runs]
    stacked = np.stack(rows)
    return grid, np.stack([stacked.min(0), np.median(stacked, axis=0), stacked.max(0)])


def _thinned(cost: np.ndarray, points: int = 400) -> np.ndarray:
    """At most so many of the entries, evenly on a logarithmic axis, the first and the last among them."""
    if len(cost) <= points:
        return cost
    wanted = np.geomspace(cost[0], cost[-1], points)
    kept = np.unique(np.searchsorted(cost, wanted).clip(0, len(cost) - 1))
    return cost[kept]


def _draw_course(axes: Any, course: Course, column: str) -> None:
    found = median_course(course.histories, column)
    if found is None:
        return
    grid, (low, middle, high) = found
    if len(course.histories) > 1:
        axes.fill_between(grid, low, high, color=course.colour, alpha=0.18, lw=0, step="post")
    axes.plot(grid, middle, color=course.colour, drawstyle="steps-post")
    axes.plot(grid[-1:], middle[-1:], "o", color=course.colour, ms=5.5, zorder=3)


def interval_figure(panels: Mapping[str, Sequence[Mark]]) -> Any:
    """Dots with intervals, one row for each strategy, one panel for each figure of merit.

    Args:
        panels: name of the figure -> marks, each list with the same labels in the same order (best first).
    """
    with styled():
        rows = len(next(iter(panels.values())))
        figure = new_figure(11.5, 1.2 + 0.42 * rows)
        for axes, (name, marks) in zip(
            figure.subplots(1, len(panels), sharey=True, squeeze=False)[0], panels.items(), strict=True
        ):
            _draw_marks(axes, marks)
            axes.set_title(name)
        first = figure.axes[0]
        first.set_yticks(range(rows), [mark.label for mark in next(iter(panels.values()))])
        first.set_ylim(rows - 0.4, -0.6)
    return figure


def _draw_marks(axes: Any, marks: Sequence[Mark]) -> None:
    for row, mark in enumerate(marks):
        if not np.isfinite(mark.value):
            axes.text(0.02, row, mark.instead, transform=axes.get_yaxis_transform(), va="center", color=MUTED)
            continue
        if mark.interval is not None:
            axes.plot(mark.interval, [row, row], color=mark.colour, lw=3.2, alpha=0.45, solid_capstyle="butt")
        face = "white" if mark.hollow else mark.colour
        axes.plot(mark.value, row, "o", color=mark.colour, mfc=face, mew=1.8, ms=7.5, zorder=3)
        axes.annotate(
            f"{mark.value:,.0f}" if 1000 <= abs(mark.value) < 1e6 else f"{mark.value:.3g}",
            (mark.value, row),
            (0, 7),
            textcoords="offset points",
            ha="center",
            fontsize=9,
        )
    values = np.array([v for mark in marks for v in (mark.value, *(mark.interval or ())) if np.isfinite(v)])
    axes.grid(axis="y", visible=False)
    if values.size and values.min() > 0 and values.max() / values.min() > 8:
        low, high = float(values.min()), float(values.max())
        axes.set_xscale("log")
        axes.set_xlim(low / (high / low) ** 0.08, high * (high / low) ** 0.08)
        plain_ticks(axes.xaxis, *axes.get_xlim())
    else:
        axes.margins(x=0.09)
