"""Means and standard deviations of posteriors by site, as plain lists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from dpcontrol.posterior import Posterior
from dpcontrol.problem import Problem, sites
from dpcontrol.solution import Solution

Moments = Mapping[str, tuple[Sequence[float], Sequence[float]]]
ENTRIES = 1024  # of a site so many, evenly spaced, are compared


def moments_of(solution: Solution, problem: Problem) -> dict[str, tuple[list[float], list[float]]]:
    """Means and standard deviations of a solution's posterior by site; empty without one."""
    if solution.draws is None:
        return {}
    found = {}
    posterior = Posterior(solution.problem or problem, solution.draws)
    for name, values in posterior.values.items():
        flat = _chosen(values.reshape(-1, *values.shape[2:]), 1)
        found[name] = flat.mean(0).tolist(), flat.std(0, ddof=min(1, len(flat) - 1)).tolist()
    return found


def given_reference(problem: Problem) -> dict[str, tuple[list[float], list[float]]]:
    """The moments of a problem's own reference posterior, laid out like :func:`moments_of`."""
    like = problem.reference_posterior or {}
    if problem.prior is None or not like:
        return {}
    shapes = {name: tuple(value.shape) for name, value in sites(problem.start()).items()}
    found = {}
    for name, pair in like.items():
        parts = [torch.as_tensor(part).double().cpu().expand(shapes[name]).numpy() for part in pair]
        mean, sd = (_chosen(part, 0).tolist() for part in parts)
        found[name] = mean, sd
    return found


def _chosen(values: np.ndarray, lead: int) -> np.ndarray:
    """The trailing axes as one, at most ``ENTRIES`` of it."""
    flat = values.reshape(*values.shape[:lead], -1)
    count = flat.shape[-1]
    return flat[..., np.unique(np.linspace(0, count - 1, min(count, ENTRIES)).round().astype(int))]
