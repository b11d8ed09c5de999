r"""Whether chains have mixed, and how much their draws are worth.

Values are numpy arrays ``(chains, draws, ...)``; all entries of the trailing axes are treated at once. Definitions of
A. Vehtari, A. Gelman, D. Simpson, B. Carpenter and P.-C. Bürkner, "Rank-normalization, folding, and localization: an
improved R-hat for assessing convergence of MCMC", Bayesian Analysis 16 (2021), 667-718, on chains split in halves:

- R-hat: :math:`\sqrt{((n - 1) W / n + B / n) / W}` of the rank-normalised values, and of their distances from the
  median; the larger one.
- bulk ESS: of the rank-normalised values; tail ESS: the smaller one of the indicators below the 5 % and the 95 %
  quantile. Autocorrelations are summed by Geyer's initial monotone sequence.
- E-BFMI of a chain: :math:`\overline{(E_{i+1} - E_i)^2} / \mathrm{Var}(E)` (M. Betancourt, arXiv:1604.00695).

An entry that never moved has the R-hat infinity and one effective draw. The tests compare everything with ArviZ.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# ranks of so many numbers at a time: an array of 8 MiB
CHUNK = 2**20


@dataclass(frozen=True)
class Mixing:
    """Diagnostics of every entry, arrays of the trailing shape ``(...)``.

    Attributes:
        rhat: rank-normalised split R-hat.
        ess_bulk, ess_tail: effective sample sizes of the bulk and of the tails.
        mcse_mean: standard error of the mean (sd over the root of the ESS of the values themselves).
    """

    rhat: np.ndarray
    ess_bulk: np.ndarray
    ess_tail: np.ndarray
    mcse_mean: np.ndarray


def mixing(values: np.ndarray) -> Mixing:
    """Diagnostics of chains ``(chains, draws, ...)``; NaN everywhere where chains are shorter than 4 draws."""
    chains, draws = values.shape[:2]
    shape = values.shape[2:]
    if draws < 4:
        nothing = np.full(shape, np.nan)
        return Mixing(nothing, nothing, nothing, nothing)
    columns = values.reshape(chains, draws, -1)
    step = max(1, CHUNK // (chains * draws))
    parts = [_mixing(_entries_first(columns[:, :, k : k + step])) for k in range(0, columns.shape[2], step)]
    return Mixing(*(np.concatenate(found).reshape(shape) for found in zip(*parts, strict=True)))


def _mixing(values: np.ndarray) -> tuple[np.ndarray, ...]:
    """The fields of :class:`Mixing` for chains ``(entries, chains, draws)``."""
    halves = split(values)
    ranked = rank_normalised(halves)
    folded = rank_normalised(np.abs(halves - np.median(halves, axis=(1, 2), keepdims=True)))
    flat = values.reshape(len(values), -1)
    low, high = np.quantile(flat, [0.05, 0.95], axis=1)[:, :, None, None]
    tail = np.minimum(_ess((halves <= low).astype(float)), _ess((halves <= high).astype(float)))
    stuck = np.ptp(flat, axis=1) == 0
    return (
        np.where(stuck, np.inf, np.maximum(_rhat(ranked), _rhat(folded))),
        np.where(stuck, 1.0, _ess(ranked)),
        np.where(stuck, 1.0, tail),
        np.where(stuck, np.nan, flat.std(1, ddof=1) / np.sqrt(_ess(halves))),
    )


def split(values: np.ndarray) -> np.ndarray:
    """Chains ``(entries, chains, draws)``, each as two of half its length (without the middle draw of an odd one)."""
    half = values.shape[2] // 2
    return np.concatenate([values[:, :, :half], values[:, :, -half:]], axis=1)


def rank_normalised(values: np.ndarray) -> np.ndarray:
    """Normal scores of the ranks among all chains (ties share their mean rank), by Blom's formula."""
    from scipy import special, stats

    count = values.shape[1] * values.shape[2]
    ranks = stats.rankdata(values.reshape(-1, count), axis=1)
    return special.ndtri((ranks - 0.375) / (count + 0.25)).reshape(values.shape)


def _rhat(values: np.ndarray) -> np.ndarray:
    draws = values.shape[2]
    between = values.mean(2).var(1, ddof=1)
    within = values.var(2, ddof=1).mean(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.sqrt((draws - 1) / draws + between / within)


def effective_draws(values: np.ndarray) -> np.ndarray:
    """Effective draws for the mean of chains ``(chains, draws, ...)``, split in halves."""
    return _ess(split(_entries_first(values))).reshape(values.shape[2:])


def _entries_first(values: np.ndarray) -> np.ndarray:
    """``(chains, draws, ...)`` as ``(entries, chains, draws)``."""
    columns = values.reshape(*values.shape[:2], -1)
    return np.ascontiguousarray(np.moveaxis(columns, 2, 0))


def _ess(values: np.ndarray) -> np.ndarray:
    """Effective sample size of chains ``(entries, chains, draws)``, as in Stan."""
    _, chains, draws = values.shape
    covariance = _autocovariance(values).mean(1)  # (entries, lags)
    within = covariance[:, :1] * draws / (draws - 1)
    plus = covariance[:, :1] + values.mean(2).var(1, ddof=1)[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        correlation = 1.0 - (within - covariance) / plus
    correlation[:, 0] = 1.0
    last = max(1, (draws - 1) // 2)  # pairs of lags (2k, 2k + 1) that are looked at
    pairs = correlation[:, : 2 * last].reshape(-1, last, 2)
    sums = pairs.sum(2)
    ended = sums < 0
    ended[:, -1] = True
    first = ended.argmax(1)  # the first pair that is not summed, all but its even lag
    monotone = np.minimum.accumulate(sums, axis=1)
    summed = np.where(np.arange(last) < first[:, None], monotone, 0.0).sum(1)
    even = np.take_along_axis(pairs[:, :, 0], first[:, None], 1)[:, 0].clip(min=0)
    total = float(chains * draws)
    time = np.maximum(-1.0 + 2.0 * summed + even, 1.0 / np.log10(total))
    # where nothing varies (the indicator of a quantile can be constant) every draw is as good as another
    return np.where(np.ptp(values, axis=(1, 2)) == 0, total, total / time)


def _autocovariance(values: np.ndarray) -> np.ndarray:
    """Biased autocovariances along the last axis, by FFT."""
    from scipy import fft

    draws = values.shape[2]
    size = fft.next_fast_len(2 * draws, real=True)
    spectrum = fft.rfft(values - values.mean(2, keepdims=True), size)
    return fft.irfft(spectrum.real**2 + spectrum.imag**2, size)[:, :, :draws] / draws


def energy_mixing(energy: np.ndarray) -> np.ndarray:
    """E-BFMI of each chain, from energies ``(chains, draws)``; NaN where they do not vary or are too few."""
    if energy.shape[1] < 4:  # as for R-hat and ESS
        return np.full(len(energy), np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.square(np.diff(energy, axis=1)).mean(1) / energy.var(1, ddof=1)
