"""Roots, norms, quotients, logarithms and limiters whose derivatives are finite at their corners, to any order.

``torch.sqrt`` at zero is finite, its derivative is not; ``torch.where(x > 0, x.sqrt(), 0)`` does not help, because the
branch that is not taken is differentiated too and infinity times zero is NaN. Here the corner is taken out *before* the
function is applied as well as after (twice ``where``). At the corner itself the derivative is zero, a choice: with
respect to a norm it is the subgradient of least size. Away from it nothing changes, to the bit.

All of them work in forward and reverse mode, in second derivatives, and under ``torch.func`` transforms.
(``torch.atan2``, ``torch.abs`` and ``torch.maximum`` need no help: torch gives them finite derivatives itself.)
"""

from __future__ import annotations

import torch
from torch import Tensor


def sqrt(x: Tensor) -> Tensor:
    """``sqrt(x)`` where ``x > 0``; 0 with zero derivative elsewhere, NaN where ``x`` is NaN."""
    corner = x <= 0
    return torch.where(corner, 0.0, torch.where(corner, 1.0, x).sqrt())


def norm(x: Tensor, dim: int | tuple[int, ...] = -1, *, keepdim: bool = False) -> Tensor:
    """Euclidean norm over some axes; at ``x = 0`` its derivative is zero.

    Entries are divided by the largest one before they are squared, so that the norm of small ones is no corner.
    """
    scale = x.detach().abs().amax(dim, keepdim=True)
    scale = torch.where(scale > 0, scale, 1.0)
    result = sqrt((x / scale).square().sum(dim, keepdim=True)) * scale
    return result if keepdim else result.squeeze(dim)


def absolute_power(x: Tensor, exponent: float) -> Tensor:
    """``|x|^exponent``, ``exponent > 0``; its derivative at zero is zero, also where ``exponent <= 1``.

    Raises:
        ValueError: if the exponent is not positive.
    """
    if not exponent > 0:
        raise ValueError(
            f"absolute_power needs a positive exponent; found {exponent!r}: use divide() for an inverse."
        )
    if exponent == 2:  # the one power whose second derivative at zero is not zero
        return x.square()
    corner = x == 0
    return torch.where(corner, 0.0, torch.where(corner, 1.0, x).abs() ** exponent)


def divide(numerator: Tensor, denominator: Tensor, otherwise: float = 0.0) -> Tensor:
    """``numerator / denominator``, and ``otherwise`` with zero derivatives where the denominator is zero."""
    corner = denominator == 0
    return torch.where(corner, otherwise, numerator / torch.where(corner, 1.0, denominator))


def log(x: Tensor, floor: float | None = None) -> Tensor:
    """``log(max(x, floor))``; below the floor, by default the dtype's smallest number, the derivative is zero."""
    least = torch.finfo(x.dtype).tiny if floor is None else floor
    if not least > 0:
        raise ValueError(f"log needs a positive floor; found {floor!r}.")
    corner = x < least
    return torch.where(corner, torch.full_like(x, least), x).log()


def minmod(a: Tensor, b: Tensor) -> Tensor:
    """The smaller of two slopes of one sign, 0 where the signs differ. Kinked where ``|a| = |b|``.

    Source: P. Roe, Ann. Rev. Fluid Mech. 18 (1986), section 4.
    """
    return torch.where(_one_sign(a, b), torch.where(a.abs() <= b.abs(), a, b), 0.0)


def van_leer(a: Tensor, b: Tensor) -> Tensor:
    """The harmonic mean ``2 a b / (a + b)`` of two slopes of one sign, 0 where the signs differ. Kinked there.

    Source: B. van Leer, J. Comput. Phys. 14 (1974).
    """
    same = _one_sign(a, b)
    return torch.where(same, 2 * a * (b / torch.where(same, a + b, 1.0)), 0.0)


def van_albada(a: Tensor, b: Tensor, epsilon: float) -> Tensor:
    """``(a b + epsilon)(a + b) / (a^2 + b^2 + 2 epsilon)``: smooth in both slopes, for ``epsilon > 0``.

    Nearly their mean where they agree or are small beside the root of ``epsilon``, nearly 0 at a jump. With
    ``epsilon = 0`` it has a corner at ``a = b = 0`` only, where its derivatives are taken as zero.

    Source: G. D. van Albada, B. van Leer, W. W. Roberts, Astron. Astrophys. 108 (1982).
    """
    if not epsilon >= 0:
        raise ValueError(f"van_albada needs an epsilon that is not negative; found {epsilon!r}.")
    numerator, denominator = (a * b + epsilon) * (a + b), a * a + b * b + 2 * epsilon
    return numerator / denominator if epsilon > 0 else divide(numerator, denominator)


def _one_sign(a: Tensor, b: Tensor) -> Tensor:
    # not a * b > 0, which is lost for products below the smallest number
    return ((a > 0) & (b > 0)) | ((a < 0) & (b < 0))
