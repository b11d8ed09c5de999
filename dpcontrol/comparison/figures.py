"""The figures of a comparison. Colours are chosen once, so that a strategy has the same one everywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dpcontrol.comparison import costs, posteriors
from dpcontrol.comparison import profiles as shares
from dpcontrol.comparison.overlaid import POSTERIORS, overlaid_posteriors
from dpcontrol.comparison.records import Results, Run
from dpcontrol.comparison.summary import Summary, metric_names, vanishes
from dpcontrol.engine import Trajectory
from dpcontrol.plot import beside, curves, own, style
from dpcontrol.plot.profiles import drawable, profile_figure
from dpcontrol.problem.base import Problem
from dpcontrol.solution import Solution

TINY = 1e-3  # errors below this would stretch an axis over what nobody needs to see
IN_OWN_FIGURES = 4  # more columns than these (and the references) cannot be read


@dataclass(frozen=True)
class Look:
    """How each label is drawn."""

    colours: Mapping[str, str]
    dashes: Mapping[str, Any]


def look(results: Results) -> Look:
    """Colours for strategies in the order asked for; greys with dashes for laws and references."""
    strategies = [label for label in results.labels if label not in results.laws]
    others = [*results.references, *results.laws]
    colours = style.colours(strategies, others)
    dashes = {label: style.DASHES[index % len(style.DASHES)] for index, label in enumerate(others)}
    return Look(colours, dashes)


def courses(results: Results, summaries: Sequence[Summary]) -> Any:
    """Losses against simulated steps and seconds; simple laws as horizontal lines."""
    drawn = look(results)
    contenders = [summary for summary in summaries if not summary.law and summary.loss is not None]
    found = [
        curves.Course(
            s.label, drawn.colours[s.label], [_course(run) for run in results.of(s.label) if run.answered]
        )
        for s in contenders
    ]
    levels = [
        curves.Level(s.label, s.loss.value, drawn.colours[s.label], drawn.dashes[s.label])
        for s in summaries
        if s.law and s.loss is not None
    ]
    return curves.convergence_figure(found, levels, ylabel="mean loss, best so far")


def _course(run: Run) -> curves.HistoryColumns:
    """A run's course as columns, ending at the loss that it is judged by."""
    columns = [column.tolist() for column in costs.course(run)]
    return dict(zip(("simulated_steps", "seconds", "loss"), columns, strict=True))


def profiles(results: Results, summaries: Sequence[Summary]) -> Any | None:
    """Performance profiles; ``None`` where there is nothing to tell apart, or a loss that is not above zero."""
    found = shares.profiles(results, summaries)
    if not drawable([each.ratios for each in found]):
        return None
    drawn = look(results)
    words = "share of runs and scenes" if results.asked["scenarios"] > 1 else "share of runs"
    return profile_figure({each.label: each.ratios for each in found}, drawn.colours, drawn.dashes, words)


def merits(results: Results, summaries: Sequence[Summary]) -> Any | None:
    """Figures of merit with intervals, best strategy first; ``None`` if there is nothing to tell apart.

    Where all agree to four digits an axis would show rounding: a table says it better.
    """
    drawn = look(results)
    answered = [summary for summary in summaries if summary.loss is not None]
    if not answered:
        return None
    panels: dict[str, list[curves.Mark]] = {}
    for name in metric_names(answered)[:3]:
        if vanishes(answered, name):
            continue
        panels[name.replace("_", " ")] = [
            _mark(s, drawn, s.metrics[name].value, s.metrics[name].interval)
            if name in s.metrics
            else _mark(s, drawn, float("nan"), None)
            for s in answered
        ]
    if len(panels) < 2:
        panels["loss"] = [
            _mark(s, drawn, s.loss.value, s.loss.interval) for s in answered if s.loss is not None
        ]
    panels = {name: marks for name, marks in panels.items() if _differ(marks)}
    return curves.interval_figure(panels) if panels else None


def _mark(summary: Summary, drawn: Look, value: float, interval: tuple[float, float] | None) -> curves.Mark:
    return curves.Mark(summary.label, value, interval, drawn.colours[summary.label], hollow=summary.law)


def _differ(marks: Sequence[curves.Mark]) -> bool:
    ends = np.array([end for mark in marks for end in (mark.value, *(mark.interval or ()))])
    ends = ends[np.isfinite(ends)]
    # a single strategy is shown with what it has
    return len(marks) == 1 or bool(ends.size and np.ptp(ends) > 1e-4 * np.abs(ends).max())


def efficiency(results: Results, found: Sequence[posteriors.Sampled]) -> Any | None:
    """Effective draws of samplers, for each 1,000 steps and each second; ``None`` without samplers."""
    chains = [each for each in found if each.chains]
    if not chains:
        return None
    drawn = look(results)
    return curves.interval_figure(
        {
            "effective draws per 1,000 simulated steps": [
                _spread(x, drawn, x.per_step, "no finite value") for x in chains
            ],
            "effective draws per second": [
                _spread(x, drawn, x.per_second, "no finite value") for x in chains
            ],
        }
    )


def errors(results: Results, found: Sequence[posteriors.Sampled]) -> Any | None:
    """Errors of means and standard deviations against the reference; ``None`` where there are none."""
    if all(each.mean_error is None for each in found):
        return None
    drawn = look(results)
    words = ["the reference" if each.is_reference else f"below {TINY:g}" for each in found]
    pairs = list(zip(found, words, strict=True))
    return curves.interval_figure(
        {
            "worst error of a mean, in sds": [_spread(x, drawn, _known(x.mean_error), w) for x, w in pairs],
            "worst relative error of an sd": [_spread(x, drawn, _known(x.sd_error), w) for x, w in pairs],
        }
    )


def _spread(each: posteriors.Sampled, drawn: Look, values: Sequence[float], instead: str) -> curves.Mark:
    """Mean over runs, from the lowest to the highest."""
    value = float(np.mean(values)) if values else float("nan")
    interval = (min(values), max(values)) if len(values) > 1 else None
    return curves.Mark(each.label, value, interval, drawn.colours[each.label], not each.chains, instead)


def _known(value: float | None) -> tuple[float, ...]:
    return () if value is None or value < TINY else (value,)


def shown_solutions(results: Results, summaries: Sequence[Summary]) -> dict[str, Solution]:
    """References, then the median run of each strategy and of the best law, best first."""
    best_law = next((s.label for s in summaries if s.law and s.loss is not None), None)
    found = dict(results.references)
    for summary in summaries:
        run = results.representative(summary.label)
        if run is None or (summary.law and summary.label != best_law):
            continue
        solution = run.solution()
        if solution is not None:
            found[summary.label] = solution
    return found


def telling_scenarios(summaries: Sequence[Summary], count: int) -> list[int]:
    """A typical, an easy and a hard scenario, by what they cost the best strategy."""
    best = next((summary for summary in summaries if summary.loss is not None), None)
    if best is None:
        return [0]
    costs = best.losses.mean(0)
    order = np.argsort(costs, kind="stable")
    places = [int(order[round(share * (len(order) - 1))]) for share in (0.5, 0.1, 0.9)]
    return list(dict.fromkeys(places))[:count]


def trajectories(results: Results, solutions: Mapping[str, Solution], scenario: int) -> dict[str, Any]:
    """All shown solutions beside each other in one scenario."""
    drawn = look(results)
    found: dict[str, Trajectory] = {label: solution.trajectory() for label, solution in solutions.items()}
    return beside.trajectory_figures(found, drawn.colours, drawn.dashes, scenario) if found else {}


def chosen_for_own(results: Results, solutions: Mapping[str, Solution]) -> tuple[list[str], list[str]]:
    """The labels that the problem's own figures show, best first, and those that they have no room for."""
    labels = [label for label in solutions if label not in results.references]
    return labels[:IN_OWN_FIGURES], labels[IN_OWN_FIGURES:]


def own_figures(problem: Problem, results: Results, summaries: Sequence[Summary]) -> dict[str, bytes]:
    """The problem's own figures as SVG, of the best few strategies and the best law."""
    solutions = shown_solutions(results, summaries)
    chosen, _ = chosen_for_own(results, solutions)
    shown = {label: solutions[label] for label in chosen}
    found = {name: style.as_svg(own.own_figure(name, draw, shown)) for name, draw in problem.plots.items()}
    drawn = posteriors.sampled(results)
    overlaid = overlaid_posteriors(problem, results, drawn, look(results).colours) if drawn else None
    return found if overlaid is None else {**found, POSTERIORS: overlaid}
