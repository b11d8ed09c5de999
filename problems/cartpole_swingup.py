r"""A pole swung up and held by the cart that it hangs on.

The equations are those of :class:`~dpcontrol.sim.CartPole` (theta is the angle from upright; a uniform rod without
friction).

The question: which bounded force takes the pole from hanging to upright, and keeps it there near the middle?

==========  =====================================================  =================
symbol      value                                                  unit
==========  =====================================================  =================
``x``       state[0], position of the cart, from U(-0.2, 0.2)      m
``x'``      state[1], its velocity, from rest                      m/s
``theta``   state[2], angle from upright, from pi + U(-0.2, 0.2)   rad
``theta'``  state[3], angular velocity, from rest                  rad/s
``F``       control, force on the cart, held during a step         N, |F| <= 10
``m, M``    0.1 (pole), 1 (cart)                                   kg
``l``       0.5, half of the pole                                  m
``g``       9.81                                                   m/s^2
``dt``      0.05, RK4                                              s
``N``       100 steps (80 in the small size)                       1
==========  =====================================================  =================

Unknown: the forces, bounded, one sequence for each scene (20; 6 in the small size), from zero. Observation: (x, x',
cos theta, sin theta, theta').

Objective: sum over k < N of (1 - cos theta)^2 + sin(theta)^2 / 4 + 0.1 x^2 + 0.01 x'^2 + 0.01 theta'^2 + 0.001 F^2.

Metrics: ``upright``, the share of scenes that end within 0.15 rad of upright at less than 0.5 rad/s and within 1 m of
the middle: a scene is *solved* then; ``mean_height``, mean of cos theta over time, -1 hanging, 1 upright.

Baseline ``energy shaping``: accelerate the cart against the swing while energy is missing, near the top a linear
feedback (stationary gains of the linearised problem with weights 1, 0.1, 1, 0.1 on the state and 0.1 on the force).

Reference: R. Tedrake, "Underactuated Robotics", chapter "Acrobots, cart-poles, and quadrotors" (energy shaping of the
cart-pole). No published number for these values; measured: ``tests/benchmarks/results/tasks.json``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dpcontrol.engine import Trajectory
from dpcontrol.problem import ControlSequence, Problem, Scenarios, control_problem, cost, scene_generator
from dpcontrol.sim import ODE, CartPole

DT, STRONGEST, SPREAD = 0.05, 10.0, 0.2
HALF_LENGTH, GRAVITY, CART, POLE = 0.5, 9.81, 1.0, 0.1
STEPS = {"full": 100, "small": 80}
SCENES = {"full": 20, "small": 6}
GAINS = (2.4, 3.5, 34.0, 8.7)  # of position, velocity, angle, angular velocity
DEFAULTS = {
    "full": {
        "strategies": ["baseline", "adjoint", "lbfgs", "cem", "cmaes"],
        "simulated_steps": 4_000_000,
        "seconds": 300.0,
    },
    "small": {
        "strategies": ["baseline", "adjoint", "lbfgs", "cem"],
        "simulated_steps": 200_000,
        "seconds": 40.0,
    },
}


def problem(*, size: str = "full", seed: int = 0) -> Problem:
    """Swing-up on a cart.

    Args:
        size: ``"full"`` (20 scenes, 100 steps) or ``"small"`` (6 scenes, 80 steps).
        seed: draws the starts.

    Raises:
        UsageError: for another size or seed.
    """
    scenes = draw(scene_generator("cartpole_swingup", size, seed), SCENES[size])
    return control_problem(
        ODE(CartPole(CART, POLE, HALF_LENGTH, GRAVITY), dt=DT),
        initial_state=scenes["initial_state"],
        horizon=STEPS[size],
        objective=cost(stage=stage),
        control=ControlSequence(1, low=-STRONGEST, high=STRONGEST),
        scenarios=Scenarios({}, sampler=draw),
        observation=seen,
        baselines={"energy shaping": energy_shaping},
        metrics={"upright": upright, "mean_height": mean_height},
        name="cartpole_swingup",
    )


def draw(generator: torch.Generator, count: int) -> dict[str, Tensor]:
    """``count`` starts ``(count, 4)``: hanging, at rest."""
    offset = SPREAD * (2 * torch.rand(2, count, generator=generator, dtype=torch.float64) - 1)
    still = torch.zeros(count, dtype=torch.float64)
    return {"initial_state": torch.stack((offset[0], still, math.pi + offset[1], still), 1)}


def stage(state: Tensor, control: Tensor, t: float) -> Tensor:
    """What a step costs, ``(scenes,)``."""
    x, v, theta, omega = state.unbind(-1)
    angle = (1 - torch.cos(theta)).square() + torch.sin(theta).square() / 4
    return angle + 0.1 * x.square() + 0.01 * (v.square() + omega.square()) + 0.001 * control[:, 0].square()


def seen(state: Tensor) -> Tensor:
    """The state with the angle as a point of the circle, ``(scenes, 5)``."""
    x, v, theta, omega = state.unbind(-1)
    return torch.stack((x, v, torch.cos(theta), torch.sin(theta), omega), -1)


def upright(trajectory: Trajectory, scenario: Mapping[str, Any]) -> Tensor:
    """One where the pole ends upright at rest near the middle, else zero, ``(scenes,)``."""
    x, _, theta, omega = trajectory.states[-1].unbind(-1)
    angle = torch.remainder(theta + math.pi, 2 * math.pi) - math.pi
    return ((angle.abs() < 0.15) & (omega.abs() < 0.5) & (x.abs() < 1)).to(x.dtype)


def mean_height(trajectory: Trajectory, scenario: Mapping[str, Any]) -> Tensor:
    """Mean of cos theta over the steps, ``(scenes,)``."""
    return torch.cos(trajectory.states[1:, :, 2]).mean(0)


def energy_shaping(state: Tensor, t: float, scenario: Mapping[str, Any]) -> Tensor:
    """Pump the pole's energy with the cart; near the top a linear feedback."""
    x, v, theta, omega = state.unbind(-1)
    cos = torch.cos(theta)
    angle = torch.remainder(theta + math.pi, 2 * math.pi) - math.pi
    # energy of the pole over its moment of inertia, zero upright at rest
    rate = GRAVITY / (HALF_LENGTH * 4 / 3)
    energy = 0.5 * omega.square() + rate * (cos - 1)
    swing = torch.where(omega * cos >= 0, 1.0, -1.0)
    wanted = 6.0 * swing * (0.3 * energy).clamp(-1, 1) - 2.0 * x - 1.5 * v  # acceleration of the cart
    pumping = (CART + POLE) * wanted
    holding = torch.stack((x, v, angle, omega), -1) @ state.new_tensor(GAINS)
    near = (angle.abs() < 0.5) & (omega.abs() < 4.0)
    return torch.where(near, holding, pumping).clamp(-STRONGEST, STRONGEST)[:, None]
