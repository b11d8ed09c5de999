"""Shape transitions of smoke: what direct optimisation reaches on 20 random pairs, against the floor of conserved mass.

    python tests/benchmarks/smoke_shapes.py            # about ten CPU minutes
    python tests/benchmarks/smoke_shapes.py stirring "pushing, lbfgs"    # only searches whose names begin so

Writes ``results/smoke_shapes.json``: every search with, for each pair, the relative error, its floors, the effort, the
change of mass; means with 95 % intervals by bootstrap over the pairs. All pairs run as one batch, on one thread.

The floor: ``|s_16 - target|_1 >= |sum s_16 - sum target|``. If advection conserved the marker, ``sum s_16`` were ``sum
s_0``, which gives ``floor``; it is sharp, as incompressible flow may rearrange a shape into any other of the same area.
Semi-Lagrangian advection does not conserve: ``floor_reached`` is the same bound with the mass that is there at the end.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import scipy.stats
import torch
from dpcontrol.problems import smoke_shapes

from dpcontrol.meter import Budget
from dpcontrol.run import Strategy, run
from dpcontrol.strategies.minimising.first_order import Adjoint
from dpcontrol.strategies.minimising.quasi_newton import LBFGS

RESULT = Path(__file__).parent / "results" / "smoke_shapes.json"
# name -> options of the problem, strategy, gradients of each pair
SEARCHES: dict[str, tuple[dict[str, Any], Strategy, int]] = {
    "stirring, adjoint, constant rate": ({}, Adjoint(), 200),
    "stirring, adjoint, cosine": ({}, Adjoint(schedule="cosine"), 200),
    "stirring, adjoint, cosine, other pairs": ({"seed": 1}, Adjoint(schedule="cosine"), 200),
    "stirring, lbfgs": ({}, LBFGS(), 200),
    "stirring, mass_weight 0.1, adjoint, cosine": ({"mass_weight": 0.1}, Adjoint(schedule="cosine"), 200),
    "pushing, adjoint, constant rate": ({"dynamic": True}, Adjoint(), 200),
    "pushing, adjoint, cosine": ({"dynamic": True}, Adjoint(schedule="cosine"), 200),
    "pushing, adjoint, rate 0.1, cosine": (
        {"dynamic": True},
        Adjoint(learning_rate=0.1, schedule="cosine"),
        200,
    ),
    "pushing, adjoint, rate 0.1, cosine, 400": (
        {"dynamic": True},
        Adjoint(learning_rate=0.1, schedule="cosine"),
        400,
    ),
    "pushing, adjoint, rate 0.1, cosine, 400, other pairs": (
        {"dynamic": True, "seed": 1},
        Adjoint(learning_rate=0.1, schedule="cosine"),
        400,
    ),
    "pushing, lbfgs": ({"dynamic": True}, LBFGS(), 200),
}


def mean_with_interval(values: list[float]) -> list[float]:
    """Mean, and the ends of its 95 % interval by BCa bootstrap over the pairs."""
    found = scipy.stats.bootstrap(
        (np.asarray(values),), np.mean, n_resamples=9999, random_state=np.random.default_rng(0)
    )
    low, high = found.confidence_interval
    return [round(float(x), 5) for x in (np.mean(values), low, high)]


def measure(options: dict[str, Any], strategy: Strategy, gradients: int) -> dict[str, Any]:
    """One search of all pairs."""
    problem = smoke_shapes.problem(**options)
    begun = time.process_time()
    solution = run(problem, strategy, budget=Budget(gradients=gradients * problem.scenarios.count))
    seconds = time.process_time() - begun
    trajectory, target = solution.trajectory(), problem.scenarios.data["target"]
    states = trajectory.states["marker"].double()
    width = smoke_shapes.distance(states[0], target)
    mass = states.sum((2, 3))
    rows = {
        "relative_error": smoke_shapes.relative_error(trajectory, problem.scenarios.data),
        "floor": smoke_shapes.floor(trajectory, problem.scenarios.data),
        "floor_reached": (mass[-1] - target.sum((1, 2))).abs() / width,
        "mass_gained": (mass[-1] - mass[0]) / mass[0],
        "mass_wanted": (target.sum((1, 2)) - mass[0]) / mass[0],
        "effort": problem.metric_samples(trajectory)["effort"][0],
    }
    pairs = {name: [round(float(x), 5) for x in row] for name, row in rows.items()}
    errors = pairs["relative_error"]
    return {
        "options": options,
        "strategy": repr(strategy),
        "gradients of each pair": solution.counts.gradients / problem.scenarios.count,
        "cpu seconds": round(seconds, 1),
        "means with 95 % intervals": {name: mean_with_interval(row) for name, row in pairs.items()},
        "largest error": max(errors),
        "pairs above 3 %": sum(error > 0.03 for error in errors),
        "pairs below their floor": sum(e < f for e, f in zip(errors, pairs["floor"], strict=True)),
        "correlation of mass gained with mass wanted": round(
            float(np.corrcoef(pairs["mass_gained"], pairs["mass_wanted"])[0, 1]), 3
        ),
        "status": solution.status.sentence,
        "pairs": pairs,
    }


def main(prefixes: list[str]) -> None:
    record = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    record["command"] = "python tests/benchmarks/smoke_shapes.py"
    record["torch"] = torch.__version__
    searches = record.setdefault("searches", {})
    for name, (options, strategy, gradients) in SEARCHES.items():
        if prefixes and not any(name.startswith(prefix) for prefix in prefixes):
            continue
        searches[name] = measure(options, strategy, gradients)
        told = {key: value for key, value in searches[name].items() if key not in ("pairs", "options")}
        print(name, json.dumps(told), flush=True)
        record["searches"] = {key: searches[key] for key in SEARCHES if key in searches}
        RESULT.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1:])
