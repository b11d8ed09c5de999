"""``lbfgs``: limited-memory quasi-Newton with bounds, from scipy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.optimize
import torch

from dpcontrol.meter import Meter
from dpcontrol.problem import Demand, View
from dpcontrol.results import Status
from dpcontrol.run import Strategy
from dpcontrol.strategies.checks import UNLIMITED, cap, positive, whole
from dpcontrol.strategies.minimising.floor import REACHED, Floor
from dpcontrol.strategies.minimising.lockstep import Question, run_in_lockstep
from dpcontrol.strategies.verdict import Ended, NotFinite, summary

NO_LOWER = (
    "the line search found no lower loss, and not because of rounding: a kink, a gradient that is not exact, or the "
    "edge of where the loss is finite; try adjoint"
)


@dataclass(frozen=True)
class LBFGS(Strategy):
    r"""scipy's L-BFGS-B: quasi-Newton steps from the last ``memory`` gradient differences, bounds kept exactly.

    Separate scenarios are separate searches that run in lock-step, each with its own line search, and are evaluated
    as one batch. Wants an exact gradient of a function that is smooth along its line searches; kinks stall it. Works
    in units of the unknown's magnitudes. A trial step that leaves the finite world is counted as a failure and taken
    back by the line search.

    Args:
        iterations: at most this many per instance; ``None`` goes on until the budget is spent, and up to 1000 without
            a budget.
        memory: pairs of differences kept.
        gradient_tolerance: converged when the largest entry of the projected gradient is this small.
        loss_tolerance: converged when an iteration lowers the loss relatively by less than this.
        line_search: evaluations per iteration at most.

    Source: C. Zhu, R. Byrd, P. Lu, J. Nocedal, Algorithm 778: L-BFGS-B, ACM TOMS 23 (1997).
    """

    iterations: int | None = None
    memory: int = 20
    gradient_tolerance: float = 1e-8
    loss_tolerance: float = 1e-12
    line_search: int = 30

    def __post_init__(self) -> None:
        if self.iterations is not None:
            whole("LBFGS", iterations=self.iterations)
        whole("LBFGS", memory=self.memory, line_search=self.line_search)
        positive("LBFGS", gradient_tolerance=self.gradient_tolerance, loss_tolerance=self.loss_tolerance)

    @property
    def needs(self) -> frozenset[View]:
        return frozenset({View.LOSS, View.EXACT_GRADIENT})

    @property
    def honours(self) -> frozenset[Demand]:
        return frozenset({Demand.BOUNDS})

    def run(self, meter: Meter, generator: torch.Generator) -> Status:
        start = meter.start().cpu().double().numpy()
        scale = meter.magnitudes().cpu().double().numpy()
        scale = np.where(scale > 0, scale, 1.0)
        limits = meter.limits()
        boxes: list[Any] = [None] * meter.instances
        if limits is not None:
            low, high = (side.cpu().double().numpy() for side in limits)
            boxes = [scipy.optimize.Bounds(low[i], high[i]) for i in range(meter.instances)]
        most = int(min(cap(self.iterations, meter, 1000), UNLIMITED))
        eps = float(torch.finfo(meter.best.dtype).eps)
        bodies = [self._search(start[i], scale[i], boxes[i], most, eps) for i in range(meter.instances)]
        return summary(run_in_lockstep(meter, bodies))

    def _search(
        self, start: np.ndarray, scale: np.ndarray, box: Any, most: int, eps: float
    ) -> Callable[[Callable[[Question], Any]], Ended]:
        def body(ask: Callable[[Question], Any]) -> Ended:
            wall = Wall()
            scaled = None if box is None else scipy.optimize.Bounds(box.lb / scale, box.ub / scale)
            floor = Floor(eps) if scaled is None else Floor(eps, scaled.lb, scaled.ub)

            def loss_and_gradient(y: np.ndarray) -> tuple[float, np.ndarray]:
                # back in the unknown's own units a bound must not be left by rounding
                x = y * scale if box is None else np.clip(y * scale, box.lb, box.ub)
                loss, gradient = ask(Question(x))
                floor.note(y, loss, gradient * scale)
                if not np.isfinite(loss):
                    return wall.stand_in(y)
                wall.note(y, loss)
                return loss, gradient * scale

            options = {
                "maxiter": most,
                "maxfun": most * self.line_search,
                "maxcor": self.memory,
                "maxls": self.line_search,
                "gtol": self.gradient_tolerance,
                "ftol": self.loss_tolerance,
            }
            try:
                found = scipy.optimize.minimize(
                    loss_and_gradient,
                    start / scale,
                    jac=True,
                    method="L-BFGS-B",
                    bounds=scaled,
                    options=options,
                )
            except NotFinite:
                return Ended("diverged")
            kinds = {0: "converged", 1: "iterations spent"}
            if found.status in kinds:
                return Ended(kinds[found.status])
            return Ended("converged", REACHED) if floor.reached() else Ended("stalled", NO_LOWER)

        return body


class Wall:
    """Stands in for a loss that is not finite: a steep parabola around the lowest point so far.

    The line search's interpolation needs finite numbers; with these it takes the step back.
    """

    def __init__(self) -> None:
        self._lowest = np.inf
        self._where: np.ndarray | None = None

    def note(self, y: np.ndarray, loss: float) -> None:
        """Take note of a finite loss."""
        if loss < self._lowest:
            self._lowest, self._where = loss, y.copy()

    def stand_in(self, y: np.ndarray) -> tuple[float, np.ndarray]:
        """Loss and gradient of the parabola."""
        if self._where is None:
            raise NotFinite
        way = y - self._where
        height = 10.0 * max(abs(self._lowest), 1.0)
        return self._lowest + height, 2.0 * height * way / max(float(way @ way), np.finfo(float).tiny)
