"""``cem``: the cross-entropy method with restarts, in smooth modes where there are many unknowns."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dpcontrol.meter import Meter
from dpcontrol.problem import Demand
from dpcontrol.results import Status, UsageError
from dpcontrol.run import Strategy
from dpcontrol.strategies.checks import cap, positive, whole, within
from dpcontrol.strategies.evolving.basis import SearchSpaces, check_basis
from dpcontrol.strategies.verdict import Ended, progressed, summary

COLLAPSED = (
    "the spread collapsed, and no restart was allowed to confirm that this is a minimum; set restarts=2"
)


@dataclass(frozen=True)
class CEM(Strategy):
    r"""The cross-entropy method: sample :math:`c \sim N(\mu, \mathrm{diag}(s^2))`, refit both to the best of them.

    All instances at once. The best samples of earlier iterations take part in the next selection, which costs no
    evaluation. The refitted variance is that around the old mean (for ``drift=1``), so a mean that keeps moving widens
    its spread, and no spread shrinks faster than ``floor`` per iteration. A round whose spreads have all collapsed is
    followed by another from the best point so far, with more samples, twice the modes, and a restored spread.
    Points outside the bounds are moved inside before they are evaluated.

    Args:
        population: samples per iteration and instance in the first round.
        elites: the share that is refitted to.
        sigma: first spread, in units of the unknown's magnitudes.
        smoothing: how much of the old mean and spread is kept.
        drift: how much of the mean's squared step is added to the elites' variance.
        floor: what is left of a spread after one iteration, at least.
        basis: as in ``cmaes``.
        iterations: at most this many; ``None`` goes on until the budget is spent, and up to 1000 without a budget.
        tolerance: a round is over when all spreads have shrunk below this share of ``sigma``; a tenth of it in each
            further round.
        restarts: so many in a row that find nothing better confirm a minimum; 0 for none (and no confirmation).
        growth: of the population from round to round.
        restored: share of ``sigma`` that a restart begins with.

    Source: R. Rubinstein, D. Kroese, "The Cross-Entropy Method", 2004; kept elites: C. Pinneri et al.,
    "Sample-efficient cross-entropy method for real-time planning", CoRL 2020; variance around the old mean:
    N. Hansen, "The CMA Evolution Strategy: A Tutorial", arXiv:1604.00772; the choice of the defaults:
    tests/benchmarks/tune_cem_restarts.py.
    """

    population: int = 32
    elites: float = 0.25
    sigma: float = 1.0
    smoothing: float = 0.4
    drift: float = 1.0
    floor: float = 0.8
    basis: str | int | None = "auto"
    iterations: int | None = None
    tolerance: float = 3e-2
    restarts: int = 2
    growth: float = 1.5
    restored: float = 0.1

    def __post_init__(self) -> None:
        whole("CEM", least=4, population=self.population)
        if self.iterations is not None:
            whole("CEM", iterations=self.iterations)
        whole("CEM", least=0, restarts=self.restarts)
        positive(
            "CEM",
            elites=self.elites,
            sigma=self.sigma,
            tolerance=self.tolerance,
            growth=self.growth,
            restored=self.restored,
        )
        within("CEM", 0, 1, elites=self.elites, smoothing=self.smoothing, floor=self.floor)
        within("CEM", 0, 10, drift=self.drift)
        check_basis("CEM", self.basis)
        if round(self.population * self.elites) < 2:
            raise UsageError(
                f"CEM(population={self.population}, elites={self.elites}) refits to "
                f"{round(self.population * self.elites)} sample; it needs 2 or more: enlarge one of them."
            )

    @property
    def honours(self) -> frozenset[Demand]:
        return frozenset({Demand.BOUNDS})

    @property
    def stochastic(self) -> bool:
        return True

    @property
    def stores_state(self) -> bool:
        return True

    def samples(self, level: int) -> int:
        """Samples per iteration and instance after ``level`` restarts."""
        return round(self.population * self.growth**level)

    def run(self, meter: Meter, generator: torch.Generator) -> Status:
        search = Search(self, meter, generator)
        most = cap(self.iterations, meter, 1000, gradients=False)
        while search.rounds and search.iteration < most:
            meter.keep(search.pack)
            search.iterate()
        if self.restarts == 0:
            collapsed = Ended("stalled", COLLAPSED)
        else:
            collapsed = Ended("converged", "restarts from the best point found nothing better")
        going = {int(i) for part in search.rounds for i in part.which}
        ended = [Ended("iterations spent") if i in going else collapsed for i in range(meter.instances)]
        return summary(ended)


@dataclass
class Round:
    """Instances that have restarted as often: ``n`` of them, ``size`` coefficients each.

    Attributes:
        level: number of restarts.
        which: the instances, ``(n,)``.
        first: losses of the start guess, ``(n,)``.
        before: best losses when this round began, ``(n,)``.
        idle: restarts in a row that found nothing better, ``(n,)``.
        centre: the points of zero coefficients, ``(n, dimension)``.
        mean, spread: ``(n, size)``.
        elites, losses: the best samples of this round ``(n, count, size)``, and their losses ``(n, count)``.
    """

    level: int
    which: Tensor
    first: Tensor
    before: Tensor
    idle: Tensor
    centre: Tensor
    mean: Tensor
    spread: Tensor
    elites: Tensor
    losses: Tensor

    def rows(self, chosen: Tensor) -> Round:
        """Some of the instances."""
        return Round(self.level, *(getattr(self, name)[chosen] for name in TENSORS))

    def joined(self, other: Round) -> Round:
        """The instances of two rounds of one level."""
        pairs = ((getattr(self, name), getattr(other, name)) for name in TENSORS)
        return Round(self.level, *(torch.cat(pair) for pair in pairs))


TENSORS = [entry.name for entry in dataclasses.fields(Round)[1:]]


class Search:
    """A search under way: its rounds, lowest level first, each with the instances that are in it."""

    def __init__(self, strategy: CEM, meter: Meter, generator: torch.Generator) -> None:
        self._strategy, self._meter, self._generator = strategy, meter, generator
        self._spaces = SearchSpaces(meter, strategy.basis)
        self.iteration = 0
        kept = meter.resumed()
        if kept is not None:
            self.iteration = kept["iteration"]
            self.rounds = [Round(**part) for part in kept["rounds"]]
            return
        start = meter.start()
        first = meter.values(start)
        idle = torch.zeros(meter.instances, dtype=torch.long)
        everyone = torch.arange(meter.instances)
        self.rounds = [self._begin(0, everyone, first, first, idle, start, strategy.sigma)]

    def pack(self) -> dict[str, Any]:
        """Everything that the rest of the search depends on; tensors are replaced, never written into."""
        return {"iteration": self.iteration, "rounds": [dict(vars(part)) for part in self.rounds]}

    def iterate(self) -> None:
        """Sample, evaluate everything as one batch, refit; restart what has collapsed."""
        asked = [self._samples(part) for part in self.rounds]
        which = torch.cat(
            [part.which.repeat_interleave(self._strategy.samples(part.level)) for part in self.rounds]
        )
        losses = self._meter.values(torch.cat([points for _, points in asked]), which)
        sizes = [len(points) for _, points in asked]
        told = zip(self.rounds, asked, torch.split(losses, sizes), strict=True)
        refitted = [self._refitted(part, samples, loss) for part, (samples, _), loss in told]
        going: dict[int, Round] = {}
        for part in refitted:
            narrow = self._strategy.tolerance * self._strategy.sigma * 0.1**part.level
            over = (part.spread <= narrow).all(1).cpu()
            pieces = [part.rows(~over)] if not bool(over.all()) else []
            restarted = self._restarted(part.rows(over)) if bool(over.any()) else None
            for piece in pieces + ([restarted] if restarted is not None else []):
                there = going.get(piece.level)
                going[piece.level] = piece if there is None else there.joined(piece)
        self.rounds = [going[level] for level in sorted(going)]
        self.iteration += 1

    def _begin(
        self,
        level: int,
        which: Tensor,
        first: Tensor,
        before: Tensor,
        idle: Tensor,
        centre: Tensor,
        sigma: float,
    ) -> Round:
        size = self._spaces.at(level).size
        count = max(2, round(self._strategy.samples(level) * self._strategy.elites))
        mean = centre.new_zeros(len(which), size)
        losses = torch.full((len(which), count), torch.inf, dtype=before.dtype, device=before.device)
        losses[:, 0] = before
        elites = centre.new_zeros(len(which), count, size)
        spread = torch.full_like(mean, sigma)
        return Round(level, which, first, before, idle, centre, mean, spread, elites, losses)

    def _samples(self, part: Round) -> tuple[Tensor, Tensor]:
        """Coefficients ``(n, samples, size)`` and points ``(n * samples, dimension)``."""
        n, size = part.mean.shape
        count = self._strategy.samples(part.level)
        noise = torch.randn(n, count, size, generator=self._generator, dtype=torch.float64)
        samples = part.mean[:, None] + part.spread[:, None] * noise.to(part.mean)
        which, centre = part.which.repeat_interleave(count), part.centre.repeat_interleave(count, 0)
        points, _ = self._spaces.at(part.level).points(samples.flatten(0, 1), which, centre)
        return samples, points

    def _refitted(self, part: Round, samples: Tensor, losses: Tensor) -> Round:
        n, count, size = part.elites.shape
        pool = torch.cat([part.elites, samples], 1)
        scores, order = torch.sort(torch.cat([part.losses, losses.reshape(n, -1)], 1), dim=1, stable=True)
        scores, order = scores[:, :count], order[:, :count]
        elites = torch.gather(pool, 1, order[:, :, None].expand(-1, -1, size))
        # an instance with fewer finite losses than elites has learned nothing yet
        known = torch.isfinite(scores).all(1, keepdim=True)
        a, middle = self._strategy.smoothing, elites.mean(1)
        wide = (elites.var(1) + self._strategy.drift * (middle - part.mean).square()).sqrt()
        spread = torch.maximum(a * part.spread + (1 - a) * wide, self._strategy.floor * part.spread)
        return dataclasses.replace(
            part,
            mean=torch.where(known, a * part.mean + (1 - a) * middle, part.mean),
            spread=torch.where(known, spread, part.spread),
            elites=elites,
            losses=scores,
        )

    def _restarted(self, part: Round) -> Round | None:
        """The next round of instances whose spread has collapsed; without those that are done."""
        best = part.losses[:, 0]
        better = progressed(part.first, part.before, best).cpu() | (part.level == 0)
        idle = torch.where(better, torch.zeros_like(part.idle), part.idle + 1)
        left = idle < self._strategy.restarts
        if not bool(left.any()):
            return None
        which = part.which[left]
        centre, sigma = self._meter.best_x[which], self._strategy.restored * self._strategy.sigma
        return self._begin(part.level + 1, which, part.first[left], best[left], idle[left], centre, sigma)
