r"""What was the viscosity, and what did the flow look like when nobody was watching?

The equation, Burgers', on the periodic interval 0 <= x < 1:

    u_t + u u_x = nu u_xx

The question: which viscosities and which initial states are plausible, given the noisy readings of twenty sensors that
stand on one part of the interval and began to record after the start?

===========  ====================================================  =====================================
symbol       value or prior                                        unit (nondimensional)
===========  ====================================================  =====================================
``u``        state, 64 cells (32 in the small size)                speed ``U``
``nu``       prior LogNormal(log 0.02, 0.7); true: 0.03            ``viscosity``, ``U L``
``u(0)``     prior: Gaussian field, mean 0, sd 0.5, Matern         ``initial_state``, ``U``
             covariance of smoothness 5/2 and length 0.2
``dt``       0.01, exponential Runge-Kutta of order 4              time ``L/U``
``N``        25 steps, T = 0.25                                    1
``x_j``      0.6 (j + 1/2) / 20, j = 0 .. 19                       ``L``
``t_k``      0.05, 0.1, .., 0.25                                   ``L/U``
``scale``    0.05, noise of a sensor                               ``U``
===========  ====================================================  =====================================

Unknown: the viscosity and the initial state, 65 numbers (33). Observation: 20 sensors at 5 times, each reading normal
around u(x_j, t_k), which is linear between neighbouring points. The data are drawn from the model, the initial state
from its prior; ``truth`` has both.

Objective: minus the log-density of data and unknown.

What the sensors cannot see: the gap 0.6 < x < 1, other than by what flows out of it, and everything short: the
solver drops modes from a third of the cells on, viscosity damps the others. There the posterior is the prior. In white
numbers the prior is standard normal on every mesh, so that the number of iterations does not grow with the cells.

Metrics: ``initial_error``, |u(0) - truth|^2 / |truth|^2; ``misfit``, root mean square of the residuals over ``scale``.

Reference: A. M. Stuart, "Inverse problems: a Bayesian perspective", Acta Numerica 19 (2010), section 3 (data of a flow,
an initial condition with a Gaussian prior). No published number for these values: truth and calibration are the checks.

The seed draws the initial state and the noise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.distributions import LogNormal

from dpcontrol.engine import Trajectory, rollout
from dpcontrol.problem import (
    Gaussian,
    GaussianField,
    Points,
    Problem,
    inference_problem,
    observe,
    scene_generator,
)
from dpcontrol.sim import SpectralBurgers

VISCOSITY, SCALE, DT, HORIZON, SENSORS, REACH = 0.03, 0.05, 0.01, 25, 20, 0.6
STEPS = tuple(range(5, HORIZON + 1, 5))
CELLS = {"full": 64, "small": 32}
DEFAULTS = {
    "full": {"strategy": "nuts", "strategies": ["lbfgs", "laplace", "nuts"], "gradients": 400_000},
    "small": {"strategy": "laplace", "strategies": ["lbfgs", "laplace"], "gradients": 5_000},
}


def problem(*, size: str = "full", seed: int = 0) -> Problem:
    """Viscosity and initial state of Burgers' equation.

    Args:
        size: ``"full"`` (64 cells) or ``"small"`` (32).
        seed: draws the initial state and the noise.

    Raises:
        UsageError: for another size or seed.
    """
    generator = scene_generator("burgers_viscosity", size, seed)
    cells = CELLS[size]
    simulator = SpectralBurgers(DT, cells, viscosity=VISCOSITY)
    belief = initial_belief(cells)
    truth = belief.unwhiten(torch.randn(1, cells, generator=generator, dtype=torch.float64))
    seen = sensors()
    states = rollout(simulator, truth, length=HORIZON).states
    clean = torch.stack([seen(states[k]) for k in STEPS])
    data = clean + SCALE * torch.randn(clean.shape, generator=generator, dtype=torch.float64)
    return inference_problem(
        simulator,
        data=data,
        observation=observe(seen, noise=Gaussian(SCALE), steps=STEPS),
        initial_state=torch.zeros(1, cells, dtype=torch.float64),
        horizon=HORIZON,
        scenarios={"true_start": truth},
        prior={
            "viscosity": LogNormal(*torch.tensor([math.log(0.02), 0.7], dtype=torch.float64)),
            "initial_state": belief,
        },
        truth={"viscosity": VISCOSITY, "initial_state": truth},
        metrics={"initial_error": initial_error, "misfit": residual_size},
        plots={"flow": Flow()},
        name="burgers_viscosity",
    )


def initial_belief(cells: int) -> GaussianField:
    """The prior of the initial state, a density of ``(cells,)``."""
    return GaussianField((cells,), (1.0,), sd=0.5, length_scale=0.2, smoothness=2.5)


def places() -> Tensor:
    """Where the sensors stand, ``(20,)``."""
    return REACH * (torch.arange(SENSORS, dtype=torch.float64) + 0.5) / SENSORS


def sensors() -> Points:
    """From a state ``(scenarios, cells)`` to the readings without noise, ``(scenarios, 20)``."""
    return Points(places(), 1.0, periodic=True, at="nodes")


def initial_error(trajectory: Trajectory, scenario: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Squared distance from the true initial state, and the latter's squared size, each ``(scenarios,)``."""
    truth = scenario["true_start"]
    return (trajectory.states[0] - truth).square().sum(1), truth.square().sum(1)


def residual_size(trajectory: Trajectory, scenario: Mapping[str, Any]) -> Tensor:
    """Root mean square of the residuals in units of the noise, ``(scenarios,)``."""
    seen = sensors()
    found = torch.stack([seen(trajectory.states[k]) for k in STEPS], 1)
    return ((found - scenario["data"]) / SCALE).square().mean((1, 2)).sqrt()


class Flow:
    """The figure: the initial state beside the true one, and the flow with the places of the sensors."""

    def __call__(self, figure: Any, solutions: Mapping[str, Any]) -> None:
        figure.set_size_inches(11.0, 0.4 + 3.0 * len(solutions))
        rows = figure.subplots(len(solutions), 2, squeeze=False)
        for (start, flow), (label, solution) in zip(rows, solutions.items(), strict=True):
            states = solution.trajectory().states[:, 0].cpu()
            x = torch.arange(states.shape[1]) / states.shape[1]
            if solution.problem is not None:
                truth = solution.problem.scenarios.data["true_start"][0].cpu()
                start.plot(x, truth, color="black", lw=1.2, label="truth")
            start.plot(x, states[0], label=label)
            start.axvspan(REACH, 1.0, color="0.92", lw=0)
            nu = float(solution.value["parameters"]["viscosity"])
            start.set(title=f"{label}: viscosity {nu:.4f}, true {VISCOSITY}", xlabel="x", ylabel="u(x, 0)")
            start.legend(fontsize=9)
            image = flow.imshow(
                states.numpy(), origin="lower", extent=(0, 1, 0, DT * HORIZON), aspect="auto", cmap="RdBu_r"
            )
            figure.colorbar(image, ax=flow, label="u")
            for k in STEPS:
                flow.plot(places(), torch.full((SENSORS,), k * DT), ".", ms=3, color="black")
            flow.set(xlabel="x", ylabel="t", title="the flow, and what was read")
