"""Measures the figures of the control problems: baselines and L-BFGS over several seeds.

    python tests/benchmarks/problem_figures.py burgers
    python tests/benchmarks/problem_figures.py pendulum_swingup

Writes ``results/<name>.json``. One thread; seconds are of this machine and shared with other work.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import torch

from dpcontrol.problem import Problem
from dpcontrol.run import run
from dpcontrol.strategies.minimising.quasi_newton import LBFGS

RESULTS = Path(__file__).parent / "results"
SETTINGS = {
    "burgers": (range(5), LBFGS(iterations=60)),
    "cylinder_drag": (range(1), LBFGS(iterations=30)),
    "pendulum_swingup": (range(2), LBFGS(iterations=200)),
    "steady_source": (range(2), LBFGS(iterations=300)),
    "wave_focusing": (range(2), LBFGS(iterations=200)),
}


def of_laws(problem: Problem) -> dict[str, dict[str, float]]:
    """The problem's figures under each of its baselines."""
    found = {}
    for name, law in problem.baselines.items():
        samples = problem.metric_samples(problem.run_law(law))
        found[name] = {metric: float(top.mean() / bottom.mean()) for metric, (top, bottom) in samples.items()}
    return found


def measure(name: str) -> dict[str, Any]:
    """All seeds of one problem file in its full size."""
    module = importlib.import_module(f"dpcontrol.problems.{name}")
    seeds, strategy = SETTINGS[name]
    rows = []
    for seed in seeds:
        problem = module.problem(seed=seed)
        solution = run(problem, strategy)
        rows.append(
            {
                "seed": seed,
                "baselines": of_laws(problem),
                "lbfgs": dict(solution.metrics),
                "gradients per scene": solution.counts.gradients / problem.scenarios.count,
                "seconds": solution.seconds,
                "status": solution.status.sentence,
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    return {
        "command": f"python tests/benchmarks/problem_figures.py {name}",
        "strategy": repr(strategy),
        "torch": torch.__version__,
        "seeds": rows,
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    RESULTS.mkdir(exist_ok=True)
    for chosen in sys.argv[1:] or list(SETTINGS):
        (RESULTS / f"{chosen}.json").write_text(json.dumps(measure(chosen), indent=1) + "\n")
