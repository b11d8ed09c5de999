"""How runs ended, where a reader should know it, in sentences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from dpcontrol.comparison.decisions import NETWORK, SOLVED, TOGETHER
from dpcontrol.comparison.records import STALLED, Results, Run
from dpcontrol.comparison.summary import Summary
from dpcontrol.comparison.words import counted, listed
from dpcontrol.strategies.learning.scenes import NOT_HELD_OUT
from dpcontrol.strategies.receding.playing import UNPAID, UNSEEING

ALMOST_ALL = 0.95  # of the budget: whoever spent it could hardly have gone on


def own_limits(results: Results) -> list[str]:
    """Strategies that ended by a limit of their own while there was budget left."""
    sentences = []
    for label in results.labels:
        runs = [run for run in results.of(label) if run.status == "iterations spent"]
        share = _share(results, runs)
        if not runs or (share is not None and share >= ALMOST_ALL):
            continue
        spent = "" if share is None else f" with {100 * share:.0f} % of the budget spent"
        which = "" if len(results.of(label)) == 1 else f" in {len(runs)} of {len(results.of(label))} runs"
        sentences.append(
            f"{label} stopped at its own limit of iterations{which}{spent}: more of them may lower its loss."
        )
    return sentences


def stalls(results: Results) -> list[str]:
    """Strategies whose search found no way down before its tolerances were met: an answer, but not a proven one."""
    sentences = []
    for label in results.labels:
        runs = [run for run in results.of(label) if run.status == STALLED and run.answered]
        if runs:
            share = _share(results, runs)
            spent = "" if share is None else f", with {100 * share:.2g} % of the budget spent"
            which = "" if len(results.of(label)) == 1 else f" in {len(runs)} of {len(results.of(label))} runs"
            sentences.append(
                f"{label} stalled{which}{spent}: it found no lower loss before its tolerances were met. "
                "Its answer counts."
            )
    return sentences


def _share(results: Results, runs: Sequence[Run]) -> float | None:
    """Mean share of the budget that runs have spent; ``None`` where nothing that is spent has a limit."""
    limits = {name: limit for name, limit in results.limits.items() if name != "target_loss"}
    if not limits or not runs:
        return None

    def spent(record: Any, name: str) -> float:
        return float(record["seconds"] if name == "seconds" else record["counts"][name])

    shares = [max(spent(run.record, name) / limit for name, limit in limits.items()) for run in runs]
    return sum(shares) / len(shares)


def _with_answers(results: Results, holds: Callable[[Run], bool]) -> list[str]:
    """Strategies of which something holds for a run that has an answer."""
    return [
        label for label in results.labels if any(run.answered and holds(run) for run in results.of(label))
    ]


def seen(results: Results) -> list[str]:
    """Controllers whose judged scenes are those that they were trained on: nothing is known of others."""
    if results.marks is not None:  # examined on trajectories that nobody has seen
        return []
    labels = _with_answers(results, lambda run: NOT_HELD_OUT in str(run.record["sentence"]).lower())
    if not labels:
        return []
    one = len(labels) == 1
    return [
        f"{listed(labels)} {'was' if one else 'were'} trained, validated and judged on the same scenes, as the problem "
        f"has no distribution to draw others from: nothing here says what {'it does' if one else 'they do'} in a new "
        "scene, nor that training pays there."
    ]


def foreseeing(results: Results) -> list[str]:
    """Plans that were made, and are judged, with the same noise: no controller knows it beforehand."""
    if not results.asked.get("noise"):
        return []
    labels = _with_answers(results, lambda run: run.decision.get("kind") in (SOLVED, TOGETHER))
    if not labels:
        return []
    one = len(labels) == 1
    return [
        f"{listed(labels)} planned with the very noise that {'it is' if one else 'they are'} judged on, which nobody "
        f"knows beforehand: {'its loss is a bound' if one else 'their losses are bounds'} on what a controller can "
        "reach, and no rival's."
    ]


def one_seed(summaries: Sequence[Summary]) -> list[str]:
    """Strategies with chance of which there is a single run: no interval knows what another seed would give."""
    labels = [summary.label for summary in summaries if summary.one_seed]
    if not labels:
        return []
    return [
        f"{listed(labels)} ran with one seed{' each' if len(labels) > 1 else ''}: what another seed would give is in "
        "no interval and no verdict here. Compare with several before one of them is called better or worse."
    ]


def unplayed(results: Results) -> list[str]:
    """Simple laws that cost more than the budget: they have no answer."""
    labels = [run.label.removeprefix("baseline: ") for run in results.runs if run.unplayed]
    if not labels:
        return []
    laws, whose, they = ("law", "its", "it is") if len(labels) == 1 else ("laws", "their", "they are")
    return [
        f"The simple {laws} {listed(labels)} did not play: {whose} rollout costs more than the budget, so {they} no "
        "bar here."
    ]


def idle_labels(results: Results) -> list[str]:
    """Strategies whose first question costs more than the budget."""
    labels = []
    for label in results.labels:
        runs = [run for run in results.of(label) if run.status == "budget spent" and not run.unplayed]
        if runs and all(run.record["counts"]["simulated_steps"] == 0 for run in runs):
            labels.append(label)
    return labels


def idle(results: Results) -> list[str]:
    """What is scored of those that did not run a step is where they start."""
    labels = idle_labels(results)
    if not labels:
        return []
    verb, whose = ("has", "its") if len(labels) == 1 else ("have", "their")
    return [
        f"{listed(labels)} {verb} not run a single step: {whose} first question costs more than the budget, and what "
        f"is scored is where {'it starts' if len(labels) == 1 else 'they start'}."
    ]


def unpaid(results: Results) -> list[str]:
    """Strategies that plan again at every step and could not always pay for it: of several runs the worst is told."""
    told = []
    for label in results.labels:
        sentences = [str(run.record["sentence"]) for run in results.of(label) if run.answered]
        most = "" if len(sentences) == 1 else ", in the worst of its runs,"
        kept = [found for each in sentences if (found := UNPAID.search(each))]
        ended = [found for each in sentences if (found := UNSEEING.search(each))]
        if kept:
            worst = max(kept, key=lambda found: int(found[2]) / int(found[1]))
            told.append(
                f"{label} could{most} not pay for {worst[2]} of its {counted(int(worst[1]), 'decision')} and kept the "
                "plan before: it planned again less often than it was asked to, and a larger budget may lower its loss."
            )
        if ended:
            first = min(ended, key=lambda found: int(found[2]) / int(found[1]))
            told.append(
                f"{label} planned{most} no further than step {first[2]} of {first[1]} and played the rest of its last "
                "plan without looking."
            )
    return told


def untrained(results: Results) -> list[str]:
    """Learned controllers that are scored where they start: no later validation was better, or there was none."""
    labels = []
    for label in results.labels:
        runs = [run for run in results.of(label) if run.status == "budget spent"]
        learned = any(run.decision.get("kind") == NETWORK for run in runs)
        spent = any(run.record["counts"]["simulated_steps"] for run in runs)
        if learned and spent and all(len(set(run.history.get("loss", []))) <= 1 for run in runs):
            labels.append(label)
    return labels


def unvalidated(results: Results) -> list[str]:
    """What is scored of those is where they start."""
    labels = untrained(results)
    if not labels:
        return []
    one = len(labels) == 1
    return [
        f"{listed(labels)} never got beyond where {'it starts' if one else 'they start'}: what is scored is untrained, "
        f"and {'counts' if one else 'they count'} for nothing where gradients are compared with none. "
        "A larger budget is needed, or fewer validation scenes, which are paid for like everything else."
    ]


def failures(summaries: Sequence[Summary]) -> list[str]:
    """Strategies with runs that went wrong."""
    return [
        ("The run" if summary.asked == 1 else f"{summary.failed} of {counted(summary.asked, 'run')}")
        + f" of {summary.label} failed"
        + (f"; its figures are of the {summary.answered} with an answer." if summary.answered else ".")
        for summary in summaries
        if summary.failed
    ]
