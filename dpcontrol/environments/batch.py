"""Many episodes of a problem at once: every step of all of them is one tensor step of the simulator."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dpcontrol import tree
from dpcontrol.environments.actions import ActionMap, action_map
from dpcontrol.problem import Episode, Problem, advance, reset
from dpcontrol.problem.observing import Observer, observer
from dpcontrol.problem.playing import require_costs_of_steps
from dpcontrol.results import UsageError
from dpcontrol.seeds import mixed
from dpcontrol.tree import Tree

FAR = 1e6  # in units of an observation's typical size
EPISODES = 1_414_213  # what seeds of episodes are mixed with


class Moved(NamedTuple):
    """What a step of a batch came to, each ``(episodes, ...)``.

    ``done`` is the end that belongs to the task: the horizon (time to go is observed), or a simulation that failed
    (left the finite world, or is ``FAR`` times its typical size away, where single precision ends soon). ``cut`` ends
    an episode from outside: another one of the batch failed, and all begin together.
    """

    observation: Tensor
    reward: Tensor
    done: Tensor
    cut: Tensor


@dataclass
class Batch:
    """``count`` episodes in step with each other, on the plant.

    Episodes begin in scenes drawn from the problem's distribution, or, where it has none, in its own scenarios in
    random order. The stream of scenes is one of its own: a seed does not draw here what it draws for a problem file,
    so that an agent does not meet the scenarios that it is judged on. A step whose state or cost is not finite, or that
    is seen more than a million times its typical size away, ends its episode with the reward ``-failure``, and cuts the
    others. Where a legitimate episode may cost more than that, give a higher price, or an agent is paid to fail.

    Args:
        problem: seeks one control sequence.
        count: how many episodes run at once.
        seed: of the scenes.
        failure: what a failed simulation costs; by default ten times the loss of the start guess.
        actions: how actions become controls, for a problem that seeks a policy already.

    Raises:
        UsageError: if one of these is of a wrong kind, the problem seeks no control, or its objective has a
            ``penalty`` on the whole of it, which no reward of a step can count.
    """

    problem: Problem
    count: int
    seed: int = 0
    failure: float | None = None
    actions: ActionMap | None = None

    def __post_init__(self) -> None:
        self._require_kinds()
        if self.actions is None:  # what seeks weights already may be charged for their size
            require_costs_of_steps(self.problem)
        self.observer: Observer = observer(self.problem)
        self.map: ActionMap = self.actions or action_map(self.problem)
        self._generator = torch.Generator().manual_seed(_stream(self.seed))
        self._episode: Episode | None = None
        self._earned: Tensor | float = 0.0
        with torch.no_grad():
            if self.failure is None:
                losses = self.problem.loss(self.problem.start())
                self.failure = price_of_failure(losses)
            self.inputs = int(self._see(reset(self.problem)).shape[1])

    @property
    def episode(self) -> Episode:
        """Where the episodes stand."""
        if self._episode is None:
            raise UsageError("no episode has begun: call reset() first.")
        return self._episode

    @property
    def losses(self) -> Tensor:
        """What the episodes have cost so far, ``(episodes,)``: minus the sum of their rewards."""
        return -torch.as_tensor(self._earned, dtype=torch.float64).expand(self.count)

    @property
    def episode_steps(self) -> int:
        """How many actions an episode takes."""
        return self.problem.free_steps

    @property
    def state(self) -> Tree:
        """The present states, leaves ``(episodes, ...)``."""
        return self.episode.state

    def reseed(self, seed: int) -> None:
        """Begin the sequence of scenes again."""
        self._generator.manual_seed(_stream(seed))

    def reset(self, scenes: Tensor | None = None) -> Tensor:
        """Begin episodes in new scenes, or in scenarios ``(episodes,)`` of the problem; observations.

        Raises:
            UsageError: if the problem has no such scenarios.
        """
        if scenes is not None:
            self._require_scenarios(scenes)
        self._earned = 0.0
        with torch.no_grad():
            scenarios = self.problem.scenarios
            if scenes is None and scenarios.sampler is not None:
                drawn = scenarios.draw(self._generator, self.count)
                self._episode = reset(self.problem.with_scenarios(drawn))
            else:
                if scenes is None:
                    scenes = torch.randint(scenarios.count, (self.count,), generator=self._generator)
                self._episode = reset(self.problem, scenes)
            return self._see(self.episode)

    def step(self, actions: Tensor) -> Moved:
        """Act in all episodes, ``actions (episodes, size)`` in [-1, 1].

        Raises:
            UsageError: for actions of another shape, before a reset, and behind the end.
        """
        here = self.episode
        require_actions(actions, (self.count, self.map.size))
        with torch.no_grad():
            control = self.map.to_control(actions, here.state, self._time(here), here.scenario)
            self._episode, reward = advance(here, control)
            seen = self._see(self.episode)
            # the last observation of the horizon need not see what the reward has counted
            fine = torch.isfinite(reward) & (seen.abs() < FAR).all(1)
            reward = torch.where(fine, reward, -float(self.failure or 0.0))
            self._earned = self._earned + reward.double()
            over = torch.full_like(fine, self.episode.done)
            failed = not bool(fine.all())
            return Moved(torch.where(fine[:, None], seen, 0.0), reward, over | ~fine, (fine & failed) & ~over)

    def _require_kinds(self) -> None:
        if not isinstance(self.problem, Problem):
            raise UsageError(
                f"an environment is made of a Problem; found {type(self.problem).__name__}: pose one with "
                "control_problem(...)."
            )
        for name, value, least in (("count", self.count, 1), ("seed", self.seed, 0)):
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise UsageError(
                    f"the {name} of an environment must be a whole number, at least {least}; found {value!r}."
                )
        cost: Any = self.failure
        if cost is not None and not (isinstance(cost, (int, float)) and 0 <= cost < math.inf):
            raise UsageError(
                f"what a failed simulation costs, failure=..., must be a number, 0 or more; found {cost!r}."
            )
        if self.actions is not None and not isinstance(self.actions, ActionMap):
            raise UsageError(f"actions must be an ActionMap; found {self.actions!r}: leave it out.")

    def _require_scenarios(self, scenes: Tensor) -> None:
        known = self.problem.scenarios.count
        if scenes.shape != (self.count,) or bool(((scenes < 0) | (scenes >= known)).any()):
            raise UsageError(
                f"{self.problem.name} has the scenarios 0 to {known - 1}, of which reset takes {self.count}, one for "
                f"each episode; found {scenes.tolist()}."
            )

    def _see(self, episode: Episode) -> Tensor:
        return self.observer(episode.state, self._time(episode), episode.scenario)

    def _time(self, episode: Episode) -> float:
        return episode.position.k * episode.course.simulator.dt


def price_of_failure(losses: Tensor) -> float:
    """Ten times the typical loss: of those that are finite the middle one, which a few that are huge do not move."""
    return 10.0 * max(1.0, float(losses[torch.isfinite(losses)].nanmedian().nan_to_num(1.0)))


def _stream(seed: int) -> int:
    """The seed of the scenes: far from the small numbers that problems, validations and tunings are drawn with."""
    return mixed(EPISODES, seed)


def as_actions(batch: Batch, actions: object) -> Tensor:
    """Actions of a foreign library as a tensor on the batch's device.

    Raises:
        UsageError: if they are no numbers.
    """
    like = tree.leaves(batch.problem.scenarios.data["initial_state"])[0]
    try:
        return torch.as_tensor(actions, dtype=like.dtype, device=like.device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UsageError(f"actions are arrays of numbers from -1 to 1; found {actions!r:.100}.") from error


def require_actions(actions: Tensor, shape: tuple[int, ...]) -> None:
    """Refuse actions of another shape."""
    if tuple(actions.shape) != shape:
        raise UsageError(
            f"step takes actions of shape {shape} here, as the action space says; found {tuple(actions.shape)}."
        )
