"""The normal distribution far from its middle: masses of intervals, quantiles, and their inverses, in log space."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
ROOT_HALF = math.sqrt(0.5)
# Gauss-Legendre on [0, 1]: exact to rounding for exp(-a t - t^2 / 2) while the exponent changes by less than 1
NODES, WEIGHTS = ((0.5 * x).tolist() for x in np.polynomial.legendre.leggauss(12))


def log_phi(w: Tensor) -> Tensor:
    """``log phi(w)``, the standard normal log-density."""
    return -0.5 * w.square() - HALF_LOG_2PI


def ndtr(w: Tensor) -> Tensor:
    """``Phi(w)``; torch's own loses all digits below -8."""
    return 0.5 * torch.erfc(-w * ROOT_HALF)


def log_ndtr(w: Tensor) -> Tensor:
    """``log Phi(w)``; torch's own has no batching rule for ``torch.func.vmap``."""
    low = w < -1
    tail = torch.special.erfcx(torch.where(low, -w, 1.0) * ROOT_HALF)
    return torch.where(
        low, torch.log(0.5 * tail) - 0.5 * w.square(), torch.log1p(-ndtr(torch.where(low, 1.0, -w)))
    )


def log_mass(low: Tensor, high: Tensor, width: Tensor) -> tuple[Tensor, Tensor]:
    r"""Mass of the standard normal in ``[low, high]``, with full relative accuracy wherever the interval is.

    .. math:: \log \int_{low}^{high} \phi = m - c^2 / 2

    Args:
        low, high: ends, infinite ones allowed.
        width: ``high - low``, given separately because it may be known to more digits than the ends.

    Returns:
        ``m`` and ``c``, the point of the interval nearest to zero: far out the two terms are large and cancel in
        ratios of masses, so that they are handed out separately. Differentiable twice and more.
    """
    mirrored = low + high < 0
    near, far = torch.where(mirrored, -high, low), torch.where(mirrored, -low, high)
    astride = near < 0
    # across zero: a sum of two positive terms
    first, second = (end.clamp(-40, 40) * ROOT_HALF for end in (near, far))
    across = torch.where(astride, 0.5 * (torch.erf(second) - torch.erf(first)), 0.5)
    near = near.clamp(min=0)
    # beside zero, wide: the tail, less the tail beyond the far end
    drop = 0.5 * width * (near + far)
    wide = ~astride & (drop >= 1)
    open_ended = torch.isinf(far)
    tail = torch.special.erfcx(torch.where(wide, near, 0.0) * ROOT_HALF)
    beyond = torch.special.erfcx(torch.where(wide & ~open_ended, far, 1.0) * ROOT_HALF)
    cut = torch.where(
        wide & ~open_ended, torch.exp(-torch.where(wide & ~open_ended, drop, 0.0)) * beyond, 0.0
    )
    apart = 0.5 * (tail - cut)
    # beside zero, narrow: quadrature, because the tails cancel
    narrow = ~astride & ~wide
    start, span = torch.where(narrow, near, 0.0), torch.where(narrow, width, 1.0)
    nodes, weights = (torch.tensor(x, dtype=low.dtype, device=low.device) for x in (NODES, WEIGHTS))
    t = (nodes + 0.5) * span[..., None]
    total = (weights * torch.exp(-t * (start[..., None] + 0.5 * t))).sum(-1)
    slim = total * span / math.sqrt(2 * math.pi)
    mass = torch.where(astride, across, torch.where(wide, apart, slim))
    return mass.log(), torch.where(mirrored, -near, near)


def log_share(part: tuple[Tensor, Tensor], whole: tuple[Tensor, Tensor]) -> Tensor:
    """``log(mass of part / mass of whole)`` of two results of :func:`log_mass`."""
    return part[0] - whole[0] + 0.5 * (whole[1] - part[1]) * (whole[1] + part[1])


def inverse_log_ndtr(log_p: Tensor) -> Tensor:
    """``w`` with ``log Phi(w) = log_p``, for ``log_p <= log(1/2)`` however small; float64, not differentiable.

    Above it ``1 - p`` is what carries the digits: ask for minus the inverse of its logarithm.
    """
    far = log_p < -300
    size = torch.sqrt(-2 * torch.where(far, log_p, -300.0))
    start = -torch.sqrt(size.square() - 2 * HALF_LOG_2PI - 2 * torch.log(size))
    w = torch.where(far, start, torch.special.ndtri(torch.exp(torch.where(far, -300.0, log_p))))
    for _ in range(2):  # Newton: log Phi is nearly quadratic there
        value = log_ndtr(w)
        step = (value - log_p) * torch.exp(value - log_phi(w))
        w = w - torch.where(torch.isfinite(step), step, 0.0)
    return torch.where(log_p == -math.inf, -math.inf, w)


def interior(value: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """A value moved into the open interval: its ends are an infinite number of standard deviations away.

    By a few roundings of an end, so that it stays inside when it goes through a function and back.
    """
    few = 4 * torch.finfo(low.dtype).eps
    first = torch.nextafter(low + torch.where(torch.isinf(low), 0.0, few * low.abs()), high)
    last = torch.nextafter(high - torch.where(torch.isinf(high), 0.0, few * high.abs()), low)
    return torch.minimum(torch.maximum(value, first), torch.maximum(first, last))


def from_log_tails(lower: Tensor, upper: Tensor) -> Tensor:
    """``w`` with ``log Phi(w) = lower`` and ``log Phi(-w) = upper``, from the thinner one of the two tails."""
    thin = inverse_log_ndtr(torch.minimum(lower, upper).clamp(max=-math.log(2)))
    return torch.where(lower < upper, thin, -thin)


def quantile(w: Tensor, low: Tensor, high: Tensor, width: Tensor) -> tuple[Tensor, Tensor]:
    r"""The point ``x`` of ``[low, high]`` below which a standard normal cut to it has the mass ``Phi(w)``.

    .. math:: \Phi(x) = \Phi(low) \Phi(-w) + \Phi(high) \Phi(w)

    Returns:
        An anchor and the distance of ``x`` from it. The anchor is -1 where that is ``low``, 1 for ``high``, 0 for zero;
        of a density that is cut at zero, say, the distance keeps all digits of ``x`` near the cut. Float64, not
        differentiable.
    """
    lower, upper = log_ndtr(w), log_ndtr(-w)
    middle = from_log_tails(
        torch.logaddexp(log_ndtr(low) + upper, log_ndtr(high) + lower),
        torch.logaddexp(log_ndtr(-low) + upper, log_ndtr(-high) + lower),
    )
    cut_low, cut_high = torch.isfinite(low), torch.isfinite(high)
    from_low = cut_low & (~cut_high | (w < 0))
    from_high = cut_high & ~from_low
    # seen from the upper end the density is the mirrored one
    a = torch.where(from_high, -high, torch.where(cut_low, low, 0.0))
    b = torch.where(from_high, -low, torch.where(from_low, high, math.inf))
    spread = torch.where(from_low | from_high, width, math.inf)
    scores = torch.where(from_high, -w, w)
    guess = torch.where(from_high, -middle, middle) - a
    offset = _offset(scores, a, b, spread, guess)
    anchor = from_high.to(w.dtype) - from_low.to(w.dtype)
    return anchor, torch.where(from_low, offset, torch.where(from_high, -offset, middle))


def _offset(w: Tensor, a: Tensor, b: Tensor, width: Tensor, guess: Tensor) -> Tensor:
    """The distance from the end ``a`` of the quantile, to full relative accuracy; ``w <= 0`` or ``b`` infinite."""
    whole = log_mass(a, b, width)
    below = w <= 0
    lower, upper = log_ndtr(w), log_ndtr(-w)
    # starts: the density is exponential near the end, to first order
    rise = torch.exp(whole[0] + 0.5 * (a - whole[1]) * (a + whole[1]) + lower + HALF_LOG_2PI)
    slope = torch.where(a.abs() < 1e-8, 1e-8, a)
    near = -torch.log1p((-slope * rise).clamp(min=-0.9)) / slope
    beyond = -2 * upper / (a + torch.sqrt(a.square() - 2 * upper))
    near = torch.where(below, near, beyond)
    start = torch.where((below & (near < 0.1)) | (a > 30), near, guess)
    offset = start.clamp(min=torch.finfo(w.dtype).tiny)
    for _ in range(4):  # Newton in the logarithm of the offset
        x = a + offset
        part = log_mass(torch.where(below, a, x), torch.where(below, x, b), torch.where(below, offset, width))
        rate = torch.exp(-0.5 * (x - part[1]) * (x + part[1]) - part[0] - HALF_LOG_2PI) * offset
        error = log_share(part, whole) - torch.where(below, lower, upper)
        step = torch.where(below, -error, error) / rate
        offset = offset * torch.exp(torch.where(torch.isfinite(step), step, 0.0).clamp(-1, 1))
    return torch.minimum(offset, width)
