"""Gaussian random fields on the cells of a box, as densities: transforms instead of covariance matrices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Size, Tensor
from torch.distributions import Distribution, constraints
from torch.distributions.transforms import Transform

from dpcontrol import tree
from dpcontrol.linalg.poisson import Sides, poisson
from dpcontrol.linalg.poisson import Transform as Basis
from dpcontrol.problem.normal_tails import HALF_LOG_2PI
from dpcontrol.results import UsageError

Boundary = Sides | tuple[Sides, ...]


class GaussianField(Distribution):
    r"""A stationary Gaussian random field ``x`` at the cell centres of a box, of Matern or squared-exponential kind.

    .. math:: \left(\frac{2 \nu}{\ell^2} - \Delta\right)^{(\nu + d/2)/2} (x - m) = c\, sd\, W, \qquad
              \mathrm{cov}(r) = sd^2 \frac{2^{1-\nu}}{\Gamma(\nu)} \rho^\nu K_\nu(\rho), \quad
              \rho = \sqrt{2 \nu} \frac{r}{\ell}

    with white noise ``W``: the covariance is that in free space, ``exp(-r / l)`` for ``nu = 1/2``, ``(1 + rho)
    exp(-rho)`` for ``nu = 3/2``, ``exp(-r^2 / 2 l^2)`` in the limit. In a box it is that of the equation with the
    given boundaries, that is, of its images:

    - ``"periodic"``: the sum over the periods. The standard deviation is ``sd`` everywhere, exactly.
    - ``"neumann"``, no slope at the wall, and ``"dirichlet"``, ``x = m`` on it: the field is ``sqrt(2)`` times the
      even (odd) part of a periodic field of standard deviation ``sd`` on the doubled box. At a distance ``s`` from the
      wall the variance is ``sd^2 (1 + rho(2 s))`` (``-``), with the correlation ``rho`` of that field: ``sd^2`` from
      about a length scale on, twice as much (nothing) on the wall. :attr:`stddev` tells it in each cell.

    The values in the cells are those of one field on the continuum: its modes are sampled with all their aliases, so
    that the statistics at a place are the same on any mesh, to rounding, and what is inferred in white numbers needs
    no more iterations on a finer one. White numbers are the amplitudes of modes (Fourier or cosines) in units of their
    standard deviations. Everything costs one fast transform; no matrix over cells is formed.

    Variances of modes are kept above ``eps^(3/4) sd^2``, ``2e-12 sd^2`` in float64: smoother fields than that cannot be
    whitened.

    Args:
        sizes: number of cells along each of up to three axes, the event shape; a number for one axis.
        lengths: of the box along each axis, in a unit of length; a number for one axis.
        mean: ``m``, a number or a tensor of the grid's shape, in the unit of ``x``. If it is a tensor, dtype and device
            are its own, float64 otherwise; fields of another dtype are computed in this one.
        sd: standard deviation, likewise.
        length_scale: ``l``, a length, or one for each axis.
        smoothness: ``nu``; the field has derivatives of orders below ``nu``. ``math.inf`` is squared-exponential.
        boundary: of all axes, or a tuple with an entry for each; an entry may be a pair of ``"neumann"`` and
            ``"dirichlet"`` for the left and the right wall.

    Raises:
        UsageError: for sizes, scales or boundaries that make no field.

    Source: F. Lindgren, H. Rue, J. Lindstroem, "An explicit link between Gaussian fields and Gaussian Markov random
    fields: the stochastic partial differential equation approach", J. R. Stat. Soc. B 73 (2011) 423, eqs. (1)-(2); here
    with the eigenfunctions of the box instead of finite elements.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {"loc": constraints.real, "sd": constraints.positive}
    has_rsample = True

    def __init__(
        self,
        sizes: int | Sequence[int],
        lengths: float | Sequence[float],
        *,
        mean: float | Tensor = 0.0,
        sd: float | Tensor = 1.0,
        length_scale: float | Sequence[float],
        smoothness: float = 1.5,
        boundary: Boundary = "periodic",
    ) -> None:
        sizes = (sizes,) if isinstance(sizes, int) else tuple(sizes)
        lengths = (lengths,) if isinstance(lengths, int | float) else tuple(lengths)
        _require(sizes, lengths, smoothness)
        scales = _per_axis(length_scale, len(sizes), "length_scale")
        sides = _sides(boundary, len(sizes))
        like = torch.zeros((), dtype=torch.float64)
        if isinstance(mean, Tensor):
            like = mean if mean.is_floating_point() else mean.double()
        self.loc, self.sd = tree.to(mean, dtype=like.dtype), tree.to(sd, dtype=like.dtype, device=like.device)
        if not bool((self.sd > 0).all()):
            raise UsageError(f"the standard deviation of a field must be positive; found sd={sd}.")
        for name, value in (("mean", self.loc), ("sd", self.sd)):
            if value.shape not in ((), sizes):
                raise UsageError(
                    f"{name} is a number or a tensor of the grid's shape {sizes}; found {tuple(value.shape)}."
                )
        spacing = [length / n for length, n in zip(lengths, sizes, strict=True)]
        self.basis = poisson(sizes, spacing, sides, dtype=like.dtype, device=like.device).transforms
        # wave numbers in units of the one whose wave length is a cell
        ratios = [2 * math.pi * scale / h for scale, h in zip(scales, spacing, strict=True)]
        orders = [_orders(n, side) for n, side in zip(sizes, sides, strict=True)]
        periods = [n if side == "periodic" else 2 * n for n, side in zip(sizes, sides, strict=True)]
        variances = _spectrum(orders, ratios, periods, smoothness)
        self.mode_variances = variances + torch.finfo(like.dtype).eps ** 0.75
        self.root = self.mode_variances.sqrt().to(like)
        self.sides, self.lengths = sides, tuple(float(length) for length in lengths)
        self._described = (
            f"GaussianField({sizes}, {lengths}, length_scale={length_scale}, smoothness={smoothness}, "
            f"boundary={boundary!r})"
        )
        super().__init__(Size(), Size(sizes), validate_args=False)

    def __repr__(self) -> str:
        return self._described

    @property
    def support(self) -> Any:
        """All fields."""
        return constraints.independent(constraints.real, len(self.event_shape))

    def unwhiten(self, white: Tensor) -> Tensor:
        """The field ``(..., *sizes)`` of white numbers of the same shape; differentiable, linear."""
        self._require(white)
        modes = white.to(self.root) * self.root
        return (self.loc + self.sd * _Turned.apply(modes, Turn(self.basis, False))).to(white.dtype)

    def whiten(self, field: Tensor) -> Tensor:
        """White numbers ``(..., *sizes)`` of a field of the same shape, the inverse of :meth:`unwhiten`."""
        self._require(field)
        modes = _Turned.apply((field.to(self.root) - self.loc) / self.sd, Turn(self.basis, True))
        return (modes / self.root).to(field.dtype)

    def log_prob(self, value: Tensor) -> Tensor:
        """``log p`` of fields ``(..., *sizes)``, shape ``(...)``."""
        axes = tuple(range(-len(self.event_shape), 0))
        return -(0.5 * self.whiten(value).square() + HALF_LOG_2PI).sum(axes) - self.log_volume()

    def log_volume(self) -> Tensor:
        """``log |d field / d white|``, a scalar."""
        return self.root.log().sum() + self.sd.log().expand(self.event_shape).sum()

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draws, by torch's global generator."""
        shape = self._extended_shape(Size(sample_shape))
        return self.unwhiten(torch.randn(shape, dtype=self.root.dtype, device=self.root.device))

    def expand(self, batch_shape: Any, _instance: Any = None) -> GaussianField:
        """Independent fields of the same density."""
        new: GaussianField = self._get_checked_instance(GaussianField, _instance)
        new.loc, new.sd, new.basis = self.loc, self.sd, self.basis
        new.sides, new.lengths = self.sides, self.lengths
        new.mode_variances, new.root, new._described = self.mode_variances, self.root, self._described
        Distribution.__init__(new, Size(batch_shape), self.event_shape, validate_args=False)
        return new

    @property
    def mean(self) -> Tensor:
        """``m`` in all cells."""
        return self.loc.expand(self._extended_shape())

    @property
    def variance(self) -> Tensor:
        """In each cell; the boundary's part of it is told in the class's text."""
        variance = self.mode_variances
        for axis, (n, side) in enumerate(zip(self.event_shape, self.sides, strict=True)):
            variance = _squared_modes(variance.movedim(axis, -1), n, side).movedim(-1, axis)
        return (self.sd.square() * variance.to(self.root)).expand(self._extended_shape())

    def _require(self, value: Tensor) -> None:
        shape = tuple(value.shape[-len(self.event_shape) :])
        if shape != tuple(self.event_shape):
            raise UsageError(
                f"this field lives on {tuple(self.event_shape)} cells; found a tensor of shape {tuple(value.shape)}."
            )


class FieldTransform(Transform):
    """White numbers of a :class:`GaussianField` to its values."""

    bijective = True

    def __init__(self, field: GaussianField, cache_size: int = 0) -> None:
        super().__init__(cache_size=cache_size)
        self.field = field

    @property
    def domain(self) -> Any:  # type: ignore[override]
        """All fields."""
        return self.field.support

    @property
    def codomain(self) -> Any:  # type: ignore[override]
        """All fields."""
        return self.field.support

    def with_cache(self, cache_size: int = 1) -> FieldTransform:
        """The same map, with or without torch's cache of the last pair."""
        return FieldTransform(self.field, cache_size)

    def _call(self, x: Tensor) -> Tensor:
        return self.field.unwhiten(x)

    def _inverse(self, y: Tensor) -> Tensor:
        return self.field.whiten(y)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """A constant."""
        return self.field.log_volume().expand(x.shape[: x.dim() - len(self.field.event_shape)])


@dataclass(frozen=True)
class Turn:
    """The orthogonal transform from cells to modes along all axes, or back."""

    basis: tuple[Basis, ...]
    to_modes: bool

    def __call__(self, value: Tensor) -> Tensor:
        """The transformed field."""
        for axis, transform in zip(range(-len(self.basis), 0), self.basis, strict=True):
            value = transform.forward(value, axis) if self.to_modes else transform.inverse(value, axis)
        return value

    @property
    def back(self) -> Turn:
        """The inverse, which is the adjoint."""
        return Turn(self.basis, not self.to_modes)


class _Turned(torch.autograd.Function):
    """A turn, whose derivative is one turn again instead of that of its FFT."""

    generate_vmap_rule = True

    @staticmethod
    def forward(value: Tensor, turn: Turn) -> Tensor:
        return turn(value)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Turn], output: Tensor) -> None:
        ctx.turn = inputs[1]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _Turned.apply(gradients[0], ctx.turn.back), None

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        return _Turned.apply(tangents[0], ctx.turn)


def _orders(n: int, side: Sides) -> Tensor:
    """Wave numbers of the rows of a basis, in units of the one whose wave length is a cell, up to one half."""
    k = torch.arange(n, dtype=torch.float64)
    if isinstance(side, str):
        return torch.minimum(k, n - k) / n
    left, right = side
    order = k if left == "neumann" else n - k
    return (order if left == right else order + (0.5 if left == "neumann" else -0.5)) / (2 * n)


def _spectrum(orders: list[Tensor], ratios: list[float], periods: list[int], smoothness: float) -> Tensor:
    r"""Variance of each mode of a field of unit standard deviation, aliases included.

    The spectral density is a mixture of Gaussians, whose aliases are sums along each axis:

    .. math:: (2 \nu + |\ell k|^2)^{-p} = \frac{1}{\Gamma(p)} \int_0^\infty t^{p-1} e^{-2 \nu t}
              \prod_a e^{-t \ell_a^2 k_a^2} dt, \qquad p = \nu + d / 2

    by the trapezoidal rule in ``log t``, which converges exponentially. All terms are positive, so that the smallest
    variances have all their digits, too.
    """
    if math.isinf(smoothness):
        nodes, log_weights = torch.full((1,), 0.5, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    else:
        p = smoothness + 0.5 * len(orders)
        step = min(0.2, 0.5 / math.sqrt(p))
        first = min(-2 * math.log(max(ratios)), -math.log(2 * smoothness)) - 38 / smoothness
        last = math.log((p + 60) / smoothness)
        s = torch.arange(first, last, step, dtype=torch.float64)
        nodes = s.exp()
        log_weights = p * s - 2 * smoothness * nodes
    whole = torch.ones_like(nodes)
    for ratio, n in zip(
        ratios, periods, strict=True
    ):  # the mean over the modes of n cells, a sum of the same kind
        whole = whole * _aliased(nodes * (ratio / n) ** 2, torch.zeros(1, dtype=torch.float64))[:, 0] / n
    # divided before the exponential: with small nu the integrand spans many orders of magnitude
    shares = torch.softmax(log_weights + whole.log(), 0) / whole
    total = torch.zeros([len(order) for order in orders], dtype=torch.float64)
    for some in torch.arange(len(nodes)).split(64):
        sums = [_aliased(nodes[some] * r**2, order) for r, order in zip(ratios, orders, strict=True)]
        product = sums[-1]
        for rows in reversed(sums[:-1]):
            product = rows.reshape(len(some), -1, *(1,) * (product.dim() - 1)) * product[:, None]
        total = total + torch.tensordot(shares[some], product, dims=1)
    return total


def _aliased(sharpness: Tensor, order: Tensor) -> Tensor:
    r"""``\sum_m exp(-a (f + m)^2)`` for ``a`` ``(nodes,)`` and ``f`` ``(modes,)``, directly or summed by Poisson."""
    wide = sharpness < math.pi
    near, far = sharpness[wide][:, None], sharpness[~wide][:, None]
    result = torch.empty(len(sharpness), len(order), dtype=torch.float64)
    dual = 1.0 + sum(
        2 * torch.exp(-((math.pi * m) ** 2) / near) * torch.cos(2 * math.pi * m * order) for m in range(1, 5)
    )
    result[wide] = torch.sqrt(math.pi / near) * dual
    result[~wide] = sum(torch.exp(-far * (order + m).square()) for m in range(-4, 5))
    return result


def _squared_modes(variances: Tensor, n: int, side: Sides) -> Tensor:
    """Sum over modes (last axis) of variance times the squared mode, in each cell: cosines of twice the angle."""
    if isinstance(side, str):  # the pair of modes of a wave number has the same squared sum everywhere
        return variances.mean(-1, keepdim=True).expand(variances.shape)
    left, right = side
    sign = 1.0 if left == "neumann" else -1.0
    orders = (_orders(n, side) * 4 * n).round() / 2  # whole numbers, or halves between them
    weights = variances / n
    if left == right:
        weights = torch.where((orders == 0) | (orders == n), 0.5 * weights, weights)
    k = orders.floor()
    shift = (orders - k)[0] * (torch.arange(n, dtype=torch.float64) + 0.5) / n
    terms = torch.zeros(weights.shape, dtype=torch.complex128)
    terms[..., k.long().remainder(n)] = torch.polar(weights, math.pi * k.expand(weights.shape) / n)
    waves = torch.fft.ifft(terms, norm="forward") * torch.polar(
        torch.ones(n, dtype=torch.float64), 2 * math.pi * shift
    )
    return weights.sum(-1, keepdim=True) + sign * waves.real


def _require(sizes: tuple[int, ...], lengths: tuple[float, ...], smoothness: float) -> None:
    if not 1 <= len(sizes) <= 3 or any(not isinstance(n, int) or n < 1 for n in sizes):
        raise UsageError(
            f"a field has one to three axes with a whole number of cells each; found sizes={sizes!r}."
        )
    if len(lengths) != len(sizes) or not all(math.isfinite(length) and length > 0 for length in lengths):
        raise UsageError(
            f"lengths needs one positive length for each of the {len(sizes)} axes; found {lengths!r}."
        )
    if not smoothness >= 0.05:
        raise UsageError(
            f"smoothness must be at least 0.05 (math.inf: squared-exponential); found {smoothness!r}."
        )


def _per_axis(value: float | Sequence[float], axes: int, name: str) -> tuple[float, ...]:
    found = (float(value),) * axes if isinstance(value, (int, float)) else tuple(float(v) for v in value)
    if len(found) != axes or not all(math.isfinite(entry) and entry > 0 for entry in found):
        raise UsageError(
            f"{name} must be a positive length, or one for each of the {axes} axes; found {value!r}."
        )
    return found


def _sides(boundary: Boundary, axes: int) -> tuple[Sides, ...]:
    kinds = ("neumann", "dirichlet")
    given = (boundary,) * axes if isinstance(boundary, str) else tuple(boundary)
    found = tuple((side, side) if isinstance(side, str) and side in kinds else side for side in given)
    for side in found:
        pair = isinstance(side, tuple) and len(side) == 2 and set(side) <= set(kinds)
        if side != "periodic" and not pair:
            raise UsageError(
                f'boundary is "periodic", "neumann" or "dirichlet", or a tuple with an entry for each axis; '
                f"found {boundary!r}."
            )
    if len(found) != axes:
        raise UsageError(f"boundary needs one entry for each of the {axes} axes; found {boundary!r}.")
    return found
