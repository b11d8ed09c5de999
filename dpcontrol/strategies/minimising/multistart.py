"""``MultiStart``: any strategy from several random starts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import torch
from torch import Tensor

from dpcontrol.meter import Meter
from dpcontrol.problem import Demand, Problem, View
from dpcontrol.results import ENDED, FAILED, GOOD, Status, UsageError
from dpcontrol.run import Outcome, Strategy
from dpcontrol.strategies.checks import positive, whole
from dpcontrol.strategies.minimising.quasi_newton import LBFGS

ORDER = (*GOOD, *ENDED, *FAILED)


@dataclass(frozen=True)
class MultiStart(Strategy):
    r"""Run a strategy from the start guess and then from random points; keep the best, for each instance by itself.

    Random starts are uniform between the bounds where both are finite (in their middle part for ``spread < 1``), else
    normal around the start guess with the unknown's magnitudes, moved inside the bounds. The starts share one budget
    and run one after another: a budget that ends the first leaves nothing for the others, so give the inner strategy
    few enough iterations.

    Args:
        inner: the strategy.
        starts: how many, the start guess included.
        spread: of the random starts; 1 fills the bounds, or has the size of the magnitudes.
    """

    inner: Strategy = field(default_factory=LBFGS)
    starts: int = 8
    spread: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.inner, Strategy):
            raise UsageError(
                f"MultiStart(inner=...) must be a strategy such as LBFGS(); found {self.inner!r}."
            )
        whole("MultiStart", starts=self.starts)
        positive("MultiStart", spread=self.spread)

    @property
    def needs(self) -> frozenset[View]:
        return self.inner.needs

    @property
    def honours(self) -> frozenset[Demand]:
        return self.inner.honours

    @property
    def stochastic(self) -> bool:
        return self.starts > 1 or self.inner.stochastic

    def load(self) -> None:
        self.inner.load()

    def pose(self, problem: Problem) -> Problem:
        return self.inner.pose(problem)

    def run(self, meter: Meter, generator: torch.Generator) -> Status:
        kinds, winners = [], torch.zeros(meter.instances, dtype=torch.long)
        for k in range(self.starts):
            before = meter.best.clone()
            start = meter.start() if k == 0 else self._draw(meter, generator)
            ended = self.inner.run(meter.starting_at(start), generator)
            kinds.append((ended.status if isinstance(ended, Outcome) else ended).kind)
            # losses that differ by rounding only are one minimum found again
            better = meter.best < before - 1e-9 * before.abs()
            winners[(better & torch.isfinite(meter.best)).cpu()] = k
        kind = min(kinds, key=ORDER.index)
        listed = ", ".join(f"{count} {name}" for name, count in Counter(kinds).items())
        moved = int((winners > 0).sum())
        return Status(
            kind,
            f"{self.starts} starts ended: {listed}; in {moved} of {meter.instances} searches a random start found a "
            "lower loss than the start guess.",
        )

    def _draw(self, meter: Meter, generator: torch.Generator) -> Tensor:
        start = meter.start()
        normal = torch.randn(start.shape, generator=generator, dtype=torch.float64).to(start)
        drawn = start + self.spread * meter.magnitudes() * normal
        limits = meter.limits()
        if limits is None:
            return drawn
        low, high = limits
        boxed = torch.isfinite(low) & torch.isfinite(high)
        middle, half = (low + high) / 2, self.spread * (high - low) / 2
        uniform = 2 * torch.rand(start.shape, generator=generator, dtype=torch.float64).to(start) - 1
        return torch.where(boxed, middle + half * uniform, drawn).clamp(low, high)
