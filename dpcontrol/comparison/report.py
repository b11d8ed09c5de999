"""The report: one HTML file that needs nothing else, neither a network nor another file."""

from __future__ import annotations

import base64
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dpcontrol.comparison import figures, posteriors
from dpcontrol.comparison.about import as_html
from dpcontrol.comparison.finding import caption, finding
from dpcontrol.comparison.overlaid import POSTERIORS
from dpcontrol.comparison.player import animation
from dpcontrol.comparison.ranking import standing, unfinished
from dpcontrol.comparison.records import Results, Run
from dpcontrol.comparison.summary import ROUNDING, Summary, metric_names, status_words, vanishes
from dpcontrol.comparison.words import amount, listed, number
from dpcontrol.plot import style
from dpcontrol.solution import Solution
from dpcontrol.store.files import replacing

SCENARIOS = 3  # that the animation offers


def write_report(results: Results, summaries: Sequence[Summary], path: Path) -> Path:
    """Write the report and return its path.

    Raises:
        UsageError: if it cannot be written.
    """
    text = report_html(results, summaries)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def report_html(results: Results, summaries: Sequence[Summary]) -> str:
    """The report as text."""
    import jinja2
    import markupsafe

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("dpcontrol.comparison", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found = finding(results, summaries)
    drawn = posteriors.sampled(results)
    places = standing(summaries)
    # without equal budgets there is no first place
    first = [] if places is None or any(unfinished(results)) or drawn else [s.label for s in places.first]
    names = [name for name in metric_names(summaries) if not vanishes(summaries, name)]
    zero = [name.replace("_", " ") for name in metric_names(summaries) if vanishes(summaries, name)]
    return environment.get_template("report.html.j2").render(
        name=results.name,
        facts=_facts(results, summaries),
        headline=found.headline,
        sentences=found.sentences,
        metric_names=[name.replace("_", " ") for name in names],
        rows=[_row(results, summary, names, first) for summary in summaries],
        zero=f"{', '.join(zero).capitalize()}: below {ROUNDING:g} for every strategy." if zero else "",
        caption=caption(results, summaries),
        runs=[_run(run, names) for run in results.runs],
        about=markupsafe.Markup(as_html(results.about)),
        environment=results.environment,
        budget=results.budget or "none: every strategy went on to its own end",
        again=_again(results),
        posteriors=_posteriors(results, drawn),
        **_pictures(results, summaries),
    )


def _facts(results: Results, summaries: Sequence[Summary]) -> list[str]:
    asked = results.asked
    strategies = len([summary for summary in summaries if not summary.law])
    laws = len(results.laws)
    return [
        f"{strategies} {'strategy' if strategies == 1 else 'strategies'}",
        *([f"{laws} simple {'law' if laws == 1 else 'laws'}"] if laws else []),
        f"{len(results.runs)} runs",
        f"{asked['scenarios']} {'scenario' if asked['scenarios'] == 1 else 'scenarios'}, {asked['horizon']} steps",
        *([f"{results.budget} per run"] if results.budget else []),
    ]


def _row(results: Results, summary: Summary, names: Sequence[str], first: Sequence[str]) -> dict[str, Any]:
    return {
        "label": summary.label,
        "first": summary.label in first,
        "colour": figures.look(results).colours[summary.label],
        "law": summary.law,
        "cells": [_cell(summary.metrics.get(name)) for name in names] + [_cell(summary.loss)],
        "typical": number(summary.typical),
        "steps": amount(summary.simulated_steps),
        "gradients": amount(summary.gradients),
        "seconds": f"{summary.seconds:.1f}",
        "status": status_words(summary),
        "trouble": summary.failed > 0 or summary.refused is not None,
    }


def _posteriors(results: Results, drawn: Sequence[posteriors.Sampled]) -> dict[str, Any] | None:
    """The section about posteriors; ``None`` where no strategy gives one."""
    if not drawn:
        return None
    colours = figures.look(results).colours
    overlaid = results.own_figures.get(POSTERIORS)
    return {
        "head": posteriors.HEAD[1:],
        "rows": [
            {"label": each.label, "colour": colours[each.label], "cells": cells[1:-1], "remark": cells[-1]}
            for each, cells in zip(drawn, posteriors.rows(drawn), strict=True)
        ],
        "caption": posteriors.caption(results),
        "warnings": [f"{each.label}: {each.warning}." for each in drawn if each.warning],
        "efficiency": _picture(figures.efficiency(results, drawn)),
        "errors": _picture(figures.errors(results, drawn)),
        "overlaid": None if overlaid is None else _embedded(overlaid),
    }


def _cell(estimate: Any) -> dict[str, str]:
    if estimate is None:
        return {"value": "–", "interval": ""}
    interval = estimate.interval
    words = "" if interval is None else f"{number(interval[0])} – {number(interval[1])}"
    return {"value": number(estimate.value), "interval": words}


def _run(run: Run, names: Sequence[str]) -> dict[str, Any]:
    record = run.record
    return {
        "label": run.label,
        "seed": run.seed,
        "status": run.status,
        "trouble": run.failed or not run.answered,
        "sentence": record["sentence"],
        "configuration": record["configuration"],
        "loss": number(record["loss"], 5),
        "metrics": [number(record["metrics"].get(name)) for name in names],
        "steps": f"{record['counts']['simulated_steps']:,}",
        "gradients": f"{record['counts']['gradients']:,}",
        "seconds": f"{record['seconds']:.1f}",
        "detail": run.detail,
    }


def _pictures(results: Results, summaries: Sequence[Summary]) -> dict[str, Any]:
    answered = [summary for summary in summaries if summary.loss is not None]
    solutions = figures.shown_solutions(results, summaries)
    scenarios = figures.telling_scenarios(summaries, SCENARIOS)
    # the loss of a posterior's most probable point is no merit of who drew it
    searched = {each.label for each in posteriors.sampled(results)} != {summary.label for summary in answered}
    merits = figures.merits(results, summaries) if searched else None
    curves = searched and any(not summary.law for summary in answered)
    drawn = figures.trajectories(results, solutions, scenarios[0])
    moving = {label: s for label, s in solutions.items() if s.trajectory().horizon > 0}
    lead = answered[0].label if answered else ""
    return {
        "merits": None if merits is None else _embedded(style.as_svg(merits)),
        "courses": _embedded(style.as_svg(figures.courses(results, summaries))) if curves else None,
        "scenario": scenarios[0],
        "trajectories": {name: _embedded(style.as_svg(figure)) for name, figure in drawn.items()},
        "own": {name: _embedded(svg) for name, svg in results.own_figures.items() if name != POSTERIORS},
        "own_caption": _shown_in_own(results, solutions),
        "player": _player(results, moving, scenarios, lead) if moving else None,
        "seeded": [s.label for s in summaries if s.answered > 1],
    }


def _shown_in_own(results: Results, solutions: Mapping[str, Solution]) -> str:
    """Which solutions the problem's own figures show, and which they have no room for."""
    shown, omitted = figures.chosen_for_own(results, solutions)
    if not shown:
        return ""
    rest = f"; not shown for want of room: {listed(omitted)}" if omitted else ""
    return f"The median run of {listed(shown)}{rest}."


def _player(results: Results, moving: Mapping[str, Solution], scenarios: Sequence[int], lead: str) -> str:
    data = animation(moving, figures.look(results), scenarios, lead)
    # "</script>" in a label must not end the script
    return json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")


def _picture(figure: Any | None) -> str | None:
    return None if figure is None else _embedded(style.as_svg(figure))


def _embedded(svg: bytes) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg).decode("ascii")


def _again(results: Results) -> str:
    """The command, or the call, that makes this comparison again."""
    asked = results.asked
    limits = {name: value for name, value in asked["budget"].items() if value is not None}
    if asked["size"] is None:
        budget = ", ".join(f"{name}={value:g}" for name, value in limits.items())
        return f"compare(problem, {asked['strategies']!r}, seeds={asked['seeds']!r}, budget=Budget({budget}))"
    words = ["dpcontrol", "compare", asked["problem"], "--size", asked["size"]]
    words += ["--problem-seed", str(asked["problem_seed"]), "--strategies", ",".join(asked["strategies"])]
    if isinstance(asked["seeds"], int):
        words += ["--seeds", str(asked["seeds"])]
    for name, value in limits.items():
        words += [f"--{name.replace('_', '-')}", f"{value:.12g}"]
    return shlex.join(words)
