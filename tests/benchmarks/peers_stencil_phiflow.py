"""Burgers and smoke in PhiFlow on JAX, jitted, beside ours: same scheme, same float64 numbers, calls in turn.

    python tests/benchmarks/peers_stencil_phiflow.py burgers SCENARIOS
    python tests/benchmarks/peers_stencil_phiflow.py smoke STEPS [auto|CG|CG-adaptive|...]

Each prints one line of JSON. PhiFlow's gradient is ``jit_compile(gradient(loss))`` of the whole run, steps written out.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

from peers_stencil_timing import least, one_core

if __name__ == "__main__":
    one_core()

import numpy as np
import torch

from dpcontrol.engine import rollout
from dpcontrol.sim import SemiLagrangianBurgers
from problems import burgers, smoke_inverse

F64 = torch.float64


def compiled(call: Callable[[], Any]) -> float:
    """Wall seconds of a first call."""
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def of_burgers(scenarios: int) -> dict[str, Any]:
    """Loss on the last state and on the forces, gradient in the forces; 32 cells, 32 steps."""
    import jax
    from phi.jax import flow

    flow.math.set_global_precision(64)
    domain = {"x": burgers.CELLS, "bounds": flow.Box(x=1.0)}
    start = burgers.draw(torch.Generator().manual_seed(0), scenarios)["initial_state"]
    force = 0.3 * torch.randn(
        burgers.HORIZON, *start.shape, generator=torch.Generator().manual_seed(1), dtype=F64
    )

    def grid(values: torch.Tensor, axes: str) -> Any:
        rows = flow.math.tensor(values.numpy(), flow.batch(axes), flow.spatial("x"), convert=True)
        rows = flow.math.expand(rows, flow.channel(vector="x"))
        return flow.CenteredGrid(rows, flow.extrapolation.ZERO, **domain)

    def end(u: Any, forces: Any) -> Any:
        for k in range(burgers.HORIZON):
            u = flow.diffuse.explicit(u, burgers.VISCOSITY, burgers.DT)
            u = flow.advect.semi_lagrangian(u, u, burgers.DT) + burgers.DT * forces.t[k]
        return u

    def loss(u: Any, forces: Any) -> Any:
        last = end(u, forces)
        return flow.math.sum(last.values**2, "scene,x,vector") + flow.math.sum(
            forces.values**2, "scene,x,vector,t"
        )

    u0, forces = grid(start, "scene"), grid(force, "t,scene")
    assert (
        u0.points is not None and forces.points is not None
    )  # kept by PhiFlow; made while tracing they would leak
    forward = flow.math.jit_compile(loss)
    gradient = flow.math.jit_compile(flow.math.gradient(loss, "forces", get_output=True))

    def theirs() -> Any:
        value, found = gradient(u0, forces)
        return value, jax.block_until_ready(found.values.native("t,scene,x,vector"))

    simulator = SemiLagrangianBurgers(burgers.DT, burgers.VISCOSITY)

    def value(u: torch.Tensor) -> torch.Tensor:
        return rollout(simulator, start, u).states[-1].square().sum() + u.square().sum()

    def ours() -> Any:
        u = force.clone().requires_grad_()
        found = value(u)
        return found, torch.autograd.grad(found, u)[0]

    def ours_forward() -> Any:
        with torch.no_grad():
            return value(force)

    compiling = compiled(theirs)
    found, wanted = theirs(), ours()
    assert abs(float(found[0]) / wanted[0].item() - 1) < 1e-12
    difference = np.abs(np.asarray(found[1])[..., 0] - wanted[1].numpy()).max() / float(wanted[1].abs().max())
    calls = {
        "PhiFlow forward": lambda: jax.block_until_ready(forward(u0, forces).native()),
        "PhiFlow gradient": theirs,
        "ours forward": ours_forward,
        "ours gradient": ours,
    }
    return {
        "scenarios": scenarios, "seconds to compile": compiling, "gradients differ by": float(difference),
        "seconds": least(calls, 2.0),
    }  # fmt: skip


def of_smoke(steps: int, method: str) -> dict[str, Any]:
    """Loss of the inverse problem, gradient in the initial velocity; 32 x 40 cells, four plumes."""
    import jax
    from phi.jax import flow

    flow.math.set_global_precision(64)
    domain = {"x": 32, "y": 40, "bounds": flow.Box(x=32.0, y=40.0)}
    sources = smoke_inverse.inflows()
    inflow = flow.CenteredGrid(
        flow.math.tensor(sources.numpy(), flow.batch("scene"), flow.spatial("x,y"), convert=True),
        flow.extrapolation.BOUNDARY, **domain,
    )  # fmt: skip
    clean = flow.CenteredGrid(0.0, flow.extrapolation.BOUNDARY, **domain)
    # not from rest, where every point is traced back to a tie between cells and gradients are a matter of taste
    flow.math.seed(0)
    waves = 0.4 * flow.StaggeredGrid(flow.Noise(scale=8), flow.extrapolation.ZERO, **domain)
    start = waves * flow.math.ones(flow.batch(scene=4))
    assert all(field.points is not None for field in (inflow, clean, start))  # see above
    solve = flow.Solve(method, 1e-10, 1e-10, max_iterations=2000)

    def loss(velocity: Any) -> Any:
        marker = clean
        for _ in range(steps):
            marker = flow.advect.mac_cormack(marker, velocity, 1.0) + inflow
            lift = (marker * (0.0, 1.0)).at(velocity)
            velocity = flow.advect.semi_lagrangian(velocity, velocity, 1.0) + lift
            velocity, _ = flow.fluid.make_incompressible(velocity, (), solve)
        return flow.math.sum(0.5 * marker.values**2, "scene,x,y")

    forward = flow.math.jit_compile(loss)
    gradient = flow.math.jit_compile(flow.math.gradient(loss, "velocity", get_output=True))

    def theirs() -> Any:
        value, found = gradient(start)
        parts = [found.vector[name].values.native("scene,x,y") for name in "xy"]
        return value, jax.block_until_ready(parts)

    initial = {
        f"velocity_{name}": torch.tensor(waves.vector[name].values.numpy("x,y"), dtype=F64).expand(4, -1, -1)
        for name in "xy"
    }

    def value(velocity: dict[str, torch.Tensor]) -> torch.Tensor:
        states = rollout(
            smoke_inverse.SIMULATOR, velocity, length=steps, parameters={"inflow": sources}
        ).states
        return 0.5 * states["marker"][-1].square().sum()

    def ours() -> Any:
        sought = {name: part.clone().requires_grad_() for name, part in initial.items()}
        found = value(sought)
        return found, torch.autograd.grad(found, list(sought.values()))

    def ours_forward() -> Any:
        with torch.no_grad():
            return value(initial)

    compiling = compiled(theirs)
    found, wanted = theirs(), ours()
    difference = [
        float(np.abs(np.asarray(a) - b.numpy()).max() / float(b.abs().max()))
        for a, b in zip(found[1], wanted[1], strict=True)
    ]
    calls = {
        "PhiFlow forward": lambda: jax.block_until_ready(forward(start).native()),
        "PhiFlow gradient": theirs,
        "ours forward": ours_forward,
        "ours gradient": ours,
    }
    return {
        "steps": steps, "solver": method, "seconds to compile": compiling,
        "losses": [float(found[0]), wanted[0].item()], "gradients differ by": difference, "seconds": least(calls, 2.0),
    }  # fmt: skip


if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    case = (
        of_burgers(int(sys.argv[2])) if sys.argv[1] == "burgers" else of_smoke(int(sys.argv[2]), sys.argv[3])
    )
    print(json.dumps(case))
