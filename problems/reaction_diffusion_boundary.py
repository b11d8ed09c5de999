r"""A rod that heats itself up, brought to rest from one of its ends.

The equation, on 0 < x < 1:

    u_t = u_xx + lambda(x) u,    u(0, t) = 0,    u(1, t) = U(t)

The question: which 1,000 boundary values U, bounded, bring the state to rest soonest? Left alone one mode grows, by a
factor 2.3 in the time T = 1 that there is.

===========  =================================================================  =====================
symbol       value                                                              unit (nondimensional)
===========  =================================================================  =====================
``u``        state, 201 points                                                  1
``U``        control, boundary value at x = 1, -20 <= U <= 20, held for 1e-3    1
``lambda``   50 cos(8 arccos x)                                                 1/time
``dx, dt``   0.005 and 1e-5: central differences, forward Euler                 length, time
``N``        1,000 controls, T = 1 (small: 100 controls, held for 0.01)         1
``u(x,0)``   1 in the first scene, 10 in the second                             1
===========  =================================================================  =====================

Unknown: the held boundary values, one sequence for each scene, from zero; searches work in units of exp(-30 t), not
below 0.01. From 10 the best controls stay at their bound for a while. Observation: the whole state. Fresh scenes start
from constants drawn from U(1, 10); the seed changes nothing in the two published ones.

Objective: the published score, the sum of the Euclidean norms of the states at the ends of the held steps,
J = sum_{k=1..N} |u_k|; ``smoothing``, lower bounds and metrics as in ``transport_boundary``.

Baselines: ``backstepping``, U = dx sum_j k(1, x_j) u_j with the kernel of the published difference scheme (below);
``LQR feedback``, clipped to the bounds, with the stationary gain for sum |u_k|^2 + 0.01 U^2 of the held steps.

Reference: L. Bhan, Y. Bian, M. Krstic, Y. Shi, "PDE control gym: a benchmark for data-driven boundary control of
partial differential equations", L4DC 2024; A. Smyshlyaev, M. Krstic, IEEE Trans. Automat. Control 49 (2004).

Scores, full size: published, of the regulator here, and between which numbers the optimum is proven to lie
(``tests/benchmarks/results/reaction_diffusion_boundary.json``):

==========  =============  =======  =======  ============  ==================
start       backstepping   PPO      SAC      LQR feedback  optimum
==========  =============  =======  =======  ============  ==================
1           1275.44        1104.3   2018.0   766.886       623.874 .. 624.209
10          12754.4        23323    9700.6   8174.52       7410.62 .. 7413.93
==========  =============  =======  =======  ============  ==================

Uncontrolled: 17,192 from 1. The way to the optimum is the sequence of smoothed problems that ``transport_boundary``
shows; on the score itself L-BFGS may jam where controls sit at their bounds.
"""

from __future__ import annotations

from typing import Any

import torch
from dpcontrol.problems.transport_boundary import (
    METRICS,
    STARTS,
    SumOfNorms,
    bounded_control,
    constants,
    fading,
    linear_law,
    lqr,
    pictures,
    sampler,
)
from torch import Tensor

from dpcontrol.problem import Problem, Scenarios, control_problem, scene_generator
from dpcontrol.sim import BoundaryReactionDiffusion

STEPS = {"full": 1000, "small": 100}
HELD = {"full": 100, "small": 1000}
PUBLISHED = {
    "backstepping (published)": (1275.44, 12754.4),
    "PPO (published)": (1104.3, 23323.0),
    "SAC (published)": (2018.0, 9700.6),
}
STRATEGIES = ["baseline", "adjoint", "lbfgs", "cmaes"]
DEFAULTS = {
    "full": {"strategies": STRATEGIES, "simulated_steps": 1_200_000, "seconds": 300.0},
    "small": {"strategies": STRATEGIES, "simulated_steps": 80_000, "seconds": 30.0},
}


def problem(*, size: str = "full", seed: int = 0, smoothing: float = 0.0, start: Any = 0.0) -> Problem:
    """Boundary control of the reaction-diffusion equation.

    Args:
        size: ``"full"`` (1,000 controls, the published setup) or ``"small"`` (100, each held ten times as long).
        seed: a whole number; there is nothing to draw.
        smoothing: ``e / |u_0|`` of a smoothed score; 0 is the published one.
        start: start guess of the controls, a number or a tensor that broadcasts to (scenes, N, 1).

    Raises:
        UsageError: for another size or seed, or a negative smoothing.
    """
    scene_generator("reaction_diffusion_boundary", size, seed)
    simulator = BoundaryReactionDiffusion(held=HELD[size])
    laws = {"backstepping": linear_law(backstepping()), "LQR feedback": linear_law(lqr(simulator))}
    return control_problem(
        simulator,
        initial_state=constants(torch.tensor(STARTS), simulator.points),
        horizon=STEPS[size],
        objective=SumOfNorms(smoothing),
        control=bounded_control(fading(STEPS[size], simulator.dt, rate=30.0), start),
        scenarios=Scenarios({}, sampler=sampler(simulator.points)),
        baselines=laws,
        metrics=METRICS,
        plots=pictures(simulator, laws, STEPS[size], PUBLISHED if size == "full" else {}),
        name="reaction_diffusion_boundary",
    )


def backstepping(points: int = 200) -> Tensor:
    """The published gains, ``(points,)``: the last row of the kernel k(x, y), times dx; the state's first points count.

    On the points (i, j), j <= i, by second-order differences of k_xx - k_yy = lambda(y) k with k(x, 0) = 0 and
    k(x, x) = -(1/2) int_0^x lambda.
    """
    dx = 1 / points
    places = torch.linspace(dx, 1, points, dtype=torch.float64)
    reaction = 50.0 * torch.cos(8.0 * torch.arccos(places))
    kernel = torch.zeros(points, points, dtype=torch.float64)
    kernel[1, 1] = -(reaction[1] + reaction[0]) * dx / 4
    for i in range(1, points - 1):
        kernel[i + 1, i + 1] = kernel[i, i] - dx / 4 * (reaction[i - 1] + reaction[i])
        kernel[i + 1, i] = kernel[i, i] - dx / 2 * reaction[i]
        beside = kernel[i, 2 : i + 1] + kernel[i, : i - 1]
        kernel[i + 1, 1:i] = beside - kernel[i - 1, 1:i] + reaction[1:i] * dx**2 * beside / 2
    return dx * kernel[-1]
