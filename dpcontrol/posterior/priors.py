"""The prior of a problem in the form that pictures and other programs take."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from dpcontrol.plot.marginals import density as kernel_density
from dpcontrol.problem.base import Problem
from dpcontrol.problem.predicting import draw_prior
from dpcontrol.problem.sites import site_of, sites

DRAWS = 400
POINTS = 256


def prior_draws(problem: Problem, count: int = DRAWS, seed: int = 0) -> dict[str, np.ndarray]:
    """Draws of the prior by site, ``(count, ...)``; no simulator is run."""
    generator = torch.Generator().manual_seed(seed)
    drawn = [sites(draw_prior(problem, generator)) for _ in range(count)]
    return {name: np.stack([each[name].double().cpu().numpy() for each in drawn]) for name in drawn[0]}


def prior_curve(
    problem: Problem, site: str, index: tuple[Any, ...], reach: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Points of an interval, and the density there of the prior of one entry of a site.

    Exact where the prior is a density of single numbers, else a kernel density of draws of it.
    """
    believed = next(d for key, d in problem.belief.densities.items() if site_of(key) == site)
    points = np.linspace(*reach, POINTS)
    if len(believed.event_shape):
        drawn = prior_draws(problem)[site]
        return points, kernel_density(drawn[(slice(None), *index)], points)
    own = tuple(index)[len(index) - len(believed.batch_shape) :]
    pose = problem.pose()
    at = torch.as_tensor(points, dtype=pose.dtype, device=pose.device)
    spread = at.reshape(-1, *(1 for _ in believed.batch_shape)).expand(-1, *believed.batch_shape)
    inside = believed.support.check(spread)
    if not bool(inside.any()):
        return points, np.zeros_like(points)
    # densities may refuse what lies outside their support
    usable = torch.where(inside, spread, spread[inside][0])
    found = torch.where(inside, believed.log_prob(usable).exp(), 0.0)
    return points, found[(slice(None), *own)].double().cpu().numpy()
