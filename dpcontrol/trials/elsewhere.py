"""Another plant, other scenes: what a controller was not made for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from dpcontrol import tree
from dpcontrol.kernels import Kernel
from dpcontrol.problem import Scenarios
from dpcontrol.problem.scenarios import Sampler
from dpcontrol.results import UsageError
from dpcontrol.sim import Simulator
from dpcontrol.sim.base import Wrapper
from dpcontrol.tree import Tree
from dpcontrol.trials.worlds import Arrangement, Trial


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


def _scaled_words(factors: Mapping[str, float]) -> list[str]:
    return [f"{name.replace('_', ' ')} × {factor:g}" for name, factor in factors.items()]


def _times(values: Mapping[str, Tree], factors: Mapping[str, float]) -> dict[str, Tree]:
    """The entries that have a factor, multiplied by it."""
    return {name: tree.map(lambda leaf, f=f: f * leaf, values[name]) for name, f in factors.items()}


def _finite(who: str, factors: Mapping[str, Any]) -> None:
    for name, value in factors.items():
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not math.isfinite(value):
            raise UsageError(f"{who}({name}=...) is a factor, such as 1.2; found {value!r}.")
