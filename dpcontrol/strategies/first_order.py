"""``adjoint``: gradients through the simulator, followed by a first-order optimiser of torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, ReduceLROnPlateau

from dpcontrol.meter import Meter
from dpcontrol.problem import Demand, View
from dpcontrol.results import Status, UsageError
from dpcontrol.run import Strategy
from dpcontrol.strategies.checks import one_of, positive, whole, within
from dpcontrol.strategies.verdict import Ended, summary

Schedule = Callable[[Optimizer], LRScheduler]
RATES = {"adam": 0.05, "sgd": 0.1}
RUNNING, CONVERGED, DIVERGED = 0, 1, 2


@dataclass(frozen=True)
class Adjoint(Strategy):
    r"""Follow the gradient: ``x <- P(x - rate * direction(gradient))``, with ``P`` the projection onto the bounds.

    The adjoint (backpropagation through the rollout) gives the gradients of all instances as one batch. Adam works in
    units of the unknown's magnitudes, so its rate is relative; ``sgd`` is plain gradient descent with an absolute rate.
    Projection means that each step is clamped to the bounds, so that every point that is evaluated lies inside.
    An instance that has converged, or whose loss or gradient is not finite, stays where it is and costs nothing more.

    Args:
        optimizer: ``"adam"`` or ``"sgd"``.
        learning_rate: relative to the magnitudes for Adam (0.05 by default), absolute for ``sgd`` (0.1).
        momentum: of ``sgd``; the first moment's decay is 0.9 for Adam.
        iterations: at most this many.
        schedule: ``"cosine"`` (down to zero over ``iterations``), a function from the optimizer to a scheduler of
            ``torch.optim.lr_scheduler``, or ``None`` for a constant rate.
        gradient_tolerance: converged when the largest entry of ``x - P(x - gradient)`` is this small.

    Source: D. Kingma, J. Ba, "Adam: a method for stochastic optimization", ICLR 2015.
    """

    optimizer: str = "adam"
    learning_rate: float | None = None
    momentum: float = 0.0
    iterations: int = 500
    schedule: str | Schedule | None = None
    gradient_tolerance: float = 1e-8

    def __post_init__(self) -> None:
        one_of("Adjoint", tuple(RATES), optimizer=self.optimizer)
        if self.learning_rate is not None:
            positive("Adjoint", learning_rate=self.learning_rate)
        within("Adjoint", 0, 1, momentum=self.momentum)
        if self.momentum and self.optimizer == "adam":
            raise UsageError(
                "Adjoint(momentum=...) belongs to optimizer='sgd'; Adam has its own: leave it out."
            )
        whole("Adjoint", iterations=self.iterations)
        positive("Adjoint", gradient_tolerance=self.gradient_tolerance)
        if self.schedule is not None and not callable(self.schedule) and self.schedule != "cosine":
            raise UsageError(
                "Adjoint(schedule=...) must be 'cosine', a function from the optimizer to a scheduler of "
                f"torch.optim.lr_scheduler, or None; found {self.schedule!r}."
            )

    @property
    def needs(self) -> frozenset[View]:
        return frozenset({View.LOSS, View.GRADIENT})

    @property
    def honours(self) -> frozenset[Demand]:
        return frozenset({Demand.BOUNDS})

    @property
    def stores_state(self) -> bool:
        return True

    def load(self) -> None:
        torch.optim.Adam([torch.zeros(1)])  # a first optimizer imports a good part of torch

    def run(self, meter: Meter, generator: torch.Generator) -> Status:
        descent = Descent(self, meter)
        for _ in range(descent.iteration, self.iterations):
            meter.keep(descent.pack)
            if not descent.step():
                break
        kinds = {RUNNING: "iterations spent", CONVERGED: "converged", DIVERGED: "diverged"}
        return summary([Ended(kinds[int(state)]) for state in descent.state])

    def make_optimizer(self, y: Tensor) -> Optimizer:
        """The torch optimizer of the scaled unknown."""
        rate = self.learning_rate or RATES[self.optimizer]
        if self.optimizer == "sgd":
            return torch.optim.SGD([y], lr=rate, momentum=self.momentum)
        return torch.optim.Adam([y], lr=rate)

    def make_schedule(self, optimizer: Optimizer) -> LRScheduler | None:
        """The scheduler that was asked for."""
        if self.schedule is None:
            return None
        if not callable(self.schedule):
            return CosineAnnealingLR(optimizer, self.iterations)
        made = self.schedule(optimizer)
        if not isinstance(made, LRScheduler) or isinstance(made, ReduceLROnPlateau):
            raise UsageError(
                f"Adjoint(schedule=...) made a {type(made).__name__}; it must return a scheduler of "
                "torch.optim.lr_scheduler that depends on the iteration only."
            )
        return made


class Descent:
    """A descent under way: the scaled unknown ``y = x / scale``, the optimizer, and how each instance fares."""

    def __init__(self, strategy: Adjoint, meter: Meter) -> None:
        self._strategy, self._meter = strategy, meter
        magnitudes = meter.magnitudes()
        relative = torch.where(magnitudes > 0, magnitudes, torch.ones_like(magnitudes))
        self._scale = relative if strategy.optimizer == "adam" else torch.ones_like(relative)
        self._limits = meter.limits()
        self.x = self._inside(meter.start())
        self.iteration = 0
        self.state = torch.zeros(meter.instances, dtype=torch.long)
        self._y = torch.nn.Parameter(self.x / self._scale)
        self._optimizer = strategy.make_optimizer(self._y)
        self._schedule = strategy.make_schedule(self._optimizer)
        kept = meter.resumed()
        if kept is not None:
            self._unpack(kept)

    def step(self) -> bool:
        """One gradient and one step of the instances that still run; whether any does."""
        running = torch.nonzero(self.state == RUNNING).flatten()
        if len(running) == 0:
            return False
        gradient = torch.zeros_like(self.x)
        losses, gradient[running] = self._meter.values_and_gradients(self.x[running], running)
        finite = torch.isfinite(losses) & torch.isfinite(gradient[running]).all(1)
        flat = self._slope(gradient)[running] <= self._strategy.gradient_tolerance
        verdict = torch.where(finite, torch.where(flat, CONVERGED, RUNNING), DIVERGED)
        self.state[running] = verdict.cpu()
        moving = (self.state == RUNNING).to(self.x.device)[:, None]
        before = self._y.detach().clone()
        self._y.grad = torch.where(moving, gradient * self._scale, torch.zeros_like(gradient))
        self._optimizer.step()
        if self._schedule is not None:
            self._schedule.step()
        with torch.no_grad():
            wanted = torch.where(moving, self._y, before)
            self.x = torch.where(moving, self._inside(wanted * self._scale), self.x)
            self._y.copy_(wanted if self._limits is None else self.x / self._scale)
        self.iteration += 1
        return bool(moving.any())

    def pack(self) -> dict[str, Any]:
        """Everything that the rest of the descent depends on."""
        optimizer = self._optimizer.state_dict()
        return {
            "x": self.x.clone(),
            "y": self._y.detach().clone(),
            "state": self.state.clone(),
            "iteration": self.iteration,
            "moments": optimizer["state"].get(0, {}),
            "groups": optimizer["param_groups"],
            "schedule": None if self._schedule is None else self._schedule.state_dict(),
        }

    def _unpack(self, kept: dict[str, Any]) -> None:
        self.x, self.state, self.iteration = kept["x"].to(self.x), kept["state"], kept["iteration"]
        with torch.no_grad():
            self._y.copy_(kept["y"])
        moments = {0: kept["moments"]} if kept["moments"] else {}
        self._optimizer.load_state_dict({"state": moments, "param_groups": kept["groups"]})
        if self._schedule is not None:
            self._schedule.load_state_dict(kept["schedule"])

    def _inside(self, x: Tensor) -> Tensor:
        return x if self._limits is None else x.clamp(*self._limits)

    def _slope(self, gradient: Tensor) -> Tensor:
        """Largest entry of the projected gradient, ``(instances,)``."""
        return (self.x - self._inside(self.x - gradient)).abs().amax(1)
