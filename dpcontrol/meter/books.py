"""The books of a run: what it has cost, the best it has found, its history, its journal, and the end of its budget."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from dpcontrol.meter.budget import Budget, BudgetSpent, History, Ledger, Progress, Stopped, TargetReached
from dpcontrol.results import Counts, UsageError
from dpcontrol.store import Journal, Record, checksum
from dpcontrol.tree import Tree

LAST_WORD = 0.02  # share of a budget in seconds that is held back for a last question


class Books:
    """What a meter writes down, whatever is asked through it.

    Args:
        start: where the search begins, ``(instances, dimension)``.
        others: see :class:`~dpcontrol.meter.meter.Meter`.
    """

    def __init__(
        self,
        start: Tensor,
        budget: Budget | None,
        callback: Callable[[Progress], Any] | None,
        log: Journal | None,
        answers: list[Record] | None,
        kept: Tree,
        keep_state: Callable[[Callable[[], Tree]], None] | None,
    ) -> None:
        self.budget = budget or Budget()
        self._callback = callback
        self._log = log
        self._kept = kept
        self._keep_state = keep_state
        self._held = 0, 0.0  # simulated steps and share of the seconds that are held back
        self.instances = len(start)
        nothing_yet = torch.full((self.instances,), float("inf"), dtype=start.dtype, device=start.device)
        self.ledger = Ledger(start.clone(), nothing_yet, answers=list(reversed(answers or [])))

    @property
    def seconds(self) -> float:
        """Wall time so far, that of an interrupted run included."""
        ledger = self.ledger
        return ledger.seconds_before + (0.0 if ledger.answers else time.perf_counter() - ledger.began)

    @property
    def counts(self) -> Counts:
        """What the run has cost so far."""
        return self.ledger.counts

    @property
    def best(self) -> Tensor:
        """Best loss of each instance so far, ``(instances,)``."""
        return self.ledger.best

    @property
    def best_x(self) -> Tensor:
        """Where the best losses were found, ``(instances, dimension)``."""
        return self.ledger.best_x

    def fraction(self) -> float:
        """How much of the budget is gone, or of what the strategy set out to do; 0 where neither is known."""
        return max(self.ledger.share, self.spent())

    def spent(self) -> float:
        """How much of the budget is gone, 0 to 1; 0 without one."""
        parts = [
            spent / limit
            for spent, limit in (
                (self.counts.simulated_steps, self.budget.simulated_steps),
                (self.counts.gradients, self.budget.gradients),
                (self.seconds, self.budget.seconds),
            )
            if limit is not None
        ]
        return min(1.0, max(parts, default=0.0))

    def spend(self, price: Counts) -> None:
        """Pay for steps that a strategy is about to take by itself, in an environment say."""
        self._stop_if_spent(price)
        self.charge(price)

    def charge(self, counts: Counts) -> None:
        """Book what was spent elsewhere, in a worker process say."""
        self.ledger.counts = self.counts + counts

    @contextmanager
    def last_word(self, steps: int, say: Callable[[], Any]) -> Iterator[None]:
        """Hold back what one more question costs, and ask it when the rest of the budget is spent.

        So a training that its budget ends is judged where it ended. ``steps`` are the question's simulated steps; of a
        budget in seconds a fiftieth is held back, and the question is asked even where what came before it took longer
        than that. Nothing is asked where the end has another reason.
        """
        self._held = steps, LAST_WORD
        try:
            yield
        except BudgetSpent:
            self._held = 0, -math.inf
            say()
            raise
        finally:
            self._held = 0, 0.0

    def remark(self, sentence: str) -> None:
        """What the run's status shall say besides, however it ends; the latest remark counts."""
        self.ledger.remark = sentence

    def progressed(self, share: float) -> None:
        """Tell how far the strategy is by its own count, between 0 and 1, for those who watch it."""
        self.ledger.share = share

    def pulse(self) -> None:
        """Let those who watch see how far a strategy is that has no loss to tell yet; they may stop it."""
        self._report()

    def conclude(self, x: Tensor, values: Tensor) -> None:
        """Losses ``(instances,)`` of an answer that has been paid for: recorded whatever is left of the budget."""
        finite = torch.isfinite(values)
        self.ledger.counts = self.counts + Counts(failures=int((~finite).sum()))
        self._note(x, torch.arange(self.instances), torch.where(finite, values, torch.inf))

    def keep(self, make_state: Callable[[], Tree]) -> None:
        """Offer the strategy's whole state for storing; it is made and written only every few seconds."""
        if self._keep_state is not None:
            self._keep_state(lambda: {"strategy": make_state(), "meter": self._pack()})

    def resumed(self) -> Tree:
        """The state that an interrupted run had kept, or ``None``; call it once, before the first question."""
        kept, self._kept = self._kept, None
        if kept is None:
            return None
        self._unpack(kept["meter"])
        return kept["strategy"]

    @property
    def resuming(self) -> bool:
        """Whether an interrupted run had kept a state, which :meth:`resumed` has not yet handed out."""
        return self._kept is not None

    # -- for the meter ---------------------------------------------------------------------------------------------

    def _answer(
        self, kind: str, x: Tensor, which: Tensor, compute: Callable[[], list[Tensor]], price: Counts
    ) -> tuple[list[Tensor], Tensor]:
        """The answer, computed or from the journal, paid for; and which of its rows are finite."""
        self._stop_if_spent(price)
        answer = self._from_log(kind, x, which) or self._computed(kind, x, which, compute)
        if math.isfinite(sum(float(a.sum()) for a in answer)):  # nearly always, and cheaper to ask
            self.ledger.counts = self.counts + price
            return answer, torch.ones(len(answer[0]), dtype=torch.bool, device=answer[0].device)
        finite = torch.stack([torch.isfinite(a).reshape(len(a), -1).all(1) for a in answer]).all(0)
        failures = int((~finite).sum())
        if failures and kind not in ("observed", "roots"):
            row = int(torch.nonzero(~finite)[-1])
            self.ledger.failed = x[row : row + 1].detach().clone(), int(which[row])
        self.ledger.counts = self.counts + replace(price, failures=failures)
        return answer, finite

    def _computed(
        self, kind: str, x: Tensor, which: Tensor, compute: Callable[[], list[Tensor]]
    ) -> list[Tensor]:
        answer = compute()
        if self._log is not None:
            self._log.append(checksum(kind.encode(), x, which), self.seconds, answer)
        return answer

    def _from_log(self, kind: str, x: Tensor, which: Tensor) -> list[Tensor] | None:
        if not self.ledger.answers:
            return None
        record = self.ledger.answers.pop()
        if record.request != checksum(kind.encode(), x, which):
            raise UsageError(
                "the stored journal does not belong to this run: another problem, strategy, seed or library version "
                "asked other questions; start afresh in another folder."
            )
        self.ledger.seconds_before = record.seconds
        self.ledger.began = time.perf_counter()
        return [torch.as_tensor(a).to(x) for a in record.arrays]

    def _stop_if_spent(self, price: Counts) -> None:
        limits = self.budget
        target = limits.target_loss
        if target is not None and self.ledger.history.loss and self.ledger.history.loss[-1] <= target:
            raise TargetReached
        after = self.counts + price
        steps, share = self._held
        if limits.simulated_steps is not None and after.simulated_steps + steps > limits.simulated_steps:
            raise BudgetSpent
        if limits.gradients is not None and after.gradients > limits.gradients:
            raise BudgetSpent
        if limits.seconds is not None and self.seconds >= (1 - share) * limits.seconds:
            raise BudgetSpent

    def _note(self, x: Tensor, which: Tensor, values: Tensor) -> None:
        which = which.to(values.device)
        lowest = torch.full_like(self.best, float("inf")).scatter_reduce(0, which, values, "amin")
        better = lowest < self.best
        self.ledger.improved += bool(better.any())
        winners = (values == lowest[which]) & better[which]
        rows = torch.nonzero(winners).flatten()
        # where several rows tie, the first one counts, so that results do not depend on the order of writing
        self.best_x[which[rows.flip(0)]] = x.detach()[rows.flip(0)]
        self.ledger.best = torch.where(better, lowest, self.best)
        self._write_row(float(values.mean()) if len(which) == self.instances else float("nan"))
        self._report()

    def _write_row(self, latest: float) -> None:
        history = self.ledger.history
        history.simulated_steps.append(self.counts.simulated_steps)
        history.gradients.append(self.counts.gradients)
        history.seconds.append(self.seconds)
        history.loss.append(float(self.best.mean()))
        history.latest.append(latest)

    def _report(self) -> None:
        if self._callback is not None and not self.ledger.answers:
            losses = self.ledger.history.loss
            best = losses[-1] if losses else math.inf
            if self._callback(Progress(best, self.counts, self.seconds, self.fraction())):
                raise Stopped

    def _pack(self) -> Tree:
        counts = [self.counts.simulated_steps, self.counts.gradients, self.counts.failures]
        return {
            "counts": counts,
            "history": {name: list(column) for name, column in self.ledger.history.columns().items()},
            "best": self.best.clone(),
            "best_density": self.ledger.best_density,
            "improved": self.ledger.improved,
            "best_x": self.best_x.clone(),
            "seconds": self.seconds,
            "failed": None if self.ledger.failed is None else list(self.ledger.failed),
        }

    def _unpack(self, packed: Tree) -> None:
        self.ledger.counts = Counts(*packed["counts"])
        self.ledger.history = History(**packed["history"])
        self.ledger.best = packed["best"].to(self.best)
        self.ledger.best_x = packed["best_x"].to(self.best_x)
        self.ledger.best_density = packed["best_density"]
        self.ledger.improved = packed["improved"]
        if packed["failed"] is not None:
            self.ledger.failed = packed["failed"][0].to(self.best_x), packed["failed"][1]
        self.ledger.seconds_before, self.ledger.began = packed["seconds"], time.perf_counter()
