"""Numbers and lists as people write them: one way for tables, finding and report."""

from __future__ import annotations

import math
from collections.abc import Sequence

from dpcontrol.comparison.stats import Estimate

UNITS = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


def number(value: float | None, digits: int = 3) -> str:
    """A number with so many digits."""
    if value is None or value != value:
        return "–"
    if value != 0 and (abs(value) < 1e-3 or abs(value) >= 1e6):
        return f"{value:.{digits - 1}e}".replace("e-0", "e-").replace("e+0", "e+")
    return f"{value:.{digits}g}" if abs(value) < 10**digits else f"{value:,.0f}"


def amount(value: float) -> str:
    """A count: ``800``, ``3,200``, ``6.4 M``."""
    if value < 9999.5:
        return f"{value:,.0f}"
    # what rounds up to 1000 of one unit is 1 of the next
    size, letter = next((unit for unit in UNITS if value >= 0.9995 * unit[0]), UNITS[-1])
    return f"{value / size:.3g} {letter}"


def with_interval(estimate: Estimate | None) -> str:
    """A value and its interval in brackets."""
    if estimate is None:
        return "–"
    if estimate.interval is None:
        return number(estimate.value)
    return f"{number(estimate.value)} [{number(estimate.interval[0])}, {number(estimate.interval[1])}]"


def listed(names: Sequence[str]) -> str:
    """``a, b and c``."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def counted(count: int, one: str, many: str | None = None) -> str:
    """``1 run``, ``3 runs``."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def error_words(error: float, digits: int = 3) -> str:
    """An error; infinite where a rollout has failed."""
    if math.isinf(error):
        return "∞"
    return "0" if error == 0 else number(error, digits)


def ratio_words(error: float, base: float, digits: int = 2) -> str:
    """One error over another; a dash where that is no number."""
    if math.isinf(base) or base == 0:
        return "–"
    return error_words(error / base, digits)
