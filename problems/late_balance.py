r"""A pole balanced on a cart whose motor obeys late: what is decided now is done three steps later.

The equations are those of :class:`~dpcontrol.sim.CartPole`; the force of a step is the decision of three steps before.

    force_k = u_{k-3},   u_{-3} = u_{-2} = u_{-1} = 0

The question: which bounded decisions keep the pole upright and the cart in the middle?

==========  =====================================================  =================
symbol      value                                                  unit
==========  =====================================================  =================
``x``       position of the cart, from U(-0.3, 0.3), at rest       m
``theta``   angle from upright, from U(-0.15, 0.15), at rest       rad
``u``       control, the decided force                             N, |u| <= 10
``m, M``    0.1 (pole), 1 (cart)                                   kg
``l``       0.5, half of the pole                                  m
``g``       9.81                                                   m/s^2
``dt``      0.04, RK4; the delay is 0.12                           s
``N``       100 steps (60 in the small size)                       1
==========  =====================================================  =================

The upright rest is unstable: deviations grow by a factor e in 0.26 s, and nothing acts within the delay of 0.12 s.
The state is a dict: ``cart`` ``(scenes, 4)`` and ``pending`` ``(scenes, 3)``, the decisions that are under way, oldest
first. Observation: ``cart`` alone. A controller without a memory does not know what is under way, so that it cannot be
optimal, whatever it is trained with; an open-loop search does not care.

Unknown: the decisions, bounded, one sequence for each scene (20; 6 in the small size), from zero.

Objective: sum over k < N of 10 (1 - cos theta)^2 + theta'^2 / 10 + x^2 + 0.1 x'^2 + 10 sin(theta)^2 + 0.001 u^2.

Metrics: ``balanced``, the share of scenes whose pole ends within 0.1 rad of upright and whose cart within 0.5 m of the
middle: a scene is *solved* then.

Baselines: ``linear feedback``, stationary gains of the linearised problem without delay; ``linear feedback, looking
ahead``, the same gains on the state that the model predicts for the time when the decision is done.

Reference: R. Tedrake, "Underactuated Robotics", chapter "Acrobots, cart-poles, and quadrotors"; looking ahead: O. J. M.
Smith, Chem. Eng. Prog. 53 (1957). No published number; measured: ``tests/benchmarks/results/tasks.json``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dpcontrol.engine import Trajectory
from dpcontrol.problem import ControlSequence, Problem, Scenarios, control_problem, cost, scene_generator
from dpcontrol.sim import ODE, CartPole, FunctionSimulator

DT, STRONGEST, DELAY = 0.04, 10.0, 3
STEPS = {"full": 100, "small": 60}
SCENES = {"full": 20, "small": 6}
GAINS = (2.0, 3.0, 31.0, 8.0)  # of position, velocity, angle, angular velocity
CART = ODE(CartPole(), dt=DT)
DEFAULTS = {
    "full": {"strategies": ["baseline", "adjoint", "lbfgs", "cem", "cmaes"], "simulated_steps": 2_000_000},
    "small": {"strategies": ["baseline", "adjoint", "lbfgs", "cem"], "simulated_steps": 30_000},
}
State = Mapping[str, Tensor]


def problem(*, size: str = "full", seed: int = 0) -> Problem:
    """Balancing with a late motor.

    Args:
        size: ``"full"`` (20 scenes, 100 steps) or ``"small"`` (6 scenes, 60 steps).
        seed: draws the starts.

    Raises:
        UsageError: for another size or seed.
    """
    scenes = draw(scene_generator("late_balance", size, seed), SCENES[size])
    return control_problem(
        FunctionSimulator(step, dt=DT, defaults=dict(CART.parameters)),
        initial_state=scenes["initial_state"],
        horizon=STEPS[size],
        objective=cost(stage=stage),
        control=ControlSequence(1, low=-STRONGEST, high=STRONGEST),
        scenarios=Scenarios({}, sampler=draw),
        observation=seen,
        baselines={"linear feedback": linear_feedback, "linear feedback, looking ahead": looking_ahead},
        metrics={"balanced": balanced},
        name="late_balance",
    )


def draw(generator: torch.Generator, count: int) -> dict[str, Any]:
    """``count`` starts, at rest and with nothing under way."""
    unit = 2 * torch.rand(2, count, generator=generator, dtype=torch.float64) - 1
    still = torch.zeros(count, dtype=torch.float64)
    cart = torch.stack((0.3 * unit[0], still, 0.15 * unit[1], still), 1)
    return {"initial_state": {"cart": cart, "pending": torch.zeros(count, DELAY, dtype=torch.float64)}}


def step(state: State, control: Tensor, *, parameters: Mapping[str, Tensor]) -> State:
    """The oldest decision acts, the new one queues up."""
    pending = state["pending"]
    cart = CART.step(state["cart"], pending[:, :1], parameters, None, 0.0)
    return {"cart": cart, "pending": torch.cat((pending[:, 1:], control), 1)}


def stage(state: State, control: Tensor, t: float) -> Tensor:
    """What a step costs, ``(scenes,)``."""
    x, v, theta, omega = state["cart"].unbind(-1)
    angle = 10 * ((1 - torch.cos(theta)).square() + torch.sin(theta).square())
    return angle + omega.square() / 10 + x.square() + 0.1 * v.square() + 0.001 * control[:, 0].square()


def seen(state: State) -> Tensor:
    """The cart and its pole, ``(scenes, 4)``; not what is under way."""
    return state["cart"]


def balanced(trajectory: Trajectory, scenario: Mapping[str, Any]) -> Tensor:
    """One where the pole ends upright and the cart near the middle, ``(scenes,)``."""
    x, _, theta, _ = trajectory.states["cart"][-1].unbind(-1)
    return ((theta.abs() < 0.1) & (x.abs() < 0.5)).to(x.dtype)


def linear_feedback(state: State, t: float, scenario: Mapping[str, Any]) -> Tensor:
    """Gains on what is seen."""
    return _gained(state["cart"])


def looking_ahead(state: State, t: float, scenario: Mapping[str, Any]) -> Tensor:
    """Gains on the state after what is under way."""
    cart, parameters = state["cart"], dict(CART.parameters)
    for force in state["pending"].unbind(1):
        cart = CART.step(cart, force[:, None], parameters, None, 0.0)
    return _gained(cart)


def _gained(cart: Tensor) -> Tensor:
    return (cart @ cart.new_tensor(GAINS)).clamp(-STRONGEST, STRONGEST)[:, None]
