"""What all Markov chain samplers share: chains that start, warm up, walk, are stored, and are told about."""

from __future__ import annotations

import abc
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from dpcontrol.meter import BudgetSpent, Meter, Stopped, TargetReached
from dpcontrol.posterior import Draws
from dpcontrol.problem import View
from dpcontrol.results import Counts, SimulationFailed, Status, UsageError
from dpcontrol.run import Outcome
from dpcontrol.strategies.checks import one_of, positive, whole
from dpcontrol.strategies.posteriors.joint import PosteriorStrategy
from dpcontrol.strategies.posteriors.moving import Alone, Crew, Mover, Questions
from dpcontrol.strategies.posteriors.sampling import (
    Chains,
    Kernel,
    Plan,
    Record,
    Schedule,
    StepSize,
    Walk,
    chain_randoms,
    first_steps,
)
from dpcontrol.strategies.posteriors.starts import NoStart, Search, around_mode, from_prior
from dpcontrol.strategies.threads import one_blas_thread
from dpcontrol.tree import Tree

DENSE_UP_TO = 100
KEEPING = 0.05  # share of the time that storing may take
WARMING = 0.5  # share of a budget behind which a warm-up is cut short, so that there are draws

NO_START = (
    "no starting point of finite density was found: stress_test(problem, n) says where the simulator fails; a tighter "
    "prior or a smaller time step may help."
)
CUT = " The warm-up was cut at {warmup:,} of {wanted:,} draws, where half of the budget was spent."
ONE_MODE = " They started around one mode: others were not looked for (searches=16 or start='prior' would)."
BEST_MODE = " They started around the highest mode that {} searches found; others may have a share as well."


@dataclass(frozen=True)
class MarkovChains(PosteriorStrategy):
    """Fields and course of every Markov chain sampler; see :class:`~dpcontrol.strategies.posteriors.samplers.NUTS`."""

    chains: int = 4
    draws: int = 1000
    warmup: int = 500
    thin: int = 1
    workers: int = 1
    start: str = "map"
    spread: float = 1.5
    searches: int = 1

    def __post_init__(self) -> None:
        who = type(self).__name__
        whole(who, chains=self.chains, draws=self.draws, thin=self.thin, workers=self.workers)
        whole(who, searches=self.searches)
        whole(who, least=0, warmup=self.warmup)
        one_of(who, ("map", "prior"), start=self.start)
        positive(who, spread=self.spread)
        if self.workers > self.chains:
            raise UsageError(
                f"{who}(workers={self.workers}) has more workers than chains ({self.chains}): each process moves at "
                "least one chain."
            )

    # -- what a sampler says of itself -------------------------------------------------------------------------------

    @abc.abstractmethod
    def kernel(self, dimension: int) -> Kernel:
        """The transition."""

    @property
    @abc.abstractmethod
    def asks(self) -> str:
        """What it asks for: ``gradients``, ``densities`` or ``likelihoods``."""

    @property
    def momentum(self) -> bool:
        """Whether trajectories can diverge and energies mean something."""
        return False

    def remark(self, record: Record) -> str:
        """What the status shall say of the draws besides; a sentence with a blank before it, or nothing."""
        return ""

    def dense(self, dimension: int) -> bool:
        """Whether the metric is a full matrix."""
        return dimension <= DENSE_UP_TO

    # -- what it says to the problem -----------------------------------------------------------------------------------

    @property
    def needs(self) -> frozenset[View]:
        wanted = {View.LOG_DENSITY}
        if self.asks == "gradients" or self.start == "map":
            wanted.add(View.EXACT_GRADIENT)
        if self.asks == "likelihoods":
            wanted.add(View.WHITE_PRIOR)
        return frozenset(wanted)

    def load(self) -> None:
        import scipy.optimize  # noqa: F401

    def run(self, meter: Meter, generator: torch.Generator) -> Status | Outcome:
        with one_blas_thread():
            try:
                course = self._begun(meter, generator)
            except NoStart:
                return Status("failed", NO_START)
            ended = self._walked(course, meter)
        return self._told(course.walk, ended)

    # -- the course ----------------------------------------------------------------------------------------------------

    def _begun(self, meter: Meter, generator: torch.Generator) -> Course:
        """The walk at its beginning, or where an interrupted run left it."""
        kernel = self.kernel(meter.dimension)
        schedule = Schedule.of(self.warmup, metric=kernel.uses_metric)
        plan = Plan(self.draws, schedule, self.thin, self.dense(meter.dimension))
        seed = int(torch.randint(2**62, (), generator=generator))
        kept = meter.resumed()
        if kept is not None:
            return Course.unpacked(plan, arrays(kept))
        randoms = chain_randoms(seed, self.chains)
        ask = Questions(self.asks).of(meter)
        if self.start == "map":
            search = Search(Questions("gradients").of(meter), self.searches)
            found = around_mode(meter, search, ask, randoms, self.spread)
        else:
            found = from_prior(meter, ask, randoms)
        if self.asks == "gradients":
            steps = first_steps(found.points, randoms, found.metric, ask, kernel.first_step)
            size = StepSize.starting(steps)
        else:
            size = StepSize.starting(np.full(self.chains, kernel.first_step), 1.0)
        walk = Walk(plan, Chains(found.points, size, randoms), found.metric)
        return Course(walk, meter.counts, [Counts()] * self.workers)

    def _walked(self, course: Course, meter: Meter) -> BaseException | None:
        """Walk on; what ended it before all draws were made, or ``None``."""
        kernel, questions = self.kernel(meter.dimension), Questions(self.asks)
        keeping, walk = Keeping(meter, course), course.walk

        def arrived(book: Callable[[], None] = lambda: None) -> None:
            book()
            if walk.warming and meter.spent() >= WARMING:
                walk.cut()
            keeping()

        try:
            if self.workers == 1:
                done = walk.run(Alone(kernel, questions.of(meter), self.thin), arrived)
            else:
                mover = Mover(meter.problem, kernel, questions, self.thin)
                with contextlib.closing(Crew(meter, mover, course.before, course.spent)) as crew:
                    done = walk.run(crew, lambda: arrived(crew.book))
        except (BudgetSpent, TargetReached, Stopped, KeyboardInterrupt, SimulationFailed) as error:
            return error
        return None if done else BudgetSpent()

    def _told(self, walk: Walk, ended: BaseException | None) -> Outcome:
        record, warmup = walk.record(), walk.plan.schedule.warmup
        if ended is None:
            status = Status(
                "converged", f"{self._words(record.count)} were drawn behind {warmup} of warm-up."
            )
        else:
            status = _broken_off(ended, record.count, walk.done, self)
        if not record.count:
            return Outcome(status)
        cut = CUT.format(warmup=warmup, wanted=self.warmup) if warmup < self.warmup else ""
        found = ONE_MODE if self.searches == 1 else BEST_MODE.format(self.searches)
        mode = found if self.start == "map" else ""
        told = Status(status.kind, f"{status.sentence}{cut}{self.remark(record)}{mode}")
        return Outcome(told, draws=self._drawn(walk, record))

    def _words(self, count: int) -> str:
        return (
            f"{self.chains} chains of {count:,} draws" if self.chains > 1 else f"{count:,} draws of one chain"
        )

    def _drawn(self, walk: Walk, record: Record) -> Draws:
        density = record.log_density
        if self.asks == "likelihoods":  # of white numbers: the prior is standard normal
            density = density - 0.5 * (record.x**2).sum(2) - 0.5 * np.log(2 * np.pi) * record.x.shape[2]
        notes: dict[str, Any] = {
            "method": type(self).__name__,
            "step_size": float(np.median(walk.chains.size.step)),
            "warmup": walk.plan.schedule.warmup,
            "warmup_steps": walk.warmup_steps,
            "warmup_divergences": walk.warmup_divergences,
            "thin": self.thin,
        }
        moving = self.momentum
        return Draws(
            free=torch.from_numpy(record.x.copy()),
            log_density=torch.from_numpy(np.array(density)),
            divergent=torch.from_numpy(record.divergent.copy()) if moving else None,
            energy=torch.from_numpy(record.energy.copy()) if moving else None,
            accepted=torch.from_numpy(record.accepted.copy()),
            steps=torch.from_numpy(record.steps.copy()),
            notes=notes,
        )


@dataclass
class Course:
    """A walk, what had been spent before it, and what each worker process has spent on it."""

    walk: Walk
    before: Counts
    spent: list[Counts]

    def pack(self) -> Tree:
        """For storing."""
        spent = [[each.simulated_steps, each.gradients, each.failures] for each in (self.before, *self.spent)]
        return tensors({"walk": self.walk.pack(), "spent": spent})

    @classmethod
    def unpacked(cls, plan: Plan, packed: Any) -> Course:
        """What :meth:`pack` described."""
        before, *spent = (Counts(*each) for each in packed["spent"])
        return cls(Walk.unpacked(plan, packed["walk"]), before, spent)


class Keeping:
    """Offers the state for storing whenever the chains meet, but so seldom that it costs little of the time."""

    def __init__(self, meter: Meter, course: Course) -> None:
        self._meter, self._course = meter, course
        self._next = 0.0

    def __call__(self) -> None:
        walk = self._course.walk
        self._meter.progressed(walk.done / (walk.plan.schedule.warmup + walk.plan.draws))
        began = time.perf_counter()
        if began >= self._next:
            self._meter.keep(self._course.pack)
            took = time.perf_counter() - began
            self._next = began + took / KEEPING


def _broken_off(ended: BaseException, drawn: int, done: int, wanted: MarkovChains) -> Status:
    kinds = {
        BudgetSpent: ("budget spent", "the budget was spent"),
        TargetReached: ("target reached", "the loss reached the target of the budget"),
        Stopped: ("stopped", "the callback asked to stop"),
        KeyboardInterrupt: ("interrupted", "interrupted by the user"),
    }
    kind, words = kinds.get(type(ended), ("failed", str(ended).rstrip(".")))
    if drawn:
        where = f"after {drawn:,} of {wanted.draws:,} draws of each chain, which are returned"
    else:
        where = f"in the warm-up, after {done:,} of {wanted.warmup:,} draws: there are none to return"
    resumable = "; the run can be resumed" if kind == "interrupted" else ""
    return Status(kind, f"{words} {where}{resumable}.")


def tensors(packed: Any) -> Tree:
    """Arrays as tensors, anywhere in dicts and lists."""
    if isinstance(packed, dict):
        return {key: tensors(value) for key, value in packed.items()}
    if isinstance(packed, list):
        return [tensors(value) for value in packed]
    return torch.from_numpy(np.ascontiguousarray(packed)) if isinstance(packed, np.ndarray) else packed


def arrays(kept: Tree) -> Any:
    """The inverse of :func:`tensors`."""
    if isinstance(kept, dict):
        return {key: arrays(value) for key, value in kept.items()}
    if isinstance(kept, list):
        return [arrays(value) for value in kept]
    return kept.cpu().numpy() if isinstance(kept, torch.Tensor) else kept
