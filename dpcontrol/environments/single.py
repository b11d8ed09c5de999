"""One episode at a time as a Gymnasium environment, for outside code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from dpcontrol import plot, tree
from dpcontrol.environments.batch import Batch, as_actions
from dpcontrol.environments.spaces import spaces_of
from dpcontrol.environments.wanted import wanted
from dpcontrol.problem import Problem

if TYPE_CHECKING:
    import gymnasium


def gymnasium_env(
    problem: Problem, *, seed: int = 0, failure: float | None = None, render_mode: str | None = None
) -> gymnasium.Env[np.ndarray, np.ndarray]:
    """A Gymnasium environment of a problem: one episode after the other, each in another scene.

    ``reset(seed=...)`` begins the sequence of scenes again; ``reset(options={"scenario": i})`` takes scenario ``i`` of
    the problem. An episode is *terminated* at the horizon (the time to go is observed) or where the simulation fails
    (``info["failed"]``); it is never truncated. ``info["loss"]`` of the last step is the episode's loss. ``render()``
    returns a picture ``(height, width, 3)`` of the state, uint8.

    Args:
        problem, seed, failure: as in :class:`~dpcontrol.environments.batch.Batch`.
        render_mode: ``"rgb_array"`` or ``None``.

    Raises:
        UsageError: if the problem seeks no control, or Gymnasium is missing.
    """
    base = wanted("gymnasium").Env

    class ProblemEnv(base):  # type: ignore[misc, valid-type]
        """See :func:`gymnasium_env`."""

        metadata = {"render_modes": ["rgb_array"], "render_fps": 25}  # noqa: RUF012

        def __init__(self) -> None:
            self.batch = Batch(problem, 1, seed, failure)
            self.observation_space, self.action_space = spaces_of(self.batch)
            self.render_mode = render_mode
            self._earned = 0.0

        def reset(
            self, *, seed: int | None = None, options: dict[str, Any] | None = None
        ) -> tuple[np.ndarray, dict[str, Any]]:
            super().reset(seed=seed)
            if seed is not None:
                self.batch.reseed(seed)
            chosen = (options or {}).get("scenario")
            self._earned = 0.0
            seen = self.batch.reset(None if chosen is None else torch.tensor([int(chosen)]))
            return seen[0].float().cpu().numpy(), {}

        def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
            moved = self.batch.step(as_actions(self.batch, action))
            reward, over = float(moved.reward[0]), bool(moved.done[0])
            self._earned += reward
            info: dict[str, Any] = {}
            if over:
                info = {"failed": not self.batch.episode.done, "loss": -self._earned}
            return moved.observation[0].float().cpu().numpy(), reward, over, False, info

        def render(self) -> np.ndarray | None:
            if self.render_mode is None:
                return None
            state = tree.map(lambda leaf: leaf[0], self.batch.state)
            return plot.state_picture(state, f"{problem.name}, step {self.batch.episode.position.k}")

    return ProblemEnv()
