"""What can go wrong in the world: each trial changes the plant, the sensors, the actuators or the scenes."""

from __future__ import annotations

import abc
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from dpcontrol import tree
from dpcontrol.kernels import Kernel
from dpcontrol.problem import Acting, Delayed, Problem, Scenarios, Sensed
from dpcontrol.problem.observing import observer
from dpcontrol.problem.scenarios import Sampler
from dpcontrol.results import UsageError
from dpcontrol.sim import Simulator
from dpcontrol.sim.base import Wrapper
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
    scenes of the initial states and the targets, one number for each part of the state. See
    :class:`~dpcontrol.problem.Sensed`.

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
class Mismatch(Trial):
    """The plant is another one than the controller was made for.

    ``Mismatch(viscosity=1.2)`` makes that parameter 1.2 times as large, a number, a field or weights alike, wherever
    the problem has it from; controllers go on seeing the old value. ``Mismatch(plant=simulator)`` puts another system
    in its place.

    Args:
        plant: another simulator, whose states and controls look like the problem's.
        words: for tables; by default the parameters and their factors.
        factors: parameter -> factor.
    """

    plant: Simulator | None = None
    words: str | None = None
    factors: Mapping[str, float] = field(default_factory=dict)

    def __init__(self, plant: Simulator | None = None, words: str | None = None, **factors: float) -> None:
        if not factors and plant is None:
            raise UsageError("Mismatch needs a factor, such as Mismatch(viscosity=1.2), or plant=simulator.")
        if plant is not None and not isinstance(plant, Simulator):
            raise UsageError(f"Mismatch(plant=...) must be a simulator; found {type(plant).__name__}.")
        _finite("Mismatch", factors)
        for name, value in (("plant", plant), ("words", words), ("factors", factors)):
            object.__setattr__(self, name, value)

    @property
    def label(self) -> str:
        parts = _scaled_words(self.factors)
        return self.words or ", ".join(["another plant"] * (self.plant is not None) + parts)

    def arrange(self, given: Arrangement, generator: torch.Generator) -> Arrangement:
        system = self.plant or given.problem.plant or given.problem.simulator
        known = {*system.parameters, *given.problem.parameters}
        strange = sorted(set(self.factors) - known)
        if strange:
            raise UsageError(
                f"{given.problem.name} has no parameter {', '.join(strange)} to mistake; "
                f"it has {', '.join(sorted(known)) or 'none: give plant=simulator'}."
            )
        system = Rescaled(system, dict(self.factors)) if self.factors else system
        return replace(given, problem=replace(given.problem, plant=system))


@dataclass(frozen=True)
class Shifted(Trial):
    """Other scenes than the problem's own.

    ``Shifted()`` draws fresh ones from the problem's distribution (held-out scenes); ``Shifted(initial_state=1.5)``
    multiplies an entry of its own scenes; ``Shifted(scenarios=...)`` and ``Shifted(sampler=...)`` go anywhere, out of
    the distribution too. Scenes are the same for all seeds. Plans made for the problem's own scenes cannot be played.

    Args:
        scenarios: these scenes.
        sampler: ``sampler(generator, n)`` draws scenes, as in :class:`~dpcontrol.problem.Scenarios`.
        count: how many to draw.
        seed: of the draw.
        words: for tables.
        factors: entry of the scenarios -> factor, for its own scenes or for those that were given or drawn.
    """

    scenarios: Scenarios | None = None
    sampler: Sampler | None = None
    count: int = 32
    seed: int = 1_000_003
    words: str | None = None
    factors: Mapping[str, float] = field(default_factory=dict)

    def __init__(
        self,
        scenarios: Scenarios | None = None,
        sampler: Sampler | None = None,
        *,
        count: int = 32,
        seed: int = 1_000_003,
        words: str | None = None,
        **factors: float,
    ) -> None:
        if scenarios is not None and (sampler is not None or not isinstance(scenarios, Scenarios)):
            raise UsageError("Shifted takes scenarios=Scenarios(...) or sampler=function, not both.")
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise UsageError(f"Shifted(count=...) must be a number of scenes, 1 or more; found {count!r}.")
        _finite("Shifted", factors)
        values = (scenarios, sampler, count, seed, words, factors)
        names = ("scenarios", "sampler", "count", "seed", "words", "factors")
        for name, value in zip(names, values, strict=True):
            object.__setattr__(self, name, value)

    @property
    def label(self) -> str:
        parts = _scaled_words(self.factors)
        drawn = "other scenes" if self.scenarios is not None or self.sampler is not None else "fresh scenes"
        return self.words or (
            ", ".join(parts) if parts and drawn == "fresh scenes" else ", ".join([drawn, *parts])
        )

    @property
    def other_scenes(self) -> bool:
        return True

    def arrange(self, given: Arrangement, generator: torch.Generator) -> Arrangement:
        own = given.problem.scenarios
        drawing = torch.Generator().manual_seed(self.seed)
        if self.scenarios is not None:
            found = self.scenarios
        elif self.sampler is not None:
            found = replace(own, sampler=self.sampler).draw(drawing, self.count)
        else:
            found = own if self.factors else own.draw(drawing, self.count)
        strange = sorted(set(self.factors) - set(found.data))
        if strange:
            raise UsageError(
                f"the scenes of {given.problem.name} have no entry {', '.join(strange)}; they have "
                f"{', '.join(sorted(found.data))}."
            )
        scaled = _times(found.data, self.factors)
        found = replace(found, data={**found.data, **scaled})
        return replace(given, problem=given.problem.with_scenarios(found))


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


@dataclass(frozen=True)
class Rescaled(Wrapper):
    """``inner`` with some of its parameters multiplied by factors, whatever values it is given."""

    inner: Simulator
    factors: Mapping[str, float]

    @property
    def dt(self) -> float:
        return self.inner.dt

    def check(self, initial: Tree, parameters: Mapping[str, Tensor]) -> None:
        self.inner.check(initial, self._scaled(parameters))

    def start(self, initial: Tree, parameters: Mapping[str, Tensor]) -> Tree:
        return self.inner.start(initial, self._scaled(parameters))

    def prepare(self, parameters: Mapping[str, Tensor], scenario: Mapping[str, Tree]) -> Any:
        return self.inner.prepare(self._scaled(parameters), scenario)

    def step(self, state: Tree, control: Tree, coefficients: Any, noise: Tree, t: float) -> Tree:
        return self.inner.step(state, control, coefficients, noise, t)

    def kernel(self, state: Tree, control: Tree, noise: Tree, coefficients: Any) -> Kernel | None:
        return self.inner.kernel(state, control, noise, coefficients)

    def _scaled(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        return {**parameters, **_times({name: parameters[name] for name in self.factors}, self.factors)}


def state_size(problem: Problem) -> Tree:
    """The typical size of each part of the state: what an observer that sees all of it would divide by."""
    return observer(replace(problem, observation=None)).scales["state"]


def _scaled_words(factors: Mapping[str, float]) -> list[str]:
    return [f"{name.replace('_', ' ')} × {factor:g}" for name, factor in factors.items()]


def _times(values: Mapping[str, Tree], factors: Mapping[str, float]) -> dict[str, Tree]:
    """The entries that have a factor, multiplied by it."""
    return {name: tree.map(lambda leaf, f=f: f * leaf, values[name]) for name, f in factors.items()}


def _percent(share: float) -> str:
    return f"{100 * share:g} %"


def _at_least_zero(who: str, **values: Any) -> None:
    for name, value in values.items():
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not 0 <= value < math.inf:
            raise UsageError(f"{who}({name}=...) must be a number, 0 or larger; found {value!r}.")


def _finite(who: str, factors: Mapping[str, Any]) -> None:
    for name, value in factors.items():
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not math.isfinite(value):
            raise UsageError(f"{who}({name}=...) is a factor, such as 1.2; found {value!r}.")
