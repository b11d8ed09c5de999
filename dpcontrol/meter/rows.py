"""What is asked of several candidates of a joint problem: each a row of free numbers, all of them one batch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dpcontrol import tree
from dpcontrol.problem import Problem
from dpcontrol.problem.predicting import fisher_roots, measurements, predictions
from dpcontrol.tree import Tree

# forward-mode derivatives that are run as one batch
TANGENTS = 32


def log_density_of(problem: Problem, free: Tree) -> Tensor:
    """``(log-likelihood, log-density)`` of the posterior at free numbers."""
    z = problem.unknown.natural(free)
    likelihood = problem.log_likelihood(z)
    return torch.stack([likelihood, likelihood + problem.belief.log_density_free(free, z)])


def flat_predictions(problem: Problem, free: Tree) -> Tensor:
    """All predicted measurements in one vector, those that were not measured left out."""
    parts = zip(predictions(problem, problem.unknown.natural(free)), measurements(problem), strict=True)
    return torch.cat([prediction[~torch.isnan(data)] for prediction, data in parts])


def jacobian_of_fisher_roots(problem: Problem, template: Tree, x: Tensor, *, forward: bool) -> Tensor:
    """``J (entries, dimension)`` of :func:`~dpcontrol.problem.predicting.fisher_roots` at a point ``(dimension,)``.

    One tangent for each unknown with ``forward``, else one cotangent for each entry.
    """

    def roots(point: Tensor) -> Tensor:
        free = tree.unravel(point, template)
        return fisher_roots(problem, problem.unknown.natural(free))

    return _jacobian_by_tangents(roots, x) if forward else torch.func.jacrev(roots, chunk_size=TANGENTS)(x)


def _jacobian_by_tangents(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    def product(tangent: Tensor) -> Tensor:
        return torch.func.jvp(function, (x,), (tangent,))[1]

    directions = torch.eye(len(x), dtype=x.dtype, device=x.device)
    return torch.func.vmap(product, chunk_size=TANGENTS)(directions).T


def prior_hessian(problem: Problem, template: Tree, x: Tensor) -> Tensor:
    """Minus the Hessian of the prior's log-density in free numbers, ``(dimension, dimension)``; runs no simulator."""
    if problem.belief.white:
        return torch.eye(len(x), dtype=x.dtype, device=x.device)

    def minus_log_prior(point: Tensor) -> Tensor:
        free = tree.unravel(point, template)
        return -problem.belief.log_density_free(free, problem.unknown.natural(free))

    return torch.func.hessian(minus_log_prior)(x)
