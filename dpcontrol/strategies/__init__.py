"""Strategies: interchangeable ways to answer a problem. They know problems through their meter, and no simulator."""

from dpcontrol.strategies.baselines import Baseline
from dpcontrol.strategies.correcting.corrector import Noisy, Stopped, Supervised, Surrogate, Unrolled
from dpcontrol.strategies.evolving.cross_entropy import CEM
from dpcontrol.strategies.evolving.evolution import CMAES
from dpcontrol.strategies.evolving.evolved_policy import EvolvedPolicy
from dpcontrol.strategies.learning.actor_critic import ActorCritic
from dpcontrol.strategies.learning.planned.planner import PlannedPolicy
from dpcontrol.strategies.learning.policy import LearnedPolicy
from dpcontrol.strategies.learning.ppo_sac import PPO, SAC
from dpcontrol.strategies.minimising.first_order import Adjoint
from dpcontrol.strategies.minimising.gauss_newton import GaussNewton
from dpcontrol.strategies.minimising.multistart import MultiStart
from dpcontrol.strategies.minimising.newton import NewtonKrylov
from dpcontrol.strategies.minimising.quasi_newton import LBFGS
from dpcontrol.strategies.posteriors.ensemble_kalman import EnsembleKalman
from dpcontrol.strategies.posteriors.laplace import Laplace
from dpcontrol.strategies.posteriors.samplers import MALA, NUTS, PCN, Metropolis
from dpcontrol.strategies.posteriors.svi import SVI
from dpcontrol.strategies.receding.controller import Estimate, Glance
from dpcontrol.strategies.receding.moving_horizon import MovingHorizon
from dpcontrol.strategies.receding.mpc import MPC
from dpcontrol.strategies.receding.path_integral import MPPI

__all__ = [
    "CEM",
    "CMAES",
    "LBFGS",
    "MALA",
    "MPC",
    "MPPI",
    "NUTS",
    "PCN",
    "PPO",
    "SAC",
    "SVI",
    "ActorCritic",
    "Adjoint",
    "Baseline",
    "EnsembleKalman",
    "Estimate",
    "EvolvedPolicy",
    "GaussNewton",
    "Glance",
    "Laplace",
    "LearnedPolicy",
    "Metropolis",
    "MovingHorizon",
    "MultiStart",
    "NewtonKrylov",
    "Noisy",
    "PlannedPolicy",
    "Stopped",
    "Supervised",
    "Surrogate",
    "Unrolled",
]
