"""How near an approximation is to the posterior, by the tail of its importance weights.

Weights are ``p(free | data) / q(free)`` at independent draws of ``q``. The largest of them are fitted by a generalised
Pareto distribution; its shape k tells how many of their moments exist: below 0.7 a few thousand draws of q can be
reweighted to the posterior, above it q misses much of it. A. Vehtari, D. Simpson, A. Gelman, Y. Yao and J. Gabry,
"Pareto smoothed importance sampling", JMLR 25 (2024); the fit is that of J. Zhang and M. A. Stephens, "A new and
efficient estimation method for the generalized Pareto distribution", Technometrics 51 (2009), 316-325, with their weak
prior on k.
"""

from __future__ import annotations

import numpy as np

FEWEST_TAIL = 5


def pareto_shape(log_weights: np.ndarray) -> float:
    """Pareto k of importance weights ``(draws,)``, given as logarithms up to a constant.

    Infinity where the tail has fewer than 5 weights, and minus infinity where all weights are equal: the approximation
    is exact.
    """
    ordered = np.sort(log_weights - log_weights.max())
    if np.ptp(ordered) < 1e-9:
        return float("-inf")
    tail = int(np.ceil(min(0.2 * len(ordered), 3.0 * np.sqrt(len(ordered)))))
    cutoff = max(float(ordered[-tail - 1]), float(np.log(np.finfo(float).tiny)))
    above = np.exp(ordered[ordered > cutoff]) - np.exp(cutoff)
    if len(above) < FEWEST_TAIL:
        return float("inf")
    return _fitted_shape(above)


def _fitted_shape(excess: np.ndarray) -> float:
    """Shape of a generalised Pareto distribution from ascending excesses over its threshold."""
    count = len(excess)
    points = 30 + int(np.sqrt(count))
    quarter = excess[int(count / 4 + 0.5) - 1]
    grid = 1.0 - np.sqrt(points / (np.arange(1, points + 1) - 0.5))
    theta = grid / (3.0 * quarter) + 1.0 / excess[-1]
    shapes = np.log1p(-theta[:, None] * excess).mean(1)
    likelihood = count * (np.log(-theta / shapes) - shapes - 1.0)
    with np.errstate(over="ignore"):
        posterior = 1.0 / np.exp(likelihood - likelihood[:, None]).sum(1)
    kept = posterior >= 10 * np.finfo(float).eps
    best = float((theta[kept] * posterior[kept]).sum() / posterior[kept].sum())
    shape = float(np.log1p(-best * excess).mean())
    return (count * shape + 10 * 0.5) / (count + 10)
