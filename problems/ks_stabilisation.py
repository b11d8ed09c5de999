r"""Kuramoto-Sivashinsky chaos brought to rest by eight actuators.

The equation, on a periodic interval of length L:

    u_t + u u_x + u_xx + u_xxxx = sum_j a_j(t) exp(-(x - x_j)^2 / (2 w^2))

The question: which bounded strengths a_j bring a chaotic state to rest, u = 0, soon, with little effort, and keep it?

==========  =====================================================  =========================
symbol      value                                                  unit (nondimensional)
==========  =====================================================  =========================
``u``       state, 64 points (32 in the small size)                speed
``a_j``     control, 8 strengths, |a_j| <= 0.5, held for a step    speed over time
``x_j``     j L / 8, j = 0 .. 7                                    length
``w``       0.8, width of an actuator                              length
``L``       22                                                     length
``dt``      0.2, ETDRK4                                            time
``N``       100 steps (40)                                         1
``u(0)``    a state of the chaos, mean zero                        speed
==========  =====================================================  =========================

Rest is unstable: the waves 1, 2 and 3 of the interval grow, the fastest by a factor e within 5 units of time;
left alone they are what the chaos feeds on. A wave pair needs two actuators at least, and five evenly
spaced ones tell waves 2 and 3 apart by their growth only; eight tell all of them apart.

Unknown: the strengths, bounded, one sequence for each scene (10; 3 in the small size), from zero. Observation: the
whole state. Scenes: smooth noise after 150 units of time on its own; policies train on fresh ones.

Objective: sum_k (h sum_i u_{k,i}^2) + sum_{k,j} a_{k,j}^2 with h = L / 64: plain sums over steps, no dt.

Metrics: ``final_rms``, root mean square of u at the end (about 1.3 without control); ``energy``, sum_k h sum_i u^2;
``effort``, sum a^2; ``loss_ratio``, loss over that of the baseline (below one is better).

Baseline ``LQR feedback``: a = -K u, clipped, where K is the stationary gain of the linear-quadratic problem around
rest, from the simulator's own derivative there. It knows nothing of the nonlinearity nor of the bounds.

Reference: M. A. Bucci et al., "Control of chaotic systems by deep reinforcement learning", Proc. R. Soc. A 475 (2019)
(L = 22, Gaussian actuators; four of width 0.4 there, between equilibria other than rest); S. N. Gomes,
D. T. Papageorgiou, G. A. Pavliotis, IMA J. Appl. Math. 82 (2017) (feedback and optimal control of this equation).
No published number for this setup.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from dpcontrol.engine import Trajectory, rollout
from dpcontrol.problem import (
    ControlSequence,
    Problem,
    Scenarios,
    control_problem,
    effort,
    scene_generator,
    track,
)
from dpcontrol.sim import Actuated, KuramotoSivashinsky

LENGTH, DT, ACTUATORS, WIDTH, STRONGEST = 22.0, 0.2, 8, 0.8, 0.5
CELLS = {"full": 64, "small": 32}
STEPS = {"full": 100, "small": 40}
SCENES = {"full": 10, "small": 3}
SPIN_UP = 750
DEFAULTS = {
    "full": {"strategies": ["baseline", "adjoint", "lbfgs"], "simulated_steps": 400_000, "seconds": 300.0},
    "small": {"strategies": ["baseline", "adjoint", "lbfgs"], "simulated_steps": 20_000, "seconds": 40.0},
}


def problem(*, size: str = "full", seed: int = 0) -> Problem:
    """Stabilisation of the Kuramoto-Sivashinsky equation.

    Args:
        size: ``"full"`` (10 scenes, 100 steps) or ``"small"`` (3 scenes, 40 steps).
        seed: draws the scenes.

    Raises:
        UsageError: for another size or seed.
    """
    generator = scene_generator("ks_stabilisation", size, seed)
    cells, steps = CELLS[size], STEPS[size]
    simulator = actuated(cells)
    weight = LENGTH / cells

    def draw(generator: torch.Generator, count: int) -> dict[str, Tensor]:
        reference = torch.zeros(count, steps + 1, cells, dtype=torch.float64)
        return {"initial_state": chaos(generator, count, cells), "reference": reference}

    scenes = draw(generator, SCENES[size])
    law = lqr(simulator, cells, weight)
    return control_problem(
        simulator,
        initial_state=scenes["initial_state"],
        horizon=steps,
        objective=weight * track("reference") + effort(),
        control=ControlSequence(ACTUATORS, low=-STRONGEST, high=STRONGEST),
        scenarios=Scenarios({"reference": scenes["reference"]}, sampler=draw),
        baselines={"LQR feedback": law},
        metrics={
            "final_rms": lambda trajectory, scenario: trajectory.states[-1].square().mean(1).sqrt(),
            "energy": lambda trajectory, scenario: energy(trajectory),
            "effort": lambda trajectory, scenario: spent(trajectory),
            "loss_ratio": LossRatio(simulator, law, steps),
        },
        name="ks_stabilisation",
    )


def actuated(cells: int) -> Actuated:
    """The equation with its actuators."""
    inner = KuramotoSivashinsky(DT, cells, LENGTH)
    x = torch.arange(cells, dtype=torch.float64) * (LENGTH / cells)
    places = torch.arange(ACTUATORS, dtype=torch.float64)[:, None] * (LENGTH / ACTUATORS)
    distance = torch.remainder(x - places + LENGTH / 2, LENGTH) - LENGTH / 2
    return Actuated(inner, torch.exp(-(distance**2) / (2 * WIDTH**2)))


def chaos(generator: torch.Generator, count: int, cells: int) -> Tensor:
    """``count`` states on the attractor, ``(count, cells)``, of mean zero."""
    noise = 0.3 * torch.randn(count, cells, generator=generator, dtype=torch.float64)
    noise = noise - noise.mean(1, keepdim=True)
    return rollout(KuramotoSivashinsky(DT, cells, LENGTH), noise, length=SPIN_UP).states[-1]


def lqr(
    simulator: Actuated, cells: int, state_weight: float
) -> Callable[[Tensor, float, Mapping[str, Any]], Tensor]:
    """The law ``a = -K u``, with the stationary gain around rest."""
    values = {name: torch.as_tensor(v, dtype=torch.float64) for name, v in simulator.parameters.items()}
    coefficients = simulator.prepare(values, {})

    def step(state: Tensor, control: Tensor) -> Tensor:
        found: Tensor = simulator.step(state[None], control[None], coefficients, None, 0.0)
        return found[0]

    rest = torch.zeros(cells, dtype=torch.float64), torch.zeros(ACTUATORS, dtype=torch.float64)
    A, B = torch.func.jacrev(step, (0, 1))(*rest)
    identity, price = torch.eye(cells, dtype=A.dtype), torch.eye(ACTUATORS, dtype=A.dtype)
    cost_to_go = state_weight * identity
    gain = torch.zeros(ACTUATORS, cells, dtype=A.dtype)
    for _ in range(500):  # Riccati's recursion; slow modes settle within some 100 steps
        gain = torch.linalg.solve(price + B.T @ cost_to_go @ B, B.T @ cost_to_go @ A)
        cost_to_go = state_weight * identity + A.T @ cost_to_go @ (A - B @ gain)

    def law(state: Tensor, t: float, scenario: Mapping[str, Any]) -> Tensor:
        return (-state @ gain.T).clamp(-STRONGEST, STRONGEST)

    return law


def energy(trajectory: Trajectory) -> Tensor:
    """``sum_k h sum_i u^2``, ``(scenes,)``."""
    states: Tensor = trajectory.states
    return states.square().sum((0, 2)) * (LENGTH / states.shape[-1])


def spent(trajectory: Trajectory) -> Tensor:
    """``sum a^2``, ``(scenes,)``."""
    controls: Tensor = trajectory.controls
    return controls.square().sum((0, 2))


class LossRatio:
    """The metric: the loss, and that of a law from the same start."""

    def __init__(self, simulator: Actuated, law: Callable[..., Tensor], steps: int) -> None:
        self.simulator, self.law, self.steps = simulator, law, steps

    def __call__(self, trajectory: Trajectory, scenario: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        state = scenario["initial_state"]
        values = {name: torch.as_tensor(v).to(state) for name, v in self.simulator.parameters.items()}
        coefficients = self.simulator.prepare(values, {})
        state = self.simulator.start(state, values)
        weight = LENGTH / state.shape[1]
        total = weight * state.square().sum(1)
        for _ in range(self.steps):
            control = self.law(state, 0.0, scenario)
            state = self.simulator.step(state, control, coefficients, None, 0.0)
            total = total + weight * state.square().sum(1) + control.square().sum(1)
        return energy(trajectory) + spent(trajectory), total
