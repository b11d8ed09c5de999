"""``evolved_policy``: the controller of ``policy``, its weights searched without any gradient."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dpcontrol.meter import Meter
from dpcontrol.problem import View
from dpcontrol.results import Status, UsageError
from dpcontrol.strategies.checks import cap, one_of, positive, whole
from dpcontrol.strategies.evolving.searches import Antithetic, Search, Separable
from dpcontrol.strategies.learning.posing import NetworkLearner
from dpcontrol.strategies.learning.scenes import Scenes

WITHOUT_BUDGET = 300  # generations
SEARCHES = ("antithetic", "separable")


@dataclass(frozen=True)
class EvolvedPolicy(NetworkLearner):
    r"""Evolve the weights of a feedback controller ``u_k = network(observation_k; w)``.

    .. math:: \min_w \; E_{\text{scenario}} \, L(\text{closed loop under } w), \quad w \sim N(m, \sigma^2 C)

    The same network with the same start, observation, fresh scenes and validation as ``policy``; only gradients
    are not asked for. Every generation draws a minibatch of scenes, rolls a whole population of networks out over it
    as one batch, and moves the distribution of weights by the ranks of their mean losses. What counts as the best so
    far is the distribution's mean, judged on validation scenes.

    Args:
        network, base, width, depth: the controller; see :class:`~dpcontrol.strategies.learning.posing.NetworkLearner`.
        search: ``"antithetic"`` (mirrored pairs estimate a gradient, Adam follows it) or ``"separable"`` (covariance
            matrix adaptation with a diagonal matrix); see :mod:`dpcontrol.strategies.evolving.searches`.
        population: networks of a generation; an even number.
        batch: scenes of a generation, the same for all of its networks.
        sigma: spread of the weights, at the start.
        learning_rate: of Adam in ``"antithetic"``; falls along half a cosine over the budget.
        iterations: generations at most; ``None`` goes on until the budget is spent, and up to 300 without a budget.
        validation: how many scenes to validate on; ``validate_every``: generations between two validations.

    Source: T. Salimans et al., arXiv:1703.03864 (2017); R. Ros, N. Hansen, PPSN 2008.
    """

    search: str = "antithetic"
    population: int = 32
    batch: int = 16
    sigma: float = 0.05
    learning_rate: float = 0.02
    iterations: int | None = None
    validation: int = 64
    validate_every: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        whole("EvolvedPolicy", batch=self.batch, validation=self.validation)
        whole("EvolvedPolicy", validate_every=self.validate_every)
        whole("EvolvedPolicy", least=4, population=self.population)
        if self.population % 2:
            raise UsageError(
                f"EvolvedPolicy(population=...) must be an even number; found {self.population!r}."
            )
        positive("EvolvedPolicy", sigma=self.sigma, learning_rate=self.learning_rate)
        one_of("EvolvedPolicy", SEARCHES, search=self.search)
        if self.iterations is not None:
            whole("EvolvedPolicy", iterations=self.iterations)

    @property
    def needs(self) -> frozenset[View]:
        return frozenset({View.LOSS, View.ACTING})

    def run(self, meter: Meter, generator: torch.Generator) -> Status:
        most = cap(self.iterations, meter, WITHOUT_BUDGET, gradients=False)
        evolution = Evolution(self, meter, generator, most)
        with evolution.scenes.judged_at_the_end(evolution.validate):
            while evolution.generation < most:
                meter.keep(evolution.pack)
                evolution.step()
        evolution.validate()
        return Status("iterations spent", "the generations were spent; more of them may lower the loss.")


class Evolution:
    """A search under way: the distribution, the validation scenes, and what is counted."""

    def __init__(
        self, strategy: EvolvedPolicy, meter: Meter, generator: torch.Generator, most: float
    ) -> None:
        self._strategy, self._meter, self._generator, self._most = strategy, meter, generator, most
        kept = meter.resumed()
        self.generation = 0
        self._seed = int(torch.randint(2**62, (), generator=generator)) if kept is None else kept["seed"]
        self.scenes = Scenes(meter, self._seed, strategy.validation)
        mean = (strategy.fresh(meter, generator) if kept is None else meter.start())[0]
        self._search: Search = (
            Antithetic(mean, strategy.sigma, strategy.learning_rate)
            if strategy.search == "antithetic"
            else Separable(mean, strategy.sigma, strategy.population)
        )
        if kept is not None:
            self.generation = kept["generation"]
            self._search.unpack(kept["search"])
        if self.scenes.remark:
            meter.remark(f"{self.scenes.remark.removeprefix('; ')}.")

    def step(self) -> None:
        """One generation, and the validation that is due before it."""
        if self.generation % self._strategy.validate_every == 0:
            self.validate()
        samples = self._search.ask(self._strategy.population, self._generator)
        scenes = self.scenes.batch(self._generator, self._strategy.batch)
        losses = self._meter.sampled_rows(samples, scenes).mean(1)
        losses = torch.where(torch.isfinite(losses), losses, torch.inf)
        done = min(1.0, max(self._meter.fraction(), self.generation / self._most))
        self._search.tell(losses, 0.5 * (1 + math.cos(math.pi * done)))
        self.generation += 1

    def validate(self) -> None:
        """Score the mean of the distribution on the validation scenes."""
        weights: Tensor = self._search.mean[None]
        loss = self._meter.sampled_values(weights, self.scenes.validation).mean()
        self._meter.observe(weights, loss[None], steps=0)

    def pack(self) -> dict[str, Any]:
        """Everything that the rest of the search depends on."""
        return {"seed": self._seed, "generation": self.generation, "search": self._search.pack()}
