"""Problems: what is sought, over which system, scored by what."""

from dpcontrol.problem.adjoint import GradientGrowth, gradient_growth
from dpcontrol.problem.base import Demand, Origin, Problem, View
from dpcontrol.problem.control import control_problem
from dpcontrol.problem.correction import correction_problem
from dpcontrol.problem.environment import Episode, advance, reset
from dpcontrol.problem.inference import inference_problem
from dpcontrol.problem.noise import Gaussian, LogNormal, StudentT
from dpcontrol.problem.planning import GradientPlan, plan_gradient
from dpcontrol.problem.scenarios import Scenarios
from dpcontrol.problem.scenes import scene_generator
from dpcontrol.problem.slots import ControlSequence, InitialState, ObservationScale, Parameters, Policy
from dpcontrol.problem.terms import closing, cost, effort, fold, misfit, penalty, reach, track
from dpcontrol.problem.unknown import Unknown
from dpcontrol.results import UsageError

__all__ = [
    "ControlSequence",
    "Demand",
    "Episode",
    "Gaussian",
    "GradientGrowth",
    "GradientPlan",
    "InitialState",
    "LogNormal",
    "ObservationScale",
    "Origin",
    "Parameters",
    "Policy",
    "Problem",
    "Scenarios",
    "StudentT",
    "Unknown",
    "UsageError",
    "View",
    "advance",
    "closing",
    "control_problem",
    "correction_problem",
    "cost",
    "effort",
    "fold",
    "gradient_growth",
    "inference_problem",
    "misfit",
    "penalty",
    "plan_gradient",
    "reach",
    "reset",
    "scene_generator",
    "track",
]
