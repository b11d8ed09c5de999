"""A training of something shared on drawn scenarios, judged on others: the loop, whatever is trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from dpcontrol.meter import Meter
from dpcontrol.results import Status
from dpcontrol.strategies.learning.descent import Clip, falling, optimizer

PATIENCE_OF_FAILURES = 10  # in a row


@dataclass(frozen=True)
class Lessons:
    """What a training asks for.

    Attributes:
        fresh: weights ``(1, dimension)`` to start from.
        gradient: from weights and how much of the training is done (0 to 1) to losses ``(scenarios,)`` of a minibatch
            and the gradient ``(1, dimension)`` of their mean.
        validate: from weights to the loss that they are judged by, a scalar.
        price: simulated steps of a validation.
        known: what a resumed training has to know beside its own state; it is stored with that.
    """

    fresh: Callable[[], Tensor]
    gradient: Callable[[Tensor, float], tuple[Tensor, Tensor]]
    validate: Callable[[Tensor], Tensor]
    price: int
    known: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Pace:
    """How a training goes: see the fields of :class:`~dpcontrol.strategies.learning.policy.LearnedPolicy`."""

    optimizer: str
    learning_rate: float
    clip: float
    validate_every: int
    patience: int | None
    iterations: float


class Training:
    """A training under way: weights, optimizer, and what is counted.

    The rate falls along half a cosine over the budget or the iterations, whichever ends it. A gradient that is much
    longer than the usual is shortened; after one that is not finite the weights go half of the way back to the latest
    that gave a finite one. What counts as the best so far is the validation loss. Everything is stored: a resumed
    training takes the same steps to the bit.

    ``kept`` is what an interrupted one had stored (``meter.resumed()``), ``remark`` goes into the status.
    """

    def __init__(self, meter: Meter, lessons: Lessons, pace: Pace, kept: Any, remark: str = "") -> None:
        self._meter, self._lessons, self._pace, self._remark = meter, lessons, pace, remark
        self.iteration, self.failed, self.worse = 0, 0, 0
        self._clip = Clip(pace.clip)
        self._weights = lessons.fresh() if kept is None else kept["weights"]
        self._finite = self._weights
        self._optimizer = optimizer(pace.optimizer, meter.layout())
        if kept is not None:
            self._unpack(kept)

    def run(self) -> Status:
        """Until the iterations are spent, nothing gets better, or nothing is finite (or the meter ends it)."""
        with self._meter.last_word(self._lessons.price, self._validate):
            while self.iteration < self._pace.iterations:
                self._meter.keep(self.pack)
                self._meter.progressed(self._done())
                ended = self._step()
                if ended is not None:
                    return ended
        self._validate()
        return Status("iterations spent", "the iterations were spent; more of them may lower the loss.")

    def _step(self) -> Status | None:
        """One iteration, and the validation that is due before it; how the training ended, or ``None``."""
        if self.iteration % self._pace.validate_every == 0 and self._validate():
            return Status(
                "converged",
                f"{self._pace.patience} validations in a row brought nothing better; stopped early.",
            )
        losses, gradient = self._lessons.gradient(self._weights, self._done())
        norm = gradient.norm()
        self.iteration += 1
        if not bool(torch.isfinite(norm) & torch.isfinite(losses).all()):
            return self._take_back()
        self.failed, self._finite = 0, self._weights
        direction = self._optimizer.direction(gradient * self._clip.shortened(float(norm)))
        self._weights = self._weights - self._pace.learning_rate * falling(self._done()) * direction
        self._meter.remark(f"{self._clip.words()}{self._remark}.")
        return None

    def _validate(self) -> bool:
        """Judge the weights; whether it is time to stop early."""
        before = float(self._meter.best)
        self._meter.observe(self._weights, self._lessons.validate(self._weights)[None], steps=0)
        self.worse = 0 if float(self._meter.best) < before else self.worse + 1
        return self._pace.patience is not None and self.worse >= self._pace.patience

    def _done(self) -> float:
        """How much of the budget or of the iterations is gone."""
        return min(max(self._meter.spent(), self.iteration / self._pace.iterations), 1.0)

    def _take_back(self) -> Status | None:
        self.failed += 1
        if self.failed > PATIENCE_OF_FAILURES:
            return Status(
                "diverged",
                f"{self.failed} minibatches in a row gave a loss or gradient that is not finite; a shorter window, a "
                "curriculum, a smaller learning rate or clip may help.",
            )
        self._weights = (self._weights + self._finite) / 2
        return None

    def pack(self) -> dict[str, Any]:
        """Everything that the rest of the training depends on."""
        return {
            **self._lessons.known,
            "weights": self._weights,
            "finite": self._finite,
            "clip": self._clip.pack(),
            "optimizer": self._optimizer.pack(),
            "counts": [self.iteration, self.failed, self.worse],
        }

    def _unpack(self, kept: dict[str, Any]) -> None:
        self._finite = kept["finite"]
        self._clip.unpack(kept["clip"])
        self._optimizer.unpack(kept["optimizer"])
        self.iteration, self.failed, self.worse = kept["counts"]
