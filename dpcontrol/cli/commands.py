"""What each command does. Rooms are imported by the command that needs them, so that ``--help`` is quick."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dpcontrol.cli.display import (
    FAILED,
    INTERRUPTED,
    show,
    show_calibration,
    show_comparison,
    strict,
    write_reports,
)
from dpcontrol.cli.options import budget, budgets, fields, folder_for, literal
from dpcontrol.cli.trial import try_folders
from dpcontrol.results import UsageError


def list_names(options: argparse.Namespace) -> int:
    """The problems and strategies that can be named."""
    from dpcontrol import catalogue
    from dpcontrol.strategies.names import named

    problems, strategies = catalogue.names(), named()
    width = max(len(name) for name in (*problems, *strategies)) + 2
    print("problems")
    for name in problems:
        print(f"  {name:<{width}}{catalogue.find(name).headline}")
    print("\nstrategies")
    for name, strategy in strategies.items():
        print(f"  {name:<{width}}{(type(strategy).__doc__ or '').strip().splitlines()[0]}")
    return 0


def solve_problem(options: argparse.Namespace) -> int:
    """Solve one problem with one strategy."""
    from dpcontrol import catalogue
    from dpcontrol.solving import solve

    entry = catalogue.find(options.problem)
    problem = entry.build(size=options.size, seed=options.problem_seed)
    defaults = entry.defaults(options.size)
    strategy = options.strategy or defaults.get("strategy", "lbfgs")
    with folder_for(options.output, f"{problem.name}-{strategy}") as folder:
        solution = solve(
            problem,
            strategy,
            budget=budget(options, defaults),
            seed=options.seed,
            progress=False if options.quiet else None,
            folder=folder,
            **fields(options.set),
        )
        return show(solution, folder, as_json=options.json)


def compare_strategies(options: argparse.Namespace) -> int:
    """Compare strategies on one problem."""
    from dpcontrol import catalogue
    from dpcontrol.comparison import Tuned, compare

    entry = catalogue.find(options.problem)
    problem = entry.build(size=options.size, seed=options.problem_seed)
    defaults = entry.defaults(options.size)
    tuned = [Tuned.load(place.strip()) for place in options.tuned.split(",")] if options.tuned else []
    names = (
        options.strategies.split(",")
        if options.strategies
        else defaults.get("strategies", ["adjoint", "lbfgs", "cmaes"])
    )
    strategies: list[Any] = [name.strip() for name in names]
    for each in tuned:
        # a tuned strategy stands where its name was asked for, else behind the others
        if each.strategy in strategies:
            strategies[strategies.index(each.strategy)] = each
        else:
            strategies.append(each)
    with folder_for(options.output, f"{problem.name}-compare") as folder:
        comparison = compare(
            problem,
            strategies,
            seeds=options.seeds,
            budget=budgets(options, defaults),
            folder=folder,
            workers=options.workers,
            progress=False if options.quiet else None,
        )
        return show_comparison(comparison, folder, as_json=options.json)


def tune_strategy(options: argparse.Namespace) -> int:
    """Search for a strategy's options on scenes that nobody is judged on."""
    from dpcontrol import catalogue
    from dpcontrol.comparison import spaces_of_words, tune

    entry = catalogue.find(options.problem)
    problem = entry.build(size=options.size, seed=options.problem_seed)
    space = spaces_of_words(options.space, literal)
    with folder_for(options.output, f"{problem.name}-tune-{options.strategy}") as folder:
        try:
            tuned = tune(
                problem,
                options.strategy,
                space=space,
                trials=options.trials,
                seeds=options.seeds,
                budget=budget(options, entry.defaults(options.size)),
                folder=folder,
                workers=options.workers,
                progress=not options.quiet,
                **fields(options.set),
            )
        except KeyboardInterrupt:
            print(
                f"dpcontrol: interrupted; the same command with --output {folder} goes on with the trials there.",
                file=sys.stderr,
            )
            return INTERRUPTED
        if options.json:
            trials = [{"options": dict(each.options), "loss": each.loss} for each in tuned.tried]
            print(json.dumps(strict({**tuned.record(), "tried": trials}), indent=1))
        else:
            for each in sorted(tuned.tried, key=lambda trial: trial.loss):
                chosen = ", ".join(f"{name}={value!r}" for name, value in each.options.items()) or "defaults"
                print(f"  {each.loss:<12.6g}{chosen}")
            print(f"{tuned}\nstored in {folder}; compare takes it with --tuned {folder}")
        return 0


def calibrate_problem(options: argparse.Namespace) -> int:
    """Calibrate a strategy on one problem by simulation."""
    from dpcontrol import catalogue
    from dpcontrol.criticism import sbc

    problem = catalogue.find(options.problem).build(size=options.size, seed=options.problem_seed)
    with folder_for(options.output, f"{problem.name}-calibrate") as folder:
        calibration = sbc(
            problem,
            options.strategy,
            simulations=options.simulations,
            ranked=options.ranked,
            seed=options.seed,
            folder=folder,
            workers=options.workers,
            progress=False if options.quiet else None,
            **fields(options.set),
        )
        return show_calibration(calibration, folder, as_json=options.json)


def check_problem(options: argparse.Namespace) -> int:
    """Taylor test of a problem, and a stress test where it has a prior."""
    from dpcontrol import catalogue
    from dpcontrol.checking import check_gradient
    from dpcontrol.criticism import stress_test

    problem = catalogue.find(options.problem).build(size=options.size, seed=options.problem_seed)
    found = check_gradient(problem, seed=options.seed)
    stress = None
    if problem.prior is not None and options.draws:
        stress = stress_test(problem, options.draws, seed=options.seed)
    passed = found.passed and (stress is None or stress.passed)
    if options.json:
        rows = [
            {
                "unknown": row.slot,
                "rate": row.rate,
                "verdict": row.verdict,
                "hessian_rate": row.hessian_rate,
                "hessian": row.hessian,
            }
            for row in found.rows
        ]
        record = {"problem": found.problem, "passed": found.passed, "rows": rows}
        if stress is not None:
            record["stress"] = stress.record()
        print(json.dumps(strict(record), indent=1))
    elif not options.quiet:
        print(found)
        if stress is not None:
            print(f"\n{stress}")
    return 0 if passed else FAILED


def resume_run(options: argparse.Namespace) -> int:
    """Go on with what a folder holds."""
    from dpcontrol import catalogue, criticism, store
    from dpcontrol.comparison import Comparison, compare, given_again, tuned_in
    from dpcontrol.meter import Budget
    from dpcontrol.solving import solve

    folder = Path(options.folder)
    progress = False if options.quiet else None
    if Comparison.stored_in(folder):
        asked = Comparison.question(folder)
        problem = catalogue.find(asked["problem"]).build(size=asked["size"], seed=asked["problem_seed"])
        comparison = compare(
            problem,
            given_again(asked["strategies"]),
            seeds=asked["seeds"],
            budget=[Budget(**limits) for limits in asked.get("budgets", [asked["budget"]])],
            folder=folder,
            workers=options.workers,
            progress=progress,
            resume=True,
        )
        return show_comparison(comparison, folder, as_json=options.json)
    if criticism.calibration_in(folder):
        return _resume_calibration(folder, options)
    if tuned_in(folder):
        raise UsageError(
            f"{folder} holds a tuning; the command that began it, with --output {folder}, goes on with its trials."
        )
    if not (folder / "run.json").is_file():
        raise UsageError(
            f"{folder} holds no run, comparison or calibration; name a folder that solve, compare or calibrate wrote."
        )
    asked = store.read_json(folder / "run.json")
    keys = ("problem", "size", "problem_seed", "strategy", "options", "budget", "seed")
    missing = [key for key in keys if key not in asked]
    if missing:
        raise UsageError(f"{folder / 'run.json'} was not written by solve: it lacks {', '.join(missing)}.")
    if asked["size"] is None:
        raise UsageError(
            f"the run in {folder} was posed in Python; resume it there with solve(..., resume=True)."
        )
    problem = catalogue.find(asked["problem"]).build(size=asked["size"], seed=asked["problem_seed"])
    solution = solve(
        problem,
        asked["strategy"],
        budget=Budget(**asked["budget"]),
        seed=asked["seed"],
        progress=progress,
        folder=folder,
        resume=True,
        **asked["options"],
    )
    return show(solution, folder, as_json=options.json)


def _resume_calibration(folder: Path, options: argparse.Namespace) -> int:
    from dpcontrol import catalogue, criticism
    from dpcontrol.meter import Budget

    asked, simulations = criticism.calibration_question(folder)
    if asked["size"] is None:
        raise UsageError(
            f"the calibration in {folder} was posed in Python; resume it there with sbc(..., resume=True)."
        )
    calibration = criticism.sbc(
        catalogue.find(asked["problem"]).build(size=asked["size"], seed=asked["problem_seed"]),
        asked["strategy"],
        simulations=simulations,
        ranked=asked["ranked"],
        seed=asked["seed"],
        budget=Budget(**asked["budget"]),
        folder=folder,
        resume=True,
        workers=options.workers,
        progress=False if options.quiet else None,
        **asked["options"],
    )
    return show_calibration(calibration, folder, as_json=options.json)


def make_report(options: argparse.Namespace) -> int:
    """Make the report of a stored comparison again."""
    from dpcontrol.comparison import Comparison

    folder = Path(options.folder)
    comparison = Comparison.load(folder)
    print(comparison.table())
    print(f"\nreport: {write_reports(comparison, folder)}")
    return 0


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "list": list_names,
    "solve": solve_problem,
    "compare": compare_strategies,
    "tune": tune_strategy,
    "calibrate": calibrate_problem,
    "check": check_problem,
    "trial": try_folders,
    "resume": resume_run,
    "report": make_report,
}
