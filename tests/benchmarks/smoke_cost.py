"""What a cell of smoke costs in two and in three dimensions: value and gradient, by the kernel and by eager PyTorch.

    python tests/benchmarks/smoke_cost.py              # about a minute

Writes ``results/smoke_cost.json``. float64, one thread, CPU time of the process, least of the repetitions, all cases
interleaved in one run. The three cases have the same number of cells, 32,768: a batch of eight 64 x 64 boxes, one
box of 181 x 181, one of 32 x 32 x 32.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from dpcontrol.engine import rollout
from dpcontrol.sim import Grid, Smoke

RESULT = Path(__file__).parent / "results" / "smoke_cost.json"
CASES = {
    "64 x 64, 8 scenarios": ((64, 64), 8),
    "181 x 181": ((181, 181), 1),
    "32 x 32 x 32": ((32, 32, 32), 1),
}
STEPS, REPETITIONS = 8, 12
State = dict[str, Tensor]


def by_kernel(simulator: Smoke, state: State) -> Tensor:
    """A loss at the end of a rollout."""
    return rollout(simulator, state, length=STEPS).states["marker"][-1].square().sum()


def eager(simulator: Smoke, state: State) -> Tensor:
    """The same without a kernel."""
    like = state["marker"]
    coefficients = simulator.prepare(
        {name: torch.tensor(value, dtype=like.dtype) for name, value in simulator.parameters.items()}, {}
    )
    for k in range(STEPS):
        state = simulator.step(state, None, coefficients, None, k * simulator.dt)
    return state["marker"].square().sum()


def seconds(run: Callable[[Smoke, State], Tensor], simulator: Smoke, state: State, gradient: bool) -> float:
    """CPU seconds of one value, or of one value with its gradient in the initial state."""
    begun = time.process_time()
    if gradient:
        sought = {name: part.clone().requires_grad_() for name, part in state.items()}
        torch.autograd.grad(run(simulator, sought), list(sought.values()))
    else:
        with torch.no_grad():
            run(simulator, state)
    return time.process_time() - begun


def main() -> None:
    scenes = {}
    for name, (cells, count) in CASES.items():
        simulator, generator = Smoke(Grid(cells), dt=1.0), torch.Generator().manual_seed(0)
        state = {
            part: 0.5 * torch.randn(count, *shape, generator=generator, dtype=torch.float64)
            for part, shape in simulator.shapes.items()
        }
        scenes[name] = simulator, state
    best: dict[tuple[str, str, str], float] = {}
    for _ in range(REPETITIONS):
        for name, (simulator, state) in scenes.items():
            points = state["marker"].numel() * STEPS
            for way, run in (("kernel", by_kernel), ("eager", eager)):
                for what in ("value", "value and gradient"):
                    found = 1e9 * seconds(run, simulator, state, what != "value") / points
                    best[way, what, name] = min(best.get((way, what, name), float("inf")), found)
    rows = []
    for way in ("kernel", "eager"):
        for what in ("value", "value and gradient"):
            cost = {name: round(best[way, what, name], 1) for name in CASES}
            batch, single, deep = cost.values()
            rows.append(
                {
                    "by": way,
                    "of": what,
                    "ns per cell and step": cost,
                    "3-D over 2-D batch": round(deep / batch, 2),
                    "3-D over 2-D single": round(deep / single, 2),
                }
            )
            print(json.dumps(rows[-1]), flush=True)
    record = {
        "command": "python tests/benchmarks/smoke_cost.py",
        "torch": torch.__version__,
        "steps": STEPS,
        "repetitions": REPETITIONS,
        "rows": rows,
    }
    RESULT.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
