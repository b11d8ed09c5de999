"""What the comparison of stencils shares: the case, one core, and CPU time of calls measured in turn."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

CELLS, STEPS, SUBSTEPS, DT, VISCOSITY = 128, 32, 4, 0.001, 0.01


def one_core() -> None:
    """This process and all its threads on one core; to be called before torch or JAX are imported."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"


def scene(scenarios: int, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Waves ``(scenarios, cells)`` and forces ``(steps, scenarios, cells)``."""
    x = (np.arange(CELLS) + 0.5) / CELLS
    waves = np.linspace(0.2, 0.8, scenarios)[:, None] * np.sin(2 * np.pi * x)
    forces = 0.1 * np.random.default_rng(0).normal(size=(STEPS, scenarios, CELLS))
    return waves.astype(dtype), forces.astype(dtype)


def least(calls: Mapping[str, Callable[[], Any]], seconds: float) -> dict[str, float]:
    """Least CPU seconds of each call, taken in turn; a sample is as many calls as make 30 ms.

    CPU time of the whole process: waiting for other processes is not in it. Samples are long because the clock of
    threads that are running elsewhere lags behind by some milliseconds.
    """
    counts, best = {}, {}
    for name, call in calls.items():
        call()
        begun = time.perf_counter()
        call()
        counts[name] = max(1, int(0.03 / (time.perf_counter() - begun)))
        best[name] = float("inf")
    gc.collect()
    gc.disable()  # as timeit does: how often garbage is looked for depends on what else was imported
    end, rounds = time.perf_counter() + seconds * len(calls), 0
    while rounds < 4 or time.perf_counter() < end:
        rounds += 1
        for name, call in calls.items():
            begun = time.process_time()
            for _ in range(counts[name]):
                call()
            best[name] = min(best[name], (time.process_time() - begun) / counts[name])
    gc.enable()
    return best
