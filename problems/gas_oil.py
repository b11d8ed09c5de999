r"""How fast does gas oil crack into gasoline, and gasoline into everything else?

The equation, for the shares y1 of gas oil and y2 of gasoline:

    y1' = -(k1 + k3) y1^2,    y2' = k1 y1^2 - k2 y2

The question: which rates explain 21 pairs of measured shares?

==========  ================================================  ====================================================
symbol      value                                             name and unit (times are space times of the reactor)
==========  ================================================  ====================================================
``y``       state, from (1, 0)                                shares of gas oil and gasoline, 1
``k1``      unknown                                           ``to_gasoline``, 1 / (time, share)
``k2``      unknown                                           ``gasoline_loss``, 1 / time
``k3``      unknown                                           ``to_gases``, 1 / (time, share): past gasoline
``t``       0, 0.025, .., 0.95, unevenly                      time
``dt``      0.025, four steps of RK4 in it (small: two)       time
``N``       38 steps                                          1
==========  ================================================  ====================================================

Unknown: the three rates, not negative, from (1, 1, 1). Observation: both shares at the 21 times, ``data/gas_oil.json``;
those at t = 0 are the initial state itself. ``gas_oil_posterior`` asks the same question for a probability.

Objective: the sum of the squared differences, a sum of squares for ``gauss_newton``.

Metric: ``root_mean_square``, of the 42 differences.

Reference: E. Dolan, J. More, T. Munson, "Benchmarking Optimization Software with COPS 3.0" (2004), problem 12; data
after I.-B. Tjoa, L. Biegler, Ind. Eng. Chem. Res. 30 (1991).

Published: 5.2366e-3, at k = (11.847, 8.345, 1.001). Reproduced here to all of these digits.

There is one experiment: the seed changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dpcontrol.engine import Trajectory
from dpcontrol.problem import Parameters, Problem, inference_problem, observe, scene_generator
from dpcontrol.sim import ODE, Substeps, System

DATA = Path(__file__).parent / "data" / "gas_oil.json"
DT, HORIZON = 0.025, 38
SUBSTEPS = {"full": 4, "small": 2}
RATES = ("to_gasoline", "gasoline_loss", "to_gases")
PUBLISHED = {"to_gasoline": 11.847, "gasoline_loss": 8.345, "to_gases": 1.001}
DEFAULTS = {
    "full": {
        "strategies": ["adjoint", "lbfgs", "gauss_newton", "cmaes"],
        "simulated_steps": 40_000,
        "seconds": 60.0,
    },
    "small": {
        "strategies": ["adjoint", "lbfgs", "gauss_newton", "cmaes"],
        "simulated_steps": 20_000,
        "seconds": 20.0,
    },
}


def problem(*, size: str = "full", seed: int = 0) -> Problem:
    """Cracking of gas oil, as an estimation.

    Args:
        size: ``"full"`` or ``"small"`` (a longer step of the solver; the data are the same).
        seed: a whole number; there is nothing to draw.

    Raises:
        UsageError: for another size or seed.
    """
    scene_generator("gas_oil", size, seed)
    times, shares = measured()
    return inference_problem(
        reactor(SUBSTEPS[size]),
        data=shares,
        observation=observe(times=times),
        initial_state=shares[:1],
        horizon=HORIZON,
        unknown=Parameters(*RATES, low=0.0),
        metrics={"root_mean_square": root_mean_square},
        plots={"shares": Shares()},
        name="gas_oil",
    )


@dataclass(frozen=True)
class Cracking(System):
    r"""``y1' = -(k1 + k3) y1^2, y2' = k1 y1^2 - k2 y2``; see the module's docstring.

    **State**: ``y``, ``(scenarios, 2)``; no control. **Parameters**: ``to_gasoline``, ``gasoline_loss``, ``to_gases``.
    """

    to_gasoline: Tensor | float = 1.0
    gasoline_loss: Tensor | float = 1.0
    to_gases: Tensor | float = 1.0

    @property
    def components(self) -> tuple[str, ...]:
        return ("gas oil", "gasoline")

    @property
    def inputs(self) -> tuple[str, ...]:
        return ()

    @property
    def parameters(self) -> Mapping[str, Tensor | float]:
        return {name: getattr(self, name) for name in RATES}

    def rate(self, state: Tensor, control: None, parameters: Mapping[str, Any], t: float) -> Tensor:
        oil, gasoline = state.unbind(-1)
        k1, k2, k3 = (parameters[name] for name in RATES)
        cracked = oil * oil
        return torch.stack((-(k1 + k3) * cracked, k1 * cracked - k2 * gasoline), -1)


def reactor(substeps: int) -> Substeps:
    """The reactor, ``substeps`` steps of RK4 between times that are 0.025 apart."""
    return Substeps(ODE(Cracking(), dt=DT / substeps), substeps)


def measured() -> tuple[list[float], Tensor]:
    """Times, and shares ``(21, 2)``."""
    record = json.loads(DATA.read_text())
    return record["times"], torch.tensor(record["y"], dtype=torch.float64)


def root_mean_square(trajectory: Trajectory, scenario: Mapping[str, Any]) -> Tensor:
    """Of the differences from what was measured, ``(scenarios,)``."""
    times, shares = measured()
    rows = trajectory.states[[round(t / DT) for t in times]]
    return (rows - shares[:, None]).square().mean((0, 2)).sqrt()


class Shares:
    """The figure: both shares over time with what was measured, one panel for each solution."""

    def __call__(self, figure: Any, solutions: Mapping[str, Any]) -> None:
        times, shares = measured()
        figure.set_size_inches(max(6.0, 4.0 * len(solutions)), 3.8)
        panels = figure.subplots(1, len(solutions), sharey=True, squeeze=False)[0]
        for axes, (label, solution) in zip(panels, solutions.items(), strict=True):
            course = solution.trajectory()
            for part, (name, colour) in enumerate((("gas oil", "#0072B2"), ("gasoline", "#D55E00"))):
                axes.plot(course.times, course.states[:, 0, part].cpu(), color=colour, label=name)
                axes.plot(times, shares[:, part], "o", ms=4, color=colour)
            axes.set(title=label, xlabel="time", ylim=(0, None))
        panels[0].set_ylabel("share")
        panels[0].legend()
