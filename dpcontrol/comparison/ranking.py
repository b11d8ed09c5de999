"""Who stands where: ranked by mean loss, with one first place for all that cannot be told apart from the best.

Two strategies are compared by the paired relative difference of their mean losses on the same scenarios. A later one
shares the first place if that difference to the best is practically irrelevant (below ``RELEVANT``, with an interval
inside ``MARGIN``), or if its interval holds zero. "Not to be told apart" is no transitive relation, ranks are: so the
place is shared by everybody down to the last such strategy, those in between included.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dpcontrol.comparison.records import NOT_RUN, Results
from dpcontrol.comparison.stats import Estimate, paired_difference
from dpcontrol.comparison.summary import Summary
from dpcontrol.comparison.words import number

RELEVANT, MARGIN = 0.005, 0.01
EQUAL = 1e-9  # relative; less than this is rounding

# What a paired difference says.
ROUNDING, SAME, OPEN, CLEAR = "equal to rounding", "practically the same", "not to be told apart", "clear"


@dataclass(frozen=True)
class Gap:
    """How far a strategy is above (below, if negative) another in mean loss.

    Attributes:
        summary: the strategy.
        difference: relative, paired over the scenarios.
        verdict: ``ROUNDING``, ``SAME``, ``OPEN`` or ``CLEAR``.
    """

    summary: Summary
    difference: Estimate
    verdict: str


@dataclass(frozen=True)
class Standing:
    """The best, those that share its place, and those behind, each in the order of the ranking."""

    best: Summary
    sharing: tuple[Gap, ...]
    behind: tuple[Gap, ...]

    @property
    def first(self) -> tuple[Summary, ...]:
        """All in the first place."""
        return self.best, *(gap.summary for gap in self.sharing)


def gap(reference: Summary, other: Summary) -> Gap:
    """How ``other`` compares with ``reference``; both have losses on the same scenarios."""
    difference = paired_difference(reference.losses, other.losses)
    low, high = difference.interval or (difference.value, difference.value)
    if max(abs(low), abs(high)) <= EQUAL:
        verdict = ROUNDING
    elif abs(difference.value) < RELEVANT and -MARGIN <= low and high <= MARGIN:
        verdict = SAME
    elif difference.interval is not None and low <= 0.0 <= high:
        verdict = OPEN
    else:
        verdict = CLEAR
    return Gap(other, difference, verdict)


def standing(summaries: Sequence[Summary]) -> Standing | None:
    """Who stands where; ``None`` if nobody has an answer.

    Args:
        summaries: best first, as :func:`~dpcontrol.comparison.summary.summarise` sorts them. Those with runs that gave
            no answer come last and share no first place.
    """
    ranked = [summary for summary in summaries if summary.loss is not None]
    if not ranked:
        return None
    best = ranked[0]
    gaps = [gap(best, other) for other in ranked[1:]]
    last = max(
        (place for place, each in enumerate(gaps, 1) if each.summary.complete and each.verdict != CLEAR),
        default=0,
    )
    return Standing(best, tuple(gaps[:last]), tuple(gaps[last:]))


def unfinished(results: Results) -> tuple[int, int]:
    """How many runs were interrupted, and how many were not run: budgets are equal only if there are none."""
    stopped = sum(run.status == "interrupted" for run in results.runs)
    return stopped, sum(run.status == NOT_RUN for run in results.runs)


def more_loss(reference: Summary, each: Gap) -> str:
    """How much more loss, with its interval: ``6.9 % more loss [5.1, 9]``."""
    low, high = each.difference.interval or (None, None)
    value = each.difference.value
    if each.verdict == ROUNDING:
        return "the same loss"
    if max(abs(value), abs(low or 0.0), abs(high or 0.0)) < 1e-5:
        return f"less than 0.001 % {'below' if value < 0 else 'above'} in loss"
    if value >= 2.0 and reference.losses.mean() > 0:
        interval = "" if low is None or high is None else f" [{number(1 + low)}, {number(1 + high)}]"
        return f"{number(1 + value)} times the loss{interval}"
    sign = -1.0 if value < 0 else 1.0
    # what is far below the digits that are shown is rounding
    ends = (
        [] if low is None or high is None else sorted(100 * sign * round(end, 9) + 0.0 for end in (low, high))
    )
    interval = f" [{', '.join(number(end, 2) for end in ends)}]" if ends else ""
    return f"{number(100 * abs(value), 2)} % {'less' if value < 0 else 'more'} loss{interval}"
