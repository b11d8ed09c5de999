"""``cmaes`` and ``cem``: searches that only compare losses, in smooth modes where there are many unknowns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dpcontrol.meter import Meter
from dpcontrol.problem import Demand
from dpcontrol.results import Status, UsageError
from dpcontrol.run import Strategy
from dpcontrol.strategies.basis import SearchSpace, check_basis
from dpcontrol.strategies.checks import positive, whole, within
from dpcontrol.strategies.threads import one_blas_thread
from dpcontrol.strategies.verdict import Ended, summary


@dataclass(frozen=True)
class CMAES(Strategy):
    r"""Covariance matrix adaptation (pycma): samples :math:`c \sim N(m, \sigma^2 C)`, ranks, and moves all three.

    One search per instance; the populations of all instances are one batch. Points outside the bounds are moved inside
    before they are evaluated, and ranked with a charge for the way.

    Args:
        population: samples per generation and instance (the usual ``4 + 3 ln(size)`` was slower on long controls).
        sigma: first spread, in units of the unknown's magnitudes.
        basis: ``"auto"`` searches all numbers up to 24 per instance, else 16 to 32 smooth modes; a number asks for that
            many modes, ``None`` for all numbers (only variances, no correlations, are adapted above 200).
        generations: at most this many per instance.
        restarts: of a search that has converged, each from a random point with twice the population.

    Source: N. Hansen, "The CMA Evolution Strategy: A Tutorial", arXiv:1604.00772; restarts: A. Auger, N. Hansen,
    "A restart CMA evolution strategy with increasing population size", CEC 2005.
    """

    population: int = 8
    sigma: float = 0.3
    basis: str | int | None = "auto"
    generations: int = 2000
    restarts: int = 2

    def __post_init__(self) -> None:
        whole("CMAES", least=4, population=self.population)
        positive("CMAES", sigma=self.sigma)
        check_basis("CMAES", self.basis)
        whole("CMAES", generations=self.generations)
        whole("CMAES", least=0, restarts=self.restarts)

    @property
    def honours(self) -> frozenset[Demand]:
        return frozenset({Demand.BOUNDS})

    @property
    def stochastic(self) -> bool:
        return True

    def load(self) -> None:
        import cma  # noqa: F401

    def run(self, meter: Meter, generator: torch.Generator) -> Status:
        space = SearchSpace.of(meter, self.basis)
        seeds = torch.randint(2**62, (meter.instances,), generator=generator).tolist()
        with one_blas_thread():
            colonies = [Colony(self, space.size, np.random.default_rng(seed)) for seed in seeds]
            meter.values(meter.start())
            for _ in range(self.generations):
                active = [i for i, colony in enumerate(colonies) if not colony.done]
                if not active:
                    break
                self._generation(meter, space, colonies, active)
        return summary([Ended("converged" if colony.done else "iterations spent") for colony in colonies])

    def _generation(
        self, meter: Meter, space: SearchSpace, colonies: list[Colony], active: list[int]
    ) -> None:
        asked = [colonies[i].ask() for i in active]
        sizes = [len(samples) for samples in asked]
        which = torch.repeat_interleave(torch.tensor(active), torch.tensor(sizes))
        points, moved = space.points(torch.from_numpy(np.concatenate(asked)).to(space.start), which)
        losses = meter.values(points, which)
        cuts = np.cumsum(sizes)[:-1]
        told = zip(np.split(_numpy(losses), cuts), np.split(_numpy(moved), cuts), strict=True)
        for i, samples, (loss, way) in zip(active, asked, told, strict=True):
            colonies[i].tell(samples, loss, way)


@dataclass
class Colony:
    """The search of one instance, with its own random numbers."""

    strategy: CMAES
    size: int
    random: np.random.Generator
    done: bool = False
    _restarts: int = 0
    _search: Any = field(init=False)

    def __post_init__(self) -> None:
        # pycma adapts a covariance of at least two numbers: a lonely one gets a companion without any effect
        self._padded = max(self.size, 2)
        self._search = self._begin(np.zeros(self._padded))

    def _begin(self, start: np.ndarray) -> Any:
        from cma import CMAEvolutionStrategy

        options = {
            "popsize": self.strategy.population * 2**self._restarts,
            "CMA_diagonal": self._padded > 200,
            "randn": lambda *shape: self.random.standard_normal(shape),
            "seed": float("nan"),  # leaves numpy's global generator alone
            "verbose": -9,
            "verb_log": 0,
        }
        return CMAEvolutionStrategy(start, self.strategy.sigma, options)

    def ask(self) -> np.ndarray:
        """Samples ``(population, size)``."""
        self._asked = np.stack(self._search.ask())
        return self._asked[:, : self.size]

    def tell(self, samples: np.ndarray, losses: np.ndarray, moved: np.ndarray) -> None:
        """Their losses, and how far each point had to be moved to be inside the bounds."""
        finite = np.isfinite(losses)
        if finite.any():
            spread = float(np.subtract(*np.percentile(losses[finite], [75, 25])))
            charge = spread * moved / (self.size * self._search.sigma**2)
            worst = float((losses + charge)[finite].max())
            # behind all others, but finite, as pycma's statistics need it
            ranked = np.where(finite, losses + charge, worst + abs(worst) + 1.0)
            self._search.tell(list(self._asked), ranked.tolist())
            stopped = bool(self._search.stop())
        else:
            stopped = False  # nothing was learned; ask again
        if stopped and self._restarts >= self.strategy.restarts:
            self.done = True
        elif stopped:
            self._restarts += 1
            self._search = self._begin(self.random.standard_normal(self._padded))


def _numpy(values: Tensor) -> np.ndarray:
    return values.cpu().double().numpy()
