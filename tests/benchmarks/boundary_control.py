"""Measures transport_boundary and reaction_diffusion_boundary: laws, proven optima, strategies, closed loops.

    python tests/benchmarks/boundary_control.py transport_boundary
    python tests/benchmarks/boundary_control.py reaction_diffusion_boundary

Both without arguments. Writes ``results/<name>.json``. One thread; seconds are of this machine, shared with other work.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from dpcontrol.problems import transport_boundary
from torch import Tensor

from dpcontrol.meter import Budget
from dpcontrol.problem import Problem, gradient_growth
from dpcontrol.run import Strategy, run
from dpcontrol.sim.boundary_reaction_diffusion import BoundaryReactionDiffusion
from dpcontrol.sim.boundary_transport import BoundaryTransport
from dpcontrol.strategies.evolving.cross_entropy import CEM
from dpcontrol.strategies.evolving.evolution import CMAES
from dpcontrol.strategies.minimising.first_order import Adjoint
from dpcontrol.strategies.minimising.newton import NewtonKrylov
from dpcontrol.strategies.minimising.quasi_newton import LBFGS

RESULTS = Path(__file__).parent / "results"


class Setting(NamedTuple):
    """How much is spent on a problem. Larger magnitudes of late controls move them further, and may prove more."""

    smoothings: tuple[float, ...]
    iterations: int  # of each stage of the continuation
    magnitudes: (
        tuple[float, float, float] | None
    )  # of the controls there: first, rate of decay, least; None: one
    gradients: int  # of each scene, for each strategy
    seeds: int


SETTINGS = {
    "transport_boundary": Setting((0.1, 1e-2, 1e-3, 1e-4, 1e-5), 600, None, 1000, 3),
    "reaction_diffusion_boundary": Setting((0.1, 1e-2, 1e-3, 1e-4), 100, (3.0, 20.0, 0.03), 100, 2),
}
MISMATCHES = (0.9, 1.0, 1.1, 1.2)
NOISES = (0.0, 0.01, 0.1)  # standard deviation at every point, over that of the start


def by_continuation(module: Any, name: str) -> tuple[dict[str, Any], Tensor]:
    """L-BFGS on smoother and less smooth scores in turn, each from the answer before; what each proves; controls."""
    setting = SETTINGS[name]
    exact, start = module.problem(), 0.0
    (own,) = exact.unknown.slots
    best = torch.full((2,), float("inf"), dtype=torch.float64)
    proven, gradients, stages, began = torch.zeros(2, dtype=torch.float64), 0, [], time.process_time()
    for smoothing in setting.smoothings:
        slot = replace(own, scale=magnitudes(exact, setting), start=start)
        smoothed = module.problem(smoothing=smoothing).with_unknown(slot)
        solution = run(smoothed, LBFGS(iterations=setting.iterations, memory=150, loss_tolerance=1e-16))
        start = solution.value["control"]
        with torch.no_grad():
            best = torch.minimum(best, exact.loss(solution.value))
        dual = transport_boundary.dual_point(solution.trajectory(), smoothing)
        proven = torch.maximum(proven, transport_boundary.lower_bound(exact, dual))
        gradients += solution.counts.gradients // 2
        stages.append(
            {
                "smoothing": smoothing,
                "score": best.tolist(),
                "proven": proven.tolist(),
                "gap": (1 - proven / best).tolist(),
                "gradients per scene": gradients,
                "status": solution.status.kind,
            }
        )
        print(json.dumps(stages[-1]), flush=True)
    at_bound = (start.abs() > 0.999 * transport_boundary.STRONGEST).sum((1, 2)).tolist()
    record = {"stages": stages, "controls at a bound": at_bound, "cpu seconds": time.process_time() - began}
    return record, start


def magnitudes(problem: Problem, setting: Setting) -> Tensor | None:
    """Those of the controls in the continuation, ``(steps, 1)``."""
    if setting.magnitudes is None:
        return None
    first, rate, least = setting.magnitudes
    times = torch.arange(problem.horizon, dtype=torch.float64) * problem.simulator.dt
    return (first * torch.exp(-rate * times)).clamp(min=least)[:, None]


def contenders(module: Any, seeds: int) -> list[tuple[str, Problem, Strategy, int]]:
    """Label, problem, strategy and number of seeds."""
    exact, smooth = module.problem(), module.problem(smoothing=1e-3)
    (own,) = exact.unknown.slots
    free = replace(own, low=None, high=None)
    flat = replace(own, scale=None)
    return [
        ("lbfgs", exact, LBFGS(), 1),
        ("lbfgs, memory 100", exact, LBFGS(memory=100), 1),
        ("lbfgs, one magnitude for all controls", exact.with_unknown(flat), LBFGS(), 1),
        ("lbfgs, memory 100, smoothing 1e-3 from the start", smooth, LBFGS(memory=100), 1),
        ("adjoint", exact, Adjoint(), 1),
        ("adjoint, cosine", exact, Adjoint(schedule="cosine"), 1),
        ("adjoint, rate 0.005, cosine", exact, Adjoint(learning_rate=0.005, schedule="cosine"), 1),
        ("newton_krylov, no bounds", exact.with_unknown(free), NewtonKrylov(), 1),
        ("newton_krylov, no bounds, smoothing 1e-3", smooth.with_unknown(free), NewtonKrylov(), 1),
        ("cmaes", exact, CMAES(), seeds),
        ("cem", exact, CEM(), seeds),
    ]


def by_strategies(module: Any, name: str, record: dict[str, Any]) -> None:
    """Every strategy on one budget of simulated steps; the record is written after each run, also when cut short."""
    setting = SETTINGS[name]
    exact, rows = module.problem(), record.setdefault("strategies", [])
    budget = Budget(simulated_steps=setting.gradients * 2 * 2 * exact.horizon)
    for label, problem, strategy, count in contenders(module, setting.seeds):
        for seed in range(count):
            began = time.process_time()
            solution = run(problem, strategy, seed=seed, budget=budget)
            with torch.no_grad():
                scores = exact.loss(solution.value)
            row = {
                "strategy": label,
                "seed": seed,
                "score": scores.tolist(),
                "status": solution.status.sentence,
            }
            row["gradients per scene"] = solution.counts.gradients / 2
            row["simulated steps"] = solution.counts.simulated_steps
            row["largest control"] = solution.value["control"].abs().amax((1, 2)).tolist()
            rows.append({**row, "cpu seconds": time.process_time() - began})
            write(name, record)
            print(json.dumps(rows[-1]), flush=True)


def noisy(law: Callable[..., Tensor], size: float, seed: int, steps: int, dt: float) -> Callable[..., Tensor]:
    """A law that sees every point with an error of its own, ``size`` times the start, new at every step."""
    generator = torch.Generator().manual_seed(seed)
    errors = torch.randn(steps, 201, generator=generator, dtype=torch.float64)

    def seen(state: Tensor, t: float, scenario: Mapping[str, Any]) -> Tensor:
        start = scenario["initial_state"][:, :1]
        return law(state + size * start * errors[round(t / dt), : state.shape[1]], t, scenario)

    return seen


def mismatched(simulator: Any, factor: float) -> Any:
    """The plant with its feedback or reaction ``factor`` times as strong."""
    ((name, field),) = simulator.parameters.items()
    kinds = {"recirculation": BoundaryTransport, "reaction": BoundaryReactionDiffusion}
    return kinds[name](factor * field, simulator.points, simulator.fine_dt, simulator.held)


def in_closed_loop(module: Any, optimum: Tensor) -> list[dict[str, Any]]:
    """The laws, and the optimal controls played without looking, on other plants and with noisy sensors."""
    exact, rows = module.problem(), []
    for factor in MISMATCHES:
        problem = replace(exact, plant=mismatched(exact.simulator, factor))
        for law in exact.baselines:
            for size in NOISES if factor == 1.0 else (0.0,):
                seeds = range(3 if size else 1)
                found = []
                for seed in seeds:
                    seen = noisy(exact.baselines[law], size, seed, exact.horizon, exact.simulator.dt)
                    with torch.no_grad():
                        found.append(transport_boundary.norms(problem.run_law(seen)).sum(0))
                score = torch.stack(found).mean(0).tolist()
                rows.append({"plant": factor, "sensor noise": size, "law": law, "score": score})
        with torch.no_grad():
            score = problem.judge({"control": optimum}).tolist()
        rows.append(
            {"plant": factor, "sensor noise": 0.0, "law": "optimal controls, open loop", "score": score}
        )
    return rows


def write(name: str, record: Mapping[str, Any]) -> None:
    """Keep the record as it is."""
    (RESULTS / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")


def measure(name: str) -> None:
    """Everything about one problem."""
    module = importlib.import_module(f"dpcontrol.problems.{name}")
    exact = module.problem()
    laws = {
        label: transport_boundary.norms(exact.run_law(law)).sum(0).tolist()
        for label, law in exact.baselines.items()
    }
    record: dict[str, Any] = {
        "command": f"python tests/benchmarks/boundary_control.py {name}",
        "torch": torch.__version__,
        "starts": list(module.STARTS),
        "published": {label: list(scores) for label, scores in module.PUBLISHED.items()},
        "laws": laws,
        "uncontrolled": exact.loss(exact.start()).tolist(),
        "adjoint of the uncontrolled": str(gradient_growth(exact)),
    }
    record["lbfgs by continuation"], start = by_continuation(module, name)
    record["adjoint at the optimum"] = str(gradient_growth(exact, {"control": start}))
    record["closed loops"] = in_closed_loop(module, start)
    by_strategies(module, name, record)


if __name__ == "__main__":
    torch.set_num_threads(1)
    RESULTS.mkdir(exist_ok=True)
    for chosen in sys.argv[1:] or list(SETTINGS):
        measure(chosen)
