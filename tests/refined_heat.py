"""An initial temperature inferred on meshes of any size, in white numbers or in plain ones, and what that costs."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch.distributions import Distribution, constraints

from dpcontrol import LBFGS, Budget, Solution, solve
from dpcontrol.engine import rollout
from dpcontrol.problem import Gaussian, GaussianField, Points, Problem, inference_problem, observe
from dpcontrol.sim import AdvectionDiffusion

FINEST, STEPS, SCALE = 512, 6, 0.2
SENSORS = (torch.arange(24, dtype=torch.float64) + 0.37) / 24


class InPlainNumbers(Distribution):
    """A field's density without its white map, so that a search moves the values in the cells."""

    arg_constraints: ClassVar[dict] = {}
    support = constraints.independent(constraints.real, 1)

    def __init__(self, field: GaussianField) -> None:
        self.field = field
        super().__init__(field.batch_shape, field.event_shape, validate_args=False)

    @property
    def mean(self) -> torch.Tensor:
        return self.field.mean

    def log_prob(self, value: torch.Tensor) -> torch.Tensor:
        return self.field.log_prob(value)


def prior(cells: int, smoothness: float) -> GaussianField:
    """Of the initial temperature: unit standard deviation, a tenth of the box as length scale."""
    return GaussianField((cells,), (1.0,), length_scale=0.1, smoothness=smoothness)


def heat(cells: int) -> AdvectionDiffusion:
    """Six steps, over which waves of a tenth of the box fade."""
    return AdvectionDiffusion(dt=0.002, shape=(cells,), diffusivity=0.05)


def initial_temperature(cells: int, *, white: bool, smoothness: float = 1.5) -> Problem:
    """Infer ``u(x, 0)`` of the heat equation from 24 thermometers after each of six steps, noise 0.2.

    The data come from a draw of the prior on the finest mesh, the same data for all meshes.
    """
    generator = torch.Generator().manual_seed(4)
    noise = torch.randn(FINEST, generator=generator, dtype=torch.float64)
    truth = prior(FINEST, smoothness).unwhiten(noise)
    sensor = Points(SENSORS, 1.0, periodic=True, at="nodes")
    states = rollout(heat(FINEST), truth[None], length=STEPS).states
    clean = torch.stack([sensor(state) for state in states[1:]])
    data = clean + SCALE * torch.randn(clean.shape, generator=generator, dtype=torch.float64)
    field = prior(cells, smoothness)
    return inference_problem(
        heat(cells),
        data=data,
        observation=observe(sensor, noise=Gaussian(SCALE), steps=range(1, STEPS + 1)),
        initial_state=torch.zeros(1, cells, dtype=torch.float64),
        horizon=STEPS,
        prior={"initial_state": field if white else InPlainNumbers(field)},
        name="initial_temperature",
    )


def inferred(problem: Problem, gradients: int = 4000) -> Solution:
    """The most probable initial temperature, by lbfgs."""
    search = LBFGS(loss_tolerance=1e-14, gradient_tolerance=1e-7)
    return solve(problem, strategy=search, budget=Budget(gradients=gradients))


def gradients_needed(solution: Solution, lowest: float) -> int | None:
    """Gradients until minus the log-density was within 0.01 of the lowest, which no posterior would notice."""
    rows = zip(solution.history["gradients"], solution.history["loss"], strict=True)
    return next((gradients for gradients, loss in rows if loss <= lowest + 0.01), None)
