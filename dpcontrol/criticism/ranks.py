r"""Are ranks uniform? Tests of the ranks ``0 .. most`` of a quantity over many simulations.

Two tests:

- chi-square of the ranks in bins of equal size, each with ten simulations or more expected in it (the limiting
  distribution is used: with a hundred simulations p-values near 1e-4 are too small by a third);
- the band of the empirical distribution function: :math:`X_i`, the number of ranks below ``i``, is binomial, and the
  whole path :math:`X_1 \dots X_{most}` a Markov chain, so that the probability of leaving a band of equal point-wise
  tails is summed up exactly (T. Säilynoja, P.-C. Bürkner, A. Vehtari, "Graphical test for discrete uniformity and its
  applications in goodness-of-fit evaluation and multiple sample comparison", Statistics and Computing 32 (2022)).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

EXPECTED = 10  # simulations in a bin
MOST_BINS = 20


def bins_for(simulations: int, most: int) -> int:
    """How many bins of equal size for ranks ``0 .. most``: the largest number that leaves ten simulations in each."""
    allowed = min(MOST_BINS, simulations // EXPECTED)
    return max((k for k in range(1, allowed + 1) if (most + 1) % k == 0), default=1)


def binned(ranks: np.ndarray, most: int, bins: int) -> np.ndarray:
    """Counts of ranks in bins of equal size."""
    return np.bincount(ranks * bins // (most + 1), minlength=bins)


def chi_square(ranks: np.ndarray, most: int) -> float:
    """p-value of the chi-square test of uniformity; NaN with fewer than two bins."""
    from scipy.stats import chi2

    bins = bins_for(len(ranks), most)
    if bins < 2:
        return math.nan
    expected = len(ranks) / bins
    return float(chi2.sf(np.square(binned(ranks, most, bins) - expected).sum() / expected, bins - 1))


@dataclass(frozen=True)
class Band:
    """Counts of ranks below ``i = 1 .. most`` that ``simulations`` uniform ranks keep to: ``low <= X_i <= high``."""

    simulations: int
    most: int
    low: np.ndarray
    high: np.ndarray


def below(ranks: np.ndarray, most: int) -> np.ndarray:
    """``X_i``: how many ranks are below ``i = 1 .. most``."""
    return np.cumsum(np.bincount(ranks, minlength=most + 1))[:-1]


def band(simulations: int, most: int, rate: float) -> Band:
    """The band that uniform ranks leave anywhere with a probability of at most ``rate``."""
    low, high = math.log(rate) - math.log(2.0 * most), 0.0
    for _ in range(40):  # bisection for the largest point-wise tail; Bonferroni's is small enough
        middle = 0.5 * (low + high)
        small = _leaving(_limits(simulations, most, math.exp(middle))) <= rate
        low, high = (middle, high) if small else (low, middle)
    return _limits(simulations, most, math.exp(low))


def band_p_value(ranks: np.ndarray, most: int) -> float:
    """Probability that uniform ranks come as near to the edge of a band as these do."""
    from scipy.stats import binom

    count, index = len(ranks), np.arange(1, most + 1)
    seen, share = below(ranks, most), index / (most + 1)
    tails = 2 * np.minimum(binom.cdf(seen, count, share), binom.sf(seen - 1, count, share))
    return _leaving(_limits(count, most, float(tails.min()) * (1 + 1e-9)))


def _limits(count: int, most: int, tail: float) -> Band:
    """Counts whose point-wise two-sided tail is larger than ``tail``."""
    from scipy.stats import binom

    share = np.arange(1, most + 1) / (most + 1)
    low = binom.ppf(min(0.5 * tail, 0.5), count, share)
    # ppf is the first count whose distribution function reaches tail / 2; a tail that is not larger is outside
    low += 2 * binom.cdf(low, count, share) <= tail
    high = binom.isf(min(0.5 * tail, 0.5), count, share)
    high += 2 * binom.sf(high, count, share) > tail
    high -= 2 * binom.sf(high - 1, count, share) <= tail
    return Band(count, most, low.astype(int), high.astype(int))


def _leaving(limits: Band) -> float:
    """Probability that the path of uniform ranks leaves a band, summed over the Markov chain of its counts."""
    from scipy.special import gammaln

    if bool((limits.low > limits.high).any()):
        return 1.0
    count, most = limits.simulations, limits.most
    log_factorial = gammaln(np.arange(count + 1) + 1.0)
    states, weights = np.array([0]), np.array([1.0])
    for step in range(most):
        p = 1.0 / (most + 1 - step)  # of the ranks that are not below yet, those that are equal to step
        after = np.arange(limits.low[step], limits.high[step] + 1)
        jump = after[None] - states[:, None]
        inside = jump >= 0
        jump = np.where(inside, jump, 0)
        left = (count - states)[:, None]
        log_p = (
            log_factorial[left]
            - log_factorial[jump]
            - log_factorial[np.maximum(left - jump, 0)]
            + jump * math.log(p)
            + (left - jump) * math.log1p(-p)
        )
        weights = weights @ np.where(inside, np.exp(log_p), 0.0)
        states = after
    return float(min(1.0, max(0.0, 1.0 - weights.sum())))


def holm(p_values: np.ndarray) -> np.ndarray:
    """p-values adjusted for their number (Holm): below a rate with at most that probability if all are uniform."""
    known = np.where(np.isnan(p_values), 1.0, p_values)
    order = np.argsort(known)
    factors = len(known) - np.arange(len(known))
    adjusted = np.empty(len(known))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(known[order] * factors))
    return adjusted


def shape_in_words(ranks: np.ndarray, most: int) -> str:
    """What ranks that are not uniform say of the posterior: its place, or its width."""
    u = (ranks + 0.5) / (most + 1)
    place = (u.mean() - 0.5) * math.sqrt(12 * len(u))
    # about their own mean: ranks that are all large would be far apart from the middle
    width = (u.var() - (1 - (most + 1.0) ** -2) / 12) * math.sqrt(180 * len(u))
    if max(abs(place), abs(width)) < 2.5:
        return "has another shape"
    if abs(place) > abs(width):
        return "lies too low" if place > 0 else "lies too high"
    return "is too narrow" if width > 0 else "is too wide"
