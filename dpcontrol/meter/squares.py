"""Residuals of a sum of squares and their Jacobian, asked through a meter: what Gauss-Newton methods live on.

A loss is ``|r|^2``. Where something is shared, the residuals of all scenarios, divided by the root of their number, are
those of one search, so that the loss is the mean over scenarios.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dpcontrol import tree
from dpcontrol.engine.gradients import Full
from dpcontrol.meter.linearised import Linearised
from dpcontrol.meter.meter import Meter
from dpcontrol.problem.predicting import fisher_roots
from dpcontrol.results import Counts

# runs that go as one batch: their states may take this much memory, for they are all kept for the residuals
BATCH_BYTES = 2**28


def residuals(meter: Meter, x: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
    """Losses ``(rows,)`` and residuals ``(rows, m)`` at points ``(rows, dimension)``; charged like values.

    ``which`` ``(rows,)`` names the instance of each row. Where a residual is not finite the loss is ``inf``.
    """

    def compute() -> list[Tensor]:
        with torch.no_grad():
            r = _residuals(meter, x, which)
        return [r.square().sum(1), r]

    answer, finite = meter._answer("residuals", x, which, compute, _price(meter, len(x), runs=1, sweeps=0))
    losses = torch.where(finite, answer[0], torch.inf)
    meter._note(x, which, losses)
    return losses, answer[1]


def jacobian(meter: Meter, x: Tensor, which: Tensor, count: int) -> Tensor:
    """Jacobians ``(rows, count, dimension)`` of the ``count`` residuals of each row.

    Forward mode where there are no more unknowns than residuals, else reverse mode. Charged are one run, and a gradient
    without its run for each tangent or cotangent.
    """
    forward = meter.dimension <= count

    def compute() -> list[Tensor]:
        return [_by_tangents(meter, x, which) if forward else _by_cotangents(meter, x, which, count)]

    price = _price(meter, len(x), runs=1, sweeps=min(meter.dimension, count))
    return meter._answer("jacobian", x, which, compute, price)[0][0]


def gauss_newton_products(meter: Meter, x: Tensor, v: Tensor, which: Tensor) -> Tensor:
    """Products ``2 J^T J v`` ``(rows, dimension)`` at points and with vectors ``(rows, dimension)``.

    Charged like a product of the Hessian: two runs and two sweeps, though a graph of the latest point is kept.
    """

    def compute() -> list[Tensor]:
        return [2 * _normal_product(meter, "residuals", lambda p: _residuals(meter, p, which), x, v, which)]

    both = torch.cat([x, v])
    price = _price(meter, len(x), runs=2, sweeps=2)
    return meter._answer("gauss-newton", both, which, compute, price)[0][0]


def _normal_product(
    meter: Meter, what: str, function: Callable[[Tensor], Tensor], x: Tensor, v: Tensor, which: Tensor
) -> Tensor:
    """``J^T J v`` of a function of the rows ``x``; ``what`` it is, for the graph that the meter keeps of the latest.

    Where memory is limited by the problem's gradient mode nothing is kept: forward mode stores no states.
    """
    if not isinstance(meter.problem.gradient, Full):
        with torch.no_grad():
            along = torch.func.jvp(function, (x,), (v,))[1]
        point = x.detach().requires_grad_()
        return torch.autograd.grad(function(point), point, along)[0]
    here = meter.latest.of(what, x, which, lambda: Linearised(function, x))
    return here.pulled(here.pushed(v))


def _residuals(meter: Meter, x: Tensor, which: Tensor) -> Tensor:
    """Residuals ``(rows, m)``."""
    problem = meter.problem
    if problem.separate:
        return problem.residuals(meter.trees(x), which)
    rows = [problem.residuals(meter.trees(row[None])).flatten() for row in x]
    return torch.stack(rows) / problem.scenarios.count**0.5


def _by_tangents(meter: Meter, x: Tensor, which: Tensor) -> Tensor:
    """One directional derivative for each unknown; those of separate searches run as more scenarios."""
    rows, d = x.shape
    directions = torch.eye(d, dtype=x.dtype, device=x.device)
    parts = []
    with torch.no_grad():
        for some in directions.split(_batch(meter, rows)):
            if meter.problem.separate:
                parts.append(_tangents_of_separate(meter, x, which, some))
            else:
                along = _vectorised(lambda t: torch.func.jvp(_one(meter), (x[0],), (t,))[1], some)
                parts.append(along[:, None])
    return torch.cat(parts).permute(1, 2, 0)


def _tangents_of_separate(meter: Meter, x: Tensor, which: Tensor, directions: Tensor) -> Tensor:
    many, rows = len(directions), len(x)
    again = which.repeat(many)
    tangents = directions.repeat_interleave(rows, 0)
    found = torch.func.jvp(lambda p: _residuals(meter, p, again), (x.repeat(many, 1),), (tangents,))[1]
    return found.reshape(many, rows, -1)


def _by_cotangents(meter: Meter, x: Tensor, which: Tensor, count: int) -> Tensor:
    """One gradient for each residual; those of separate searches run as more scenarios."""
    rows = len(x)
    if not meter.problem.separate:
        point = x.detach().requires_grad_()
        r = _residuals(meter, point, which)[0]
        found = [torch.autograd.grad(r[i], point, retain_graph=True)[0][0] for i in range(count)]
        return torch.stack(found)[None]
    parts = []
    for some in torch.arange(count, device=x.device).split(_batch(meter, rows)):
        many = len(some)
        point = x.repeat(many, 1).requires_grad_()
        r = _residuals(meter, point, which.repeat(many))
        picked = r.reshape(many, rows, -1)[torch.arange(many, device=x.device), :, some]
        parts.append(torch.autograd.grad(picked.sum(), point)[0].reshape(many, rows, -1))
    return torch.cat(parts).transpose(0, 1)


def _one(meter: Meter) -> Callable[[Tensor], Tensor]:
    nothing = torch.zeros(1, dtype=torch.long)
    return lambda point: _residuals(meter, point[None], nothing)[0]


def _vectorised(function: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
    """``function`` of each row, as one batch where its steps allow that."""
    try:
        return torch.func.vmap(function)(rows)
    except (RuntimeError, TypeError, NotImplementedError, ValueError, AssertionError):
        # a step that looks at its numbers (``.item()``, ``if x > 0``)
        return torch.stack([function(row) for row in rows])


def _batch(meter: Meter, rows: int) -> int:
    """How many derivatives of ``rows`` points go together."""
    problem = meter.problem
    state = problem.scenarios.data["initial_state"]
    of_one = sum(leaf[0].numel() * leaf.element_size() for leaf in tree.leaves(state))
    scenarios = rows if problem.separate else problem.scenarios.count
    return max(1, BATCH_BYTES // max(1, 2 * of_one * (problem.horizon + 1) * scenarios))


def _price(meter: Meter, rows: int, *, runs: int, sweeps: int) -> Counts:
    scenarios = rows if meter.problem.separate else rows * meter.problem.scenarios.count
    return Counts(scenarios * max(meter.problem.horizon, 1) * (runs + sweeps), scenarios * sweeps)


def fisher_products(meter: Meter, x: Tensor, v: Tensor) -> Tensor:
    """Products ``J^T J v`` ``(1, dimension)`` of the expected Fisher information at a point ``(1, dimension)``.

    Charged like a product of the Hessian: two runs and two sweeps, though a graph of the latest point is kept.
    """

    def roots(point: Tensor) -> Tensor:
        free = tree.unravel(point[0], meter.layout())
        return fisher_roots(meter.problem, meter.problem.unknown.natural(free))

    which = torch.zeros(1, dtype=torch.long)

    def compute() -> list[Tensor]:
        return [_normal_product(meter, "roots", roots, x, v, which)]

    price = _price(meter, 1, runs=2, sweeps=2)
    return meter._answer("fisher", torch.cat([x, v]), which, compute, price)[0][0]


def density_hessian_products(meter: Meter, x: Tensor, v: Tensor) -> Tensor:
    """Products ``(rows, dimension)`` of minus the Hessian of the posterior's log-density with the rows of ``v``.

    Exact, of the free numbers' density at one point ``x (1, dimension)``. Charged like products of a loss's Hessian.
    """
    many = x.detach().expand(len(v), -1)

    def compute() -> list[Tensor]:
        point = many.clone().requires_grad_()
        density = meter._each_row(meter._log_density, point)[:, 1]
        slope = torch.autograd.grad(density.sum(), point, create_graph=True)[0]
        return [-torch.autograd.grad((slope * v.detach()).sum(), point, materialize_grads=True)[0]]

    which = torch.zeros(len(v), dtype=torch.long)
    price = _price(meter, len(v), runs=2, sweeps=2)
    return meter._answer("density hessian", torch.cat([many, v]), which, compute, price)[0][0]
