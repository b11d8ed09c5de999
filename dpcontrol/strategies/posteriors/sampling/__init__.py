"""Markov chains over a log-density that is asked in batches: numpy only, nothing here has heard of a problem.

All chains advance in lock-step, as rows of arrays: a transition asks for all of them at once. Random numbers belong to
a chain, never to a batch.
"""

from dpcontrol.strategies.posteriors.sampling.asking import Ask, Chains, Moved, Points, chain_randoms
from dpcontrol.strategies.posteriors.sampling.kernels import CrankNicolson, Kernel, Langevin, RandomWalk
from dpcontrol.strategies.posteriors.sampling.metric import Metric, refined
from dpcontrol.strategies.posteriors.sampling.mode import find_mode
from dpcontrol.strategies.posteriors.sampling.step_size import StepSize
from dpcontrol.strategies.posteriors.sampling.trees import NoUTurn
from dpcontrol.strategies.posteriors.sampling.walking import Advance, Plan, Record, Walk, draw, first_steps
from dpcontrol.strategies.posteriors.sampling.windows import Schedule

__all__ = [
    "Advance",
    "Ask",
    "Chains",
    "CrankNicolson",
    "Kernel",
    "Langevin",
    "Metric",
    "Moved",
    "NoUTurn",
    "Plan",
    "Points",
    "RandomWalk",
    "Record",
    "Schedule",
    "StepSize",
    "Walk",
    "chain_randoms",
    "draw",
    "find_mode",
    "first_steps",
    "refined",
]
