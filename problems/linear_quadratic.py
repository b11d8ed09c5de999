r"""The linear-quadratic regulator: a double integrator brought to rest, with its optimum in closed form.

The equation:

    x_{k+1} = A x_k + B u_k

The question: which u_0 .. u_{N-1} minimise a sum of squares of state and control?

==============  ==============================  ======================  ==================================
symbol          double integrator               scalar                  unit
==============  ==============================  ======================  ==================================
``x``           state, position and speed       state                   m, m/s (1 for the scalar)
``u``           control, acceleration           control                 m/s^2 (1 for the scalar)
``A``           ((1, 0.1), (0, 1))              1
``B``           (0.005, 0.1)                    1
``dt``          0.1                             1                       s
``N``           50 steps (20 in the small size) 50 (5)
``Q, Q_N``      identity                        1                       weights of the squared state
``R``           0.1                             1                       weight of the squared control
``x_0``         (1, 0)                          1
==============  ==============================  ======================  ==================================

Unknown: the control sequence, unbounded, from zero. Observation: the whole state.

Objective: sum_{k<N} (x_k' Q x_k + R u_k^2) + x_N' Q_N x_N: plain sums, no half.

The optimum is x_0' P_0 x_0 with P_N = Q_N and the Riccati recursion
P_k = Q + A' P_{k+1} (A - B K_k), K_k = (R + B' P_{k+1} B)^{-1} B' P_{k+1} A; the feedback law u = -K_k x is the
baseline ``LQR feedback``, which is the optimum. Metric: ``cost_ratio``, cost over the optimum.

Reference: D. Bertsekas, "Dynamic Programming and Optimal Control", volume I, section 4.1.

Published values (closed forms): double integrator, N = 50: 13.316266332761682; scalar: N = 2, 5, 50:
1.6, 1.6179775280898876, 1.618033988749895 (the golden ratio, to which they converge).

One scene; the seed changes nothing. Fresh scenes start from standard normal states.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dpcontrol.engine import Trajectory
from dpcontrol.problem import (
    ControlSequence,
    Problem,
    Scenarios,
    UsageError,
    control_problem,
    effort,
    scene_generator,
    track,
)
from dpcontrol.sim import DiscreteLinear

DEFAULTS = {
    "full": {
        "strategies": ["baseline", "adjoint", "lbfgs", "newton_krylov", "cmaes"],
        "simulated_steps": 200_000,
        "seconds": 60.0,
    },
    "small": {
        "strategies": ["baseline", "adjoint", "lbfgs", "newton_krylov", "cmaes"],
        "simulated_steps": 20_000,
        "seconds": 20.0,
    },
}


class Regulator(NamedTuple):
    """The numbers of one linear-quadratic problem; the weights of the state are one."""

    A: list[list[float]]
    B: list[list[float]]
    dt: float
    control_weight: float
    start: list[float]
    horizons: Mapping[str, int]


SYSTEMS = {
    "double integrator": Regulator(
        [[1.0, 0.1], [0.0, 1.0]], [[0.005], [0.1]], 0.1, 0.1, [1.0, 0.0], {"full": 50, "small": 20}
    ),
    "scalar": Regulator([[1.0]], [[1.0]], 1.0, 1.0, [1.0], {"full": 50, "small": 5}),
}


def problem(
    *, size: str = "full", seed: int = 0, system: str = "double integrator", horizon: int | None = None
) -> Problem:
    """A linear-quadratic regulator with a known optimum.

    Args:
        size: ``"full"`` or ``"small"`` (a shorter horizon).
        seed: a whole number; there is nothing to draw.
        system: ``"double integrator"`` or ``"scalar"``.
        horizon: number of steps, if it is not to be the size's.

    Raises:
        UsageError: for another size, seed or system.
    """
    scene_generator("linear_quadratic", size, seed)
    if system not in SYSTEMS:
        raise UsageError(
            f"linear_quadratic has the systems {sorted(SYSTEMS)}; found {system!r}: take one of them."
        )
    numbers = SYSTEMS[system]
    steps = numbers.horizons[size] if horizon is None else horizon
    A, B = (torch.tensor(matrix, dtype=torch.float64) for matrix in (numbers.A, numbers.B))
    simulator = DiscreteLinear(A, B, dt=numbers.dt)
    start = torch.tensor([numbers.start], dtype=torch.float64)
    states = start.shape[1]

    def draw(generator: torch.Generator, count: int) -> dict[str, Tensor]:
        fresh = torch.randn(count, states, generator=generator, dtype=torch.float64)
        return {"initial_state": fresh, "reference": rest(count)}

    def rest(count: int) -> Tensor:
        return torch.zeros(count, steps + 1, states, dtype=torch.float64)

    gains, weight = riccati(A, B, numbers.control_weight, max(steps, 1))
    return control_problem(
        simulator,
        initial_state=start,
        horizon=steps,
        objective=track("reference") + numbers.control_weight * effort(),
        control=ControlSequence(1),
        scenarios=Scenarios({"reference": rest(1)}, sampler=draw),
        baselines={"LQR feedback": feedback(gains, numbers.dt)},
        metrics={"cost_ratio": cost_ratio(weight, numbers.control_weight)},
        name=f"linear_quadratic ({system})",
    )


def riccati(A: Tensor, B: Tensor, control_weight: float, steps: int) -> tuple[Tensor, Tensor]:
    """Gains ``K_k`` ``(steps, inputs, states)``, and ``P_0`` ``(states, states)``; the state's weights are one."""
    identity = torch.eye(len(A), dtype=A.dtype)
    price = control_weight * torch.eye(B.shape[1], dtype=A.dtype)
    cost_to_go, gains = identity, []
    for _ in range(steps):
        gain = torch.linalg.solve(price + B.T @ cost_to_go @ B, B.T @ cost_to_go @ A)
        cost_to_go = identity + A.T @ cost_to_go @ (A - B @ gain)
        gains.append(gain)
    return torch.stack(gains[::-1]), cost_to_go


def feedback(gains: Tensor, dt: float) -> Callable[[Tensor, float, Mapping[str, Any]], Tensor]:
    """The optimal law ``u = -K_k x``."""

    def law(state: Tensor, t: float, scenario: Mapping[str, Any]) -> Tensor:
        return -state @ gains[round(t / dt)].T

    return law


def cost_ratio(
    weight: Tensor, control_weight: float
) -> Callable[[Trajectory, Mapping[str, Any]], tuple[Tensor, Tensor]]:
    """The metric: cost, and the optimum ``x_0' P_0 x_0``; each ``(scenes,)``."""

    def metric(trajectory: Trajectory, scenario: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        start = scenario["initial_state"]
        found = trajectory.states.square().sum((0, 2)) + control_weight * trajectory.controls.square().sum(
            (0, 2)
        )
        return found, torch.einsum("si,ij,sj->s", start, weight, start)

    return metric
