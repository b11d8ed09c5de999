"""``eki``: ensemble Kalman inversion, a posterior from forward runs alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dpcontrol.meter import Meter
from dpcontrol.posterior import Draws
from dpcontrol.problem import Problem, View
from dpcontrol.problem.predicting import measurements, misfits
from dpcontrol.problem.terms import Misfit
from dpcontrol.results import Status, UsageError
from dpcontrol.run import Outcome
from dpcontrol.strategies.checks import whole
from dpcontrol.strategies.posteriors.gaussian import log_densities
from dpcontrol.strategies.posteriors.joint import PosteriorStrategy

TOGETHER = 128  # members that run as one batch
REDRAWS = 5  # of members whose run failed
NO_SURVIVORS = (
    "fewer than half of the members can be simulated: a narrower prior, shorter time steps, or stress_test to find out "
    "what fails."
)


@dataclass(frozen=True)
class EnsembleKalman(PosteriorStrategy):
    r"""Ensemble Kalman inversion: an ensemble drawn from the prior is moved to the posterior, without gradients.

    The likelihood is let in little by little, :math:`p_t \propto p(z)\, p(y | z)^t` from :math:`t = 0` to 1. In each
    step of size :math:`h`, in white numbers x and with predictions g and data y in units of the noise,

    .. math:: \bar x' = \bar x + X^T G \, (G^T G + I / h)^{-1} (y - \bar g), \qquad X' = (I + h\, G G^T)^{-1/2} X,

    where the rows of X and G are the members' deviations over the root of their number less one (the deterministic
    update of the ensemble transform filter; no data are perturbed). The size of a step is chosen from the misfits so
    that no step learns more than the measurements can tell. The first ensemble has exactly the prior's mean and
    covariance where it has more members than there are unknowns; then a linear problem with Gaussian noise ends with
    exactly its posterior's.

    In a nonlinear problem the answer is an approximation that stays wrong with any number of members: it knows means
    and covariances only. With fewer members than directions that the data inform, spreads are too narrow. A member
    whose run fails is counted and drawn again among the others.

    Args:
        members: of the ensemble.
        steps: at most; a problem that needs more is refused to be called converged.

    Source: M. Iglesias, K. Law, A. Stuart, "Ensemble Kalman methods for inverse problems", Inverse Problems 29 (2013);
    the tempering: M. Iglesias, Y. Yang, "Adaptive regularisation for ensemble Kalman inversion", Inverse Problems 37
    (2021); the update: C. Bishop, B. Etherton, S. Majumdar, Monthly Weather Review 129 (2001).
    """

    members: int = 200
    steps: int = 100

    def __post_init__(self) -> None:
        whole("EnsembleKalman", least=4, members=self.members)
        whole("EnsembleKalman", steps=self.steps)

    @property
    def needs(self) -> frozenset[View]:
        return frozenset({View.LOG_DENSITY, View.WHITE_PRIOR, View.STANDARD_NOISE})

    def run(self, meter: Meter, generator: torch.Generator) -> Status | Outcome:
        kept: Any = meter.resumed()
        y = standardised(meter.problem, flat_data(meter.problem)[None])[0].cpu()
        x = _first(self.members, meter.dimension, generator) if kept is None else kept["x"]
        temperatures: list[float] = [0.0] if kept is None else list(kept["temperatures"])
        misfits: list[float] = [] if kept is None else list(kept["misfits"])
        while temperatures[-1] < 1.0 and len(temperatures) <= self.steps:
            try:
                x, g = _simulated(lambda some: _predicted(meter, some), x, generator)
            except TooManyFailed:
                return Status("failed", NO_SURVIVORS)
            potential = 0.5 * (y - g).square().sum(1)
            misfits.append(float(2 * potential.mean() / len(y)))
            h = _size(potential, len(y), 1.0 - temperatures[-1])
            x = _updated(x, g, y, h)
            temperatures.append(1.0 if h >= 1.0 - temperatures[-1] else temperatures[-1] + h)
            meter.keep({"x": x, "temperatures": list(temperatures), "misfits": list(misfits)}.copy)
        try:
            x, found = _simulated(lambda some: log_densities(meter, some).cpu()[:, None], x, generator)
        except TooManyFailed:
            return Status("failed", NO_SURVIVORS)
        notes: dict[str, Any] = {"method": "EnsembleKalman", "temperatures": temperatures, "misfits": misfits}
        draws = Draws(x[None], found[None, :, 0], kind="ensemble", notes=notes)
        return Outcome(self._status(temperatures, meter.dimension), draws=draws)

    def _status(self, temperatures: list[float], dimension: int) -> Status:
        count = len(temperatures) - 1
        if temperatures[-1] < 1.0:
            told = (
                f"{count} steps let in {100 * temperatures[-1]:.2g} % of the likelihood only: the ensemble is too wide "
                "for its posterior; allow more steps."
            )
            return Status("iterations spent", told)
        words = f"{self.members} members went from the prior to the posterior in {count} steps."
        if self.members <= dimension:
            words += (
                f" They span {self.members - 1} of {dimension} directions, so spreads are too narrow where the data "
                "inform more than that: use more members."
            )
        return Status("converged", words)


class TooManyFailed(Exception):
    """Fewer than half of an ensemble could be simulated."""


def flat_data(problem: Problem) -> Tensor:
    """All that was measured in one vector, in the order of the meter's predictions."""
    return torch.cat([data[~torch.isnan(data)] for data in measurements(problem)])


def standardised(problem: Problem, flat: Tensor) -> Tensor:
    """Predictions or data ``(rows, entries)`` in units of the noise: their differences are then ``N(0, I)``.

    Raises:
        UsageError: if a noise model is not Gaussian with a known scale.
    """
    weights = [weight for weight, term in problem.objective.terms if isinstance(term, Misfit)]
    found = []
    first = 0
    for weight, term, data in zip(weights, misfits(problem), measurements(problem), strict=True):
        if not term.noise.standard:
            raise UsageError(f"{problem.name} has no Gaussian noise of known scale, {term.noise}: use nuts.")
        seen = ~torch.isnan(data)
        count = int(seen.sum())
        whole = torch.ones(len(flat), *data.shape, dtype=flat.dtype, device=flat.device)
        whole[:, seen] = flat[:, first : first + count]
        found.append(weight**0.5 * term.noise.fisher_root(whole, {})[0][:, seen])
        first += count
    return torch.cat(found, 1)


def _first(members: int, dimension: int, generator: torch.Generator) -> Tensor:
    """Standard normal members; with exactly their mean and covariance, where there are enough of them."""
    x = torch.randn(members, dimension, generator=generator, dtype=torch.float64)
    if members <= dimension:
        return x
    x = x - x.mean(0)
    root = torch.linalg.cholesky(x.T @ x / (members - 1))
    return torch.linalg.solve_triangular(root, x.T, upper=False).T


def _simulated(
    ask: Callable[[Tensor], Tensor], x: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Members and what is asked of them, ``(members, ...)``; those whose run fails are drawn again among the others."""
    g = ask(x)
    for _ in range(REDRAWS):
        bad = ~torch.isfinite(g).all(1)
        if not bool(bad.any()):
            return x, g
        good = x[~bad]
        if len(good) < max(2, len(x) // 2):
            raise TooManyFailed
        noise = torch.randn(int(bad.sum()), len(good), generator=generator, dtype=x.dtype)
        spread = (good - good.mean(0)) / (len(good) - 1) ** 0.5
        x = x.index_put((bad,), good.mean(0) + noise @ spread)
        g = g.index_put((bad,), ask(x[bad]))
    raise TooManyFailed


def _predicted(meter: Meter, x: Tensor) -> Tensor:
    parts = [meter.predictions(some.to(meter.best_x)) for some in x.split(TOGETHER)]
    return standardised(meter.problem, torch.cat(parts)).to("cpu", torch.float64)


def _size(potential: Tensor, entries: int, left: float) -> float:
    """How much of the likelihood is let in next, given minus its logarithms.

    Either bound keeps the Jeffreys divergence between two ensembles near ``sqrt(entries)``.
    """
    mean, variance = float(potential.mean()), float(potential.var())
    tiny = torch.finfo(torch.float64).tiny
    bounds = entries / (2 * max(mean, tiny)), (entries / (2 * max(variance, tiny))) ** 0.5
    return min(max(bounds), left)


def _updated(x: Tensor, g: Tensor, y: Tensor, h: float) -> Tensor:
    """The ensemble after one step of size ``h``."""
    root = (len(x) - 1) ** 0.5
    X, G = (x - x.mean(0)) / root, (g - g.mean(0)) / root
    U, s, Vh = torch.linalg.svd(G, full_matrices=False)
    gain = s / (s.square() + 1.0 / h)
    mean = x.mean(0) + X.T @ (U @ (gain * (Vh @ (y - g.mean(0)))))
    shrunk = (1.0 + h * s.square()).rsqrt() - 1.0
    moved = X + U @ (shrunk[:, None] * (U.T @ X))
    # the columns of U are orthogonal to ones up to rounding: keep the mean where it is
    return mean + root * (moved - moved.mean(0))
