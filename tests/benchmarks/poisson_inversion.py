"""The posterior of ``poisson_inversion`` by two independent ways, and what an effective sample costs.

    python tests/benchmarks/poisson_inversion.py            # both, and the comparison
    python tests/benchmarks/poisson_inversion.py nuts --workers 2
    python tests/benchmarks/poisson_inversion.py walk

Writes ``results/poisson_inversion.json``: for each way means and standard deviations of ln theta (block k = ix + 8 iy)
with their Monte Carlo errors, effective samples in the worst block, solves and seconds.

``nuts``
    ``solve(problem, "nuts")``, eight chains, gradients.
``walk``
    A random-walk Metropolis sampler written here in NumPy, 32 chains: it knows the published equations and the forward
    solve, and neither gradients, meter, priors nor samplers of the package. Its proposal is N(0, (0.2 C)^2) with a
    covariance C that it learns first. The authors' own walk took 2e11 solves, some 30 CPU years, for their statistics.

Times are CPU seconds of all processes and wall seconds, the second meaningful on a quiet machine only.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path
from typing import Any

import arviz
import numpy as np
import torch
from dpcontrol.problems import poisson_inversion

from dpcontrol.run import run
from dpcontrol.sim import block_diffusion
from dpcontrol.strategies.posteriors.samplers import NUTS

RESULT = Path(__file__).parent / "results" / "poisson_inversion.json"
COMMAND = "python tests/benchmarks/poisson_inversion.py"
PUBLISHED = {"samples": 2e11, "cpu_years": 30, "source": "Aristoff, Bangerth, SIAM Review 65 (2023)"}
F64 = torch.float64
NUTS_CHAINS, NUTS_DRAWS, NUTS_WARMUP = 8, 1_000, 300
WALKERS, WALK_STEP, WALK_EVERY = 32, 0.2, 50
WALK_LEARN, WALK_STEPS = (2_000, 4_000, 8_000), 100_000


def cpu_seconds() -> float:
    """Of this process and of those it has waited for."""
    own, others = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + others.ru_utime + others.ru_stime


def statistics(x: np.ndarray) -> dict[str, Any]:
    """Of ln theta ``(chains, draws, 64)``."""

    def of(function: Any, numbers: np.ndarray, **options: Any) -> np.ndarray:
        found: np.ndarray = function(arviz.convert_to_dataset({"x": numbers}), **options)["x"].values
        return found

    bulk, tail = of(arviz.ess, x), of(arviz.ess, x, method="tail")
    mean, sd = x.mean((0, 1)), x.std((0, 1))
    squares = (x - mean) ** 2
    mean_error = sd / np.sqrt(of(arviz.ess, x, method="mean"))
    sd_error = squares.std((0, 1)) / np.sqrt(of(arviz.ess, squares, method="mean")) / (2 * sd)
    return {
        "draws": x.shape[0] * x.shape[1],
        "rhat_worst": round(float(of(arviz.rhat, x).max()), 5),
        "ess_bulk_worst": round(float(bulk.min()), 1),
        "ess_bulk_worst_block": int(bulk.argmin()),
        "ess_bulk_median": round(float(np.median(bulk)), 1),
        "ess_tail_worst": round(float(tail.min()), 1),
        "mean": mean.round(4).tolist(),
        "mean_error": mean_error.round(4).tolist(),
        "sd": sd.round(4).tolist(),
        "sd_error": sd_error.round(4).tolist(),
    }


def by_nuts(workers: int, draws: int) -> dict[str, Any]:
    """The package's own sampler."""
    problem = poisson_inversion.problem()
    strategy = NUTS(
        chains=NUTS_CHAINS, draws=draws, warmup=NUTS_WARMUP, workers=workers, depth=5, target_acceptance=0.65
    )
    cpu, wall = cpu_seconds(), time.perf_counter()
    solution = run(problem, strategy, seed=0)
    cpu, wall = cpu_seconds() - cpu, time.perf_counter() - wall
    drawn = solution.posterior.draws
    found = statistics(4.0 + 2.0 * drawn.free.numpy())
    steps = int(drawn.steps.sum())
    share = steps / solution.counts.gradients  # of the time that was spent behind the warm-up, nearly
    return {
        "command": f"{COMMAND} nuts --workers {workers} --draws {draws}",
        "strategy": repr(strategy),
        "gradients": solution.counts.gradients,
        "gradients_behind_warmup": steps,
        "divergences": int(drawn.divergent.sum()),
        "acceptance": round(float(drawn.accepted.mean()), 3),
        "step_size": round(float(drawn.notes["step_size"]), 4),
        "cpu_seconds": round(cpu, 1),
        "wall_seconds": round(wall, 1),
        "ess_worst_per_1000_gradients": round(1000 * found["ess_bulk_worst"] / solution.counts.gradients, 2),
        "ess_worst_per_1000_gradients_behind_warmup": round(1000 * found["ess_bulk_worst"] / steps, 2),
        "ess_worst_per_cpu_second": round(found["ess_bulk_worst"] / cpu, 2),
        "ess_worst_per_cpu_second_behind_warmup": round(found["ess_bulk_worst"] / (cpu * share), 2),
        "ess_worst_per_wall_second": round(found["ess_bulk_worst"] / wall, 2),
        **found,
    }


class Density:
    """The published log-density as one of x = ln theta: misfit, prior, and the Jacobian of the logarithm."""

    def __init__(self) -> None:
        self.solve = block_diffusion((8, 8), cells=4).solve
        self.source = torch.tensor(10.0, dtype=F64)
        self.data = np.array(json.loads(poisson_inversion.DATA.read_text())["z_hat"]).reshape(13, 13)
        place = 32 * np.arange(1, 14) / 14
        hats = np.maximum(0.0, 1.0 - abs(place[:, None] - np.arange(33)))
        self.hats = torch.from_numpy(hats)
        self.solves = 0

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """``(rows,)`` of ``x (rows, 64)``."""
        self.solves += len(x)
        theta = (
            torch.from_numpy(np.exp(x)).view(-1, 8, 8).transpose(1, 2)
        )  # k = ix + 8 iy, the first axis is x
        with torch.no_grad():
            u = self.solve({"coefficient": theta, "source": self.source})
            z = (self.hats @ u @ self.hats.T).numpy()
        likelihood = -0.5 * ((z - self.data) ** 2).sum((1, 2)) / 0.05**2
        density: np.ndarray = likelihood - (x**2).sum(1) / 8 + x.sum(1)
        return np.where(np.isfinite(density), density, -np.inf)


def by_walk(steps: int) -> dict[str, Any]:
    """Random-walk Metropolis from overdispersed starts."""
    random, density = np.random.default_rng(0), Density()
    cpu, wall = cpu_seconds(), time.perf_counter()
    x = 0.5 * random.standard_normal((WALKERS, 64))
    value, root = density(x), 0.1 * np.eye(64)
    for length in WALK_LEARN:
        x, value, seen, _ = walked(x, value, root, length, 10, density, random)
        late = seen[:, seen.shape[1] // 2 :].reshape(-1, 64)
        root = WALK_STEP * np.linalg.cholesky(np.cov(late.T) + 1e-4 * np.eye(64))
    before = density.solves
    x, value, seen, accepted = walked(x, value, root, steps, WALK_EVERY, density, random)
    cpu, wall = cpu_seconds() - cpu, time.perf_counter() - wall
    found = statistics(seen)
    solves = density.solves - before
    return {
        "command": f"{COMMAND} walk --steps {steps}",
        "chains": WALKERS,
        "solves": density.solves,
        "solves_behind_learning": solves,
        "acceptance": round(accepted, 3),
        "cpu_seconds": round(cpu, 1),
        "wall_seconds": round(wall, 1),
        "ess_worst_per_1000_solves_behind_learning": round(1000 * found["ess_bulk_worst"] / solves, 4),
        "ess_worst_per_cpu_second": round(found["ess_bulk_worst"] / cpu, 3),
        **found,
    }


def walked(
    x: np.ndarray,
    value: np.ndarray,
    root: np.ndarray,
    steps: int,
    every: int,
    density: Density,
    random: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Where the walkers stand after so many steps, what was kept of them, and how many steps were accepted."""
    kept, accepted = [], 0.0
    for step in range(steps):
        there = x + random.standard_normal(x.shape) @ root.T
        found = density(there)
        taken = np.log(random.random(len(x))) < found - value
        x, value = np.where(taken[:, None], there, x), np.where(taken, found, value)
        accepted += float(taken.mean()) / steps
        if step % every == every - 1:
            kept.append(x)
    return x, value, np.stack(kept, 1), accepted


def compared(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Differences in units of their Monte Carlo errors; of 128 such numbers the largest should be about 2.8."""
    found: dict[str, Any] = {}
    for name in ("mean", "sd"):
        gap = np.array(one[name]) - np.array(other[name])
        error = np.hypot(one[f"{name}_error"], other[f"{name}_error"])
        found[f"{name}_largest_in_errors"] = round(float(abs(gap / error).max()), 2)
        found[f"{name}_chi_square_of_64"] = round(float(((gap / error) ** 2).sum()), 1)
        found[f"{name}_largest_in_sd"] = round(float(abs(gap / np.array(one["sd"])).max()), 4)
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("ways", nargs="*", default=["nuts", "walk"])
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--draws", type=int, default=NUTS_DRAWS)
    parser.add_argument("--steps", type=int, default=WALK_STEPS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    for way in given.ways:
        found = by_nuts(given.workers, given.draws) if way == "nuts" else by_walk(given.steps)
        record = json.loads(RESULT.read_text()) if RESULT.exists() else {}
        record.update({"command": COMMAND, "published": PUBLISHED, way: found})
        if {"nuts", "walk"} <= set(record):
            record["agreement"] = compared(record["nuts"], record["walk"])
        RESULT.write_text(json.dumps(record) + "\n")
        print(way, {name: value for name, value in found.items() if not isinstance(value, list)}, flush=True)
        print(record.get("agreement", ""), flush=True)


if __name__ == "__main__":
    main()
