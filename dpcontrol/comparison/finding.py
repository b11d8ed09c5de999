"""Who won, in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dpcontrol.comparison import endings, examined_said, families, posteriors, pricing, ranking
from dpcontrol.comparison.ranking import Gap, Standing, gap, more_loss, standing, unfinished
from dpcontrol.comparison.records import Results
from dpcontrol.comparison.stats import NOTHING, OVER_BOTH, OVER_SCENARIOS, OVER_SEEDS
from dpcontrol.comparison.summary import ROUNDING, Summary, metric_names
from dpcontrol.comparison.words import amount, counted, listed, number, with_interval

RULE = (
    f"The first place is shared with strategies whose mean loss, paired over scenarios, is less than "
    f"{100 * ranking.RELEVANT:g} % from the lowest with an interval inside ±{100 * ranking.MARGIN:g} %, or whose "
    "interval holds 0, and with those ranked between."
)


@dataclass(frozen=True)
class Finding:
    """A headline of one line, and the sentences that support it; its end are ``reservations`` where something has to be
    taken back."""

    headline: str
    sentences: tuple[str, ...]
    reservations: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "\n".join([self.headline, *(f"- {sentence}" for sentence in self.sentences)])


def finding(results: Results, summaries: Sequence[Summary]) -> Finding:
    """What the comparison says: winner, ties, losers, the bar, what was refused and what failed."""
    found = standing(summaries)
    drawn = posteriors.sampled(results)
    trouble = [
        *endings.seen(results),
        *endings.foreseeing(results),
        *([] if drawn else endings.own_limits(results)),
        *endings.unplayed(results),
        *endings.idle(results),
        *endings.unpaid(results),
        *endings.unvalidated(results),
        *endings.stalls(results),
        *endings.failures(summaries),
        *(f"Refused: {summary.refused}" for summary in summaries if summary.refused is not None),
    ]
    stopped, missing = unfinished(results)
    if not drawn and posteriors.sought(results) and found is not None and not stopped + missing:
        return Finding(posteriors.NO_DRAWS, (*posteriors.silent(results), *trouble))
    if found is None:
        start = "Incomplete comparison: no run has an answer so far." if stopped + missing else None
        return Finding(start or "No run has an answer.", (*trouble, *resumable(stopped, missing)))
    if stopped + missing:
        return _so_far(results, summaries, found, trouble)
    if drawn:
        told = [*posteriors.sentences(drawn, results), *posteriors.silent(results)]
        return Finding(posteriors.headline(drawn), (*told, *trouble))
    apart = pricing.tuned_apart(results)
    marks, first = results.marks, [summary.label for summary in found.first]
    sentences = [
        *(examined_said.unstable(marks, first) if marks is not None else []),
        *([apart] if apart else []),
        _first(results, found),
        *endings.one_seed(summaries),
        *families.sentences(results, summaries),
        *_shared(found),
        *_behind(found, summaries),
        *_bar(found, summaries),
        *pricing.told(results, summaries),
        *(examined_said.sentences(marks) if marks is not None else []),
    ]
    lost = examined_said.reservation(marks, first) if marks is not None else ""
    lucky = any(summary.one_seed for summary in found.first)
    taken_back = (
        *([", without a single step"] if {*first} <= {*endings.idle_labels(results)} else []),
        *([", with one seed"] if lucky else []),
        *([lost] if lost else []),
        *([", with unequal tuning"] if apart else []),
    )
    headline = _headline(found, summaries) + "".join(taken_back)
    return Finding(headline, (*sentences, *trouble), taken_back)


def budget_words(results: Results) -> str:
    """Whether budgets were equal, and what they were."""
    if not results.limits:
        budget = "No common budget was set: every run went on to its own end, so costs differ."
    elif any(unfinished(results)):
        budget = f"The budget is {results.budget} for every run, but not every run came to its end."
    else:
        budget = f"Every run had the same budget: {results.budget}."
    return budget


def caption(results: Results, summaries: Sequence[Summary]) -> str:
    """What the numbers of the table are: means, intervals, and when a place is shared."""
    drawn = bool(posteriors.sampled(results))
    several = sum(summary.loss is not None for summary in summaries) > 1 and not drawn
    shared = f" {RULE}" if several and not any(unfinished(results)) else ""
    kinds = {summary.loss.over for summary in summaries if summary.loss is not None}
    words = {
        OVER_SCENARIOS: f"over scenarios (BCa bootstrap) for {_ran_once(summaries)}",
        OVER_BOTH: "over seeds and scenarios (both resampled) for those with several seeds",
        OVER_SEEDS: "over seeds (bootstrap) for those with several seeds: there are too few scenarios to resample",
        NOTHING: "none where there is a single run of too few scenarios",
    }
    said = "; ".join(words[kind] for kind in words if kind in kinds)
    loss = (
        "The loss is that of the most probable point seen, minus its log-density: no measure of a posterior. "
        if drawn
        else ""
    )
    counts = [summary.answered for summary in summaries]
    typical = (
        " Of several seeds a figure is the interquartile mean over runs (without lowest and highest quarter)."
    )
    middle = typical if max(counts, default=0) >= 4 else ""
    pairs = [summary.loss.over for summary in summaries if summary.loss is not None and summary.answered == 2]
    # where scenarios are resampled too, an interval reaches further than the two runs
    two = " Of two seeds it is no more than the lowest and the highest." if OVER_SEEDS in pairs else ""
    alone = (
        " Seeds alone: the 95 % interval of the loss over runs on these very scenarios (BCa bootstrap)."
        if any(summary.luck is not None and summary.luck.interval is not None for summary in summaries)
        else ""
    )
    ends = f"95 % intervals: {said or 'none'}.{two}{alone}{shared}"
    return f"{loss}Ratios are ratios of means over scenarios.{middle} {ends}"


def _ran_once(summaries: Sequence[Summary]) -> str:
    """Who has a single run: those without chance, and those whose luck nobody knows."""
    lucky = [summary.label for summary in summaries if summary.one_seed]
    if not lucky:
        return "strategies without chance, which ran once"
    return f"what ran once, of {listed(lucky)} with a single seed, whose luck is not in them"


# -- the first place ---------------------------------------------------------------------------------------------------


def _name(summary: Summary) -> str:
    """A strategy's label; a law is called one."""
    return f"the simple law {_law(summary)}" if summary.law else summary.label


def _law(summary: Summary) -> str:
    return summary.label.removeprefix("baseline: ")


def _figure(members: Sequence[Summary], summaries: Sequence[Summary]) -> str:
    """The first figure of merit and its values: the problem's own if it has one, else the loss."""
    names = metric_names(summaries)
    name = names[0] if names and all(names[0] in member.metrics for member in members) else None
    if name is not None:
        values = [member.metrics[name].value for member in members]
    else:
        values = [member.loss.value for member in members if member.loss is not None]
    ends = list(dict.fromkeys(number(end) for end in (min(values), max(values))))
    return f"{(name or 'loss').replace('_', ' ')} {' to '.join(ends)}"


def _headline(found: Standing, summaries: Sequence[Summary]) -> str:
    laws = [summary for summary in found.first if summary.law]
    others = [summary.label for summary in found.first if not summary.law]
    figure = _figure(found.first, summaries)
    without = ", without gradients" if families.without_gradients(found.first, summaries) else ""
    if laws and others:
        verb = "shares" if len(others) == 1 else "share"
        names = listed([_law(law) for law in laws])
        return (
            f"No strategy clearly beats the simple law {names}; {listed(others)} {verb} its place: {figure}"
        )
    if laws:
        return f"No strategy beats the simple law: {listed([_law(law) for law in laws])}, {figure}"
    if len(others) > 1:
        return f"{listed(others)} share the first place{without}: {figure}"
    return f"{others[0]} is best{without}: {figure}"


def _first(results: Results, found: Standing) -> str:
    best = found.best
    equal = [best, *(each.summary for each in found.sharing if each.verdict == ranking.ROUNDING)]
    figures = [
        f"{name.replace('_', ' ')} {with_interval(value)}"
        for name, value in best.metrics.items()
        if abs(value.value) > ROUNDING
    ]
    spent = f"with {results.budget} for every run" if results.limits else "without a common budget"
    names = listed([_name(summary) for summary in equal])
    same = ", equal to rounding" if len(equal) > 1 else ""
    return _capital(f"{names} reached the lowest mean loss{same}, {with_interval(best.loss)}, {spent}") + (
        f" ({'; '.join(figures)})." if figures else "."
    )


def _shared(found: Standing) -> list[str]:
    """The gap of each that shares the place, and which of them was cheapest."""
    if not found.sharing:
        return []
    sentences = []
    told = [each for each in found.sharing if each.verdict != ranking.ROUNDING]
    if told:
        gaps = "; ".join(
            f"{_name(each.summary)} {more_loss(found.best, each)}, {_why(each)}" for each in told
        )
        sentences.append(f"In the first place with {_name(found.best)}, {_paired(told)}: {gaps}.")
    searched = sorted((s for s in found.first if not s.law), key=lambda summary: summary.simulated_steps)
    if len(searched) > 1 and searched[-1].simulated_steps > 0:
        costs = [f"{amount(s.simulated_steps)} ({s.label})" for s in searched[1:]]
        sentences.append(
            f"Of those in the first place {searched[0].label} was cheapest: "
            f"{amount(searched[0].simulated_steps)} simulated step{'' if searched[0].simulated_steps == 1 else 's'} "
            f"against {listed(costs)}."
        )
    return sentences


def _why(each: Gap) -> str:
    if each.verdict == ranking.CLEAR:
        return "a clear gap, but ranked before one that is not to be told apart"
    return each.verdict


def _paired(gaps: Sequence[Gap]) -> str:
    if all(each.difference.interval is None for each in gaps):
        return "on the same scenarios, too few for intervals"
    return "paired on the same scenarios"


# -- the others --------------------------------------------------------------------------------------------------------


def _behind(found: Standing, summaries: Sequence[Summary]) -> list[str]:
    if not found.behind:
        return []
    told = [
        f"{_name(each.summary)} {more_loss(found.best, each)}"
        + ("" if each.summary.complete else ", not every run of it has an answer")
        + f" ({_figure([each.summary], summaries)})"
        for each in found.behind
    ]
    return [f"Behind {_name(found.best)}, {_paired(found.behind)}: {'; '.join(told)}."]


def _bar(found: Standing, summaries: Sequence[Summary]) -> list[str]:
    """Which strategies beat the best simple law, again paired on the same scenarios."""
    bar = next((summary for summary in summaries if summary.law and summary.loss is not None), None)
    if bar is None or any(summary.law for summary in found.first):
        return []  # the headline has said it
    beat: list[str] = []
    level: list[str] = []
    not_beat: list[str] = []
    for summary in summaries:
        if summary.law or summary.loss is None:
            continue
        against = gap(bar, summary)
        if against.verdict != ranking.CLEAR:
            level.append(summary.label)
        else:
            (beat if against.difference.value < 0 else not_beat).append(summary.label)
    start = f"The bar is {_law(bar)}, a simple law, at {_figure([bar], summaries)}"
    if not level and not not_beat:
        return [f"{start}: every strategy with an answer beats it."]
    parts = [f"{listed(beat)} {'beat' if len(beat) > 1 else 'beats'} it"] if beat else []
    parts += [f"{listed(level)} cannot be told apart from it"] if level else []
    parts += [f"{listed(not_beat)} {'do' if len(not_beat) > 1 else 'does'} not reach it"] if not_beat else []
    return [f"{start}: {'; '.join(parts)}."]


# -- interrupted -------------------------------------------------------------------------------------------------------


def _so_far(
    results: Results, summaries: Sequence[Summary], found: Standing, trouble: Sequence[str]
) -> Finding:
    """No winner where budgets are not equal: who leads, how far the others are, and what is missing."""
    best = found.best
    everybody = (*found.sharing, *found.behind)
    sentences = resumable(*unfinished(results))
    if everybody:
        gaps = "; ".join(f"{_name(each.summary)} {more_loss(best, each)}" for each in everybody)
        sentences.append(f"So far, with unequal budgets, and {_paired(everybody)}: {gaps}.")
    headline = f"Incomplete comparison: {_name(best)} leads so far, {_figure([best], summaries)}"
    return Finding(headline, (*sentences, *trouble))


def resumable(stopped: int, missing: int) -> list[str]:
    if not stopped + missing:
        return []
    return [
        f"It was interrupted ({counted(stopped, 'run')} ended early, {missing} not run), so budgets are not equal and "
        "nobody has won. It can be resumed."
    ]


def _capital(sentence: str) -> str:
    """Only a law's description is written large: labels stay as they are."""
    return f"The{sentence[3:]}" if sentence.startswith("the simple law") else sentence
