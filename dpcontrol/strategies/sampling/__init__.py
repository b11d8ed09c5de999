"""Markov chains over a log-density that is asked in batches: numpy only, nothing here has heard of a problem.

All chains advance in lock-step, as rows of arrays: a transition asks for all of them at once. Random numbers belong to
a chain, never to a batch.
"""

from dpcontrol.strategies.sampling.asking import Ask, Chains, Moved, Points, chain_randoms
from dpcontrol.strategies.sampling.kernels import CrankNicolson, Kernel, Langevin, RandomWalk
from dpcontrol.strategies.sampling.metric import Metric, refined
from dpcontrol.strategies.sampling.mode import find_mode
from dpcontrol.strategies.sampling.step_size import StepSize
from dpcontrol.strategies.sampling.trees import NoUTurn
from dpcontrol.strategies.sampling.walking import Advance, Plan, Record, Walk, draw, first_steps
from dpcontrol.strategies.sampling.windows import Schedule

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
