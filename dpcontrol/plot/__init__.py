"""Figures from plain numbers; matplotlib is imported when the first one is drawn."""

from dpcontrol.plot.fields import solution_figure

__all__ = ["solution_figure"]
