"""``gauss_newton``: Levenberg-Marquardt for sums of squares, Fisher scoring for posteriors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from dpcontrol.meter import Meter
from dpcontrol.problem import Demand, Problem, View
from dpcontrol.results import Status
from dpcontrol.run import Strategy
from dpcontrol.strategies.checks import UNLIMITED, cap, positive, whole
from dpcontrol.strategies.minimising.curvature import NegativeLogDensity, Source, SumOfSquares
from dpcontrol.strategies.minimising.descent import Rules, descend
from dpcontrol.strategies.verdict import summary


@dataclass(frozen=True)
class GaussNewton(Strategy):
    r"""Minimise a quadratic model that knows the curvature of squares, :math:`|r + J p|^2` over :math:`|p| \le \Delta`.

    For an objective that is a sum of squares this is Levenberg-Marquardt's method in Moré's form: the damping
    is what belongs to a radius :math:`\Delta`, zero where the Gauss-Newton step is shorter, and the radius follows the
    ratio of what was gained to what was predicted. A linear problem takes one step, one with small residuals converges
    quadratically. For a posterior it is Fisher scoring towards the maximum a posteriori: the exact gradient with the
    expected information of the data and the Hessian of the prior.

    Few unknowns: the Jacobian by forward mode, all tangents of all scenarios in batches (by reverse mode where there
    are fewer residuals), and its singular values. Many: products ``J v`` and ``J^T w`` in truncated conjugate
    gradients. Separate scenarios are separate searches that advance together. Works in units of the unknown's
    magnitudes. Unknowns whose steps leave the bounds are held at them while the others are minimised again. A step
    that leaves the finite world is counted as a failure and taken back.

    Args:
        iterations: at most this many per instance; ``None`` goes on until the budget is spent, and up to 200 without
            a budget.
        gradient_tolerance: converged when the norm of the scaled, projected gradient is this small.
        loss_tolerance: converged when an iteration lowers the loss relatively by less than this.
        radius: first radius, per unknown, in units of the unknown's magnitudes; ``None`` is 100, and 1 where there is a
            prior, beyond whose standard deviations a first step hardly leads to anything good.
        dense: form the Jacobian for at most this many unknowns.
        products: per step at most, where it is not formed.

    Source: J. Moré, "The Levenberg-Marquardt algorithm: implementation and theory", in Numerical Analysis, Lecture
    Notes in Mathematics 630 (1978); T. Steihaug, SIAM J. Numer. Anal. 20 (1983).
    """

    iterations: int | None = None
    gradient_tolerance: float = 1e-8
    loss_tolerance: float = 1e-12
    radius: float | None = None
    dense: int = 400
    products: int = 100

    def __post_init__(self) -> None:
        if self.iterations is not None:
            whole("GaussNewton", iterations=self.iterations)
        whole("GaussNewton", least=0, dense=self.dense)
        whole("GaussNewton", products=self.products)
        positive(
            "GaussNewton",
            gradient_tolerance=self.gradient_tolerance,
            loss_tolerance=self.loss_tolerance,
        )
        if self.radius is not None:
            positive("GaussNewton", radius=self.radius)

    @property
    def needs(self) -> frozenset[View]:
        return frozenset({View.LOSS, View.EXACT_GRADIENT, View.CURVATURE})

    @property
    def honours(self) -> frozenset[Demand]:
        return frozenset({Demand.BOUNDS})

    @property
    def stores_state(self) -> bool:
        return True

    def load(self) -> None:
        load_forward_mode()

    def pose(self, problem: Problem) -> Problem:
        return problem if View.RESIDUALS in problem.offers else replace(problem, joint=True)

    def run(self, meter: Meter, generator: torch.Generator) -> Status:
        most = int(min(cap(self.iterations, meter, 200), UNLIMITED))
        radius = (100.0 if meter.problem.prior is None else 1.0) if self.radius is None else self.radius
        rules = Rules(most, self.gradient_tolerance, self.loss_tolerance, radius)
        source = squares_or_density(meter, self.dense, self.products)
        kept: Any = meter.resumed()
        return summary(descend(source, meter.start(), rules, kept).ended())


def load_forward_mode() -> None:
    """Let torch import what its first forward-mode derivative of a product needs, which takes seconds."""
    one = torch.ones(1)
    torch.func.vmap(lambda t: torch.func.jvp(lambda x: 1.0 + x * x, (one,), (t,))[1])(one[None])


def squares_or_density(meter: Meter, dense: int, products: int, *, jacobian: bool = False) -> Source:
    """What a problem's loss is made of, in units of its unknown's magnitudes and within its bounds."""
    scale = meter.magnitudes().cpu().double()
    scale = torch.where(scale > 0, scale, 1.0)
    pair = meter.limits()
    endless = torch.full_like(scale, torch.inf)
    low, high = (-endless, endless) if pair is None else (side.to(scale) for side in pair)
    if View.RESIDUALS in meter.problem.offers:
        return SumOfSquares(meter, scale, low, high, dense, products)
    return NegativeLogDensity(meter, scale, low, high, dense, products, jacobian=jacobian)


def find_mode(meter: Meter, iterations: int | None, kept: Mapping[str, Any] | None) -> tuple[Tensor, Status]:
    """The mode ``(1, dimension)`` of a posterior's density of the free numbers, and how the search ended.

    From the problem's start, in a trust region that begins with one standard deviation of the prior; ``kept`` is what
    an interrupted search had kept.
    """
    source = squares_or_density(meter, dense=400, products=100, jacobian=True)
    most = int(min(cap(iterations, meter, 200), UNLIMITED))
    # where an iteration gains a millionth of a log-density, the mode is a thousandth of a sd away
    state = descend(source, meter.start(), Rules(most, 1e-7, 1e-12, 1.0), kept)
    return source.natural(state.y, torch.zeros(1, dtype=torch.long)), summary(state.ended())
