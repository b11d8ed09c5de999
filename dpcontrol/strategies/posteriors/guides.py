r"""Normal distributions that are moved towards a posterior: what stochastic variational inference fits.

``x = m + R eps`` with ``eps ~ N(0, I)``. A step is said in whitened coordinates, in which the present distribution is
standard normal: a shift ``delta`` and a symmetric matrix ``G`` for the logarithm of the covariance,

.. math:: m' = m + R \delta, \qquad R' R'^T = R\, e^{G} R^T .

There a step along the gradient of the evidence bound is a natural-gradient step: it does not depend on the scales and
correlations of the posterior.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import TypeVar

import torch
from torch import Tensor

G = TypeVar("G", bound="Guide")
LARGEST = 1.0  # change of the logarithm of a variance in one step
FARTHEST = 0.5  # shift in one step, per unknown, in standard deviations


@dataclass(frozen=True)
class Guide(abc.ABC):
    """A normal distribution of ``d`` free numbers around ``mean (d,)``."""

    mean: Tensor

    @abc.abstractmethod
    def push(self, eps: Tensor) -> Tensor:
        """``R eps`` of rows ``(n, d)``."""

    @abc.abstractmethod
    def pull(self, gradients: Tensor) -> Tensor:
        """``R^T g`` of rows ``(n, d)``."""

    @abc.abstractmethod
    def log_determinant(self) -> Tensor:
        """``log |det R|``, a scalar."""

    @abc.abstractmethod
    def spread(self: G, u: Tensor, eps: Tensor, rate: float) -> G:
        """With another covariance: ``G = rate * (A + A^T) / 2``, ``A`` the mean of ``u eps^T`` over rows ``(n, d)``.

        Changes are limited, so that a variance grows or shrinks by no more than a factor e.
        """

    @abc.abstractmethod
    def scaled(self: G, factor: float) -> G:
        """With all standard deviations times a factor."""

    def shifted(self: G, delta: Tensor) -> G:
        """With another mean, not too far away."""
        farthest = FARTHEST * math.sqrt(len(delta))
        size = float(delta.norm())
        delta = delta * (farthest / size) if size > farthest else delta
        return replace(self, mean=self.mean + self.push(delta[None])[0])

    def place(self, eps: Tensor) -> Tensor:
        """Points ``(n, d)``."""
        return self.mean + self.push(eps)

    def log_density(self, eps: Tensor) -> Tensor:
        """Log-densities ``(n,)`` at the points of ``eps``."""
        constant = 0.5 * len(self.mean) * math.log(2 * math.pi)
        return -0.5 * eps.square().sum(1) - self.log_determinant() - constant

    def tensors(self) -> dict[str, Tensor]:
        """What it consists of."""
        return {entry.name: getattr(self, entry.name) for entry in fields(self)}


@dataclass(frozen=True)
class MeanField(Guide):
    """Independent numbers: ``R = diag(exp(log_sd))``."""

    log_sd: Tensor

    def push(self, eps: Tensor) -> Tensor:
        return eps * self.log_sd.exp()

    def pull(self, gradients: Tensor) -> Tensor:
        return gradients * self.log_sd.exp()

    def log_determinant(self) -> Tensor:
        return self.log_sd.sum()

    def spread(self, u: Tensor, eps: Tensor, rate: float) -> MeanField:
        change = rate * (u * eps).mean(0)
        return replace(self, log_sd=self.log_sd + 0.5 * change.clamp(-LARGEST, LARGEST))

    def scaled(self, factor: float) -> MeanField:
        return replace(self, log_sd=self.log_sd + math.log(factor))


@dataclass(frozen=True)
class FullRank(Guide):
    """Any covariance: ``R`` is ``root``, ``(d, d)``, and ``log_det`` its determinant's logarithm."""

    root: Tensor
    log_det: Tensor

    def push(self, eps: Tensor) -> Tensor:
        return eps @ self.root.T

    def pull(self, gradients: Tensor) -> Tensor:
        return gradients @ self.root

    def log_determinant(self) -> Tensor:
        return self.log_det

    def spread(self, u: Tensor, eps: Tensor, rate: float) -> FullRank:
        product = u.T @ eps / len(u)
        g, Q = torch.linalg.eigh(0.5 * (product + product.T))
        change = (rate * g).clamp(-LARGEST, LARGEST)
        root = self.root @ (Q * torch.exp(0.5 * change)) @ Q.T
        return replace(self, root=root, log_det=self.log_det + 0.5 * change.sum())

    def scaled(self, factor: float) -> FullRank:
        return replace(
            self, root=self.root * factor, log_det=self.log_det + len(self.mean) * math.log(factor)
        )


@dataclass(frozen=True)
class LowRank(Guide):
    r"""``R = S (I + V diag(f) V^T)``: in ``k`` directions the variances and correlations are free.

    In all others they are those of ``S``, the diagonal of ``size``; for white numbers that is the prior's. Data that
    inform few directions leave a posterior of this shape, which a sum of a diagonal and a low-rank covariance is not:
    data make variances smaller. A step sees the span of ``V`` and the gradients, and what it adds beyond ``k``
    directions is left out, the smallest changes first.

    Args:
        size: ``(d,)``.
        V, f: ``(d, k)`` with orthonormal columns, and ``(k,)`` above -1.
    """

    size: Tensor
    V: Tensor
    f: Tensor

    def push(self, eps: Tensor) -> Tensor:
        return (eps + (eps @ self.V * self.f) @ self.V.T) * self.size

    def pull(self, gradients: Tensor) -> Tensor:
        scaled = gradients * self.size
        return scaled + (scaled @ self.V * self.f) @ self.V.T

    def log_determinant(self) -> Tensor:
        return self.size.log().sum() + torch.log1p(self.f).sum()

    def spread(self, u: Tensor, eps: Tensor, rate: float) -> LowRank:
        # the gradients span what is to be changed; what the noise has outside of it and of V would only be noise
        basis = torch.linalg.qr(torch.cat([self.V, u.T], 1)).Q
        product = (basis.T @ u.T) @ (eps @ basis) / len(u)
        g, W = torch.linalg.eigh(0.5 * (product + product.T))
        change = torch.expm1((rate * g).clamp(-LARGEST, LARGEST))
        P = basis @ W
        P = P + self.V @ (self.f[:, None] * (self.V.T @ P))
        both = torch.linalg.qr(torch.cat([self.V, P], 1)).Q
        own, new = both.T @ self.V, both.T @ P
        covariance = (own * ((1 + self.f).square() - 1)) @ own.T + (new * change) @ new.T
        c, W = torch.linalg.eigh(0.5 * (covariance + covariance.T))
        kept = torch.log1p(c).abs().argsort(descending=True)[: self.V.shape[1]].sort().values
        return replace(self, V=both @ W[:, kept], f=(1 + c[kept]).sqrt() - 1)

    def scaled(self, factor: float) -> LowRank:
        return replace(self, size=self.size * factor)


KINDS: Mapping[str, type[Guide]] = {"mean_field": MeanField, "low_rank": LowRank, "full": FullRank}


def first_guide(kind: str, mean: Tensor, sd: Tensor, rank: int) -> Guide:
    """A guide with independent numbers of standard deviations ``sd (d,)``."""
    if kind == "mean_field":
        return MeanField(mean, sd.log())
    if kind == "full":
        return FullRank(mean, torch.diag(sd), sd.log().sum())
    few = min(rank, len(mean))
    return LowRank(mean, sd, torch.eye(len(mean), few, dtype=mean.dtype), torch.zeros(few, dtype=mean.dtype))


def guide_of_information(kind: str, mean: Tensor, J: Tensor, precision: Tensor, rank: int) -> Guide:
    """A guide with the covariance ``(J^T J + P)^-1``, as far as it can have it.

    Args:
        J: ``(entries, d)``, roots of the information of the data.
        precision: ``P``, that of the prior: ``(d, d)``, or its diagonal ``(d,)``.
    """
    diagonal = precision if precision.ndim == 1 else precision.diagonal()
    if kind == "mean_field":
        return MeanField(mean, -0.5 * (J.square().sum(0) + diagonal).log())
    if kind == "full":
        c, Q = torch.linalg.eigh(J.T @ J + (torch.diag(precision) if precision.ndim == 1 else precision))
        return FullRank(mean, Q * c.rsqrt(), -0.5 * c.log().sum())
    size = diagonal.rsqrt()
    _, s, Vh = torch.linalg.svd(J * size, full_matrices=False)
    V, f = Vh[:rank].T, (1 + s[:rank].square()).rsqrt() - 1
    few = min(rank, len(mean)) - V.shape[1]  # directions that the data do not inform
    if few > 0:
        more = torch.linalg.qr(torch.cat([V, torch.eye(len(mean), dtype=V.dtype)], 1)).Q[:, V.shape[1] :][
            :, :few
        ]
        V, f = torch.cat([V, more], 1), torch.cat([f, torch.zeros(few, dtype=f.dtype)])
    return LowRank(mean, size, V, f)
