"""Differentiable physics against model-free learning and evolution, on equal terms; and where it loses.

    python tests/benchmarks/dp_versus_model_free.py                              # all tasks, ten seeds, hours
    python tests/benchmarks/dp_versus_model_free.py --tasks burgers --scale 0.4 --trials 4    # an hour or two
    python tests/benchmarks/dp_versus_model_free.py --size small --seeds 2 --trials 2 --scale 0.05  # minutes, to try it

For each task: every learned or evolved method gets the same number of tuning trials (the first are its defaults) on
tuning scenes of their own, then all are compared under two budgets, in simulated steps and in seconds. Everything is
kept in ``runs/dp_versus_model_free/<size>/<task>`` (``--folder``): tuning trials, raw runs, ``report.html``. Interrupt
it and call it again: it goes on with what is there. ``results/dp_versus_model_free.json`` is written behind each task.

Budgets are those of one run, of a trial as of a judged one. CPU minutes of one core for a million simulated steps of
Burgers: sac 18 (one update for four steps), ppo 2, planner 0.6, shac 0.5, policy 0.2, the others about 0.1. So the
second command takes two CPU hours in steps and forty minutes in seconds.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

from dpcontrol import catalogue
from dpcontrol.comparison import TUNABLE, Comparison, Tuned, compare, tune
from dpcontrol.comparison.matrix import environment
from dpcontrol.meter import Budget
from dpcontrol.problem import Problem
from dpcontrol.results import UsageError
from dpcontrol.run import mismatch
from dpcontrol.store import read_json, write_json
from dpcontrol.strategies.names import named, resolve

RESULTS = Path(__file__).parent / "results" / "dp_versus_model_free.json"


class Task(NamedTuple):
    """Budgets of a run in the full size, and what the task is there for."""

    simulated_steps: int
    seconds: float
    why: str


TASKS = {
    "burgers": Task(1_000_000, 60.0, "the published task: smooth physics, 992 controls a scene"),
    "pendulum_torque": Task(1_000_000, 30.0, "where ppo and sac are known to work"),
    "cartpole_swingup": Task(1_000_000, 30.0, "a swing-up with many local optima"),
    "ks_stabilisation": Task(400_000, 60.0, "chaos: gradients grow with the horizon"),
    "hidden_target": Task(1_000_000, 30.0, "a sparse reward: the gradient is zero nearly everywhere"),
    "push_block": Task(1_000_000, 30.0, "contact and dry friction: gradients vanish before the touch"),
    "late_balance": Task(1_000_000, 30.0, "a delay between decision and effect"),
}
# Those that exist take part; those that do not fit a task are listed as refused.
STRATEGIES = ("lbfgs", "mpc", "policy", "shac", "planner", "ppo", "sac", "evolved_policy", "cmaes", "mppi")
# Narrower than usual: with more than one update for four steps sac takes longer than all others together.
SPACES = {"sac": {**TUNABLE["sac"], "updates": (0.05, 0.25)}}
TUNED = ("policy", "shac", "planner", "ppo", "sac", "evolved_policy", "cmaes", "mppi")


def budgets_of(task: Task, scale: float) -> list[Budget]:
    """One in simulated steps, one in seconds."""
    return [
        Budget(simulated_steps=max(1000, round(scale * task.simulated_steps))),
        Budget(seconds=scale * task.seconds),
    ]


def tuned_strategies(problem: Problem, budget: Budget, folder: Path, options: Any) -> list[str | Tuned]:
    """All strategies, those that are tuned with the options that their trials found."""
    found: list[str | Tuned] = ["baseline"] if problem.baselines else []
    for name in options.strategies.split(","):
        if name not in named():
            continue
        if name not in TUNED or options.trials < 2 or mismatch(problem, resolve(name)) is not None:
            found.append(name)
            continue
        print(f"-- {problem.name}: {name}, {options.trials} trials", file=sys.stderr)
        try:
            tuned = tune(
                problem,
                name,
                space=SPACES.get(name),
                trials=options.trials,
                budget=budget,
                folder=folder / "tuning" / name,
                workers=options.workers,
            )
        except UsageError as error:  # every trial failed: it competes with its defaults, and is seen to fail
            print(f"-- {error}", file=sys.stderr)
            found.append(name)
            continue
        print(f"-- {tuned}", file=sys.stderr)
        found.append(tuned)
    return found


def compared(name: str, options: Any) -> Comparison:
    """One task, from where an earlier call left it."""
    folder = Path(options.folder) / options.size / name
    problem = catalogue.find(name).build(size=options.size, seed=0)
    budgets = budgets_of(TASKS[name], options.scale)
    strategies = tuned_strategies(problem, budgets[0], folder, options)
    place = folder / "comparison"
    return compare(
        problem,
        strategies,
        seeds=options.seeds,
        budget=budgets,
        folder=place,
        workers=options.workers,
        resume=Comparison.stored_in(place),
    )


def record_of(name: str, comparison: Comparison, options: Any) -> dict[str, Any]:
    """Plain values of a task, for ``results``."""
    tuned = {record["strategy"]: record["tuned"] for record in comparison.records if record["tuned"]}
    found = comparison.finding()
    return {
        "why": TASKS[name].why,
        "size": options.size,
        "scenes": comparison.results.asked["scenarios"],
        "seeds": options.seeds,
        "headline": found.headline,
        "sentences": list(found.sentences),
        "under_each_budget": [
            {
                "budget": each.results.budget,
                "headline": each.finding().headline,
                "sentences": each.finding().sentences,
            }
            for each in comparison.rounds
        ],
        "overview": comparison.overview(),
        "tuned": {
            label: {"options": t["options"], "trials": t["trials"], "losses": t["losses"]}
            for label, t in tuned.items()
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", default=",".join(TASKS), help=f"of {', '.join(TASKS)} (default: all)")
    parser.add_argument(
        "--strategies", default=",".join(STRATEGIES), help="beside the simple laws (default: all that exist)"
    )
    parser.add_argument("--size", default="full", choices=("full", "small"))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--trials", type=int, default=8, help="tuning trials of each method; below 2 none")
    parser.add_argument("--scale", type=float, default=1.0, help="of all budgets")
    parser.add_argument("--workers", type=int, default=None, help="processes (default: one per core)")
    parser.add_argument("--folder", default="runs/dp_versus_model_free")
    parser.add_argument(
        "--record", default=None, help="where the record goes (default: results/, for the full size)"
    )
    options = parser.parse_args()
    full = options.size == "full" and options.scale == 1.0 and options.strategies == ",".join(STRATEGIES)
    target = (
        Path(options.record) if options.record else RESULTS if full else Path(options.folder) / "record.json"
    )
    for name in options.tasks.split(","):
        comparison = compared(name.strip(), options)
        report = comparison.report()
        print(f"\n#### {name}\n\n{comparison.table()}\n\nreport: {report}", flush=True)
        if comparison.interrupted:
            sys.exit("interrupted; the same command goes on with it")
        content = read_json(target) if target.is_file() else {"tasks": {}}
        content["command"] = " ".join(["python tests/benchmarks/dp_versus_model_free.py", *sys.argv[1:]])
        content["environment"] = environment()
        content["tasks"][name] = json.loads(json.dumps(record_of(name, comparison, options)))
        write_json(target, content)


if __name__ == "__main__":
    main()
