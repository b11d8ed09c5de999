"""Separate scipy searches that advance together, so that all their questions are one batch.

scipy's minimisers call the objective; here each runs in a thread of its own that hands its question over and sleeps.
Only one thread is awake at any time, in a fixed order, so runs are reproducible and nothing has to be thread-safe.
Searches that are done leave the batch: none waits for the hardest.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dpcontrol.meter import Meter
from dpcontrol.strategies.threads import one_blas_thread


class Abandoned(BaseException):
    """Raised inside a sleeping search when the run ends; not an Exception, so that no library swallows it."""


@dataclass
class Question:
    """What a search wants to know: the loss and gradient at ``x``, or the Hessian's product with ``v`` there."""

    x: np.ndarray
    v: np.ndarray | None = None


@dataclass
class Search:
    """One search as a coroutine: :meth:`resume` runs it up to its next question (``None`` when it is done)."""

    body: Callable[[Callable[[Question], Any]], Any]
    result: Any = None
    error: BaseException | None = None
    _question: Question | None = None
    _answer: Any = None
    _awake: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    _asked: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    _thread: threading.Thread | None = None

    def resume(self, answer: Any = None) -> Question | None:
        """Hand over an answer, and wait for the next question."""
        self._answer, self._question = answer, None
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()
        else:
            self._awake.release()
        self._asked.acquire()
        if self.error is not None:
            raise self.error
        return self._question

    def abandon(self) -> None:
        """End a sleeping search."""
        if self._thread is not None and self._thread.is_alive():
            self._answer = Abandoned()
            self._awake.release()
            self._thread.join()

    def _run(self) -> None:
        try:
            self.result = self.body(self._ask)
        except Abandoned:
            return
        except BaseException as error:  # handed to the thread that resumes, which raises it
            self.error = error
        self._asked.release()

    def _ask(self, question: Question) -> Any:
        self._question = question
        self._asked.release()
        self._awake.acquire()
        if isinstance(self._answer, Abandoned):
            raise self._answer
        return self._answer


def run_in_lockstep(meter: Meter, bodies: list[Callable[[Callable[[Question], Any]], Any]]) -> list[Any]:
    """Run one search per instance; their results, in order.

    ``bodies[i](ask)`` searches instance ``i``: ``ask(Question(x))`` gives ``(loss, gradient)`` as float and float64
    array, ``ask(Question(x, v))`` the Hessian product. Whatever ends the run (a spent budget, Ctrl-C) is raised here
    and abandons all searches.
    """
    searches = [Search(body) for body in bodies]
    with one_blas_thread():
        try:
            waiting = {i: q for i, search in enumerate(searches) if (q := search.resume()) is not None}
            while waiting:
                answers = _answered(meter, waiting)
                resumed = {i: searches[i].resume(answer) for i, answer in answers.items()}
                waiting = {i: q for i, q in sorted({**waiting, **resumed}.items()) if q is not None}
        finally:
            for search in searches:
                search.abandon()
    return [search.result for search in searches]


def _answered(meter: Meter, waiting: dict[int, Question]) -> dict[int, Any]:
    """Answers to all waiting questions of one kind: gradients first, Hessian products when none waits for one."""
    first_order = {i: q for i, q in waiting.items() if q.v is None}
    chosen = first_order or waiting
    which = torch.tensor(sorted(chosen))
    x = _rows(meter, [chosen[int(i)].x for i in which])
    if first_order:
        values, gradients = meter.values_and_gradients(x, which)
        loss, slope = values.cpu().double().numpy(), gradients.cpu().double().numpy()
        return {int(i): (float(loss[row]), slope[row]) for row, i in enumerate(which)}
    v = _rows(meter, [q.v for q in chosen.values() if q.v is not None])
    products = meter.hessian_products(x, v, which).cpu().double().numpy()
    return {int(i): products[row] for row, i in enumerate(which)}


def _rows(meter: Meter, vectors: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(vectors)).to(meter.best_x)
