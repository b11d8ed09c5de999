"""A problem as an environment for reinforcement learning: for Gymnasium, and for Stable-Baselines3 as one batch.

The sum of an episode's rewards is minus the loss of its scenario. Gymnasium and Stable-Baselines3 are the extra ``rl``.
"""

from dpcontrol.environments.actions import ActionMap
from dpcontrol.environments.batch import Batch
from dpcontrol.environments.foreign import ForeignController, controller_of_sb3
from dpcontrol.environments.single import gymnasium_env
from dpcontrol.environments.vector import vec_env

__all__ = ["ActionMap", "Batch", "ForeignController", "controller_of_sb3", "gymnasium_env", "vec_env"]
