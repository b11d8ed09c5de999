"""One simulation of a calibration: draw from the prior, replicate the data, infer, rank the draw among the answer."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dpcontrol import store, tree
from dpcontrol.criticism.quantities import free_rows, quantities
from dpcontrol.meter import Budget, Meter
from dpcontrol.posterior import Draws
from dpcontrol.posterior.diagnostics import mixing
from dpcontrol.problem.base import Problem
from dpcontrol.problem.predicting import draw_prior, measurements, replicate, with_measurements
from dpcontrol.problem.sites import sites
from dpcontrol.results import SimulationFailed, UsageError
from dpcontrol.run import Strategy
from dpcontrol.seeds import mixed
from dpcontrol.solving import solve
from dpcontrol.tree import Tree

LOG_LIKELIHOOD = "log likelihood"
TRIES = 1000  # draws of the prior for one that the simulator runs


@dataclass(frozen=True)
class Simulation:
    """What came out of one simulation.

    Attributes:
        index: which one.
        ranks: quantity -> how many of the posterior's draws are below the one from the prior; empty where it failed.
        failure: a sentence, or ``None``.
        redrawn: draws of the prior before this one that made the simulator fail.
        effective: the smallest bulk ESS among the quantities, NaN where draws are not chains.
        rhat: the largest R-hat; NaN where draws are not chains.
        divergences: transitions that diverged.
        simulated_steps, seconds: what the inference cost.
    """

    index: int
    ranks: dict[str, int]
    failure: str | None = None
    redrawn: int = 0
    effective: float = float("nan")
    rhat: float = float("nan")
    divergences: int = 0
    simulated_steps: int = 0
    seconds: float = 0.0

    def store(self, folder: Path) -> None:
        """Keep it as plain values."""
        store.write_json(place_of(folder, self.index), dataclasses.asdict(self))

    @classmethod
    def load(cls, folder: Path, index: int) -> Simulation:
        """What :meth:`store` has kept."""
        return cls(**store.read_json(place_of(folder, index)))


def place_of(folder: Path, index: int) -> Path:
    """Where a simulation is kept."""
    return folder / "simulations" / f"{index:05d}.json"


def simulate(
    *,
    problem: Problem,
    strategy: Strategy,
    seed: int,
    index: int,
    ranked: int,
    budget: Budget,
    folder: Path | None,
    report: Callable[[dict[str, Any]], None],
) -> Simulation:
    """One simulation, in a worker process."""
    began = time.perf_counter()
    generator = torch.Generator().manual_seed(mixed(seed, index))
    try:
        found = _simulated(problem, strategy, index, ranked, budget, generator)
    except UsageError as error:  # a simulator that crashed, or a strategy that gives no draws
        found = Simulation(index, {}, failure=str(error))
    found = dataclasses.replace(found, seconds=time.perf_counter() - began)
    if folder is not None:
        found.store(folder)
    report({"state": "ended"})
    return found


def _simulated(
    problem: Problem,
    strategy: Strategy,
    index: int,
    ranked: int,
    budget: Budget,
    generator: torch.Generator,
) -> Simulation:
    truth, data, redrawn = _drawn(problem, generator)
    # figures that are computed with the problem's own truth mean nothing here
    bare = dataclasses.replace(problem, metric_functions={}, plots={}, truth=sites(truth), plant=None)
    posed = dataclasses.replace(with_measurements(bare, data), reference_posterior=None, joint=True)
    seed = int(torch.randint(2**31, (), generator=generator))
    solution = solve(posed, strategy, budget=budget, seed=seed, progress=False)
    if solution.status.kind == "interrupted":
        raise KeyboardInterrupt
    if solution.draws is None:
        raise UsageError(f"there are no draws of a posterior: {solution.status.sentence}")
    free = _spread(solution.draws, ranked)
    everything = torch.cat([free_rows(posed, [truth]), free.to(tree.leaves(posed.start())[0])])
    values = {**quantities(posed, everything), LOG_LIKELIHOOD: _log_likelihoods(posed, everything)}
    ranks = {name: _rank(column, generator) for name, column in values.items()}
    effective, rhat = _mixing(posed, solution.draws)
    return Simulation(
        index,
        ranks,
        redrawn=redrawn,
        effective=effective,
        rhat=rhat,
        divergences=solution.draws.divergences,
        simulated_steps=solution.counts.simulated_steps,
    )


def _drawn(problem: Problem, generator: torch.Generator) -> tuple[dict[str, Tree], list[Tensor], int]:
    """A draw of the prior that runs, data as they might have been measured under it, and how many did not run.

    Draws that fail have the likelihood zero for any data, so that the prior is in effect the one without them.
    """
    missing = torch.cat([torch.isnan(data).reshape(-1) for data in measurements(problem)])
    for tried in range(TRIES):
        z = draw_prior(problem, generator)
        try:
            with torch.no_grad():
                data = replicate(problem, z, generator)
        except SimulationFailed:
            continue
        # a number that is not finite where something is measured is a failure, not something that was not measured
        entries = torch.cat([part.reshape(-1) for part in data])
        if bool((torch.isfinite(entries) | missing).all()):
            return z, data, tried
    raise UsageError(
        f"none of {TRIES:,} draws of the prior runs through the simulator: stress_test(problem) says why."
    )


def _spread(draws: Draws, ranked: int) -> Tensor:
    """``ranked`` draws, evenly spaced over all chains, ``(ranked, dimension)``."""
    flat = draws.flat()
    if len(flat) < ranked:
        raise UsageError(
            f"the posterior has {len(flat)} draws, fewer than the {ranked} that are to be ranked: let the strategy "
            "make more, or rank fewer."
        )
    return flat[(torch.arange(ranked, dtype=torch.float64) * len(flat) / ranked).long()]


def _log_likelihoods(problem: Problem, free: Tensor) -> np.ndarray:
    """Log-likelihoods ``(rows,)``, ``-inf`` where the simulator fails."""
    found = Meter(problem).log_likelihoods(free)
    return found.to("cpu", torch.float64).numpy()


def _rank(column: np.ndarray, generator: torch.Generator) -> int:
    """The rank of the first number among the others; ties are broken at random."""
    below, equal = int((column[1:] < column[0]).sum()), int((column[1:] == column[0]).sum())
    return below + int(torch.randint(equal + 1, (), generator=generator))


def _mixing(problem: Problem, draws: Draws) -> tuple[float, float]:
    if draws.kind != "mcmc" or draws.count < 4:
        return float("nan"), float("nan")
    values = quantities(problem, draws.flat())
    columns = np.stack(list(values.values()), 1).reshape(draws.chains, draws.count, -1)
    found = mixing(columns)
    return float(found.ess_bulk.min()), float(found.rhat.max())
