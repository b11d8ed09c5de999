"""The report: one HTML file that needs nothing else, neither a network nor another file."""

from __future__ import annotations

import base64
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dpcontrol.comparison import examined_figures, examined_words, figures, posteriors, pricing
from dpcontrol.comparison.about import as_html
from dpcontrol.comparison.decisions import NETWORK
from dpcontrol.comparison.finding import budget_words, caption, finding
from dpcontrol.comparison.marks import ANSWER
from dpcontrol.comparison.overlaid import POSTERIORS
from dpcontrol.comparison.player import animation
from dpcontrol.comparison.ranking import standing, unfinished
from dpcontrol.comparison.records import Results, Run
from dpcontrol.comparison.summary import ROUNDING, Summary, metric_names, seeds_alone, status_words, vanishes
from dpcontrol.comparison.verdict import verdict
from dpcontrol.comparison.words import amount, listed, number
from dpcontrol.plot import style
from dpcontrol.solution import Solution
from dpcontrol.store.files import replacing

SCENARIOS = 3  # that the animation offers


Round = tuple[Results, Sequence[Summary]]


def write_report(rounds: Sequence[Round], path: Path) -> Path:
    """Write the report and return its path.

    Args:
        rounds: runs and their summaries under each budget.
        path: of the file; where it lies in the comparison's own folder, it links to the runs.

    Raises:
        UsageError: if it cannot be written.
    """
    text = report_html(rounds, path.parent)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def report_html(rounds: Sequence[Round], beside: Path | None = None) -> str:
    """The report as text; runs that are kept below the folder ``beside`` are linked to."""
    import jinja2
    import markupsafe

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("dpcontrol.comparison", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    results, summaries = rounds[0]
    found = verdict(rounds)
    return environment.get_template("report.html.j2").render(
        name=results.name,
        facts=_facts(rounds),
        headline=found.headline,
        sentences=found.sentences,
        rounds=[_round(*each, beside) for each in rounds],
        about=markupsafe.Markup(as_html(results.about)),
        environment=results.environment,
        budget=" · ".join(each.budget or "none: every strategy went on to its own end" for each, _ in rounds),
        again=again([each for each, _ in rounds]),
        kept=_kept(rounds),
        shown_under=f" with {results.budget}" if len(rounds) > 1 else "",
        **_pictures(results, summaries),
    )


def _round(results: Results, summaries: Sequence[Summary], beside: Path | None) -> dict[str, Any]:
    """What is told under one budget."""
    drawn = posteriors.sampled(results)
    sought = bool(drawn) or posteriors.sought(results)
    places, found = standing(summaries), finding(results, summaries)
    # without equal budgets there is no first place
    first = [] if places is None or any(unfinished(results)) or sought else [s.label for s in places.first]
    names = [name for name in metric_names(summaries) if not vanishes(summaries, name)]
    zero = [name.replace("_", " ") for name in metric_names(summaries) if vanishes(summaries, name)]
    answered = any(summary.loss is not None for summary in summaries)
    return {
        "budget": results.budget or "no common budget",
        "headline": found.headline,
        "sentences": found.sentences,
        "metric_names": [name.replace("_", " ") for name in names],
        "rows": [_row(results, summary, names, first) for summary in summaries],
        "luck": any(s.luck is not None and s.luck.interval is not None for s in summaries),
        "zero": f"{', '.join(zero).capitalize()}: below {ROUNDING:g} for every strategy." if zero else "",
        "caption": f"{budget_words(results)} {caption(results, summaries)}",
        "costs": _costs(results, summaries) if answered and not sought else None,
        "runs": [_run(run, names, beside) for run in results.runs],
        "posteriors": _posteriors(results, drawn),
        "examined": _examined(results),
        "seeded": [s.label for s in summaries if s.answered > 1],
        "learned": any(run.decision.get("kind") == NETWORK for run in results.runs),
        **_curves(results, summaries),
    }


def _costs(results: Results, summaries: Sequence[Summary]) -> dict[str, Any]:
    colours = figures.look(results).colours
    head, rows = pricing.table(results, summaries)
    return {
        "head": head,
        "rows": [
            {"cells": cells, "colour": colours[cells[0]], "law": cells[0] in results.laws} for cells in rows
        ],
        "notes": pricing.notes(results, summaries),
    }


def _kept(rounds: Sequence[Round]) -> str:
    """Where raw runs and tuning logs lie."""
    results, _ = rounds[0]
    if results.folder is None:
        return ""
    tuned = {
        run.record["tuned"]["folder"]
        for each, _ in rounds
        for run in each.runs
        if run.record.get("tuned") and run.record["tuned"]["folder"]
    }
    logs = f" Tuning logs, every trial as JSON: {', '.join(sorted(tuned))}." if tuned else ""
    return (
        "Each run is kept in the folder named below it: record.json (losses of every scene, course, decision cost), "
        "run.json (what was asked), solution.safetensors (answer and trajectory). Comparison.load(folder) reads them "
        f"all again.{logs}"
    )


def _facts(rounds: Sequence[Round]) -> list[str]:
    results, summaries = rounds[0]
    asked = results.asked
    strategies = len([summary for summary in summaries if not summary.law])
    laws = len(results.laws)
    return [
        f"{strategies} {'strategy' if strategies == 1 else 'strategies'}",
        *([f"{laws} simple {'law' if laws == 1 else 'laws'}"] if laws else []),
        f"{sum(len(each.runs) for each, _ in rounds)} runs",
        f"{asked['scenarios']} {'scenario' if asked['scenarios'] == 1 else 'scenarios'}, {asked['horizon']} steps",
        *(f"{each.budget} per run" for each, _ in rounds if each.budget),
    ]


def _row(results: Results, summary: Summary, names: Sequence[str], first: Sequence[str]) -> dict[str, Any]:
    return {
        "label": summary.label,
        "first": summary.label in first,
        "colour": figures.look(results).colours[summary.label],
        "law": summary.law,
        "cells": [_cell(summary.metrics.get(name)) for name in names] + [_cell(summary.loss)],
        "luck": seeds_alone(summary),
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


def _examined(results: Results) -> dict[str, Any] | None:
    """The section about long rollouts of learned corrections; ``None`` where nothing was examined."""
    marks = results.marks
    if marks is None:
        return None
    colours = figures.look(results).colours
    drawn = examined_figures.drawn(marks, colours) if marks.groups else {}
    return {
        "failure": marks.failure,
        "tables": [
            {
                "title": table.title[:1].upper() + table.title[1:],
                "head": table.head[1:],
                "rows": [
                    {"cells": row, "colour": colours.get(row[0].value), "answer": kind == ANSWER}
                    for row, kind in zip(table.rows, table.kinds, strict=True)
                ],
            }
            for table in examined_words.tables(marks)
        ],
        "notes": examined_words.notes(marks),
        "figures": {name: _picture(drawn.get(name)) for name in examined_figures.NAMES},
    }


def _cell(estimate: Any) -> dict[str, str]:
    if estimate is None:
        return {"value": "–", "interval": ""}
    interval = estimate.interval
    words = "" if interval is None else f"{number(interval[0])} – {number(interval[1])}"
    return {"value": number(estimate.value), "interval": words}


def _run(run: Run, names: Sequence[str], beside: Path | None) -> dict[str, Any]:
    record = run.record
    tuned = record.get("tuned")
    folder = None if record["folder"] is None else Path(record["folder"]).resolve()
    near = folder is not None and beside is not None and folder.is_relative_to(beside.resolve())
    return {
        "folder": f"{folder.relative_to(beside.resolve())}/" if near else record["folder"],  # type: ignore[union-attr]
        "tuned": f"tuned in {tuned['trials']} trials" if tuned else "",
        "label": run.label,
        "seed": run.seed,
        "status": run.status,
        "trouble": run.failed or not run.answered,
        "sentence": record["sentence"],
        "configuration": record["configuration"],
        "loss": number(None if run.unplayed else record["loss"], 5),
        "metrics": [number(None if run.unplayed else record["metrics"].get(name)) for name in names],
        "steps": f"{record['counts']['simulated_steps']:,}",
        "gradients": f"{record['counts']['gradients']:,}",
        "seconds": f"{record['seconds']:.1f}",
        "detail": run.detail,
    }


def _curves(results: Results, summaries: Sequence[Summary]) -> dict[str, Any]:
    """The figures under one budget."""
    answered = [summary for summary in summaries if summary.loss is not None]
    # the loss of a posterior's most probable point is no merit of who drew it
    searched = {each.label for each in posteriors.sampled(results)} != {summary.label for summary in answered}
    merits = figures.merits(results, summaries) if searched else None
    curves = searched and any(not summary.law for summary in answered)
    profiles = None if posteriors.sought(results) else figures.profiles(results, summaries)
    return {
        "merits": None if merits is None else _embedded(style.as_svg(merits)),
        "courses": _embedded(style.as_svg(figures.courses(results, summaries))) if curves else None,
        "profiles": _picture(profiles),
    }


def _pictures(results: Results, summaries: Sequence[Summary]) -> dict[str, Any]:
    """The animation, and what the strategies do."""
    answered = [summary for summary in summaries if summary.loss is not None]
    solutions = figures.shown_solutions(results, summaries)
    scenarios = figures.telling_scenarios(summaries, SCENARIOS)
    drawn = figures.trajectories(results, solutions, scenarios[0])
    moving = {label: s for label, s in solutions.items() if s.trajectory().horizon > 0}
    lead = answered[0].label if answered else ""
    return {
        "scenario": scenarios[0],
        "trajectories": {name: _embedded(style.as_svg(figure)) for name, figure in drawn.items()},
        "own": {name: _embedded(svg) for name, svg in results.own_figures.items() if name != POSTERIORS},
        "own_caption": _shown_in_own(results, solutions),
        "player": _player(results, moving, scenarios, lead) if moving else None,
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


def again(rounds: Sequence[Results]) -> str:
    """The command, or the call, that makes this comparison again."""
    asked = rounds[0].asked
    budgets = [results.limits for results in rounds]
    strategies = asked["strategies"]
    plain = isinstance(strategies, list) and all(
        isinstance(entry, str) or entry["folder"] for entry in strategies
    )
    # words on the command line are one budget for each limit; a budget with two limits, or two of one kind, are a call
    separate = [name for limits in budgets for name in limits]
    said = all(len(limits) == 1 for limits in budgets) and len(set(separate)) == len(separate)
    if asked["size"] is None or not plain or not (said or len(rounds) == 1):
        words = [f"Budget({', '.join(f'{k}={v:g}' for k, v in limits.items())})" for limits in budgets]
        budget = words[0] if len(words) == 1 else f"[{', '.join(words)}]"
        return f"compare(problem, {_named(strategies)!r}, seeds={asked['seeds']!r}, budget={budget})"
    names = [entry if isinstance(entry, str) else entry["strategy"] for entry in strategies]
    tuned = [entry["folder"] for entry in strategies if not isinstance(entry, str)]
    command = ["dpcontrol", "compare", asked["problem"], "--size", asked["size"]]
    command += ["--problem-seed", str(asked["problem_seed"]), "--strategies", ",".join(names)]
    command += ["--tuned", ",".join(tuned)] if tuned else []
    if isinstance(asked["seeds"], int):
        command += ["--seeds", str(asked["seeds"])]
    for limits in budgets:
        for name, value in limits.items():
            command += [f"--{name.replace('_', '-')}", f"{value:.12g}"]
    return shlex.join(command)


def _named(strategies: Any) -> Any:
    """Strategies as a call would name them: tuned ones by name and options."""
    if isinstance(strategies, Mapping):
        return {label: _named([entry])[0] for label, entry in strategies.items()}
    return [
        entry if isinstance(entry, str) else (entry["strategy"], entry["options"]) for entry in strategies
    ]
