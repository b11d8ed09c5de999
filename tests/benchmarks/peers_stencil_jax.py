"""Finite-volume Burgers in JAX, the same scheme as ours, in every way that was tried to make it fast.

python tests/benchmarks/peers_stencil_jax.py VARIANT SCENARIOS DTYPE      # one of them, in a process of its own
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from peers_stencil_timing import CELLS, DT, STEPS, SUBSTEPS, VISCOSITY, least, one_core, scene


class Variant(NamedTuple):
    """How the loops are written."""

    neighbours: str = "concatenate"
    rematerialised: str = ""
    substeps: str = "scan"
    unrolled_steps: int = 1
    batch: str = "axis"


VARIANTS = {
    "scans": Variant(),
    "scans, jnp.roll": Variant(neighbours="roll"),
    "scans, step checkpointed": Variant(rematerialised="step"),
    "scans, substep checkpointed": Variant(rematerialised="substep"),
    "scans, both checkpointed": Variant(rematerialised="step substep"),
    "fori_loop of substeps": Variant(substeps="fori"),
    "substeps unrolled": Variant(substeps="unrolled"),
    "substeps unrolled and checkpointed": Variant(substeps="unrolled", rematerialised="substep"),
    "scans, vmap over scenarios": Variant(batch="vmap"),
    "4 steps unrolled": Variant(substeps="unrolled", unrolled_steps=4),
    "32 steps unrolled": Variant(substeps="unrolled", unrolled_steps=STEPS),
}


def functions(variant: Variant, dtype: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Loss, and loss with its gradient in the controls; both compiled at their first call."""
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", dtype == "float64")
    inverse_h, epsilon = float(CELLS), CELLS**-3.0

    def slopes(a: Any, b: Any) -> Any:
        return 0.5 * (a * b + epsilon) * (a + b) / (a * a + b * b + 2 * epsilon)

    def rate(u: Any, force: Any) -> Any:
        if variant.neighbours == "roll":
            d = u - jnp.roll(u, 1, -1)
            s = slopes(d, jnp.roll(d, -1, -1))
            rising, falling = jnp.maximum(jnp.roll(u + s, 1, -1), 0), jnp.maximum(s - u, 0)
            flux = 0.5 * (rising**2 + falling**2) - VISCOSITY * inverse_h * d
            return force - inverse_h * (jnp.roll(flux, -1, -1) - flux)
        wide = jnp.concatenate((u[..., -1:], u, u[..., :1]), -1)
        d = wide[..., 1:] - wide[..., :-1]
        s = slopes(d[..., :-1], d[..., 1:])
        l, r = u + s, s - u
        rising = jnp.maximum(jnp.concatenate((l[..., -1:], l), -1), 0)
        falling = jnp.maximum(jnp.concatenate((r, r[..., :1]), -1), 0)
        flux = 0.5 * (rising**2 + falling**2) - VISCOSITY * inverse_h * d
        return force - inverse_h * (flux[..., 1:] - flux[..., :-1])

    def substep(u: Any, force: Any) -> Any:
        first = u + DT * rate(u, force)
        return 0.5 * (u + first + DT * rate(first, force))

    if "substep" in variant.rematerialised.split():
        substep = jax.checkpoint(substep)

    def step(u: Any, force: Any) -> Any:
        if variant.substeps == "unrolled":
            for _ in range(SUBSTEPS):
                u = substep(u, force)
        elif variant.substeps == "fori":
            u = jax.lax.fori_loop(0, SUBSTEPS, lambda _, v: substep(v, force), u)
        else:
            u, _ = jax.lax.scan(lambda v, _: (substep(v, force), None), u, None, length=SUBSTEPS)
        return u, None

    if "step" in variant.rematerialised.split():
        step = jax.checkpoint(step)

    def end(u: Any, controls: Any) -> Any:
        return jax.lax.scan(step, u, controls, unroll=variant.unrolled_steps)[0]

    if variant.batch == "vmap":
        end = jax.vmap(end, (0, 1))

    def loss(u: Any, controls: Any) -> Any:
        return (end(u, controls) ** 2).sum() + (controls**2).sum()

    return jax.jit(loss), jax.jit(jax.value_and_grad(loss, argnums=1))


def prepared(name: str, scenarios: int, dtype: str) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Two calls without arguments that end when the result is there."""
    import jax
    import jax.numpy as jnp

    forward, gradient = functions(VARIANTS[name], dtype)
    state, controls = (jnp.asarray(part) for part in scene(scenarios, dtype))
    return (
        lambda: jax.block_until_ready(forward(state, controls)),
        lambda: jax.block_until_ready(gradient(state, controls)),
    )


def main(name: str, scenarios: int, dtype: str) -> None:
    """Print the CPU seconds of one variant."""
    forward, gradient = prepared(name, scenarios, dtype)
    times = least({"forward": forward, "gradient": gradient}, 2.0)
    print(json.dumps(times))


if __name__ == "__main__":
    one_core()
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
