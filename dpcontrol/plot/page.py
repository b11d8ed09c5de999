"""One solution on one page: how the loss fell, what the states became beside what they should be, the controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dpcontrol.engine.trajectory import Trajectory
from dpcontrol.plot.curves import draw_history
from dpcontrol.plot.fields import (
    IMAGE,
    LINES,
    PROFILE,
    Quantity,
    Wanted,
    draw_images,
    draw_lines,
    draw_snapshots,
    draw_space_time,
    quantities,
)
from dpcontrol.plot.style import MUTED, extend_of, new_figure, styled

IMAGE_ROW = 2.25  # inches


@dataclass(frozen=True)
class Words:
    """What a page says.

    Attributes:
        title: above everything.
        subtitle: a line below it, in small letters.
        states: names of the entries of the state's last axis, if they have any.
        controls: the same for the control.
    """

    title: str = ""
    subtitle: str = ""
    states: Sequence[str] = ()
    controls: Sequence[str] = ()


@dataclass(frozen=True)
class _Panel:
    """A quantity with what is known about it."""

    quantity: Quantity
    wanted: Wanted | None = None
    names: Sequence[str] = ()
    places: str = "cell"


@dataclass(frozen=True)
class _Page:
    """The panels of a page, by the room that they need."""

    panels: list[_Panel]
    told: bool
    small: list[_Panel] = field(init=False)
    wide: list[_Panel] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "small", [p for p in self.panels if p.quantity.kind != IMAGE])
        object.__setattr__(self, "wide", [p for p in self.panels if p.quantity.kind == IMAGE])

    @property
    def columns(self) -> int:
        return int(self.told) + len(self.small)

    @property
    def upper(self) -> float:
        """Height of the row of small panels, in inches."""
        if not self.columns:
            return 0.0
        if any(p.quantity.kind == PROFILE and p.places == "cell" for p in self.small):
            return 5.6
        return 3.3 if self.small else 2.4


def solution_figure(
    trajectory: Trajectory,
    history: Mapping[str, Sequence[Any]],
    *,
    words: Words | None = None,
    scenario: int = 0,
    wanted: Mapping[str, Wanted] | None = None,
) -> Any:
    """One solution on one page: how the loss fell, the states, the controls.

    Args:
        trajectory: states ``(horizon + 1, scenarios, ...)`` and controls ``(horizon, scenarios, ...)``, trees.
        history: columns ``simulated_steps, loss, latest`` as in a solution; may be empty.
        words: titles and names.
        scenario: the one whose fields are drawn; lines over time show the others faintly.
        wanted: name of a quantity (see :func:`~dpcontrol.plot.fields.wanted_quantities`) -> what it should be.

    Returns:
        A matplotlib ``Figure`` (not known to pyplot).
    """
    said = words or Words()
    page = _Page(_panels(trajectory, said, wanted or {}), told=len(history.get("loss", ())) > 1)
    times = trajectory.times.double().numpy()
    with styled():
        head = 0.55 + 0.22 * bool(said.subtitle)
        width = max(4.3 * page.columns, 10.5 if page.wide else 5.0)
        figure = new_figure(width, head + page.upper + IMAGE_ROW * len(page.wide))
        figure.suptitle(said.title, x=0.012, ha="left")
        heights = [page.upper] * bool(page.columns) + [IMAGE_ROW] * len(page.wide)
        if said.subtitle:
            heights = [0.22, *heights]
        parts = list(figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0])
        if said.subtitle:
            parts.pop(0).text(0.012, 1.0, said.subtitle, color=MUTED, fontsize=9.5, va="top")
        if page.columns:
            _draw_upper(parts.pop(0), page, history, times, scenario)
        columns = 7 if any(panel.wanted is not None for panel in page.wide) else 0
        for part, panel in zip(parts, page.wide, strict=True):
            draw_images(part, {"": panel.quantity}, times, scenario, wanted=panel.wanted, columns=columns)
    return figure


def _panels(trajectory: Trajectory, said: Words, wanted: Mapping[str, Wanted]) -> list[_Panel]:
    states = quantities(trajectory.states, "state")
    fields = {quantity.values.shape[2:] for quantity in states}
    panels = [_Panel(quantity, wanted.get(quantity.name), said.states) for quantity in states]
    for quantity in quantities(trajectory.controls, "control", limit=2):
        places = "cell" if quantity.values.shape[2:] in fields else "input"
        panels.append(_Panel(quantity, None, said.controls, places))
    return panels


def _draw_upper(part: Any, page: _Page, history: Any, times: np.ndarray, scenario: int) -> None:
    columns = part.subfigures(1, page.columns, squeeze=False)[0]
    if page.told:
        draw_history(columns[0].subplots(), history)
    for column, panel in zip(columns[int(page.told) :], page.small, strict=True):
        _draw_small(column, panel, times, scenario)


def _draw_small(part: Any, panel: _Panel, times: np.ndarray, scenario: int) -> None:
    quantity = panel.quantity
    title = f"{quantity.name}, scenario {scenario}"
    if quantity.kind == LINES:
        axes = part.subplots()
        draw_lines(axes, quantity, times, scenario, wanted=panel.wanted, names=panel.names)
        single = len(panel.names) == 1 == quantity.values.shape[2]
        axes.set_title(f"{quantity.name}: {panel.names[0]}" if single else quantity.name)
        return
    if panel.places == "cell":
        upper, lower = part.subplots(2, 1)
        draw_snapshots(lower, quantity, times, scenario, wanted=panel.wanted)
    else:
        upper = part.subplots()
    image = draw_space_time(upper, quantity, times, scenario)
    part.colorbar(
        image, ax=upper, pad=0.02, aspect=18, extend=extend_of(quantity.values[:, scenario], image.get_clim())
    )
    upper.set(xlabel=panel.places, ylabel="time")
    upper.set_title(title)
