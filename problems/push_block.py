r"""A block that lies on a rough table, to be pushed to a place by a finger that must touch it first.

The map of one step, on a line (p, w position and speed of the finger; b, s of the block; F pushes the finger):

    w* = w + dt (F - c w) / m,     s* = s shrunk towards zero by dt mu g         (dry friction: it sticks, or slips)
    free, where p + dt w* < b + dt s*:    w' = w*, s' = s*
    touching, elsewhere:                  w' = s' = (m w* + M s)/(m + M) shrunk towards zero by dt mu g M/(m + M)
    p' = min(p + dt w', b'),  b' = b + dt s'

Touching is plastic: both move on as one until the finger is pulled back. So the step switches between touching and
free, sticking and slipping.

The question: which bounded force pushes the block to its place, and lets it stop there?

==========  ==================================================  =================
symbol      value                                               unit
==========  ==================================================  =================
``p, w``    state[0], state[1], from (0, 0)                     m, m/s
``b, s``    state[2], state[3], from (U(0.3, 0.6), 0)           m, m/s
``F``       control, held, |F| <= 5                             N
``m, M``    0.5 (finger), 1 (block)                             kg
``c``       0.5                                                 N s/m
``mu g``    2                                                   m/s^2
``place``   b(0) + U(0.2, 0.6)                                  m
``dt``      0.05                                                s
``N``       60 steps (40 in the small size)                     1
==========  ==================================================  =================

Unknown: the forces, bounded, one sequence for each scene (20; 6 in the small size), from zero. Observation: the whole
state, and the place.

Objective: 100 (b_N - place)^2 + 0.001 sum F^2. Where the finger does not reach the block, the first term does not
depend on the force: from zero force a gradient sees only that effort costs, and zero force is a local minimum. That is
how contact hides what is to be gained from those who look only at slopes. From a force that touches, ``start=3.0``,
slopes are fine and ``adjoint`` places every block; the first long step of ``lbfgs`` from there may fall back to where
there is no touch, and then it stays.

Metrics: ``placed``, the share of scenes whose block ends within 0.05 m of its place: a scene is *solved* then;
``distance`` (m).

Baseline ``push and stop``: push until the block has the speed with which friction stops it at its place.

Reference: the planar case of "push" tasks, as in H. J. T. Suh et al., "Do differentiable simulators give better policy
gradients?", ICML 2022 (which tells why gradients of contact mislead). No published number; measured:
``tests/benchmarks/results/tasks.json``.
"""

from __future__ import annotations

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
from dpcontrol.sim import FunctionSimulator

DT, STRONGEST, FINGER, BLOCK, DRAG, ROUGH = 0.05, 5.0, 0.5, 1.0, 0.5, 2.0
STEPS = {"full": 60, "small": 40}
SCENES = {"full": 20, "small": 6}
DEFAULTS = {
    "full": {"strategies": ["baseline", "adjoint", "lbfgs", "cem", "cmaes"], "simulated_steps": 2_000_000},
    "small": {"strategies": ["baseline", "adjoint", "cem", "cmaes"], "simulated_steps": 100_000},
}


def problem(*, size: str = "full", seed: int = 0, start: float = 0.0) -> Problem:
    """Pushing a block.

    Args:
        size: ``"full"`` (20 scenes, 60 steps) or ``"small"`` (6 scenes, 40 steps).
        seed: draws the scenes.
        start: force of the start guess, in N.

    Raises:
        UsageError: for another size or seed.
    """
    scenes = draw(scene_generator("push_block", size, seed), SCENES[size])
    return control_problem(
        FunctionSimulator(step, dt=DT),
        initial_state=scenes.pop("initial_state"),
        horizon=STEPS[size],
        objective=100.0 * reach("place", of=block) + 1e-3 * effort(),
        control=ControlSequence(1, low=-STRONGEST, high=STRONGEST, start=start),
        scenarios=Scenarios(scenes, sampler=draw),
        baselines={"push and stop": push_and_stop},
        metrics={"placed": placed, "distance": distance},
        name="push_block",
    )


def draw(generator: torch.Generator, count: int) -> dict[str, Tensor]:
    """``count`` scenes: ``initial_state`` ``(count, 4)`` and ``place`` ``(count, 1)``."""
    unit = torch.rand(2, count, generator=generator, dtype=torch.float64)
    begin, still = 0.3 + 0.3 * unit[0], torch.zeros(count, dtype=torch.float64)
    place = begin + 0.2 + 0.4 * unit[1]
    return {"initial_state": torch.stack((still, still, begin, still), 1), "place": place[:, None]}


def shrunk(speed: Tensor, by: float) -> Tensor:
    """A speed that dry friction has taken ``by`` from, at most all of it."""
    return torch.sign(speed) * (speed.abs() - by).clamp(min=0)


def step(state: Tensor, control: Tensor) -> Tensor:
    """See the module."""
    p, w, b, s = state.unbind(-1)
    pushed = w + DT * (control[:, 0] - DRAG * w) / FINGER
    slipping = shrunk(s, DT * ROUGH)
    touching = p + DT * pushed >= b + DT * slipping
    total = FINGER + BLOCK
    together = shrunk((FINGER * pushed + BLOCK * s) / total, DT * ROUGH * BLOCK / total)
    w, s = torch.where(touching, together, pushed), torch.where(touching, together, slipping)
    b = b + DT * s
    return torch.stack((torch.minimum(p + DT * w, b), w, b, s), -1)


def block(state: Tensor) -> Tensor:
    """The block's position, ``(scenes, 1)``."""
    return state[:, 2:3]


def distance(trajectory: Trajectory, scenario: Mapping[str, Any]) -> Tensor:
    """Of the block from its place at the end, ``(scenes,)``."""
    return (block(trajectory.states[-1]) - scenario["place"])[:, 0].abs()


def placed(trajectory: Trajectory, scenario: Mapping[str, Any]) -> Tensor:
    """One where the block ends within 0.05 m of its place, ``(scenes,)``."""
    found = distance(trajectory, scenario)
    return (found < 0.05).to(found.dtype)


def push_and_stop(state: Tensor, t: float, scenario: Mapping[str, Any]) -> Tensor:
    """Push until friction alone stops the block at its place, then pull the finger back."""
    _, w, b, s = state.unbind(-1)
    left = scenario["place"][:, 0] - b
    stopping = s * s / (2 * ROUGH)
    push = torch.where(left > stopping, 3.0, -3.0)
    # a finger that is pulled back need not go far
    return torch.where((left <= stopping) & (w <= 0), -2.0 * w, push)[:, None]
