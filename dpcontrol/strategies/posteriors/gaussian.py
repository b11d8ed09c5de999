"""Normal distributions that approximate posteriors of free numbers: dense ones, and updates of the identity."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dpcontrol.meter import Meter

BATCH = 64  # rows that go together
DRAWN_AT_ONCE = 256
DRAWN_AGAIN = 5
NOWHERE = "the posterior is zero at all draws of its approximation; a narrower prior or stress_test may help."


class NothingPossible(Exception):
    """An approximation all of whose draws make the system fail."""


class NotPositive(Exception):
    """A Hessian that is not positive definite: its lowest eigenvalue."""

    def __init__(self, lowest: float) -> None:
        super().__init__(lowest)
        self.lowest = lowest


@dataclass(frozen=True)
class Normal:
    r"""``N(mean, C)`` with ``C^{1/2} = s (I + V diag(f) V^T)``, ``V`` ``(d, k)`` with orthonormal columns.

    Args:
        mean: ``(d,)``.
        V, f: eigenvectors, and what they add to the root of the covariance.
        s: the root of the variance everywhere else.
    """

    mean: Tensor
    V: Tensor
    f: Tensor
    s: float = 1.0

    @classmethod
    def of_hessian(cls, mode: Tensor, hessian: Tensor) -> Normal:
        """The normal of which ``hessian`` is the inverse covariance.

        Raises:
            NotPositive: if it is not positive definite beyond rounding.
        """
        c, V = torch.linalg.eigh(hessian)
        if not bool(c[0] > len(c) * torch.finfo(c.dtype).eps * c[-1]):
            raise NotPositive(float(c[0]))
        return cls(mode, V, c.rsqrt() - 1.0)

    @classmethod
    def of_update(cls, mode: Tensor, V: Tensor, c: Tensor) -> Normal:
        """The normal of inverse covariance ``I + V diag(c) V^T``.

        Raises:
            NotPositive: if an eigenvalue is not above -1.
        """
        if len(c) and not bool(c.min() > -1.0):
            raise NotPositive(1.0 + float(c.min()))
        return cls(mode, V, (1.0 + c).rsqrt() - 1.0)

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draws ``(count, d)`` and their log-densities ``(count,)``."""
        d = len(self.mean)
        noise = torch.randn(count, d, generator=generator, dtype=self.mean.dtype).to(self.mean.device)
        x = self.mean + self.s * (noise + (noise @ self.V * self.f) @ self.V.T)
        determinant = d * math.log(self.s) + torch.log1p(self.f).sum()
        return x, -0.5 * noise.square().sum(1) - determinant - 0.5 * d * math.log(2 * math.pi)

    def sd(self) -> Tensor:
        """Standard deviations ``(d,)``."""
        return self.s * (1.0 + (self.V.square() * ((1.0 + self.f).square() - 1.0)).sum(1)).sqrt()


def low_rank_eigenpairs(
    product: Callable[[Tensor], Tensor], dimension: int, tolerance: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    r"""Eigenpairs ``V (d, k)``, ``c (k,)`` of a symmetric operator with ``|c| > tolerance``, by random subspaces.

    ``Q`` spans a block Krylov space :math:`[G, AG, A^2 G, ...]` of a random block ``G``, orthonormalised as it grows
    (block Lanczos with full orthogonalisation); the pairs are those of :math:`Q^T A Q`. It grows until the smallest
    eigenvalue that it finds is below the tolerance, so that what is left out is, too, and the large ones do not change.

    Args:
        product: ``A V^T`` of rows ``(k, d)``.

    Source: N. Halko, P.-G. Martinsson, J. Tropp, SIAM Review 53 (2011); A. Spantini et al., "Optimal low-rank
    approximations of Bayesian linear inverse problems", SIAM J. Sci. Comput. 37 (2015), why such an update is enough.
    """
    block = min(16, dimension)
    fresh = torch.randn(block, dimension, generator=generator, dtype=torch.float64)
    Q = torch.zeros(0, dimension, dtype=torch.float64)
    images = Q
    before: Tensor | None = None
    while True:
        fresh = _orthonormal(fresh, Q)
        if not len(fresh):
            break
        image = product(fresh).to(Q)
        Q, images = torch.cat([Q, fresh]), torch.cat([images, image])
        c = torch.linalg.eigvalsh(_symmetric(Q @ images.T))
        large = c[c.abs() > tolerance]
        settled = before is not None and len(before) == len(large)
        if settled and bool(((before - large).abs() <= 1e-3 * (tolerance + large.abs())).all()):
            if float(c.abs().min()) <= tolerance:
                break
        before, fresh = large, image
    c, W = torch.linalg.eigh(_symmetric(Q @ images.T))
    kept = c.abs() > tolerance
    return Q.T @ W[:, kept], c[kept]


def log_densities(meter: Meter, x: Tensor) -> Tensor:
    """Log-densities ``(rows,)`` in batches."""
    parts = [meter.log_densities(some.to(meter.best_x)) for some in x.split(DRAWN_AT_ONCE)]
    return torch.cat(parts).double()


def possible_draws(
    meter: Meter, draw: Callable[[int], tuple[Tensor, Tensor]], count: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Draws ``(count, d)`` of an approximation, its log-densities and the posterior's, each ``(count,)``.

    Where the system fails the posterior is zero: such draws are thrown away and drawn again (the approximation is cut
    off there), a few times over; what is still missing then is missing.

    Args:
        draw: ``draw(n) -> (points, log-densities of the approximation)``.

    Raises:
        NothingPossible: if the posterior is zero at all of them.
    """
    kept: list[tuple[Tensor, ...]] = []
    missing = count
    for _ in range(DRAWN_AGAIN):
        x, proposal = draw(missing)
        density = log_densities(meter, x).cpu()
        good = torch.isfinite(density)
        kept.append((x[good], proposal[good], density[good]))
        missing -= int(good.sum())
        if not missing:
            break
    if missing == count:
        raise NothingPossible
    points, proposals, densities = (torch.cat(parts) for parts in zip(*kept, strict=True))
    return points, proposals, densities


def effective_share(log_weights: Tensor) -> float:
    """The effective sample size of importance weights ``(n,)``, over ``n``."""
    weights = torch.exp(log_weights - log_weights.max())
    return float(weights.sum().square() / weights.square().sum() / len(weights))


def _orthonormal(rows: Tensor, basis: Tensor) -> Tensor:
    """Rows that span, with the basis, what the given rows span; those inside the basis to rounding are left out."""
    size = rows.norm(dim=1, keepdim=True)
    rows = rows / torch.where(size > 0, size, 1.0)
    for _ in range(2):  # twice is enough
        rows = rows - (rows @ basis.T) @ basis
    _, s, Vh = torch.linalg.svd(rows, full_matrices=False)
    found = Vh[s > 1e-10][: rows.shape[1] - len(basis)]
    return torch.linalg.qr((found - (found @ basis.T) @ basis).T).Q.T if len(found) else found


def _symmetric(matrix: Tensor) -> Tensor:
    return 0.5 * (matrix + matrix.T)
