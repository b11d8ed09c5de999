"""Problems: what is sought, over which system, scored by what."""

from dpcontrol.problem.base import Demand, Origin, Problem, View
from dpcontrol.problem.control import control_problem
from dpcontrol.problem.noise import Gaussian, LogNormal
from dpcontrol.problem.scenarios import Scenarios
from dpcontrol.problem.terms import closing, cost, effort, fold, misfit, penalty, reach, track
from dpcontrol.problem.unknown import ControlSequence, InitialState, Parameters, Policy, Unknown

__all__ = [
    "ControlSequence",
    "Demand",
    "Gaussian",
    "InitialState",
    "LogNormal",
    "Origin",
    "Parameters",
    "Policy",
    "Problem",
    "Scenarios",
    "Unknown",
    "View",
    "closing",
    "control_problem",
    "cost",
    "effort",
    "fold",
    "misfit",
    "penalty",
    "reach",
    "track",
]
