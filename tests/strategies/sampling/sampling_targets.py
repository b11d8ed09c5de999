"""Densities whose draws are known, as questions of samplers; and how many chains walk over them."""

from dataclasses import dataclass

import numpy as np

from dpcontrol.strategies.posteriors.sampling import (
    Chains,
    Langevin,
    Metric,
    NoUTurn,
    Plan,
    Points,
    Record,
    Schedule,
    StepSize,
    Walk,
    chain_randoms,
    draw,
    first_steps,
)


@dataclass(frozen=True)
class Gaussian:
    """``N(mean, covariance)``."""

    mean: np.ndarray
    covariance: np.ndarray

    def __call__(self, x):
        way = x - self.mean
        pull = -np.linalg.solve(self.covariance, way.T).T
        return 0.5 * (way * pull).sum(1), pull

    def exact(self, random, count):
        return (
            self.mean
            + random.standard_normal((count, len(self.mean))) @ np.linalg.cholesky(self.covariance).T
        )


@dataclass(frozen=True)
class Elementwise:
    """Independent normals, without any product of matrices: rows do not know of each other, to the bit."""

    scale: np.ndarray

    def __call__(self, x):
        pull = -x / self.scale**2
        return 0.5 * (x * pull).sum(1), pull


@dataclass(frozen=True)
class Banana:
    """``a ~ N(0, 1)``, ``b ~ N(a^2, 1/2)``."""

    def __call__(self, x):
        a, b = x.T
        rest = b - a**2
        return -0.5 * a**2 - 2 * rest**2, np.stack([-a + 8 * a * rest, -4 * rest], 1)

    def exact(self, random, count):
        a = random.standard_normal(count)
        return np.stack([a, a**2 + 0.5 * random.standard_normal(count)], 1)


@dataclass(frozen=True)
class Funnel:
    """Neal's funnel, a narrow one: ``v ~ N(0, 1)``, two numbers ``N(0, exp(v))``."""

    def __call__(self, x):
        v, rest = x[:, 0], x[:, 1:]
        squares = (rest**2).sum(1) * np.exp(-v)
        value = -0.5 * v**2 - 0.5 * squares - v
        slope = np.concatenate([(-v + 0.5 * squares - 1)[:, None], -rest * np.exp(-v)[:, None]], 1)
        return value, slope

    def exact(self, random, count):
        v = random.standard_normal((count, 1))
        return np.concatenate([v, np.exp(0.5 * v) * random.standard_normal((count, 2))], 1)


@dataclass(frozen=True)
class Walled:
    """A correlated normal of which everything with ``x_0 < 0`` cannot be, as where a simulator fails."""

    def __call__(self, x):
        a, b = x.T
        value = -(a**2 - a * b + b**2)
        slope = np.stack([b - 2 * a, a - 2 * b], 1)
        lost = a < 0
        return np.where(lost, -np.inf, value), np.where(lost[:, None], 0.0, slope)

    def exact(self, random, count):
        covariance = np.linalg.inv(np.array([[2.0, -1.0], [-1.0, 2.0]]))
        drawn = random.standard_normal((3 * count, 2)) @ np.linalg.cholesky(covariance).T
        return drawn[drawn[:, 0] > 0][:count]


@dataclass(frozen=True)
class Here:
    """Chains move in this process."""

    kernel: object
    ask: object
    thin: int = 1
    block: int = 7

    def __call__(self, chains, metric, count, learning):
        moved = []
        for _ in range(count):
            chains, one = draw(self.kernel, chains, metric, self.ask, thin=self.thin, learning=learning)
            moved.append(one)
        return chains, Record.of(moved)


def begun(kernel, ask, x, metric, plan, seed=0):
    """A walk from ``x``, with first step sizes found where the kernel has gradients."""
    randoms = chain_randoms(seed, len(x))
    points = Points.asked(ask, x)
    if isinstance(kernel, (NoUTurn, Langevin)):
        size = StepSize.starting(first_steps(points, randoms, metric, ask, kernel.first_step))
    else:
        size = StepSize.starting(np.full(len(x), kernel.first_step), 1.0)
    return Walk(plan, Chains(points, size, randoms), metric)


def walked(kernel, ask, x, *, draws=1000, warmup=500, thin=1, dense=True, seed=0):
    """The walk at its end."""
    plan = Plan(draws, Schedule.of(warmup, metric=kernel.uses_metric), thin, dense)
    walk = begun(kernel, ask, x, Metric.identity(x.shape[1]), plan, seed)
    assert walk.run(Here(kernel, ask, thin), lambda: None)
    return walk
