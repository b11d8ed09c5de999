"""What a trial is, and what goes wrong between a controller and its plant: sensors, actuators, disturbances."""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from dpcontrol import tree
from dpcontrol.problem import Acting, Delayed, Problem, Sensed
from dpcontrol.problem.observing import observer
from dpcontrol.results import UsageError
from dpcontrol.tree import Tree


@dataclass(frozen=True)
class Arrangement:
    """Everything that is played: the problem with its plant and scenes, who acts through which sensors and actuators,
    and the ``pushes`` on the states (see :func:`dpcontrol.problem.play`)."""

    problem: Problem
    controller: Acting
    pushes: Tree = None


class Trial(abc.ABC):
    """One way in which the world differs from the one that a controller was made for. Concrete trials are frozen."""

    @property
    @abc.abstractmethod
    def label(self) -> str:
        """A few words for tables and figures."""

    @property
    def stochastic(self) -> bool:
        """Whether seeds change it."""
        return False

    @property
    def other_scenes(self) -> bool:
        """Whether it is played in other scenes than the problem's own."""
        return False

    @abc.abstractmethod
    def arrange(self, given: Arrangement, generator: torch.Generator) -> Arrangement:
        """What is played instead.

        Raises:
            UsageError: where the problem does not have what the trial would change.
        """


@dataclass(frozen=True)
class Nominal(Trial):
    """The problem as it was posed: what all others are compared with."""

    @property
    def label(self) -> str:
        return "nominal"

    def arrange(self, given: Arrangement, generator: torch.Generator) -> Arrangement:
        return given


@dataclass(frozen=True)
class SensorNoise(Trial):
    r"""Every entry of the state is seen with a Gaussian error of its own, new at every step.

    Its standard deviation is ``level`` times the typical size of the state: the root mean square over the problem's own
    scenes of the initial states and the targets, one number for each part of the state (1 where all of it is zero).
    See :class:`~dpcontrol.problem.Sensed`.

    Args:
        level: 0 or larger.
        dropout: probability that a scene's measurement is lost at a step, and the last one stays.
    """

    level: float = 0.05
    dropout: float = 0.0

    def __post_init__(self) -> None:
        _at_least_zero("SensorNoise", level=self.level, dropout=self.dropout)
        if self.dropout >= 1:
            raise UsageError(f"SensorNoise(dropout=...) must be below 1; found {self.dropout!r}.")

    @property
    def label(self) -> str:
        words = [f"sensor noise {_percent(self.level)}"] if self.level or not self.dropout else []
        return ", ".join(words + [f"{_percent(self.dropout)} of measurements lost"] * (self.dropout > 0))

    @property
    def stochastic(self) -> bool:
        return self.level > 0 or self.dropout > 0

    def arrange(self, given: Arrangement, generator: torch.Generator) -> Arrangement:
        noise = tree.map(lambda size: self.level * size, state_size(given.problem))
        return replace(given, controller=Sensed(given.controller, noise, self.dropout))


@dataclass(frozen=True)
class ActuatorDelay(Trial):
    """Commands reach the plant ``steps`` steps late; until the first one it is left alone (:class:`Delayed`)."""

    steps: int = 1

    def __post_init__(self) -> None:
        if not isinstance(self.steps, int) or isinstance(self.steps, bool) or self.steps < 1:
            raise UsageError(
                f"ActuatorDelay(steps=...) must be a whole number, 1 or more; found {self.steps!r}."
            )

    @property
    def label(self) -> str:
        return f"commands {self.steps} {'step' if self.steps == 1 else 'steps'} late"

    def arrange(self, given: Arrangement, generator: torch.Generator) -> Arrangement:
        decisions = given.problem.free_steps
        if self.steps >= decisions:
            raise UsageError(
                f"ActuatorDelay({self.steps}) lets no command arrive: {given.problem.name} has {decisions} decisions; "
                "give a shorter delay."
            )
        return replace(given, controller=Delayed(given.controller, self.steps))


@dataclass(frozen=True)
class Disturbance(Trial):
    r"""The state is pushed before every decision but the first, by white noise that no controller can foresee.

    A push has the standard deviation ``size / sqrt(N)`` times the typical size of the state (see :class:`SensorNoise`)
    in every entry, where N is the number of decisions: alone they would sum to a random walk that ends ``size`` away.

    Args:
        size: 0 or larger.
    """

    size: float = 0.1

    def __post_init__(self) -> None:
        _at_least_zero("Disturbance", size=self.size)

    @property
    def label(self) -> str:
        return f"pushes of {_percent(self.size)}"

    @property
    def stochastic(self) -> bool:
        return self.size > 0

    def arrange(self, given: Arrangement, generator: torch.Generator) -> Arrangement:
        problem = given.problem
        steps, share = problem.free_steps, self.size / math.sqrt(problem.free_steps)

        def drawn(leaf: Tensor, size: float) -> Tensor:
            kind = torch.complex128 if leaf.is_complex() else torch.float64
            pushes = share * size * torch.randn(steps, *leaf.shape, generator=generator, dtype=kind)
            pushes[0] = 0
            return pushes.to(leaf)

        pushes = tree.map(drawn, problem.scenarios.data["initial_state"], state_size(problem))
        if given.pushes is not None:
            pushes = tree.map(lambda first, second: first + second, given.pushes, pushes)
        return replace(given, pushes=pushes)


@dataclass(frozen=True)
class Together(Trial):
    """Several of them at once: ``Together(SensorNoise(0.05), ActuatorDelay(1))``; other scenes come first."""

    trials: tuple[Trial, ...]

    def __init__(self, *trials: Trial) -> None:
        if not trials or not all(isinstance(each, Trial) for each in trials):
            raise UsageError(f"Together needs trials, such as SensorNoise(0.05); found {trials!r}.")
        object.__setattr__(self, "trials", trials)

    @property
    def label(self) -> str:
        return " + ".join(each.label for each in self.trials)

    @property
    def stochastic(self) -> bool:
        return any(each.stochastic for each in self.trials)

    @property
    def other_scenes(self) -> bool:
        return any(each.other_scenes for each in self.trials)

    def arrange(self, given: Arrangement, generator: torch.Generator) -> Arrangement:
        for each in sorted(self.trials, key=lambda trial: not trial.other_scenes):
            given = each.arrange(given, generator)
        return given


def state_size(problem: Problem) -> Tree:
    """The typical size of each part of the state: what an observer that sees all of it would divide by."""
    return observer(replace(problem, observation=None)).scales["state"]


def _percent(share: float) -> str:
    return f"{100 * share:g} %"


def _at_least_zero(who: str, **values: Any) -> None:
    for name, value in values.items():
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not 0 <= value < math.inf:
            raise UsageError(f"{who}({name}=...) must be a number, 0 or larger; found {value!r}.")
