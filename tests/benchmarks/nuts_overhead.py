"""What a leapfrog step of NUTS costs beyond the gradient that it asks for: ours beside Pyro's, in one run.

python tests/benchmarks/nuts_overhead.py        # writes results/nuts_overhead.json

Every sampler makes draws with a fixed step size and identity mass, so that it does nothing but trees. Counted is its
CPU time outside of the gradient of the log-density: forward run and reversal are timed where they are called, for they
are slower between other things than in a loop of their own. The least of repetitions that take turns. The densities:
the small size of ``poisson_inversion`` (Pyro gets it as ``potential_fn``, ours through the meter with its counting,
whose cost is part of ours), and a plain normal of 64 numbers, which shows the driver alone.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from dpcontrol.problems import poisson_inversion

from dpcontrol import tree
from dpcontrol.meter import Meter
from dpcontrol.problem import Problem
from dpcontrol.strategies.posteriors.moving import Questions
from dpcontrol.strategies.posteriors.sampling import (
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
REPETITIONS = 5
STEP, DEPTH = 0.05, 5


def normal(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return -0.5 * np.vecdot(x, x), -x


class Clock:
    """CPU seconds spent inside some functions, and how often the first of them was called."""

    def __init__(self) -> None:
        self.seconds, self.calls = 0.0, 0

    def around(self, function: Callable[..., Any], *, counts: bool = True) -> Callable[..., Any]:
        def timed(*arguments: Any, **keywords: Any) -> Any:
            began = time.process_time()
            found = function(*arguments, **keywords)
            self.seconds += time.process_time() - began
            self.calls += counts
            return found

        return timed

    def row(self, seconds: float, leapfrogs: int) -> dict[str, float]:
        """Microseconds."""
        beyond = seconds - self.seconds
        return {
            "gradient, per batch": 1e6 * self.seconds / self.calls,
            "beyond it, per batch": 1e6 * beyond / self.calls,
            "beyond it, per chain and leapfrog": 1e6 * beyond / leapfrogs,
        }


def ours(
    ask: Callable[..., Any], clock: Clock, dimension: int, chains: int, draws: int, step: float
) -> dict[str, float]:
    """Draws of all chains in lock-step; ``clock`` runs inside ``ask``."""
    randoms = chain_randoms(1, chains)
    start = 0.1 * np.stack([random.standard_normal(dimension) for random in randoms])
    state = Chains(Points.asked(ask, start), StepSize.starting(np.full(chains, step)), randoms)
    metric, steps = Metric.identity(dimension), 0
    clock.seconds, clock.calls = 0.0, 0
    with one_blas_thread():
        began = time.process_time()
        for _ in range(draws):
            state, moved = draw(NoUTurn(DEPTH), state, metric, ask, thin=1, learning=False)
            steps += int(moved.steps.sum())
        return clock.row(time.process_time() - began, steps)


def ours_on_the_problem(problem: Problem, chains: int, draws: int) -> dict[str, float]:
    meter, clock = Meter(replace(problem, joint=True)), Clock()
    computed = meter._computed
    meter._computed = lambda kind, x, which, compute: computed(kind, x, which, clock.around(compute))  # type: ignore[method-assign]
    return ours(Questions("gradients").of(meter), clock, meter.dimension, chains, draws, STEP)


def ours_on_a_normal(chains: int, draws: int) -> dict[str, float]:
    clock = Clock()
    return ours(clock.around(normal), clock, 64, chains, draws, 0.2)


def pyros(potential: Callable[..., Any], dimension: int, draws: int, step: float) -> dict[str, float]:
    """The same by Pyro's kernel, driven by hand: one chain."""
    import pyro
    from pyro.infer import NUTS
    from pyro.ops import integrator

    clock, differentiate = Clock(), torch.autograd.grad
    forward = clock.around(lambda sites: potential(sites["x"]))
    pyro.set_rng_seed(1)
    kernel = NUTS(
        potential_fn=forward,
        step_size=step,
        adapt_step_size=False,
        adapt_mass_matrix=False,
        max_tree_depth=DEPTH,
    )
    kernel.initial_params = {"x": 0.1 * torch.randn(dimension, dtype=torch.float64)}
    kernel.setup(0)
    sites = kernel.sample(kernel.initial_params)
    integrator.grad = clock.around(differentiate, counts=False)
    clock.seconds, clock.calls = 0.0, 0
    began = time.process_time()
    for _ in range(draws):
        sites = kernel.sample(sites)
    seconds = time.process_time() - began
    integrator.grad = differentiate
    return clock.row(seconds, clock.calls)


def log_density(problem: Problem) -> Callable[[torch.Tensor], torch.Tensor]:
    """The log-density of a problem's free numbers ``(dimension,)``, asked without a meter."""
    template = tree.detach(problem.unknown.free(problem.start()))
    return lambda row: problem.log_density(tree.unravel(row, template))


def measured(draws: int, repetitions: int) -> dict[str, Any]:
    """Microseconds beyond the gradient, of each sampler."""
    problem = poisson_inversion.problem(size="small")
    density = log_density(problem)
    dimension = Meter(replace(problem, joint=True)).dimension
    cases: dict[str, Callable[[], dict[str, float]]] = {
        "Pyro, problem, 1 chain": lambda: pyros(lambda x: -density(x), dimension, draws, STEP),
        "Pyro, normal, 1 chain": lambda: pyros(lambda x: 0.5 * x.square().sum(), 64, draws, 0.2),
    }
    for chains in (1, 4, 8):
        word = "chain" if chains == 1 else "chains"
        cases[f"ours, problem, {chains} {word}"] = partial(ours_on_the_problem, problem, chains, draws)
        cases[f"ours, normal, {chains} {word}"] = partial(ours_on_a_normal, chains, draws)
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in cases}
    for _ in range(repetitions):
        for name, case in cases.items():
            rows[name].append(case())
            print(name, {key: round(value, 1) for key, value in rows[name][-1].items()}, flush=True)
    return {
        name: {key: round(min(row[key] for row in found), 1) for key in found[0]}
        for name, found in rows.items()
    }


def main(arguments: list[str]) -> None:
    torch.set_num_threads(1)
    quick = "quick" in arguments
    found = {
        "command": "python tests/benchmarks/nuts_overhead.py",
        "unit": "microseconds of CPU time, least of repetitions that take turns",
        "step": {"problem": STEP, "normal": 0.2, "depth at most": DEPTH},
        "torch": torch.__version__,
        "rows": measured(30 if quick else 60, 2 if quick else REPETITIONS),
    }
    if not quick:
        RECORD.write_text(json.dumps(found, indent=2) + "\n")
        print(f"written to {RECORD}")


if __name__ == "__main__":
    main(sys.argv[1:])
