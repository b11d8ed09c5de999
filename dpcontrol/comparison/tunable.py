"""Where strategies may be tuned: ranges of their fields, and points drawn from them.

A *space* is a mapping from a field of the strategy to where its values lie. The ranges of the table are about a factor
of ten around each default: wide enough that a default can be wrong, narrow enough for a few trials.
"""

from __future__ import annotations

import dataclasses
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dpcontrol.results import UsageError
from dpcontrol.run import Strategy
from dpcontrol.strategies.checks import nearest


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``, spread evenly in their logarithm (or, without ``log``, themselves)."""

    low: float
    high: float
    log: bool = True
    whole: bool = False

    def __post_init__(self) -> None:
        finite = all(isinstance(end, (int, float)) and math.isfinite(end) for end in (self.low, self.high))
        if not finite or not self.low < self.high or (self.log and self.low <= 0):
            above = " above 0" if self.log else ""
            raise UsageError(
                f"a range needs two numbers{above}, the lower one first; found {self.low!r} to {self.high!r}."
            )

    def at(self, share: float) -> Any:
        """The number at a share (0 to 1) of the way."""
        if self.log:
            found = math.exp(math.log(self.low) + share * (math.log(self.high) - math.log(self.low)))
        else:
            found = self.low + share * (self.high - self.low)
        # three digits say all that a search of a few trials finds out
        return round(found) if self.whole else float(f"{found:.3g}")

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}{', logarithmic' if self.log else ''}"


@dataclass(frozen=True)
class Choice:
    """One of several values, each as likely as the others."""

    values: tuple[Any, ...]

    def __post_init__(self) -> None:
        if len(self.values) == 0:
            raise UsageError("a choice needs one value or more; found none.")

    def at(self, share: float) -> Any:
        """The value at a share (0 to 1) of the way."""
        return self.values[min(int(share * len(self.values)), len(self.values) - 1)]

    def __str__(self) -> str:
        return " or ".join(repr(value) for value in self.values)


Space = Mapping[str, Range | Choice]

DISCOUNTS = Choice((0.97, 0.99, 0.997, 1.0))
# Name of the strategy -> field -> where it lies. Network sizes are left alone, so that learned methods stay alike.
TUNABLE: Mapping[str, Space] = {
    "adjoint": {"learning_rate": Range(3e-3, 1.0), "schedule": Choice((None, "cosine"))},
    "lbfgs": {"memory": Range(5, 50, whole=True), "line_search": Range(10, 50, whole=True)},
    "newton_krylov": {"radius": Range(0.1, 10.0), "inner": Choice(("trust-ncg", "trust-krylov"))},
    "gauss_newton": {"radius": Range(0.1, 100.0)},
    "policy": {
        "learning_rate": Range(1e-3, 3e-2),
        "batch": Choice((4, 8, 16, 32, 64)),
        "clip": Range(1.0, 10.0),
    },
    "shac": {
        "learning_rate": Range(1e-3, 3e-2),
        "batch": Choice((4, 8, 16, 32, 64)),
        "window": Choice((4, 8, 16, 32)),
    },
    "planner": {"scheme": Choice(("staggered", "refined")), "padding": Choice(("zeros", "replicate"))},
    "evolved_policy": {
        "learning_rate": Range(3e-3, 0.1),
        "sigma": Range(0.01, 0.2),
        "population": Choice((16, 32, 64)),
        "batch": Choice((8, 16, 32)),
    },
    "mpc": {"iterations": Range(3, 50, whole=True), "hold": Choice((1, 2, 4))},
    "mppi": {
        "temperature": Range(0.01, 1.0),
        "sigma": Range(0.1, 2.0),
        "smoothing": Choice((0.0, 0.5, 0.8, 0.95)),
    },
    "ppo": {
        "learning_rate": Range(5e-5, 3e-3),
        "minibatches": Choice((4, 8, 16, 32)),
        "epochs": Choice((5, 10, 20)),
        "clip": Range(0.1, 0.4),
        "spread": Range(-2.5, 0.0, log=False),
        "discount": DISCOUNTS,
    },
    "sac": {
        "learning_rate": Range(1e-4, 3e-3),
        "updates": Range(0.1, 1.0),
        "batch": Choice((128, 256, 512)),
        "entropy": Range(-4.0, -0.5, log=False),
        "discount": DISCOUNTS,
    },
    "cmaes": {"population": Range(6, 32, whole=True), "sigma": Range(0.05, 2.0)},
    "cem": {
        "population": Range(16, 128, whole=True),
        "elites": Range(0.1, 0.5, log=False),
        "sigma": Range(0.2, 3.0),
    },
}


def space_for(name: str, strategy: Strategy, given: Mapping[str, Any] | None) -> dict[str, Range | Choice]:
    """The user's space, checked, or the table's.

    Entries may be a :class:`Range` or :class:`Choice`, a pair ``(low, high)`` (a logarithmic range where both are
    positive), or a list of values.

    Raises:
        UsageError: for a field that the strategy does not have, or where neither the user nor the table knows a space.
    """
    known = [entry.name for entry in dataclasses.fields(strategy) if entry.init]  # type: ignore[arg-type]
    if given is None:
        # fields that a strategy no longer has are not tuned
        found = {field: where for field, where in TUNABLE.get(name, {}).items() if field in known}
        if not found:
            fields = ", ".join(known) or "none"
            raise UsageError(
                f"no ranges are known for {name}; give some, such as space={{'field': (0.1, 10)}}, of its fields: "
                f"{fields}."
            )
        return found
    if not isinstance(given, Mapping) or not given:
        raise UsageError(
            f"space must map fields to ranges, such as {{'learning_rate': (1e-4, 1e-2)}}; found {given!r}."
        )
    for field in given:
        if field not in known:
            raise UsageError(f"strategy {name} has no option {field!r}; {nearest(field, known)}")
    return {field: _where(field, where) for field, where in given.items()}


def _where(field: str, given: Any) -> Range | Choice:
    if isinstance(given, Range | Choice):
        return given
    if isinstance(given, tuple) and len(given) == 2 and all(_number(end) for end in given):
        whole = all(isinstance(end, int) for end in given)
        return Range(given[0], given[1], log=given[0] > 0, whole=whole)
    if isinstance(given, list) and given:
        return Choice(tuple(given))
    raise UsageError(
        f"the space of {field} must be a pair (low, high), a list of values, a Range or a Choice; found {given!r}."
    )


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def spaces_of_words(pairs: Sequence[str], literal: Any) -> dict[str, Any] | None:
    """``FIELD=LOW:HIGH`` and ``FIELD=A,B,C`` as a space; ``None`` for none. ``literal`` reads one value.

    Raises:
        UsageError: for anything else.
    """
    found: dict[str, Any] = {}
    for pair in pairs:
        field, equals, text = pair.partition("=")
        ends = text.split(":")
        if not equals or not field.isidentifier() or not text or len(ends) > 2:
            raise UsageError(
                f"--space takes FIELD=LOW:HIGH or FIELD=A,B,C, such as --space learning_rate=1e-4:1e-2; found {pair!r}."
            )
        if len(ends) == 2:
            low, high = (literal(end) for end in ends)
            if not (_number(low) and _number(high)):
                raise UsageError(f"--space {field} needs numbers on both sides of the colon; found {text!r}.")
            found[field] = (low, high)
        else:
            found[field] = [literal(value) for value in re.split(r"\s*,\s*", text)]
    return found or None


def points(space: Space, count: int, seed: int) -> list[dict[str, Any]]:
    """``count`` points of a space: a scrambled Sobol sequence, the same for the same seed."""
    from scipy.stats import qmc

    with warnings.catch_warnings():
        # balance needs a power of two; any number of trials may be asked for
        warnings.simplefilter("ignore", UserWarning)
        shares = qmc.Sobol(len(space), rng=seed).random(count)
    return [{name: space[name].at(float(x)) for name, x in zip(space, row, strict=True)} for row in shares]
