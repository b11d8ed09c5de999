"""What bounds the compiled loops of finite-volume Burgers with many scenarios: divisions, arithmetic, memory.

    python tests/benchmarks/stencil_bound.py        # results/stencil_bound.json, one minute

Nanoseconds for each cell and stage (two stages in a substep), 96 scenarios of 128 cells, 32 steps:

``divisions``   one division for each cell, numbers from the first cache
``arithmetic``  as many products and fused multiply-adds, additions and comparisons, and divisions as the stage has, all
                independent of each other and in registers: nobody can do the same operations faster
``first cache`` the stage itself, over and over on the same arrays
``in place``    what a stage more costs in the run, from 4 and 8 substeps a step
``a step``      what a step costs besides its substeps, from the same two, over the 8 stages of 4 substeps: memory, and
                the change between rows and registers

The way back is a stage computed again and its adjoint; its divisions are those of the former. CPU time of one core,
the least of several samples, all in turn.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

from peers_stencil_timing import CELLS, DT, STEPS, VISCOSITY, least, one_core, scene

if __name__ == "__main__":
    one_core()

import numpy as np
import torch
from numba import njit

from dpcontrol.kernels import Wanted
from dpcontrol.kernels.burgers_finite_volume import FiniteVolumeKernel
from dpcontrol.kernels.loops import finite_volume_abreast as loops
from dpcontrol.kernels.loops.abreast import load, plus, positive, store
from dpcontrol.kernels.loops.compiling import OPTIONS

RESULT = Path(__file__).parent / "results" / "stencil_bound.json"
SCENARIOS, TIMES = 96, 200
# products and multiply-adds, additions, comparisons, divisions: of the two stages, and of their adjoints
FORWARD, BACKWARD = ((9, 7, 2, 1), (8, 6, 2, 1)), ((15, 11, 2, 0), (16, 13, 2, 0))


def operations(counts: tuple[int, int, int, int]) -> Callable[..., Any]:
    """A loop over registers with that many independent operations in each round."""
    products, sums, comparisons, divisions = counts
    numbers = [f"x{i}" for i in range(products + sums)]
    lines = [
        "def only(values, lanes, times):",
        "    w = len(lanes)",
        "    total = one = load(values, 0, lanes)",
    ]
    lines += [f"    {name} = one" for name in numbers]
    lines += ["    for _ in range(times):", "        for p in range(0, len(values), w):"]
    lines += [f"            {name} = plus(one, {name}, {name})" for name in numbers[:products]]
    lines += [f"            {name} = {name} + one" for name in numbers[products:]]
    lines += [f"            {name} = positive({name})" for name in numbers[products : products + comparisons]]
    lines += ["            store(values, p, one / load(values, p, lanes))"] * divisions
    lines += [f"    total = total + {name}" for name in numbers]
    lines += ["    store(values, 0, total)"]
    names: dict[str, Any] = {"load": load, "plus": plus, "positive": positive, "store": store}
    exec("\n".join(lines), names)
    return njit(**OPTIONS)(names["only"])


@njit(**OPTIONS)
def stages(first, adjoint, work, totals, scheme, times):
    """A stage, or its adjoint, over and over."""
    u, force, walls, inverse, out, more = work
    for _ in range(times):
        if not adjoint:
            if first:
                loops._advance(u, force, True, walls, scheme, inverse, out, more)
            else:
                loops._advance(u, force, False, walls, scheme, inverse, out, more)
        elif first:
            loops._pull_stage(u, inverse, force, walls, scheme, totals, True, out, more)
        else:
            loops._pull_stage(u, inverse, force, walls, scheme, totals, False, out, more)


def runs(dtype: str, substeps: int) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """The run and its adjoint, with that many substeps."""
    state, controls = (torch.from_numpy(part) for part in scene(SCENARIOS, dtype))
    kernel = FiniteVolumeKernel(DT / 4, 1.0, 1.0, True, substeps)
    inputs, coefficients = (controls, None), {"viscosity": torch.tensor(VISCOSITY, dtype=state.dtype)}
    states = kernel.run(state, inputs, coefficients, STEPS, 0)
    above = torch.randn_like(states)
    wanted = Wanted(True, False)
    return (
        lambda: kernel.run(state, inputs, coefficients, STEPS, 0),
        lambda: kernel.pull(state, states, inputs, coefficients, above, wanted, 0),
    )


def measure(dtype: str) -> dict[str, Any]:
    """Nanoseconds for each cell and stage."""
    kind, width = np.dtype(dtype).type, 64 // np.dtype(dtype).itemsize
    lanes, size = (0,) * width, (CELLS + 2) * width
    generator = np.random.default_rng(0)
    work = tuple(generator.random(n).astype(dtype) for n in (size, size, 3 * width, size, size, size))
    totals, values = np.zeros(3 * width, dtype), np.ones(CELLS * width, dtype)
    scheme = (kind(1e-4), kind(1e-6), True, lanes)
    calls: dict[str, Callable[[], Any]] = {}
    divide = operations((0, 0, 0, 1))
    calls["divisions"] = lambda: divide(values, lanes, TIMES)
    for i, counts in enumerate((*FORWARD, *BACKWARD)):
        only, adjoint, first = operations(counts), i > 1, i in (0, 3)
        calls[f"arithmetic {i}"] = lambda only=only: only(np.ones(CELLS * width, dtype), lanes, TIMES)

        def stage(adjoint: bool = adjoint, first: bool = first) -> None:
            work[4][:], work[5][:] = 0, 0  # sums do not grow without bounds
            stages(first, adjoint, work, totals, scheme, TIMES)

        calls[f"first cache {i}"] = stage
    for substeps in (4, 8):
        calls[f"forward {substeps}"], calls[f"back {substeps}"] = runs(dtype, substeps)
    seconds = least(calls, 1.5)
    once = 1e9 / (TIMES * CELLS * width)
    found: dict[str, Any] = {"divisions": seconds["divisions"] * once}
    updates = 1e9 / (SCENARIOS * CELLS * STEPS * 8)
    for way, parts in (("forward", (0, 1)), ("back", (0, 1, 2, 3))):
        four, eight = seconds[f"{way} 4"] * updates, seconds[f"{way} 8"] * updates
        found[way] = {
            "arithmetic": sum(seconds[f"arithmetic {i}"] for i in parts) * once / 2,
            "first cache": sum(seconds[f"first cache {i}"] for i in parts) * once / 2,
            "in place": eight - four,
            "a step": 2 * four - eight,
            "all": four,
        }
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    results = {dtype: measure(dtype) for dtype in ("float64", "float32")}
    record = {
        "command": "python tests/benchmarks/stencil_bound.py",
        "machine": platform.processor() or platform.machine(),
        "nanoseconds for each cell and stage": results,
    }
    RESULT.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))
