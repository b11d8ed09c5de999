"""The runs of a comparison: in worker processes, stored one by one, and taken up again where they were left."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from dpcontrol import sweep
from dpcontrol.comparison.display import run_shown
from dpcontrol.comparison.records import (
    NOT_RUN,
    REFUSED,
    Run,
    Task,
    from_solution,
    solved,
    without_solution,
)
from dpcontrol.meter import Budget, Progress
from dpcontrol.problem.base import Problem
from dpcontrol.solution import Solution
from dpcontrol.solving import solve


def waiting_run(task: Task, problem: str) -> Run:
    """The run of a task whose turn has not come, or that is refused."""
    if task.refused is not None:
        return without_solution(task.label, task.seed, problem, REFUSED, task.refused, said=task.said)
    sentence = (
        "it was not run: the comparison was interrupted before its turn; dpcontrol resume goes on with it."
    )
    return without_solution(task.label, task.seed, problem, NOT_RUN, sentence, said=task.said)


def run_all(
    problem: Problem,
    tasks: Sequence[Task],
    budget: Budget,
    folder: Path | None,
    workers: int | None,
    shown: bool,
    resume: bool,
) -> list[Run]:
    """All runs in the order of the tasks; with ``resume`` finished ones are taken from the folder."""
    finished = {
        task.folder_name: run for task in tasks if resume and (run := _finished(task, folder)) is not None
    }
    todo = [task for task in tasks if task.refused is None and task.folder_name not in finished]
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
    outcomes = run_shown(jobs, labels, workers, budget.seconds, shown)
    for task, outcome in zip(todo, outcomes, strict=True):
        finished[task.folder_name] = _made_of(task, outcome, problem.name, _place(folder, task))
    runs = []
    for task in tasks:
        run = finished.get(task.folder_name) or waiting_run(task, problem.name)
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
        return waiting_run(dataclasses.replace(task, refused=None), problem)
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
