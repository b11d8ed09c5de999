"""Several strategies on one problem: equal budgets, several seeds, intervals, and a report."""

from dpcontrol.comparison.comparison import Comparison
from dpcontrol.comparison.matrix import compare

__all__ = ["Comparison", "compare"]
