"""What several budgets say together: who won under which, and under which differentiable physics lost."""

from __future__ import annotations

from collections.abc import Sequence

from dpcontrol.comparison import families
from dpcontrol.comparison.finding import Finding, finding, resumable
from dpcontrol.comparison.ranking import standing, unfinished
from dpcontrol.comparison.records import Results
from dpcontrol.comparison.summary import Summary
from dpcontrol.comparison.words import listed


def verdict(rounds: Sequence[tuple[Results, Sequence[Summary]]]) -> Finding:
    """What several budgets say together: who won under which, and under which differentiable physics lost."""
    found = [finding(results, summaries) for results, summaries in rounds]
    if len(found) == 1:
        return found[0]
    budgets = [results.budget or "no budget" for results, _ in rounds]
    places = [standing(summaries) for _, summaries in rounds]
    clear = all(place is not None for place in places) and not any(any(unfinished(r)) for r, _ in rounds)
    firsts = [() if place is None else tuple(sorted(each.label for each in place.first)) for place in places]
    every = "both budgets" if len(rounds) == 2 else f"all {len(rounds)} budgets"
    winners = [listed([_plainly(name) for name in names]) for names in firsts if names]
    if clear and len(set(firsts)) == 1:
        placed = "is best" if len(firsts[0]) == 1 else "share the first place"
        headline = f"{winners[0]} {placed} under {every}"
    elif clear:
        told = [f"{names} with {budget}" for names, budget in zip(winners, budgets, strict=True)]
        headline = f"Who is best depends on the budget: {'; '.join(told)}"
    else:
        headline = "Incomplete comparison: not every budget has an answer so far"
    said = zip(budgets, found, strict=True)
    sentences = [f"With {budget}: {each.headline.rstrip('.')}." for budget, each in said]
    if clear:
        named = zip(budgets, rounds, strict=True)
        sentences += families.over_budgets([(budget, *each) for budget, each in named])
    left = [unfinished(each) for each, _ in rounds]
    sentences += resumable(sum(stopped for stopped, _ in left), sum(missing for _, missing in left))
    return Finding(headline, tuple(sentences))


def _plainly(label: str) -> str:
    """A label; a law's without the word for it."""
    law = label.removeprefix("baseline: ")
    return label if law == label else f"{law} (a simple law)"
