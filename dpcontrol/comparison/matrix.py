"""``compare``: every strategy with every seed, on equal budgets, in worker processes."""

from __future__ import annotations

import dataclasses
import inspect
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from dpcontrol import store, sweep
from dpcontrol.comparison.comparison import Comparison
from dpcontrol.comparison.display import Display
from dpcontrol.comparison.figures import own_figures
from dpcontrol.comparison.records import (
    NOT_RUN,
    REFUSED,
    Results,
    Run,
    Task,
    from_solution,
    slug,
    solved,
    without_solution,
)
from dpcontrol.comparison.references import reference_solutions
from dpcontrol.comparison.summary import summarise
from dpcontrol.meter import Budget, Progress
from dpcontrol.problem.base import Problem
from dpcontrol.results import UsageError
from dpcontrol.run import Strategy
from dpcontrol.solution import Solution
from dpcontrol.solving import refuse_mismatch, solve
from dpcontrol.strategies.baselines import Baseline
from dpcontrol.strategies.names import name_of, resolve

Given = Sequence[str | Strategy] | Mapping[str, str | Strategy]


def compare(
    problem: Problem,
    strategies: Given,
    *,
    seeds: int | Sequence[int] = 3,
    budget: Budget | None = None,
    folder: str | Path | None = None,
    workers: int | None = None,
    progress: bool | None = None,
    resume: bool = False,
    about: str | None = None,
) -> Comparison:
    """Solve a problem with several strategies on equal budgets, and compare what they found.

    Strategies without chance run once, the others once for each seed, ``baseline`` once for each simple law of the
    problem. A strategy that does not fit the problem is listed as refused, a run that fails is listed with its error;
    neither stops the others. Ctrl-C ends the running ones with their best so far; the others are listed as not run.

    Args:
        problem: what is asked.
        strategies: names or Strategy objects; a mapping gives them labels.
        seeds: how many (0, 1, ...), or which.
        budget: of each run; without one every strategy goes on to its own end, which is no equal comparison.
        folder: where runs and results are kept, so that the comparison can be resumed and reported again.
        workers: processes, each with one thread of torch; as many as there are cores by default; 0 runs in this one.
        progress: show progress on the error stream; true by default.
        resume: take finished runs from ``folder``, go on with interrupted ones, and run the rest.
        about: what the problem is, in words, for the report; the simulator's docstring by default.

    Raises:
        UsageError: before any work, in one sentence.
    """
    tasks = plan(problem, strategies, seeds)
    limits = _checked_budget(budget)
    place = None if folder is None else Path(folder)
    results = Results(
        name=problem.name,
        runs=tuple(_waiting(task, problem.name) for task in tasks),
        laws=tuple(task.label for task in tasks if isinstance(task.strategy, Baseline)),
        references={},
        asked=_asked(problem, strategies, seeds, limits),
        about=about or inspect.cleandoc(type(problem.simulator).__doc__ or ""),
        environment=environment(),
        folder=place,
    )
    if place is not None:
        _open(place, results, resume)
    results = dataclasses.replace(results, references=reference_solutions(problem))
    for name, solution in results.references.items():
        if place is not None:
            solution.save(place / "references" / slug(name))
    results.write()
    runs = _run_all(problem, tasks, limits, place, workers, progress is not False, resume)
    results = dataclasses.replace(results, runs=tuple(runs))
    results = dataclasses.replace(results, own_figures=own_figures(problem, results, summarise(results)))
    results.write()
    return Comparison(results)


# -- what is to be run -------------------------------------------------------------------------------------------------


def plan(problem: Problem, strategies: Given, seeds: int | Sequence[int]) -> list[Task]:
    """All runs that are asked for, in order, those of strategies that do not fit among them.

    Raises:
        UsageError: for an unknown strategy, a label given twice, or wrong seeds.
    """
    if not isinstance(problem, Problem):
        raise UsageError(
            f"compare needs a Problem; found {type(problem).__name__}: pose one with control_problem(...)."
        )
    if isinstance(strategies, (str, Strategy)) or len(strategies) == 0:
        raise UsageError(
            f"strategies must be a list of one or more, such as ['adjoint', 'lbfgs']; found {strategies!r}."
        )
    pairs = strategies.items() if isinstance(strategies, Mapping) else [(None, entry) for entry in strategies]
    labelled: list[tuple[str, Strategy]] = []
    for label, entry in pairs:
        labelled += _expanded(problem, label, resolve(entry))
    labels = [label for label, _ in labelled]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise UsageError(
            f"two strategies are called {twice[0]!r}; give them labels: strategies={{'label': strategy}}."
        )
    chosen = _checked_seeds(seeds)
    tasks = []
    for label, strategy in labelled:
        refused = _refusal(problem, strategy)
        wanted = chosen if strategy.stochastic and refused is None else chosen[:1]
        tasks += [Task(label, strategy, seed, refused) for seed in wanted]
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


def _checked_budget(budget: Budget | None) -> Budget:
    if budget is not None and not isinstance(budget, Budget):
        raise UsageError(f"budget must be a Budget, such as Budget(seconds=60); found {budget!r}.")
    return budget or Budget()


def _asked(problem: Problem, strategies: Given, seeds: int | Sequence[int], budget: Budget) -> dict[str, Any]:
    def plain(entry: str | Strategy) -> str:
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
    }


def _open(folder: Path, results: Results, resume: bool) -> None:
    """Refuse a folder that holds another comparison, or one that is not to be resumed."""
    if not (folder / "comparison.json").is_file():
        if resume:
            raise UsageError(
                f"{folder} holds no comparison to resume; name the folder that an earlier one wrote."
            )
        return
    if not resume:
        raise UsageError(
            f"{folder} holds a comparison already; resume it (resume=True), or name another folder."
        )
    before = store.read_json(folder / "comparison.json")["asked"]
    for key in ("problem", "size", "problem_seed", "scenarios", "horizon", "budget"):
        if before[key] != results.asked[key]:
            raise UsageError(
                f"{folder} holds a comparison with {key} {before[key]!r}, not {results.asked[key]!r}; "
                "resume it as it was, or name another folder."
            )


def environment() -> dict[str, str]:
    """Versions, machine and date: what a reader needs to trust or repeat the numbers."""
    found = {"python": platform.python_version()}
    for package in ("dpcontrol", "torch", "numpy", "scipy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed as a package"
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    found["machine"] = f"{platform.system()} {platform.machine()}, {cores} cores"
    found["date"] = time.strftime("%Y-%m-%d")
    return found


# -- running ----------------------------------------------------------------------------------------------------------


def _waiting(task: Task, problem: str) -> Run:
    if task.refused is not None:
        return without_solution(task.label, task.seed, problem, REFUSED, task.refused)
    sentence = (
        "it was not run: the comparison was interrupted before its turn; dpcontrol resume goes on with it."
    )
    return without_solution(task.label, task.seed, problem, NOT_RUN, sentence)


def _run_all(
    problem: Problem,
    tasks: Sequence[Task],
    budget: Budget,
    folder: Path | None,
    workers: int | None,
    shown: bool,
    resume: bool,
) -> list[Run]:
    finished = {
        task.folder_name: run for task in tasks if resume and (run := _finished(task, folder)) is not None
    }
    todo = [task for task in tasks if task.refused is None and task.folder_name not in finished]
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    processes = min(cores if workers is None else workers, len(todo))
    jobs = [
        sweep.Job(
            task.folder_name,
            work,
            {
                "problem": problem,
                "task": task,
                "budget": budget,
                "folder": _place(folder, task),
                "resume": resume,
            },
        )
        for task in todo
    ]
    labels = [f"{task.label}, seed {task.seed}" if task.strategy.stochastic else task.label for task in todo]
    display = Display(labels, processes, sys.stderr, budget.seconds) if shown else None
    try:
        outcomes = sweep.run_jobs(
            jobs, workers=processes, on_event=None if display is None else display.event
        )
    finally:
        if display is not None:
            display.close()
    for task, outcome in zip(todo, outcomes, strict=True):
        finished[task.folder_name] = _made_of(task, outcome, problem.name, _place(folder, task))
    runs = []
    for task in tasks:
        run = finished.get(task.folder_name) or _waiting(task, problem.name)
        if folder is not None:
            run.store(folder / "runs" / task.folder_name)
        runs.append(run)
    return runs


def _place(folder: Path | None, task: Task) -> Path | None:
    return None if folder is None else folder / "runs" / task.folder_name


def _finished(task: Task, folder: Path | None) -> Run | None:
    """The run of an earlier call, if it ended by itself."""
    place = _place(folder, task)
    if place is None or not (place / "record.json").is_file() or not solved(place):
        return None
    run = Run.load(place)
    return None if run.status in ("interrupted", NOT_RUN, REFUSED) else run


def _made_of(task: Task, outcome: sweep.Outcome, problem: str, place: Path | None) -> Run:
    if outcome.value is not None:
        run: Run = outcome.value
        return run
    if outcome.interrupted:
        return _waiting(dataclasses.replace(task, refused=None), problem)
    text = (outcome.error or "").strip()
    # the last line of a traceback is the error itself; a dead worker is one sentence
    sentence = text.splitlines()[-1].removeprefix("dpcontrol.results.UsageError: ")
    return without_solution(
        task.label, task.seed, problem, "failed", sentence, seconds=outcome.seconds, detail=text
    )


def work(
    *,
    problem: Problem,
    task: Task,
    budget: Budget,
    folder: Path | None,
    resume: bool,
    report: Callable[[dict[str, Any]], None],
) -> Run:
    """One run, in a worker process: solve, store, and hand back plain values."""
    report({"state": "started"})
    try:
        solution = _solution(problem, task, budget, folder, resume, report)
        run = from_solution(task, problem, solution, keep=folder is None)
    except Exception as error:
        report({"state": "ended", "text": f"failed: {error}"})
        raise
    report({"state": "ended", "loss": run.record["loss"], "text": run.status})
    if folder is not None:
        run.store(folder)
    return run


def _solution(
    problem: Problem,
    task: Task,
    budget: Budget,
    folder: Path | None,
    resume: bool,
    report: Callable[[dict[str, Any]], None],
) -> Solution:
    going_on = resume and folder is not None and (folder / "run.json").is_file()
    if going_on and folder is not None and solved(folder):
        found = Solution.load(folder)
        if found.status.kind != "interrupted":
            return found

    def listen(progress: Progress) -> None:
        report({"loss": progress.loss, "fraction": progress.fraction})

    torch.set_num_threads(1)
    return solve(
        problem,
        task.strategy,
        budget=budget,
        seed=task.seed,
        callback=listen,
        progress=False,
        folder=folder,
        resume=going_on,
    )
