r"""The best mixture of two catalysts along a tubular reactor: bang, singular, bang.

The equation:

    x1' = u (10 x2 - x1),    x2' = u (x1 - 10 x2) - (1 - u) x2

The question: which share u(t) of the first catalyst turns most of A into C, by way of B, at the reactor's end?

==========  ==========================================  =========================================
symbol      value                                       unit
==========  ==========================================  =========================================
``x1, x2``  state, mole fractions of A and B            1; what is missing from 1 is C
``u``       control, share of the first catalyst        1; in [0, 1], held during a step
``t``       place in the reactor, 0 .. 1                length of the reactor
``N``       200 steps (50 in the small size), RK4       1
``x(0)``    (1, 0)                                      1
==========  ==========================================  =========================================

The first catalyst turns A into B and back, the second B into C for good.

Unknown: the held controls, bounded by 0 and 1, from 0.5. Observation: the whole state.

Objective: -1 + x1(1) + x2(1), which is minus the yield of C; linear in the last state, so no sum of squares.

Metric: ``yield``, 1 - x1(1) - x2(1). Baselines: ``half and half``, u = 1/2; ``bang, singular, bang``, the structure of
the optimum with its published singular level and switching times found here: u = 1 up to t = 0.1363, then 0.2273, and 0
from t = 0.7256.

Reference: E. Dolan, J. More, T. Munson, "Benchmarking Optimization Software with COPS 3.0" (2004), problem 14, after
G. Jackson, J. Optim. Theory Appl. 2 (1968).

Published: -4.80556e-2 (200 held controls: -0.0480557, to its last digit).

One scene; the seed changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dpcontrol.problem import ControlSequence, Problem, control_problem, cost, scene_generator
from dpcontrol.sim import ODE

STEPS = {"full": 200, "small": 50}
ARRIVAL, DEPARTURE, SINGULAR = 0.1363, 0.7256, 0.2273
DEFAULTS = {
    "full": {"strategies": ["adjoint", "lbfgs", "cmaes"], "simulated_steps": 400_000, "seconds": 120.0},
    "small": {"strategies": ["adjoint", "lbfgs", "cmaes"], "simulated_steps": 50_000, "seconds": 20.0},
}


def problem(*, size: str = "full", seed: int = 0) -> Problem:
    """Catalyst mixing.

    Args:
        size: ``"full"`` (200 held controls) or ``"small"`` (50).
        seed: a whole number; there is nothing to draw.

    Raises:
        UsageError: for another size or seed.
    """
    scene_generator("catalyst_mixing", size, seed)
    steps = STEPS[size]
    return control_problem(
        ODE(rate, dt=1 / steps),
        initial_state=torch.tensor([[1.0, 0.0]], dtype=torch.float64),
        horizon=steps,
        objective=cost(terminal=remainder),
        control=ControlSequence(1, low=0.0, high=1.0, start=0.5),
        baselines={"half and half": half, "bang, singular, bang": bang_singular_bang},
        metrics={"yield": lambda trajectory, scenario: -remainder(trajectory.states[-1])},
        name="catalyst_mixing",
    )


def rate(state: Tensor, control: Tensor) -> Tensor:
    """``dx/dt``, ``(scenes, 2)``."""
    first, second = state.unbind(-1)
    share = control[..., 0]
    exchanged = share * (10 * second - first)
    return torch.stack((exchanged, -exchanged - (1 - share) * second), -1)


def remainder(state: Tensor) -> Tensor:
    """``-1 + x1 + x2``, ``(scenes,)``."""
    return state.sum(-1) - 1


def half(state: Tensor, t: float, scenario: Mapping[str, Any]) -> Tensor:
    """``u = 1/2``."""
    return torch.full_like(state[:, :1], 0.5)


def bang_singular_bang(state: Tensor, t: float, scenario: Mapping[str, Any]) -> Tensor:
    """The structure of the optimum, in open loop."""
    level = 1.0 if t < ARRIVAL else SINGULAR if t < DEPARTURE else 0.0
    return torch.full_like(state[:, :1], level)
