"""Transforms of standard normal numbers: entry by entry through a monotone map, and by a factor of a covariance."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.distributions.transforms import Transform

from dpcontrol.problem.densities import unvalidated
from dpcontrol.problem.incomplete import Map
from dpcontrol.problem.normal_tails import log_phi


class ThroughNormal(Transform):
    """``x = F^-1(Phi(w))`` entry by entry, with the derivative ``phi(w) / p(x)`` to any order.

    Args:
        density: ``p``.
        forward: ``w -> x``, accurate in both tails; need not be differentiable.
        backward: ``x -> w``, its inverse.
        log_density: ``log p`` inside the support, where there is a quicker one than the density's own.
    """

    bijective = True
    sign = 1
    domain = constraints.real

    def __init__(
        self,
        density: Distribution,
        forward: Map,
        backward: Map,
        log_density: Map | None = None,
        cache_size: int = 0,
    ) -> None:
        super().__init__(cache_size=cache_size)
        self.density = unvalidated(density)
        self.forward, self.backward = forward, backward
        self.log_density = log_density or self.density.log_prob

    @property
    def codomain(self) -> Any:  # type: ignore[override]
        """The density's support."""
        return self.density.support

    def with_cache(self, cache_size: int = 1) -> ThroughNormal:
        """The same map, with or without torch's cache of the last pair."""
        return ThroughNormal(self.density, self.forward, self.backward, self.log_density, cache_size)

    def slope(self, x: Tensor, y: Tensor) -> Tensor:
        """``phi(x) / p(y)``, in the dtype of ``x``."""
        return torch.exp(self.log_abs_det_jacobian(x, y)).to(x.dtype)

    def _call(self, x: Tensor) -> Tensor:
        return _Forward.apply(x, self)

    def _inverse(self, y: Tensor) -> Tensor:
        return _Backward.apply(y, self)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """``log phi(x) - log p(y)``, entry by entry."""
        return log_phi(x) - self.log_density(y)


class _Mapped(torch.autograd.Function):
    """What both directions remember: where they were asked, and what they answered."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ThroughNormal], output: Tensor) -> None:
        ctx.through = inputs[1]
        ctx.save_for_backward(inputs[0], output)
        ctx.save_for_forward(inputs[0], output)


class _Forward(_Mapped):
    @staticmethod
    def forward(w: Tensor, through: ThroughNormal) -> Tensor:
        return through.forward(w).to(w.dtype)

    @staticmethod
    def vmap(info: Any, dims: Any, w: Tensor, through: ThroughNormal) -> tuple[Tensor, int]:
        # entry by entry, and parameters of a density broadcast from the left
        return _Forward.apply(w.movedim(dims[0], 0), through), 0

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        w, x = ctx.saved_tensors
        return gradients[0] * ctx.through.slope(w, x), None

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        w, x = ctx.saved_tensors
        return tangents[0] * ctx.through.slope(w, x)


class _Backward(_Mapped):
    @staticmethod
    def forward(x: Tensor, through: ThroughNormal) -> Tensor:
        return through.backward(x).to(x.dtype)

    @staticmethod
    def vmap(info: Any, dims: Any, x: Tensor, through: ThroughNormal) -> tuple[Tensor, int]:
        return _Backward.apply(x.movedim(dims[0], 0), through), 0

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        x, w = ctx.saved_tensors
        return gradients[0] / ctx.through.slope(w, x), None

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        x, w = ctx.saved_tensors
        return tangents[0] / ctx.through.slope(w, x)


class Factored(Transform):
    """``x = loc + L w`` with a lower triangular ``L``."""

    bijective = True
    domain = constraints.real_vector
    codomain = constraints.real_vector

    def __init__(self, loc: Tensor, factor: Tensor, cache_size: int = 0) -> None:
        super().__init__(cache_size=cache_size)
        self.loc, self.factor = loc, factor

    def with_cache(self, cache_size: int = 1) -> Factored:
        """The same map, with or without torch's cache of the last pair."""
        return Factored(self.loc, self.factor, cache_size)

    def _call(self, x: Tensor) -> Tensor:
        return self.loc + (self.factor.to(x.dtype) @ x[..., None])[..., 0]

    def _inverse(self, y: Tensor) -> Tensor:
        away = (y - self.loc)[..., None]
        return torch.linalg.solve_triangular(self.factor.to(away.dtype), away, upper=False)[..., 0]

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """``log |det L|``."""
        size = torch.diagonal(self.factor, dim1=-2, dim2=-1).abs().log().sum(-1)
        return size + torch.zeros_like(x[..., 0])
