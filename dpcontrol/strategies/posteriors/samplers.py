"""``nuts``, ``mala``, ``metropolis``, ``pcn``: posteriors by Markov chains, with and without gradients."""

from __future__ import annotations

import math
from dataclasses import dataclass

from dpcontrol.strategies.checks import one_of, whole, within
from dpcontrol.strategies.posteriors.markov import MarkovChains
from dpcontrol.strategies.posteriors.sampling import (
    CrankNicolson,
    Kernel,
    Langevin,
    NoUTurn,
    RandomWalk,
    Record,
)

CUT_OFF = 0.01  # share of trajectories at the greatest depth that is told


@dataclass(frozen=True)
class NUTS(MarkovChains):
    r"""The No-U-Turn sampler: Hamiltonian trajectories that end where they would turn back.

    .. math:: H(x, p) = -\log \pi(x) + \tfrac12 p^T M^{-1} p

    All chains of a process advance in lock-step: the gradients of a leapfrog step are one batch. They start dispersed
    around the mode of the density of the free numbers, with the inverse of the Gauss-Newton Hessian there as
    :math:`M^{-1}`; the warm-up finds each chain's step size by dual averaging and refines the metric from the draws of
    all chains, in windows of growing length, shrunk towards the Hessian. The step is not jittered: the length of a
    trajectory varies by itself.

    A draw that makes the simulator fail has density zero: the trajectory ends there as a divergence, and the chain
    goes on from where it was.

    Every chain has random numbers of its own. With one process a run can be repeated and resumed to the bit, and with
    several likewise; but rows of a batch may be rounded differently in batches of another size, so that one and two
    processes give draws of the same posterior that need not be the same draws.

    Args:
        chains: how many.
        draws: of each chain, behind the warm-up.
        warmup: draws that are thrown away, in which step size and metric are learned.
        thin: transitions from one draw to the next (of the warm-up, too).
        workers: processes with one thread each that share the chains; 1 is this process alone.
        start: ``"map"``, around the mode, or ``"prior"``, at draws of the prior and with its metric.
        spread: how far from the mode chains start, in standard deviations of the Gaussian there.
        searches: the mode is looked for from so many places, the problem's start and the best of many draws of the
            prior, and the highest is taken: for posteriors with hills that a search from one place may end on.
        target_acceptance: mean acceptance that the step size is tuned to; nearer to 1 means smaller steps.
        metric: what is learned from draws: ``"dense"``, a full matrix; ``"diagonal"``, variances in the coordinates
            of the Hessian; ``"auto"`` is dense up to 100 unknowns.
        depth: doublings of a trajectory at most, ``2^depth - 1`` gradients.

    Sources: M. Hoffman, A. Gelman, "The No-U-Turn sampler", JMLR 15 (2014); M. Betancourt, "A conceptual introduction
    to Hamiltonian Monte Carlo", arXiv:1701.02434.
    """

    target_acceptance: float = 0.8
    metric: str = "auto"
    depth: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        within("NUTS", 0.01, 1.0, target_acceptance=self.target_acceptance)
        one_of("NUTS", ("auto", "dense", "diagonal"), metric=self.metric)
        whole("NUTS", depth=self.depth)

    @property
    def asks(self) -> str:
        return "gradients"

    @property
    def momentum(self) -> bool:
        return True

    def dense(self, dimension: int) -> bool:
        return super().dense(dimension) if self.metric == "auto" else self.metric == "dense"

    def remark(self, record: Record) -> str:
        cut = float((record.steps >= self.thin * (2**self.depth - 1)).mean())
        if cut < CUT_OFF:
            return ""
        return (
            f" {cut:.0%} of the trajectories were cut off at {2**self.depth - 1:,} steps before they turned back: "
            "draws are less independent than they could be; a longer warm-up or a larger depth may help."
        )

    def kernel(self, dimension: int) -> Kernel:
        return NoUTurn(self.depth, self.target_acceptance)


@dataclass(frozen=True)
class MALA(MarkovChains):
    r"""The Metropolis-adjusted Langevin algorithm, preconditioned by the metric (see :class:`NUTS` for its fields).

    .. math:: x' = x + \tfrac{\epsilon^2}{2} M^{-1} \nabla \log \pi(x) + \epsilon M^{-1/2} \xi

    One gradient per transition: a draw is worth less than one of NUTS and costs less.

    Args:
        target_acceptance: 0.574 is best in many dimensions.
        metric: as in :class:`NUTS`.

    Source: G. Roberts, J. Rosenthal, "Optimal scaling of discrete approximations to Langevin diffusions", JRSS B 60
    (1998).
    """

    warmup: int = 1000
    draws: int = 2000
    thin: int = 5
    target_acceptance: float = 0.574
    metric: str = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        within("MALA", 0.01, 1.0, target_acceptance=self.target_acceptance)
        one_of("MALA", ("auto", "dense", "diagonal"), metric=self.metric)

    @property
    def asks(self) -> str:
        return "gradients"

    def dense(self, dimension: int) -> bool:
        return super().dense(dimension) if self.metric == "auto" else self.metric == "dense"

    def kernel(self, dimension: int) -> Kernel:
        return Langevin(self.target_acceptance)


@dataclass(frozen=True)
class Metropolis(MarkovChains):
    r"""Random-walk Metropolis with a covariance that is learned in the warm-up (see :class:`NUTS` for its fields).

    .. math:: x' = x + s \, C^{1/2} \xi, \qquad s \approx 2.38 / \sqrt{\text{dimension}}

    No gradients, unless ``start="map"`` asks for a mode and its Hessian to start from. Behind the warm-up covariance
    and scale stay as they are, so that the draws are those of a Markov chain.

    Args:
        target_acceptance: 0.234 is best in many dimensions.
        metric: as in :class:`NUTS`.

    Sources: H. Haario, E. Saksman, J. Tamminen, "An adaptive Metropolis algorithm", Bernoulli 7 (2001); G. Roberts, A.
    Gelman, W. Gilks, "Weak convergence and optimal scaling of random walk Metropolis algorithms", Ann. Appl. Probab. 7
    (1997).
    """

    warmup: int = 1000
    draws: int = 2000
    thin: int = 20
    start: str = "prior"
    target_acceptance: float = 0.234
    metric: str = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        within("Metropolis", 0.01, 1.0, target_acceptance=self.target_acceptance)
        one_of("Metropolis", ("auto", "dense", "diagonal"), metric=self.metric)

    @property
    def asks(self) -> str:
        return "densities"

    def dense(self, dimension: int) -> bool:
        return super().dense(dimension) if self.metric == "auto" else self.metric == "dense"

    def kernel(self, dimension: int) -> Kernel:
        return RandomWalk(2.38 / math.sqrt(dimension), self.target_acceptance)


@dataclass(frozen=True)
class PCN(MarkovChains):
    r"""Preconditioned Crank-Nicolson: a walk that leaves the prior as it is (see :class:`NUTS` for its fields).

    .. math:: x' = \sqrt{1 - \beta^2} \, x + \beta \xi, \qquad \xi \sim N(0, I) \text{, in white numbers}

    Accepted with the ratio of likelihoods; the warm-up tunes :math:`\beta`. Its acceptance does not fall as a field is
    refined, but the data must be weak beside the prior, or :math:`\beta` becomes small.

    Args:
        target_acceptance: what beta is tuned to.

    Source: S. Cotter, G. Roberts, A. Stuart, D. White, "MCMC methods for functions", Statistical Science 28 (2013).
    """

    warmup: int = 1000
    draws: int = 2000
    thin: int = 20
    start: str = "prior"
    target_acceptance: float = 0.234

    def __post_init__(self) -> None:
        super().__post_init__()
        within("PCN", 0.01, 1.0, target_acceptance=self.target_acceptance)

    @property
    def asks(self) -> str:
        return "likelihoods"

    def kernel(self, dimension: int) -> Kernel:
        return CrankNicolson(self.target_acceptance)
