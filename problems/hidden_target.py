r"""A mass that is paid only for being inside a small disc: the gradient of that is zero nearly everywhere.

The map of one step, for a unit mass in the plane with friction (x position, v velocity, F force):

    v' = v + dt (F - c v),   x' = x + dt v'

The question: which bounded force brings the mass into the disc, and keeps it there, where nothing tells from outside in
which direction it lies?

==========  ==================================================  =========================
symbol      value                                               unit (nondimensional)
==========  ==================================================  =========================
``x, v``    state[0:2], state[2:4]                              length, speed
``F``       control, (F_x, F_y), each |F| <= 1, held            force
``c``       0.5                                                 1/time
``r``       0.25, radius of the disc around the origin          length
``dt``      0.1                                                 time
``N``       50 steps (40 in the small size)                     1
``x(0)``    at a distance U(0.4, 1.2), in any direction         length
``v(0)``    0                                                   speed
==========  ==================================================  =========================

Unknown: the forces, bounded, one sequence for each scene (20; 6 in the small size), from zero. Observation: the whole
state. Every learned method knows where it is, and none where the disc is but by having been there.

Objective: the number of states k = 1 .. N outside the disc, plus 0.001 sum F^2. Its gradient is that of the effort
alone, which says "no force", wherever the mass goes: a task for searches that look at values, where differentiable
physics has nothing to differentiate.

Metrics: ``arrived``, the share of scenes that end inside the disc: a scene is *solved* then; ``share_inside``, of the
steps.

Baseline ``go home``: a proportional-derivative law towards the origin, which knows where the disc is.

Reference: the sparse "reach" tasks of M. Andrychowicz et al., "Hindsight experience replay", NeurIPS 2017 (there for
robot arms). No published number; measured: ``tests/benchmarks/results/tasks.json``.
"""

from __future__ import annotations

import math
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
    cost,
    effort,
    scene_generator,
)
from dpcontrol.sim import FunctionSimulator

DT, FRICTION, STRONGEST, RADIUS = 0.1, 0.5, 1.0, 0.25
NEAREST, FARTHEST = 0.4, 1.2
STEPS = {"full": 50, "small": 40}
SCENES = {"full": 20, "small": 6}
DEFAULTS = {
    "full": {"strategies": ["baseline", "adjoint", "lbfgs", "cem", "cmaes"], "simulated_steps": 2_000_000},
    "small": {"strategies": ["baseline", "adjoint", "cem", "cmaes"], "simulated_steps": 100_000},
}


def problem(*, size: str = "full", seed: int = 0) -> Problem:
    """The hidden target.

    Args:
        size: ``"full"`` (20 scenes, 50 steps) or ``"small"`` (6 scenes, 40 steps).
        seed: draws the starts.

    Raises:
        UsageError: for another size or seed.
    """
    scenes = draw(scene_generator("hidden_target", size, seed), SCENES[size])
    return control_problem(
        FunctionSimulator(step, dt=DT),
        initial_state=scenes["initial_state"],
        horizon=STEPS[size],
        objective=cost(stage=later, terminal=outside) + 1e-3 * effort(),
        control=ControlSequence(2, low=-STRONGEST, high=STRONGEST),
        scenarios=Scenarios({}, sampler=draw),
        baselines={"go home": go_home},
        metrics={"arrived": arrived, "share_inside": share_inside},
        name="hidden_target",
    )


def draw(generator: torch.Generator, count: int) -> dict[str, Tensor]:
    """``count`` starts ``(count, 4)``, at rest."""
    unit = torch.rand(2, count, generator=generator, dtype=torch.float64)
    distance, angle = NEAREST + (FARTHEST - NEAREST) * unit[0], 2 * math.pi * unit[1]
    still = torch.zeros(count, dtype=torch.float64)
    return {
        "initial_state": torch.stack(
            (distance * torch.cos(angle), distance * torch.sin(angle), still, still), 1
        )
    }


def step(state: Tensor, control: Tensor) -> Tensor:
    """See the module."""
    place, speed = state[:, :2], state[:, 2:]
    speed = speed + DT * (control - FRICTION * speed)
    return torch.cat((place + DT * speed, speed), 1)


def outside(state: Tensor) -> Tensor:
    """One outside the disc, zero inside, ``(scenes,)``."""
    return (state[:, :2].square().sum(1) > RADIUS**2).to(state.dtype)


def later(state: Tensor, control: Tensor, t: float) -> Tensor:
    """The same for a state on the way; the first one is given, and costs nothing."""
    return outside(state) if t > 0 else torch.zeros_like(state[:, 0])


def arrived(trajectory: Trajectory, scenario: Mapping[str, Any]) -> Tensor:
    """One where the mass ends inside the disc, ``(scenes,)``."""
    return 1 - outside(trajectory.states[-1])


def share_inside(trajectory: Trajectory, scenario: Mapping[str, Any]) -> Tensor:
    """Share of the steps that end inside the disc, ``(scenes,)``."""
    return torch.stack([1 - outside(state) for state in trajectory.states[1:]]).mean(0)


def go_home(state: Tensor, t: float, scenario: Mapping[str, Any]) -> Tensor:
    """Towards the origin, braking."""
    return (-3.0 * state[:, :2] - 2.5 * state[:, 2:]).clamp(-STRONGEST, STRONGEST)
