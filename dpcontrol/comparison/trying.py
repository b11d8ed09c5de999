"""The trials of a tuning: run in worker processes, each kept as JSON as soon as it is there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dpcontrol import store, sweep
from dpcontrol.comparison.display import run_shown
from dpcontrol.comparison.stats import interquartile_mean
from dpcontrol.meter import Budget, Progress
from dpcontrol.problem.base import Problem
from dpcontrol.solving import solve


@dataclass(frozen=True)
class Trial:
    """Options that were tried: the run of each seed as a record, and the interquartile mean of their losses.

    ``loss`` is infinite where a run gave none.
    """

    options: Mapping[str, Any]
    records: tuple[Mapping[str, Any], ...]

    @property
    def loss(self) -> float:
        losses = [record["loss"] for record in self.records]
        fine = losses and all(loss is not None and loss - loss == 0 for loss in losses)
        return interquartile_mean(np.array(losses, float)) if fine else float("inf")


def file_of(folder: Path, trial: int, seed: int) -> Path:
    return folder / "trials" / f"{trial:03d}-seed-{seed}.json"


def read_trials(folder: Path, options: list[dict[str, Any]], seeds: int) -> list[Trial]:
    """The trials whose runs are all there."""
    found = []
    for trial, each in enumerate(options):
        files = [file_of(folder, trial, seed) for seed in range(seeds)]
        if all(file.is_file() for file in files):
            found.append(Trial(each, tuple(store.read_json(file) for file in files)))
    return found


def run_trials(
    problem: Problem,
    asked: Mapping[str, Any],
    options: list[dict[str, Any]],
    folder: Path | None,
    workers: int | None,
    shown: bool,
) -> list[list[Mapping[str, Any]]]:
    """The record of every run, trial by trial; runs that a folder holds are taken from there."""
    pairs = [(trial, seed) for trial in range(len(options)) for seed in range(asked["seeds"])]
    found: dict[tuple[int, int], Mapping[str, Any]] = {}
    if folder is not None:
        found = {
            pair: store.read_json(file_of(folder, *pair))
            for pair in pairs
            if file_of(folder, *pair).is_file()
        }
    todo = [pair for pair in pairs if pair not in found]
    budget = Budget(**asked["budget"])
    jobs = [
        sweep.Job(
            f"trial {trial}, seed {seed}",
            one_trial,
            {
                "problem": problem,
                "strategy": asked["strategy"],
                "options": options[trial],
                "seed": seed,
                "budget": budget,
                "file": None if folder is None else file_of(folder, trial, seed),
            },
        )
        for trial, seed in todo
    ]
    outcomes = run_shown(jobs, [job.name for job in jobs], workers, budget.seconds, shown)
    for pair, outcome in zip(todo, outcomes, strict=True):
        if outcome.interrupted or (outcome.value or {}).get("status") == "interrupted":
            raise KeyboardInterrupt
        found[pair] = outcome.value or {
            **FAILED,
            "seconds": outcome.seconds,
            "sentence": (outcome.error or "").strip(),
        }
        if folder is not None:
            store.write_json(file_of(folder, *pair), found[pair])
    return [[found[trial, seed] for seed in range(asked["seeds"])] for trial in range(len(options))]


FAILED: Mapping[str, Any] = {
    "status": "failed",
    "loss": None,
    "counts": {"simulated_steps": 0, "gradients": 0},
}


def one_trial(
    *,
    problem: Problem,
    strategy: str,
    options: Mapping[str, Any],
    seed: int,
    budget: Budget,
    file: Path | None,
    report: Callable[[dict[str, Any]], None],
) -> dict[str, Any]:
    """One run of a trial, in a worker process: its record with its history, written as soon as it is there."""
    report({"state": "started"})

    def listen(progress: Progress) -> None:
        report({"loss": progress.loss, "fraction": progress.fraction})

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        solution = solve(
            problem, strategy, budget=budget, seed=seed, callback=listen, progress=False, **options
        )
    finally:
        torch.set_num_threads(before)
    history = {name: list(column) for name, column in solution.history.items()}
    record = {**solution.record(), "options": dict(options), "history": history}
    report({"state": "ended", "loss": record["loss"], "text": record["status"]})
    if file is not None and record["status"] != "interrupted":
        store.write_json(file, record)
    return record
