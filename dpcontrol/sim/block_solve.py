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
        rows, factors = max(len(theta), len(load)), _Factor.apply(self, theta.detach())
        found: Tensor = _Solve.apply(self, *(_rows(part, rows) for part in (theta, factors, load)))
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


class _Factor(torch.autograd.Function):
    """The factors: numbers that solves are done with, without a derivative of their own."""

    @staticmethod
    def forward(system: BlockSystem, theta: Tensor) -> Tensor:
        return system.raw_factor(theta)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.mark_non_differentiable(output)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, None]:
        return None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> None:
        return None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], system: BlockSystem, theta: Tensor) -> tuple[Tensor, int]:
        theta = theta.movedim(in_dims[1], 0)
        found = _Factor.apply(system, theta.flatten(0, 1))
        return found.unflatten(0, tuple(theta.shape[:2])), 0


class _Solve(torch.autograd.Function):
    """``(theta, factors of K(theta), g) -> K(theta)^{-1} g``, row by row."""

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
        theta, factors, u = ctx.saved_tensors
        system: BlockSystem = ctx.system
        adjoint = _Solve.apply(system, theta, factors, gradients[0])
        of_theta = -system.energies(adjoint, u) if ctx.needs_input_grad[1] else None
        return None, of_theta, None, adjoint

    @staticmethod
    def jvp(ctx: Any, _: None, of_theta: Tensor | None, __: None, of_load: Tensor | None) -> Tensor:
        theta, factors, u = ctx.saved_tensors
        system: BlockSystem = ctx.system
        change = torch.zeros_like(u) if of_load is None else of_load
        if of_theta is not None:
            change = change - system.apply(of_theta, u)
        found: Tensor = _Solve.apply(system, theta, factors, change)
        return found

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[Any, ...], system: BlockSystem, *tensors: Tensor
    ) -> tuple[Tensor, int]:
        parts = []
        for tensor, axis in zip(tensors, in_dims[1:], strict=True):
            moved = tensor[None] if axis is None else tensor.movedim(axis, 0)
            parts.append(_rows(moved, info.batch_size).flatten(0, 1))
        found = _Solve.apply(system, *parts)
        return found.unflatten(0, (info.batch_size, -1)), 0


def _rows(tensor: Tensor, count: int) -> Tensor:
    """``count`` of what stands in front, where there is a single one."""
    return tensor.expand(count, *tensor.shape[1:])
