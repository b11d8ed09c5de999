"""Densities that neither torch nor Pyro has."""

from __future__ import annotations

import copy
import math
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Size, Tensor
from torch.distributions import Beta, Distribution, Independent, TransformedDistribution, constraints
from torch.distributions.utils import broadcast_all

from dpcontrol.problem.normal_tails import (
    HALF_LOG_2PI,
    from_log_tails,
    interior,
    log_mass,
    log_ndtr,
    log_phi,
    log_share,
    quantile,
)
from dpcontrol.results import UsageError

Number = float | Tensor


class TruncatedNormal(Distribution):
    r"""A normal density cut to ``[low, high]`` and scaled up to mass 1.

    .. math:: p(x) = \frac{\phi(\xi)}{s\,(\Phi(\beta) - \Phi(\alpha))}, \quad low \le x \le high, \qquad
              \xi, \alpha, \beta = \frac{x - \mu}{s}, \frac{low - \mu}{s}, \frac{high - \mu}{s}

    The mass is taken from scaled error functions of the nearer tail, or by quadrature where the interval is narrow, so
    that all digits hold however far out the interval lies; so do the quantiles. Differentiable in ``x``, in what is
    drawn and in all four parameters, in forward and reverse mode.

    Args:
        loc: ``mu``, mean of the normal before it is cut, in the unit of ``x``.
        scale: ``s``, its standard deviation, same unit, positive.
        low, high: ends, same unit; infinite by default. All four broadcast to the batch shape.

    Raises:
        UsageError: for a scale that is not positive, or ends without room between them.

    Source: N. L. Johnson, S. Kotz, N. Balakrishnan, Continuous Univariate Distributions, vol. 1 (1994), section 13.10.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {
        "loc": constraints.real,
        "scale": constraints.positive,
        "low": constraints.real,
        "high": constraints.real,
    }
    has_rsample = True
    loc: Tensor
    scale: Tensor
    low: Tensor
    high: Tensor

    def __init__(
        self,
        loc: Number,
        scale: Number,
        low: Number = -math.inf,
        high: Number = math.inf,
        validate_args: bool | None = None,
    ) -> None:
        self.loc, self.scale, self.low, self.high = broadcast_all(loc, scale, low, high)
        if validate_args is not False:
            if not bool((self.scale > 0).all()) or not bool(torch.isfinite(self.scale).all()):
                raise UsageError(f"the scale of a truncated normal must be positive; found {scale}.")
            if not bool((self.low < self.high).all()):
                raise UsageError(f"a truncated normal needs low < high; found low={low}, high={high}.")
        super().__init__(self.loc.shape, validate_args=validate_args)

    @property
    def support(self) -> Any:
        """The interval; half a line or the line where ends are infinite in all entries."""
        below, above = bool(torch.isinf(self.low).all()), bool(torch.isinf(self.high).all())
        if below and above:
            return constraints.real
        if above:
            return constraints.greater_than_eq(self.low)
        if below:
            return constraints.less_than(self.high)
        return constraints.interval(self.low, self.high)

    def expand(self, batch_shape: Any, _instance: Any = None) -> TruncatedNormal:
        """The same density over a larger batch."""
        new: TruncatedNormal = self._get_checked_instance(TruncatedNormal, _instance)
        shape = Size(batch_shape)
        new.loc, new.scale, new.low, new.high = (
            entry.expand(shape) for entry in (self.loc, self.scale, self.low, self.high)
        )
        Distribution.__init__(new, shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def log_prob(self, value: Tensor) -> Tensor:
        """``log p(x)``, entry by entry; ``-inf`` outside the interval."""
        if self._validate_args:
            self._validate_sample(value)
        loc, scale, low, high = self._parameters(value.dtype)
        mass, c = log_mass(*_ends(loc, scale, low, high))
        # relative to the place of largest density: far out, squares of xi would be large and cancel
        edge = torch.where(c > 0, low, torch.where(c < 0, high, loc))
        t = (value - edge) / scale
        inside = (value >= self.low) & (value <= self.high)
        log_density = -t * (0.5 * t + c) - mass - scale.log() - HALF_LOG_2PI
        return torch.where(inside, log_density, -math.inf)

    def cdf(self, value: Tensor) -> Tensor:
        """Mass below a value."""
        if self._validate_args:
            self._validate_sample(value)
        loc, scale, low, high = self._parameters(value.dtype)
        value = torch.minimum(torch.maximum(value, low), high)
        alpha, beta, width = _ends(loc, scale, low, high)
        part = log_mass(alpha, (value - loc) / scale, (value - low) / scale)
        return torch.exp(log_share(part, log_mass(alpha, beta, width)))

    def icdf(self, value: Tensor) -> Tensor:
        """Quantiles."""
        return self.from_white(torch.special.ndtri(value))

    def from_white(self, w: Tensor) -> Tensor:
        """``F^-1(Phi(w))``: what makes this density of white noise; keeps its digits in both tails."""
        return _Quantile.apply(*torch.broadcast_tensors(w, *self._parameters(w.dtype)))

    def to_white(self, value: Tensor) -> Tensor:
        """The inverse of :meth:`from_white`; finite also at the ends, as if a value were just inside."""
        return _Score.apply(*torch.broadcast_tensors(value, *self._parameters(value.dtype)))

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draws as a differentiable function of the parameters."""
        shape = self._extended_shape(Size(sample_shape))
        return self.from_white(torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device))

    @property
    def mean(self) -> Tensor:
        """By quadrature, to rounding."""
        c, t, weights = self._quadrature()
        return self.loc + self.scale * (c + (weights * t).sum(-1))

    @property
    def mode(self) -> Tensor:
        """The place of largest density."""
        return torch.minimum(torch.maximum(self.loc, self.low), self.high)

    @property
    def variance(self) -> Tensor:
        """By quadrature, to rounding."""
        _, t, weights = self._quadrature()
        centred = t - (weights * t).sum(-1, keepdim=True)
        return self.scale.square() * (weights * centred.square()).sum(-1)

    def _parameters(self, dtype: torch.dtype) -> tuple[Tensor, ...]:
        """``loc, scale, low, high`` in at least the precision of a value."""
        wide = torch.promote_types(dtype, self.loc.dtype)
        return tuple(entry.to(wide) for entry in (self.loc, self.scale, self.low, self.high))

    def _quadrature(self) -> tuple[Tensor, Tensor, Tensor]:
        """The place ``c`` of largest density, nodes as distances from it, and weights with sum 1."""
        alpha, beta, _ = _ends(self.loc, self.scale, self.low, self.high)
        zero = torch.zeros_like(alpha)
        c = torch.minimum(torch.maximum(zero, alpha), beta)
        reach = 80 / (c.abs() + torch.sqrt(c.square() + 80))  # the density has fallen by exp(-40) there
        first = torch.maximum((self.low - self.mode) / self.scale, -reach)
        last = torch.minimum((self.high - self.mode) / self.scale, reach)
        x, w = (
            torch.as_tensor(a, dtype=c.dtype, device=c.device) for a in np.polynomial.legendre.leggauss(96)
        )
        t = first[..., None] + (last - first)[..., None] * (0.5 * x + 0.5)
        weights = w * torch.exp(-t * (0.5 * t + c[..., None]))
        return c, t, weights / weights.sum(-1, keepdim=True)


def _ends(loc: Tensor, scale: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Standardised ends, and the width between them."""
    return (low - loc) / scale, (high - loc) / scale, (high - low) / scale


def _slopes(
    w: Tensor, x: Tensor, loc: Tensor, scale: Tensor, low: Tensor, high: Tensor
) -> tuple[Tensor, ...]:
    r"""Derivatives of the quantile in ``w, loc, scale, low, high``, from its equation.

    .. math:: \phi(\xi) d\xi = \phi(\alpha) \Phi(-w) d\alpha + \phi(\beta) \Phi(w) d\beta + Z \phi(w) dw
    """
    alpha, beta, width = _ends(loc, scale, low, high)
    xi = (x - loc) / scale
    mass, c = log_mass(alpha, beta, width)
    along = torch.exp(log_phi(w) + mass + 0.5 * (xi - c) * (xi + c) + HALF_LOG_2PI)
    cut_low, cut_high = torch.isfinite(low), torch.isfinite(high)
    alpha, beta = torch.where(cut_low, alpha, 0.0), torch.where(cut_high, beta, 0.0)
    of_low = torch.exp(0.5 * (xi - alpha) * (xi + alpha) + log_ndtr(-w))
    of_high = torch.exp(0.5 * (xi - beta) * (xi + beta) + log_ndtr(w))
    of_low, of_high = torch.where(cut_low, of_low, 0.0), torch.where(cut_high, of_high, 0.0)
    return scale * along, 1 - of_low - of_high, xi - alpha * of_low - beta * of_high, of_low, of_high


def _batched(dims: tuple[int | None, ...], entries: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Inputs of one shape with their batch in front: what works entry by entry needs no other rule for batches."""
    moved = [x if dim is None else x.movedim(dim, 0) for x, dim in zip(entries, dims, strict=True)]
    return torch.broadcast_tensors(*moved)


class _Mapped(torch.autograd.Function):
    """What both directions remember: where they were asked, and what they answered."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs, output)
        ctx.save_for_forward(*inputs, output)


class _Quantile(_Mapped):
    """``F^-1(Phi(w))``, and its derivatives by those of its equation, to any order."""

    @staticmethod
    def vmap(info: Any, dims: tuple[int | None, ...], *entries: Tensor) -> tuple[Tensor, int]:
        return _Quantile.apply(*_batched(dims, entries)), 0

    @staticmethod
    def forward(w: Tensor, loc: Tensor, scale: Tensor, low: Tensor, high: Tensor) -> Tensor:
        dtype = w.dtype
        w, loc, scale, low, high = (entry.double() for entry in (w, loc, scale, low, high))
        anchor, offset = quantile(w, *_ends(loc, scale, low, high))
        start = torch.where(anchor < 0, low, torch.where(anchor > 0, high, loc))
        return interior((start + scale * offset).to(dtype), low.to(dtype), high.to(dtype))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        w, *rest, x = ctx.saved_tensors
        return tuple(gradients[0] * slope for slope in _slopes(w, x, *rest))

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Tensor:
        w, *rest, x = ctx.saved_tensors
        pairs = zip(_slopes(w, x, *rest), tangents, strict=True)
        return sum(slope * tangent for slope, tangent in pairs if tangent is not None)  # type: ignore[return-value]


class _Score(_Mapped):
    """``Phi^-1(F(x))``, and its derivatives by those of the inverse."""

    @staticmethod
    def vmap(info: Any, dims: tuple[int | None, ...], *entries: Tensor) -> tuple[Tensor, int]:
        return _Score.apply(*_batched(dims, entries)), 0

    @staticmethod
    def forward(x: Tensor, loc: Tensor, scale: Tensor, low: Tensor, high: Tensor) -> Tensor:
        dtype = x.dtype
        x = interior(x, low.to(dtype), high.to(dtype))
        x, loc, scale, low, high = (entry.double() for entry in (x, loc, scale, low, high))
        alpha, beta, width = _ends(loc, scale, low, high)
        xi, whole = (x - loc) / scale, log_mass(alpha, beta, width)
        lower = log_share(log_mass(alpha, xi, (x - low) / scale), whole)
        upper = log_share(log_mass(xi, beta, (high - x) / scale), whole)
        return from_log_tails(lower, upper).to(dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        x, *rest, w = ctx.saved_tensors
        along, *others = _slopes(w, x, *rest)
        share = gradients[0] / along
        return share, *(-share * slope for slope in others)

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Tensor:
        x, *rest, w = ctx.saved_tensors
        along, *others = _slopes(w, x, *rest)
        moved = torch.zeros_like(w) if tangents[0] is None else tangents[0]
        for slope, tangent in zip(others, tangents[1:], strict=True):
            moved = moved if tangent is None else moved - slope * tangent
        return moved / along


def unvalidated(density: Distribution) -> Distribution:
    """The same density without checks of its arguments, which ``torch.func.vmap`` cannot see through."""
    bare = copy.copy(density)
    bare._validate_args = False
    if isinstance(bare, (Independent, TransformedDistribution)):
        bare.base_dist = unvalidated(bare.base_dist)
    if isinstance(bare, Beta):
        bare._dirichlet = unvalidated(bare._dirichlet)  # type: ignore[assignment]
    return bare
