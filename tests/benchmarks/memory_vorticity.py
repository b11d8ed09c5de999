"""Peak memory of one value and gradient through 10,000 steps of flow in vorticity form on a grid of 256 x 256.

    python tests/benchmarks/memory_vorticity.py              # 10,000 steps: some minutes
    python tests/benchmarks/memory_vorticity.py 500 --dry    # fewer steps, nothing written

Sought is the initial vorticity that becomes a given one; float64, one scenario, one thread. States are stored in 200 MB
and the rest is run again between them (``Checkpointed(memory="200MB")``); single steps go through the simulator's
kernel. Whatever the number of steps, memory is that of the stored states as soon as these do not hold all.

Written is ``results/memory_vorticity.json``: the peak resident size of this process, what it was after a gradient of
two steps (interpreter, torch, compiled loops, room for one step), CPU seconds, and the gradient's check by a central
difference of the loss.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import time
from pathlib import Path
from typing import Any

import torch

import dpcontrol as dp
from dpcontrol.problem import Problem
from dpcontrol.sim import VorticityFlow

RESULT = Path(__file__).parent / "results" / "memory_vorticity.json"
CELLS, DT, VISCOSITY, MEMORY = 256, 1e-3, 1e-3, "200MB"


def posed(steps: int) -> Problem:
    """Eddies that shall become others."""
    simulator = VorticityFlow(DT, (CELLS, CELLS), VISCOSITY)
    noise = torch.randn(2, CELLS, CELLS, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    fields = simulator.box.project(noise, 0.04)
    initial, target = (field[None] / field.std() for field in fields - fields.mean((1, 2), keepdim=True))
    return dp.control_problem(
        simulator,
        initial_state=initial,
        horizon=steps,
        objective=dp.reach(target[0]),
        unknown=dp.InitialState(),
        gradient=dp.Checkpointed(memory=MEMORY),
    )


def resident() -> int:
    """Peak resident bytes of this process."""
    entry = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert entry is not None
    return int(entry[1]) * 1024


def value_and_gradient(problem: Problem) -> tuple[Any, torch.Tensor, torch.Tensor]:
    """The unknown, the loss and its gradient."""
    z = problem.start()
    (name, leaf), *_ = z.items()
    leaf = leaf.detach().clone().requires_grad_()
    loss = problem.loss({name: leaf}).sum()
    return {name: leaf.detach()}, loss.detach(), torch.autograd.grad(loss, leaf)[0]


def slope(problem: Problem, z: Any, gradient: torch.Tensor, width: float) -> tuple[float, float]:
    """Directional derivative by the gradient, and by a central difference of the loss."""
    ((name, leaf),) = z.items()
    direction = gradient / gradient.norm()
    with torch.no_grad():
        up, down = (float(problem.loss({name: leaf + side * width * direction}).sum()) for side in (1, -1))
    return float((gradient * direction).sum()), (up - down) / (2 * width)


def measure(steps: int) -> dict[str, Any]:
    """The record."""
    value_and_gradient(posed(2))
    before, problem = resident(), posed(steps)
    plan = dp.plan_gradient(problem).chosen
    started = time.process_time()
    z, loss, gradient = value_and_gradient(problem)
    seconds, peak = time.process_time() - started, resident()
    found, wanted = slope(problem, z, gradient, 1e-3)
    return {
        "steps": steps,
        "cells": [CELLS, CELLS],
        "memory for stored states": MEMORY,
        "steps run again": plan.recomputed,
        "peak resident MB": peak / 1e6,
        "resident MB after a gradient of 2 steps": before / 1e6,
        "CPU seconds": seconds,
        "loss": float(loss),
        "directional derivative by the gradient": found,
        "directional derivative by a central difference": wanted,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("steps", nargs="?", type=int, default=10_000)
    parser.add_argument("--dry", action="store_true", help="write no record")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    command = f"python tests/benchmarks/memory_vorticity.py {asked.steps}"
    record = {
        "command": command,
        "machine": platform.processor() or platform.machine(),
        **measure(asked.steps),
    }
    print(json.dumps(record, indent=2))
    if not asked.dry:
        RESULT.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
