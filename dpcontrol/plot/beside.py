"""Several trajectories of one system beside each other, one figure for each part of state and control."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dpcontrol.engine import Trajectory
from dpcontrol.plot.fields import (
    LINES,
    PROFILE,
    Quantity,
    draw_images,
    draw_space_time,
    quantities,
    staircase,
)
from dpcontrol.plot.style import new_figure, shared_scale, styled

PER_ROW = 5
# Simple systems rarely leave the stage; a diverged one must not blind the eye for the others.
WILD = 8.0


def trajectory_figures(
    found: Mapping[str, Trajectory],
    colours: Mapping[str, str],
    dashes: Mapping[str, Any],
    scenario: int,
) -> dict[str, Any]:
    """Figures of one scenario: name of the quantity -> matplotlib ``Figure``.

    Args:
        found: label -> trajectory, all of one system.
        colours: label -> colour.
        dashes: label -> line style, of those that are not drawn through.
        scenario: which one is drawn.
    """
    shown = {label: parts(trajectory) for label, trajectory in found.items()}
    names = list(dict.fromkeys(quantity.name for own in shown.values() for quantity in own))
    times = next(iter(found.values())).times.double().numpy()
    lines: dict[str, dict[str, Quantity]] = {}
    figures = {}
    for name in names:
        group = {label: quantity for label, own in shown.items() for quantity in own if quantity.name == name}
        kind = next(iter(group.values())).kind
        if kind == LINES:
            lines[name] = group
        elif kind == PROFILE:
            figures[name] = _profiles(name, group, times, scenario)
        else:
            figures[name] = _images(group, times, scenario)
    if lines:
        figures = {"over time": _overlaid(lines, colours, dashes, times, scenario), **figures}
    return figures


def parts(trajectory: Trajectory) -> list[Quantity]:
    """What is drawn of a trajectory: up to four parts of its state and two of its control."""
    return quantities(trajectory.states, "state", limit=4) + quantities(
        trajectory.controls, "control", limit=2
    )


def _overlaid(
    lines: Mapping[str, Mapping[str, Quantity]],
    colours: Mapping[str, str],
    dashes: Mapping[str, Any],
    times: np.ndarray,
    scenario: int,
) -> Any:
    panels = [
        (name if count == 1 else f"{name} {component + 1}", group, component)
        for name, group in lines.items()
        for count in [next(iter(group.values())).values.shape[2]]
        for component in range(min(count, 4))
    ]
    with styled():
        columns = min(3, len(panels))
        rows = math.ceil(len(panels) / columns)
        figure = new_figure(11.5 if columns > 1 else 8.0, 0.7 + 2.9 * rows)
        grid = figure.subplots(rows, columns, squeeze=False)
        for axes, (title, group, component) in zip(grid.flat, panels, strict=False):
            for label, quantity in group.items():
                at, values, style = staircase(times, quantity.values[:, scenario, component])
                axes.plot(at, values, color=colours[label], ls=dashes.get(label, "-"), drawstyle=style)
            axes.set(xlabel="time")
            axes.set_title(title)
            axes.margins(x=0.01)
            _limit(axes, [quantity.values[:, scenario, component] for quantity in group.values()])
        for axes in list(grid.flat)[len(panels) :]:
            axes.set_axis_off()
        _legend(
            figure, list(dict.fromkeys(label for group in lines.values() for label in group)), colours, dashes
        )
    return figure


def _limit(axes: Any, curves: Sequence[np.ndarray]) -> None:
    """Axes that hold most curves wholly, where one of them is far out."""
    spans = [float(np.abs(curve[np.isfinite(curve)]).max(initial=0.0)) for curve in curves]
    usual = float(np.median(spans))
    if usual > 0 and max(spans) > WILD * usual:
        axes.set_ylim(-1.5 * usual, 1.5 * usual)


def _legend(
    figure: Any, labels: Sequence[str], colours: Mapping[str, str], dashes: Mapping[str, Any]
) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=colours[x], ls=dashes.get(x, "-"), lw=2.2, label=x) for x in labels]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 5))


def _profiles(name: str, group: Mapping[str, Quantity], times: np.ndarray, scenario: int) -> Any:
    """Space-time images of all, with one colour scale."""
    with styled():
        rows = math.ceil(len(group) / PER_ROW)
        columns = math.ceil(len(group) / rows)
        figure = new_figure(11.5, 0.5 + 2.35 * rows)
        scale = shared_scale([quantity.values[:, scenario] for quantity in group.values()])
        grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
        image = None
        for axes, (label, quantity) in zip(grid.flat, group.items(), strict=False):
            image = draw_space_time(axes, quantity, times, scenario, **scale)
            axes.set_title(label, fontsize=10.5)
        for axes in list(grid.flat)[len(group) :]:
            axes.set_axis_off()
        for axes in grid[:, 0]:
            axes.set_ylabel("time")
        for position, axes in enumerate(grid.flat):
            below = position + columns
            if position < len(group) <= below:
                axes.set_xlabel("cell")
                axes.tick_params(labelbottom=True)
        figure.colorbar(
            image,
            ax=grid,
            label=name,
            pad=0.012,
            aspect=14 * rows + 6,
            extend=_extend(group, scenario, scale),
        )
    return figure


def _extend(group: Mapping[str, Quantity], scenario: int, scale: Mapping[str, Any]) -> str:
    """Pointed ends for a colour bar whose scale leaves numbers out."""
    spans = [quantity.values[:, scenario] for quantity in group.values()]
    below = min(float(np.nanmin(span)) for span in spans) < 1.3 * min(scale["vmin"], 0)
    above = max(float(np.nanmax(span)) for span in spans) > 1.3 * max(scale["vmax"], 0)
    return {(True, True): "both", (True, False): "min", (False, True): "max"}.get((below, above), "neither")


def _images(group: Mapping[str, Quantity], times: np.ndarray, scenario: int) -> Any:
    with styled():
        figure = new_figure(11.5, 0.6 + 1.75 * len(group))
        draw_images(figure, group, times, scenario, titled=False)
    return figure
