"""Gradients through the simulator against none: who of each family is best, and where differentiable physics lost."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dpcontrol.comparison import endings, ranking
from dpcontrol.comparison.costs import kind_of
from dpcontrol.comparison.decisions import NETWORK
from dpcontrol.comparison.ranking import Gap, gap, more_loss
from dpcontrol.comparison.records import WITH_GRADIENTS, WITHOUT_GRADIENTS, Results
from dpcontrol.comparison.summary import Summary
from dpcontrol.comparison.words import listed


def sentences(results: Results, summaries: Sequence[Summary]) -> list[str]:
    """What gradients were worth among all strategies, among learned controllers, and scene by scene."""
    told = _without_opponents(summaries)
    summaries = trained(results, summaries)
    everybody = _best_of_each(summaries)
    if everybody is not None:
        told.append(_told(everybody, "the best strategy") + _behind_a_law(everybody, summaries))
        told += _by_scene(summaries)
    learned = [each for each in summaries if kind_of(results, each.label) == NETWORK]
    controllers = _best_of_each(learned)
    if controllers is not None and controllers != everybody:
        told.append(_told(controllers, "the best learned controller") + _behind_a_law(controllers, summaries))
    return told


def trained(results: Results, summaries: Sequence[Summary]) -> list[Summary]:
    """Those that say something of a family: a controller that is scored where it starts does not."""
    idle = endings.untrained(results)
    return [summary for summary in summaries if summary.label not in idle]


def _without_opponents(summaries: Sequence[Summary]) -> list[str]:
    """A sentence where all strategies of one family failed although the other has answers."""
    words = {WITH_GRADIENTS: "with gradients", WITHOUT_GRADIENTS: "without gradients"}
    answered = {summary.family for summary in summaries if summary.loss is not None}
    ran = {summary.family for summary in summaries if summary.failed}
    return [
        f"No run {words[family]} has an answer, so nothing can be said of gradients against none."
        for family in words
        if family in ran - answered and answered & set(words)
    ]


def _behind_a_law(pair: tuple[Summary, Summary], summaries: Sequence[Summary]) -> str:
    """A sentence where a simple law is better than both."""
    labels = [summary.label for summary in summaries]
    bar = next((each for each in summaries if each.law and each.loss is not None), None)
    if bar is None or min(labels.index(each.label) for each in pair) < labels.index(bar.label):
        return ""
    return f" Both are behind the simple law {bar.label.removeprefix('baseline: ')}."


def without_gradients(first: Sequence[Summary], summaries: Sequence[Summary]) -> bool:
    """Whether all strategies in the first place go without gradients although others follow them and have an answer."""
    searched = [summary for summary in first if summary.family != "law"]
    opponents = any(summary.family == WITH_GRADIENTS and summary.loss is not None for summary in summaries)
    return bool(searched) and opponents and all(each.family == WITHOUT_GRADIENTS for each in searched)


def over_budgets(rounds: Sequence[tuple[str, Results, Sequence[Summary]]]) -> list[str]:
    """Under which budgets differentiable physics lost, over all and among learned controllers; if any."""
    everybody: list[tuple[str, bool]] = []
    learned: list[tuple[str, bool]] = []
    for budget, results, everyone in rounds:
        summaries = trained(results, everyone)
        controllers = [each for each in summaries if kind_of(results, each.label) == NETWORK]
        for found, among in ((everybody, summaries), (learned, controllers)):
            pair = _best_of_each(among)
            if pair is not None:
                against = gap(*pair)
                found.append((budget, against.verdict == ranking.CLEAR and against.difference.value < 0))
    told = []
    for found, who in ((everybody, "over all strategies"), (learned, "among learned controllers")):
        losing = [budget for budget, lost in found if lost]
        if losing:
            told.append(f"Differentiable physics lost {who} with {listed(losing)}.")
        elif found:
            told.append(f"Under no budget did differentiable physics lose {who}.")
    return told


def _best_of_each(summaries: Sequence[Summary]) -> tuple[Summary, Summary] | None:
    """The best complete strategy with gradients, and the best without; ``None`` where a family has none."""
    complete = [summary for summary in summaries if summary.complete]
    with_them = next((each for each in complete if each.family == WITH_GRADIENTS), None)
    without = next((each for each in complete if each.family == WITHOUT_GRADIENTS), None)
    return None if with_them is None or without is None else (with_them, without)


def _told(pair: tuple[Summary, Summary], who: str) -> str:
    with_them, without = pair
    against: Gap = gap(with_them, without)
    if against.verdict != ranking.CLEAR:
        seen = "that can be told" if against.verdict == ranking.OPEN else "that matters in quality"
        return (
            f"Gradients made no difference {seen}: {who} with them, {with_them.label}, and without, "
            f"{without.label} ({more_loss(with_them, against)})."
        )
    if against.difference.value < 0:
        ahead = gap(without, with_them)
        return (
            f"Differentiable physics lost: {without.label}, {who} without gradients, is ahead of {who} with them; "
            f"{with_them.label} has {more_loss(without, ahead)}."
        )
    return (
        f"Gradients through the simulator won: {who} with them is {with_them.label}; {who} without, "
        f"{without.label}, has {more_loss(with_them, against)}."
    )


def _by_scene(summaries: Sequence[Summary]) -> list[str]:
    """In how many scenes the family without gradients was ahead, each strategy with its mean over seeds."""
    lowest = {}
    for family in (WITH_GRADIENTS, WITHOUT_GRADIENTS):
        rows = [each.losses.mean(0) for each in summaries if each.complete and each.family == family]
        lowest[family] = np.min(rows, axis=0)
    with_them, without = lowest[WITH_GRADIENTS], lowest[WITHOUT_GRADIENTS]
    if len(with_them) < 2:
        return []
    margin = ranking.RELEVANT * np.abs(with_them)
    ahead = int((without < with_them - margin).sum())
    where = f"in {ahead} of {len(with_them)} scenes" if ahead else f"in none of {len(with_them)} scenes"
    return [
        f"Scene by scene a strategy without gradients was ahead of all with them {where} "
        f"(by more than {100 * ranking.RELEVANT:g} %, means over seeds)."
    ]
