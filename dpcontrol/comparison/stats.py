r"""Means and 95 % intervals over scenarios and seeds.

A figure of merit is a ratio of means, :math:`\sum a_{rs} / \sum b_{rs}`, with one numerator and one denominator for
each seed r and scenario s (a plain mean has ones below). Scenarios are the same for all seeds and strategies, so they
are resampled jointly: numerator with denominator, and one strategy with the other where two are compared.

- One run (a deterministic strategy): bias-corrected and accelerated (BCa) bootstrap over scenarios.
- Several seeds: seeds and scenarios are resampled independently of each other, percentile interval. With crossed
  factors this is conservative (A. B. Owen, "The pigeonhole bootstrap", Annals of Applied Statistics 1, 2007).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

LEVEL = 0.95
RESAMPLES = 4000
FEWEST = 5  # below so many scenarios (and a single seed) an interval would only look like one
OVER_SCENARIOS, OVER_BOTH, OVER_SEEDS, NOTHING = "scenarios", "seeds and scenarios", "seeds", "nothing"


@dataclass(frozen=True)
class Estimate:
    """A value, its 95 % interval (``None`` where there is nothing to resample), and what was resampled."""

    value: float
    interval: tuple[float, float] | None
    over: str


def ratio_of_means(
    top: np.ndarray, bottom: np.ndarray, *, seed: int = 0, resamples: int = RESAMPLES
) -> Estimate:
    """Mean of ``top`` over mean of ``bottom``, each ``(seeds, scenarios)``, with its interval."""
    top, bottom = np.atleast_2d(np.asarray(top, float)), np.atleast_2d(np.asarray(bottom, float))
    value = float(top.mean() / bottom.mean())
    over = what_varies(*top.shape)
    if over == NOTHING or not np.isfinite(top / bottom.mean()).all():
        return Estimate(value, None, NOTHING)
    if over == OVER_SCENARIOS:
        return Estimate(value, _accelerated(top[0], bottom[0], seed, resamples), over)
    rows, columns = _resampled(*top.shape, over=over, seed=seed, resamples=resamples)
    drawn = _means(top, rows, columns) / _means(bottom, rows, columns)
    return Estimate(value, _percentiles(drawn), over)


def what_varies(seeds: int, scenarios: int) -> str:
    """What an interval can be taken over."""
    if seeds > 1:
        return OVER_BOTH if scenarios >= FEWEST else OVER_SEEDS
    return OVER_SCENARIOS if scenarios >= FEWEST else NOTHING


def paired_difference(
    losses: np.ndarray, others: np.ndarray, *, seed: int = 0, resamples: int = RESAMPLES
) -> Estimate:
    """How much larger the mean of ``others`` is than that of ``losses``, as a share of the latter's size.

    Both ``(seeds, scenarios)`` with the same scenarios, whose luck they share, so that this is sharper than to
    compare two intervals.
    """
    losses, others = np.atleast_2d(np.asarray(losses, float)), np.atleast_2d(np.asarray(others, float))
    scale = abs(float(losses.mean())) or 1.0
    value = float(others.mean() - losses.mean()) / scale
    over = what_varies(max(len(losses), len(others)), losses.shape[1])
    if over == NOTHING:
        return Estimate(value, None, NOTHING)
    rows, columns = _resampled(*losses.shape, over=over, seed=seed, resamples=resamples)
    other_rows, _ = _resampled(len(others), losses.shape[1], over=over, seed=seed + 1, resamples=resamples)
    drawn = (_means(others, other_rows, columns) - _means(losses, rows, columns)) / scale
    return Estimate(value, _percentiles(drawn), over)


def interquartile_mean(values: np.ndarray) -> float:
    """Mean of the middle half: what a typical seed gives, whatever the luckiest and unluckiest did."""
    from scipy import stats

    return float(stats.trim_mean(np.asarray(values, float).ravel(), 0.25))


def _accelerated(top: np.ndarray, bottom: np.ndarray, seed: int, resamples: int) -> tuple[float, float]:
    from scipy import stats

    value = float(top.mean() / bottom.mean())
    # to first order the ratio moves with these; where they vanish, all scenarios agree
    if np.abs(top - value * bottom).max() <= 1e-12 * np.abs(top).max(initial=0.0):
        return value, value
    with warnings.catch_warnings():
        # what it warns of gives nan, which is looked at below
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        warnings.simplefilter("ignore", RuntimeWarning)
        found = stats.bootstrap(
            (top, bottom),
            lambda a, b, axis: a.mean(axis=axis) / b.mean(axis=axis),
            paired=True,
            vectorized=True,
            n_resamples=resamples,
            batch=max(1, 2_000_000 // len(top)),
            confidence_level=LEVEL,
            method="BCa",
            rng=np.random.default_rng(seed),
        ).confidence_interval
    if np.isfinite([found.low, found.high]).all():
        return float(found.low), float(found.high)
    # no acceleration can be estimated where nearly all scenarios agree, as when numerator and denominator are equal
    rows, columns = _resampled(1, len(top), over=OVER_SCENARIOS, seed=seed, resamples=resamples)
    return _percentiles(_means(top[None], rows, columns) / _means(bottom[None], rows, columns))


def _resampled(
    seeds: int, scenarios: int, *, over: str, seed: int, resamples: int
) -> tuple[np.ndarray, np.ndarray]:
    """Weights of each seed ``(resamples, seeds)`` and of each scenario ``(resamples, scenarios)``: how often drawn."""

    def drawn(count: int, wanted: bool, stream: list[int]) -> np.ndarray:
        if not wanted:
            return np.full((resamples, count), 1.0 / count)
        generator = np.random.default_rng(stream)
        return generator.multinomial(count, np.full(count, 1.0 / count), size=resamples) / count

    # a stream for each, so that scenarios are drawn alike whatever the seeds are
    rows = drawn(seeds, over in (OVER_BOTH, OVER_SEEDS), [seed, 0])
    return rows, drawn(scenarios, over in (OVER_BOTH, OVER_SCENARIOS), [0, 1])


def _means(values: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    return np.einsum("br,rs,bs->b", rows, values, columns, optimize=True)


def _percentiles(drawn: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
