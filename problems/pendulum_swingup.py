r"""Swinging a pendulum up with a motor that is too weak to lift it.

The equation (theta is the angle from hanging):

    m l^2 theta'' = -m g l sin(theta) - b theta' + tau

The question: which bounded torque takes the pendulum from rest hanging to rest upright in 6 seconds?

==========  ================================================  =================
symbol      value                                             unit
==========  ================================================  =================
``theta``   state[0], angle from hanging, not wrapped         rad
``omega``   state[1], angular velocity                        rad/s
``tau``     control, torque, held during a step               N m, |tau| <= 3.5
``m``       1                                                 kg
``l``       U(0.9, 1.1), one for each scene                   m
``b``       U(0, 0.1), one for each scene                     N m s/rad
``g``       9.81                                              m/s^2
``dt``      0.05, RK4 (0.1 in the small size)                 s
``N``       120 steps (60)                                    1
``x_0``     (0, 0)                                            rad, rad/s
==========  ================================================  =================

The torque holds the pendulum still up to an angle of 21 degrees only (m g l = 9.81 N m): it must swing, gaining energy
in each pass, as a child does on a swing.

Unknown: the torques, bounded, one sequence for each scene (10; 3 in the small size). Observation: the whole state;
length and damping are entries of the scenario.

Objective: 100 (sin(theta_N)^2 + (1 + cos(theta_N))^2 + (0.3 omega_N)^2) + 0.002 sum tau^2, a smooth sum of
squares that counts full turns as nothing.

Rest with no torque is a stationary point: by symmetry nothing says whether to swing left or right first. So the start
guess is a small resonant torque, 0.7 sin(sqrt(g/l) t) N m with l = 1. Other local optima differ in the number of
swings; wrap a strategy in MultiStart to look for them.

Metrics: ``swung_up``, share of the scenes that end within 0.05 rad of upright at less than 0.2 rad/s;
``final_angle_error`` (rad), ``final_speed`` (rad/s), ``effort`` (sum tau^2, N^2 m^2).

Baseline ``energy shaping``: push in the direction of motion while energy is missing, tau = 3.5 sign(omega)
sat(E_up - E), until near the top, where a proportional-derivative law catches it.

Reference: K. J. Astrom, K. Furuta, "Swinging up a pendulum by energy control", Automatica 36 (2000), section 3.
No published number for these values; the measured ones are in ``tests/benchmarks/results/pendulum_swingup.json``.
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
    effort,
    reach,
    scene_generator,
)
from dpcontrol.sim import ODE, Pendulum

DURATION, STRONGEST, GRAVITY, MASS = 6.0, 3.5, 9.81, 1.0
STEPS = {"full": 120, "small": 60}
SCENES = {"full": 10, "small": 3}
DEFAULTS = {
    "full": {
        "strategies": ["baseline", "adjoint", "lbfgs", "cem", "cmaes"],
        "simulated_steps": 4_000_000,
        "seconds": 300.0,
    },
    "small": {
        "strategies": ["baseline", "adjoint", "lbfgs", "cmaes"],
        "simulated_steps": 300_000,
        "seconds": 40.0,
    },
}


def problem(*, size: str = "full", seed: int = 0) -> Problem:
    """Pendulum swing-up.

    Args:
        size: ``"full"`` (10 scenes) or ``"small"`` (3).
        seed: draws lengths and dampings.

    Raises:
        UsageError: for another size or seed.
    """
    generator = scene_generator("pendulum_swingup", size, seed)
    scenes = draw(generator, SCENES[size])
    steps = STEPS[size]
    dt = DURATION / steps
    times = dt * torch.arange(steps, dtype=torch.float64)
    push = 0.2 * STRONGEST * torch.sin(math.sqrt(GRAVITY) * times)
    return control_problem(
        ODE(Pendulum(mass=MASS, gravity=GRAVITY), dt=dt),
        initial_state=scenes["initial_state"],
        horizon=steps,
        objective=100.0 * reach("upright", of=away_from_upright) + 0.002 * effort(),
        control=ControlSequence(1, low=-STRONGEST, high=STRONGEST, start=push[:, None]),
        scenarios=Scenarios({name: scenes[name] for name in scenes if name != "initial_state"}, sampler=draw),
        baselines={"energy shaping": energy_shaping},
        metrics={
            "swung_up": swung_up,
            "final_angle_error": lambda trajectory, scenario: angle_error(trajectory.states[-1]),
            "final_speed": lambda trajectory, scenario: trajectory.states[-1][:, 1].abs(),
            "effort": lambda trajectory, scenario: trajectory.controls.square().sum((0, 2)),
        },
        name="pendulum_swingup",
    )


def draw(generator: torch.Generator, count: int) -> dict[str, Tensor]:
    """``count`` scenes: ``initial_state`` ``(count, 2)``, ``length`` and ``damping`` ``(count,)``, the zero target."""
    unit = torch.rand(2, count, generator=generator, dtype=torch.float64)
    rest = torch.zeros(count, 2, dtype=torch.float64)
    upright = torch.zeros(count, 3, dtype=torch.float64)
    return {
        "initial_state": rest,
        "length": 0.9 + 0.2 * unit[0],
        "damping": 0.1 * unit[1],
        "upright": upright,
    }


def away_from_upright(state: Tensor) -> Tensor:
    """``(sin theta, 1 + cos theta, 0.3 omega)``, zero upright at rest, ``(scenes, 3)``."""
    theta, omega = state.unbind(-1)
    return torch.stack((torch.sin(theta), 1 + torch.cos(theta), 0.3 * omega), -1)


def from_upright(theta: Tensor) -> Tensor:
    """The signed angle from upright, in [-pi, pi)."""
    return torch.remainder(theta, 2 * math.pi) - math.pi


def angle_error(state: Tensor) -> Tensor:
    """Distance from upright in rad, ``(scenes,)``."""
    return from_upright(state[:, 0]).abs()


def swung_up(trajectory: Trajectory, scenario: Mapping[str, Any]) -> Tensor:
    """One where the pendulum ends upright at rest, else zero, ``(scenes,)``."""
    end = trajectory.states[-1]
    return ((angle_error(end) < 0.05) & (end[:, 1].abs() < 0.2)).to(end.dtype)


def energy_shaping(state: Tensor, t: float, scenario: Mapping[str, Any]) -> Tensor:
    """Pump energy up to that of the upright rest; near the top hold with gains on angle and speed."""
    theta, omega = state.unbind(-1)
    length = scenario["length"]
    top = MASS * GRAVITY * length
    missing = top - (0.5 * MASS * (length * omega) ** 2 - top * torch.cos(theta))
    direction = torch.where(omega >= 0, 1.0, -1.0)  # a push from rest, where a sign would be zero
    pumping = STRONGEST * direction * missing.clamp(-1, 1)
    angle = from_upright(theta)
    holding = -(3.0 * top * angle + 8.0 * omega)
    near = (angle.abs() < 0.5) & (omega.abs() < 2.0)
    return torch.where(near, holding, pumping).clamp(-STRONGEST, STRONGEST)[:, None]
