r"""Transitions with one question per step: MALA, random-walk Metropolis, preconditioned Crank-Nicolson."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from dpcontrol.strategies.posteriors.sampling.asking import (
    Array,
    Ask,
    Chains,
    Moved,
    Points,
    log_uniforms,
    normals,
)
from dpcontrol.strategies.posteriors.sampling.leapfrog import Phase, leapfrog
from dpcontrol.strategies.posteriors.sampling.metric import Metric


class Kernel(Protocol):
    """A transition that leaves the density invariant, for any fixed step size and metric.

    Attributes:
        target: the acceptance probability that the warm-up tunes the step size to.
        first_step, largest_step: where the tuning begins, and what it does not exceed.
        uses_metric: whether the metric makes a difference.
    """

    @property
    def target(self) -> float: ...
    @property
    def first_step(self) -> float: ...
    @property
    def largest_step(self) -> float: ...
    @property
    def uses_metric(self) -> bool: ...

    def move(self, chains: Chains, step: Array, metric: Metric, ask: Ask) -> Moved:
        """One transition of all chains with step sizes ``step (chains,)``."""
        ...


@dataclass(frozen=True)
class Langevin:
    r"""The Metropolis-adjusted Langevin algorithm: a step along the gradient, noise, and an acceptance.

    .. math:: x' = x + \tfrac{\epsilon^2}{2} L L^T g(x) + \epsilon L \xi, \qquad \xi \sim N(0, I)

    which is one leapfrog step with a fresh momentum, accepted with ``min(1, exp(-growth of the energy))``. The best
    acceptance in many dimensions is 0.574, with steps that shrink like ``dimension^(-1/6)``.

    Source: G. Roberts, J. Rosenthal, "Optimal scaling of discrete approximations to Langevin diffusions", JRSS B 60
    (1998).
    """

    target: float = 0.574
    first_step: float = 0.5
    largest_step: float = np.inf
    uses_metric: bool = True

    def move(self, chains: Chains, step: Array, metric: Metric, ask: Ask) -> Moved:
        """One transition of all chains."""
        points = chains.points
        momentum = normals(chains.randoms, points.x.shape[1])
        luck = log_uniforms(chains.randoms, 1)[:, 0]
        force = metric.pull(points.gradient)
        start = Phase(points.x, momentum, points.log_density, points.gradient, force)
        energy = start.hamiltonian()
        end = leapfrog(ask, metric, start, step[:, None])
        found = Points(end.x, end.log_density, end.gradient)
        return _accepted(points, found, energy - end.hamiltonian(), luck, energy)


@dataclass(frozen=True)
class RandomWalk:
    r"""Random-walk Metropolis: ``x' = x + s L xi``, accepted with the ratio of the densities.

    With ``L L^T`` near the covariance of the posterior, ``s = 2.38 / sqrt(dimension)`` is the best scale in many
    dimensions, with an acceptance of 0.234.

    Sources: H. Haario, E. Saksman, J. Tamminen, "An adaptive Metropolis algorithm", Bernoulli 7 (2001), here with the
    covariance learned in the warm-up only, so that the draws are those of a Markov chain; G. Roberts, A. Gelman, W.
    Gilks, "Weak convergence and optimal scaling of random walk Metropolis algorithms", Ann. Appl. Probab. 7 (1997).
    """

    first_step: float
    target: float = 0.234
    largest_step: float = np.inf
    uses_metric: bool = True

    def move(self, chains: Chains, step: Array, metric: Metric, ask: Ask) -> Moved:
        """One transition of all chains."""
        points = chains.points
        way = metric.push(normals(chains.randoms, points.x.shape[1]))
        luck = log_uniforms(chains.randoms, 1)[:, 0]
        found = Points.asked(ask, points.x + step[:, None] * way)
        return _accepted(points, found, found.log_density - points.log_density, luck, -points.log_density)


@dataclass(frozen=True)
class CrankNicolson:
    r"""The preconditioned Crank-Nicolson proposal, which leaves a standard normal prior invariant by itself.

    .. math:: x' = \sqrt{1 - \beta^2}\, x + \beta \xi, \qquad \xi \sim N(0, I)

    accepted with the ratio of the *likelihoods*: ``ask`` gives log-likelihoods, the numbers must be white. Steps need
    not shrink as a field is refined.

    Source: S. Cotter, G. Roberts, A. Stuart, D. White, "MCMC methods for functions: modifying old algorithms to make
    them faster", Statistical Science 28 (2013), equation 4.3 and algorithm 4.9.
    """

    target: float = 0.234
    first_step: float = 0.2
    largest_step: float = 1.0
    uses_metric: bool = False

    def move(self, chains: Chains, step: Array, metric: Metric, ask: Ask) -> Moved:
        """One transition of all chains; ``step`` is beta."""
        points, beta = chains.points, step[:, None]
        noise = normals(chains.randoms, points.x.shape[1])
        luck = log_uniforms(chains.randoms, 1)[:, 0]
        found = Points.asked(ask, np.sqrt(1.0 - beta**2) * points.x + beta * noise)
        return _accepted(points, found, found.log_density - points.log_density, luck, -points.log_density)


def _accepted(points: Points, found: Points, ratio: Array, luck: Array, energy: Array) -> Moved:
    """Metropolis' rule for proposals ``found`` with logarithms of ratios ``ratio (chains,)``."""
    ratio = np.where(np.isnan(ratio), -np.inf, ratio)
    probability = np.exp(np.minimum(ratio, 0.0))
    chains = len(ratio)
    return Moved(
        points.where(luck < ratio, found),
        probability,
        np.zeros(chains, dtype=bool),
        np.ones(chains, dtype=np.int64),
        energy,
    )
