"""Who solves which task at equal simulated steps, tasks where differentiable physics may lose among them.

    python tests/benchmarks/tasks.py [--only hidden_target push_block] [--strategies policy ppo] [--steps 1000000]

Every strategy gets the same number of simulated steps on the small size of every problem (a step of a backward sweep
counts as one more), three seeds where it draws random numbers, and is judged on the problem's own scenes. ``lbfgs``,
``cem`` and ``cmaes`` search one control sequence for each scene, the others one controller for all scenes, trained on
drawn ones where there is a distribution. Nothing is tuned to a task: each has one set of options, those of ``OPTIONS``,
with networks of the same size.

A task is *solved* where the share (or the number) in ``SOLVED`` is reached: that is the problem's own metric.

Writes ``results/tasks.json`` after every run, and goes on where it stopped. One thread; seconds are CPU seconds.
"""

from __future__ import annotations

import argparse
import importlib
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from dpcontrol.meter import Budget
from dpcontrol.problem import Problem
from dpcontrol.run import Strategy, run
from dpcontrol.strategies import (
    CEM,
    CMAES,
    LBFGS,
    PPO,
    SAC,
    ActorCritic,
    EvolvedPolicy,
    LearnedPolicy,
    MultiStart,
)

RECORD = Path(__file__).parent / "results" / "tasks.json"
STEPS, SEEDS = 100_000, 3
SMALL = {"width": 64}
OPTIONS: dict[str, Strategy] = {
    "lbfgs": LBFGS(),
    "lbfgs, 8 random starts": MultiStart(LBFGS(), starts=8),
    "cem": CEM(),
    "cmaes": CMAES(),
    "policy": LearnedPolicy(**SMALL, batch=16, validation=32),
    "shac": ActorCritic(**SMALL, batch=16, validation=32),
    "evolved_policy": EvolvedPolicy(**SMALL, batch=8, population=16, validation=32),
    "ppo": PPO(
        **SMALL, environments=16, rollout=128, epochs=5, learning_rate=1e-3, schedule="cosine", validation=32,
    ),
    # a gradient step for every twenty steps: more would cost more seconds than all the others together
    "sac": SAC(
        **SMALL, environments=20, updates=0.05, batch=128, warmup=1000, learning_rate=1e-3, validation=32,
    ),
}  # fmt: skip


class Solved(NamedTuple):
    """A metric of the problem, and how much (or how little) of it is called solved."""

    metric: str
    bound: float
    most: bool = False

    def by(self, value: float) -> bool:
        return value <= self.bound if self.most else value >= self.bound


SOLVED = {
    "hidden_target": Solved("arrived", 0.9),
    "push_block": Solved("placed", 0.9),
    "late_balance": Solved("balanced", 0.9),
    "cartpole_swingup": Solved("upright", 0.9),
    "pendulum_torque": Solved("upright", 0.9),
    "pendulum_swingup": Solved("swung_up", 0.9),
    # chaos has a root mean square of 1.3
    "ks_stabilisation": Solved("final_rms", 0.1, most=True),
}


def measured(task: str, label: str, seed: int, steps: int) -> dict[str, Any]:
    """One run."""
    problem: Problem = importlib.import_module(f"dpcontrol.problems.{task}").problem(size="small")
    began = time.process_time()
    strategy = OPTIONS[label]
    if isinstance(strategy, (PPO, SAC)):  # counted in steps of the environment: ten times in a run
        strategy = replace(strategy, validate_every=steps // 10)
    solution = run(problem, strategy, seed=seed, budget=Budget(simulated_steps=steps))
    rule = SOLVED[task]
    value = solution.metrics[rule.metric]
    return {
        "task": task,
        "strategy": label,
        "seed": seed,
        "budget": steps,
        "loss": round(solution.loss, 4),
        rule.metric: round(value, 4),
        "solved": rule.by(value),
        "simulated steps": solution.counts.simulated_steps,
        "gradients": solution.counts.gradients,
        "failures": solution.counts.failures,
        "status": solution.status.kind,
        "cpu seconds": round(time.process_time() - began, 1),
    }


def laws(task: str) -> dict[str, Any]:
    """What the problem's simple laws come to."""
    problem: Problem = importlib.import_module(f"dpcontrol.problems.{task}").problem(size="small")
    found = {}
    for name, law in problem.baselines.items():
        samples = problem.metric_samples(problem.run_law(law))
        metric = SOLVED[task].metric
        value = float(samples[metric][0].mean() / samples[metric][1].mean())
        found[name] = {metric: round(value, 4), "solved": SOLVED[task].by(value)}
    return found


def table(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Budget -> task -> strategy -> how many of its seeds solved it, and the mean loss."""
    found: dict[str, Any] = {}
    for entry in runs:
        own = [one for one in runs if all(one[key] == entry[key] for key in ("budget", "task", "strategy"))]
        found.setdefault(str(entry["budget"]), {}).setdefault(entry["task"], {})[entry["strategy"]] = {
            "solved": f"{sum(one['solved'] for one in own)} of {len(own)}",
            "mean loss": round(float(np.mean([one["loss"] for one in own])), 3),
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", default=list(SOLVED), choices=list(SOLVED))
    parser.add_argument("--strategies", nargs="*", default=list(OPTIONS), choices=list(OPTIONS))
    parser.add_argument("--steps", type=int, default=STEPS, help="simulated steps of a run")
    given = parser.parse_args()
    torch.set_num_threads(1)
    runs = json.loads(RECORD.read_text())["runs"] if RECORD.exists() else []
    known = {task: laws(task) for task in SOLVED}
    for seed in range(SEEDS):
        for label in given.strategies:
            for task in given.only:
                key = (task, label, seed, given.steps)
                done = any((one["task"], one["strategy"], one["seed"], one["budget"]) == key for one in runs)
                if done or (seed and not OPTIONS[label].stochastic):
                    continue
                runs.append(measured(*key))
                print(json.dumps(runs[-1]), flush=True)
                record = {
                    "command": "python tests/benchmarks/tasks.py",
                    "options": {name: repr(strategy) for name, strategy in OPTIONS.items()},
                    "solved means": {name: rule._asdict() for name, rule in SOLVED.items()},
                    "laws": known,
                    "table": table(runs),
                    "runs": runs,
                }
                RECORD.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
