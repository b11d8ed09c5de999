"""Which runs a comparison consists of: every strategy with every seed, each simple law once."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from dpcontrol.comparison.records import Task
from dpcontrol.comparison.tuning import Tuned
from dpcontrol.meter import Budget
from dpcontrol.problem.base import Problem, View
from dpcontrol.results import UsageError
from dpcontrol.run import Strategy
from dpcontrol.solving import refuse_mismatch
from dpcontrol.strategies.baselines import Baseline
from dpcontrol.strategies.names import name_of, resolve

Entry = str | Strategy | Tuned
Given = Sequence[Entry] | Mapping[str, Entry]


def plan(
    problem: Problem, strategies: Given, seeds: int | Sequence[int], *, laws: bool = False
) -> list[Task]:
    """All runs that are asked for, in order, those of strategies that do not fit among them; with ``laws`` each of the
    problem's simple ones behind them.

    Raises:
        UsageError: for an unknown strategy, a label given twice, or wrong seeds.
    """
    if not isinstance(problem, Problem):
        raise UsageError(
            f"compare needs a Problem; found {type(problem).__name__}: pose one with control_problem(...)."
        )
    if isinstance(strategies, Entry) or len(strategies) == 0:
        raise UsageError(
            f"strategies must be a list of one or more, such as ['adjoint', 'lbfgs']; found {strategies!r}."
        )
    pairs = strategies.items() if isinstance(strategies, Mapping) else [(None, entry) for entry in strategies]
    labelled: list[tuple[str, Strategy, Tuned | None]] = []
    for label, entry in pairs:
        if isinstance(entry, Tuned):
            labelled.append((label or entry.strategy, entry.resolved(), entry))
        else:
            labelled += [(*pair, None) for pair in _expanded(problem, label, resolve(entry))]
    if laws and View.BASELINES in problem.offers and not any(isinstance(s, Baseline) for _, s, _ in labelled):
        labelled += [(*pair, None) for pair in _expanded(problem, None, Baseline())]
    labels = [label for label, *_ in labelled]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise UsageError(
            f"two strategies are called {twice[0]!r}; give them labels: strategies={{'label': strategy}}."
        )
    chosen = _checked_seeds(seeds)
    tasks = []
    for label, strategy, tuned in labelled:
        refused = _refusal(problem, strategy)
        wanted = chosen if strategy.stochastic and refused is None else chosen[:1]
        tasks += [Task(label, strategy, seed, refused, tuned) for seed in wanted]
    return tasks


def _expanded(problem: Problem, label: str | None, strategy: Strategy) -> list[tuple[str, Strategy]]:
    """A strategy under its label; ``baseline`` as one for each law of the problem."""
    if isinstance(strategy, Baseline) and strategy.law is None and problem.baselines:
        prefix = label or "baseline"
        return [(f"{prefix}: {law}", dataclasses.replace(strategy, law=law)) for law in problem.baselines]
    return [(label or _label(strategy), strategy)]


def _label(strategy: Strategy) -> str:
    """The name in the table, with the fields that differ from their defaults."""
    changed = [
        f"{entry.name}={getattr(strategy, entry.name)!r}"
        for entry in dataclasses.fields(strategy)  # type: ignore[arg-type]
        if entry.default is not dataclasses.MISSING and getattr(strategy, entry.name) != entry.default
    ]
    return name_of(strategy) + (f"({', '.join(changed)})" if changed else "")


def _refusal(problem: Problem, strategy: Strategy) -> str | None:
    try:
        refuse_mismatch(problem, strategy)
    except UsageError as error:
        return str(error)
    return None


def _checked_seeds(seeds: int | Sequence[int]) -> list[int]:
    found: Any = list(range(seeds)) if isinstance(seeds, int) and not isinstance(seeds, bool) else seeds
    whole = isinstance(found, (list, tuple, range)) and all(
        isinstance(seed, int) and not isinstance(seed, bool) and seed >= 0 for seed in found
    )
    if not whole or not found or len(set(found)) < len(found):
        raise UsageError(
            f"seeds must be a number of seeds, 1 or more, or a list of different ones; found {seeds!r}."
        )
    return list(found)


def checked_budgets(budget: Budget | Sequence[Budget] | None) -> list[Budget]:
    """The budgets, one without limits for ``None``.

    Raises:
        UsageError: for anything else than a budget or several different ones.
    """
    found = [budget or Budget()] if budget is None or isinstance(budget, Budget) else budget
    fine = isinstance(found, (list, tuple)) and found and all(isinstance(each, Budget) for each in found)
    if not fine or len(set(found)) < len(found):
        raise UsageError(
            "budget must be a Budget, such as Budget(seconds=60), or a list of different ones; "
            f"found {budget!r}."
        )
    return list(found)


def given_again(strategies: Any) -> Any:
    """Strategies as :func:`asked` wrote them down, to be asked again: names, and tuned ones with their options."""
    if isinstance(strategies, Mapping):
        return {label: given_again([entry])[0] for label, entry in strategies.items()}
    return [Tuned.of(entry) if isinstance(entry, Mapping) else entry for entry in strategies]


def asked(problem: Problem, strategies: Given, seeds: int | Sequence[int], budget: Budget) -> dict[str, Any]:
    """Plain values that say what was asked: what ``comparison.json`` keeps for a resume."""

    def plain(entry: Entry) -> Any:
        if isinstance(entry, Tuned):
            return entry.record()
        return entry if isinstance(entry, str) else repr(entry)

    origin = problem.origin
    named: Any = (
        {label: plain(entry) for label, entry in strategies.items()}
        if isinstance(strategies, Mapping)
        else [plain(entry) for entry in strategies]
    )
    return {
        "problem": problem.name if origin is None else origin.reference,
        "size": None if origin is None else origin.size,
        "problem_seed": None if origin is None else origin.seed,
        "strategies": named,
        "seeds": seeds if isinstance(seeds, int) else list(seeds),
        "budget": dataclasses.asdict(budget),
        "scenarios": problem.scenarios.count,
        "horizon": problem.horizon,
        "noise": "noise" in problem.scenarios.data,
    }
