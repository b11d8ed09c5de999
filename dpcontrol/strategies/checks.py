"""Checks of a strategy's own fields."""

from __future__ import annotations

import math
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from dpcontrol.meter import Meter
from dpcontrol.results import UsageError


def whole(who: str, *, least: int = 1, **fields: Any) -> None:
    """Refuse fields that are not whole numbers of at least ``least``."""
    for name, value in fields.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise UsageError(f"{who}({name}=...) must be a whole number, at least {least}; found {value!r}.")


def positive(who: str, **fields: Any) -> None:
    """Refuse fields that are not positive finite numbers."""
    for name, value in fields.items():
        if not _is_number(value) or not 0 < value < math.inf:
            raise UsageError(f"{who}({name}=...) must be a positive number; found {value!r}.")


def within(who: str, low: float, high: float, **fields: Any) -> None:
    """Refuse fields that are not numbers from ``low`` (included) up to ``high`` (not included)."""
    for name, value in fields.items():
        if not _is_number(value) or not low <= value < high:
            raise UsageError(
                f"{who}({name}=...) must be a number of at least {low:g} and below {high:g}; found {value!r}."
            )


def between(who: str, low: float, high: float, **fields: Any) -> None:
    """Refuse fields that are not numbers from ``low`` to ``high``, both included."""
    for name, value in fields.items():
        if not _is_number(value) or not low <= value <= high:
            raise UsageError(f"{who}({name}=...) must be a number from {low:g} to {high:g}; found {value!r}.")


def share(who: str, **fields: Any) -> None:
    """Refuse fields that are not numbers above 0 and at most 1."""
    for name, value in fields.items():
        if not _is_number(value) or not 0 < value <= 1:
            raise UsageError(f"{who}({name}=...) must be a number above 0 and at most 1; found {value!r}.")


def one_of(who: str, choices: Sequence[str], **fields: Any) -> None:
    """Refuse fields that are none of some names."""
    for name, value in fields.items():
        if not isinstance(value, str) or value not in choices:
            raise UsageError(f"{who}({name}=...) must be one of {', '.join(choices)}; found {value!r}.")


def nearest(name: Any, known: Sequence[str]) -> str:
    """Words that help somebody who mistyped a name: the nearest known ones, or all of them."""
    close = get_close_matches(str(name).lower(), known, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(close)}?" if close else f"known are {', '.join(sorted(known))}."


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


UNLIMITED = 10**9  # iterations, for libraries that want a number


def cap(iterations: int | None, meter: Meter, without: int, *, gradients: bool = True) -> float:
    """How many iterations: as asked; for ``None`` until the budget is spent, and ``without`` where none would end it.

    ``gradients`` says whether the strategy asks for gradients, so that a budget of them ends it.
    """
    if iterations is not None:
        return iterations
    budget = meter.budget
    limits = [budget.seconds, budget.simulated_steps, budget.gradients if gradients else None]
    return without if all(limit is None for limit in limits) else math.inf


def affordable(meter: Meter, without: int) -> int:
    """How many gradients of all scenarios a budget pays for; ``without`` where it limits neither steps nor sweeps."""
    scenarios, budget = meter.problem.scenarios.count, meter.budget
    limits = [without]
    if budget.simulated_steps is not None or budget.gradients is not None:
        steps = 2 * scenarios * max(meter.problem.horizon, 1)
        limits = [
            int(limit) // price
            for limit, price in ((budget.simulated_steps, steps), (budget.gradients, scenarios))
            if limit is not None
        ]
    return max(1, min(limits))
