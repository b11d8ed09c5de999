"""``newton_krylov``: Newton's method with exact Hessian products inside a trust region, from scipy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.optimize
import torch

from dpcontrol.meter import Meter
from dpcontrol.problem import View
from dpcontrol.results import Status
from dpcontrol.run import Strategy
from dpcontrol.strategies.checks import UNLIMITED, cap, one_of, positive, whole
from dpcontrol.strategies.minimising.floor import REACHED, Floor
from dpcontrol.strategies.minimising.lockstep import Question, run_in_lockstep
from dpcontrol.strategies.verdict import Ended, NotFinite, summary

REJECTIONS = 10  # steps in a row that do not help, each in a region a quarter as large, end a search
NO_LOWER = (
    "the trust region shrank without a lower loss, and not because of rounding: perhaps a kink, or an "
    "inexact Hessian; try lbfgs or adjoint"
)
EDGE = "the steps are held back by the edge of where the loss is finite: if it is known, seek with bounds (lbfgs)"


@dataclass(frozen=True)
class NewtonKrylov(Strategy):
    r"""Minimise the quadratic model :math:`g^T p + p^T H p / 2` over :math:`|p| \le r`, step, adapt the radius r.

    The model is minimised in a Krylov space, which asks only for products of the exact Hessian with vectors; each is
    charged as two gradients. Separate scenarios are separate searches that run in lock-step. Unknowns are scaled by
    their magnitudes. Bounds are not honoured: a bounded problem is refused. A loss with kinks (linear interpolation,
    limiters) has a Hessian that misses them, and quasi-Newton needs fewer gradients there.

    Args:
        iterations: at most this many per instance; ``None`` goes on until the budget is spent, and up to 200 without
            a budget.
        gradient_tolerance: converged when the norm of the scaled gradient is this small.
        loss_tolerance: converged when an iteration lowers the loss relatively by less than this.
        radius: first trust radius, per unknown, in units of the unknown's magnitudes.
        inner: ``"trust-ncg"`` (truncated conjugate gradients) or ``"trust-krylov"`` (Lanczos, more products per step).

    Source: T. Steihaug, "The conjugate gradient method and trust regions in large scale optimization", SIAM J. Numer.
    Anal. 20 (1983); N. Gould et al., "Solving the trust-region subproblem using the Lanczos method", SIAM J. Optim. 9
    (1999).
    """

    iterations: int | None = None
    gradient_tolerance: float = 1e-8
    loss_tolerance: float = 1e-12
    radius: float = 1.0
    inner: str = "trust-ncg"

    def __post_init__(self) -> None:
        if self.iterations is not None:
            whole("NewtonKrylov", iterations=self.iterations)
        positive(
            "NewtonKrylov",
            gradient_tolerance=self.gradient_tolerance,
            loss_tolerance=self.loss_tolerance,
            radius=self.radius,
        )
        one_of("NewtonKrylov", ("trust-ncg", "trust-krylov"), inner=self.inner)

    @property
    def needs(self) -> frozenset[View]:
        return frozenset({View.LOSS, View.EXACT_GRADIENT})

    def run(self, meter: Meter, generator: torch.Generator) -> Status:
        start = meter.start().cpu().double().numpy()
        scale = meter.magnitudes().cpu().double().numpy()
        scale = np.where(scale > 0, scale, 1.0)
        most = int(min(cap(self.iterations, meter, 200), UNLIMITED))
        eps = float(torch.finfo(meter.best.dtype).eps)
        bodies = [self._search(start[i], scale[i], most, eps) for i in range(meter.instances)]
        return summary(run_in_lockstep(meter, bodies))

    def _search(
        self, start: np.ndarray, scale: np.ndarray, most: int, eps: float
    ) -> Callable[[Callable[[Question], Any]], Ended]:
        def body(ask: Callable[[Question], Any]) -> Ended:
            def loss_and_gradient(y: np.ndarray) -> tuple[float, np.ndarray]:
                loss, gradient = ask(Question(y * scale))
                watch.floor.note(y, loss, gradient * scale)
                # a step that leaves the finite world is rejected by its infinite loss, unless it was the first
                if not np.isfinite(loss):
                    watch.edge = REJECTIONS
                    if watch.lowest == np.inf:
                        raise NotFinite
                    return np.inf, np.zeros_like(gradient)
                watch.lowest = min(watch.lowest, loss)
                return loss, gradient * scale

            def product(y: np.ndarray, v: np.ndarray) -> np.ndarray:
                found = scale * ask(Question(y * scale, v * scale))
                if not np.isfinite(found).all():
                    raise NotFinite
                return found

            watch = Watch(self.loss_tolerance, Floor(eps))
            radius = self.radius * float(np.sqrt(start.size))
            options = {
                "maxiter": most,
                "gtol": self.gradient_tolerance,
                "initial_trust_radius": radius,
                "max_trust_radius": 1000.0 * radius,
            }
            try:
                found = scipy.optimize.minimize(
                    loss_and_gradient,
                    start / scale,
                    jac=True,
                    hessp=product,
                    method=self.inner,
                    callback=watch,
                    options=options,
                )
            except NotFinite:
                return Ended("diverged")
            if watch.verdict is not None:
                return watch.verdict
            kinds = {0: "converged", 1: "iterations spent"}
            return Ended(kinds[found.status]) if found.status in kinds else watch.no_lower()

        return body


class Watch:
    """Ends a search whose iterations no longer lower the loss; scipy's trust regions only look at the gradient."""

    def __init__(self, tolerance: float, floor: Floor) -> None:
        self.lowest = np.inf
        self.verdict: Ended | None = None
        self.floor = floor
        self.edge = 0  # iterations for which the region remains small because a step was not finite
        self._tolerance = tolerance
        self._last = np.inf
        self._rejected = 0

    def no_lower(self) -> Ended:
        """What it means that no lower loss is found."""
        return Ended("converged", REACHED) if self.floor.reached() else Ended("stalled", NO_LOWER)

    def __call__(self, intermediate_result: Any) -> None:
        loss, last = float(intermediate_result.fun), self._last
        self._last, self.edge = loss, max(0, self.edge - 1)
        if loss == last:
            self._rejected += 1
            if self._rejected >= REJECTIONS:
                self.verdict = self.no_lower()
        else:
            self._rejected = 0
            if np.isfinite(last) and last - loss <= self._tolerance * max(abs(loss), abs(last)):
                self.verdict = (
                    Ended("stalled", EDGE) if self.edge and not self.floor.reached() else Ended("converged")
                )
        if self.verdict is not None:
            raise StopIteration
