"""How strategies reach a problem: counted, recorded, and within a budget."""

from dpcontrol.meter.budget import Budget, BudgetSpent, Progress, Stopped, TargetReached
from dpcontrol.meter.meter import Meter

__all__ = ["Budget", "BudgetSpent", "Meter", "Progress", "Stopped", "TargetReached"]
