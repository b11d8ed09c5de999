"""Populations: the losses of many candidates of a shared unknown, and their gradients, in one call.

    python tests/benchmarks/populations.py     # about two minutes: results/populations.json

Samplers with several chains, evolution strategies and ensembles ask the meter such questions: ``vmap`` over the loss,
and one backward sweep. Beside it: the same through the eager step (no kernel), and candidate by candidate through the
kernel. CPU seconds of the process on one thread, the least of the repetitions, taken in turn.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))
from gradient_cost import least

from dpcontrol.engine import rollout
from dpcontrol.sim import ODE, FiniteVolumeBurgers, LotkaVolterra, Simulator, Substeps

RESULTS = Path(__file__).parent / "results"
F64 = torch.float64
SIZES = (1, 8, 64)


def burgers(fused: bool) -> tuple[Simulator, Tensor, int, dict[str, tuple[float, float]]]:
    """Finite volumes, 128 cells, 32 steps of 4 substeps; sought is the viscosity."""
    x = (torch.arange(128, dtype=F64) + 0.5) / 128
    system = FiniteVolumeBurgers(0.001, 0.01, fused=fused)
    return Substeps(system, 4), torch.sin(2 * torch.pi * x)[None], 32, {"viscosity": (0.005, 0.02)}


def populations(fused: bool) -> tuple[Simulator, Tensor, int, dict[str, tuple[float, float]]]:
    """Predators and prey, 200 steps of RK4; sought are the four rates."""
    system = LotkaVolterra()
    ranges = {name: (0.9 * float(value), 1.1 * float(value)) for name, value in system.parameters.items()}
    return ODE(system, dt=0.1, fused=fused), torch.tensor([[30.0, 5.0]], dtype=F64), 200, ranges


def question(case: Callable[[bool], Any], size: int, *, fused: bool, together: bool) -> Callable[[], Any]:
    """Values and gradients of all candidates."""
    simulator, state, steps, ranges = case(fused)
    values = {name: torch.linspace(low, high, size, dtype=F64) for name, (low, high) in ranges.items()}

    def loss(parameters: dict[str, Tensor]) -> Tensor:
        return rollout(simulator, state, length=steps, parameters=parameters).states.square().mean()

    def ask() -> Any:
        sought = {name: value.clone().requires_grad_() for name, value in values.items()}
        if together:
            losses = torch.func.vmap(loss)(sought)
        else:
            rows = [{name: value[i] for name, value in sought.items()} for i in range(size)]
            losses = torch.stack([loss(row) for row in rows])
        return losses.detach(), *torch.autograd.grad(losses.sum(), list(sought.values()))

    return ask


def measured(name: str, case: Callable[[bool], Any], size: int) -> dict[str, Any]:
    """Milliseconds of the three ways, after a comparison of their answers."""
    tasks = {
        "together, kernel": question(case, size, fused=True, together=True),
        "one by one, kernel": question(case, size, fused=True, together=False),
        "together, eager step": question(case, size, fused=False, together=True),
    }
    answers = [ask() for ask in tasks.values()]
    for answer in answers[1:]:
        torch.testing.assert_close(answer, answers[0], rtol=1e-9, atol=1e-12)
    times = {way: 1000 * row["least"] for way, row in least(tasks, 5.0).items()}
    return {
        "case": name,
        "candidates": size,
        "milliseconds": times,
        "eager over kernel": times["together, eager step"] / times["together, kernel"],
        "one by one over together": times["one by one, kernel"] / times["together, kernel"],
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    cases = {"Burgers, viscosity": burgers, "predators and prey, four rates": populations}
    record = {
        "command": "python tests/benchmarks/populations.py",
        "torch": torch.__version__,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, one thread used",
        "load before": os.getloadavg()[0],
        "cases": [measured(name, case, size) for name, case in cases.items() for size in SIZES],
    }
    (RESULTS / "populations.json").write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))
