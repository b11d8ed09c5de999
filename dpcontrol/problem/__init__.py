"""Problems: what is sought, over which system, scored by what."""

from dpcontrol.problem.acting import (
    Acting,
    Delayed,
    Outset,
    Sensed,
    from_law,
    from_solution,
    from_value,
)
from dpcontrol.problem.adjoint import GradientGrowth, gradient_growth
from dpcontrol.problem.base import Demand, Origin, Problem, View
from dpcontrol.problem.control import control_problem
from dpcontrol.problem.correction import correction_problem
from dpcontrol.problem.densities import TruncatedNormal
from dpcontrol.problem.environment import Episode, advance, reset
from dpcontrol.problem.evaluating import ErrorCurves, Evaluation, evaluate, spectrum
from dpcontrol.problem.examination import Examination
from dpcontrol.problem.fields import GaussianField
from dpcontrol.problem.following import relative_norm
from dpcontrol.problem.hybrids import corrected, training_scenarios, without_solver
from dpcontrol.problem.inference import inference_problem
from dpcontrol.problem.noise import Gaussian, LogNormal, StudentT
from dpcontrol.problem.observation import Observation, observe
from dpcontrol.problem.planning import GradientPlan, plan_gradient
from dpcontrol.problem.playing import Played, play
from dpcontrol.problem.policy_slot import Policy
from dpcontrol.problem.predicting import (
    draw_prior,
    pointwise_log_likelihood,
    predictions,
    replicate,
    with_measurements,
)
from dpcontrol.problem.prior import Prior, Separately
from dpcontrol.problem.reference import Reference, simulated_reference
from dpcontrol.problem.regulator import KalmanLQR, quadratic_gain
from dpcontrol.problem.resolution import Resolution
from dpcontrol.problem.scenarios import Scenarios
from dpcontrol.problem.scenes import scene_generator
from dpcontrol.problem.sensors import Component, Mask, Modes, Points
from dpcontrol.problem.sites import from_sites, sites
from dpcontrol.problem.slots import ControlSequence, InitialState, ObservationScale, Parameters, ProcessNoise
from dpcontrol.problem.terms import closing, cost, effort, fold, misfit, penalty, reach, track
from dpcontrol.problem.unknown import Unknown
from dpcontrol.problem.windowing import window
from dpcontrol.problem.windows import Windows
from dpcontrol.results import UsageError

__all__ = [
    "Acting",
    "Component",
    "ControlSequence",
    "Delayed",
    "Demand",
    "Episode",
    "ErrorCurves",
    "Evaluation",
    "Examination",
    "Gaussian",
    "GaussianField",
    "GradientGrowth",
    "GradientPlan",
    "InitialState",
    "KalmanLQR",
    "LogNormal",
    "Mask",
    "Modes",
    "Observation",
    "ObservationScale",
    "Origin",
    "Outset",
    "Parameters",
    "Played",
    "Points",
    "Policy",
    "Prior",
    "Problem",
    "ProcessNoise",
    "Reference",
    "Resolution",
    "Scenarios",
    "Sensed",
    "Separately",
    "StudentT",
    "TruncatedNormal",
    "Unknown",
    "UsageError",
    "View",
    "Windows",
    "advance",
    "closing",
    "control_problem",
    "corrected",
    "correction_problem",
    "cost",
    "draw_prior",
    "effort",
    "evaluate",
    "fold",
    "from_law",
    "from_sites",
    "from_solution",
    "from_value",
    "gradient_growth",
    "inference_problem",
    "misfit",
    "observe",
    "penalty",
    "plan_gradient",
    "play",
    "pointwise_log_likelihood",
    "predictions",
    "quadratic_gain",
    "reach",
    "relative_norm",
    "replicate",
    "reset",
    "scene_generator",
    "simulated_reference",
    "sites",
    "spectrum",
    "track",
    "training_scenarios",
    "window",
    "with_measurements",
    "without_solver",
]
