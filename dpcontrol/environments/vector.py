"""A batch of episodes as a vectorised environment of Stable-Baselines3."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from dpcontrol.environments.actions import ActionMap
from dpcontrol.environments.batch import Batch, as_actions
from dpcontrol.environments.spaces import spaces_of
from dpcontrol.environments.wanted import wanted
from dpcontrol.problem import Problem
from dpcontrol.problem.distribution import require_distribution

if TYPE_CHECKING:
    from stable_baselines3.common.vec_env import VecEnv


def vec_env(
    problem: Problem,
    count: int = 64,
    *,
    seed: int = 0,
    failure: float | None = None,
    actions: ActionMap | None = None,
) -> VecEnv:
    """``count`` episodes as one Stable-Baselines3 ``VecEnv``; every step of all is one tensor step.

    Observations are those of every learned method here (state, target, time to go, scaled), float32; actions lie in
    [-1, 1] and reach the control's bounds (see :class:`~dpcontrol.environments.actions.ActionMap`). All episodes begin
    and end together. The horizon is a *terminal* state, since the time to go is observed; an episode that was cut
    because another one failed says ``TimeLimit.truncated``. The last info of an episode that was not cut has its
    ``loss``, and whether it ``failed``, as that of the Gymnasium environment.

    Args:
        problem, count, seed, failure, actions: as in :class:`~dpcontrol.environments.batch.Batch`.

    Raises:
        UsageError: if the problem seeks no control, its sampler of scenarios cannot be drawn from, one of the arguments
            is of a wrong kind, or Stable-Baselines3 is missing.
    """
    batch = Batch(problem, count, seed, failure, actions)
    require_distribution(problem.scenarios)
    return tensor_env(batch)


def tensor_env(batch: Batch) -> VecEnv:
    """A batch as one ``VecEnv``, see :func:`vec_env`."""
    base = wanted("stable_baselines3.common.vec_env")

    class TensorVecEnv(base.VecEnv):  # type: ignore[name-defined]
        """One tensor step for all environments."""

        render_mode = None

        def __init__(self, batch: Batch) -> None:
            self.batch = batch
            self._actions: Any = None
            super().__init__(batch.count, *spaces_of(batch))

        def reset(self) -> np.ndarray:
            seeds = [seed for seed in self._seeds if seed is not None]
            if seeds:
                self.batch.reseed(seeds[0])
            self._reset_seeds()
            self._reset_options()
            return _numbers(self.batch.reset())

        def step_async(self, actions: np.ndarray) -> None:
            self._actions = as_actions(self.batch, actions)

        def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
            moved = self.batch.step(self._actions)
            ends = (moved.done | moved.cut).cpu().numpy()
            seen = _numbers(moved.observation)
            infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
            if ends.any():
                cut, failed = moved.cut.cpu().numpy(), not self.batch.episode.done
                losses = self.batch.losses.tolist()
                for row in range(self.num_envs):
                    infos[row] = {"terminal_observation": seen[row], "TimeLimit.truncated": bool(cut[row])}
                    if not cut[row]:
                        infos[row] |= {"failed": failed, "loss": losses[row]}
                seen = _numbers(self.batch.reset())
            return seen, moved.reward.float().cpu().numpy(), ends, infos

        def close(self) -> None:
            return None

        def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
            return [getattr(self, attr_name) for _ in self._chosen(indices)]

        def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
            setattr(self, attr_name, value)

        def env_method(
            self, method_name: str, *arguments: Any, indices: Any = None, **named: Any
        ) -> list[Any]:
            raise NotImplementedError(
                f"all environments are one tensor step; there is no {method_name} of one of them"
            )

        def env_is_wrapped(self, wrapper_class: type, indices: Any = None) -> list[bool]:
            return [False for _ in self._chosen(indices)]

        def _chosen(self, indices: Any) -> Sequence[int]:
            if indices is None:
                return range(self.num_envs)
            return [indices] if isinstance(indices, int) else list(indices)

    return TensorVecEnv(batch)


def _numbers(seen: torch.Tensor) -> np.ndarray:
    found: np.ndarray = seen.float().cpu().numpy()
    return found
