r"""Quieting a chemical clock in a row of cells, its equations written in JAX.

The equations (Brusselator), on a ring of length 1:

    x_t = A + u(z, t) + x^2 y - (B + 1) x + D_x x_zz
    y_t = B x - x^2 y + D_y y_zz

For B > 1 + A^2 the rest (A, B/A) is unstable, and every cell goes round a limit cycle of period about 7, out of step
with its neighbours.

The question: which changes u of the feed, one for each quarter of the ring, bring it to rest within about a period?

============  ==============================================================  ======================
symbol        value                                                           unit (nondimensional)
============  ==============================================================  ======================
``x, y``      state, 2 x 32 cells (16 in the small size)                      concentration
``u``         control, 4 quarters, held for a step, -1 <= u <= 1 (feed >= 0)  concentration over time
``A, B``      1, 3                                                            1
``D_x, D_y``  4e-3, 2e-3                                                      length^2 over time
``dt, N``     0.25, 10 substeps of RK4 each; 32 steps (24)                    time, 1
``x, y (0)``  (1.6 + 1.2 cos p, 2.8 + 1.6 sin p), near the limit cycle        concentration
``p``         phase U(0, 2 pi) + 0.5 cos(2 pi (z - U(0, 1)))                  1
============  ==============================================================  ======================

The step is a JAX function, wrapped in :class:`~dpcontrol.sim.JaxFunction`: compiled by JAX, and differentiated by its
VJP. The parameters ``feed`` (A) and ``ratio`` (B) can be sought as well.

Unknown: the control, bounded, one sequence for each scene (4; 2 in the small size), from zero. Observation: the whole
state.

Objective: dt mean over the cells of (x - A)^2 + (y - B/A)^2, summed over the steps and the end, plus 0.05 dt u^2 summed
over quarters and steps.

Metrics: ``deviation``, root mean square distance from rest at the end; ``effort``, dt sum u^2.

Baseline ``proportional``: u = A - x, x the mean over the quarter, clipped.

Reference: I. Prigogine, R. Lefever, J. Chem. Phys. 48 (1968) 1695 (equations). No published number for these values.

Measured, full size (mean over the scenes; 80,000 simulated steps):

============  =======  =========  ======
strategy      loss     deviation  effort
============  =======  =========  ======
none          21.57    1.254      0
proportional  7.310    0.325      4.82
``adjoint``   5.418    0.0441     4.30
``lbfgs``     5.227    0.0293     4.43
============  =======  =========  ======
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dpcontrol.engine import Trajectory
from dpcontrol.problem import (
    ControlSequence,
    Problem,
    Scenarios,
    control_problem,
    effort,
    scene_generator,
    track,
)
from dpcontrol.sim import FunctionSimulator, JaxFunction

FEED, RATIO, SPREADING, DT, SUBSTEPS, QUARTERS, PRICE = 1.0, 3.0, (4e-3, 2e-3), 0.25, 10, 4, 0.05
CELLS = {"full": 32, "small": 16}
STEPS = {"full": 32, "small": 24}
SCENES = {"full": 4, "small": 2}
DEFAULTS = {
    "full": {"strategies": ["baseline", "adjoint", "lbfgs", "cmaes"], "simulated_steps": 80_000},
    "small": {"strategies": ["baseline", "adjoint", "lbfgs"], "simulated_steps": 8_000, "seconds": 30.0},
}


def problem(*, size: str = "full", seed: int = 0) -> Problem:
    """Quieting the Brusselator.

    Args:
        size: ``"full"`` (32 cells, 32 steps, 4 scenes) or ``"small"`` (16, 24, 2).
        seed: draws the scenes.

    Raises:
        UsageError: for another size or seed, or where JAX is not installed.
    """
    generator = scene_generator("brusselator", size, seed)
    cells, steps = CELLS[size], STEPS[size]

    def sampler(generator: torch.Generator, count: int) -> dict[str, Tensor]:
        return {"initial_state": draw(generator, count, cells)}

    rest = torch.tensor([FEED, RATIO / FEED], dtype=torch.float64)[:, None].expand(steps + 1, 2, cells)
    return control_problem(
        simulator(),
        initial_state=sampler(generator, SCENES[size])["initial_state"],
        horizon=steps,
        objective=(DT / cells) * track(rest) + (PRICE * DT) * effort(),
        control=ControlSequence(QUARTERS, low=-1.0, high=1.0),
        scenarios=Scenarios({}, sampler=sampler),
        baselines={"proportional": proportional},
        metrics={"deviation": deviation, "effort": spent},
        plots={"clock": Clock()},
        name="brusselator",
    )


@functools.cache
def simulator() -> FunctionSimulator:
    """The ring; made once, so that it is compiled once."""
    return FunctionSimulator(JaxFunction(step), dt=DT, defaults={"feed": FEED, "ratio": RATIO})


def step(state: Any, control: Any, *, parameters: Mapping[str, Any]) -> Any:
    """One step in JAX: state ``(scenarios, 2, cells)``, control ``(scenarios, 4)``, both JAX arrays."""
    import jax
    import jax.numpy as jnp

    cells = state.shape[-1]
    feed, ratio = (jnp.reshape(parameters[name], (-1, 1)) for name in ("feed", "ratio"))
    feed = feed + jnp.repeat(control, cells // QUARTERS, axis=-1)

    def bend(field: Any) -> Any:
        return (jnp.roll(field, 1, -1) - 2 * field + jnp.roll(field, -1, -1)) * cells**2

    def rate(both: Any) -> Any:
        x, y = both[:, 0], both[:, 1]
        reaction = x * x * y
        dx = feed + reaction - (ratio + 1) * x + SPREADING[0] * bend(x)
        return jnp.stack([dx, ratio * x - reaction + SPREADING[1] * bend(y)], 1)

    def advance(both: Any, _: None) -> tuple[Any, None]:
        h = DT / SUBSTEPS
        k1 = rate(both)
        k2 = rate(both + h / 2 * k1)
        k3 = rate(both + h / 2 * k2)
        k4 = rate(both + h * k3)
        return both + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4), None

    return jax.lax.scan(advance, state, None, length=SUBSTEPS)[0]


def draw(generator: torch.Generator, count: int, cells: int) -> Tensor:
    """Cells around the limit cycle, out of step with each other, ``(count, 2, cells)``."""
    unit = torch.rand(count, 2, generator=generator, dtype=torch.float64)
    z = (torch.arange(cells, dtype=torch.float64) + 0.5) / cells
    phase = 2 * torch.pi * unit[:, :1] + 0.5 * torch.cos(2 * torch.pi * (z - unit[:, 1:]))
    return torch.stack([1.6 + 1.2 * torch.cos(phase), 2.8 + 1.6 * torch.sin(phase)], 1)


def proportional(state: Tensor, t: float, scenario: Mapping[str, Any]) -> Tensor:
    """Feed what is missing, quarter by quarter."""
    means = state[:, 0].reshape(len(state), QUARTERS, -1).mean(-1)
    return (FEED - means).clamp(-1.0, 1.0)


def away(states: Tensor) -> Tensor:
    """Distance from rest, ``(..., 2, cells)``."""
    return states - torch.tensor([[FEED], [RATIO / FEED]], dtype=states.dtype, device=states.device)


def deviation(trajectory: Trajectory, scenario: Mapping[str, Any]) -> Tensor:
    """Root mean square distance from rest at the end, ``(scenes,)``."""
    return away(trajectory.states[-1]).square().mean((1, 2)).sqrt()


def spent(trajectory: Trajectory, scenario: Mapping[str, Any]) -> Tensor:
    """``dt sum u^2``, ``(scenes,)``."""
    return DT * trajectory.controls.square().sum((0, 2))


class Clock:
    """The report's figure: one scene in the plane of the concentrations, left alone and as each strategy led it."""

    def __call__(self, figure: Any, solutions: Mapping[str, Any]) -> None:
        first = next(iter(solutions.values()))
        free = (
            {name: torch.zeros_like(value) for name, value in first.problem.start().items()}
            if first.problem
            else None
        )
        paths = {} if free is None else {"left alone": first.problem.simulate(free).states}
        paths |= {label: solution.trajectory().states for label, solution in solutions.items()}
        figure.set_size_inches(3.6 * len(paths) + 0.6, 3.9)
        panels = figure.subplots(1, len(paths), sharex=True, sharey=True, squeeze=False)[0]
        for axes, (label, states) in zip(panels, paths.items(), strict=True):
            found = states[:, 0].cpu()
            for cell in range(0, found.shape[-1], found.shape[-1] // 8):
                axes.plot(found[:, 0, cell], found[:, 1, cell], lw=1.0, alpha=0.8)
            axes.plot(found[0, 0], found[0, 1], ".", color="0.45", ms=4)
            axes.plot(found[-1, 0], found[-1, 1], "o", color="black", ms=3.5)
            axes.plot([FEED], [RATIO / FEED], "x", color="red", ms=9, mew=2)
            axes.set(title=label, xlabel="x")
        panels[0].set_ylabel("y")
