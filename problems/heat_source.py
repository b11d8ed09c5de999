r"""A plate heated by sixteen heaters into a given pattern of temperature.

The equation, on the periodic unit square (temperatures above that of the surroundings, in a unit of theirs):

    u_t + c . grad u = kappa (u_xx + u_yy) + sum_j q_j(t) exp(-|x - x_j|^2 / (2 w^2))

The question: which powers q_j, never negative and never beyond what the heaters give, make the plate's temperature at
time T equal to a given pattern, although a stream carries the heat away and diffusion blurs it?

============  ==========================================================  ============================
symbol        value                                                       unit (nondimensional)
============  ==========================================================  ============================
``u``         state, 24 x 24 points (16 x 16 in the small size)           temperature
``q_j``       control, 16 powers, 0 <= q_j <= 10, held for a step         temperature over time
``x_j``       4 x 4 places, ((i + 1/2) / 4, (j + 1/2) / 4)                length of the side
``w``         0.08, width of a heater                                     length
``kappa``     0.02                                                        area over time
``c``         (0.3, 0)                                                    length over time
``dt``        0.05, exact in Fourier space                                time
``N``         20 steps (10), T = 1 (0.5)                                  1
``u(0)``      0                                                           temperature
``target``    two humps exp(-|x - p|^2 / (2 s^2)), periodic               temperature
``p, s``      U(0, 1) each, U(0.1, 0.2)                                   length
============  ==========================================================  ============================

The problem is linear with a convex quadratic objective and bounds: its optimum is unique and can be had from a dense
least-squares solver, which is what the tests do.

Unknown: the powers, bounded, one sequence for each scene (5; 2 in the small size), from zero. Observation: the whole
state; the target is an entry of the scenario.

Objective: sum over the points of (u_N - target)^2 h^2 plus 1e-6 sum q^2, h^2 the area of a point.

Metrics: ``relative_error``, |u_N - target|^2 / |target|^2 (ratio of means over the scenes); ``effort``, sum q^2.

Baseline ``thermostat``: q_j = 5 (target - u) at the heater's place, clipped to the bounds.

Reference: F. Troeltzsch, "Optimal Control of Partial Differential Equations" (2010), chapter 3 (parabolic problems with
bounded sources and final observation). No published number for these values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
from dpcontrol.sim import Actuated, AdvectionDiffusion

DIFFUSIVITY, STREAM, DT, WIDTH, STRONGEST, PRICE = 0.02, (0.3, 0.0), 0.05, 0.08, 10.0, 1e-6
POINTS = {"full": 24, "small": 16}
STEPS = {"full": 20, "small": 10}
SCENES = {"full": 5, "small": 2}
DEFAULTS = {
    "full": {"strategies": ["baseline", "adjoint", "lbfgs"], "simulated_steps": 100_000},
    "small": {"strategies": ["baseline", "adjoint", "lbfgs"], "simulated_steps": 10_000, "seconds": 30.0},
}


def problem(*, size: str = "full", seed: int = 0) -> Problem:
    """Heating a plate into a pattern.

    Args:
        size: ``"full"`` (24 x 24 points, 20 steps, 5 scenes) or ``"small"`` (16 x 16, 10, 2).
        seed: draws the targets.

    Raises:
        UsageError: for another size or seed.
    """
    generator = scene_generator("heat_source", size, seed)
    points, steps = POINTS[size], STEPS[size]
    simulator = plate(points)

    def draw(generator: torch.Generator, count: int) -> dict[str, Tensor]:
        target = patterns(generator, count, points)
        return {"initial_state": torch.zeros_like(target), "target": target}

    scenes = draw(generator, SCENES[size])
    return control_problem(
        simulator,
        initial_state=scenes["initial_state"],
        horizon=steps,
        objective=(1 / points**2) * reach("target") + PRICE * effort(),
        control=ControlSequence(len(simulator.shapes), low=0.0, high=STRONGEST),
        scenarios=Scenarios({"target": scenes["target"]}, sampler=draw),
        baselines={"thermostat": thermostat(points)},
        metrics={
            "relative_error": relative_error,
            "effort": lambda trajectory, scenario: trajectory.controls.square().sum((0, 2)),
        },
        name="heat_source",
    )


def plate(points: int) -> Actuated:
    """The plate with its heaters."""
    inner = AdvectionDiffusion(DT, (points, points), DIFFUSIVITY, STREAM)
    places = (torch.arange(4, dtype=torch.float64) + 0.5) / 4
    centres = torch.cartesian_prod(places, places)
    width = torch.full((len(centres),), WIDTH, dtype=torch.float64)
    return Actuated(inner, humps(centres, width, points))


def humps(centres: Tensor, widths: Tensor, points: int) -> Tensor:
    """Gaussians of height 1 around ``centres`` ``(n, 2)`` on the periodic square, ``(n, points, points)``."""
    x = torch.arange(points, dtype=torch.float64) / points
    away = torch.remainder(x - centres[..., None] + 0.5, 1.0) - 0.5  # (n, 2, points)
    profile = torch.exp(-away.square() / (2 * widths[:, None, None].square()))
    return profile[:, 0, :, None] * profile[:, 1, None, :]


def patterns(generator: torch.Generator, count: int, points: int) -> Tensor:
    """``count`` targets of two humps each, ``(count, points, points)``."""
    unit = torch.rand(2 * count, 3, generator=generator, dtype=torch.float64)
    return humps(unit[:, :2], 0.1 + 0.1 * unit[:, 2], points).reshape(count, 2, points, points).sum(1)


def thermostat(points: int) -> Callable[[Tensor, float, Mapping[str, Any]], Tensor]:
    """Each heater on its own, in proportion to what is missing where it stands."""
    spots = torch.round((torch.arange(4, dtype=torch.float64) + 0.5) / 4 * points).long()

    def law(state: Tensor, t: float, scenario: Mapping[str, Any]) -> Tensor:
        missing = (scenario["target"] - state)[:, spots][:, :, spots]
        return (5.0 * missing.reshape(len(state), -1)).clamp(0.0, STRONGEST)

    return law


def relative_error(trajectory: Trajectory, scenario: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Squared distance from the target at the end, and the target's squared size, each ``(scenes,)``."""
    target = scenario["target"]
    found: Tensor = trajectory.states[-1]
    return (found - target).square().sum((1, 2)), target.square().sum((1, 2))
