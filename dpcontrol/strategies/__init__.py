"""Strategies: interchangeable ways to answer a problem. They know problems through their meter, and no simulator."""

from dpcontrol.strategies.baselines import Baseline
from dpcontrol.strategies.evolving.cross_entropy import CEM
from dpcontrol.strategies.evolving.evolution import CMAES
from dpcontrol.strategies.learning.model_free import PPO, SAC
from dpcontrol.strategies.learning.planned.planner import PlannedPolicy
from dpcontrol.strategies.learning.policy import LearnedPolicy
from dpcontrol.strategies.minimising.first_order import Adjoint
from dpcontrol.strategies.minimising.gauss_newton import GaussNewton
from dpcontrol.strategies.minimising.multistart import MultiStart
from dpcontrol.strategies.minimising.newton import NewtonKrylov
from dpcontrol.strategies.minimising.quasi_newton import LBFGS
from dpcontrol.strategies.posteriors.ensemble_kalman import EnsembleKalman
from dpcontrol.strategies.posteriors.laplace import Laplace
from dpcontrol.strategies.posteriors.samplers import MALA, NUTS, PCN, Metropolis
from dpcontrol.strategies.posteriors.svi import SVI

__all__ = [
    "CEM",
    "CMAES",
    "LBFGS",
    "MALA",
    "NUTS",
    "PCN",
    "PPO",
    "SAC",
    "SVI",
    "Adjoint",
    "Baseline",
    "EnsembleKalman",
    "GaussNewton",
    "Laplace",
    "LearnedPolicy",
    "Metropolis",
    "MultiStart",
    "NewtonKrylov",
    "PlannedPolicy",
]
