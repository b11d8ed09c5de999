"""Figures from plain numbers; matplotlib is imported when the first one is drawn."""

from dpcontrol.plot.fields import wanted_quantities
from dpcontrol.plot.own import own_figure
from dpcontrol.plot.page import Words, solution_figure
from dpcontrol.plot.picture import state_picture
from dpcontrol.plot.style import write

__all__ = ["Words", "own_figure", "solution_figure", "state_picture", "wanted_quantities", "write"]
