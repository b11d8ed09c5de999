r"""Figures of merit over scenarios and seeds, with 95 % intervals.

What one run (seed r) is worth is a ratio of means over its scenarios, :math:`m_r = \sum_s a_{rs} / \sum_s b_{rs}` (a
plain mean has ones below). What a strategy is worth is the interquartile mean of :math:`m_r` over its seeds: the mean
without the lowest and the highest quarter of the runs (of fewer than four runs it is the mean). Scenarios are the same
for all seeds and strategies, so they are resampled jointly: numerator with denominator, and one strategy with the other
where two are compared.

- One run (a deterministic strategy): bias-corrected and accelerated (BCa) bootstrap over scenarios.
- Several seeds: seeds and scenarios are resampled independently of each other, percentile interval. With crossed
  factors this is conservative (A. B. Owen, "The pigeonhole bootstrap", Annals of Applied Statistics 1, 2007).
- The luck of seeds alone, on these very scenarios: BCa bootstrap of the interquartile mean over runs
  (:func:`over_seeds`; R. Agarwal et al., "Deep reinforcement learning at the edge of the statistical precipice",
  NeurIPS 2021, argue for this mean where runs are few).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

LEVEL = 0.95
RESAMPLES = 4000
TRIMMED = 0.25  # of the runs at either end
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
    """What a strategy is worth, with its interval: ``top`` over ``bottom``, each ``(seeds, scenarios)``."""
    top, bottom = np.atleast_2d(np.asarray(top, float)), np.atleast_2d(np.asarray(bottom, float))
    value = interquartile_mean(top.mean(1) / bottom.mean(1))
    over = what_varies(*top.shape)
    if over == NOTHING or not np.isfinite(top / bottom.mean()).all():
        return Estimate(value, None, NOTHING)
    if over == OVER_SCENARIOS:
        return Estimate(value, _accelerated(top[0], bottom[0], seed, resamples), over)
    rows, columns = _resampled(*top.shape, over=over, seed=seed, resamples=resamples)
    drawn = _typical((columns @ top.T) / (columns @ bottom.T), rows)
    return Estimate(value, _percentiles(drawn), over)


def over_seeds(values: np.ndarray, *, seed: int = 0, resamples: int = RESAMPLES) -> Estimate:
    """Interquartile mean of one number for each run ``(seeds,)``, with its BCa interval over the runs.

    There is an interval from ``FEWEST`` runs on.
    """
    from scipy import stats

    values = np.asarray(values, float).ravel()
    value = interquartile_mean(values)
    if len(values) < FEWEST or not np.isfinite(values).all():
        return Estimate(value, None, NOTHING)
    if np.ptp(values) <= 1e-12 * np.abs(values).max():
        return Estimate(value, (value, value), OVER_SEEDS)
    with warnings.catch_warnings():
        # where the middle half never changes there is no interval, which is looked at below
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        warnings.simplefilter("ignore", RuntimeWarning)
        found = stats.bootstrap(
            (values,),
            lambda sample, axis: stats.trim_mean(sample, TRIMMED, axis=axis),
            vectorized=True,
            n_resamples=resamples,
            confidence_level=LEVEL,
            method="BCa",
            rng=np.random.default_rng(seed),
        ).confidence_interval
    ends = (float(found.low), float(found.high))
    if not np.isfinite(ends).all():
        rows, _ = _resampled(len(values), 1, over=OVER_SEEDS, seed=seed, resamples=resamples)
        ends = _percentiles(_typical(np.broadcast_to(values, (resamples, len(values))), rows))
    return Estimate(value, ends, OVER_SEEDS)


def what_varies(seeds: int, scenarios: int) -> str:
    """What an interval can be taken over."""
    if seeds > 1:
        return OVER_BOTH if scenarios >= FEWEST else OVER_SEEDS
    return OVER_SCENARIOS if scenarios >= FEWEST else NOTHING


def paired_difference(
    losses: np.ndarray, others: np.ndarray, *, seed: int = 0, resamples: int = RESAMPLES
) -> Estimate:
    """How much more ``others`` are worth than ``losses``, as a share of the latter's size: (b - a) / |a|.

    Both ``(seeds, scenarios)`` with the same scenarios, whose luck they share, so that this is sharper than to
    compare two intervals. Each resample has its own ``a`` below, so that twice the loss in every scenario is 100 % with
    certainty; where some resample has an ``a`` of the other sign, or none, all have that of the whole.
    """
    losses, others = np.atleast_2d(np.asarray(losses, float)), np.atleast_2d(np.asarray(others, float))
    worth, other_worth = interquartile_mean(losses.mean(1)), interquartile_mean(others.mean(1))
    scale = abs(worth) or 1.0
    value = (other_worth - worth) / scale
    over = what_varies(max(len(losses), len(others)), losses.shape[1])
    if over == NOTHING:
        return Estimate(value, None, NOTHING)
    rows, columns = _resampled(*losses.shape, over=over, seed=seed, resamples=resamples)
    other_rows, _ = _resampled(len(others), losses.shape[1], over=over, seed=seed + 1, resamples=resamples)
    below = _typical(columns @ losses.T, rows)
    drawn = (_typical(columns @ others.T, other_rows) - below) / (
        np.abs(below) if (below * worth > 0).all() else scale
    )
    return Estimate(value, _percentiles(drawn), over)


def interquartile_mean(values: np.ndarray) -> float:
    """Mean of the middle half: what a typical seed gives, whatever the luckiest and unluckiest did."""
    from scipy import stats

    return float(stats.trim_mean(np.asarray(values, float).ravel(), TRIMMED))


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
    return _percentiles(_typical((columns @ top[:, None]) / (columns @ bottom[:, None]), rows))


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


def _typical(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Interquartile means ``(resamples,)`` of runs ``(resamples, seeds)``, each drawn as often as ``rows`` say."""
    seeds = values.shape[1]
    cut = int(TRIMMED * seeds)
    order = np.argsort(values, axis=1, kind="stable")
    ranked, drawn = np.take_along_axis(values, order, 1), np.take_along_axis(rows, order, 1)
    # of the runs in order, each with its weight, those between the lowest and the highest cut count
    ends = np.cumsum(drawn, axis=1)
    low, high = cut / seeds, 1 - cut / seeds
    kept = np.clip(np.minimum(ends, high) - np.maximum(ends - drawn, low), 0.0, None)
    return np.asarray((ranked * kept).sum(1) / kept.sum(1))


def _percentiles(drawn: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
