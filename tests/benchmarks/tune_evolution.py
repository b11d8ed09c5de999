"""How the defaults of ``cmaes`` and ``cem`` were chosen: final losses over settings, at budgets given per scenario.

    python tests/benchmarks/tune_evolution.py cmaes|cem

Prints one line per setting and writes ``results/tune_evolution_<strategy>.json``. Two problems: 8 scenes of forced
Burgers control (992 unknowns each; losses relative to what L-BFGS-B reaches), drawn with seeds that no other benchmark
uses, and a pendulum that must be swung up from rest within half of its largest gravity torque (60 unknowns, 8 initial
angles; mean loss, L-BFGS-B with 4 starts beside it). Two seeds of the search. All settings run to 1,600
evaluations per scenario, the best three of each problem to 6,250; smaller budgets are read off on the way.
"""

from __future__ import annotations

import itertools
import json
import math
import sys
from pathlib import Path
from typing import Any

import torch
from dpcontrol.problems import burgers

from dpcontrol.meter import Budget
from dpcontrol.problem import ControlSequence, Problem, Scenarios, control_problem, cost, effort
from dpcontrol.run import run
from dpcontrol.sim import ODE, Pendulum
from dpcontrol.strategies.minimising.multistart import MultiStart
from dpcontrol.strategies.minimising.quasi_newton import LBFGS
from dpcontrol.strategies.names import resolve

EVALUATIONS = (100, 400, 1600)
LONG = 6250  # per scenario
SEEDS = (0, 1)
RESULTS = Path(__file__).parent / "results"


def scenes() -> Problem:
    """Forced Burgers control on scenes of its own."""
    base = burgers.problem(size="small", seed=0)
    assert base.scenarios.sampler is not None
    drawn = base.scenarios.sampler(torch.Generator().manual_seed(987), 8)
    return base.with_scenarios(Scenarios(drawn, base.scenarios.sampler))


def swing_up() -> Problem:
    """A pendulum from rest near hanging to upright at rest in 3 s, torque within m g l / 2."""
    angles = torch.linspace(-0.3, 0.3, 8, dtype=torch.float64)
    start = torch.stack([angles, torch.zeros(8, dtype=torch.float64)], 1)

    def missed(state: torch.Tensor) -> torch.Tensor:
        return 20 * (1 + torch.cos(state[:, 0])) + state[:, 1].square()

    return control_problem(
        ODE(Pendulum(), dt=0.05),
        initial_state=start,
        horizon=60,
        objective=cost(terminal=missed) + 1e-3 * effort(),
        control=ControlSequence((1,), low=-4.905, high=4.905),
        name="swing_up",
    )


def reference(problem: Problem) -> float:
    """What gradients reach."""
    return run(problem, MultiStart(LBFGS(iterations=100), starts=4 if problem.name == "swing_up" else 1)).loss


def means(
    problem: Problem, name: str, options: dict[str, Any], evaluations: tuple[int, ...], scale: float
) -> list[float]:
    """Mean of the best losses, also over seeds, after each number of evaluations per scenario."""
    price = problem.scenarios.count * problem.horizon
    sums = [0.0] * len(evaluations)
    for seed in SEEDS:
        budget = Budget(simulated_steps=evaluations[-1] * price)
        history = run(problem, resolve(name, options), budget=budget, seed=seed).history
        for i, most in enumerate(evaluations):
            pairs = zip(history["simulated_steps"], history["loss"], strict=True)
            sums[i] += [loss for steps, loss in pairs if steps <= most * price][-1]
    return [round(total / len(SEEDS) / scale, 4) for total in sums]


def settings(name: str, problem: Problem) -> list[dict[str, Any]]:
    """What was tried. (A first, wider sweep on the scenes ruled out the full space and ``cmaes`` with ``sigma=1``.)"""
    burgers_like = problem.name == "burgers"
    if name == "cmaes":
        bases, sigmas = (
            ((15, 25, 32, 40), (0.1, 0.2)) if burgers_like else ((8, 15, 30, None), (0.1, 0.3, 1.0))
        )
        return [
            {"basis": basis, "sigma": sigma, "population": population}
            for basis, sigma, population in itertools.product(bases, sigmas, (8, 14))
        ]
    bases = (15, 25, 40) if burgers_like else (8, 15, None)
    return [
        {"basis": basis, "sigma": sigma, "population": population, "elites": elites, "smoothing": smoothing}
        for basis, sigma, population, elites, smoothing in itertools.product(
            bases, (0.5, 1.0), (16, 32, 64), (0.25, 0.5), (0.0, 0.4)
        )
    ]


def main(name: str) -> None:
    """Try everything, and write the record."""
    torch.set_num_threads(1)
    record: dict[str, Any] = {"strategy": name, "evaluations": EVALUATIONS, "long": LONG, "problems": {}}
    for problem in (scenes(), swing_up()):
        best = reference(problem)
        scale = best if problem.name == "burgers" else 1.0
        rows = []
        for options in settings(name, problem):
            rows.append({"options": options, "loss": means(problem, name, options, EVALUATIONS, scale)})
            print(problem.name, rows[-1], flush=True)
        rows.sort(key=lambda row: sum(math.log(value) for value in row["loss"][1:]))
        for row in rows[:3]:
            row["long"] = means(problem, name, row["options"], (LONG,), scale)[0]
            print(problem.name, "long", row, flush=True)
        record["problems"][problem.name] = {
            "gradients_reach": best,
            "relative_to_it": scale == best,
            "rows": rows,
        }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"tune_evolution_{name}.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
