"""The scenes that a controller is trained on, and those that it is validated on."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch

from dpcontrol.meter import Meter
from dpcontrol.problem import Scenarios, View

NOT_HELD_OUT = "trained and validated on the very scenarios that it is judged on"


class Scenes:
    """Fresh scenes for every iteration, and some for validation, drawn once from ``seed``.

    The problem's own scenes are never trained on where there is a distribution to draw from. Without one they are all
    there is, and :attr:`remark` says so.
    """

    def __init__(self, meter: Meter, seed: int, validation: int) -> None:
        scenarios, self._meter = meter.problem.scenarios, meter
        self._own, self._drawn = scenarios, View.DISTRIBUTION in meter.problem.offers
        self.validation = scenarios
        if self._drawn:
            self.validation = scenarios.draw(torch.Generator().manual_seed(seed), validation)

    def batch(self, generator: torch.Generator, size: int) -> Scenarios:
        """``size`` scenes to train on (all there are, where there are no more)."""
        own = self._own
        if self._drawn:
            return own.draw(generator, size)
        if own.count <= size:
            return own
        return own.subset(torch.randperm(own.count, generator=generator)[:size])

    def judged_at_the_end(self, validate: Callable[[], Any]) -> AbstractContextManager[None]:
        """What is done inside leaves enough of the budget for a last validation."""
        return self._meter.last_word(self.price, validate)

    @property
    def price(self) -> int:
        """Simulated steps of a validation."""
        return self.validation.count * max(self._meter.problem.horizon, 1)

    @property
    def remark(self) -> str:
        """What a status shall say about the scenes; empty where some were held out."""
        return "" if self._drawn else f"; {NOT_HELD_OUT}"
