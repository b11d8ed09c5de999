"""Densities of several posteriors over each other."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dpcontrol.plot.framed import Head, framed
from dpcontrol.plot.marginals import POINTS, bounds, density, draw_bar, view
from dpcontrol.plot.style import INK, styled


def overlaid_figure(
    panels: Sequence[tuple[str, dict[str, np.ndarray], float | None, tuple[float, float] | None]],
    colours: Mapping[str, str],
    dashed: Sequence[str] = (),
) -> Any:
    """Densities of several posteriors over each other, a panel for each number.

    Args:
        panels: name, label -> draws ``(count,)``, the truth, and mean and sd of a reference.
        colours: label -> colour.
        dashed: labels of approximations.
    """
    from matplotlib.lines import Line2D

    with styled():
        columns = min(len(panels), 4)
        rows = math.ceil(len(panels) / columns)
        figure, body = framed(Head(), 11.5, 2.35 * rows + 0.4)
        grid = body.subplots(rows, columns, squeeze=False)
        for axes in list(grid.flat)[len(panels) :]:
            axes.set_axis_off()
        for axes, (name, draws, truth, reference) in zip(grid.flat, panels, strict=False):
            _overlay(axes, draws, truth, reference, colours, dashed)
            axes.set_title(name)
        labels = list(dict.fromkeys(label for _, draws, _, _ in panels for label in draws))
        handles = [
            Line2D([], [], color=colours[x], lw=2.2, ls=(0, (4, 2)) if x in dashed else "-", label=x)
            for x in labels
        ]
        if any(truth is not None for _, _, truth, _ in panels):
            handles.append(Line2D([], [], color=INK, lw=1.4, ls=(0, (1.2, 1.6)), label="truth"))
        if any(reference is not None for *_, reference in panels):
            handles.append(Line2D([], [], color=INK, marker="D", ms=5, lw=2.4, label="reference mean ± sd"))
        body.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 6))
    return figure


def _overlay(
    axes: Any,
    draws: Mapping[str, np.ndarray],
    truth: float | None,
    reference: tuple[float, float] | None,
    colours: Mapping[str, str],
    dashed: Sequence[str],
) -> None:
    spans = [view(values, truth, reference) for values in draws.values()]
    widths = [high - low for low, high in spans]
    usual = [span for span, width in zip(spans, widths, strict=True) if width <= 4 * float(np.median(widths))]
    low, high = min(span[0] for span in usual), max(span[1] for span in usual)
    points = np.linspace(low, high, POINTS)
    top = 0.0
    for label, values in draws.items():
        found = density(values, points, bounds(values))
        top = max(top, min(float(found.max()), 3 * top or np.inf))
        axes.plot(points, found, color=colours[label], lw=2.0, ls=(0, (4, 2)) if label in dashed else "-")
    if truth is not None:
        axes.axvline(truth, color=INK, lw=1.4, ls=(0, (1.2, 1.6)))
    if reference is not None:
        draw_bar(axes, *reference, -0.07 * top, INK, "D")
    axes.set(xlim=(low, high), yticks=[])
    axes.set_ylim((-0.14 if reference is not None else 0.0) * top, 1.1 * top or 1.0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="y", visible=False)
    axes.locator_params(axis="x", nbins=4)
