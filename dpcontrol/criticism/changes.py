"""By how much posterior moments change from one density to another, with Monte Carlo errors."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dpcontrol.criticism.quantities import quantities
from dpcontrol.meter import Meter
from dpcontrol.problem.base import Problem

SMALL = 0.1  # of a posterior sd, and of the ratio of sds
ERRORS = 3.0  # Monte Carlo errors that are allowed for
BLOCKS = 20  # of consecutive draws, left out one by one for the Monte Carlo error


@dataclass(frozen=True)
class Change:
    """What becomes of one quantity at half the step.

    ``shift`` is that of its mean in posterior standard deviations, ``ratio`` that of its standard deviations (half step
    over whole), each with its Monte Carlo standard error.
    """

    name: str
    shift: float
    shift_error: float
    ratio: float
    ratio_error: float

    @property
    def large(self) -> bool:
        """Whether it is larger than a tenth, Monte Carlo errors allowed for."""
        return abs(self.shift) - ERRORS * self.shift_error > SMALL or (
            abs(self.ratio - 1) - ERRORS * self.ratio_error > SMALL
        )

    @property
    def small(self) -> bool:
        """Whether it is smaller than a tenth even so."""
        return abs(self.shift) + ERRORS * self.shift_error < SMALL and (
            abs(self.ratio - 1) + ERRORS * self.ratio_error < SMALL
        )


def thinned(free: Tensor, draws: int) -> Tensor:
    """``(chains, fewer draws, dimension)``, evenly spaced in each chain."""
    each = min(free.shape[1], max(1, math.ceil(draws / free.shape[0])))
    return free[:, (torch.arange(each, dtype=torch.float64) * free.shape[1] / each).long()]


def log_densities(problem: Problem, free: Tensor) -> np.ndarray:
    """``(chains, draws)``, ``-inf`` where the simulator fails."""
    meter = Meter(problem)
    flat = free.reshape(-1, free.shape[2]).to(meter.start())
    parts = [meter.log_densities(part) for part in flat.split(64)]
    return torch.cat(parts).to("cpu", torch.float64).numpy().reshape(free.shape[:2])


def _values(problem: Problem, free: Tensor) -> tuple[list[str], np.ndarray]:
    """Names and numbers ``(quantities, chains, draws)``."""
    found = quantities(problem, free.reshape(-1, free.shape[2]))
    return list(found), np.stack(list(found.values())).reshape(-1, *free.shape[:2])


def weighted(problem: Problem, free: Tensor, log_weights: np.ndarray) -> list[Change]:
    names, values = _values(problem, free)
    ones = np.ones_like(log_weights)
    weights = np.exp(log_weights - log_weights.max())

    def changes(keep: np.ndarray) -> np.ndarray:
        mean, sd = _moments(values, ones * keep)
        mean_half, sd_half = _moments(values, weights * keep)
        return np.stack([(mean_half - mean) / sd, sd_half / sd])

    found, error = _jackknifed(changes, log_weights.shape)
    return [_change(name, *pair) for name, *pair in zip(names, *found, *error, strict=True)]


def compared(problem: Problem, free: Tensor, other: Tensor) -> list[Change]:
    """Two independent sets of draws."""
    names, values = _values(problem, free)
    _, values_half = _values(problem, other)

    def with_errors(of: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return _jackknifed(lambda keep: np.stack(_moments(of, 1.0 * keep)), of.shape[1:])

    (mean, sd), (mean_error, sd_error) = with_errors(values)
    (mean_half, sd_half), (mean_half_error, sd_half_error) = with_errors(values_half)
    ratio = sd_half / sd
    shift_error = np.hypot(mean_error, mean_half_error) / sd
    ratio_error = ratio * np.hypot(sd_error / sd, sd_half_error / sd_half)
    columns = (mean_half - mean) / sd, ratio, shift_error, ratio_error
    return [_change(name, *row) for name, *row in zip(names, *columns, strict=True)]


def _change(name: str, shift: float, ratio: float, shift_error: float, ratio_error: float) -> Change:
    return Change(name, float(shift), float(shift_error), float(ratio), float(ratio_error))


def _moments(values: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means and standard deviations ``(quantities,)`` under weights ``(chains, draws)``."""
    share = weights / weights.sum()
    mean = (values * share).sum((1, 2))
    away = values - mean[:, None, None]
    return mean, np.sqrt((np.square(away) * share).sum((1, 2)))


def _jackknifed(
    function: Callable[[np.ndarray], np.ndarray], shape: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """A function of the draws that are kept, and its standard error by leaving out blocks of consecutive ones."""
    chains, draws = shape
    each = max(1, min(draws, math.ceil(BLOCKS / chains)))
    block = np.arange(draws) * each // draws
    labels = np.arange(chains)[:, None] * each + block[None]
    count = chains * each
    without = np.stack([function(labels != k) for k in range(count)])
    spread = np.square(without - without.mean(0)).sum(0) * (count - 1) / count
    return function(np.ones(shape, dtype=bool)), np.sqrt(spread)
