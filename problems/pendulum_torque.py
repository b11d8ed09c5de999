r"""Gymnasium's Pendulum-v1: a pendulum thrown anywhere, to be turned upright and held there by a weak motor.

The map of one step (theta is the angle from upright; the speed is updated first, then the angle with it):

    omega' = clip(omega + dt (3 g/(2 l) sin(theta) + 3/(m l^2) tau), -8, 8)
    theta' = theta + dt omega'

The question: which bounded torques turn a pendulum from any angle and speed upright soon, and hold it there?

============  ================================================================  =================
symbol        value                                                             unit
============  ================================================================  =================
``theta``     state[0], angle from upright, not wrapped                         rad
``omega``     state[1], angular velocity, |omega| <= 8                          rad/s
``tau``       control, torque, held during a step, |tau| <= 2                   N m
``m, l, g``   1, 1, 10 (a uniform rod, hinged at its end)                       kg, m, m/s^2
``dt``        0.05                                                              s
``N``         200 steps (100 in the small size)                                 1
``theta_0``   U(-pi, pi)                                                        rad
``omega_0``   U(-1, 1)                                                          rad/s
============  ================================================================  =================

The torque holds the rod still up to an angle of 24 degrees from hanging or upright only (m g l / 2 = 5 N m): from most
starts it must swing first.

Unknown: the torques, bounded, one sequence for each scene (100; 10 in the small size), from zero. Observation:
(cos theta, sin theta, omega), as Gymnasium's environment shows it; learned methods also see the time to go.

Objective: sum over k < N of wrap(theta_k)^2 + 0.1 omega_k^2 + 0.001 tau_k^2, with wrap to [-pi, pi): minus the return
of an episode. The slope of wrap^2 jumps where the pendulum hangs; the only other kink is the limit of the speed.

Metrics: ``episode_return``, minus the loss; ``upright``, the share of scenes that end within 0.1 rad of upright at less
than 0.2 rad/s: a scene is called *solved* then.

Baseline ``energy shaping``: push in the direction of motion while energy is missing, near the top a
proportional-derivative law.

Reference: ``Pendulum-v1`` of Gymnasium (the test compares every step with it); A. Raffin, "RL Baselines3 Zoo",
benchmark.md: trained agents have mean returns of -172 (PPO, 100,000 steps), -157 (SAC, 20,000 steps) and, the best
there, -152 (TD3), each from one run and with standard deviations of 90 to 104 between episodes. Measured here:
``tests/benchmarks/results/pendulum_reference.json``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dpcontrol.engine import Trajectory
from dpcontrol.problem import ControlSequence, Problem, Scenarios, control_problem, cost, scene_generator
from dpcontrol.sim import FunctionSimulator

GRAVITY, MASS, LENGTH, DT = 10.0, 1.0, 1.0, 0.05
STRONGEST, FASTEST = 2.0, 8.0
STEPS = {"full": 200, "small": 100}
SCENES = {"full": 100, "small": 10}
DEFAULTS = {
    "full": {
        "strategies": ["baseline", "adjoint", "lbfgs", "cem", "cmaes"],
        "simulated_steps": 8_000_000,
        "seconds": 300.0,
    },
    "small": {
        "strategies": ["baseline", "adjoint", "lbfgs", "cem"],
        "simulated_steps": 400_000,
        "seconds": 40.0,
    },
}


def problem(*, size: str = "full", seed: int = 0) -> Problem:
    """Gymnasium's pendulum.

    Args:
        size: ``"full"`` (100 scenes, 200 steps) or ``"small"`` (10 scenes, 100 steps).
        seed: draws the starts.

    Raises:
        UsageError: for another size or seed.
    """
    scenes = draw(scene_generator("pendulum_torque", size, seed), SCENES[size])
    return control_problem(
        FunctionSimulator(step, dt=DT),
        initial_state=scenes["initial_state"],
        horizon=STEPS[size],
        objective=cost(stage=stage),
        control=ControlSequence(1, low=-STRONGEST, high=STRONGEST),
        scenarios=Scenarios({}, sampler=draw),
        observation=seen,
        baselines={"energy shaping": energy_shaping},
        metrics={"episode_return": episode_return, "upright": upright},
        name="pendulum_torque",
    )


def draw(generator: torch.Generator, count: int) -> dict[str, Tensor]:
    """``count`` starts ``(count, 2)``."""
    unit = 2 * torch.rand(count, 2, generator=generator, dtype=torch.float64) - 1
    return {"initial_state": unit * torch.tensor([math.pi, 1.0], dtype=torch.float64)}


def step(state: Tensor, control: Tensor) -> Tensor:
    """See the module."""
    theta, omega = state.unbind(-1)
    torque = control[:, 0].clamp(-STRONGEST, STRONGEST)
    pull = 3 * GRAVITY / (2 * LENGTH) * torch.sin(theta) + 3 / (MASS * LENGTH**2) * torque
    omega = (omega + DT * pull).clamp(-FASTEST, FASTEST)
    return torch.stack((theta + DT * omega, omega), -1)


def stage(state: Tensor, control: Tensor, t: float) -> Tensor:
    """What a step costs, ``(scenes,)``."""
    theta, omega = state.unbind(-1)
    return wrapped(theta).square() + 0.1 * omega.square() + 0.001 * control[:, 0].square()


def seen(state: Tensor) -> Tensor:
    """What Gymnasium's environment shows of a state, ``(scenes, 3)``."""
    theta, omega = state.unbind(-1)
    return torch.stack((torch.cos(theta), torch.sin(theta), omega), -1)


def wrapped(theta: Tensor) -> Tensor:
    """The angle in [-pi, pi)."""
    return torch.remainder(theta + math.pi, 2 * math.pi) - math.pi


def episode_return(trajectory: Trajectory, scenario: Mapping[str, Any]) -> Tensor:
    """Sum of Gymnasium's rewards, ``(scenes,)``."""
    pairs = zip(trajectory.states[:-1], trajectory.controls, strict=True)
    return -torch.stack([stage(state, control, 0.0) for state, control in pairs]).sum(0)


def upright(trajectory: Trajectory, scenario: Mapping[str, Any]) -> Tensor:
    """One where the pendulum ends upright at rest, else zero, ``(scenes,)``."""
    theta, omega = trajectory.states[-1].unbind(-1)
    return ((wrapped(theta).abs() < 0.1) & (omega.abs() < 0.2)).to(theta.dtype)


def energy_shaping(state: Tensor, t: float, scenario: Mapping[str, Any]) -> Tensor:
    """Pump up to the energy of the upright rest; near the top hold with gains on angle and speed."""
    theta, omega = state.unbind(-1)
    inertia, top = MASS * LENGTH**2 / 3, MASS * GRAVITY * LENGTH / 2
    missing = top - (0.5 * inertia * omega.square() + top * torch.cos(theta))
    direction = torch.where(omega >= 0, 1.0, -1.0)  # a push from rest, where a sign would be zero
    pumping = STRONGEST * direction * (2 * missing).clamp(-1, 1)
    angle = wrapped(theta)
    holding = -(10.0 * angle + 2.5 * omega)
    near = (angle.abs() < 0.4) & (omega.abs() < 2.0)
    return torch.where(near, holding, pumping).clamp(-STRONGEST, STRONGEST)[:, None]
