"""Where chains start, and the metric that they start with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from dpcontrol import tree
from dpcontrol.meter import Meter
from dpcontrol.problem import draw_prior
from dpcontrol.strategies.posteriors.sampling import Ask, Metric, Points, find_mode

DENSE_HESSIAN = 500  # unknowns up to which a Hessian is a full matrix
MODE_ITERATIONS = 500
SCREENED = 128  # draws of the prior for each further search, of which the best are taken
ATTEMPTS = 60  # at a start of finite density; each one nearer to the mode
NEARER = 0.8


@dataclass(frozen=True)
class Start:
    """Points of finite density, one for each chain, and a metric."""

    points: Points
    metric: Metric


class NoStart(Exception):
    """No point of finite density was found."""


@dataclass(frozen=True)
class Search:
    """For the mode that chains start around.

    Attributes:
        gradients: asks for log-densities with gradients.
        count: from so many places: the problem's own start, and the best of many draws of the prior.
    """

    gradients: Ask
    count: int = 1

    def mode(self, meter: Meter, random: np.random.Generator) -> np.ndarray:
        """The highest of the modes found, ``(dimension,)``."""
        places = [meter.start()[0].cpu().double().numpy()]
        if self.count > 1:
            drawn = np.concatenate([_prior_draws(meter, [random] * SCREENED) for _ in range(self.count - 1)])
            height = np.concatenate(
                [self.gradients(rows)[0] for rows in np.array_split(drawn, self.count - 1)]
            )
            order = np.argsort(-np.where(np.isfinite(height), height, -np.inf), kind="stable")
            places += [drawn[row] for row in order[: self.count - 1]]
        modes = [find_mode(self.gradients, place, MODE_ITERATIONS) for place in places]
        if len(modes) == 1:
            return modes[0]
        heights = self.gradients(np.stack(modes))[0]
        return modes[int(np.argmax(np.where(np.isfinite(heights), heights, -np.inf)))]


def around_mode(
    meter: Meter, search: Search, ask: Ask, randoms: list[np.random.Generator], spread: float
) -> Start:
    """Chains at ``mode + spread * L xi``, where ``L L^T`` is the inverse of the Gauss-Newton Hessian at the mode.

    The mode is that of the log-density of the free numbers, found by L-BFGS; the Hessian is the expected Fisher
    information of the data plus that of the prior. Where ``spread`` leads to a density of zero, a chain starts nearer.
    ``ask`` is the sampler's own question.
    """
    mode = search.mode(meter, randoms[0])
    metric = hessian_metric(meter, mode)
    points = Points.asked(ask, mode + spread * metric.push(_normals(randoms, len(mode))))
    for attempt in range(1, ATTEMPTS + 1):
        bad = np.flatnonzero(~np.isfinite(points.log_density))
        if not len(bad):
            return Start(points, metric)
        shorter = spread * NEARER**attempt
        again = mode + shorter * metric.push(_normals([randoms[i] for i in bad], len(mode)))
        points = _replaced(points, bad, Points.asked(ask, again))
    raise NoStart


def from_prior(meter: Meter, ask: Ask, randoms: list[np.random.Generator]) -> Start:
    """Chains at draws of the prior, with its own metric: the identity in white numbers."""
    points = Points.asked(ask, _prior_draws(meter, randoms))
    for _ in range(ATTEMPTS):
        bad = np.flatnonzero(~np.isfinite(points.log_density))
        if not len(bad):
            return Start(points, prior_metric(meter))
        drawn = _prior_draws(meter, [randoms[i] for i in bad])
        points = _replaced(points, bad, Points.asked(ask, drawn))
    raise NoStart


def hessian_metric(meter: Meter, x: np.ndarray) -> Metric:
    """``L L^T = (J^T J + prior Hessian)^-1`` at ``x (dimension,)``; low rank for many white numbers."""
    point = torch.from_numpy(x)[None].to(meter.best_x)
    roots = meter.fisher_roots(point).cpu().double().numpy()
    if not np.isfinite(roots).all():
        return prior_metric(meter)
    if len(x) > DENSE_HESSIAN:
        if meter.problem.belief.white:
            return Metric.of_jacobian(roots)
        return Metric(1.0 / np.sqrt((roots**2).sum(0) + 1.0 / _magnitudes(meter) ** 2))
    return Metric.of_hessian(roots.T @ roots + meter.prior_hessian(point).cpu().double().numpy())


def prior_metric(meter: Meter) -> Metric:
    """The identity for a white prior; else a diagonal of the unknown's magnitudes."""
    if meter.problem.belief.white:
        return Metric.identity(meter.dimension)
    return Metric(_magnitudes(meter))


def _magnitudes(meter: Meter) -> np.ndarray:
    found = meter.magnitudes()[0].cpu().double().numpy()
    return np.where(found > 0, found, 1.0)


def _normals(randoms: list[np.random.Generator], dimension: int) -> np.ndarray:
    return np.stack([random.standard_normal(dimension) for random in randoms])


def _prior_draws(meter: Meter, randoms: list[np.random.Generator]) -> np.ndarray:
    if meter.problem.belief.white:
        return _normals(randoms, meter.dimension)
    rows = []
    for random in randoms:
        generator = torch.Generator().manual_seed(int(random.integers(2**62)))
        free = meter.problem.unknown.free(draw_prior(meter.problem, generator))
        rows.append(tree.ravel(free).cpu().double().numpy())
    return np.stack(rows)


def _replaced(points: Points, rows: np.ndarray, better: Points) -> Points:
    found = Points(points.x.copy(), points.log_density.copy(), points.gradient.copy())
    found.x[rows], found.log_density[rows] = better.x, better.log_density
    found.gradient[rows] = better.gradient
    return found
