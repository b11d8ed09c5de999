"""Checks of a strategy's own fields."""

from __future__ import annotations

import math
from typing import Any

from dpcontrol.results import UsageError


def whole(who: str, **fields: Any) -> None:
    """Refuse fields that are not whole numbers of at least 1."""
    for name, value in fields.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise UsageError(f"{who}({name}=...) must be a whole number, at least 1; found {value!r}.")


def positive(who: str, **fields: Any) -> None:
    """Refuse fields that are not positive finite numbers."""
    for name, value in fields.items():
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value < math.inf:
            raise UsageError(f"{who}({name}=...) must be a positive number; found {value!r}.")
