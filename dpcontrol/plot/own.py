"""The figures that a problem brings along: functions that draw into a figure of ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from dpcontrol.plot.style import new_figure, styled

SIZE = (11.5, 4.9)  # inches; a drawing that needs another calls figure.set_size_inches


def own_figure(name: str, draw: Callable[..., Any], solutions: Mapping[str, Any]) -> Any:
    """The figure that ``draw(figure, solutions)`` makes, in our style.

    A picture is not worth a lost run or comparison: where the drawing fails, the figure is the sentence that says so.

    Args:
        name: of the figure.
        draw: from the problem file.
        solutions: label -> solution.
    """
    with styled(grid=False):
        figure = new_figure(*SIZE)
        try:
            draw(figure, dict(solutions))
        except Exception as error:
            figure = new_figure(SIZE[0], 0.8)
            sentence = f"The figure {name!r} of the problem failed: {type(error).__name__}: {error}"
            figure.text(0.01, 0.5, sentence, va="center", wrap=True)
    return figure
