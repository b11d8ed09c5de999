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
    """What several budgets say together: who won under which, and under which differentiable physics lost.

    What the headline of a budget takes back, that of all of them does too.
    """
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
        headline = f"{winners[0]} {placed} under {every}{_taken_back(budgets, found)}"
    elif clear and (everywhere := [name for name in firsts[0] if all(name in names for names in firsts)]):
        told = [
            f"{_company(names, everywhere)} with {budget}{''.join(each.reservations)}"
            for names, budget, each in zip(firsts, budgets, found, strict=True)
        ]
        verb = "is" if len(everywhere) == 1 else "are"
        who = listed([_plainly(name) for name in everywhere])
        headline = f"{who} {verb} in the first place under {every}: {'; '.join(told)}"
    elif clear:
        each_with = zip(winners, budgets, found, strict=True)
        told = [f"{names} with {budget}{''.join(each.reservations)}" for names, budget, each in each_with]
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


def _taken_back(budgets: Sequence[str], found: Sequence[Finding]) -> str:
    """The reservations of the budgets' headlines, each once, and with which budgets if it is not with all."""
    said: dict[str, list[str]] = {}
    for budget, each in zip(budgets, found, strict=True):
        for reservation in each.reservations:
            said.setdefault(reservation, []).append(budget)
    return "".join(
        reservation if len(under) == len(found) else f"{reservation} (with {listed(under)})"
        for reservation, under in said.items()
    )


def _company(names: Sequence[str], everywhere: Sequence[str]) -> str:
    """Who shares the first place with those that have it under every budget."""
    others = [_plainly(name) for name in names if name not in everywhere]
    return f"beside {listed(others)}" if others else "alone" if len(everywhere) == 1 else "by themselves"


def _plainly(label: str) -> str:
    """A label; a law's without the word for it."""
    law = label.removeprefix("baseline: ")
    return label if law == label else f"{law} (a simple law)"
