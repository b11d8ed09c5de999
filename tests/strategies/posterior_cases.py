"""Small posteriors: one that is normal and known, others that are not; and how draws are judged."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats
from torch import Tensor
from torch.distributions import LogNormal, MultivariateNormal, Normal

from dpcontrol.problem import Gaussian, GaussianField, Problem, inference_problem, observe

F64 = torch.float64
FALSE_ALARM = 1e-4  # of each statistical test on draws


@dataclass(frozen=True)
class Linear:
    """``y = G theta + noise``, normal prior and noise; some entries were not measured.

    Two experiments (scenarios) share theta: the second sees ``-G``.
    """

    size: int = 3
    entries: int = 5
    scale: float = 0.4
    seed: int = 0

    def _random(self, *shape: int) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed)
        return torch.randn(shape, generator=generator, dtype=F64)

    @property
    def G(self) -> Tensor:
        return self._random(self.entries, self.size)

    @property
    def data(self) -> Tensor:
        found = self._random(2, self.entries).flip(1)
        found[0, 1] = found[1, 0] = torch.nan
        return found

    @property
    def prior(self) -> MultivariateNormal:
        root = torch.eye(self.size, dtype=F64) + 0.3 * self._random(self.size, self.size).tril(-1)
        return MultivariateNormal(self._random(self.size), scale_tril=1.5 * root)

    def problem(self) -> Problem:
        G = self.G

        def step(state: Tensor, control: None, *, parameters: dict[str, Tensor]) -> Tensor:
            return state + parameters["sign"] * (parameters["theta"] @ G.T)

        return inference_problem(
            step,
            data=self.data[None],
            observation=observe(noise=Gaussian(self.scale), steps=[1]),
            initial_state=torch.zeros(2, self.entries, dtype=F64),
            horizon=1,
            parameters={"sign": torch.ones(1, dtype=F64)},
            scenarios={"sign": torch.tensor([[1.0], [-1.0]], dtype=F64)},
            prior={"theta": self.prior},
            name="linear",
        )

    def closed_form(self) -> tuple[Tensor, Tensor]:
        """Mean and covariance of theta."""
        both = torch.cat([self.G, -self.G])
        y = self.data.flatten()
        seen = ~torch.isnan(y)
        precision = self.prior.precision_matrix + both[seen].T @ both[seen] / self.scale**2
        right = self.prior.precision_matrix @ self.prior.mean + both[seen].T @ y[seen] / self.scale**2
        covariance = torch.linalg.inv(precision)
        return covariance @ right, covariance


def growth(data: list[float] | None = None, scale: float | str = "scale") -> Problem:
    """Logistic growth of one population, its rate, start and (by default) noise scale unknown: a skewed posterior."""

    def step(state: Tensor, control: None, *, parameters: dict[str, Tensor]) -> Tensor:
        return state + 0.2 * parameters["rate"] * state * (1 - state)

    measured = [0.14, 0.27, 0.38, 0.61, 0.72, 0.88] if data is None else data
    prior = {
        "rate": LogNormal(*torch.tensor([0.0, 0.7], dtype=F64)),
        "initial_state": LogNormal(*torch.tensor([-2.0, 0.5], dtype=F64)),
    }
    if isinstance(scale, str):
        prior[scale] = LogNormal(*torch.tensor([-2.5, 0.6], dtype=F64))
    return inference_problem(
        step,
        data=torch.tensor(measured, dtype=F64)[:, None, None],
        observation=observe(noise=Gaussian(scale), steps=[2 * (k + 1) for k in range(len(measured))]),
        initial_state=torch.full((1, 1), 0.1, dtype=F64),
        horizon=2 * len(measured),
        prior=prior,
        name="growth",
    )


def squared(start: float = 0.0, data: float = 4.0) -> Problem:
    """``y = theta^2``: two modes with a saddle of the log-density at zero."""
    return inference_problem(
        lambda state, control, *, parameters: state + parameters["theta"].square(),
        data=torch.full((1, 1, 1), data, dtype=F64),
        observation=observe(noise=Gaussian(0.5), steps=[1]),
        initial_state=torch.zeros(1, 1, dtype=F64),
        horizon=1,
        prior={"theta": Normal(*torch.tensor([0.0, 2.0], dtype=F64))},
        start={"theta": torch.tensor(start, dtype=F64)},
        name="squared",
    )


def field(cells: int) -> Problem:
    """Which field was there at the start of a bistable diffusion? Twelve sensors see its end."""
    steps, sensors = 6, 12
    x = (torch.arange(cells, dtype=F64) + 0.5) / cells
    k = 2 * torch.pi * torch.fft.rfftfreq(cells, 1 / cells).to(F64)
    decay = torch.exp(-0.002 * k.square() / steps)

    def step(state: Tensor, control: None) -> Tensor:
        diffused = torch.fft.irfft(torch.fft.rfft(state) * decay, n=cells)
        return diffused + 0.03 * (diffused - diffused**3)

    places = (torch.arange(sensors, dtype=F64) + 0.5) / sensors
    away = torch.remainder(places[:, None] - x + 0.5, 1.0) - 0.5
    weights = torch.exp(-0.5 * (away / 0.02).square())
    weights = weights / weights.sum(1, keepdim=True)
    end = torch.sin(2 * torch.pi * places) + 0.6 * torch.cos(6 * torch.pi * places)
    return inference_problem(
        step,
        data=0.8 * end[None, None],
        observation=observe(lambda state: state @ weights.T, noise=Gaussian(0.05), steps=[steps]),
        initial_state=torch.zeros(1, cells, dtype=F64),
        horizon=steps,
        prior={"initial_state": GaussianField(cells, 1.0, length_scale=0.15)},
        name="field",
    )


def surprises(draws: np.ndarray, mean: Tensor, covariance: Tensor) -> dict[str, float]:
    """P-values that independent ``draws (n, d)`` are from ``N(mean, covariance)``: of their mean and their spread."""
    root = np.linalg.cholesky(covariance.numpy())
    white = np.linalg.solve(root, (draws - mean.numpy()).T).T
    n, d = white.shape
    spread = white - white.mean(0)
    products = np.linalg.eigvalsh(spread.T @ spread / (n - 1))
    # Bartlett's test of a covariance against a known one
    likelihood = (n - 1) * (products.sum() - np.log(products).sum() - d)
    return {
        "mean": float(stats.chi2.sf(n * (white.mean(0) ** 2).sum(), d)),
        "covariance": float(stats.chi2.sf(likelihood, d * (d + 1) / 2)),
    }


def grid_moments(problem: Problem, points: int = 301, reach: float = 6.0) -> tuple[list[float], list[float]]:
    """Means and standard deviations of the logarithms of growth's rate and start, by the trapezoidal rule."""
    x = torch.linspace(-reach, reach, points, dtype=F64)
    free = torch.cartesian_prod(x, x)

    def density(row: Tensor) -> Tensor:
        z = {"parameters": {"rate": row[0]}, "initial_state": row[1].reshape(1, 1)}
        return problem.log_density(z)

    found = torch.func.vmap(density, chunk_size=5000)(free)
    weights = torch.softmax(torch.where(torch.isfinite(found), found, -torch.inf), 0)
    natural = torch.stack([0.7 * free[:, 0], -2.0 + 0.5 * free[:, 1]])
    mean = (weights * natural).sum(1)
    sd = (weights * (natural - mean[:, None]).square()).sum(1).sqrt()
    return mean.tolist(), sd.tolist()
