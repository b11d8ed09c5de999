"""``cmaes``: covariance matrix adaptation with restarts, in smooth modes where there are many unknowns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dpcontrol.meter import BudgetSpent, Meter
from dpcontrol.problem import Demand
from dpcontrol.results import Status
from dpcontrol.run import Strategy
from dpcontrol.strategies.checks import cap, positive, whole
from dpcontrol.strategies.evolving.basis import SearchSpaces, check_basis
from dpcontrol.strategies.threads import one_blas_thread
from dpcontrol.strategies.verdict import Ended, progressed, summary


@dataclass(frozen=True)
class CMAES(Strategy):
    r"""Covariance matrix adaptation (pycma): samples :math:`c \sim N(m, \sigma^2 C)`, ranks, and moves all three.

    One search per instance; the populations of all instances are one batch. Points outside the bounds are moved inside
    before they are evaluated, and ranked with a charge for the way. A search that pycma's criteria end is started
    again from its best point so far, with more samples and twice the modes.

    Args:
        population: samples per iteration and instance (the usual ``4 + 3 ln(size)`` was slower on long controls).
        sigma: first spread, in units of the unknown's magnitudes.
        basis: ``"auto"`` searches all numbers up to 24 per instance, else 16 to 32 smooth modes at first; a number asks
            for that many modes, ``None`` for all numbers (only variances, no correlations, are adapted above 200).
        iterations: at most this many; ``None`` goes on until the budget is spent, and up to 2000 without a budget.
        tolerance: a round is over when losses vary by less than this share of what it gained, a thousandth of it in
            each further round, or when pycma's own criteria end it (which alone count without restarts).
        restarts: so many in a row that find nothing better confirm a minimum; 0 ends with the first convergence.
        growth: of the population from restart to restart.
        restored: share of ``sigma`` that a restart begins with.

    Source: N. Hansen, "The CMA Evolution Strategy: A Tutorial", arXiv:1604.00772; restarts: A. Auger, N. Hansen,
    "A restart CMA evolution strategy with increasing population size", CEC 2005; the choice of the defaults:
    tests/benchmarks/tune_evolution.py and tune_cem_restarts.py.
    """

    population: int = 8
    sigma: float = 0.3
    basis: str | int | None = "auto"
    iterations: int | None = None
    tolerance: float = 1e-3
    restarts: int = 2
    growth: float = 1.5
    restored: float = 0.1

    def __post_init__(self) -> None:
        whole("CMAES", least=4, population=self.population)
        positive(
            "CMAES", sigma=self.sigma, tolerance=self.tolerance, growth=self.growth, restored=self.restored
        )
        check_basis("CMAES", self.basis)
        if self.iterations is not None:
            whole("CMAES", iterations=self.iterations)
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
        spaces = SearchSpaces(meter, self.basis)
        seeds = torch.randint(2**62, (meter.instances,), generator=generator).tolist()
        most, done = cap(self.iterations, meter, 2000, gradients=False), 0
        with one_blas_thread():
            start = meter.start()
            first = _numpy(meter.values(start))
            colonies = [
                Colony(self, spaces, np.random.default_rng(seed), start[i], float(first[i]))
                for i, seed in enumerate(seeds)
            ]
            active = list(range(len(colonies)))
            while active and done < most:
                self._iteration(meter, spaces, colonies, active)
                active = [i for i in active if not colonies[i].done]
                done += 1
        why = "restarts from the best point found nothing better" if self.restarts else None
        return summary(
            [Ended("converged", why) if colony.done else Ended("iterations spent") for colony in colonies]
        )

    def _iteration(
        self, meter: Meter, spaces: SearchSpaces, colonies: list[Colony], active: list[int]
    ) -> None:
        seconds = meter.budget.seconds
        points, moved = [], []
        for i in active:
            if seconds is not None and meter.seconds >= seconds:
                raise BudgetSpent  # thousands of searches take seconds to set up
            samples, centre = torch.from_numpy(colonies[i].ask()).to(meter.best_x), colonies[i].centre
            which = torch.full((len(samples),), i)
            found = spaces.at(colonies[i].level).points(samples, which, centre.expand(len(samples), -1))
            points.append(found[0])
            moved.append(found[1])
        sizes = [len(each) for each in points]
        losses = meter.values(torch.cat(points), torch.tensor(active).repeat_interleave(torch.tensor(sizes)))
        told = zip(active, torch.split(losses, sizes), moved, strict=True)
        for i, loss, way in told:
            colonies[i].tell(_numpy(loss), _numpy(way), meter.best_x[i], float(meter.best[i]))


@dataclass
class Colony:
    """The search of one instance, with its own random numbers.

    Attributes:
        centre: the point of zero coefficients, ``(dimension,)``.
        first: the loss of the start guess.
        level: number of restarts.
    """

    strategy: CMAES
    spaces: SearchSpaces
    random: np.random.Generator
    centre: Tensor
    first: float
    level: int = 0
    done: bool = False
    _idle: int = 0
    _before: float = field(init=False)
    _search: Any = None

    def __post_init__(self) -> None:
        self._before = self.first

    def _begin(self) -> Any:
        from cma import CMAEvolutionStrategy

        self._size = self.spaces.at(self.level).size
        # pycma adapts a covariance of at least two numbers: a lonely one gets a companion without any effect
        padded = max(self._size, 2)
        options = {
            "popsize": round(self.strategy.population * self.strategy.growth**self.level),
            "CMA_diagonal": padded > 200,
            "randn": lambda *shape: self.random.standard_normal(shape),
            "seed": float("nan"),  # leaves numpy's global generator alone
            "tolfunrel": self.strategy.tolerance * 1e-3**self.level if self.strategy.restarts else 0,
            "verbose": -9,
            "verb_log": 0,
        }
        sigma = self.strategy.sigma * (self.strategy.restored if self.level else 1.0)
        return CMAEvolutionStrategy(np.zeros(padded), sigma, options)

    def ask(self) -> np.ndarray:
        """Samples ``(population, size)``."""
        if self._search is None:
            self._search = self._begin()
        self._asked = np.stack(self._search.ask())
        return self._asked[:, : self._size]

    def tell(self, losses: np.ndarray, moved: np.ndarray, best_x: Tensor, best: float) -> None:
        """Their losses, how far each point was moved to be inside the bounds, and the best point so far."""
        finite = np.isfinite(losses)
        if not finite.any():
            return  # nothing was learned; ask again
        spread = float(np.subtract(*np.percentile(losses[finite], [75, 25])))
        charge = spread * moved / (self._size * self._search.sigma**2)
        worst = float((losses + charge)[finite].max())
        # behind all others, but finite, as pycma's statistics need it
        ranked = np.where(finite, losses + charge, worst + abs(worst) + 1.0)
        self._search.tell(list(self._asked), ranked.tolist())
        if self._search.stop():
            self._restart(best_x, best)

    def _restart(self, best_x: Tensor, best: float) -> None:
        better = progressed(*(torch.tensor(loss) for loss in (self.first, self._before, best)))
        self._idle = 0 if self.level == 0 or bool(better) else self._idle + 1
        self.done = self._idle >= self.strategy.restarts
        self.level += 1
        self._before, self.centre, self._search = best, best_x.clone(), None


def _numpy(values: Tensor) -> np.ndarray:
    return values.cpu().double().numpy()
