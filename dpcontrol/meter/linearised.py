"""A function near a point: products with its Jacobian, the transposed one or a Hessian, all from a single run of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


class Linearised:
    r"""``f(x + v) ~ f(x) + J v``.

    One run of ``f`` and one backward sweep, kept as graphs; each product is a sweep through one of them. ``J v`` is the
    derivative of the linear map ``u -> J^T u`` (for any ``u``, so that zero does), transposed once more,

    .. math:: J v = \Big(\frac{\partial (J^T u)}{\partial u}\Big)^T v,

    which in torch is an order of magnitude quicker than forward mode where a step consists of small operations: a
    product of something that has a tangent with something that has none costs it a tenth of a millisecond.

    Args:
        function: from ``x`` to values of any shape, through operations that can be differentiated twice.
        x: the point.
    """

    def __init__(self, function: Callable[[Tensor], Tensor], x: Tensor) -> None:
        with torch.enable_grad():
            self._point = x.detach().requires_grad_()
            self._values = function(self._point)
            self._above = torch.zeros_like(self._values).requires_grad_()
            (self._back,) = torch.autograd.grad(
                self._values, self._point, self._above, create_graph=True, materialize_grads=True
            )

    def pushed(self, tangent: Tensor) -> Tensor:
        """``J v``, of the shape of the values."""
        found: Tensor = torch.autograd.grad(
            self._back, self._above, tangent, retain_graph=True, materialize_grads=True
        )[0]
        return found

    def pulled(self, cotangent: Tensor) -> Tensor:
        """``J^T u``, of the shape of the point."""
        found: Tensor = torch.autograd.grad(
            self._values, self._point, cotangent, retain_graph=True, materialize_grads=True
        )[0]
        return found


class Curved:
    """Losses near points, each a function of its own row: products with their Hessians, reverse over reverse.

    Args:
        function: from ``x`` ``(rows, dimension)`` to losses ``(rows,)``.
        x: the points.
    """

    def __init__(self, function: Callable[[Tensor], Tensor], x: Tensor) -> None:
        with torch.enable_grad():
            self._point = x.detach().requires_grad_()
            losses = function(self._point)
            self._slope = torch.autograd.grad(losses.sum(), self._point, create_graph=True)[0]
        self.losses = losses.detach()

    def product(self, v: Tensor) -> Tensor:
        """``H v`` of every row."""
        if not self._slope.requires_grad:  # linear losses
            return torch.zeros_like(self._point)
        found: Tensor = torch.autograd.grad(
            self._slope, self._point, v, retain_graph=True, materialize_grads=True
        )[0]
        return found


class Latest:
    """What was built of a point, kept until something is asked of another one.

    Never two at a time: what is kept may be a graph of a whole rollout.
    """

    def __init__(self) -> None:
        self._what, self._x = "", torch.empty(0)
        self._built: Any = None

    def of(self, what: str, x: Tensor, which: Tensor, build: Callable[[], T]) -> T:
        """What ``build()`` makes, or has made last time, of points ``x`` and their instances ``which``."""
        here = torch.cat([x, which[:, None].to(x)], 1)
        if self._built is None or self._what != what or not torch.equal(self._x, here):
            self._built = None
            self._built = build()
            self._what, self._x = what, here
        found: T = self._built
        return found
