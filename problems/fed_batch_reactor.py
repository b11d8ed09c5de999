r"""When should yeast be fed to make the most protein, asked of a black box in another process?

The equations, a stirred tank that is fed and never emptied:

    p_m' = g1 (p_t - p_m) - (q / V) p_m
    p_t' = g2 c - (q / V) p_t
    c'   = g3 c - (q / V) c
    s'   = -7.3 g3 c + (q / V) (20 - s)
    V'   = q

    g1 = 4.75 g3 / (0.12 + g3),   g2 = s exp(-5 s) / (0.1 + s),   g3 = 21.87 s / ((s + 0.4) (s + 62.5))

Cells grow (g3) where there is glucose, make protein (g2) where there is next to none, and secrete it (g1) while they
grow.

The question: which feed rate q(t) yields the most secreted protein p_m V after 15 hours?

============  ===========================================================  ==========
symbol        value                                                        unit
============  ===========================================================  ==========
``p_m``       secreted protein, 0 at the start                             1/L
``p_t``       protein, 0                                                   1/L
``c``         cells, 1                                                     g/L
``s``         glucose, 5; 20 in the feed                                   g/L
``V``         volume, 1                                                    L
``q``         control, feed rate, held for a step, 0 <= q <= 2             L/h
``dt, N``     1, 15 steps (small size: 3, 5)                               h, 1
============  ===========================================================  ==========

The simulator is scipy's LSODA in another process (:class:`~dpcontrol.sim.BlackBox`), relative tolerance 1e-9, one
scenario after the other: it stands for any program that can only be run. Strategies that need a gradient refuse this
problem.

Unknown: the feed rates, bounded, from 1. Observation: the whole state. There is one scene, and the seed changes
nothing.

Objective: -p_m V at the end.

Metrics: ``protein``, p_m V; ``volume``, V at the end.

Baseline ``grow, then starve``: q holds glucose at 5 g/L for ten hours, where cells grow best, then at 0.12 g/L.

Reference: S. Park, W. F. Ramirez, "Optimal production of secreted protein in fed-batch reactors", AIChE J. 34
(1988) 1550.

There are several local optima. Measured, 15 steps: L-BFGS-B with finite differences of the same simulator ends at
32.0279 from q = 0.3 and at 32.2866 from q = 0.8 and from 1.5; ``cmaes`` with the suggested budget at 32.2864; the
baseline gives 31.09. With 60 steps L-BFGS-B had come to 32.66 when it was stopped.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dpcontrol.engine import Trajectory
from dpcontrol.problem import ControlSequence, Problem, control_problem, cost, scene_generator
from dpcontrol.sim import BlackBox

HOURS, FEED, FASTEST = 15.0, 20.0, 2.0
STEPS = {"full": 15, "small": 5}
START = (0.0, 0.0, 1.0, 5.0, 1.0)
DEFAULTS = {
    "full": {"strategy": "cmaes", "strategies": ["baseline", "cmaes", "cem"], "simulated_steps": 45_000},
    "small": {
        "strategy": "cmaes",
        "strategies": ["baseline", "cmaes", "cem"],
        "simulated_steps": 4_000,
        "seconds": 30.0,
    },
}


def problem(*, size: str = "full", seed: int = 0) -> Problem:
    """Feeding yeast.

    Args:
        size: ``"full"`` (15 steps of 1 h) or ``"small"`` (5 of 3 h).
        seed: changes nothing.

    Raises:
        UsageError: for another size or seed.
    """
    scene_generator("fed_batch_reactor", size, seed)
    steps = STEPS[size]
    return control_problem(
        reactor(HOURS / steps),
        initial_state=torch.tensor([START], dtype=torch.float64),
        horizon=steps,
        objective=cost(terminal=lambda state: -yielded(state)),
        control=ControlSequence(1, low=0.0, high=FASTEST, start=torch.ones(1, steps, 1)),
        baselines={"grow, then starve": grow_then_starve},
        metrics={
            "protein": lambda trajectory, scenario: yielded(trajectory.states[-1]),
            "volume": lambda trajectory, scenario: trajectory.states[-1][:, 4],
        },
        plots={"feeding": Feeding()},
        name="fed_batch_reactor",
    )


@functools.cache
def reactor(hours: float) -> BlackBox:
    """The simulator; made once, so that its process is started once."""
    return BlackBox(Tank(hours), dt=hours, batched=False, timeout=30.0)


def growth(s: Any) -> Any:
    """``g3``, growth of the cells per hour."""
    return 21.87 * s / ((s + 0.4) * (s + 62.5))


def rate(state: np.ndarray, t: float, q: float) -> tuple[float, ...]:
    """The right-hand side, of plain numbers: LSODA calls it a hundred times in a step."""
    secreted, protein, cells, s, volume = state.tolist()
    s = max(s, 0.0)
    g3 = growth(s)
    g1, g2 = 4.75 * g3 / (0.12 + g3), s * math.exp(-5 * s) / (0.1 + s)
    thinned = q / volume
    return (
        g1 * (protein - secreted) - thinned * secreted,
        g2 * cells - thinned * protein,
        g3 * cells - thinned * cells,
        -7.3 * g3 * cells + thinned * (FEED - s),
        q,
    )


class Tank:
    """What runs in the other process: the state ``(5,)`` after some ``hours`` of feeding at the rate ``control[0]``."""

    def __init__(self, hours: float) -> None:
        self.hours = hours

    def __call__(self, state: np.ndarray, control: np.ndarray) -> np.ndarray:
        from scipy.integrate import odeint

        span, feed = (0.0, self.hours), (float(control[0]),)
        return np.asarray(odeint(rate, state, span, args=feed, rtol=1e-9, atol=1e-10)[-1])


def yielded(state: Tensor) -> Tensor:
    """``p_m V``, ``(scenarios,)``."""
    return state[:, 0] * state[:, 4]


def grow_then_starve(state: Tensor, t: float, scenario: Mapping[str, Any]) -> Tensor:
    """Glucose at 5 g/L for ten hours, where cells grow best, then at 0.12 g/L, where they make protein."""
    cells, s, volume = state[:, 2], state[:, 3], state[:, 4]
    level = 5.0 if t < 9.5 else 0.12
    consumed = 7.3 * growth(level) * cells * volume
    return ((consumed + (level - s) * volume) / (FEED - s)).clamp(0.0, FASTEST)[:, None]


class Feeding:
    """The report's figure: feed rate, glucose, cells and protein over time, for each strategy."""

    def __call__(self, figure: Any, solutions: Mapping[str, Any]) -> None:
        figure.set_size_inches(11.5, 3.2)
        panels = figure.subplots(1, 4, sharex=True)
        for label, solution in solutions.items():
            found: Trajectory = solution.trajectory()
            hours, states = found.times.cpu().numpy(), found.states[:, 0].cpu()
            feed = found.controls[:, 0, 0].cpu().numpy()
            panels[0].step(hours, [*feed, feed[-1]], where="post", label=label)
            panels[1].plot(hours, states[:, 3], label=label)
            panels[2].plot(hours, states[:, 2] * states[:, 4], label=label)
            panels[3].plot(
                hours, states[:, 0] * states[:, 4], label=f"{label}: {yielded(found.states[-1])[0]:.2f}"
            )
        titles = ("feed rate, L/h", "glucose, g/L", "cells, g", "secreted protein")
        for axes, title in zip(panels, titles, strict=True):
            axes.set(xlabel="hours", title=title)
            axes.margins(x=0.02)
        panels[3].legend(loc="upper left", fontsize=9, handlelength=1.2)
