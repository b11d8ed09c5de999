r"""How fast do hares breed, and how many of them do lynxes eat, if pelts are all that was counted?

The equation, Lotka and Volterra's:

    u' = (alpha - beta v) u,    v' = (-gamma + delta u) v

The question: which rates, which populations in 1900 and which scatter of the counts are plausible, given the pelts of
snowshoe hares and Canadian lynxes that the Hudson's Bay Company collected from 1900 to 1920?

===========  ===================================================  ===========================================
symbol       prior                                                name and unit
===========  ===================================================  ===========================================
``u, v``     state, from 1900                                     hares, lynxes; thousands of pelts
``alpha``    N(1, 0.5), cut at 0                                  ``prey_growth``, 1 / year
``beta``     N(0.05, 0.05), cut at 0                              ``predation``, 1 / (year, thousand lynxes)
``gamma``    N(1, 0.5), cut at 0                                  ``predator_death``, 1 / year
``delta``    N(0.05, 0.05), cut at 0                              ``predator_growth``, 1 / (year, thousand hares)
``u0, v0``   LogNormal(log 10, 1) each                            ``initial_state``, thousands of pelts
``sigma``    LogNormal(-1, 1), one for each species               scatter of the logarithm of a count, 1
``dt``       1/4 year, RK4, four of them in a step (small: 1/2)    year
``N``        20 steps                                             1
===========  ===================================================  ===========================================

Unknown: eight numbers. Observation: both populations at t = 0, 1, .., 20, each count log-normal around its population,
log y ~ N(log x, sigma); that of 1900 is one of them, around the unknown initial population. 42 numbers,
``data/hare_lynx.json``.

Objective: minus the log-density of data and unknown.

Metrics: ``mean_log_error``, the root mean square of log y - log x over both species.

The step: next to RK4 with dt = 1/40 the posterior means with 1/4 (1/2) differ by less than 1e-3 (1e-2) posterior
standard deviations, as do the logarithms of the standard deviations (``tests/benchmarks/results/hare_lynx.json``). The
published draws were made with an adaptive solver.

Searches start at rates that are known from the period (about ten years) and levels of the counts: from the centre of
the prior the first cycles come at the wrong times, where the density has other, far lower, hills.

Reference: posteriordb, ``hudson_lynx_hare-lotka_volterra`` (M. Magnusson et al.); the model is that of B. Carpenter,
"Predator-Prey Population Dynamics: the Lotka-Volterra model in Stan" (2018). Data: C. Elton, M. Nicholson, J. Animal
Ecology 11 (1942).

Published, 10,000 draws: alpha 0.547 (sd 0.063), beta 0.0277 (0.0042), gamma 0.800 (0.089), delta 0.0241 (0.0035), u0
34.0 (2.9), v0 5.94 (0.53), sigma 0.248 (0.043) and 0.251 (0.044); ``problem().reference_posterior`` has all digits.
Measured here: ``tests/benchmarks/results/hare_lynx.json``.

There is one record of the past: the seed changes nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributions import LogNormal as LogNormalDensity

from dpcontrol.engine import Trajectory
from dpcontrol.problem import (
    LogNormal,
    Problem,
    TruncatedNormal,
    UsageError,
    inference_problem,
    observe,
    scene_generator,
)
from dpcontrol.sim import ODE, LotkaVolterra, Substeps

DATA = Path(__file__).parent / "data" / "hare_lynx.json"
SUBSTEPS = {"full": 4, "small": 2}
RATES = ("prey_growth", "predation", "predator_death", "predator_growth")
START = {
    "prey_growth": 0.6,
    "predation": 0.03,
    "predator_death": 0.7,
    "predator_growth": 0.02,
    "initial_state": [30.0, 5.0],
}
FIRST = 1900
DEFAULTS = {
    "full": {"strategy": "nuts", "strategies": ["lbfgs", "laplace", "nuts"], "gradients": 400_000},
    "small": {"strategy": "laplace", "strategies": ["lbfgs", "laplace"], "gradients": 5_000},
}


def problem(*, size: str = "full", seed: int = 0, substeps: int | None = None) -> Problem:
    """Hares and lynxes.

    Args:
        size: ``"full"`` or ``"small"`` (a longer step of the solver; the data are the same).
        seed: a whole number; there is nothing to draw.
        substeps: steps of RK4 in a year, if they are not to be the size's.

    Raises:
        UsageError: for another size or seed, or a number of substeps that is not whole and positive.
    """
    scene_generator("hare_lynx", size, seed)
    counts = pelts()
    inner = SUBSTEPS[size] if substeps is None else substeps
    if not isinstance(inner, int) or isinstance(inner, bool) or inner < 1:
        raise UsageError(f"substeps must be a whole number, 1 or more; found {substeps!r}.")
    return inference_problem(
        Substeps(ODE(LotkaVolterra(), dt=1 / inner), inner),
        data=counts,
        observation=observe(noise=LogNormal("sigma")),
        initial_state=counts[:1],
        horizon=len(counts) - 1,
        prior={
            "prey_growth": cut_normal(1.0, 0.5),
            "predation": cut_normal(0.05, 0.05),
            "predator_death": cut_normal(1.0, 0.5),
            "predator_growth": cut_normal(0.05, 0.05),
            "initial_state": log_normal(math.log(10.0), 1.0),
            "sigma": log_normal(-1.0, 1.0).expand((2,)),
        },
        start={name: torch.tensor(value, dtype=torch.float64) for name, value in START.items()},
        reference_posterior=published(),
        metrics={"mean_log_error": log_error},
        plots={"pelts": Cycles()},
        name="hare_lynx",
    )


def pelts() -> Tensor:
    """Counts of hares and lynxes in thousands, ``(21, 2)``, from 1900 on."""
    record = json.loads(DATA.read_text())
    return torch.tensor([record["y_init_hare_lynx"], *record["y_hare_lynx"]], dtype=torch.float64)


def published() -> dict[str, tuple[Any, Any]]:
    """Means and standard deviations of the published draws, by site."""
    draws = json.loads(DATA.read_text())["reference"]

    def both(name: str) -> tuple[Tensor, Tensor]:
        entries = [draws[f"{name}[{k}]"] for k in (1, 2)]
        mean, sd = (torch.tensor([entry[key] for entry in entries]).double() for key in ("mean", "sd"))
        return mean, sd

    rates = {
        name: (draws[f"theta[{k}]"]["mean"], draws[f"theta[{k}]"]["sd"])
        for k, name in enumerate(RATES, start=1)
    }
    return {**rates, "initial_state": both("z_init"), "sigma": both("sigma")}


def cut_normal(mean: float, sd: float) -> TruncatedNormal:
    """A normal density cut at 0, of float64 numbers."""
    return TruncatedNormal(*torch.tensor([mean, sd, 0.0], dtype=torch.float64))


def log_normal(mean: float, sd: float) -> LogNormalDensity:
    """A log-normal density of float64 numbers."""
    return LogNormalDensity(*torch.tensor([mean, sd], dtype=torch.float64))


def log_error(trajectory: Trajectory, scenario: Mapping[str, Any]) -> Tensor:
    """Root mean square of ``log y - log x``, ``(scenarios,)``."""
    return (trajectory.states.log() - pelts()[:, None].log()).square().mean((0, 2)).sqrt()


class Cycles:
    """The figure: both populations over the years with the counts, and the cycle that they go round."""

    def __call__(self, figure: Any, solutions: Mapping[str, Any]) -> None:
        counts = pelts()
        figure.set_size_inches(12.0, 0.5 + 3.2 * len(solutions))
        rows = figure.subplots(len(solutions), 2, squeeze=False, width_ratios=(2.4, 1))
        years = FIRST + torch.arange(len(counts))
        for (over_time, plane), (label, solution) in zip(rows, solutions.items(), strict=True):
            path = fine_course(solution)[:, 0].cpu()
            time = FIRST + torch.linspace(0, len(counts) - 1, len(path))
            for index, (animal, colour) in enumerate((("hares", "#0072B2"), ("lynxes", "#D55E00"))):
                over_time.plot(time, path[:, index], color=colour, label=animal)
                over_time.plot(years, counts[:, index], "o", ms=4, color=colour)
            over_time.set(title=label, ylabel="thousands of pelts", xticks=years[::5])
            over_time.legend(ncols=2)
            plane.plot(path[:, 0], path[:, 1], color="0.35")
            plane.plot(counts[:, 0], counts[:, 1], "o", ms=4, color="0.6")
            plane.set(xlabel="hares", ylabel="lynxes", xlim=(0, None), ylim=(0, None))


def fine_course(solution: Any, substeps: int = 10) -> Tensor:
    """The populations that belong to a solution, ten times a year, ``(201, scenarios, 2)``."""
    value = {name: solution.value["parameters"][name] for name in RATES}
    course = [solution.value["initial_state"]]
    step = ODE(LotkaVolterra(), dt=1 / substeps)
    for _ in range((len(pelts()) - 1) * substeps):
        course.append(step.step(course[-1], None, value, None, 0.0))
    return torch.stack(course).detach()
