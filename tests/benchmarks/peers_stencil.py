"""Value and gradient of stencil rollouts: ours by fused loops, eager PyTorch, JAX and PhiFlow, each at its best.

    python tests/benchmarks/peers_stencil.py                  # everything: results/peers_stencil.json and .png
    python tests/benchmarks/peers_stencil.py explore          # one part again: explore, compare, compiling, phiflow
    python tests/benchmarks/peers_stencil.py plot             # draws the picture again

Finite-volume Burgers, 128 cells, 32 steps of 4 substeps of 2 stages; the loss is the sum of squares of the last state
and of the 32 controls, the gradient that in the controls. First every variant of the JAX version is timed in a process
of its own (``explore``: with a time limit, because unrolled loops compile for minutes), then the fastest ones are timed
in turn with ours and with autograd over the eager loop in one process (``compare``), after their results were found
equal to rounding. One core for each process. Times are CPU seconds, the least of several samples.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from peers_stencil_timing import DT, SUBSTEPS, VISCOSITY, least, one_core, scene

if __name__ == "__main__":
    one_core()

import numpy as np
import torch

from dpcontrol.engine import rollout
from dpcontrol.kernels import Wanted
from dpcontrol.sim import FiniteVolumeBurgers, Substeps

HERE = Path(__file__).parent
RESULT = HERE / "results" / "peers_stencil.json"
BATCHES, LIMIT = (1, 100), 240
FIRST_CALL = """
import json, sys, time
sys.path.insert(0, {here!r})
import torch
from peers_stencil import ours
torch.set_num_threads(1)
wall, cpu = time.perf_counter(), time.process_time()
ours(1, {dtype!r}, True)[1]()
print(json.dumps({{"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}}))
"""


def ours(scenarios: int, dtype: str, fused: bool) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Loss, and loss with its gradient in the controls."""
    state, controls = (torch.from_numpy(part) for part in scene(scenarios, dtype))
    simulator = Substeps(FiniteVolumeBurgers(DT, VISCOSITY, fused=fused), SUBSTEPS)

    def loss(u: torch.Tensor) -> torch.Tensor:
        return rollout(simulator, state, u).states[-1].square().sum() + u.square().sum()

    def forward() -> Any:
        with torch.no_grad():
            return loss(controls)

    def gradient() -> Any:
        u = controls.clone().requires_grad_()
        value = loss(u)
        return value, torch.autograd.grad(value, u)[0]

    return forward, gradient


def loops_alone(scenarios: int, dtype: str) -> dict[str, Callable[[], Any]]:
    """The compiled loops without autograd around them."""
    state, controls = (torch.from_numpy(part) for part in scene(scenarios, dtype))
    simulator = Substeps(FiniteVolumeBurgers(DT, VISCOSITY), SUBSTEPS)
    coefficients = simulator.prepare({"viscosity": torch.tensor(VISCOSITY, dtype=state.dtype)}, {})
    kernel = simulator.kernel(state, controls[0], None, coefficients)
    assert kernel is not None
    inputs = (controls, None)
    states = kernel.run(state, inputs, coefficients, len(controls), 0)
    above = torch.randn_like(states)
    return {
        "loops forward": lambda: kernel.run(state, inputs, coefficients, len(controls), 0),
        "loops backward": lambda: kernel.pull(
            state, states, inputs, coefficients, above, Wanted(True, False), 0
        ),
    }


def explore() -> list[dict[str, Any]]:
    """CPU seconds of every JAX variant, float64, or why there are none."""
    from peers_stencil_jax import VARIANTS

    found = []
    for scenarios in BATCHES:
        for name in VARIANTS:
            entry: dict[str, Any] = {"variant": name, "scenarios": scenarios}
            command = [sys.executable, str(HERE / "peers_stencil_jax.py"), name, str(scenarios), "float64"]
            try:
                done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=LIMIT)
                entry |= json.loads(done.stdout)
            except subprocess.TimeoutExpired:
                entry["no result"] = f"more than {LIMIT} s, most of them compiling"
            found.append(entry)
            print(entry, file=sys.stderr, flush=True)
    return found


def compare(tried: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Eager, ours and the fastest JAX variants in turn, for each batch and dtype."""
    from peers_stencil_jax import prepared

    found = []
    for scenarios in BATCHES:
        entries = [e for e in tried if e["scenarios"] == scenarios and "gradient" in e]
        best = {kind: min(entries, key=lambda e, k=kind: e[k])["variant"] for kind in ("forward", "gradient")}
        for dtype in ("float64", "float32"):
            eager, fused = ours(scenarios, dtype, False), ours(scenarios, dtype, True)
            theirs = (
                prepared(best["forward"], scenarios, dtype)[0],
                prepared(best["gradient"], scenarios, dtype)[1],
            )
            differences = equal(fused[1](), eager[1](), theirs[1](), 1e-10 if dtype == "float64" else 1e-3)
            calls = {
                "eager forward": eager[0], "eager gradient": eager[1], "ours forward": fused[0],
                "ours gradient": fused[1], "JAX forward": theirs[0], "JAX gradient": theirs[1],
                **loops_alone(scenarios, dtype),
            }  # fmt: skip
            entry = {
                "scenarios": scenarios,
                "dtype": dtype,
                "JAX variants": best,
                "gradients differ by": differences,
            }
            found.append(entry | {"seconds": least(calls, 2.0)})
            print(found[-1], file=sys.stderr, flush=True)
    return found


def equal(fused: Any, eager: Any, jax: Any, tolerance: float) -> list[float]:
    """Largest relative differences of ours from eager and from JAX; refused beyond the tolerance."""
    wanted = eager[1].numpy()
    differences = [
        float(np.abs(np.asarray(each[1]) - wanted).max() / np.abs(wanted).max()) for each in (fused, jax)
    ]
    values = [abs(float(value) / eager[0].item() - 1) for value in (fused[0].detach(), jax[0])]
    assert max(*differences, *values) < tolerance, (differences, values)
    return differences


def compiling() -> list[dict[str, Any]]:
    """Seconds of the first value and gradient: with an empty cache, and in the next process."""
    found = []
    for dtype in ("float64", "float32"):
        with tempfile.TemporaryDirectory() as folder:
            for what in ("nothing in the cache", "from the cache"):
                done = subprocess.run(
                    [sys.executable, "-c", FIRST_CALL.format(here=str(HERE), dtype=dtype)],
                    env={**os.environ, "NUMBA_CACHE_DIR": folder}, capture_output=True, text=True, check=True,
                )  # fmt: skip
                found.append({"dtype": dtype, "first call": what, **json.loads(done.stdout)})
    return found


def phiflow() -> list[dict[str, Any]]:
    """Burgers and smoke beside PhiFlow, each in a process of its own."""
    found = []
    for arguments in (("burgers", "1"), ("burgers", "100"), ("smoke", "2", "CG")):
        entry: dict[str, Any] = {"case": " ".join(arguments)}
        command = [sys.executable, str(HERE / "peers_stencil_phiflow.py"), *arguments]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=600)
            if done.returncode:
                entry["no result"] = done.stderr.strip().splitlines()[-1]
            else:
                entry |= json.loads(done.stdout.strip().splitlines()[-1])
        except subprocess.TimeoutExpired:
            entry["no result"] = "more than 600 s"
        found.append(entry)
        print(entry, file=sys.stderr, flush=True)
    return found


def draw(record: dict[str, Any], path: Path) -> None:
    """Times of value and gradient, batch by batch."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4.6), constrained_layout=True)
    colours = {"eager": "0.6", "JAX": "tab:orange", "ours": "tab:blue"}
    for axis, scenarios in zip(axes, BATCHES, strict=True):
        entries = [e for e in record["compare"] if e["scenarios"] == scenarios]
        for place, entry in enumerate(entries):
            for shift, (who, colour) in enumerate(colours.items()):
                x = place + 0.28 * (shift - 1)
                whole, value = (1e3 * entry["seconds"][f"{who} {kind}"] for kind in ("gradient", "forward"))
                first = place == 0 and scenarios == BATCHES[0]
                axis.bar(x, whole, 0.26, color=colour, label=f"{who}, value and gradient" if first else None)
                axis.plot(
                    (x - 0.13, x + 0.13), (value, value), color="k", linestyle=":", linewidth=1.5,
                    label="the value alone" if first and who == "ours" else None,
                )  # fmt: skip
                axis.text(x, whole * 1.08, f"{whole:.3g}", ha="center", fontsize=8)
        axis.set(yscale="log", title=f"{scenarios} scenario{'s' if scenarios > 1 else ''}")
        axis.set_xticks(range(len(entries)), [e["dtype"] for e in entries])
        low, high = axis.get_ylim()
        axis.set_ylim(low / 2, high * 1.5)
    axes[0].set_ylabel("CPU milliseconds, one core")
    figure.legend(loc="outside lower center", ncols=4, fontsize=8)
    figure.suptitle("Finite-volume Burgers, 128 cells, 32 steps of 4 substeps", fontsize=11)
    figure.savefig(path, dpi=120)


def main(parts: list[str]) -> None:
    """Measure some parts or all, store, draw."""
    record = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    record |= {
        "command": "python tests/benchmarks/peers_stencil.py",
        "torch": torch.__version__,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, one used",
    }
    for name in parts or ["explore", "compare", "compiling", "phiflow"]:
        before = os.getloadavg()[0]
        made = {"compiling": compiling, "explore": explore, "phiflow": phiflow}
        record[name] = compare(record["explore"]) if name == "compare" else made[name]()
        record[f"load before and after {name}"] = [before, os.getloadavg()[0]]
        RESULT.write_text(json.dumps(record, indent=1) + "\n")
    if "compare" in record:
        draw(record, RESULT.with_suffix(".png"))


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1:] == ["plot"]:
        draw(json.loads(RESULT.read_text()), RESULT.with_suffix(".png"))
    else:
        main(sys.argv[1:])
