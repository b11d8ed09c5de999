"""What a leapfrog step of NUTS costs beyond the gradient that it asks for: ours beside Pyro's, in one run.

python tests/benchmarks/nuts_overhead.py        # writes results/nuts_overhead.json

Every sampler makes draws with a fixed step size and identity mass, so that it does nothing but trees; its CPU time less
that of its gradients, called alone, is divided by the number of leapfrog steps. Medians of repetitions that take turns.
The densities: the small size of ``poisson_inversion`` (Pyro gets it as ``potential_fn``, ours through the meter, with
its counting and journal), and a plain normal of 64 numbers, which shows the driver alone.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from dpcontrol.problems import poisson_inversion

from dpcontrol import tree
from dpcontrol.meter import Meter
from dpcontrol.problem import Problem
from dpcontrol.strategies.moving import Questions
from dpcontrol.strategies.sampling import (
    Chains,
    Metric,
    NoUTurn,
    Points,
    StepSize,
    chain_randoms,
    draw,
)
from dpcontrol.strategies.threads import one_blas_thread

RECORD = Path(__file__).parent / "results" / "nuts_overhead.json"
REPETITIONS = 7
STEP, DEPTH = 0.05, 5


def normal(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return -0.5 * np.vecdot(x, x), -x


def ours(ask: Callable[..., Any], dimension: int, chains: int, draws: int, step: float) -> dict[str, float]:
    """CPU seconds and counts of some draws: calls of ``ask``, and leapfrog steps of all chains."""
    called = [0]

    def counted(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        called[0] += 1
        return ask(x)

    randoms = chain_randoms(1, chains)
    start = 0.1 * np.stack([random.standard_normal(dimension) for random in randoms])
    state = Chains(Points.asked(ask, start), StepSize.starting(np.full(chains, step)), randoms)
    metric, steps = Metric.identity(dimension), 0
    with one_blas_thread():
        began = time.process_time()
        for _ in range(draws):
            state, moved = draw(NoUTurn(DEPTH), state, metric, counted, thin=1, learning=False)
            steps += int(moved.steps.sum())
        return {"seconds": time.process_time() - began, "calls": called[0], "leapfrogs": steps}


def pyros(potential: Callable[..., Any], dimension: int, draws: int, step: float) -> dict[str, float]:
    """The same by Pyro's kernel, driven by hand."""
    import pyro
    from pyro.infer import NUTS

    called = [0]

    def counted(sites: dict[str, torch.Tensor]) -> torch.Tensor:
        called[0] += 1
        return potential(sites["x"])

    pyro.set_rng_seed(1)
    kernel = NUTS(
        potential_fn=counted,
        step_size=step,
        adapt_step_size=False,
        adapt_mass_matrix=False,
        max_tree_depth=DEPTH,
    )
    kernel.initial_params = {"x": 0.1 * torch.randn(dimension, dtype=torch.float64)}
    kernel.setup(0)
    sites = kernel.initial_params
    sites = kernel.sample(sites)
    called[0] = 0
    began = time.process_time()
    for _ in range(draws):
        sites = kernel.sample(sites)
    return {"seconds": time.process_time() - began, "calls": called[0], "leapfrogs": called[0]}


def alone(call: Callable[[], Any], calls: int) -> float:
    """CPU seconds of one call."""
    call()
    began = time.process_time()
    for _ in range(calls):
        call()
    return (time.process_time() - began) / calls


class Density:
    """The log-density of a problem, asked without a meter, as whoever writes it down would."""

    def __init__(self, problem: Problem) -> None:
        self.problem = replace(problem, joint=True)
        self.meter = Meter(self.problem)
        self.dimension = self.meter.dimension
        self._template = tree.detach(problem.unknown.free(problem.start()))

    def __call__(self, row: torch.Tensor) -> torch.Tensor:
        return self.problem.log_density(tree.unravel(row, self._template))

    def potential(self, row: torch.Tensor) -> torch.Tensor:
        return -self(row)

    def gradient(self, rows: int) -> Callable[[], Any]:
        """Value and gradient of so many rows, once."""
        x = 0.1 * torch.randn(rows, self.dimension, dtype=torch.float64)

        def call() -> Any:
            point = x.clone().requires_grad_()
            found = torch.func.vmap(self)(point) if rows > 1 else self(point[0])[None]
            return torch.autograd.grad(found.sum(), point)

        return call


def measured(draws: int, repetitions: int) -> dict[str, Any]:
    """Microseconds beyond the gradient, of each sampler."""
    density = Density(poisson_inversion.problem(size="small"))
    ask = Questions("gradients").of(density.meter)
    x = {chains: 0.1 * np.random.default_rng(0).standard_normal((chains, 64)) for chains in (1, 4, 8)}
    cases: dict[str, tuple[Callable[[], dict[str, float]], Callable[[], Any]]] = {
        "pyro, problem": (
            lambda: pyros(density.potential, density.dimension, draws, STEP),
            density.gradient(1),
        ),
        "pyro, normal of 64": (
            lambda: pyros(lambda x: 0.5 * x.square().sum(), 64, draws, 0.2),
            lambda: torch.autograd.grad(
                0.5 * (y := torch.ones(64, dtype=torch.float64, requires_grad=True)).square().sum(), y
            ),
        ),
    }
    for chains in (1, 4, 8):
        cases[f"ours, problem, {chains} chains"] = (
            lambda chains=chains: ours(ask, density.dimension, chains, draws, STEP),
            density.gradient(chains),
        )
        cases[f"ours, normal of 64, {chains} chains"] = (
            lambda chains=chains: ours(normal, 64, chains, draws, 0.2),
            lambda chains=chains: normal(x[chains]),
        )
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in cases}
    for _ in range(repetitions):
        for name, (sample, gradient) in cases.items():
            price = alone(gradient, 100)
            found = sample()
            each = found["seconds"] / found["calls"]
            rows[name].append(
                {
                    "gradient": 1e6 * price,
                    "call": 1e6 * each,
                    "beyond, per batch": 1e6 * (each - price),
                    "beyond, per chain and leapfrog": 1e6
                    * (found["seconds"] - found["calls"] * price)
                    / found["leapfrogs"],
                }
            )
            print(name, {key: round(value, 1) for key, value in rows[name][-1].items()}, flush=True)
    return {
        name: {key: round(float(np.median([row[key] for row in found])), 1) for key in found[0]}
        for name, found in rows.items()
    }


def main(arguments: list[str]) -> None:
    torch.set_num_threads(1)
    quick = "quick" in arguments
    found = {
        "command": "python tests/benchmarks/nuts_overhead.py",
        "unit": "microseconds of CPU time, medians of repetitions that take turns",
        "step": {"problem": STEP, "normal": 0.2, "depth at most": DEPTH},
        "torch": torch.__version__,
        "rows": measured(30 if quick else 60, 2 if quick else REPETITIONS),
    }
    if not quick:
        RECORD.write_text(json.dumps(found, indent=2) + "\n")
        print(f"written to {RECORD}")


if __name__ == "__main__":
    main(sys.argv[1:])
