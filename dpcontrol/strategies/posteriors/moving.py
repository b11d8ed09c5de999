"""Who moves the chains of a sampler: this process, or several that each have a share of them."""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from dataclasses import dataclass, field, replace
from typing import Any

import cloudpickle
import numpy as np
import torch
from torch import Tensor

from dpcontrol.meter import Budget, BudgetSpent, Meter
from dpcontrol.problem import Problem
from dpcontrol.results import Counts, SimulationFailed, UsageError
from dpcontrol.strategies.posteriors.sampling import Ask, Chains, Kernel, Metric, Record, draw
from dpcontrol.sweep.child import PythonSpeech
from dpcontrol.sweep.service import Service

BLOCK_SECONDS = 1.0  # between two meetings of the processes
PATIENCE = 1e7  # seconds: a block may take as long as it takes


@dataclass(frozen=True)
class Questions:
    """How a sampler's questions reach the meter: in float64 and numpy there, in the problem's dtype and device here.

    ``kind`` is ``gradients``, ``densities`` or ``likelihoods`` (with white numbers).
    """

    kind: str

    def of(self, meter: Meter) -> Ask:
        """The question, asked of a meter."""
        like = meter.best_x
        plain = like.dtype == torch.float64 and like.device.type == "cpu"

        def tensor(x: np.ndarray) -> Tensor:
            return torch.from_numpy(x) if plain else torch.from_numpy(x).to(like)

        def array(found: Tensor) -> np.ndarray:
            return (found if plain else found.cpu().double()).numpy()

        def gradients(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            value, gradient = meter.log_densities_and_gradients(tensor(x))
            return array(value), array(gradient)

        def values(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            asked = meter.log_densities if self.kind == "densities" else meter.log_likelihoods
            return array(asked(tensor(x))), np.zeros((len(x), 1))

        return gradients if self.kind == "gradients" else values


@dataclass(frozen=True)
class Alone:
    """This process moves all chains; they can be stored behind every draw."""

    kernel: Kernel
    ask: Ask
    thin: int
    block: int = 1

    def __call__(self, chains: Chains, metric: Metric, count: int, learning: bool) -> tuple[Chains, Record]:
        """The chains ``count`` draws later."""
        moved = []
        for _ in range(count):
            chains, one = draw(self.kernel, chains, metric, self.ask, thin=self.thin, learning=learning)
            moved.append(one)
        return chains, Record.of(moved)


@dataclass(frozen=True)
class Block:
    """What a process has done: the chains, their draws, and what is to be booked."""

    chains: Chains
    record: Record
    counts: Counts
    best: tuple[Tensor, Tensor]
    failed: tuple[Tensor, int] | None


@dataclass(frozen=True)
class Mover:
    """What a worker process runs; it is sent there once, with the problem."""

    problem: Problem
    kernel: Kernel
    questions: Questions
    thin: int

    def __call__(self, chains: Chains, metric: Metric, count: int, learning: bool, budget: Budget) -> Block:
        """Move a share of the chains by ``count`` draws, or as far as the budget goes."""
        meter = Meter(self.problem, budget)
        ask = self.questions.of(meter)
        moved = []
        with contextlib.suppress(BudgetSpent):  # who asked sees that there are fewer draws
            for _ in range(count):
                chains, one = draw(self.kernel, chains, metric, ask, thin=self.thin, learning=learning)
                moved.append(one)
        record = Record.of(moved) if moved else Record.empty(chains.count, 0, meter.dimension)
        return Block(chains, record, meter.counts, (meter.best_x, meter.best), meter.ledger.failed)


@dataclass
class Crew:
    """Several processes, each with one thread, that move shares of the chains and meet every second or so.

    The chains' states travel: a process knows nothing but the problem, so that whatever is stored here is all there is.
    How often they meet has no influence on the draws. Of a budget in steps or gradients each process gets the part of
    its chains; where one has spent its part, the run ends with the draws that all chains have.

    Attributes:
        before: what had been spent when the walk began.
        spent: what each process has spent since, changed in place.
    """

    meter: Meter
    mover: Mover
    before: Counts
    spent: list[Counts]
    block: int = 1
    _left: Budget = field(init=False)
    _service: Service = field(init=False)
    _unbooked: list[Block] = field(default_factory=list)

    @property
    def workers(self) -> int:
        """How many processes."""
        return len(self.spent)

    def __post_init__(self) -> None:
        try:
            cloudpickle.dumps(self.mover)
        except Exception as error:
            raise UsageError(
                f"workers={self.workers} needs a problem that can be sent to other processes, and "
                f"{self.meter.problem.name} cannot be pickled ({type(error).__name__}: {error}): use workers=1."
            ) from error
        self._left = _rest(self.meter.budget, self.before)
        self._service = Service(PythonSpeech(self.mover), self.workers, PATIENCE)

    def __call__(self, chains: Chains, metric: Metric, count: int, learning: bool) -> tuple[Chains, Record]:
        """The chains ``count`` draws later; fewer draws where the budget ends before.

        Raises:
            SimulationFailed: if a process fails.
        """
        edges = [chains.count * part // self.workers for part in range(self.workers + 1)]
        shares = [chains.take(a, b) for a, b in itertools.pairwise(edges)]
        calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
            ((share, metric, count, learning, self._budget(share.count / chains.count, spent)), {})
            for share, spent in zip(shares, self.spent, strict=True)
        ]
        began = time.perf_counter()
        blocks = [_checked(answer) for answer in self._service.ask(calls)]
        self._pace(time.perf_counter() - began, count)
        self.spent[:] = [spent + block.counts for spent, block in zip(self.spent, blocks, strict=True)]
        self._unbooked = blocks
        return Chains.joined([block.chains for block in blocks]), Record.beside(
            [block.record for block in blocks]
        )

    def book(self) -> None:
        """Charge the meter for the latest blocks, and tell it the best points."""
        blocks, self._unbooked = self._unbooked, []
        for block in blocks:
            self.meter.charge(block.counts)
            self.meter.ledger.failed = block.failed or self.meter.ledger.failed
        for block in blocks:
            if bool(torch.isfinite(block.best[1]).all()):
                self.meter.observe(*block.best, steps=0)

    def close(self) -> None:
        """End the processes."""
        self._service.close()

    def _budget(self, part: float, spent: Counts) -> Budget:
        seconds = self.meter.budget.seconds
        left = None if seconds is None else max(seconds - self.meter.seconds, 1e-9)
        share = Budget(
            simulated_steps=_part(self._left.simulated_steps, part),
            gradients=_part(self._left.gradients, part),
        )
        return replace(_rest(share, spent), seconds=left)

    def _pace(self, seconds: float, count: int) -> None:
        if count == self.block or seconds > BLOCK_SECONDS:
            growth = BLOCK_SECONDS / max(seconds, 1e-3)
            self.block = max(1, math.floor(count * min(growth, 4.0)))


def _part(limit: int | None, part: float) -> int | None:
    return None if limit is None else max(1, int(limit * part))


def _rest(budget: Budget, spent: Counts) -> Budget:
    """What is left of a budget; at least one unit, which pays for nothing."""
    steps, gradients = budget.simulated_steps, budget.gradients
    return Budget(
        simulated_steps=None if steps is None else max(1, steps - spent.simulated_steps),
        gradients=None if gradients is None else max(1, gradients - spent.gradients),
    )


def _checked(answer: tuple[str, Any]) -> Block:
    kind, found = answer
    if kind != "value":
        raise SimulationFailed(f"A worker process of the sampler {found}.")
    block: Block = found
    return block
