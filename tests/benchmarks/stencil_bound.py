"""What bounds the compiled loops of finite-volume Burgers with many scenarios: divisions, arithmetic, memory.

    python tests/benchmarks/stencil_bound.py        # results/stencil_bound.json, a minute

Nanoseconds for each cell and stage (two stages in a substep), 96 scenarios of 128 cells, 32 steps:

``divisions``   one division for each cell, numbers from the first cache
``arithmetic``  as many products and fused multiply-adds, additions and comparisons, and divisions as the stage has, all
                independent of each other and in registers: nobody can do the same operations faster
``first cache`` the stage itself, over and over on the same arrays
``in place``    what a stage more costs in the run, from 4 and 8 substeps a step
``a step``      what a step costs besides its substeps, from the same two, over the 8 stages of 4 substeps: memory, and
                the change between rows and registers

The way back is a stage computed again and its adjoint; its divisions are those of the former. CPU time of one core,
the least of several samples, all in turn. And the milliseconds that the loss of ``peers_stencil.py`` and its gradient
take where nothing is simulated.
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
# products and multiply-adds, additions, comparisons, divisions
PARTS = {
    "stage first": (9, 7, 2, 1),
    "stage second": (8, 6, 2, 1),
    "again first": (9, 7, 2, 1),
    "again second": (8, 6, 2, 1),
    "adjoint first": (13, 12, 2, 0),
    "adjoint second": (12, 10, 2, 0),
}
WAYS = {"forward": ("stage",), "back": ("again", "adjoint")}


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
def stages(first, work, kept, scheme, times):
    """A stage over and over."""
    u, force, walls, out, more = work
    for _ in range(times):
        if first:
            loops._advance(u, force, True, walls, scheme, kept, out, more)
        else:
            loops._advance(u, force, False, walls, scheme, kept, out, more)


@njit(**OPTIONS)
def adjoints(first, work, kept, totals, scheme, times):
    """The adjoint of a stage over and over."""
    u, above, walls, out, push = work
    for _ in range(times):
        if first:
            loops._pull_stage(u, kept, above, walls, scheme, totals, True, out, push)
        else:
            loops._pull_stage(u, kept, above, walls, scheme, totals, False, out, push)


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


class Nothing(torch.autograd.Function):
    """Hands out states and gradients that lie there already."""

    @staticmethod
    def forward(
        ctx: Any, controls: torch.Tensor, states: torch.Tensor, gradient: torch.Tensor
    ) -> torch.Tensor:
        ctx.gradient = gradient
        return states.view_as(states)

    @staticmethod
    def backward(ctx: Any, above: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return ctx.gradient, None, None


def loss_alone(dtype: str) -> float:
    """Milliseconds of the loss of ``peers_stencil.py`` and its gradient, 100 scenarios, without any simulation."""
    _, controls = (torch.from_numpy(part) for part in scene(100, dtype))
    states, gradient = torch.zeros(STEPS + 1, 100, CELLS, dtype=controls.dtype), torch.zeros_like(controls)

    def call() -> Any:
        u = controls.clone().requires_grad_()
        value = Nothing.apply(u, states, gradient)[-1].square().sum() + u.square().sum()
        return torch.autograd.grad(value, u)[0]

    return 1e3 * least({"loss": call}, 2.0)["loss"]


def measure(dtype: str) -> dict[str, Any]:
    """Nanoseconds for each cell and stage."""
    kind, width = np.dtype(dtype).type, 64 // np.dtype(dtype).itemsize
    lanes, size = (0,) * width, (CELLS + 2) * width
    generator = np.random.default_rng(0)
    work = tuple(generator.random(n).astype(dtype) for n in (size, size, 3 * width, size, size))
    kept, totals = generator.random(2 * size).astype(dtype), np.zeros(3 * width, dtype)
    values, scheme = np.ones(CELLS * width, dtype), (kind(1e-4), kind(1e-6), True, lanes)
    divide = operations((0, 0, 0, 1))
    calls: dict[str, Callable[[], Any]] = {"divisions": lambda: divide(values, lanes, TIMES)}
    for name, counts in PARTS.items():
        only, first = operations(counts), name.endswith("first")
        calls[f"arithmetic {name}"] = lambda only=only: only(np.ones(CELLS * width, dtype), lanes, TIMES)

        def cached(name: str = name, first: bool = first) -> None:
            work[3][:], work[4][:] = 0, 0  # sums do not grow without bounds
            if name.startswith("adjoint"):
                adjoints(first, work, kept, totals, scheme, TIMES)
            else:
                stages(first, work, kept if name.startswith("again") else None, scheme, TIMES)

        calls[f"first cache {name}"] = cached
    for substeps in (4, 8):
        calls[f"forward {substeps}"], calls[f"back {substeps}"] = runs(dtype, substeps)
    seconds = least(calls, 2.5)
    once = 1e9 / (TIMES * CELLS * width)
    found: dict[str, Any] = {"divisions": seconds["divisions"] * once}
    updates = 1e9 / (SCENARIOS * CELLS * STEPS * 8)
    for way, parts in WAYS.items():
        names = [name for name in PARTS if name.startswith(parts)]
        four, eight = seconds[f"{way} 4"] * updates, seconds[f"{way} 8"] * updates
        found[way] = {
            "arithmetic": sum(seconds[f"arithmetic {name}"] for name in names) * once / 2,
            "first cache": sum(seconds[f"first cache {name}"] for name in names) * once / 2,
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
        "milliseconds of the loss alone": {dtype: loss_alone(dtype) for dtype in results},
    }
    RESULT.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))
