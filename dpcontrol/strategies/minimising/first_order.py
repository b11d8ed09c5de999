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
from dpcontrol.strategies.checks import affordable, cap, one_of, positive, whole, within
from dpcontrol.strategies.verdict import Ended, summary

Schedule = Callable[[Optimizer], LRScheduler]
RATES = {"adam": 0.05, "sgd": 0.1}
RUNNING, CONVERGED, DIVERGED, STALLED = 0, 1, 2, 3
EDGE = "the steps are held back by the edge of where the loss is finite: if it is known, seek with bounds"
WITHOUT_BUDGET = 1000
RETRIES = 10  # failures in a row, each with half of the step
RECOVERY = 1.05  # per finite step
MOMENTUM = ("exp_avg", "momentum_buffer")


@dataclass(frozen=True)
class Adjoint(Strategy):
    r"""Follow the gradient: ``x <- P(x - rate * direction(gradient))``, with ``P`` the projection onto the bounds.

    The adjoint (backpropagation through the rollout) gives the gradients of all instances as one batch. Adam works in
    units of the unknown's magnitudes, so its rate is relative; ``sgd`` is plain gradient descent with an absolute rate.
    Projection means that each step is clamped to the bounds, so that every point that is evaluated lies inside.
    An instance that has converged stays where it is and costs nothing more. One whose loss or gradient is not finite
    goes back half of the way to its latest finite point, without momentum and with steps half as large, which grow
    back by a twentieth each; after 10 failures in a row it has stalled, or diverged if no step at all was
    finite.

    Args:
        optimizer: ``"adam"`` or ``"sgd"``.
        learning_rate: relative to the magnitudes for Adam (0.05 by default), absolute for ``sgd`` (0.1).
        momentum: of ``sgd``; the first moment's decay is 0.9 for Adam.
        iterations: at most this many; ``None`` goes on until the budget is spent, and up to 1000 without a budget.
        schedule: ``"cosine"`` (down to zero over ``iterations``, or over as many as the budget pays for; over 1000 if
            it is in seconds only), a function from the optimizer to a scheduler of
            ``torch.optim.lr_scheduler``, or ``None`` for a constant rate.
        gradient_tolerance: converged when the largest entry of ``x - P(x - gradient)`` is this small.

    Source: D. Kingma, J. Ba, "Adam: a method for stochastic optimization", ICLR 2015.
    """

    optimizer: str = "adam"
    learning_rate: float | None = None
    momentum: float = 0.0
    iterations: int | None = None
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
        if self.iterations is not None:
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
        most = cap(self.iterations, meter, WITHOUT_BUDGET)
        if self.schedule == "cosine" and self.iterations is None:
            most = affordable(meter, WITHOUT_BUDGET)
        descent = Descent(self, meter, most)
        while descent.iteration < most:
            meter.keep(descent.pack)
            if not descent.step():
                break
        endings = {
            RUNNING: Ended("iterations spent"),
            CONVERGED: Ended("converged"),
            DIVERGED: Ended("diverged"),
            STALLED: Ended("stalled", EDGE),
        }
        return summary([endings[int(state)] for state in descent.state])

    def make_optimizer(self, y: Tensor) -> Optimizer:
        """The torch optimizer of the scaled unknown."""
        rate = self.learning_rate or RATES[self.optimizer]
        if self.optimizer == "sgd":
            return torch.optim.SGD([y], lr=rate, momentum=self.momentum)
        return torch.optim.Adam([y], lr=rate)

    def make_schedule(self, optimizer: Optimizer, iterations: float) -> LRScheduler | None:
        """The scheduler that was asked for."""
        if self.schedule is None:
            return None
        if not callable(self.schedule):
            return CosineAnnealingLR(optimizer, int(iterations))
        made = self.schedule(optimizer)
        if not isinstance(made, LRScheduler) or isinstance(made, ReduceLROnPlateau):
            raise UsageError(
                f"Adjoint(schedule=...) made a {type(made).__name__}; it must return a scheduler of "
                "torch.optim.lr_scheduler that depends on the iteration only."
            )
        return made


class Descent:
    """A descent under way: the scaled unknown ``y = x / scale``, the optimizer, and how each instance fares.

    ``x, y`` are where the gradient is asked next, ``good_x, good_y`` the latest finite point of each instance, and
    ``factor`` what its steps are multiplied by; ``failed`` counts its failures in a row.
    """

    def __init__(self, strategy: Adjoint, meter: Meter, iterations: float) -> None:
        self._strategy, self._meter = strategy, meter
        magnitudes = meter.magnitudes()
        relative = torch.where(magnitudes > 0, magnitudes, torch.ones_like(magnitudes))
        self._scale = relative if strategy.optimizer == "adam" else torch.ones_like(relative)
        self._limits = meter.limits()
        self.x = self._inside(meter.start())
        self.iteration = 0
        self.state = torch.zeros(meter.instances, dtype=torch.long)
        self._y = torch.nn.Parameter(self.x / self._scale)
        self._good_x, self._good_y = self.x.clone(), self._y.detach().clone()
        self._factor = torch.ones_like(self.x[:, :1])
        self._failed = torch.zeros(meter.instances, dtype=torch.long)
        self._optimizer = strategy.make_optimizer(self._y)
        self._schedule = strategy.make_schedule(self._optimizer, iterations)
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
        self._failed[running] = torch.where(finite.cpu(), 0, self._failed[running] + 1)
        lost = ~finite & torch.tensor(self.iteration == 0) | (self._failed[running] > RETRIES).to(
            finite.device
        )
        moved = (self._good_x != self._inside(self._meter.start())).any(1)[running]
        ended = torch.where(lost, torch.where(moved, STALLED, DIVERGED), RUNNING)
        verdict = torch.where(finite & flat, CONVERGED, ended)
        self.state[running] = verdict.cpu()
        going = (self.state == RUNNING).to(self.x.device)[:, None]
        failed = (self._failed > 0).to(self.x.device)[:, None]
        self._advance(gradient, going & ~failed)
        self._take_back(going & failed)
        self.iteration += 1
        return bool(going.any())

    def _advance(self, gradient: Tensor, moving: Tensor) -> None:
        """One step of the optimizer for the instances ``moving``; the moments of others stay as they are."""
        here = self._y.detach().clone()
        self._good_x = torch.where(moving, self.x, self._good_x)
        self._good_y = torch.where(moving, here, self._good_y)
        self._y.grad = torch.where(moving, gradient * self._scale, torch.zeros_like(gradient))
        before = {name: value.clone() for name, value in self._moments().items()}
        self._optimizer.step()
        for name, value in self._moments().items():
            value.copy_(torch.where(moving, value, before.get(name, torch.zeros_like(value))))
        if self._schedule is not None:
            self._schedule.step()
        # a factor of one must not round: here + (there - here) is not always there
        there = torch.where(self._factor < 1, here + self._factor * (self._y - here), self._y).detach()
        self._factor = torch.where(moving, (RECOVERY * self._factor).clamp(max=1.0), self._factor)
        self._move(torch.where(moving, there, here), moving)

    def _take_back(self, chosen: Tensor) -> None:
        """Go back half of the way to the latest finite point, with steps half as large and no momentum."""
        self._factor = torch.where(chosen, self._factor / 2, self._factor)
        for name, value in self._moments().items():
            if name in MOMENTUM:
                value.copy_(torch.where(chosen, torch.zeros_like(value), value))
        self._move(torch.where(chosen, (self._good_y + self._y.detach()) / 2, self._y.detach()), chosen)

    def _move(self, wanted: Tensor, chosen: Tensor) -> None:
        with torch.no_grad():
            self.x = torch.where(chosen, self._inside(wanted * self._scale), self.x)
            self._y.copy_(wanted if self._limits is None else self.x / self._scale)

    def _moments(self) -> dict[str, Tensor]:
        """The optimizer's tensors with a row for each instance."""
        kept = self._optimizer.state[self._y]
        return {name: value for name, value in kept.items() if torch.is_tensor(value) and value.ndim > 0}

    def pack(self) -> dict[str, Any]:
        """Everything that the rest of the descent depends on."""
        optimizer = self._optimizer.state_dict()
        return {
            "x": self.x.clone(),
            "y": self._y.detach().clone(),
            "good_x": self._good_x.clone(),
            "good_y": self._good_y.clone(),
            "factor": self._factor.clone(),
            "failed": self._failed.clone(),
            "state": self.state.clone(),
            "iteration": self.iteration,
            "moments": optimizer["state"].get(0, {}),
            "groups": optimizer["param_groups"],
            "schedule": None if self._schedule is None else self._schedule.state_dict(),
        }

    def _unpack(self, kept: dict[str, Any]) -> None:
        self.x, self.state, self.iteration = kept["x"].to(self.x), kept["state"], kept["iteration"]
        self._good_x, self._good_y = kept["good_x"].to(self.x), kept["good_y"].to(self.x)
        self._factor, self._failed = kept["factor"].to(self.x), kept["failed"]
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
