r"""The metric: a linear map under which the posterior looks like a standard normal, found from a Hessian and draws."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

Array = np.ndarray
DENSE_UP_TO = 100
FLOOR = 1e-10  # eigenvalues of a Hessian, relative to its largest


@dataclass(frozen=True)
class Metric:
    r"""A root :math:`L` of the inverse mass matrix, :math:`M^{-1} = L L^T`.

    Samplers move in coordinates :math:`x = x_0 + L y`, in which the mass is the identity. :math:`L` is

    - ``diag(scale)``, or ``root diag(scale)`` with a full matrix;
    - where ``basis`` :math:`V` ``(dimension, k)`` with orthonormal columns is given instead of a root,
      ``(I + V diag(factors - 1) V^T) diag(scale)``: identity but for a few directions.

    ``scale`` ``(dimension,)`` acts first in all of them.
    """

    scale: Array
    root: Array | None = None
    basis: Array | None = None
    factors: Array | None = None
    _pull: Array | None = field(default=None, init=False, repr=False, compare=False)
    _push: Array | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.root is not None:  # in memory as the products want it
            object.__setattr__(self, "_pull", np.ascontiguousarray(self.root * self.scale))
            object.__setattr__(self, "_push", np.ascontiguousarray((self.root * self.scale).T))

    @classmethod
    def identity(cls, dimension: int) -> Metric:
        """Of a standard normal."""
        return cls(np.ones(dimension))

    @classmethod
    def of_hessian(cls, hessian: Array) -> Metric:
        """``L L^T = hessian^-1``; directions of negative curvature count by its size, flat ones by a floor."""
        values, vectors = np.linalg.eigh((hessian + hessian.T) / 2)
        size = np.abs(values)
        size = np.maximum(size, FLOOR * max(float(size.max()), np.finfo(float).tiny))
        return cls(np.ones(len(values)), root=vectors / np.sqrt(size))

    @classmethod
    def of_jacobian(cls, jacobian: Array) -> Metric:
        """``L L^T = (I + J^T J)^-1`` for ``J (entries, dimension)`` with few entries: a white prior and its data."""
        _, singular, rows = np.linalg.svd(jacobian, full_matrices=False)
        seen = singular > 1e-8
        factors = 1.0 / np.sqrt(1.0 + singular[seen] ** 2)
        return cls(np.ones(jacobian.shape[1]), basis=np.ascontiguousarray(rows[seen].T), factors=factors)

    @property
    def dimension(self) -> int:
        """Of the space."""
        return len(self.scale)

    def push(self, y: Array) -> Array:
        """``L y`` of each row of ``y (rows, dimension)``: where a step in the sampler's coordinates leads."""
        if self._push is not None:
            return y @ self._push
        scaled = y * self.scale
        return scaled if self.basis is None else self._stretched(scaled)

    def pull(self, gradient: Array) -> Array:
        """``L^T g`` of each row: a gradient in the sampler's coordinates."""
        if self._pull is not None:
            return gradient @ self._pull
        return (gradient if self.basis is None else self._stretched(gradient)) * self.scale

    def whiten(self, x: Array) -> Array:
        """``L^-1 x`` of each row."""
        if self.root is not None:
            return np.linalg.solve(self.root, x.T).T / self.scale
        if self.basis is None:
            return x / self.scale
        assert self.factors is not None
        return (x + ((x @ self.basis) * (1.0 / self.factors - 1.0)) @ self.basis.T) / self.scale

    def _stretched(self, x: Array) -> Array:
        assert self.basis is not None and self.factors is not None
        return x + ((x @ self.basis) * (self.factors - 1.0)) @ self.basis.T

    def pack(self) -> dict[str, Any]:
        """Arrays, for storing."""
        return {"scale": self.scale, "root": self.root, "basis": self.basis, "factors": self.factors}

    @classmethod
    def unpacked(cls, packed: dict[str, Any]) -> Metric:
        """What :meth:`pack` described."""
        return cls(**packed)


def refined(base: Metric, draws: Array, *, dense: bool) -> Metric:
    r"""The metric of draws ``(chains, draws, dimension)``, shrunk towards ``base``.

    In the coordinates in which ``base`` is the identity the covariance of the draws is :math:`C`; taken is
    :math:`(1 - \rho) C + \rho I` with the weight :math:`\rho` of Ledoit and Wolf (the least expected squared error,
    estimated from the draws), but at least as if ``base`` were known from ``5 + dimension / 2`` draws: few draws leave
    it as it is. Without ``dense`` only the variances in these coordinates are taken over, with the weight of 5 draws.

    Source: O. Ledoit, M. Wolf, "A well-conditioned estimator for large-dimensional covariance matrices", J.
    Multivariate Analysis 88 (2004), here towards the identity itself instead of a multiple of it.
    """
    chains, count, dimension = draws.shape
    white = base.whiten(draws.reshape(chains * count, dimension))
    white = white - white.mean(0)
    known = 5.0 + (dimension / 2 if dense else 0.0)
    least = known / (len(white) + known)
    if not dense:
        variance = (1.0 - least) * white.var(0) + least
        return Metric(base.scale * np.sqrt(variance), base.root, base.basis, base.factors)
    covariance = white.T @ white / len(white)
    shrunk = _towards_identity(white, covariance, least)
    root = base.push(np.linalg.cholesky(shrunk).T).T
    return Metric(np.ones(dimension), root=root)


def _towards_identity(white: Array, covariance: Array, least: float) -> Array:
    identity = np.eye(len(covariance))
    distance = float(((covariance - identity) ** 2).sum())
    # E |w w^T - C|^2 / n, by (sum |w|^4 / n - |C|^2) / n
    spread = float(((white**2).sum(1) ** 2).mean() - (covariance**2).sum()) / len(white)
    weight = min(1.0, max(least, spread / distance if distance > 0 else 1.0))
    return (1.0 - weight) * covariance + weight * identity
