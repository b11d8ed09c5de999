"""Who won, in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dpcontrol.comparison.records import NOT_RUN, Results
from dpcontrol.comparison.stats import paired_difference
from dpcontrol.comparison.summary import ROUNDING, Summary, amount, metric_names, number, with_interval

# Two strategies whose losses differ by less, with certainty, have found the same answer.
SAME = 1e-3


@dataclass(frozen=True)
class Finding:
    """A headline of one line, and the sentences that support it."""

    headline: str
    sentences: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join([self.headline, *(f"- {sentence}" for sentence in self.sentences)])


def finding(results: Results, summaries: Sequence[Summary]) -> Finding:
    """What the comparison says: winner, ties, losers, the bar, what was refused and what failed."""
    ranked = [summary for summary in summaries if summary.loss is not None]
    contenders = [summary for summary in ranked if not summary.law]
    trouble = [*_failures(summaries), *_refusals(summaries), *_unfinished(results)]
    if not ranked:
        return Finding("No run has an answer.", tuple(trouble))
    complete = [summary for summary in ranked if summary.complete]
    best = (complete or ranked)[0]
    level = [
        summary for summary in ranked if summary is not best and summary.complete and _tied(best, summary)
    ]
    sentences = [_first(results, best), *_second(best, contenders, level), *_bar(ranked)]
    return Finding(_headline(best, level, summaries), (*sentences, *_losers(ranked, best, level), *trouble))


def _figure(summary: Summary, summaries: Sequence[Summary]) -> tuple[str, str]:
    """The first figure of merit and its value: the problem's own if it has one, else the loss."""
    names = metric_names(summaries)
    if names and names[0] in summary.metrics:
        return names[0].replace("_", " "), number(summary.metrics[names[0]].value)
    assert summary.loss is not None
    return "loss", number(summary.loss.value)


def _headline(best: Summary, level: Sequence[Summary], summaries: Sequence[Summary]) -> str:
    name, value = _figure(best, summaries)
    if best.law:
        return f"No strategy beats the simple law: {best.label.removeprefix('baseline: ')}, {name} {value}"
    others = [summary.label for summary in level if not summary.law]
    if others:
        return f"{_listed([best.label, *others])} share the first place: {name} {value}"
    return f"{best.label} is best: {name} {value}"


def _first(results: Results, best: Summary) -> str:
    assert best.loss is not None
    figures = [
        f"{name.replace('_', ' ')} {with_interval(found)}"
        for name, found in best.metrics.items()
        if abs(found.value) > ROUNDING
    ]
    spent = f"with {results.budget} for every run" if results.budget else "without a common budget"
    return f"{best.label} reached the lowest mean loss, {with_interval(best.loss)}, {spent}" + (
        f" ({'; '.join(figures)})." if figures else "."
    )


def _tied(best: Summary, other: Summary) -> bool:
    difference = paired_difference(best.losses, other.losses)
    if difference.interval is None:
        return abs(difference.value) < SAME
    return difference.interval[0] <= 0.0 or difference.interval[1] < SAME


def _second(best: Summary, contenders: Sequence[Summary], level: Sequence[Summary]) -> list[str]:
    """How clear the lead is: whether intervals overlap, and the difference scenario by scenario."""
    rest = [summary for summary in contenders if summary is not best]
    if not rest:
        return []
    sentences = [_gap(best, other, other in level) for other in rest[: max(1, len(level))]]
    if level:
        sentences.append(_cheapest([best, *(summary for summary in level if not summary.law)]))
    assert best.loss is not None
    overlapping = [s.label for s in rest if s.loss is not None and best.loss.overlaps(s.loss)]
    if best.loss.interval is None:
        return [*sentences, "There are no intervals that could overlap."]
    if overlapping:
        many = "intervals" if len(overlapping) > 1 else "interval"
        verb = "overlap" if len(overlapping) > 1 else "overlaps"
        return [*sentences, f"The 95 % {many} of {_listed(overlapping)} {verb} that of {best.label}."]
    return [*sentences, f"The 95 % interval of {best.label} overlaps with no other strategy's."]


def _cheapest(level: Sequence[Summary]) -> str:
    cheap = min(level, key=lambda summary: summary.simulated_steps)
    return f"The cheapest of them was {cheap.label}, with {amount(cheap.simulated_steps)} simulated steps."


def _gap(best: Summary, other: Summary, level: bool) -> str:
    difference = paired_difference(best.losses, other.losses)
    if max(map(abs, difference.interval or (difference.value,))) < SAME:
        return f"{other.label} found the same loss (the difference is below {100 * SAME:.1g} %)."
    percent = f"{100 * difference.value:.3g} %"
    if difference.interval is None:
        return (
            f"{other.label} is {percent} above it in loss; there is too little to resample for an interval."
        )
    interval = f"95 % interval {100 * difference.interval[0]:.3g} to {100 * difference.interval[1]:.3g} %"
    verdict = "no clear difference" if level else "a clear difference"
    return f"On the same scenarios {other.label} is {percent} above it in loss ({interval}), {verdict}."


def _bar(ranked: Sequence[Summary]) -> list[str]:
    laws = [summary for summary in ranked if summary.law]
    if not laws:
        return []
    bar = laws[0]
    if bar is ranked[0]:
        return []  # the headline has said it
    assert bar.loss is not None
    below: list[str] = []
    above: list[str] = []
    for summary in ranked:
        if not summary.law and summary.loss is not None:
            (below if summary.loss.value < bar.loss.value else above).append(summary.label)
    name, value = _figure(bar, ranked)
    start = f"The bar is {bar.label.removeprefix('baseline: ')}, a simple law, at {name} {value}:"
    if not above:
        return [f"{start} every strategy with an answer beats it."]
    if not below:
        return [f"{start} no strategy beats it."]
    return [f"{start} {_listed(below)} {'beat' if len(below) > 1 else 'beats'} it, {_listed(above)} not."]


def _losers(ranked: Sequence[Summary], best: Summary, level: Sequence[Summary]) -> list[str]:
    behind = [summary for summary in ranked if summary is not best and summary not in level]
    if not behind:
        return []
    figures = [f"{summary.label} ({' '.join(_figure(summary, ranked))})" for summary in behind]
    return [f"Behind: {', '.join(figures)}."]


def _failures(summaries: Sequence[Summary]) -> list[str]:
    return [
        f"{summary.failed} of {summary.asked} {'run' if summary.asked == 1 else 'runs'} of {summary.label} failed"
        + (f"; its figures are of the {summary.answered} with an answer." if summary.answered else ".")
        for summary in summaries
        if summary.failed
    ]


def _refusals(summaries: Sequence[Summary]) -> list[str]:
    return [f"Refused: {summary.refused}" for summary in summaries if summary.refused is not None]


def _unfinished(results: Results) -> list[str]:
    stopped = sum(run.status == "interrupted" for run in results.runs)
    missing = sum(run.status == NOT_RUN for run in results.runs)
    if not stopped + missing:
        return []
    return [
        f"The comparison was interrupted, so budgets are not equal (ended early: {stopped}, not run: {missing}). "
        "It can be resumed."
    ]


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
