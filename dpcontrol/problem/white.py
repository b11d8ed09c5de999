r"""White numbers: maps under which standard normal noise becomes a given density.

A search or a sampler that moves white numbers ``w`` sees every prior as the same round hill, ``log p = -|w|^2 / 2``:
whatever the units, the bounds, the correlations and the number of cells.

==========================================  =====================================================================
density                                     natural numbers of white ones
==========================================  =====================================================================
``Normal``, ``MultivariateNormal``          ``loc + scale w``, ``loc + L w`` with the Cholesky factor ``L``
``LogNormal``, other transformed densities  the transforms after the white map of the base, if they are bijective
``GaussianField``                           amplitudes of its modes, by a fast transform
``Independent``                             the white map of the base
``Uniform``, ``TruncatedNormal``,           ``F^-1(Phi(w))``: their quantile at the normal's probability,
``HalfNormal``, ``Exponential``,            taken in the nearer tail, so that all digits hold for ``|w|`` far
``Laplace``, ``Gumbel``, ``Cauchy``,        beyond 8, where ``1 - Phi`` is below rounding
``HalfCauchy``, ``Gamma``, ``Chi2``,
``Beta``, ``StudentT``
others (``Dirichlet``, ``VonMises``, ...)   none
==========================================  =====================================================================
"""

from __future__ import annotations

import copy
import dataclasses
import math
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch import distributions as torch_distributions
from torch.distributions import Distribution, Independent, TransformedDistribution, biject_to
from torch.distributions.transforms import (
    AffineTransform,
    ComposeTransform,
    IndependentTransform,
    Transform,
)

from dpcontrol.problem import incomplete
from dpcontrol.problem.densities import TruncatedNormal, unvalidated
from dpcontrol.problem.fields import FieldTransform, GaussianField
from dpcontrol.problem.normal_tails import from_log_tails, interior, log_ndtr, ndtr
from dpcontrol.problem.tabulated import OneSided, one_sided
from dpcontrol.problem.through_normal import Factored, ThroughNormal
from dpcontrol.results import UsageError


def white_transform(density: Distribution) -> Transform | None:
    """The map from white numbers to the density's own, or ``None`` where there is none (see the table above).

    Its ``log_abs_det_jacobian(w, x)`` is ``log phi(w) - log p(x)``, summed over the dimensions of an event.
    """
    if isinstance(density, Independent):
        base = white_transform(density.base_dist)
        return None if base is None else IndependentTransform(base, density.reinterpreted_batch_ndims)
    for kind, affine in _AFFINE.items():
        if isinstance(density, kind):
            return affine(density)
    for kind, through in _THROUGH.items():
        if isinstance(density, kind):
            return through(_in_double(density))
    if isinstance(density, TransformedDistribution):
        return _transformed(density)
    return None


def free_transform(density: Distribution) -> Transform:
    """The map from free numbers to the density's support: the white one, where there is one.

    Raises:
        UsageError: for densities of whole numbers and others that no smooth map reaches.
    """
    white = white_transform(density)
    if white is not None:
        return white
    if isinstance(density, torch_distributions.VonMises):
        raise UsageError(
            "a VonMises density repeats itself on the whole line and cannot be a prior there: seek the angle on an "
            "interval, or the two components of a direction."
        )
    if _is_point(density):
        raise UsageError(
            f"a {type(density).__name__} says that the value is known: pass it as parameters={{...}}, and leave it out "
            "of the prior."
        )
    try:
        found = biject_to(density.support)
        if (
            found.inverse_shape(density.batch_shape + density.event_shape)
            != density.batch_shape + density.event_shape
        ):
            raise UsageError(
                f"a {type(density).__name__} has more numbers than freedoms and cannot be sought: seek independent "
                "numbers that it is made of, and normalise them in the simulator."
            )
        return found
    except NotImplementedError:
        raise UsageError(
            f"a {type(density).__name__} cannot be sought: no smooth map leads from free numbers to its support "
            f"{density.support}; use a continuous density."
        ) from None


def _is_point(density: Distribution) -> bool:
    """Whether all of the probability is in one place."""
    try:
        return bool((density.variance == 0).all())
    except NotImplementedError:
        return False


def draw(density: Distribution, generator: torch.Generator, sample_shape: tuple[int, ...] = ()) -> Tensor:
    """Draws from a density, ``sample_shape + batch_shape + event_shape``, by an explicit generator.

    Global generators are left as they were.
    """
    white = white_transform(density)
    like = parameter(density)
    if white is not None:
        shape = white.inverse_shape(torch.Size(sample_shape) + density.batch_shape + density.event_shape)
        noise = torch.randn(shape, generator=generator, dtype=like.dtype, device=generator.device)
        with torch.no_grad():
            return white(noise.to(like.device))
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    with torch.random.fork_rng(devices=[like.device] if like.is_cuda else []):
        torch.manual_seed(seed)
        return density.sample(torch.Size(sample_shape))


def with_tensors(thing: Any, change: Callable[[Tensor], Tensor], seen: dict[int, Any] | None = None) -> Any:
    """A density (or what it is made of) with every tensor in it changed: moved to another device, say.

    ``seen`` are parts that were changed already: transforms and their inverses know each other.
    """
    seen = {} if seen is None else seen
    if id(thing) in seen:
        return seen[id(thing)]
    if isinstance(thing, Tensor):
        return change(thing)
    if isinstance(thing, weakref.ref):  # a transform makes its inverse anew
        return None
    if isinstance(thing, (list, tuple)):
        return type(thing)(with_tensors(part, change, seen) for part in thing)
    if dataclasses.is_dataclass(thing) and not isinstance(thing, (Distribution, Transform, type)):
        parts = {entry.name: getattr(thing, entry.name) for entry in dataclasses.fields(thing) if entry.init}
        return dataclasses.replace(
            thing, **{name: with_tensors(part, change, seen) for name, part in parts.items()}
        )
    if not isinstance(thing, (Distribution, Transform)):
        return thing
    found = seen[id(thing)] = copy.copy(thing)
    for name, value in vars(thing).items():
        found.__dict__[name] = with_tensors(value, change, seen)
    return found


def parameter(density: Distribution) -> Tensor:
    """One of a density's parameters, for its dtype and device."""
    while isinstance(density, (Independent, TransformedDistribution)):
        density = density.base_dist
    found = [getattr(density, name) for name in density.arg_constraints]
    return next((entry for entry in found if isinstance(entry, Tensor)), torch.zeros(()))


def _transformed(density: TransformedDistribution) -> Transform | None:
    base = white_transform(density.base_dist)
    if base is None or not all(transform.bijective for transform in density.transforms):
        return None
    return ComposeTransform([base, *density.transforms])


def _in_double(density: Distribution) -> Distribution:
    """The same density with float64 parameters: rounded constants would spoil slopes of float64 numbers."""
    wide = unvalidated(density)
    for name in wide.arg_constraints:
        value = wide.__dict__.get(name)
        if isinstance(value, Tensor):
            setattr(wide, name, value.double())
    if isinstance(wide, TransformedDistribution):
        wide.base_dist = _in_double(wide.base_dist)
    if isinstance(wide, torch_distributions.Beta):
        wide._dirichlet = _in_double(wide._dirichlet)  # type: ignore[assignment]
    return wide


def _uniform(density: Any) -> Transform:
    low, high, ndtri = density.low, density.high, torch.special.ndtri

    def forward(w: Tensor) -> Tensor:
        share = (high - low) * ndtr(-w.abs())
        x = torch.where(w < 0, low + share, high - share).to(w.dtype)
        return interior(x, low.to(w.dtype), high.to(w.dtype))

    def backward(x: Tensor) -> Tensor:
        x = interior(x, low.to(x.dtype), high.to(x.dtype))
        below, above = (x - low) / (high - low), (high - x) / (high - low)
        w = ndtri(torch.minimum(below, above))
        return torch.where(below < above, w, -w)

    return ThroughNormal(density, forward, backward)


def _half_normal(density: Any) -> Transform:
    return _truncated(TruncatedNormal(0.0, density.scale, low=0.0, validate_args=False))


def _truncated(density: TruncatedNormal) -> Transform:
    if not one_sided(density):
        return ThroughNormal(density, density.from_white, density.to_white)
    quick = OneSided(density)
    return ThroughNormal(density, quick, density.to_white, quick.log_density)


def _exponential(density: Any) -> Transform:
    return ThroughNormal(
        density,
        lambda w: _positive(-log_ndtr(-w)) / density.rate,
        lambda x: from_log_tails(_log1mexp(density.rate * x), -density.rate * x),
    )


def _laplace(density: Any) -> Transform:
    def forward(w: Tensor) -> Tensor:
        return density.loc - density.scale * torch.sign(w) * (log_ndtr(-w.abs()) + math.log(2))

    def backward(x: Tensor) -> Tensor:
        t = (x - density.loc) / density.scale
        thin = -t.abs() - math.log(2)
        thick = torch.log1p(-torch.exp(thin))
        return from_log_tails(torch.where(t < 0, thin, thick), torch.where(t < 0, thick, thin))

    return ThroughNormal(density, forward, backward)


def _gumbel(density: Any) -> Transform:
    def backward(x: Tensor) -> Tensor:
        rate = torch.exp(-(x - density.loc) / density.scale)
        return from_log_tails(-rate, _log1mexp(rate))

    return ThroughNormal(
        density,
        lambda w: density.loc - density.scale * torch.log(_positive(-log_ndtr(w))),
        backward,
    )


def _cauchy(density: Any) -> Transform:
    def forward(w: Tensor) -> Tensor:
        share = ndtr(-w.abs())
        return density.loc + density.scale * torch.sign(w) / torch.tan(math.pi * share)

    def backward(x: Tensor) -> Tensor:
        t = (x - density.loc) / density.scale
        return torch.sign(t) * -torch.special.ndtri(torch.atan(1 / t.abs()) / math.pi)

    return ThroughNormal(density, forward, backward)


def _half_cauchy(density: Any) -> Transform:
    def forward(w: Tensor) -> Tensor:
        angle = 0.5 * math.pi * ndtr(-w.abs())
        return density.scale * torch.where(w < 0, torch.tan(angle), 1 / torch.tan(angle))

    def backward(x: Tensor) -> Tensor:
        t = x / density.scale
        w = torch.special.ndtri(torch.atan(torch.minimum(t, 1 / t)) * (2 / math.pi))
        return torch.where(t < 1, w, -w)

    return ThroughNormal(density, forward, backward)


def _positive(value: Tensor) -> Tensor:
    return value.clamp(min=torch.finfo(value.dtype).tiny)


def _log1mexp(value: Tensor) -> Tensor:
    """``log(1 - exp(-value))`` of positive values, to all digits."""
    small = value < math.log(2)
    return torch.where(
        small,
        torch.log(-torch.expm1(-torch.where(small, value, 1.0))),
        torch.log1p(-torch.exp(-torch.where(small, 1.0, value))),
    )


_AFFINE: dict[type[Distribution], Callable[[Any], Transform]] = {
    torch_distributions.Normal: lambda density: AffineTransform(density.loc, density.scale),
    torch_distributions.MultivariateNormal: lambda density: Factored(density.loc, density.scale_tril),
    torch_distributions.LowRankMultivariateNormal: lambda density: Factored(density.loc, density.scale_tril),
    GaussianField: FieldTransform,
}
# Half-normals and Gumbels are transformed densities in torch, by maps that fold or lose digits: asked before those.
_THROUGH: dict[type[Distribution], Callable[[Any], Transform]] = {
    torch_distributions.Uniform: _uniform,
    TruncatedNormal: _truncated,
    torch_distributions.HalfNormal: _half_normal,
    torch_distributions.Exponential: _exponential,
    torch_distributions.Laplace: _laplace,
    torch_distributions.Gumbel: _gumbel,
    torch_distributions.Cauchy: _cauchy,
    torch_distributions.HalfCauchy: _half_cauchy,
    torch_distributions.Gamma: lambda density: ThroughNormal(density, *incomplete.gamma(density)),
    torch_distributions.Beta: lambda density: ThroughNormal(density, *incomplete.beta(density)),
    torch_distributions.StudentT: lambda density: ThroughNormal(density, *incomplete.student(density)),
}
