"""``compare``: every strategy with every seed, on equal budgets, in worker processes."""

from __future__ import annotations

import dataclasses
import inspect
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from dpcontrol import store, sweep
from dpcontrol.comparison.comparison import Comparison
from dpcontrol.comparison.display import Display
from dpcontrol.comparison.figures import own_figures
from dpcontrol.comparison.moments import given_reference
from dpcontrol.comparison.planning import Given, asked, checked_budgets, plan
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
from dpcontrol.solution import Solution
from dpcontrol.solving import solve
from dpcontrol.strategies.baselines import Baseline


def compare(
    problem: Problem,
    strategies: Given,
    *,
    seeds: int | Sequence[int] = 3,
    budget: Budget | Sequence[Budget] | None = None,
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
        strategies: names, Strategy objects, or what :func:`~dpcontrol.comparison.tune` gave; a mapping labels them.
        seeds: how many (0, 1, ...), or which.
        budget: of each run; without one every strategy goes on to its own end, which is no equal comparison. Of several
            (one in simulated steps and one in seconds, say) each is a comparison of its own, with its own runs and
            ranking, and the finding tells who won under which.
        folder: where runs and results are kept, so that the comparison can be resumed and reported again.
        workers: processes, each with one thread of torch; as many as there are cores by default; 0 runs in this one.
        progress: show progress on the error stream; true by default.
        resume: take finished runs from ``folder``, go on with interrupted ones, and run the rest.
        about: what the problem is, in words, for the report; by default the docstring of its file, or its simulator's.

    Raises:
        UsageError: before any work, in one sentence.
    """
    if workers is not None and (not isinstance(workers, int) or isinstance(workers, bool) or workers < 0):
        raise UsageError(
            f"workers must be a number of processes, 0 for none but this one; found {workers!r}."
        )
    tasks = plan(problem, strategies, seeds)
    budgets = checked_budgets(budget)
    place = None if folder is None else Path(folder)
    comparing = _Comparing(
        problem,
        strategies,
        seeds,
        tasks,
        workers,
        progress is not False,
        about or problem.description or inspect.cleandoc(type(problem.simulator).__doc__ or ""),
    )
    if len(budgets) == 1:
        if place is not None:
            _open(place, comparing.asked(budgets[0]), resume)
        return Comparison(comparing.under(budgets[0], place, resume=resume))
    names = round_names(budgets)
    if place is not None:
        question = comparing.asked(budgets[0]) | {"budgets": [dataclasses.asdict(each) for each in budgets]}
        _open(place, question, resume)
        store.write_json(place / "comparison.json", {"asked": question, "rounds": names})
    rounds: list[Results] = []
    for name, limits in zip(names, budgets, strict=True):
        own = None if place is None else place / name
        going_on = own is not None and resume and (own / "comparison.json").is_file()
        stopped = any(Comparison(each).interrupted for each in rounds)
        rounds.append(comparing.under(limits, own, resume=going_on, waiting=stopped))
    return Comparison(rounds[0], tuple(rounds[1:]))


def round_names(budgets: Sequence[Budget]) -> list[str]:
    """A folder for each of several budgets, named after what it limits: ``simulated-steps``, ``seconds``, ..."""
    names: list[str] = []
    for budget in budgets:
        limits = [field for field, value in dataclasses.asdict(budget).items() if value is not None]
        name = "-".join(limits).replace("_", "-") or "unlimited"
        earlier = sum(each == name or each.startswith(f"{name}.") for each in names)
        names.append(f"{name}.{earlier + 1}" if earlier else name)
    return names


@dataclasses.dataclass(frozen=True)
class _Comparing:
    """What all budgets of a comparison have in common."""

    problem: Problem
    strategies: Given
    seeds: int | Sequence[int]
    tasks: Sequence[Task]
    workers: int | None
    shown: bool
    about: str

    def asked(self, budget: Budget) -> dict[str, Any]:
        return asked(self.problem, self.strategies, self.seeds, budget)

    def under(self, limits: Budget, place: Path | None, *, resume: bool, waiting: bool = False) -> Results:
        """All runs under one budget; none is begun where they are left ``waiting``."""
        problem, tasks = self.problem, self.tasks
        results = Results(
            name=problem.name,
            runs=tuple(_waiting(task, problem.name) for task in tasks),
            laws=tuple(dict.fromkeys(task.label for task in tasks if isinstance(task.strategy, Baseline))),
            references=reference_solutions(problem),
            asked=self.asked(limits),
            about=self.about,
            environment=environment(),
            folder=place,
            reference_moments=given_reference(problem),
        )
        for name, solution in results.references.items():
            if place is not None:
                solution.save(place / "references" / slug(name))
        results.write()
        if waiting:
            return results
        runs = _run_all(problem, tasks, limits, place, self.workers, self.shown, resume)
        results = dataclasses.replace(results, runs=tuple(runs))
        results = dataclasses.replace(results, own_figures=own_figures(problem, results, summarise(results)))
        results.write()
        return results


def _open(folder: Path, question: dict[str, Any], resume: bool) -> None:
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
    for key in ("problem", "size", "problem_seed", "scenarios", "horizon", "budget", "budgets"):
        if before.get(key) != question.get(key):
            raise UsageError(
                f"{folder} holds a comparison with {key} {before.get(key)!r}, not {question.get(key)!r}; "
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
        return without_solution(task.label, task.seed, problem, REFUSED, task.refused, said=task.said)
    sentence = (
        "it was not run: the comparison was interrupted before its turn; dpcontrol resume goes on with it."
    )
    return without_solution(task.label, task.seed, problem, NOT_RUN, sentence, said=task.said)


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
        task.label,
        task.seed,
        problem,
        "failed",
        sentence,
        seconds=outcome.seconds,
        detail=text,
        said=task.said,
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

    before = torch.get_num_threads()
    torch.set_num_threads(1)  # so that runs compare, however many workers there are
    try:
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
    finally:
        torch.set_num_threads(before)
