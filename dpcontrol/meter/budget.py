"""What a run may cost, and the ledger of what it has cost so far."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from dpcontrol.results import Counts, UsageError
from dpcontrol.store import Record


@dataclass(frozen=True)
class Budget:
    """What a run may cost. Whatever is reached first ends it; ``None`` is no limit.

    Args:
        seconds: wall time (such runs are not reproducible to the bit).
        simulated_steps: scenario-steps, VJP sweeps and recomputation charged (see :class:`~dpcontrol.results.Counts`).
        gradients: VJP sweeps of one scenario.
        target_loss: stop as soon as the mean of the best losses is this low.
    """

    seconds: float | None = None
    simulated_steps: int | None = None
    gradients: int | None = None
    target_loss: float | None = None

    def __post_init__(self) -> None:
        for name in ("seconds", "simulated_steps", "gradients"):
            value = getattr(self, name)
            if value is not None and (
                isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0
            ):
                raise UsageError(f"Budget({name}=...) must be a positive number; found {value!r}.")
        if self.target_loss is not None and not isinstance(self.target_loss, (int, float)):
            raise UsageError(f"Budget(target_loss=...) must be a number; found {self.target_loss!r}.")


class BudgetSpent(Exception):
    """Raised by a meter when the next evaluation would exceed the budget."""


class TargetReached(Exception):
    """Raised by a meter when the mean of the best losses is as low as the budget asked for."""


class Stopped(Exception):
    """Raised by a meter when the callback asked to stop."""


@dataclass(frozen=True)
class Progress:
    """What a callback sees after each evaluation. ``loss`` is the mean over instances of the best so far."""

    loss: float
    counts: Counts
    seconds: float
    fraction: float


@dataclass
class History:
    """One row per evaluation: what it had cost by then, the best so far, and the evaluation's own mean loss.

    Of log-densities there is a row for each improvement and for each further hundredth of the steps.
    """

    simulated_steps: list[int] = field(default_factory=list)
    gradients: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)
    latest: list[float] = field(default_factory=list)

    def columns(self) -> dict[str, list[Any]]:
        """The rows as columns."""
        return dict(vars(self))


@dataclass
class Ledger:
    """What changes while a run goes on; nested strategies share it."""

    best_x: Tensor
    best: Tensor
    best_density: float = float("-inf")
    improved: int = 0  # evaluations that lowered a best loss, the first one included
    counts: Counts = field(default_factory=Counts)
    history: History = field(default_factory=History)
    answers: list[Record] = field(default_factory=list)
    # the latest point that gave something not finite, (1, dimension), and its instance
    failed: tuple[Tensor, int] | None = None
    vectorises: bool | None = None
    remark: str = ""
    crash: str = ""  # what a simulator raised in the latest evaluation that it could not answer
    share: float = 0.0
    seconds_before: float = 0.0
    began: float = field(default_factory=time.perf_counter)
