"""Chains that walk: a draw, the warm-up in which step size and metric are learned, and the state of all of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

import numpy as np

from dpcontrol.strategies.posteriors.sampling.asking import Array, Ask, Chains, Moved, Points, normals
from dpcontrol.strategies.posteriors.sampling.kernels import Kernel
from dpcontrol.strategies.posteriors.sampling.leapfrog import Phase, leapfrog
from dpcontrol.strategies.posteriors.sampling.metric import Metric, refined
from dpcontrol.strategies.posteriors.sampling.windows import Schedule

SEARCH = 40  # doublings of a first step size at most
PER_DRAW = {"log_density": float, "accepted": float, "divergent": bool, "steps": np.int64, "energy": float}


@dataclass(frozen=True)
class Record:
    """What was seen of draws: ``x (chains, draws, dimension)``, everything else ``(chains, draws)``."""

    x: Array
    log_density: Array
    accepted: Array
    divergent: Array
    steps: Array
    energy: Array

    @classmethod
    def empty(cls, chains: int, draws: int, dimension: int) -> Record:
        """Room for so many draws."""
        columns = {name: np.empty((chains, draws), dtype) for name, dtype in PER_DRAW.items()}
        return cls(np.empty((chains, draws, dimension)), **columns)

    @property
    def count(self) -> int:
        """Draws of each chain."""
        return self.x.shape[1]

    def take(self, count: int) -> Record:
        """The first draws of each chain."""
        return Record(*(getattr(self, entry.name)[:, :count] for entry in fields(self)))

    def write(self, place: int, other: Record) -> None:
        """Put another record in, from draw ``place`` on."""
        for entry in fields(self):
            getattr(self, entry.name)[:, place : place + other.count] = getattr(other, entry.name)

    @classmethod
    def of(cls, moved: list[Moved]) -> Record:
        """Transitions, one after the other."""
        columns = {
            name: np.stack([getattr(each, name) for each in moved], 1)
            for name in PER_DRAW
            if name != "log_density"
        }
        values = np.stack([each.points.log_density for each in moved], 1)
        return cls(np.stack([each.points.x for each in moved], 1), values, **columns)

    @classmethod
    def beside(cls, shares: list[Record]) -> Record:
        """Records of several shares of chains, cut to the shortest."""
        shortest = min(share.count for share in shares)
        columns = (
            np.concatenate([getattr(share, entry.name)[:, :shortest] for share in shares])
            for entry in fields(cls)
        )
        return cls(*columns)

    def pack(self) -> dict[str, Array]:
        """Arrays, for storing."""
        return {entry.name: getattr(self, entry.name) for entry in fields(self)}


def draw(
    kernel: Kernel, chains: Chains, metric: Metric, ask: Ask, *, thin: int, learning: bool
) -> tuple[Chains, Moved]:
    """``thin`` transitions of all chains, told as one: steps are added up, a divergence in any of them counts.

    With ``learning`` every transition tunes the step sizes.
    """
    parts: list[Moved] = []
    for _ in range(thin):
        with np.errstate(over="ignore", invalid="ignore"):  # trajectories may run away: they are not accepted
            moved = kernel.move(chains, chains.size.step, metric, ask)
        size = chains.size
        if learning:
            size = size.learned(moved.accepted, kernel.target, kernel.largest_step)
        chains = Chains(moved.points, size, chains.randoms)
        parts.append(moved)
    if thin == 1:
        return chains, parts[0]
    told = replace(
        parts[-1],
        accepted=np.mean([part.accepted for part in parts], axis=0),
        divergent=np.any([part.divergent for part in parts], axis=0),
        steps=np.sum([part.steps for part in parts], axis=0),
    )
    return chains, told


def first_steps(
    points: Points, randoms: list[np.random.Generator], metric: Metric, ask: Ask, guess: float
) -> Array:
    """First step sizes ``(chains,)``: doubled or halved until the acceptance of one leapfrog step crosses 1/2.

    Source: M. Hoffman, A. Gelman, "The No-U-Turn sampler", JMLR 15 (2014), algorithm 4.
    """
    momentum = normals(randoms, points.x.shape[1])
    force = metric.pull(points.gradient)
    start = Phase(points.x, momentum, points.log_density, points.gradient, force)
    energy, size = start.hamiltonian(), np.full(len(randoms), guess)
    rows, larger = np.arange(len(randoms)), np.zeros(len(randoms), dtype=bool)
    for attempt in range(SEARCH):
        with np.errstate(over="ignore", invalid="ignore"):
            end = leapfrog(ask, metric, start.take(rows), size[rows, None])
            good = energy[rows] - end.hamiltonian() > np.log(0.5)  # not a number is not
        if attempt == 0:
            larger = good
        rows = rows[good == larger[rows]]
        if not len(rows):
            break
        size[rows] *= np.where(larger[rows], 2.0, 0.5)
    return size


class Advance(Protocol):
    """Who moves the chains: this process, or several."""

    @property
    def block(self) -> int:
        """How many draws at most are asked for at a time."""
        ...

    def __call__(self, chains: Chains, metric: Metric, count: int, learning: bool) -> tuple[Chains, Record]:
        """The chains ``count`` draws later, and these; fewer only where they cannot go on."""
        ...


@dataclass(frozen=True)
class Plan:
    """How many draws (each of ``thin`` transitions), and what the warm-up learns; ``dense`` asks for a full metric."""

    draws: int
    schedule: Schedule
    thin: int = 1
    dense: bool = True


class Walk:
    """Chains on their way: where they stand, what is learned, and the draws so far.

    The step sizes are each chain's own while they are learned; with the end of the warm-up all chains take the median.
    """

    def __init__(self, plan: Plan, chains: Chains, metric: Metric) -> None:
        self.plan, self.chains, self.metric = plan, chains, metric
        self.base = metric
        self.done = 0
        dimension = chains.points.x.shape[1]
        self._draws = Record.empty(chains.count, plan.draws, dimension)
        self._window: list[Array] = []
        self.warmup_steps, self.warmup_divergences = 0, 0

    def run(self, advance: Advance, after: Callable[[], None]) -> bool:
        """Walk to the end; ``after`` is called whenever all chains have arrived somewhere.

        Returns whether they came to the end: they do not if ``advance`` made fewer draws than it was asked for.
        """
        while self.done < (total := self.plan.schedule.warmup + self.plan.draws):
            edge = self.plan.schedule.next_edge(self.done) if self.warming else total
            count = min(edge - self.done, advance.block)
            self.chains, record = advance(self.chains, self.metric, count, self.warming)
            self._take(record)
            after()
            if record.count < count:
                return False
        return True

    def cut(self) -> None:
        """End the warm-up here, with the step sizes and the metric that were found so far; what follows are draws."""
        schedule = replace(self.plan.schedule, warmup=self.done, edges=())
        self.plan = replace(self.plan, schedule=schedule)
        self.chains = replace(self.chains, size=self.chains.size.settled())
        self._window = []

    @property
    def warming(self) -> bool:
        """Whether the warm-up goes on."""
        return self.done < self.plan.schedule.warmup

    def record(self) -> Record:
        """The draws so far, without the warm-up."""
        return self._draws.take(max(self.done - self.plan.schedule.warmup, 0))

    def _take(self, record: Record) -> None:
        schedule = self.plan.schedule
        if self.done >= schedule.warmup:
            self._draws.write(self.done - schedule.warmup, record)
            self.done += record.count
            return
        self.warmup_steps += int(record.steps.sum())
        self.warmup_divergences += int(record.divergent.sum())
        if schedule.edges and schedule.begin < self.done + record.count and self.done < schedule.edges[-1]:
            self._window.append(record.x[:, max(schedule.begin - self.done, 0) :])
        self.done += record.count
        if self.done in schedule.edges:
            self.metric = refined(self.base, np.concatenate(self._window, 1), dense=self.plan.dense)
            self.chains = self.chains.restarted()
            self._window = []
        if self.done == schedule.warmup:
            self.chains = replace(self.chains, size=self.chains.size.settled())

    def pack(self) -> dict[str, Any]:
        """Everything that the rest of the walk depends on, and the draws so far: arrays and plain values."""
        return {
            "chains": self.chains.pack(),
            "metric": self.metric.pack(),
            "base": self.base.pack(),
            "window": np.concatenate(self._window, 1) if self._window else None,
            "draws": self.record().pack(),
            "counts": [self.done, self.warmup_steps, self.warmup_divergences],
            "warmup": self.plan.schedule.warmup,
        }

    @classmethod
    def unpacked(cls, plan: Plan, packed: dict[str, Any]) -> Walk:
        """What :meth:`pack` described."""
        walk = cls(plan, Chains.unpacked(packed["chains"]), Metric.unpacked(packed["metric"]))
        walk.base = Metric.unpacked(packed["base"])
        walk._window = [] if packed["window"] is None else [packed["window"]]
        walk.done, walk.warmup_steps, walk.warmup_divergences = packed["counts"]
        walk._draws.write(0, Record(**packed["draws"]))
        if packed["warmup"] < plan.schedule.warmup:  # it was cut
            walk.plan = replace(plan, schedule=replace(plan.schedule, warmup=packed["warmup"], edges=()))
        return walk
