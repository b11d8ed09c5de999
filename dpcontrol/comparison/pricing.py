"""The table of what quality costs, as words: for the terminal and for the report."""

from __future__ import annotations

import math
from collections.abc import Sequence

from dpcontrol.comparison import costs
from dpcontrol.comparison.costs import WITHIN, BreakEven
from dpcontrol.comparison.decisions import LAW, NETWORK, REPLANNED, SOLVED, TOGETHER
from dpcontrol.comparison.profiles import profiles
from dpcontrol.comparison.records import Results
from dpcontrol.comparison.summary import Summary, aligned
from dpcontrol.comparison.words import amount, counted, listed, number

NEAR = f"{100 * WITHIN:g} %"
TWICE = 2.0  # the factor whose share of the profile stands in the table
HEAD = (
    "strategy",
    f"steps to within {NEAR}",
    "seconds",
    "one decision",
    "breaks even",
    "best or equal",
    "within twice",
    "tuning trials",
)

DECISION = HEAD[3]
SPARE, EMPTY = (DECISION, "breaks even", "tuning trials"), ("–", "none", "0")


def rows(results: Results, summaries: Sequence[Summary]) -> list[list[str]]:
    """The cells below :data:`HEAD`."""
    even = {each.controller: each for each in costs.break_even(results, summaries)}
    shares = {each.label: each for each in profiles(results, summaries)}
    found = []
    for summary in summaries:
        if summary.refused is not None:
            continue
        profile = shares.get(summary.label)
        found.append(
            [
                summary.label,
                *_there(costs.reached(results, summary.label)),
                _decision(results, summary.label),
                _even(even.get(summary.label)),
                "–" if profile is None else _percent(profile.share(1.0)),
                "–" if profile is None else _percent(profile.share(TWICE)),
                _trials(results, summary),
            ]
        )
    return found


def table(results: Results, summaries: Sequence[Summary]) -> tuple[list[str], list[list[str]]]:
    """Head and rows; what says nothing about any correction is left out."""
    found = rows(results, summaries)
    kept = [
        column
        for column, name in enumerate(HEAD)
        if results.marks is None or name not in SPARE or any(row[column] not in EMPTY for row in found)
    ]
    return [HEAD[column] for column in kept], [[row[column] for column in kept] for row in found]


def text_table(results: Results, summaries: Sequence[Summary]) -> str:
    """The table for a terminal."""
    head, found = table(results, summaries)
    return aligned(head, found, range(1, len(head)))


def notes(results: Results, summaries: Sequence[Summary]) -> list[str]:
    """What the columns are, and the rules behind them."""
    kinds = {costs.kind_of(results, label) for label in results.labels}
    parts = [
        f"To within {NEAR}: medians over runs of what it took until the mean loss was within {NEAR} of the best run of "
        "anybody; where at least half of the runs never got there, how many did."
    ]
    if NETWORK in kinds:
        parts.append(
            "Learned controllers watch validation scenes while they train: their courses are scaled to end at the loss "
            "that they are judged by."
        )
    said = [WORDS[kind] for kind in WORDS if kind in kinds]
    if said and DECISION in table(results, summaries)[0]:
        parts.append(f"One decision is one control for one scene afterwards: {'; '.join(said)}.")
    found = costs.break_even(results, summaries)
    if found:
        both = [each.controller for each in found] + [
            each.solver for each in found if each.solver is not None
        ]
        tuned = any(trials_of(results, label) for label in both)
        trials = ", tuning trials included (the solver's too)," if tuned else ""
        parts.append(
            f"Breaks even: the number of scenes from which on the controller's whole training{trials} has cost less "
            "simulated steps than solving each of them, by the cheapest strategy that was solved scene by scene, until "
            f"it is as good as the controller; never, where the controller is more than {NEAR} above what solving "
            "reaches (the number in brackets then holds for the controller's own quality), or no better than a simple "
            "law."
        )
    if profiles(results, summaries):
        parts.append(
            "Best or equal, within twice: the share of runs and scenes in which the loss was the lowest of all, and at "
            "most twice that; runs that failed count as missed."
        )
    parts.append(_tuning(results))
    return parts


# how each kind of decision was measured
WORDS = {
    NETWORK: "a call of the network for one scene alone (measured, mean over an episode)",
    LAW: "a call of the law (measured likewise)",
    REPLANNED: "what plans again at every step was run again with one scene alone, which simulated no more than a "
    "scene of the batch (seconds over steps)",
    SOLVED: "what is solved scene by scene has to be solved again, and costs its whole solve (seconds over scenes, "
    "which ran as one batch)",
    TOGETHER: "what is sought for all scenes together needs no further solve",
}


def _there(found: costs.Reached) -> tuple[str, str]:
    if found.steps is None or found.seconds is None:
        words = "never" if found.runs == 0 else f"{found.runs} of {counted(found.asked, 'run')}"
        return words, "–"
    return amount(found.steps), seconds_words(found.seconds)


def _decision(results: Results, label: str) -> str:
    kind, seconds = costs.kind_of(results, label), costs.decision_seconds(results, label)
    if kind is None or seconds is None:
        return "–"
    if kind == TOGETHER:
        return "none"
    return f"{seconds_words(seconds)}{' a solve' if kind == SOLVED else ''}"


def _even(found: BreakEven | None) -> str:
    if found is None:
        return "–"
    if found.law is not None:
        return "never: a law does"
    if found.steps is None:
        return "at once: no solver is as good"
    if math.isinf(found.steps):
        return "never"
    scenes = _scenes(found.steps)
    return scenes if found.equal else f"never ({scenes})"


def _scenes(count: float) -> str:
    return f"{amount(count)} {'scene' if count == 1 else 'scenes'}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def trials_of(results: Results, label: str) -> int:
    """How many tuning trials a strategy had; 0 where its options are defaults or were given."""
    tuned = next((run.record.get("tuned") for run in results.of(label)), None)
    return 0 if tuned is None else int(tuned["trials"])


def _trials(results: Results, summary: Summary) -> str:
    tuned = next((run.record.get("tuned") for run in results.of(summary.label)), None)
    if tuned is None:
        return "–" if summary.law else "0"
    return f"{tuned['trials']} ({amount(tuned['simulated_steps'])} steps)"


def tuned_apart(results: Results) -> str:
    """A sentence where learned controllers, or others that were tuned, had different numbers of trials; or nothing."""
    counts = {
        label: trials_of(results, label)
        for label in results.labels
        if label not in results.laws
        and (costs.kind_of(results, label) == NETWORK or trials_of(results, label) > 0)
    }
    if len(set(counts.values())) < 2:
        return ""
    told = listed(
        [f"{label} had {counted(count, 'trial') if count else 'none'}" for label, count in counts.items()]
    )
    return (
        f"Tuning was not equal, {told}: a difference between them may be that of their tuning. Tune each with as many "
        "trials (dpcontrol tune) before one is called better."
    )


def _tuning(results: Results) -> str:
    searched = [label for label in results.labels if label not in results.laws]
    counts = {label: trials_of(results, label) for label in searched}
    if not any(counts.values()):
        return "No strategy was tuned: all have the options that were given, or their defaults."
    judged = [
        label
        for label in searched
        if any((run.record.get("tuned") or {"drawn": True})["drawn"] is False for run in results.of(label))
    ]
    words = "Tuning trials were run on scenes of their own and are in nobody's budget"
    if judged:
        words = "The problem has no scenes to draw, so tuning trials saw the judged ones; they are in nobody's budget"
    equal = len(set(counts.values())) == 1
    return f"{words}; {'every strategy had as many' if equal else 'not every strategy had as many'}."


def seconds_words(seconds: float) -> str:
    """``12 µs``, ``3.4 ms``, ``1.2 s``, ``5.1 min``."""
    if seconds < 0.9995e-3:
        return f"{number(1e6 * seconds, 2)} µs"
    if seconds < 0.9995:
        return f"{number(1e3 * seconds, 2)} ms"
    return f"{number(seconds, 3)} s" if seconds < 600 else f"{number(seconds / 60, 3)} min"


def told(results: Results, summaries: Sequence[Summary]) -> list[str]:
    """In words: from how many scenes on each controller pays."""
    sentences = []
    found = costs.break_even(results, summaries)
    idle = [each for each in found if each.law is not None]
    if idle:
        law = str(idle[0].law).removeprefix("baseline: ")
        names, verb = listed([each.controller for each in idle]), "pays" if len(idle) == 1 else "pay"
        sentences.append(
            f"Training {names} never {verb}: the simple law {law}, which needs none, is at least as good."
        )
    for each in found:
        if each.law is not None:
            continue
        if each.steps is None or each.per_scene is None or each.gap is None:
            sentences.append(f"No strategy that solves scene by scene gets as good as {each.controller}.")
            continue
        solver = f"{each.solver}, which takes {amount(each.per_scene)} simulated steps a scene to be as good"
        scenes = f"from {_scenes(each.steps)} on" if math.isfinite(each.steps) else "for no number of scenes"
        clock = (
            ""
            if each.seconds is None or math.isfinite(each.seconds)
            else " (in seconds never: its decisions cost more)"
        )
        if each.equal:
            sentences.append(
                f"Training {each.controller}{_with_trials(results, each)} pays {scenes}, against {solver}{clock}."
            )
            continue
        above = (
            f"{number(1 + each.gap)} times the loss"
            if each.gap > 1
            else f"{number(100 * each.gap, 2)} % above"
        )
        sentences.append(
            f"{each.controller} does not reach what solving each scene does ({above}), so it never breaks even in "
            f"quality; at its own quality "
            f"it{_with_trials(results, each)} pays {scenes}, against {solver}{clock}."
        )
    return sentences


def _with_trials(results: Results, each: BreakEven) -> str:
    """What is counted besides a controller's training itself."""
    return " with its tuning trials" if trials_of(results, each.controller) else ""
