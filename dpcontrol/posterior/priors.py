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
    problem: Problem, site: str, index: tuple[Any, ...], values: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Points about draws ``values`` of one entry of a site, and the prior's density there.

    Exact where the prior is a density of single numbers, else a kernel density of draws of it.
    """
    believed = next(d for key, d in problem.belief.densities.items() if site_of(key) == site)
    low, high = float(values.min()), float(values.max())
    points = np.linspace(low - (high - low), high + (high - low), POINTS)
    if len(believed.event_shape):
        drawn = prior_draws(problem)[site]
        return points, kernel_density(drawn[(slice(None), *index)], points)
    own = tuple(index)[len(index) - len(believed.batch_shape) :]
    like = next(p for p in (believed.mean, torch.zeros(())) if isinstance(p, torch.Tensor))
    at = torch.as_tensor(points, dtype=torch.float64 if like.dtype == torch.float64 else torch.float32)
    spread = (
        at.reshape(-1, *(1 for _ in believed.batch_shape)).expand(-1, *believed.batch_shape).to(like.device)
    )
    inside = believed.support.check(spread)
    centre = torch.where(
        inside, spread, spread[inside][len(spread[inside]) // 2] if bool(inside.any()) else spread
    )
    found = torch.where(inside, believed.log_prob(centre).exp(), 0.0)
    return points, found[(slice(None), *own)].double().cpu().numpy()
