"""Runs whose losses and courses are given: what statistics, costs and findings are tested with."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from dpcontrol.comparison.records import Results, Run, without_solution


def made(
    label: str,
    losses: Sequence[float] | None,
    *,
    seed: int = 0,
    status: str = "budget spent",
    course: Sequence[tuple[float, float]] = (),
    decision: str | None = None,
    family: str = "no gradients",
    tuned: dict[str, Any] | None = None,
) -> Run:
    """A run. ``course`` are pairs of simulated steps and mean loss; seconds are a thousandth of the steps."""
    said = {"family": family, "tuned": tuned}
    empty = without_solution(label, seed, "p", status, "it ended.", said=said)
    if losses is None:
        return empty
    steps = [int(cost) for cost, _ in course] or [1000]
    mean = float(np.mean(losses))
    history = {
        "simulated_steps": steps,
        "gradients": [0] * len(steps),
        "seconds": [cost / 1000 for cost in steps],
        "loss": [loss for _, loss in course] or [mean],
    }
    record = {
        **empty.record,
        "loss": mean,
        "losses": [float(loss) for loss in losses],
        "counts": {"simulated_steps": steps[-1], "gradients": 0},
        "seconds": steps[-1] / 1000,
    }
    kind = {} if decision is None else {"kind": decision, "seconds": 1e-3}
    return dataclasses.replace(empty, record=record, history=history, decision=kind)


def results(
    *runs: Run, laws: tuple[str, ...] = (), budget: float = 1000, scenes: int | None = None
) -> Results:
    """A comparison of runs."""
    limits = {"seconds": None, "simulated_steps": budget, "gradients": None, "target_loss": None}
    count = scenes or max(len(run.record["losses"]) for run in runs)
    asked = {
        "budget": limits,
        "scenarios": count,
        "horizon": 10,
        "strategies": [],
        "seeds": 1,
        "size": None,
        "problem": "p",
        "problem_seed": None,
    }
    return Results("p", runs, laws, {}, asked, "", {})
