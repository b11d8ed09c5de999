"""A figure with a title, remarks, and warnings that cannot be overlooked."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import Any

from dpcontrol.plot.style import MUTED, new_figure

ALARM = "#b3402a"
LINE = 0.19  # inches
CHARACTERS = 15.0  # of a line, for each inch


@dataclass(frozen=True)
class Head:
    """What stands above the panels.

    Attributes:
        title: in large letters.
        note: remarks in small ones.
        warning: in red; empty where there is nothing to warn of.
    """

    title: str = ""
    note: str = ""
    warning: str = ""


def framed(head: Head, width: float, height: float) -> tuple[Any, Any]:
    """A figure, and the part of ``width`` times ``height`` inches of it that panels are drawn into."""
    lines = [(line, MUTED, "normal") for line in _wrapped(head.note, width)]
    warning = f"Warning: {head.warning}" if head.warning else ""
    lines += [(line, ALARM, "bold") for line in _wrapped(warning, width)]
    above = LINE * len(lines) + 0.08 * bool(lines)
    figure = new_figure(width, height + above + 0.42 * bool(head.title))
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.06)
    if head.title:
        figure.suptitle(head.title, x=0.012, ha="left")
    if not lines:
        return figure, figure.subfigures(1, 1)
    top, body = figure.subfigures(2, 1, height_ratios=[above, height])
    for k, (line, colour, weight) in enumerate(lines):
        place = 1.0 - k * LINE / above
        top.text(0.012, place, line, color=colour, fontweight=weight, fontsize=9.5, va="top")
    return figure, body


def _wrapped(text: str, width: float) -> list[str]:
    return textwrap.wrap(text, int(width * CHARACTERS))
