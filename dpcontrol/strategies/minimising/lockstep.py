"""Separate scipy searches that advance together, so that all their questions are one batch.

scipy's minimisers call the objective; here each runs in a greenlet of its own that hands its question over and waits.
All of them share one thread: a switch costs a microsecond (a thread's twenty, and a hundred where cores are busy).
Searches that are done leave the batch: none waits for the hardest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from greenlet import GreenletExit, getcurrent, greenlet
from torch import Tensor

from dpcontrol.meter import Meter
from dpcontrol.strategies.threads import one_blas_thread


@dataclass
class Question:
    """What a search wants to know: the loss and gradient at ``x``, or the Hessian's product with ``v`` there."""

    x: np.ndarray
    v: np.ndarray | None = None


@dataclass
class Search:
    """One search as a coroutine: :meth:`resume` runs it up to its next question (``None`` when it is done).

    What it raises, :meth:`resume` raises, Ctrl-C included.
    """

    body: Callable[[Callable[[Question], Any]], Any]
    result: Any = None
    _inside: greenlet | None = field(default=None, repr=False)

    def resume(self, answer: Any = None) -> Question | None:
        """Hand over an answer, and wait for the next question."""
        if self._inside is None:
            self._inside = greenlet(self._run)
            found: Question | None = self._inside.switch()
        else:
            self._inside.parent = getcurrent()
            found = self._inside.switch(answer)
        return found

    def abandon(self) -> None:
        """End a sleeping search; GreenletExit is no Exception, so that no library swallows it."""
        if self._inside is not None and not self._inside.dead:
            self._inside.throw(GreenletExit)

    def _run(self) -> None:
        self.result = self.body(_ask)


def _ask(question: Question) -> Any:
    asking = getcurrent().parent
    assert asking is not None
    return asking.switch(question)


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
