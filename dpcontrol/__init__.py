"""dpcontrol: optimal control, inference and learned corrections through differentiable simulators, compared fairly.

The public face. It hands names on and defines nothing; what a name needs is imported when it is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dpcontrol.checking import check_gradient as check_gradient
    from dpcontrol.comparison import Comparison as Comparison
    from dpcontrol.comparison import Tuned as Tuned
    from dpcontrol.comparison import compare as compare
    from dpcontrol.comparison import examine as examine
    from dpcontrol.comparison import tune as tune
    from dpcontrol.criticism import Calibration as Calibration
    from dpcontrol.criticism import HalfStep as HalfStep
    from dpcontrol.criticism import at_half_step as at_half_step
    from dpcontrol.criticism import posterior_at_half_step as posterior_at_half_step
    from dpcontrol.criticism import sbc as sbc
    from dpcontrol.criticism import stress_test as stress_test
    from dpcontrol.engine import Auto as Auto
    from dpcontrol.engine import Checkpointed as Checkpointed
    from dpcontrol.engine import Full as Full
    from dpcontrol.engine import StopGradient as StopGradient
    from dpcontrol.engine import Tail as Tail
    from dpcontrol.engine import Trajectory as Trajectory
    from dpcontrol.engine import TruncatedBPTT as TruncatedBPTT
    from dpcontrol.engine import rollout as rollout
    from dpcontrol.meter import Budget as Budget
    from dpcontrol.posterior import Draws as Draws
    from dpcontrol.posterior import Posterior as Posterior
    from dpcontrol.problem import Component as Component
    from dpcontrol.problem import ControlSequence as ControlSequence
    from dpcontrol.problem import Examination as Examination
    from dpcontrol.problem import Gaussian as Gaussian
    from dpcontrol.problem import GaussianField as GaussianField
    from dpcontrol.problem import InitialState as InitialState
    from dpcontrol.problem import LogNormal as LogNormal
    from dpcontrol.problem import Mask as Mask
    from dpcontrol.problem import Modes as Modes
    from dpcontrol.problem import ObservationScale as ObservationScale
    from dpcontrol.problem import Parameters as Parameters
    from dpcontrol.problem import Points as Points
    from dpcontrol.problem import Policy as Policy
    from dpcontrol.problem import Problem as Problem
    from dpcontrol.problem import ProcessNoise as ProcessNoise
    from dpcontrol.problem import Reference as Reference
    from dpcontrol.problem import Resolution as Resolution
    from dpcontrol.problem import Scenarios as Scenarios
    from dpcontrol.problem import Separately as Separately
    from dpcontrol.problem import StudentT as StudentT
    from dpcontrol.problem import TruncatedNormal as TruncatedNormal
    from dpcontrol.problem import closing as closing
    from dpcontrol.problem import control_problem as control_problem
    from dpcontrol.problem import corrected as corrected
    from dpcontrol.problem import correction_problem as correction_problem
    from dpcontrol.problem import cost as cost
    from dpcontrol.problem import effort as effort
    from dpcontrol.problem import evaluate as evaluate
    from dpcontrol.problem import fold as fold
    from dpcontrol.problem import gradient_growth as gradient_growth
    from dpcontrol.problem import inference_problem as inference_problem
    from dpcontrol.problem import misfit as misfit
    from dpcontrol.problem import observe as observe
    from dpcontrol.problem import penalty as penalty
    from dpcontrol.problem import plan_gradient as plan_gradient
    from dpcontrol.problem import reach as reach
    from dpcontrol.problem import simulated_reference as simulated_reference
    from dpcontrol.problem import track as track
    from dpcontrol.problem import training_scenarios as training_scenarios
    from dpcontrol.problem import window as window
    from dpcontrol.pyro_bridge import pyro_model as pyro_model
    from dpcontrol.pyro_bridge import pyro_simulate as pyro_simulate
    from dpcontrol.results import Counts as Counts
    from dpcontrol.results import Status as Status
    from dpcontrol.results import UsageError as UsageError
    from dpcontrol.run import Strategy as Strategy
    from dpcontrol.sim import ODE as ODE
    from dpcontrol.sim import BlackBox as BlackBox
    from dpcontrol.sim import FunctionSimulator as FunctionSimulator
    from dpcontrol.sim import HybridSimulator as HybridSimulator
    from dpcontrol.sim import JaxFunction as JaxFunction
    from dpcontrol.sim import PhiFlowStep as PhiFlowStep
    from dpcontrol.sim import Simulator as Simulator
    from dpcontrol.sim import Steady as Steady
    from dpcontrol.sim import Substeps as Substeps
    from dpcontrol.solution import Solution as Solution
    from dpcontrol.solving import load as load
    from dpcontrol.solving import solve as solve
    from dpcontrol.strategies import CEM as CEM
    from dpcontrol.strategies import CMAES as CMAES
    from dpcontrol.strategies import LBFGS as LBFGS
    from dpcontrol.strategies import MALA as MALA
    from dpcontrol.strategies import MPC as MPC
    from dpcontrol.strategies import MPPI as MPPI
    from dpcontrol.strategies import NUTS as NUTS
    from dpcontrol.strategies import PCN as PCN
    from dpcontrol.strategies import PPO as PPO
    from dpcontrol.strategies import SAC as SAC
    from dpcontrol.strategies import SVI as SVI
    from dpcontrol.strategies import ActorCritic as ActorCritic
    from dpcontrol.strategies import Adjoint as Adjoint
    from dpcontrol.strategies import Baseline as Baseline
    from dpcontrol.strategies import EnsembleKalman as EnsembleKalman
    from dpcontrol.strategies import EvolvedPolicy as EvolvedPolicy
    from dpcontrol.strategies import GaussNewton as GaussNewton
    from dpcontrol.strategies import Laplace as Laplace
    from dpcontrol.strategies import LearnedPolicy as LearnedPolicy
    from dpcontrol.strategies import Metropolis as Metropolis
    from dpcontrol.strategies import MovingHorizon as MovingHorizon
    from dpcontrol.strategies import MultiStart as MultiStart
    from dpcontrol.strategies import NewtonKrylov as NewtonKrylov
    from dpcontrol.strategies import Noisy as Noisy
    from dpcontrol.strategies import PlannedPolicy as PlannedPolicy
    from dpcontrol.strategies import Stopped as Stopped
    from dpcontrol.strategies import Supervised as Supervised
    from dpcontrol.strategies import Surrogate as Surrogate
    from dpcontrol.strategies import Unrolled as Unrolled
    from dpcontrol.trials import ActuatorDelay as ActuatorDelay
    from dpcontrol.trials import Disturbance as Disturbance
    from dpcontrol.trials import Mismatch as Mismatch
    from dpcontrol.trials import Nominal as Nominal
    from dpcontrol.trials import Robustness as Robustness
    from dpcontrol.trials import SensorNoise as SensorNoise
    from dpcontrol.trials import Shifted as Shifted
    from dpcontrol.trials import Together as Together
    from dpcontrol.trials import robustness as robustness

ROOMS = {
    "checking": ("check_gradient",),
    "comparison": ("Comparison", "Tuned", "compare", "examine", "tune"),
    "criticism": (
        "Calibration",
        "HalfStep",
        "at_half_step",
        "posterior_at_half_step",
        "sbc",
        "stress_test",
    ),
    "engine": (
        "Auto",
        "Checkpointed",
        "Full",
        "StopGradient",
        "Tail",
        "Trajectory",
        "TruncatedBPTT",
        "rollout",
    ),
    "meter": ("Budget",),
    "posterior": ("Draws", "Posterior"),
    "problem": (
        "Component",
        "Mask",
        "Modes",
        "Points",
        "ControlSequence",
        "Gaussian",
        "GaussianField",
        "InitialState",
        "LogNormal",
        "ObservationScale",
        "Parameters",
        "Policy",
        "Problem",
        "ProcessNoise",
        "Examination",
        "Reference",
        "Resolution",
        "Scenarios",
        "TruncatedNormal",
        "Separately",
        "StudentT",
        "closing",
        "control_problem",
        "corrected",
        "correction_problem",
        "cost",
        "effort",
        "evaluate",
        "fold",
        "gradient_growth",
        "inference_problem",
        "misfit",
        "observe",
        "penalty",
        "plan_gradient",
        "reach",
        "simulated_reference",
        "track",
        "training_scenarios",
        "window",
    ),
    "pyro_bridge": ("pyro_model", "pyro_simulate"),
    "results": ("Counts", "Status", "UsageError"),
    "run": ("Strategy",),
    "sim": (
        "BlackBox",
        "FunctionSimulator",
        "HybridSimulator",
        "JaxFunction",
        "ODE",
        "PhiFlowStep",
        "Simulator",
        "Steady",
        "Substeps",
    ),
    "solution": ("Solution",),
    "solving": ("load", "solve"),
    "trials": (
        "ActuatorDelay",
        "Disturbance",
        "Mismatch",
        "Nominal",
        "Robustness",
        "SensorNoise",
        "Shifted",
        "Together",
        "robustness",
    ),
    "strategies": (
        "CEM",
        "CMAES",
        "LBFGS",
        "SVI",
        "ActorCritic",
        "Adjoint",
        "Baseline",
        "EnsembleKalman",
        "EvolvedPolicy",
        "GaussNewton",
        "Laplace",
        "MPC",
        "MPPI",
        "MovingHorizon",
        "MultiStart",
        "NewtonKrylov",
        "Noisy",
        "LearnedPolicy",
        "PlannedPolicy",
        "Stopped",
        "Supervised",
        "Surrogate",
        "Unrolled",
        "PPO",
        "SAC",
        "NUTS",
        "MALA",
        "Metropolis",
        "PCN",
    ),
}
__all__ = sorted(name for names in ROOMS.values() for name in names)


def __getattr__(name: str) -> Any:
    for room, names in ROOMS.items():
        if name in names:
            return getattr(importlib.import_module(f"dpcontrol.{room}"), name)
    raise AttributeError(f"module 'dpcontrol' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
