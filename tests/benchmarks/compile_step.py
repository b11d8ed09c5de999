"""A user's plain ``step(state, control)`` of ten small operations, compiled and not: value and gradient of a rollout.

    python tests/benchmarks/compile_step.py     # about three minutes: results/compile_step.json

CPU seconds of the process on one thread, the least of the repetitions, taken in turn. ``Full()`` over the plain step is
autograd over an eager loop. One oscillator is a small state, whose loop is compiled as a whole; forty of them (80
numbers) are not, and graphs of four steps are compiled.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))
from gradient_cost import forward, gradient, least

import dpcontrol as dp

RESULTS = Path(__file__).parent / "results"
STEPS = 200


def step(state: torch.Tensor, control: torch.Tensor) -> torch.Tensor:
    """Damped Duffing oscillators, symplectic Euler: ten kernels."""
    x, v = state.unbind(-1)
    force = x - x**3 - 0.1 * v + control
    v = v + 0.1 * force
    return torch.stack([x + 0.1 * v, v], dim=-1)


def posed(scenarios: int, oscillators: int, *, compile: bool) -> dp.Problem:
    """Swing them to the other side."""
    left = torch.tensor([-1.0, 0.0], dtype=torch.float64).expand(scenarios, oscillators, 2).clone()
    return dp.control_problem(
        step,
        initial_state=left,
        horizon=STEPS,
        objective=100 * dp.reach(torch.tensor([1.0, 0.0]).expand(oscillators, 2)) + dp.effort(),
        control=dp.ControlSequence(1, start=0.1),
        compile=compile,
    )


def measured(scenarios: int, oscillators: int) -> dict[str, Any]:
    """Seconds and ratios; compiling is timed by the wall clock and done before."""
    plain, fast = (posed(scenarios, oscillators, compile=value) for value in (False, True))
    begin = time.perf_counter()
    gradient(fast)
    compiling = time.perf_counter() - begin
    tasks = {
        "forward": lambda: forward(plain),
        "value and gradient": lambda: gradient(plain),
        "forward, compiled": lambda: forward(fast),
        "value and gradient, compiled": lambda: gradient(fast),
    }
    times = {name: row["least"] for name, row in least(tasks, 5.0).items()}
    return {
        "scenarios": scenarios,
        "numbers of the state": 2 * oscillators,
        "compiled": "graphs of four steps" if fast.simulator.compilations.count else "the whole loop",
        "steps": STEPS,
        "seconds": times,
        "times faster": times["value and gradient"] / times["value and gradient, compiled"],
        "wall seconds of the first gradient": compiling,
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    record = {
        "command": "python tests/benchmarks/compile_step.py",
        "torch": torch.__version__,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, one thread used",
        "load before": os.getloadavg()[0],
        "cases": [measured(scenarios, n) for n in (1, 40) for scenarios in (1, 100)],
    }
    (RESULTS / "compile_step.json").write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))
