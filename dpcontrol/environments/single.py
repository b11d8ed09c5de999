"""One episode at a time as a Gymnasium environment, for outside code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from dpcontrol import plot, tree
from dpcontrol.environments.batch import Batch, as_actions, require_actions
from dpcontrol.environments.spaces import spaces_of
from dpcontrol.environments.wanted import wanted
from dpcontrol.problem import Problem
from dpcontrol.problem.distribution import require_distribution
from dpcontrol.results import UsageError

if TYPE_CHECKING:
    import gymnasium


RENDER_MODES = ("rgb_array",)


def gymnasium_env(
    problem: Problem,
    *,
    seed: int | None = None,
    failure: float | None = None,
    render_mode: str | None = None,
) -> gymnasium.Env[np.ndarray, np.ndarray]:
    """A Gymnasium environment of a problem: one episode after the other, each in another scene.

    ``reset(seed=...)`` begins the sequence of scenes again; ``reset(options={"scenario": i})`` takes scenario ``i`` of
    the problem. An episode is *terminated* at the horizon (the time to go is observed) or where the simulation fails
    (``info["failed"]``: not finite, or seen more than a million times its typical size away); it is never truncated.
    ``info["loss"]`` of the last step is the episode's loss. ``render()`` returns a picture ``(height, width, 3)`` of
    the state, uint8.

    Args:
        problem, failure: as in :class:`~dpcontrol.environments.batch.Batch`.
        seed: of the scenes up to the first ``reset(seed=...)``; by default each environment draws its own.
        render_mode: ``"rgb_array"`` or ``None``.

    Raises:
        UsageError: if the problem seeks no control, its sampler of scenarios cannot be drawn from, there is no such
            ``render_mode``, or Gymnasium is missing.
    """
    base = wanted("gymnasium").Env
    if render_mode not in (None, *RENDER_MODES):
        raise UsageError(
            f"render_mode must be 'rgb_array' (render() returns a picture) or None; found {render_mode!r}."
        )
    batch = Batch(problem, 1, 0 if seed is None else seed, failure)
    require_distribution(problem.scenarios)

    class ProblemEnv(base):  # type: ignore[misc, valid-type]
        """See :func:`gymnasium_env`."""

        metadata = {"render_modes": list(RENDER_MODES), "render_fps": 25}  # noqa: RUF012

        def __init__(self) -> None:
            self.batch = batch
            self.observation_space, self.action_space = spaces_of(self.batch)
            self.render_mode = render_mode
            self._over, self._seeded = False, seed is not None

        def reset(
            self, *, seed: int | None = None, options: dict[str, Any] | None = None
        ) -> tuple[np.ndarray, dict[str, Any]]:
            chosen = _chosen(options)
            super().reset(seed=seed)
            if seed is not None or not self._seeded:
                self.batch.reseed(int(self.np_random.integers(2**62)) if seed is None else seed)
                self._seeded = True
            self._over = False
            seen = self.batch.reset(chosen)
            return seen[0].float().cpu().numpy(), {}

        def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
            if self._over:
                raise UsageError("the episode is over; reset() begins another one.")
            acted = as_actions(self.batch, action)
            require_actions(acted, self.action_space.shape)
            moved = self.batch.step(acted[None])
            reward, over = float(moved.reward[0]), bool(moved.done[0])
            self._over = over
            info: dict[str, Any] = {}
            if over:
                info = {"failed": not self.batch.episode.done, "loss": float(self.batch.losses[0])}
            return moved.observation[0].float().cpu().numpy(), reward, over, False, info

        def render(self) -> np.ndarray | None:
            if self.render_mode is None:
                return None
            state = tree.map(lambda leaf: leaf[0], self.batch.state)
            return plot.state_picture(state, f"{problem.name}, step {self.batch.episode.position.k}")

    return ProblemEnv()


def _chosen(options: Any) -> torch.Tensor | None:
    """The scenario that the options of a reset name, ``(1,)``."""
    if options is None:
        return None
    if not isinstance(options, Mapping) or set(options) - {"scenario"}:
        raise UsageError(
            f"reset(options=...) takes {{'scenario': i}}, a scenario of the problem, or nothing; found {options!r}."
        )
    chosen = options.get("scenario")
    if chosen is None:
        return None
    if not isinstance(chosen, (int, np.integer)) or isinstance(chosen, bool):
        raise UsageError(f"reset(options={{'scenario': i}}) takes a whole number; found {chosen!r}.")
    return torch.tensor([int(chosen)])
