"""Quadratic models of many separate losses at once, and their minimisers inside balls and boxes.

Everything is batched over instances ``(n, ...)`` and in units of the unknowns' magnitudes. A model predicts the loss
``f(y + p)`` to be ``f(y) - decrease(p)``.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import TypeVar

import torch
from torch import Tensor

M = TypeVar("M", bound="Model")
NEWTON_STEPS = 30  # towards the damping that belongs to a radius; they converge quadratically from below
PASSES = 8  # times that unknowns which leave the box are held at its side and the others are minimised again


@dataclass(frozen=True)
class Model(abc.ABC):
    """A quadratic model of each instance; its tensors have the instances first."""

    def take(self: M, rows: Tensor) -> M:
        """The models of some instances."""
        return replace(self, **{name: value[rows] for name, value in self.tensors().items()})

    def put(self: M, rows: Tensor, other: M) -> M:
        """With the models of some instances replaced by others."""
        new = other.tensors()
        return replace(
            self, **{name: value.index_copy(0, rows, new[name]) for name, value in self.tensors().items()}
        )

    def tensors(self) -> dict[str, Tensor]:
        """What the model consists of."""
        found = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        return {name: value for name, value in found.items() if isinstance(value, Tensor)}

    @property
    @abc.abstractmethod
    def slope(self) -> Tensor:
        """The gradient ``(n, d)`` of the loss."""

    @abc.abstractmethod
    def step(self, radius: Tensor, free: Tensor, held: Tensor) -> Tensor:
        """The best ``p`` ``(n, d)`` with ``p`` zero where not ``free``, ``|p| <= radius``, after a move of ``held``."""

    @abc.abstractmethod
    def decrease(self, p: Tensor) -> Tensor:
        """What a step is predicted to gain, ``(n,)``."""


@dataclass(frozen=True)
class Residuals(Model):
    """``f = |r + J p|^2`` with ``r`` ``(n, m)`` and ``J`` ``(n, m, d)``, minimised by singular values.

    They are those of ``J``, not the eigenvalues of ``J^T J``, so that half as many digits are lost; parts of ``p`` that
    change no residual beyond rounding stay zero.
    """

    r: Tensor
    J: Tensor

    @property
    def slope(self) -> Tensor:
        return 2 * _through(self.J.mT, self.r)

    def step(self, radius: Tensor, free: Tensor, held: Tensor) -> Tensor:
        J = self.J * free[:, None, :]
        U, s, Vh = torch.linalg.svd(J, full_matrices=False)
        seen = s > max(J.shape[1:]) * torch.finfo(J.dtype).eps * s[:, :1]
        h = torch.where(seen, s * _through(U.mT, self.r + _through(self.J, held)), 0.0)
        return _through(Vh.mT, -_damped(h, torch.where(seen, s.square(), 1.0), radius)) * free

    def decrease(self, p: Tensor) -> Tensor:
        along = _through(self.J, p)
        return -(along * (2 * self.r + along)).sum(1)


@dataclass(frozen=True)
class Metric(Model):
    """``f + g p + p A p / 2`` with ``g`` ``(n, d)`` and ``A`` ``(n, d, d)``, which need not be positive."""

    g: Tensor
    A: Tensor

    @property
    def slope(self) -> Tensor:
        return self.g

    def step(self, radius: Tensor, free: Tensor, held: Tensor) -> Tensor:
        both = free[:, None, :] & free[:, :, None]
        c, Q = torch.linalg.eigh(torch.where(both, self.A, 0.0))
        h = _through(Q.mT, (self.g + _through(self.A, held)) * free)
        least = len(c[0]) * torch.finfo(c.dtype).eps * c.abs().amax(1, keepdim=True)
        c = torch.where(c.abs() < least, least, c)  # flat to rounding: the radius limits the step
        return _through(Q, -_damped(h, c, radius)) * free

    def decrease(self, p: Tensor) -> Tensor:
        return -(p * (self.g + 0.5 * _through(self.A, p))).sum(1)


@dataclass(frozen=True)
class Products(Model):
    """``f + g p + p A p / 2`` of which only products ``A v`` are known, minimised by truncated conjugate gradients.

    They end at the radius, along a direction of negative curvature, or when the gradient of the model is
    ``min(0.1, |g|)`` times ``|g|``, so that the search converges quadratically where the model is exact.

    Args:
        g: ``(n, d)``.
        y: the points ``(n, d)``, and ``which`` ``(n,)`` their instances: arguments of the product.
        product: ``product(y, v, which) -> A v``.
        most: products per step at most.

    Source: T. Steihaug, SIAM J. Numer. Anal. 20 (1983).
    """

    g: Tensor
    y: Tensor
    which: Tensor
    product: Callable[[Tensor, Tensor, Tensor], Tensor]
    most: int

    @property
    def slope(self) -> Tensor:
        return self.g

    def decrease(self, p: Tensor) -> Tensor:
        return -(p * (self.g + 0.5 * self._times(p, torch.arange(len(p), device=p.device)))).sum(1)

    def step(self, radius: Tensor, free: Tensor, held: Tensor) -> Tensor:
        everywhere = torch.arange(len(held), device=held.device)
        g = self.g if not bool(held.any()) else self.g + self._times(held, everywhere)
        r = -g * free
        p, d = torch.zeros_like(r), r.clone()
        size = r.norm(dim=1)
        goal = size * torch.clamp(size, max=0.1)
        rows = everywhere[size > 0]
        for _ in range(self.most):
            if not len(rows):
                break
            p, d, r, rows = self._conjugate(p, d, r, rows, free, radius, goal)
        return p

    def _conjugate(
        self, p: Tensor, d: Tensor, r: Tensor, rows: Tensor, free: Tensor, radius: Tensor, goal: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """One iteration of those ``rows`` that still go on."""
        way = d[rows]
        bent = self._times(d, rows) * free[rows]
        curvature, squared = (way * bent).sum(1), r[rows].square().sum(1)
        length = torch.where(curvature > 0, squared / curvature, torch.inf)
        most = _to_the_sphere(p[rows], way, radius[rows])
        out = ~(length < most)  # beyond the radius, or downwards for ever
        after = p[rows] + torch.where(out, most, length)[:, None] * way
        left = r[rows] - torch.where(out, 0.0, length)[:, None] * bent
        again = left.square().sum(1) / squared
        p, r = p.index_copy(0, rows, after), r.index_copy(0, rows, left)
        d = d.index_copy(0, rows, left + again[:, None] * way)
        return p, d, r, rows[~out & (left.norm(dim=1) > goal[rows])]

    def _times(self, v: Tensor, rows: Tensor) -> Tensor:
        return self.product(self.y[rows], v[rows], self.which[rows])


def inside_box(model: Model, y: Tensor, radius: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """The next points, within their radius and the box: unknowns that leave the box are held at its side.

    Those at a side with a gradient that pushes outwards are held from the start. For a short radius the step is along
    the projected gradient, so that shrinking it always finds a lower loss.
    """
    g = model.slope
    free = ~((y <= low) & (g > 0) | (y >= high) & (g < 0))
    held = torch.zeros_like(y)
    after = y
    for _ in range(PASSES):
        p = model.step(radius, free, held)
        after = torch.where(free, y + p, after)
        beyond = free & ((after < low) | (after > high))
        after = torch.minimum(torch.maximum(after, low), high)
        if not bool(beyond.any()):
            break
        held, free = torch.where(beyond, after - y, held), free & ~beyond
    return after


def _damped(h: Tensor, c: Tensor, radius: Tensor) -> Tensor:
    """``h / (c + s)`` with the least damping ``s >= 0`` for which it is within the radius, and ``c + s > 0``."""
    h = torch.where(h.abs() > torch.finfo(h.dtype).tiny, h, 0.0)
    # |h_i| / (c_i + s) <= radius for each i; from there Newton's method on 1 / |p| goes up to the root monotonically
    least = torch.where(h != 0, h.abs() / radius[:, None] - c, 0.0).amax(1).clamp(min=0.0)
    least = torch.maximum(least, -c.amin(1) * (1 + 1e-10))
    s = least
    for _ in range(NEWTON_STEPS):
        p, norm = _quotient(h, c, s)
        change = norm.square() / torch.where(p != 0, p.square() / (c + s[:, None]), 0.0).sum(1)
        s = torch.where(norm > radius, s + change * (norm - radius) / radius, s)
    return _quotient(h, c, s)[0]


def _quotient(h: Tensor, c: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    p = torch.where(h != 0, h / (c + s[:, None]), 0.0)
    return p, p.norm(dim=1)


def _to_the_sphere(p: Tensor, d: Tensor, radius: Tensor) -> Tensor:
    """The ``t >= 0`` with ``|p + t d| = radius``."""
    a, b, c = d.square().sum(1), (p * d).sum(1), p.square().sum(1) - radius.square()
    root = (b.square() - a * c).clamp(min=0.0).sqrt()
    return torch.where(b > 0, -c.clamp(max=0.0) / (b + root), (root - b) / a)


def _through(matrix: Tensor, vector: Tensor) -> Tensor:
    return torch.einsum("nij,nj->ni", matrix, vector)
