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
from dpcontrol.strategies.checks import one_of, positive, whole
from dpcontrol.strategies.lockstep import Question, run_in_lockstep
from dpcontrol.strategies.verdict import Ended, NotFinite, summary

REJECTIONS = (
    10  # steps in a row that do not help, each in a region a quarter as large, are the rounding floor
)


@dataclass(frozen=True)
class NewtonKrylov(Strategy):
    r"""Minimise the quadratic model :math:`g^T p + p^T H p / 2` over :math:`|p| \le r`, step, adapt the radius r.

    The model is minimised in a Krylov space, which asks only for products of the exact Hessian with vectors; each is
    charged as two gradients. Separate scenarios are separate searches that run in lock-step. Unknowns are scaled by
    their magnitudes. Bounds are not honoured: a bounded problem is refused. A loss with kinks (linear interpolation,
    limiters) has a Hessian that misses them, and quasi-Newton needs fewer gradients there.

    Args:
        iterations: at most this many per instance.
        gradient_tolerance: converged when the norm of the scaled gradient is this small.
        loss_tolerance: converged when an iteration lowers the loss relatively by less than this.
        radius: first trust radius, per unknown, in units of the unknown's magnitudes.
        inner: ``"trust-ncg"`` (truncated conjugate gradients) or ``"trust-krylov"`` (Lanczos, more products per step).

    Source: T. Steihaug, "The conjugate gradient method and trust regions in large scale optimization", SIAM J. Numer.
    Anal. 20 (1983); N. Gould et al., "Solving the trust-region subproblem using the Lanczos method", SIAM J. Optim. 9
    (1999).
    """

    iterations: int = 200
    gradient_tolerance: float = 1e-8
    loss_tolerance: float = 1e-12
    radius: float = 1.0
    inner: str = "trust-ncg"

    def __post_init__(self) -> None:
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
        bodies = [self._search(start[i], scale[i]) for i in range(meter.instances)]
        return summary(run_in_lockstep(meter, bodies))

    def _search(self, start: np.ndarray, scale: np.ndarray) -> Callable[[Callable[[Question], Any]], Ended]:
        def body(ask: Callable[[Question], Any]) -> Ended:
            def loss_and_gradient(y: np.ndarray) -> tuple[float, np.ndarray]:
                loss, gradient = ask(Question(y * scale))
                # a step that leaves the finite world is rejected by its infinite loss, unless it was the first
                if not np.isfinite(loss):
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

            watch = Watch(self.loss_tolerance)
            radius = self.radius * float(np.sqrt(start.size))
            options = {
                "maxiter": self.iterations,
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
                return Ended(watch.verdict)
            kinds = {0: "converged", 1: "iterations spent"}
            return Ended(kinds.get(found.status, "stalled"))

        return body


class Watch:
    """Ends a search whose iterations no longer lower the loss; scipy's trust regions only look at the gradient."""

    def __init__(self, tolerance: float) -> None:
        self.lowest = np.inf
        self.verdict: str | None = None
        self._tolerance = tolerance
        self._last = np.inf
        self._rejected = 0

    def __call__(self, intermediate_result: Any) -> None:
        loss, last = float(intermediate_result.fun), self._last
        self._last = loss
        if loss == last:
            self._rejected += 1
            if self._rejected >= REJECTIONS:
                self.verdict = "stalled"
        else:
            self._rejected = 0
            if np.isfinite(last) and last - loss <= self._tolerance * max(abs(loss), abs(last)):
                self.verdict = "converged"
        if self.verdict is not None:
            raise StopIteration
