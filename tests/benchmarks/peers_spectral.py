"""Value and gradient of spectral rollouts: ours beside exponax under jit, in one run.

    python tests/benchmarks/peers_spectral.py              # everything: results/peers_spectral.json and .png
    python tests/benchmarks/peers_spectral.py rows         # one part again: rows or flow
    python tests/benchmarks/peers_spectral.py plot         # draws the picture again

Burgers and Kuramoto-Sivashinsky, 128 points, and flow in vorticity form, all float64, with the same modes kept. The
loss is the sum of squares of all states on the grid, the gradient that in the initial state. With ETDRK2 both solve the
same equations by the same scheme, and results are compared to rounding before anything is timed; for order 4 exponax
has Cox and Matthews' scheme where we have Krogstad's, of as many stages: they agree up to the error of the schemes.

Exponax is tried with its state kept in Fourier space by ``step_fourier`` between steps or on the grid by ``step``,
under ``jax.checkpoint`` or not, with the loop unrolled four times or not; its coefficients are made beforehand, and
compiling is not counted. Ours is ``rollout`` as a user calls it, coefficients, checks and autograd included; "loops
alone" are the calls of the kernel inside. One core for everything. Times are CPU seconds, the least of several samples,
taken in turn.
"""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from peers_stencil_timing import least, one_core

if __name__ == "__main__":
    one_core()

import numpy as np
import torch

from dpcontrol.engine import rollout
from dpcontrol.kernels import Wanted
from dpcontrol.sim import ETDRK2, ETDRK4, KuramotoSivashinsky, SpectralBurgers, VorticityFlow
from dpcontrol.sim.base import Simulator

HERE = Path(__file__).parent
RESULT = HERE / "results" / "peers_spectral.json"
SCHEMES = {2: ETDRK2, 4: ETDRK4}
VARIANTS = (
    ("fourier", False, 1),
    ("fourier", True, 1),
    ("fourier", False, 4),
    ("fourier", True, 4),
    ("grid", False, 1),
)
ROWS = [
    {"system": system, "order": order, "shape": [128], "scenarios": scenarios, "steps": steps}
    for system in ("burgers", "ks")
    for order in (2, 4)
    for scenarios, steps in ((1, 100), (1, 1000), (100, 100))
]
FLOWS = [
    {"system": "vorticity", "order": 2, "shape": [cells, cells], "scenarios": scenarios, "steps": 32}
    for cells in (64, 128)
    for scenarios in (1, 8)
]
Calls = dict[str, Callable[[], Any]]


def pair(case: dict[str, Any]) -> tuple[Simulator, Any]:
    """Our simulator and exponax's stepper; it keeps the modes up to ``2/3 N/2 - 1``."""
    import exponax

    n, order, scheme = case["shape"][0], case["order"], SCHEMES[case["order"]]
    kept = 2 / 3 - 2 / n
    if case["system"] == "burgers":
        stepper = exponax.stepper.Burgers(1, 1.0, n, 0.002, diffusivity=0.01, order=order, conservative=True)
        return SpectralBurgers(0.002, n, 1.0, 0.01, scheme, kept), stepper
    if case["system"] == "ks":
        stepper = exponax.stepper.KuramotoSivashinskyConservative(1, 64.0, n, 0.1, order=order)
        return KuramotoSivashinsky(0.1, n, 64.0, 1.0, scheme, kept), stepper
    # its velocity turns the other way round
    stepper = exponax.stepper.NavierStokesVorticity(
        2, 2 * np.pi, n, 0.01, diffusivity=1e-3, vorticity_convection_scale=-1.0, order=order
    )
    return VorticityFlow(0.01, (n, n), 1e-3, scheme=scheme, dealiasing=kept), stepper


def scene(case: dict[str, Any], simulator: Any) -> torch.Tensor:
    """Random fields of a few long waves, of size one."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(case["scenarios"], *case["shape"], generator=generator, dtype=torch.float64)
    field = simulator.box.project(noise, 0.15)
    field -= field.mean(tuple(range(1, field.ndim)), keepdim=True)
    return field / field.std()


def ours(simulator: Simulator, state: torch.Tensor, steps: int) -> Calls:
    """Loss, and loss with gradient; and the kernel's calls by themselves."""

    def loss(x: torch.Tensor) -> torch.Tensor:
        return rollout(simulator, x, length=steps).states[1:].square().sum()

    def forward() -> Any:
        with torch.no_grad():
            return loss(state)

    def gradient() -> Any:
        x = state.clone().requires_grad_()
        value = loss(x)
        return value.detach(), torch.autograd.grad(value, x)[0]

    defaults = {name: torch.as_tensor(v, dtype=state.dtype) for name, v in simulator.parameters.items()}
    coefficients = simulator.prepare(defaults, {})
    kernel = simulator.kernel(state, None, None, coefficients)
    assert kernel is not None
    nothing = (None, None)
    states = kernel.run(state, nothing, coefficients, steps, 0)

    def loops() -> None:
        kernel.run(state, nothing, coefficients, steps, 0)
        kernel.pull(state, states, nothing, coefficients, states, Wanted(False, False), 0)

    return {"ours forward": forward, "ours gradient": gradient, "ours gradient, loops alone": loops}


def theirs(stepper: Any, state: torch.Tensor, steps: int, variant: tuple[str, bool, int]) -> Calls:
    """The same by exponax, compiled."""
    import jax
    import jax.numpy as jnp

    where, again, unroll = variant
    axes, shape = tuple(range(2, state.ndim + 1)), tuple(state.shape[1:])
    step = jax.vmap(stepper.step_fourier if where == "fourier" else stepper.step)
    body = jax.checkpoint(step) if again else step

    def loss(x: Any) -> Any:
        def one(carry: Any, _: Any) -> Any:
            carry = body(carry)
            return carry, carry

        start = jnp.fft.rfftn(x, axes=axes) if where == "fourier" else x
        _, found = jax.lax.scan(one, start, None, length=steps, unroll=unroll)
        states = jnp.fft.irfftn(found, s=shape, axes=[a + 1 for a in axes]) if where == "fourier" else found
        return jnp.sum(states**2)

    x = jnp.asarray(state.numpy()[:, None])
    value, both = jax.jit(loss), jax.jit(jax.value_and_grad(loss))
    return {
        "forward": lambda: jax.block_until_ready(value(x)),
        "gradient": lambda: jax.block_until_ready(both(x)),
    }


def measure(case: dict[str, Any], seconds: float) -> dict[str, Any]:
    """All of one case in turn, after the results were compared."""
    simulator, stepper = pair(case)
    state = scene(case, simulator)
    calls = ours(simulator, state, case["steps"])
    for variant in VARIANTS:
        where, again, unroll = variant
        name = f"exponax {where}{', checkpoint' if again else ''}{', unrolled' if unroll > 1 else ''}"
        for kind, call in theirs(stepper, state, case["steps"], variant).items():
            calls[f"{name}: {kind}"] = call
    differences = compare(calls)
    # chaos takes what rounding and the schemes' own errors begin
    tolerance = 1e-8 if case["order"] == 2 and case["system"] != "ks" and case["steps"] < 1000 else np.inf
    assert max(differences) < tolerance, differences
    times = least(calls, seconds)
    best = {
        kind: min((name for name in calls if name.endswith(f": {kind}")), key=lambda name: times[name])
        for kind in ("forward", "gradient")
    }
    ratios = {kind: times[f"ours {kind}"] / times[best[kind]] for kind in best}
    ratios["loops alone"] = times["ours gradient, loops alone"] / times[best["gradient"]]
    return {
        **case,
        "value and gradient differ by": differences,
        "ours over the best": ratios,
        "best": best,
        "seconds": times,
    }


def compare(calls: Calls) -> list[float]:
    """Relative differences of value and gradient between ours and exponax's first variant."""
    value, gradient = calls["ours gradient"]()
    other, other_gradient = calls["exponax fourier: gradient"]()
    wanted = np.asarray(other_gradient)[:, 0]
    return [
        abs(float(value) / float(other) - 1),
        float(np.abs(gradient.numpy() - wanted).max() / np.abs(wanted).max()),
    ]


def plot(entries: list[dict[str, Any]]) -> None:
    """Ours over exponax's best, for each case."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 0.42 * len(entries) + 1.4), layout="constrained")
    names = [
        f"{e['system']} {'^'.join((str(e['shape'][0]), str(len(e['shape']))))}, ETDRK{e['order']}, "
        f"batch {e['scenarios']}, {e['steps']} steps"
        for e in entries
    ]
    kinds = {
        "forward": ("o", "C0", "value"),
        "gradient": ("s", "C3", "value and gradient"),
        "loops alone": ("|", "C7", "its loops alone"),
    }
    for kind, (marker, colour, label) in kinds.items():
        values = [entry["ours over the best"][kind] for entry in entries]
        axes.plot(values, range(len(entries)), marker, color=colour, label=label)
    axes.axvline(1.0, color="0.6", linewidth=1)
    axes.set_yticks(range(len(entries)), names, fontsize=8)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xticks([0.2, 0.3, 0.5, 1.0, 2.0], ["0.2", "0.3", "0.5", "1", "2"])
    axes.minorticks_off()
    axes.set_xlabel("CPU time, ours over exponax at its best (left of the line: ours is faster)")
    axes.legend(fontsize=8)
    figure.savefig(RESULT.with_suffix(".png"), dpi=110)


def main() -> None:
    import jax

    jax.config.update("jax_enable_x64", True)
    torch.set_num_threads(1)
    asked = sys.argv[1:]
    record = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    record["command"], record["machine"] = "python tests/benchmarks/peers_spectral.py", platform.machine()
    for part, cases, seconds in (("rows", ROWS, 0.5), ("flow", FLOWS, 1.0)):
        if not asked or part in asked:
            record[part] = []
            for case in cases:
                record[part].append(measure(case, seconds))
                RESULT.write_text(json.dumps(record, indent=1) + "\n")
                print(
                    case,
                    record[part][-1]["ours over the best"],
                    record[part][-1]["value and gradient differ by"],
                    flush=True,
                )
    plot([*record.get("rows", []), *record.get("flow", [])])


if __name__ == "__main__":
    main()
