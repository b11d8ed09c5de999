"""The Taylor test: does a gradient belong to its function?"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dpcontrol import tree


def taylor_rates(
    function: Callable[[Any], Tensor],
    point: Any,
    direction: Any | None = None,
    *,
    largest: float = 1e-2,
    halvings: int = 4,
    seed: int = 0,
) -> list[float]:
    """Observed rates of ``|f(x + h d) - f(x) - h f'(x) d|`` as ``h`` is halved.

    They are 2 for the exact gradient, 1 for a wrong one.

    Args:
        function: of a tree of float64 tensors, scalar, differentiable by autograd.
        point: where; a tree.
        direction: a tree like ``point``; a random one if not given.
        largest: the largest ``h``. Small enough that no kink is crossed, large enough that the remainder, of size
            ``h^2``, stays well above the rounding of ``f``.
        halvings: how many rates to return.
        seed: of the random direction.
    """
    if direction is None:
        generator = torch.Generator().manual_seed(seed)
        direction = tree.map(
            lambda leaf: torch.randn(leaf.shape, generator=generator, dtype=leaf.dtype), point
        )
    leaves = tree.map(lambda leaf: leaf.detach().clone().requires_grad_(), point)
    value = function(leaves)
    gradients = torch.autograd.grad(value, tree.leaves(leaves))
    slope = sum(float((g * d).sum()) for g, d in zip(gradients, tree.leaves(direction), strict=True))
    remainders = []
    with torch.no_grad():
        for k in range(halvings + 1):
            h = largest / 2**k
            moved = function(tree.map(lambda leaf, d, h=h: leaf + h * d, point, direction))
            remainders.append(abs(float(moved) - float(value) - h * slope))
    return [math.log2(coarse / fine) for coarse, fine in itertools.pairwise(remainders)]


def convergence_order(sizes: list[float], errors: list[float]) -> float:
    """Slope of ``log error`` against ``log size``, by linear regression."""
    x = torch.log(torch.tensor(sizes, dtype=torch.float64))
    y = torch.log(torch.tensor(errors, dtype=torch.float64))
    x = x - x.mean()
    return float((x * y).sum() / (x * x).sum())
