r"""Which stiffness has each of 64 patches of a membrane, if only its sag under a load was measured, and not precisely?

The equation, on the unit square with u = 0 on its sides:

    -div(a grad u) = f,    a = theta_k in block k = ix + 8 iy

The question, of the benchmark of Aristoff and Bangerth: what is the posterior of the 64 coefficients, given 169 noisy
values of u?

============  ===============================================================  =======================================
symbol        value or prior                                                   unit (nondimensional)
============  ===============================================================  =======================================
``u``         state, values at the corners of 32 x 32 squares                  sag
``theta``     density ~ exp(-sum (ln theta_k)^2 / (2 s^2)), s = 2              stiffness, 8 x 8 blocks
``f``         10                                                               load
``z``         u at (i / 14, j / 14), i, j = 1..13, number 13 (i - 1) + j - 1   sag, 169 values
``scale``     0.05, standard deviation of a measurement, known                 sag
============  ===============================================================  =======================================

The small size has 4 x 4 blocks on 16 x 16 squares, and 36 measurements at (i / 7, j / 7), drawn from its truth.

Unknown: ``theta``, all 64 of them. That prior is a density *with respect to theta* without any other factor; seen as
one of ln theta it gains the factor theta, exp(-x^2 / 8 + x), and is that of N(4, 2): theta is LogNormal(4, 2).
theta is heavy-tailed (of a block that is hardly informed the mean is near exp(6)): look at ln theta,
``posterior.values["theta"].log()``.

Observation: the elements are bilinear, and so is the interpolation to the points. ``data/poisson_inversion.json``.

Objective: minus the log-density of data and unknown.

Truth: 1 everywhere but 0.1 in the blocks (2..3, 2..3) and 10 in (6..7, 6..7), counted from 1; in the small size 0.1 in
(2, 2) and 10 in (4, 4).

Metrics: ``misfit``, the mean square of (z - data) / scale. It is about 1 where the noise is what it is said to be, as
in the small size; the published data lie far nearer to the truth than that.

Reference: D. Aristoff, W. Bangerth, "A benchmark for the Bayesian inversion of coefficients in partial differential
equations", SIAM Review 65 (2023). Published: test vectors theta -> z, log-likelihood, log-prior, which are tests here
(to 1e-8); their posterior took 2e11 samples of a random walk, some 30 CPU years. Measured here: means and standard
deviations of ln theta, and effective samples per solve and per second, in
``tests/benchmarks/results/poisson_inversion.json``.

There is one record of the full size: the seed changes nothing. In the small one it draws the noise.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import LogNormal

from dpcontrol.engine import Trajectory
from dpcontrol.problem import Gaussian, Problem, inference_problem, observe, scene_generator
from dpcontrol.sim import Steady, block_diffusion

DATA = Path(__file__).parent / "data" / "poisson_inversion.json"
LOAD, SCALE = 10.0, 0.05
BLOCKS = {"full": 8, "small": 4}
POINTS = {"full": 13, "small": 6}
CELLS = 4  # of a block, along each side
SOFT = {"full": (slice(1, 3), slice(1, 3)), "small": (slice(1, 2), slice(1, 2))}
STIFF = {"full": (slice(5, 7), slice(5, 7)), "small": (slice(3, 4), slice(3, 4))}
DEFAULTS = {
    "full": {"strategy": "lbfgs", "strategies": ["lbfgs"], "gradients": 2_000},
    "small": {"strategy": "lbfgs", "strategies": ["lbfgs"], "gradients": 500, "seconds": 20.0},
}


def problem(*, size: str = "full", seed: int = 0) -> Problem:
    """The stiffness of a membrane in blocks.

    Args:
        size: ``"full"`` (the benchmark: 8 x 8 blocks, 169 measurements) or ``"small"`` (4 x 4 and 36).
        seed: draws the noise of the small size.

    Raises:
        UsageError: for another size or seed.
    """
    generator = scene_generator("poisson_inversion", size, seed)
    blocks, points = BLOCKS[size], POINTS[size]
    load = torch.tensor(LOAD, dtype=torch.float64)
    membrane = Membrane(block_diffusion((blocks, blocks), cells=CELLS, source=load), load)
    seen, truth = Sags(points, blocks * CELLS), true_stiffness(size)
    system = Steady(membrane, {"theta": torch.ones(blocks**2, dtype=torch.float64)})
    data = measured() if size == "full" else noisy(seen(membrane({"theta": truth})), generator)
    return inference_problem(
        system,
        data=data,
        observation=observe(seen, noise=Gaussian(SCALE)),
        initial_state=torch.zeros(1, blocks * CELLS + 1, blocks * CELLS + 1, dtype=torch.float64),
        horizon=0,
        prior={"theta": LogNormal(*torch.tensor([4.0, 2.0], dtype=torch.float64))},
        start={"theta": torch.ones(blocks**2, dtype=torch.float64)},
        truth={"theta": truth},
        metrics={"misfit": Misfit(seen, data)},
        plots={"membrane": Picture(points, truth)},
        name="poisson_inversion",
    )


def measured() -> Tensor:
    """The published data, ``(1, 1, 169)``."""
    return torch.tensor(json.loads(DATA.read_text())["z_hat"], dtype=torch.float64)[None, None]


def noisy(clean: Tensor, generator: torch.Generator) -> Tensor:
    """Data of the small size, ``(1, 1, 36)``."""
    return (clean + SCALE * torch.randn(clean.shape, generator=generator, dtype=clean.dtype))[None]


def true_stiffness(size: str) -> Tensor:
    """``theta`` from which the data were made, ``(blocks,)``."""
    found = torch.ones(BLOCKS[size], BLOCKS[size], dtype=torch.float64)
    found[SOFT[size]], found[STIFF[size]] = 0.1, 10.0
    return found.reshape(-1)


@dataclass(frozen=True, eq=False)
class Membrane:
    """The solve, from ``theta`` ``(blocks,)`` or ``(scenarios, blocks)``, numbered row by row from below."""

    inner: Steady
    load: Tensor

    def __call__(self, parameters: Mapping[str, Tensor]) -> Tensor:
        theta = parameters["theta"]
        blocks = math.isqrt(theta.shape[-1])
        columns = theta.unflatten(-1, (blocks, blocks)).transpose(-1, -2)  # the first axis is x
        found: Tensor = self.inner.solve({"coefficient": columns, "source": self.load.to(theta)})
        return found


class Sags:
    """The sensor: bilinear values at ``count x count`` points, ``(scenarios, count^2)``, those of one x together.

    The points are a grid, so that a matrix along each axis does it.
    """

    def __init__(self, count: int, cells: int) -> None:
        self.weights = torch.zeros(count, cells + 1, dtype=torch.float64)
        for i in range(count):
            place = cells * (i + 1) / (count + 1)
            left = min(int(place), cells - 1)
            self.weights[i, left] = 1 - (place - left)
            self.weights[i, left + 1] = place - left

    def __call__(self, state: Tensor) -> Tensor:
        weights = self.weights.to(state)
        return (weights @ (state @ weights.T)).flatten(1)


class Misfit:
    """The metric: the mean square of the residuals over their standard deviation, ``(scenarios,)``."""

    def __init__(self, sensor: Sags, data: Tensor) -> None:
        self.sensor, self.data = sensor, data

    def __call__(self, trajectory: Trajectory, scenario: Mapping[str, Any]) -> Tensor:
        found: Tensor = self.sensor(trajectory.states[-1])
        return ((found - self.data[0].to(found)) / SCALE).square().mean(1)


class Picture:
    """The figure: ln theta of the truth and of each solution, the sag with the points of measurement, residuals there.

    Where a solution has a posterior, mean and standard deviation of ln theta take the places of estimate and residuals.
    """

    def __init__(self, points: int, truth: Tensor) -> None:
        self.points, self.truth = points, truth

    def __call__(self, figure: Any, solutions: Mapping[str, Any]) -> None:
        figure.set_size_inches(13.0, 0.3 + 3.1 * len(solutions))
        blocks = math.isqrt(len(self.truth))
        places = torch.arange(1, self.points + 1) / (self.points + 1)
        x, y = (part.reshape(-1).numpy() for part in torch.meshgrid(places, places, indexing="ij"))
        for row, (label, solution) in zip(
            figure.subplots(len(solutions), 4, squeeze=False), solutions.items(), strict=True
        ):
            sag = solution.trajectory().states[-1, 0].cpu()
            found = solution.value["parameters"]["theta"].detach().cpu().log().reshape(blocks, blocks).numpy()
            posterior = solution.posterior
            if posterior is not None:
                draws = np.log(posterior.values["theta"]).reshape(-1, blocks, blocks)
                found = draws.mean(0)
            _shown(figure, row[0], "truth, ln theta", self.truth.log().reshape(blocks, blocks).numpy(), 5.0)
            _shown(figure, row[1], "found, ln theta" if posterior is None else "mean of ln theta", found, 5.0)
            _shown(figure, row[2], "sag, points of measurement", sag.T.numpy())
            row[2].plot(x, y, ".", ms=2, color="white")
            if posterior is not None:
                _shown(figure, row[3], "standard deviation of ln theta", draws.std(0))
            else:
                data = solution.problem.scenarios.data["data"].reshape(-1).cpu()
                away = (data - Sags(self.points, len(sag) - 1)(sag[None])[0]) / SCALE
                dots = row[3].scatter(x, y, c=away.numpy(), cmap="RdBu", vmin=-3, vmax=3, s=14)
                figure.colorbar(dots, ax=row[3], shrink=0.8)
                row[3].set_title("(data - sag) / scale", fontsize=9, loc="left")
                row[3].set(aspect="equal", xlim=(0, 1), ylim=(0, 1))
            for panel in row:
                panel.set(xticks=[], yticks=[])
            row[0].set_ylabel(label)


def _shown(figure: Any, panel: Any, title: str, field: Any, reach: float | None = None) -> None:
    """A field over the unit square; with ``reach`` in colours from minus to plus it."""
    colours = {"cmap": "viridis"} if reach is None else {"cmap": "BrBG", "vmin": -reach, "vmax": reach}
    image = panel.imshow(field, origin="lower", extent=(0, 1, 0, 1), **colours)
    figure.colorbar(image, ax=panel, shrink=0.8)
    panel.set_title(title, fontsize=9, loc="left")
