"""Strategies: interchangeable ways to answer a problem. They know problems through their meter, and no simulator."""

from dpcontrol.strategies.baselines import Baseline
from dpcontrol.strategies.cross_entropy import CEM
from dpcontrol.strategies.ensemble_kalman import EnsembleKalman
from dpcontrol.strategies.evolution import CMAES
from dpcontrol.strategies.first_order import Adjoint
from dpcontrol.strategies.gauss_newton import GaussNewton
from dpcontrol.strategies.laplace import Laplace
from dpcontrol.strategies.multistart import MultiStart
from dpcontrol.strategies.newton import NewtonKrylov
from dpcontrol.strategies.quasi_newton import LBFGS
from dpcontrol.strategies.svi import SVI

__all__ = [
    "CEM",
    "CMAES",
    "LBFGS",
    "SVI",
    "Adjoint",
    "Baseline",
    "EnsembleKalman",
    "GaussNewton",
    "Laplace",
    "MultiStart",
    "NewtonKrylov",
]
