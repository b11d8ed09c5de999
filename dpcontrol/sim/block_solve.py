r"""``u = K(theta)^{-1} g``, ``K(theta) = sum_k theta_k K_k``: one factorisation for the value and all derivatives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dpcontrol.kernels.fronts import Fronts


@dataclass(frozen=True, eq=False)
class BlockSystem:
    r"""Solves on a grid of blocks with a coefficient ``theta_k`` each, values on the boundary being zero.

    .. math:: \dot u = K^{-1} (\dot g - K(\dot \theta) u), \qquad
              \bar g = K^{-1} \bar u, \quad \bar \theta_k = - \bar g^T K_k u

    Derivatives of any order, in forward and reverse mode and under ``vmap``, are solves with the same factors. On the
    CPU with Numba they run through compiled loops (:class:`~dpcontrol.kernels.fronts.Fronts`); elsewhere the equations
    of the nodes between the blocks are a dense matrix for :func:`torch.linalg.cholesky_ex`.

    Rows of ``theta`` that are not positive give NaN.
    """

    fronts: Fronts

    def solve(self, theta: Tensor, load: Tensor) -> Tensor:
        """``u`` ``(rows, nodes)``, zero on the boundary.

        Args:
            theta: ``(rows, blocks)``, or a single row.
            load: ``g``, ``(rows, nodes)``, or a single row; entries on the boundary play no part.
        """
        found: Tensor = _Solve.apply(self, theta, _rows(load, max(len(theta), len(load))))[0]
        return found

    # -- what the derivatives are made of ----------------------------------------------------------------------------

    def apply(self, theta: Tensor, u: Tensor) -> Tensor:
        """``K(theta) u``, ``(rows, nodes)``; ordinary tensor operations."""
        local = self._local(u) @ self._constant("energy", u) * theta[..., None]
        nodes = self._places("nodes", u)
        return torch.zeros_like(u).index_add(-1, nodes.reshape(-1), local.flatten(-2))

    def energies(self, left: Tensor, right: Tensor) -> Tensor:
        """``left^T K_k right`` of each block, ``(rows, blocks)``; where a graph is kept, ordinary tensor operations."""
        if not torch.is_grad_enabled() and self.fronts.can_run(left, right):
            return self.fronts.energies(left, right)
        return (self._local(left) @ self._constant("energy", left) * self._local(right)).sum(-1)

    def _local(self, u: Tensor) -> Tensor:
        nodes = self._places("nodes", u)
        return u.index_select(-1, nodes.reshape(-1)).unflatten(-1, tuple(nodes.shape))

    # -- raw answers -------------------------------------------------------------------------------------------------

    def raw_factor(self, theta: Tensor) -> Tensor:
        """What a solve needs to know of ``theta``, rows first, without a graph."""
        if self.fronts.can_run(theta):
            return self.fronts.factor(theta)
        size = len(self.fronts.plan.spots)
        rings = self._places("rings", theta)
        where = (rings[:, :, None] * (size + 1) + rings[:, None, :]).reshape(-1)
        parts = theta[:, :, None, None] * self._constant("schur", theta)
        matrix = theta.new_zeros(len(theta), (size + 1) ** 2).index_add(1, where, parts.flatten(1))
        lower, failed = torch.linalg.cholesky_ex(matrix.unflatten(1, (size + 1, size + 1))[:, :size, :size])
        good = (failed == 0) & (theta > 0).all(1)
        return torch.where(good[:, None, None], lower, torch.nan)

    def raw_solve(self, theta: Tensor, factors: Tensor, load: Tensor) -> Tensor:
        """``K(theta)^{-1} g`` by factors that :meth:`raw_factor` made, without a graph."""
        theta, factors = _rows(theta, len(load)), _rows(factors, len(load))
        if factors.ndim == 2:
            return self.fronts.solve(theta, factors, load)
        rings, cores, spots = (self._places(name, load) for name in ("rings", "cores", "spots"))
        lift = self._constant("lift", load)
        inside = load[:, cores]
        right = load.new_zeros(len(load), len(spots) + 1)
        right[:, : len(spots)] = load[:, spots]
        right.index_add_(1, rings.reshape(-1), (inside @ lift).flatten(1))
        values = torch.zeros_like(right)
        values[:, : len(spots)] = torch.cholesky_solve(right[:, : len(spots), None], factors)[..., 0]
        found = torch.zeros_like(load)
        found[:, spots] = values[:, : len(spots)]
        own = inside @ self._constant("of_core", load) / theta[..., None]
        found[:, cores] = own + values[:, rings] @ lift.T
        return found

    def _constant(self, name: str, like: Tensor) -> Tensor:
        return torch.as_tensor(getattr(self.fronts.block, name), dtype=like.dtype, device=like.device)

    def _places(self, name: str, like: Tensor) -> Tensor:
        return torch.as_tensor(getattr(self.fronts.plan, name), device=like.device)


class _Solve(torch.autograd.Function):
    """``(theta, g) -> K(theta)^{-1} g`` and the factors; ``theta`` may be a single row."""

    @staticmethod
    def forward(system: BlockSystem, theta: Tensor, load: Tensor) -> tuple[Tensor, Tensor]:
        factors = system.raw_factor(theta)
        return system.raw_solve(theta, factors, load), factors

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.system, theta, _ = inputs
        u, factors = output
        ctx.mark_non_differentiable(factors)
        ctx.save_for_backward(theta, factors, u)
        ctx.save_for_forward(theta, factors, u)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        of_theta, of_load = _pulled(ctx, gradients[0], ctx.needs_input_grad[1])
        return None, of_theta, of_load

    @staticmethod
    def jvp(ctx: Any, _: None, of_theta: Tensor | None, of_load: Tensor | None) -> tuple[Tensor, None]:
        return _pushed(ctx, of_theta, of_load), None

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[Any, ...], system: BlockSystem, *tensors: Tensor
    ) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
        theta, load = _as_rows(info.batch_size, in_dims[1:], tensors)
        found, factors = _Solve.apply(system, theta, load)
        return tuple(part.unflatten(0, (info.batch_size, -1)) for part in (found, factors)), (0, 0)


class _SolveAgain(torch.autograd.Function):
    """``(theta, factors of K(theta), g) -> K(theta)^{-1} g``: the factors are numbers, without a derivative."""

    @staticmethod
    def forward(system: BlockSystem, theta: Tensor, factors: Tensor, load: Tensor) -> Tensor:
        return system.raw_solve(theta, factors, load)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.system, theta, factors, _ = inputs
        ctx.save_for_backward(theta, factors, output)
        ctx.save_for_forward(theta, factors, output)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        of_theta, of_load = _pulled(ctx, gradients[0], ctx.needs_input_grad[1])
        return None, of_theta, None, of_load

    @staticmethod
    def jvp(ctx: Any, _: None, of_theta: Tensor | None, __: None, of_load: Tensor | None) -> Tensor:
        return _pushed(ctx, of_theta, of_load)

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[Any, ...], system: BlockSystem, *tensors: Tensor
    ) -> tuple[Tensor, int]:
        found = _SolveAgain.apply(system, *_as_rows(info.batch_size, in_dims[1:], tensors))
        return found.unflatten(0, (info.batch_size, -1)), 0


def _pulled(ctx: Any, of_u: Tensor, wanted: bool) -> tuple[Tensor | None, Tensor]:
    """Gradients in ``theta`` and in the load."""
    theta, factors, u = ctx.saved_tensors
    adjoint = _SolveAgain.apply(ctx.system, theta, factors, of_u)
    of_theta = -ctx.system.energies(adjoint, u).sum_to_size(theta.shape) if wanted else None
    return of_theta, adjoint


def _pushed(ctx: Any, of_theta: Tensor | None, of_load: Tensor | None) -> Tensor:
    """The tangent of ``u``."""
    theta, factors, u = ctx.saved_tensors
    change = torch.zeros_like(u) if of_load is None else of_load
    if of_theta is not None:
        change = change - ctx.system.apply(of_theta, u)
    found: Tensor = _SolveAgain.apply(ctx.system, theta, factors, change)
    return found


def _as_rows(batch: int, axes: tuple[int | None, ...], tensors: tuple[Tensor, ...]) -> list[Tensor]:
    """A batch of rows, or of single rows that serve several, as more rows."""
    moved = [t[None] if axis is None else t.movedim(axis, 0) for t, axis in zip(tensors, axes, strict=True)]
    count = max(tensor.shape[1] for tensor in moved)
    return [tensor.expand(batch, count, *tensor.shape[2:]).flatten(0, 1) for tensor in moved]


def _rows(tensor: Tensor, count: int) -> Tensor:
    """``count`` of what stands in front, where there is a single one."""
    return tensor.expand(count, *tensor.shape[1:])
