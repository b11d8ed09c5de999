"""``ppo`` and ``sac``: feedback controllers learned from rewards alone, by Stable-Baselines3."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch

from dpcontrol.environments.wanted import wanted
from dpcontrol.problem import Problem
from dpcontrol.results import UsageError
from dpcontrol.strategies.checks import between, positive, share, whole
from dpcontrol.strategies.learning.model_free import ModelFree

WORTH_AN_UPDATE, LONGEST = 4096, 256  # environment steps of all episodes together, and of each


@dataclass(frozen=True)
class PPO(ModelFree):
    r"""Proximal policy optimisation: a stochastic policy, improved by first-order steps on fresh episodes.

    .. math:: \max_w E\left[\min\left(r A, \mathrm{clip}(r, 1 - \epsilon, 1 + \epsilon) A\right)\right],
        \quad r = \pi_w(a | o) / \pi_{\text{old}}(a | o)

    Args:
        rollout: environment steps of each of them between two updates; by default whole episodes, until there are 4096
            of all together, and at most 256.
        minibatches: an update goes through the rollouts in so many parts (of two steps or more), ``epochs`` times.
        clip, trace: :math:`\epsilon` (above 0, at most 1), and :math:`\lambda` of the generalised advantage estimate
            (0 to 1).
        spread: logarithm of the standard deviation that actions start with, in half their range.
        others: see :class:`ModelFree`.

    It cannot be resumed exactly: the networks are stored, the optimizer and the random streams begin anew.

    Source: J. Schulman et al., "Proximal policy optimization algorithms", arXiv:1707.06347 (2017); Stable-Baselines3.
    """

    rollout: int | None = None
    minibatches: int = 8
    epochs: int = 10
    clip: float = 0.2
    trace: float = 0.95
    spread: float = -0.7

    def __post_init__(self) -> None:
        super().__post_init__()
        whole("PPO", minibatches=self.minibatches, epochs=self.epochs)
        share("PPO", clip=self.clip)
        between("PPO", 0, 1, trace=self.trace)
        between("PPO", -20, 5, spread=self.spread)
        if self.rollout is not None:
            whole("PPO", rollout=self.rollout)
            self._require_parts(self.rollout)

    def pose(self, problem: Problem) -> Problem:
        """As every learner does, after a look at whether the updates can be cut into their parts."""
        posed = super().pose(problem)
        if self.needs <= posed.offers:
            self._require_parts(self._between_updates(posed.free_steps))
        return posed

    def _require_parts(self, steps: int) -> None:
        """Refuse more minibatches than there are pairs of environment steps between two updates."""
        collected = steps * self.environments
        if self.minibatches > collected // 2:
            raise UsageError(
                f"PPO(minibatches=...) must leave two or more of the {self.environments} x {steps} = {collected} "
                f"environment steps between two updates to each part; found {self.minibatches}: lower it, or raise "
                "rollout or environments."
            )

    def _between_updates(self, episode: int) -> int:
        """Steps of each environment between two updates: whole episodes, and enough of them for an update."""
        whole_episodes = episode * math.ceil(WORTH_AN_UPDATE / (episode * self.environments))
        return self.rollout or min(LONGEST, whole_episodes)

    def _actor(self, seen: Any, acted: Any) -> torch.nn.Module:
        policies = wanted("stable_baselines3.common.policies")
        made: torch.nn.Module = self._fresh(policies.ActorCriticPolicy, seen, acted, log_std_init=self.spread)
        return made

    def _model(self, env: Any, **options: Any) -> Any:
        steps = self._between_updates(env.venv.batch.episode_steps)
        return wanted("stable_baselines3").PPO(
            "MlpPolicy",
            env,
            n_steps=steps,
            batch_size=max(2, steps * self.environments // self.minibatches),
            n_epochs=self.epochs,
            gae_lambda=self.trace,
            clip_range=self.clip,
            policy_kwargs={"log_std_init": self.spread, **self._layers()},
            **options,
        )

    def _acting(self, model: Any) -> torch.nn.Module:
        acting: torch.nn.Module = model.policy
        return acting


@dataclass(frozen=True)
class SAC(ModelFree):
    r"""Soft actor-critic: off-policy learning of a stochastic policy with two critics and an entropy bonus.

    Args:
        updates: gradient steps for each environment step; they come in turns, after one or more steps of all
            environments.
        memory: transitions that are remembered, a batch or more; ``batch`` of them make one gradient step.
        warmup: random environment steps before the first update.
        entropy: of every entry of an action (in nats, of the range -1 to 1), which the bonus is weighed to keep.
        temperature: weight of the entropy bonus at first. Rewards are scaled to returns of order one: at 1 the bonus
            would drown them until thousands of updates have weighed it down.
        others: see :class:`ModelFree`.

    It cannot be resumed exactly: the networks are stored; optimizers, random streams and remembered transitions begin
    anew.

    Source: T. Haarnoja et al., "Soft actor-critic algorithms and applications", arXiv:1812.05905 (2018);
    Stable-Baselines3.
    """

    updates: float = 0.25
    memory: int = 300_000
    batch: int = 256
    warmup: int = 4_000
    entropy: float = -1.0
    temperature: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        positive("SAC", updates=self.updates, temperature=self.temperature)
        between("SAC", -100, math.log(2), entropy=self.entropy)  # the most that [-1, 1] has room for
        whole("SAC", memory=self.memory, batch=self.batch, warmup=self.warmup)
        least = max(self.batch, self.environments)
        if self.memory < least:
            raise UsageError(
                f"SAC(memory=...) must hold a batch, and a step of every environment, so {least} transitions or more; "
                f"found {self.memory}: raise it, or lower batch and environments."
            )
        if self.steps is not None and self.steps <= self.warmup:
            raise UsageError(
                f"SAC(steps=...) must be more than its warmup of {self.warmup} random steps, before which nothing is "
                f"learned; found {self.steps}: raise steps or lower warmup."
            )

    def _actor(self, seen: Any, acted: Any) -> torch.nn.Module:
        policies = wanted("stable_baselines3.sac.policies")
        made: torch.nn.Module = self._fresh(policies.SACPolicy, seen, acted).actor
        return made

    def _model(self, env: Any, **options: Any) -> Any:
        rhythm = self._rhythm()
        return wanted("stable_baselines3").SAC(
            "MlpPolicy",
            env,
            buffer_size=self.memory,
            learning_starts=self.warmup,
            batch_size=self.batch,
            train_freq=rhythm.denominator,
            gradient_steps=rhythm.numerator,
            ent_coef=f"auto_{self.temperature}",
            target_entropy=self.entropy * env.action_space.shape[0],
            policy_kwargs=self._layers(),
            **options,
        )

    def _rhythm(self) -> Fraction:
        """Gradient steps (above) after so many steps of all environments (below)."""
        each = self.updates * self.environments
        return Fraction(each).limit_denominator(10) if each > 0.1 else Fraction(1, round(1 / each))

    def _acting(self, model: Any) -> torch.nn.Module:
        acting: torch.nn.Module = model.policy.actor
        return acting
