"""What it costs to ask somebody else's simulator, beside what it computes: CPU time of a call, least of many.

python tests/benchmarks/external_overhead.py        # writes results/external_overhead.json
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import torch

from dpcontrol.sim import BlackBox, JaxFunction, PhiFlowStep

RECORD = Path(__file__).parent / "results" / "external_overhead.json"
ECHO = """
import json, sys
for line in sys.stdin:
    print(json.dumps({"state": json.loads(line)["state"]}), flush=True)
"""


def least(call: Callable[[], Any], repetitions: int = 40, calls: int = 20, *, wall: bool = False) -> float:
    """Microseconds of one call, the least mean of several rows of calls; wall time where another process works."""
    clock = time.perf_counter if wall else time.process_time
    for _ in range(10):
        call()
    rows = []
    for _ in range(repetitions):
        began = clock()
        for _ in range(calls):
            call()
        rows.append((clock() - began) / calls)
    return round(1e6 * min(rows), 1)


def with_gradient(function: Callable[..., torch.Tensor], x: torch.Tensor, u: Any) -> Callable[[], Any]:
    leaf = x.clone().requires_grad_()
    above = torch.ones_like(x)
    return lambda: torch.autograd.grad(function(leaf, u), leaf, above)


def jax_rows() -> dict[str, float]:
    import jax

    def add(x: Any, u: Any) -> Any:
        return x + u

    function, compiled = JaxFunction(add), jax.jit(add)
    found = {}
    for name, size in (("small", (4, 5)), ("8 MB", (1000, 1000))):
        x, u = torch.ones(size, dtype=torch.float64), torch.ones(size, dtype=torch.float64)
        calls = 20 if name == "small" else 3
        with jax.enable_x64(True):
            arrays = [jax.numpy.asarray(t.numpy()) for t in (x, u)]
            found[f"jax itself, x + u, {name}"] = least(
                lambda a=arrays: compiled(*a).block_until_ready(), calls=calls
            )
        found[f"torch itself, x + u, {name}"] = least(lambda x=x, u=u: x + u, calls=calls)
        found[f"JaxFunction, x + u, {name}"] = least(lambda x=x, u=u: function(x, u), calls=calls)
        found[f"JaxFunction, x + u and its VJP, {name}"] = least(with_gradient(function, x, u), calls=calls)
    return found


def phiflow_rows() -> dict[str, float]:
    from phi.field import CenteredGrid

    def same(field: Any, control: Any) -> Any:
        return 2.0 * field

    x = torch.ones(4, 32)
    found = {}
    for backend in ("jax", "torch"):
        step = PhiFlowStep(same, like=lambda: CenteredGrid(0.0, 0.0, x=32), backend=backend)
        found[f"PhiFlowStep, {backend}, 2 x"] = least(lambda step=step: step(x, None))
        found[f"PhiFlowStep, {backend}, 2 x and its VJP"] = least(with_gradient(step, x, None))
    return found


def box_rows() -> dict[str, float]:
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    found = {}
    for name, size in (("20 numbers", (4, 5)), ("10,000 numbers", (100, 100)), ("8 MB", (1000, 1000))):
        x = torch.ones(size, dtype=torch.float64)
        calls = 20 if name == "20 numbers" else 3
        for kind, program in (("function", echo), ("command", [sys.executable, "-c", ECHO])):
            if kind == "command" and name == "8 MB":
                continue
            box = BlackBox(program)
            began = time.perf_counter()
            box.step(x, None, box.prepare({}, {}), None, 0.0)
            if name == "20 numbers":
                found[f"BlackBox, {kind}, start"] = round(1e6 * (time.perf_counter() - began))
            found[f"BlackBox, {kind}, {name}"] = least(
                lambda box=box, x=x: box.step(x, None, {"parameters": {}, "scenario": {}}, None, 0.0),
                calls=calls,
                wall=True,
            )
            box.close()
    return found


def echo(x: Any, u: Any) -> Any:
    return x


def main() -> None:
    torch.set_num_threads(1)
    found = {**jax_rows(), **phiflow_rows(), **box_rows()}
    for name, microseconds in found.items():
        print(f"{name:<44}{microseconds:>12,.1f} us")
    record = {
        "command": "python tests/benchmarks/external_overhead.py",
        "unit": "microseconds of a call: CPU time of this process, wall time for BlackBox; least of 40 rows of calls",
        "torch": torch.__version__,
        "found": found,
    }
    RECORD.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
