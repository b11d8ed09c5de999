r"""Where is the fire behind the wall, and how strong is it, if only a few thermometers say so?

The equation, on the unit square with sides kept cold, u = 0:

    u_t = kappa (u_xx + u_yy) + a exp(-|x - p|^2 / (2 w^2)) / (2 pi w^2)

The question: which places p and strengths a of a source are plausible, given the noisy readings of five thermometers
from the moment at which it began to burn?

============  ===============================================================  ============================
symbol        value or prior                                                   unit (nondimensional)
============  ===============================================================  ============================
``u``         temperature, 32 x 32 cells (16 x 16 in the small size)           temperature
``p``         ``place_x``, ``place_y``: Uniform(0, 1) each                     length of the side
``a``         ``strength``: LogNormal(0, 1)                                    temperature area / time
``scale``     scatter of a reading: LogNormal(log 0.1, 1); true: 0.1           temperature
``w``         0.08, width of the source                                        length
``kappa``     0.05                                                             area / time
``dt``        0.1, exact in time for the equation in the cells                 time
``N``         10 steps (6 in the small size); readings after each              1
sensors       (0.2, 0.3), (0.35, 0.8), (0.55, 0.45), (0.75, 0.7), (0.8, 0.2)   length
============  ===============================================================  ============================

Unknown: four numbers. Observation: five thermometers after each step. The data are drawn from the model, the true
source from p ~ U(0.2, 0.8), a ~ U(1, 2); ``truth`` has it.

Objective: minus the log-density of data and unknown.

Where the source is near a wall much of its heat leaves there, and place and strength can make up for each other. With
``symmetric=True`` the thermometers stand on the line y = 1/2: they cannot tell a source from its mirror image, the
posterior has two equal hills, and chains that start on one hill will seldom find the other: a search reports one of
them, and R-hat of dispersed chains is what tells.

Metrics: ``distance`` from the true place, between centres of gravity; ``relative_strength``, found over true.

Reference: A. M. Stuart, "Inverse problems: a Bayesian perspective", Acta Numerica 19 (2010); H. S. Carslaw, J. C.
Jaeger, "Conduction of Heat in Solids" (1959), chapter 10 (sources). No published number for these values: truth and
calibration are the checks.

The seed draws the source and the noise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributions import LogNormal, Uniform

from dpcontrol.engine import Trajectory, rollout
from dpcontrol.problem import Gaussian, Points, Problem, inference_problem, observe, scene_generator
from dpcontrol.sim import WalledHeat
from dpcontrol.sim.base import Wrapper
from dpcontrol.tree import Tree

DIFFUSIVITY, WIDTH, DT, SCALE = 0.05, 0.08, 0.1, 0.1
CELLS = {"full": 32, "small": 16}
STEPS = {"full": 10, "small": 6}
SENSORS = ((0.2, 0.3), (0.35, 0.8), (0.55, 0.45), (0.75, 0.7), (0.8, 0.2))
ON_A_LINE = ((0.1, 0.5), (0.3, 0.5), (0.5, 0.5), (0.7, 0.5), (0.9, 0.5))
DEFAULTS = {
    "full": {"strategy": "nuts", "strategies": ["lbfgs", "laplace", "nuts"], "gradients": 400_000},
    "small": {"strategy": "laplace", "strategies": ["lbfgs", "laplace"], "gradients": 5_000},
}


def problem(*, size: str = "full", seed: int = 0, symmetric: bool = False) -> Problem:
    """A source of heat, found from thermometers.

    Args:
        size: ``"full"`` (32 x 32 cells, 10 steps) or ``"small"`` (16 x 16, 6).
        seed: draws the source and the noise.
        symmetric: thermometers on one line, which makes two posterior modes.

    Raises:
        UsageError: for another size or seed.
    """
    generator = scene_generator("heat_source_posterior", size, seed)
    cells, steps = CELLS[size], STEPS[size]
    plate = room(cells)
    seen = Points(ON_A_LINE if symmetric else SENSORS, (1.0, 1.0), wall="zero", of="temperature")
    unit = torch.rand(3, generator=generator, dtype=torch.float64)
    truth = {"place_x": 0.2 + 0.6 * unit[0], "place_y": 0.2 + 0.6 * unit[1], "strength": 1 + unit[2]}
    states = rollout(plate, start(truth, cells), length=steps).states
    rows = range(1, steps + 1)
    clean = torch.stack([seen({"temperature": states["temperature"][k]}) for k in rows])
    data = clean + SCALE * torch.randn(clean.shape, generator=generator, dtype=torch.float64)
    return inference_problem(
        plate,
        data=data,
        observation=observe(seen, noise=Gaussian("scale"), steps=rows),
        initial_state=lambda parameters: start(parameters, cells),
        horizon=steps,
        prior={
            "place_x": between(0.0, 1.0),
            "place_y": between(0.0, 1.0),
            "strength": log_normal(0.0, 1.0),
            "scale": log_normal(math.log(0.1), 1.0),
        },
        scenarios={"true_source": states["source"][0]},
        truth={**truth, "scale": SCALE},
        metrics={"distance": distance, "relative_strength": relative_strength},
        plots={"plate": Plate(seen.positions)},
        name="heat_source_posterior",
    )


@dataclass(frozen=True)
class Burning(Wrapper):
    """A plate with a fire that goes on: the state holds the temperature and the source, which stays as it is."""

    inner: WalledHeat

    @property
    def dt(self) -> float:
        return self.inner.dt

    def check(self, initial: Tree, parameters: Mapping[str, Tensor]) -> None:
        super().check(initial["temperature"], parameters)

    def start(self, initial: Tree, parameters: Mapping[str, Tensor]) -> Tree:
        return {**initial, "temperature": super().start(initial["temperature"], parameters)}

    def step(self, state: Tree, control: Tree, coefficients: Any, noise: Tree, t: float) -> Tree:
        after = self.inner.step(state["temperature"], state["source"], coefficients, noise, t)
        return {"temperature": after, "source": state["source"]}


def room(cells: int) -> Burning:
    """The plate of so many cells along each side."""
    return Burning(WalledHeat(DT, (cells, cells), DIFFUSIVITY))


def start(parameters: Mapping[str, Tensor], cells: int) -> dict[str, Tensor]:
    """The cold plate with its source, ``(scenarios, cells, cells)`` each, 1 scenario for scalar parameters."""
    x, y, a = (torch.as_tensor(parameters[name]) for name in ("place_x", "place_y", "strength"))
    centres = (torch.arange(cells, dtype=torch.float64, device=x.device) + 0.5) / cells
    across, along = (torch.exp(-(centres - p.reshape(-1, 1)).square() / (2 * WIDTH**2)) for p in (x, y))
    density = a.reshape(-1, 1, 1) / (2 * math.pi * WIDTH**2)
    source = density * across[:, :, None] * along[:, None, :]
    return {"temperature": torch.zeros_like(source), "source": source}


def between(low: float, high: float) -> Uniform:
    """A uniform density of float64 numbers."""
    return Uniform(*torch.tensor([low, high], dtype=torch.float64))


def log_normal(mean: float, sd: float) -> LogNormal:
    """A log-normal density of float64 numbers."""
    return LogNormal(*torch.tensor([mean, sd], dtype=torch.float64))


def centre_of_gravity(source: Tensor) -> Tensor:
    """``(scenarios, 2)`` of sources ``(scenarios, cells, cells)``."""
    centres = (torch.arange(source.shape[-1], dtype=source.dtype) + 0.5) / source.shape[-1]
    share = source / source.sum((1, 2), keepdim=True)
    return torch.stack((share.sum(2) @ centres, share.sum(1) @ centres), 1)


def distance(trajectory: Trajectory, scenario: Mapping[str, Any]) -> Tensor:
    """Between the centres of gravity of the source and of the true one, ``(scenarios,)``."""
    found, true = trajectory.states["source"][0], scenario["true_source"]
    return (centre_of_gravity(found) - centre_of_gravity(true)).norm(dim=1)


def relative_strength(trajectory: Trajectory, scenario: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """The heat of the source, and that of the true one, each ``(scenarios,)``."""
    return trajectory.states["source"][0].sum((1, 2)), scenario["true_source"].sum((1, 2))


class Plate:
    """The figure: the temperature at the end with the place found, the true place and the thermometers."""

    def __init__(self, sensors: Tensor) -> None:
        self.sensors = sensors

    def __call__(self, figure: Any, solutions: Mapping[str, Any]) -> None:
        figure.set_size_inches(max(5.0, 4.2 * len(solutions)), 4.0)
        panels = figure.subplots(1, len(solutions), sharey=True, squeeze=False)[0]
        for axes, (label, solution) in zip(panels, solutions.items(), strict=True):
            states = solution.trajectory().states
            image = axes.imshow(
                states["temperature"][-1, 0].T.cpu().numpy(),
                origin="lower",
                extent=(0, 1, 0, 1),
                cmap="inferno",
            )
            figure.colorbar(image, ax=axes, shrink=0.85, label="temperature at the end")
            axes.plot(*self.sensors.T, "o", ms=6, mfc="white", mec="0.4", label="thermometers")
            if solution.problem is not None:
                true = centre_of_gravity(solution.problem.scenarios.data["true_source"])[0].cpu()
                axes.plot(*true, "+", ms=14, mew=2, color="#7fd4ff", label="true place")
            found = centre_of_gravity(states["source"][0])[0].cpu()
            axes.plot(*found, "x", ms=9, mew=2, color="black", label="found")
            axes.set(title=label, xlabel="x")
        panels[0].set_ylabel("y")
        handles, names = panels[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=3)
