"""``mppi``: model predictive path integral, a plan as the weighted mean of sampled ones."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dpcontrol import tree
from dpcontrol.meter import Meter
from dpcontrol.problem import Demand
from dpcontrol.results import Status
from dpcontrol.run import Strategy
from dpcontrol.strategies.checks import cap, positive, whole, within
from dpcontrol.strategies.verdict import Ended, summary

WITHOUT_BUDGET = 200


@dataclass(frozen=True)
class MPPI(Strategy):
    r"""Path integral control: sample around a plan, and move it to the mean of the samples, weighted by their losses.

    .. math::  u \leftarrow u + \sum_i w_i \varepsilon_i, \qquad
               w_i \propto \exp\bigl(-(J(u + \varepsilon_i) - \min_j J) / \lambda\bigr)

    The samples of all scenarios are one batch. The first sample is the plan itself. Perturbations are normal with
    :math:`\sigma` times the magnitudes, correlated in time: :math:`\varepsilon_t = \beta \varepsilon_{t-1} +
    \sqrt{1 - \beta^2} \xi_t`, as white noise hardly moves an inertial system. Samples are moved inside the bounds, and
    the mean of what was tried is taken, so the plan stays inside. The answer is the best point that was evaluated.

    Of the source the update and its weights are kept. What is different: control costs are the objective's own, hence
    no term :math:`\lambda u^T \Sigma^{-1} \varepsilon`; :math:`\lambda` is relative to the losses, hence free of
    units; perturbations narrow from one iteration to the next, hence many iterations converge. Built for a receding
    horizon, with few iterations for each decision; as a search of its own it is a coarse one.

    Args:
        samples: per iteration and instance.
        temperature: :math:`\lambda` as a share of the distance between the median and the least loss of an
            iteration's samples; small trusts the best sample, large averages.
        sigma: first spread, in units of the unknown's magnitudes.
        smoothing: :math:`\beta` between neighbouring steps of a control; 0 for white noise.
        decay: of the spread, per iteration.
        iterations: at most this many; ``None`` goes on until the budget is spent, and up to 200 without a budget.

    Source: G. Williams, A. Aldrich, E. Theodorou, "Model predictive path integral control: from theory to parallel
    computation", J. Guidance, Control, and Dynamics 40 (2017), algorithm 2; G. Williams et al., "Information theoretic
    MPC for model-based reinforcement learning", ICRA 2017.
    """

    samples: int = 32
    temperature: float = 0.1
    sigma: float = 1.0
    smoothing: float = 0.8
    decay: float = 0.95
    iterations: int | None = None

    def __post_init__(self) -> None:
        whole("MPPI", least=2, samples=self.samples)
        positive("MPPI", temperature=self.temperature, sigma=self.sigma, decay=self.decay)
        within("MPPI", 0, 1, smoothing=self.smoothing)
        within("MPPI", 0, 1 + 1e-12, decay=self.decay)
        if self.iterations is not None:
            whole("MPPI", iterations=self.iterations)

    @property
    def honours(self) -> frozenset[Demand]:
        return frozenset({Demand.BOUNDS})

    @property
    def stochastic(self) -> bool:
        return True

    @property
    def stores_state(self) -> bool:
        return True

    def run(self, meter: Meter, generator: torch.Generator) -> Status:
        kept: Any = meter.resumed()
        plan, done = (meter.start(), 0) if kept is None else (kept["plan"].to(meter.best_x), kept["done"])
        most = cap(self.iterations, meter, WITHOUT_BUDGET, gradients=False)
        while done < most:
            meter.keep(lambda plan=plan, done=done: {"plan": plan, "done": done})  # type: ignore[misc]
            plan = self._moved(plan, self.sigma * self.decay**done, meter, generator)
            done += 1
        meter.values(plan)
        return summary([Ended("iterations spent")] * meter.instances)

    def _moved(self, plan: Tensor, sigma: float, meter: Meter, generator: torch.Generator) -> Tensor:
        """The plan ``(instances, dimension)`` after one iteration."""
        n, count = meter.instances, self.samples
        which = torch.arange(n).repeat_interleave(count)
        away = sigma * meter.magnitudes()[:, None] * self._perturbations(meter, generator).to(plan)
        away[:, 0] = 0.0
        points = (plan[:, None] + away).flatten(0, 1)
        limits = meter.limits()
        if limits is not None:
            points = points.clamp(limits[0][which], limits[1][which])
        losses = meter.values(points, which).reshape(n, count)
        # an instance without any finite loss has learned nothing
        known = torch.isfinite(losses).any(1, keepdim=True)
        least = torch.where(known, losses.amin(1, keepdim=True), 0.0)
        spread = losses.nanmedian(1, keepdim=True).values - least
        spread = torch.where(torch.isfinite(spread), spread, _finite_width(losses, least))
        scale = (self.temperature * spread).clamp(min=torch.finfo(losses.dtype).tiny)
        weights = torch.softmax(torch.where(known, -(losses - least) / scale, 0.0), 1).to(plan)
        tried = points.reshape(n, count, -1)
        return torch.where(known.to(plan.device), torch.einsum("ns,nsd->nd", weights, tried), plan)

    def _perturbations(self, meter: Meter, generator: torch.Generator) -> Tensor:
        """Unit perturbations ``(instances, samples, dimension)``, those of a control correlated in time."""
        n, count = meter.instances, self.samples
        parts = []
        for slot, value in meter.layout().items():
            for leaf in tree.leaves(value):
                white = torch.randn(n, count, *leaf.shape, generator=generator, dtype=torch.float64)
                parts.append((self._correlated(white) if slot == "control" else white).flatten(2))
        return torch.cat(parts, 2)

    def _correlated(self, white: Tensor) -> Tensor:
        """From white numbers ``(instances, samples, steps, ...)`` to a stationary process in time of the same size."""
        rest, rows = math.sqrt(1 - self.smoothing**2), list(white.unbind(2))
        for k in range(1, len(rows)):
            rows[k] = self.smoothing * rows[k - 1] + rest * rows[k]
        return torch.stack(rows, 2)


def _finite_width(losses: Tensor, least: Tensor) -> Tensor:
    """The largest finite loss above the least, where so many are infinite that the median is."""
    finite = torch.where(torch.isfinite(losses), losses, least)
    return finite.amax(1, keepdim=True) - least
