"""A user's plain ``step(state, control)`` of ten small operations, compiled and not: value and gradient of a rollout.

    python tests/benchmarks/compile_step.py     # about three minutes: results/compile_step.json

CPU seconds of the process on one thread, the least of the repetitions, taken in turn. ``Full()`` over the plain step is
autograd over an eager loop. One oscillator is a small state, whose loop is compiled as a whole; forty of them (80
numbers) are not, and graphs of four steps are compiled. Then a built-in system, whose loop is compiled unasked:
predators and prey by RK4, gradient in the initial state and the four rates, ten calls in a row (a sampler asks so).
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
from dpcontrol.sim import LotkaVolterra

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


def predators(scenarios: int) -> dict[str, Any]:
    """Lotka and Volterra, 200 steps of RK4."""
    begin = torch.tensor([30.0, 5.0], dtype=torch.float64) * torch.linspace(1, 1.2, scenarios)[:, None]

    def task(fused: bool) -> Any:
        simulator = dp.ODE(LotkaVolterra(), dt=0.1, fused=fused)
        rates = {
            name: torch.tensor(value, dtype=torch.float64) for name, value in simulator.parameters.items()
        }
        leaves = [leaf.requires_grad_() for leaf in (begin.clone(), *rates.values())]

        def ask(backward: bool = True) -> Any:
            states = dp.rollout(simulator, leaves[0], length=STEPS, parameters=rates).states
            loss = states.square().mean()
            return [loss.detach(), *torch.autograd.grad(loss, leaves)] if backward else loss

        return ask

    fast, plain = task(True), task(False)
    torch.testing.assert_close(fast(), plain(), rtol=1e-10, atol=1e-12)
    tasks = {
        "eager": plain,
        "ten, loop": lambda: [fast() for _ in range(10)],
        "ten, loop, forward": lambda: [fast(False) for _ in range(10)],
    }
    found = {name: row["least"] for name, row in least(tasks, 5.0).items()}
    times = {name.removeprefix("ten, "): t / 10 if "ten" in name else t for name, t in found.items()}
    return {
        "scenarios": scenarios,
        "steps": STEPS,
        "seconds": times,
        "times faster": times["eager"] / times["loop"],
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    record = {
        "command": "python tests/benchmarks/compile_step.py",
        "torch": torch.__version__,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, one thread used",
        "load before": os.getloadavg()[0],
        "cases": [measured(scenarios, n) for n in (1, 40) for scenarios in (1, 100)],
        "predators and prey": [predators(scenarios) for scenarios in (1, 8, 100)],
    }
    (RESULTS / "compile_step.json").write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))
