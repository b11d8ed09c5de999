"""What gradients cost: time and memory of each exact mode, and growth with steps, cells and scenarios.

    python tests/benchmarks/gradient_cost.py            # measures everything: results/gradient_cost.json and .png
    python tests/benchmarks/gradient_cost.py memory     # one part again: memory, ratios, simulators or growth
    python tests/benchmarks/gradient_cost.py plot       # draws the picture again

Times are CPU seconds of the process on one thread (waiting for other processes is not counted, what they do to caches
and clock is), the least of two or more repetitions; what is compared is measured in turn. Memory is the peak resident
size of a process of its own, less what it had before the rollout.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from every_simulator import Case, cases

import dpcontrol as dp
from dpcontrol import tree
from dpcontrol.engine import Checkpointed, Full, GradientMode
from dpcontrol.problem import Problem
from dpcontrol.sim import FiniteVolumeBurgers, KuramotoSivashinsky, Simulator

RESULTS = Path(__file__).parent / "results"
MODES: dict[str, GradientMode] = {
    "Full()": Full(),
    "Checkpointed()": Checkpointed(),
    "Checkpointed(snapshots=20)": Checkpointed(snapshots=20),
}
SYSTEMS = ("finite-volume Burgers, 128 cells", "Kuramoto-Sivashinsky, ETDRK4, 64 cells")
STEPS = (10, 30, 100, 300, 1000, 3000, 10_000)
SCENARIOS = (1, 3, 10, 30, 100, 300, 1000)
GRID = (64, 128, 256, 512, 1024, 2048, 4096, 8192)
SIZES = {"steps": STEPS, "cells": GRID, "scenarios": SCENARIOS}
MEMORY_STEPS, MEMORY_SCENARIOS = 1000, 20
CELLS = 32


def posed(system: str, steps: int, scenarios: int, cells: int | None = None) -> Problem:
    """Steer a row of waves with a force in every cell; other numbers of cells at steps that stay stable."""
    if system == SYSTEMS[0]:
        cells = cells or 128
        simulator: Simulator = FiniteVolumeBurgers(dt=0.002 * min(1.0, (128 / cells) ** 2), viscosity=0.01)
        wave = torch.sin(2 * torch.pi * (torch.arange(cells, dtype=torch.float64) + 0.5) / cells)
    else:
        cells = cells or 64
        simulator = KuramotoSivashinsky(dt=0.1, cells=cells, length=22.0 * cells / 64)
        wave = torch.cos(2 * torch.pi * torch.arange(cells, dtype=torch.float64) / cells)
    initial = wave * torch.linspace(0.2, 0.8, scenarios, dtype=torch.float64)[:, None]
    return dp.control_problem(
        simulator,
        initial_state=initial,
        horizon=steps,
        objective=dp.reach(torch.zeros(cells, dtype=torch.float64)) + dp.effort(),
        control=dp.ControlSequence(cells),
    )


def forward(problem: Problem) -> None:
    """The losses alone."""
    with torch.no_grad():
        problem.loss(problem.start())


def gradient(problem: Problem) -> None:
    """Losses and gradient."""
    control = problem.start()["control"].requires_grad_()
    torch.autograd.grad(problem.loss({"control": control}).sum(), control)


def least(tasks: dict[str, Callable[[], None]], seconds: float) -> dict[str, dict[str, float]]:
    """Least and median CPU time of each task, taken in turn until the time is over (twice at least).

    Each is called once before: loops are loaded then, which may take all of the time.
    """
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for task in tasks.values():
        task()
    begin = time.perf_counter()
    while len(times[next(iter(tasks))]) < 2 or time.perf_counter() - begin < seconds:
        for name, task in tasks.items():
            started = time.process_time()
            task()
            times[name].append(time.process_time() - started)
    return {name: {"least": min(row), "median": float(np.median(row))} for name, row in times.items()}


def summed(state: Any) -> torch.Tensor:
    """``|x|^2`` of each scenario."""
    parts = [leaf.flatten(1).square().sum(1) for leaf in tree.leaves(state)]
    return torch.stack(parts).sum(0)


def posed_case(case: Case, steps: int, scenarios: int) -> Problem:
    """Any simulator: the size of the last state, against its control, or its initial state where nothing acts."""
    acting = isinstance(case.control, tuple)
    return dp.control_problem(
        case.make(),
        initial_state=case.initial(scenarios),
        horizon=steps,
        objective=dp.cost(terminal=summed) + dp.effort() if acting else dp.cost(terminal=summed),
        unknown=dp.ControlSequence(case.control, start=0.01) if acting else dp.InitialState(),
    )


def gradient_of(problem: Problem) -> None:
    """Losses and gradient in whatever is sought."""
    z = tree.map(lambda leaf: leaf.requires_grad_(), problem.start())
    torch.autograd.grad(problem.loss(z).sum(), tree.leaves(z))


def simulators(names: list[str]) -> list[dict[str, Any]]:
    """Value and gradient over the forward run for every simulator, 40 steps of one scenario and of twenty."""
    rows = []
    for name, case in cases(CELLS).items():
        if names and name not in names:
            continue
        for scenarios in (1, 20):
            problem = posed_case(case, 40, scenarios)
            tasks: dict[str, Callable[[], None]] = {"forward": lambda p=problem: forward(p)}
            for mode in MODES:
                tasks[mode] = lambda p=problem, m=mode: gradient_of(replace(p, gradient=MODES[m]))
            for task in tasks.values():
                task()  # what is compiled is compiled here
            times = {key: row["least"] for key, row in least(tasks, 2.0).items()}
            plans = {
                mode: dp.plan_gradient(replace(problem, gradient=MODES[mode])).chosen.recomputed / 40
                for mode in MODES
            }
            base = times["forward"]
            row = {
                "simulator": name,
                "scenarios": scenarios,
                "forward seconds": base,
                "kernel": has_kernel(problem),
                "ratio": {mode: times[mode] / base for mode in MODES},
                "steps run again for each": plans,
            }
            rows.append(row)
            print(
                name,
                scenarios,
                row["kernel"],
                {m: f"{r:.1f}" for m, r in row["ratio"].items()},
                file=sys.stderr,
            )
    return rows


def has_kernel(problem: Problem) -> bool:
    """Whether the open loop of a problem is run by a kernel."""
    from dpcontrol.problem.rolling import open_loop
    from dpcontrol.problem.stretches import kernel_ahead

    course, loop, _ = open_loop(problem, problem.start())
    return kernel_ahead(course, loop, Full()) is not None


def ratios(system: str, scenarios: int) -> dict[str, Any]:
    """Value and gradient over the forward run, per mode, with what the plan predicts from the ratio of Full."""
    steps = 200
    problem = posed(system, steps, scenarios)
    tasks: dict[str, Callable[[], None]] = {"forward": lambda: forward(problem)}
    for name, mode in MODES.items():
        tasks[name] = lambda mode=mode: gradient(replace(problem, gradient=mode))
    times = least(tasks, 10.0)
    base = times["forward"]["least"]
    plans = {name: dp.plan_gradient(replace(problem, gradient=mode)).chosen for name, mode in MODES.items()}
    full = times["Full()"]["least"] / base
    return {
        "system": system,
        "steps": steps,
        "scenarios": scenarios,
        "forward seconds": base,
        "ratio": {name: times[name]["least"] / base for name in MODES},
        "ratio of medians": {name: times[name]["median"] / times["forward"]["median"] for name in MODES},
        "predicted": {name: full + plans[name].recomputed / steps for name in MODES},
        "steps run again for each": {name: plans[name].recomputed / steps for name in MODES},
    }


def resident() -> int:
    """Peak resident bytes of this process (``ru_maxrss`` would be the parent's, where that was larger)."""
    entry = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert entry is not None
    return int(entry[1]) * 1024


def memory_of(system: str, mode: str) -> dict[str, Any]:
    """Peak memory of one gradient; to be called in a fresh process."""
    gradient(replace(posed(system, 4, MEMORY_SCENARIOS), gradient=MODES[mode]))
    problem = replace(posed(system, MEMORY_STEPS, MEMORY_SCENARIOS), gradient=MODES[mode])
    plan = dp.plan_gradient(problem)
    # in every mode there are the controls and their gradient
    controls = problem.start()["control"]
    beside = controls.numel() * controls.element_size()
    del controls
    before = resident()
    gradient(problem)
    return {
        "system": system,
        "mode": mode,
        "measured": resident() - before,
        "predicted": plan.chosen.bytes,
        "controls": beside,
    }


def memory(system: str, mode: str) -> dict[str, Any]:
    """Twice: with an allocator that hands every freed page back at once (what is held), and with the usual one."""
    command = [sys.executable, __file__, "memory of", system, mode]
    frugal = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "4096"}
    found = [
        json.loads(subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout)
        for env in (frugal, dict(os.environ))
    ]
    return {**found[0], "measured with the usual allocator": found[1]["measured"]}


def growth(system: str, what: str) -> dict[str, Any]:
    """CPU seconds of value and gradient against steps, cells or scenarios, and exponents by regression."""
    sizes = SIZES[what]
    modes = ("Full()", "Checkpointed()")
    times: dict[str, list[float]] = {name: [] for name in modes}
    for size in sizes:
        asked: dict[str, dict[str, int]] = {
            "steps": {"steps": size, "scenarios": 1},
            "cells": {"steps": 30, "scenarios": 1, "cells": size},
            "scenarios": {"steps": 30, "scenarios": size},
        }
        problem = posed(system, **asked[what])
        tasks = {name: lambda m=name, p=problem: gradient(replace(p, gradient=MODES[m])) for name in modes}
        for name, row in least(tasks, 1.0).items():
            times[name].append(row["least"])
        print(what, size, [f"{row[-1]:.4f}" for row in times.values()], file=sys.stderr, flush=True)

    def exponent(row: list[float], begin: int) -> float:
        return float(np.polyfit(np.log(sizes[begin:]), np.log(row[begin:]), 1)[0])

    return {
        "system": system,
        "against": what,
        "sizes": list(sizes),
        "seconds": times,
        "exponent": {name: exponent(row, 0) for name, row in times.items()},
        "exponent of the upper half": {name: exponent(row, len(sizes) // 2) for name, row in times.items()},
    }


def draw(record: dict[str, Any], path: Path) -> None:
    """Cost against steps, cells and scenarios, doubly logarithmic, beside slope 1."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(15, 4.4), constrained_layout=True)
    for axis, what in zip(axes, SIZES, strict=True):
        for colour, entry in zip("kb", (e for e in record["growth"] if e["against"] == what), strict=True):
            for style, (mode, row) in zip(("o-", "s--"), entry["seconds"].items(), strict=True):
                label = f"{entry['system'].split(',')[0]}, {mode}: exponent {entry['exponent'][mode]:.2f}"
                axis.loglog(entry["sizes"], row, colour + style, label=label, markersize=4, linewidth=1)
        sizes = np.array(entry["sizes"], dtype=float)
        lowest = min(
            min(row) for e in record["growth"] if e["against"] == what for row in e["seconds"].values()
        )
        axis.loglog(sizes, 0.5 * lowest * sizes / sizes[0], color="0.6", linestyle=":", label="slope 1")
        axis.set_xlabel(what)
        axis.set_ylabel("CPU seconds of value and gradient, one thread")
        axis.legend(fontsize=7)
    figure.savefig(path, dpi=120)


def main(parts: list[str]) -> None:
    """Measure some parts or all, store, draw."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / "gradient_cost.json"
    record = json.loads(path.read_text()) if parts else {}
    record |= {
        "command": "python tests/benchmarks/gradient_cost.py",
        "torch": torch.__version__,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, one thread used",
    }
    if not parts:
        record["load before"] = os.getloadavg()[0]
    if not parts or "memory" in parts:
        record["memory"] = [memory(system, mode) for system in SYSTEMS for mode in MODES]
    if not parts or "ratios" in parts:
        record["ratios"] = [ratios(system, scenarios) for system in SYSTEMS for scenarios in (1, 100)]
    if not parts or "simulators" in parts:
        record["simulators"] = simulators([])
    if not parts or "growth" in parts:
        record["growth"] = [growth(system, what) for what in SIZES for system in SYSTEMS]
    if not parts:
        record["load after"] = os.getloadavg()[0]
    path.write_text(json.dumps(record, indent=1) + "\n")
    draw(record, RESULTS / "gradient_cost.png")


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1:2] == ["memory of"]:
        print(json.dumps(memory_of(*sys.argv[2:4])))
    elif sys.argv[1:2] == ["plot"]:
        draw(json.loads((RESULTS / "gradient_cost.json").read_text()), RESULTS / "gradient_cost.png")
    else:
        main(sys.argv[1:])
