"""Two searches for many unknowns from ranks alone: what is sampled next, and what the losses teach."""

from __future__ import annotations

import abc
import math
from typing import Any

import torch
from torch import Tensor


class Search(abc.ABC):
    """A normal distribution over ``(dimension,)`` numbers that learns from the ranks of its samples.

    Attributes:
        mean: its mean, ``(dimension,)``.
        sigma: its spread.
    """

    mean: Tensor
    sigma: float

    @abc.abstractmethod
    def ask(self, count: int, generator: torch.Generator) -> Tensor:
        """Samples ``(count, dimension)``."""

    @abc.abstractmethod
    def tell(self, losses: Tensor, rate: float) -> None:
        """Losses ``(count,)`` of the samples, infinite where the system failed; ``rate`` from 1 falls to 0."""

    @abc.abstractmethod
    def pack(self) -> dict[str, Any]:
        """Everything that the rest of the search depends on."""

    @abc.abstractmethod
    def unpack(self, kept: dict[str, Any]) -> None:
        """Go on from there."""


class Antithetic(Search):
    r"""Pairs :math:`m \pm \sigma \epsilon`, whose centred ranks estimate a gradient, which Adam follows.

    .. math:: g = \frac{1}{n \sigma} \sum_j (r_j^+ - r_j^-) \epsilon_j, \quad r \in [-1/2, 1/2]

    Source: T. Salimans et al., "Evolution strategies as a scalable alternative to reinforcement learning",
    arXiv:1703.03864 (2017).
    """

    def __init__(self, mean: Tensor, sigma: float, learning_rate: float) -> None:
        self.mean, self.sigma, self._learning_rate = mean.clone(), sigma, learning_rate
        self._first, self._second = torch.zeros_like(mean), torch.zeros_like(mean)
        self._steps = 0

    def ask(self, count: int, generator: torch.Generator) -> Tensor:
        half = torch.randn(count // 2, len(self.mean), generator=generator, dtype=torch.float64)
        self._noise = half.to(self.mean)
        return self.mean + self.sigma * torch.cat([self._noise, -self._noise])

    def tell(self, losses: Tensor, rate: float) -> None:
        if not bool(torch.isfinite(losses).any()):
            return
        ranks = losses.argsort(stable=True).argsort().to(self.mean) / (len(losses) - 1) - 0.5
        plus, minus = ranks.chunk(2)
        gradient = (plus - minus) @ self._noise / (len(losses) * self.sigma)
        self._steps += 1
        self._first = 0.9 * self._first + 0.1 * gradient
        self._second = 0.999 * self._second + 0.001 * gradient.square()
        direction = self._first / (1 - 0.9**self._steps)
        size = (self._second / (1 - 0.999**self._steps)).sqrt()
        self.mean = self.mean - rate * self._learning_rate * direction / (size + 1e-12)

    def pack(self) -> dict[str, Any]:
        return {"mean": self.mean, "first": self._first, "second": self._second, "steps": self._steps}

    def unpack(self, kept: dict[str, Any]) -> None:
        self.mean, self._first, self._second = kept["mean"], kept["first"], kept["second"]
        self._steps = kept["steps"]


class Separable(Search):
    r"""Covariance matrix adaptation with a diagonal matrix: :math:`m + \sigma D z`, learning all three.

    Costs and memory are linear in the dimension, and its learning rate is :math:`(n + 2)/3` times that of the full
    matrix. Rate ``0`` is never asked for: the spread adapts itself.

    Source: R. Ros, N. Hansen, "A simple modification in CMA-ES achieving linear time and space complexity", PPSN 2008;
    weights and constants: N. Hansen, "The CMA Evolution Strategy: A Tutorial", arXiv:1604.00772.
    """

    def __init__(self, mean: Tensor, sigma: float, count: int) -> None:
        n = len(mean)
        self.mean, self.sigma = mean.clone(), sigma
        self._variances = torch.ones_like(mean)
        self._path, self._path_of_sigma = torch.zeros_like(mean), torch.zeros_like(mean)
        self._steps = 0
        parents = count // 2
        raw = math.log((count + 1) / 2) - torch.arange(1, parents + 1).log()
        self._weights = (raw / raw.sum()).to(mean)
        self._mass = mass = float(1 / self._weights.square().sum())
        self._rate_of_sigma = (mass + 2) / (n + mass + 5)
        self._damping = 1 + 2 * max(0.0, math.sqrt((mass - 1) / (n + 1)) - 1) + self._rate_of_sigma
        self._rate_of_path = (4 + mass / n) / (n + 4 + 2 * mass / n)
        one = 2 / ((n + 1.3) ** 2 + mass)
        many = min(1 - one, 2 * (mass - 2 + 1 / mass) / ((n + 2) ** 2 + mass))
        self._rank_one, self._rank_many = (min(1.0, value * (n + 2) / 3) for value in (one, many))
        self._usual = math.sqrt(n) * (1 - 1 / (4 * n) + 1 / (21 * n * n))

    def ask(self, count: int, generator: torch.Generator) -> Tensor:
        drawn = torch.randn(count, len(self.mean), generator=generator, dtype=torch.float64)
        self._moves = self._variances.sqrt() * drawn.to(self.mean)
        return self.mean + self.sigma * self._moves

    def tell(self, losses: Tensor, rate: float) -> None:
        if not bool(torch.isfinite(losses).any()):
            return
        best = self._moves[losses.argsort(stable=True)[: len(self._weights)]]
        move = self._weights @ best
        self.mean = self.mean + self.sigma * move
        self._steps += 1
        c, p = self._rate_of_sigma, self._rate_of_path
        whitened = move / self._variances.sqrt()
        self._path_of_sigma = (1 - c) * self._path_of_sigma + math.sqrt(c * (2 - c) * self._mass) * whitened
        length = float(self._path_of_sigma.norm())
        begun = math.sqrt(1 - (1 - c) ** (2 * self._steps))
        slow = length / begun < (1.4 + 2 / (len(self.mean) + 1)) * self._usual
        self._path = (1 - p) * self._path + slow * math.sqrt(p * (2 - p) * self._mass) * move
        forgotten = self._rank_one + self._rank_many - (0.0 if slow else self._rank_one * p * (2 - p))
        self._variances = (
            (1 - forgotten) * self._variances
            + self._rank_one * self._path.square()
            + self._rank_many * (self._weights @ best.square())
        )
        self.sigma *= math.exp(c / self._damping * (length / self._usual - 1))

    def pack(self) -> dict[str, Any]:
        return {
            "mean": self.mean,
            "sigma": self.sigma,
            "variances": self._variances,
            "path": self._path,
            "path of sigma": self._path_of_sigma,
            "steps": self._steps,
        }

    def unpack(self, kept: dict[str, Any]) -> None:
        self.mean, self.sigma, self._variances = kept["mean"], kept["sigma"], kept["variances"]
        self._path, self._path_of_sigma, self._steps = kept["path"], kept["path of sigma"], kept["steps"]
