r"""Which initial state of Burgers' equation produced the state measured half-way, asked of PhiFlow's own step.

The equation, on -1 < x < 1, periodic:

    u_t + u u_x = nu u_xx

The question: that of ``burgers_reconstruction``, whose numbers were published for PhiFlow: which u(x, 0), from no
knowledge at all (zero), explains the state measured at t = 0.5?

=====================  ============================================  =======================================
symbol                 value                                         unit (nondimensional)
=====================  ============================================  =======================================
``u``                  state, 128 cells                              speed ``U``
``nu``                 0.01/(128 pi)                                 ``U L``
``dt, N``              1/32, 16 steps                                time ``L/U``, 1
``y``                  data, 128 values                              ``U``; ``data/burgers_reconstruction.json``
truth                  u(x, 0) = -sin(pi x)                          ``U``; known to the metric only
=====================  ============================================  =======================================

The step is written with PhiFlow's fields, explicit diffusion and then semi-Lagrangian advection of the result by
itself, and wrapped in :class:`~dpcontrol.sim.PhiFlowStep`: compiled and differentiated by JAX.

Unknown: the initial state, 128 numbers, unbounded, from zero. Observation: every cell, at the end. float32.

Objective: mean_i (u_{16,i} - y_i)^2.

Metric: ``start_error``, mean |u(x, 0) - truth|.

Reference: N. Thuerey, P. Holl, et al., "Physics-based Deep Learning", chapter "Burgers optimization with a
differentiable physics gradient".

Published: gradient descent, rate 5, 50 steps: loss 0.382915, 0.326882, 0.281032, ... (in the data file). Measured here:
the same sequence to all six digits; ``lbfgs`` gets to 2.4e-4 in 50 gradients.

There is one scene: both sizes are the same, and the seed changes nothing.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dpcontrol.engine import Trajectory
from dpcontrol.problem import InitialState, Problem, control_problem, reach, scene_generator
from dpcontrol.sim import FunctionSimulator, PhiFlowStep

CELLS, STEPS, DT, VISCOSITY = 128, 16, 1 / 32, 0.01 / (128 * math.pi)
DATA = Path(__file__).parent / "data" / "burgers_reconstruction.json"
DEFAULTS = {
    "full": {"strategies": ["adjoint", "lbfgs"], "simulated_steps": 1600},
    "small": {"strategies": ["adjoint", "lbfgs"], "simulated_steps": 1600, "seconds": 60.0},
}


def problem(*, size: str = "full", seed: int = 0) -> Problem:
    """The published reconstruction with PhiFlow.

    Args:
        size: ``"full"`` or ``"small"``; they are the same.
        seed: a whole number; there is nothing to draw.

    Raises:
        UsageError: for another size or seed, or where PhiFlow or JAX is not installed.
    """
    scene_generator("burgers_phiflow", size, seed)
    measured = torch.tensor(json.loads(DATA.read_text())["u_half"], dtype=torch.float32)[None]
    return control_problem(
        simulator(),
        initial_state=torch.zeros_like(measured),
        horizon=STEPS,
        objective=(1 / CELLS) * reach(measured),
        unknown=InitialState(),
        metrics={"start_error": start_error},
        name="burgers_phiflow",
    )


@functools.cache
def simulator() -> FunctionSimulator:
    """PhiFlow's step; made once, so that it is compiled once."""
    return FunctionSimulator(PhiFlowStep(step, like=row), dt=DT)


def row() -> Any:
    """A field of PhiFlow with the grid and the boundary of the state."""
    from phi.field import CenteredGrid
    from phi.geom import Box
    from phi.math import extrapolation

    return CenteredGrid(0.0, extrapolation.PERIODIC, x=CELLS, bounds=Box(x=(-1, 1)))


def step(velocity: Any, control: Any) -> Any:
    """One step, from a field of PhiFlow to the next; nothing acts."""
    from phi.math import channel, expand
    from phi.physics import advect, diffuse

    diffused = diffuse.explicit(velocity, VISCOSITY, DT)
    along = diffused.with_values(expand(diffused.values, channel(vector="x")))
    return advect.semi_lagrangian(diffused, along, DT)


def start_error(trajectory: Trajectory, scenario: Mapping[str, Any]) -> Tensor:
    """``mean |u(x, 0) - truth|``, ``(scenes,)``."""
    start: Tensor = trajectory.states[0]
    x = (torch.arange(CELLS, dtype=start.dtype, device=start.device) + 0.5) * (2 / CELLS) - 1
    return (start + torch.sin(math.pi * x)).abs().mean(1)
