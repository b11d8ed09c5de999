"""Every kernel leaves its density as it is: exact draws, moved, are exact draws.

10,000 chains start at exact draws, make a few transitions with a fixed step and metric, and are compared with the law
by Kolmogorov-Smirnov tests of several functions of a point, and by the mean of the changes. Every comparison has a
false-alarm rate of 1e-4; seeds are fixed.
"""

import numpy as np
import pytest
from sampling_targets import Banana, Funnel, Gaussian, Walled
from scipy import stats

from dpcontrol.strategies.posteriors.sampling import (
    Chains,
    CrankNicolson,
    Langevin,
    Metric,
    NoUTurn,
    Points,
    RandomWalk,
    StepSize,
    chain_randoms,
)

ALARM = 1e-4
CHAINS = 10000
TARGETS = {"banana": Banana(), "funnel": Funnel(), "walled": Walled()}
KERNELS = {
    "nuts": (NoUTurn(), 0.6),
    "nuts of coarse steps": (NoUTurn(), 1.4),
    "mala": (Langevin(), 0.8),
    "metropolis": (RandomWalk(1.0), 1.5),
}


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("kernel, step", KERNELS.values(), ids=KERNELS)
def test_exact_draws_stay_exact(kernel, step, name):
    ask = TARGETS[name]
    random = np.random.default_rng(11)
    x = ask.exact(random, CHAINS)
    metric = Metric(np.linspace(0.5, 0.8, x.shape[1]))
    randoms = chain_randoms(4, CHAINS)
    chains = Chains(Points.asked(ask, x), StepSize.starting(np.ones(CHAINS)), randoms)
    for _ in range(3):
        moved = kernel.move(chains, np.full(CHAINS, step), metric, ask)
        chains = Chains(moved.points, chains.size, randoms)
    y = moved.points.x
    assert (np.abs(y - x).max(1) > 0).mean() > 0.4  # they have moved
    # means of changes tell more than means: what start and end share is taken out
    change = np.stack([y - x, y**2 - x**2], -1).reshape(CHAINS, -1)
    t = change.mean(0) / (change.std(0) / np.sqrt(CHAINS))
    assert np.abs(t).max() < stats.norm.isf(ALARM / 2 / len(t))
    fresh = ask.exact(np.random.default_rng(12), 10 * CHAINS)
    for function in (lambda z: z[:, 0], lambda z: z[:, 1], lambda z: z[:, 0] + z[:, 1], lambda z: ask(z)[0]):
        assert stats.ks_2samp(function(y), function(fresh)).pvalue > ALARM / 4


def test_crank_nicolson_leaves_the_posterior_of_a_white_prior():
    """Prior N(0, I), data 1 = a + b + N(0, 1/2)."""
    precision = np.eye(2) + 4 * np.ones((2, 2))
    covariance = np.linalg.inv(precision)
    posterior = Gaussian(covariance @ np.full(2, 4.0), covariance)

    def likelihood(x):
        return -2 * (x.sum(1) - 1) ** 2, np.zeros((len(x), 1))

    x = posterior.exact(np.random.default_rng(0), CHAINS)
    randoms = chain_randoms(1, CHAINS)
    chains = Chains(Points.asked(likelihood, x), StepSize.starting(np.ones(CHAINS)), randoms)
    for _ in range(10):
        moved = CrankNicolson().move(chains, np.full(CHAINS, 0.5), Metric.identity(2), likelihood)
        chains = Chains(moved.points, chains.size, randoms)
    y = moved.points.x
    assert 0.2 < moved.accepted.mean() < 0.9
    white = (y - posterior.mean) @ np.linalg.inv(np.linalg.cholesky(covariance)).T
    for column in white.T:
        assert stats.kstest(column, "norm").pvalue > ALARM / 2


def test_without_data_every_step_of_crank_nicolson_is_accepted():
    def nothing(x):
        return np.zeros(len(x)), np.zeros((len(x), 1))

    x = np.random.default_rng(0).standard_normal((50, 3))
    chains = Chains(Points.asked(nothing, x), StepSize.starting(np.ones(50)), chain_randoms(1, 50))
    moved = CrankNicolson().move(chains, np.full(50, 0.9), Metric.identity(3), nothing)
    assert (moved.accepted == 1).all()
