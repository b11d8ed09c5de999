"""What Gauss-Newton searches minimise: losses with their quadratic models, asked through a meter.

Points are in units of the unknowns' magnitudes, float64, ``(rows, d)``; ``which`` ``(rows,)`` names their instances.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from dpcontrol import tree
from dpcontrol.meter import Meter
from dpcontrol.meter import squares as asked
from dpcontrol.strategies.minimising.trust_region import Metric, Model, Products, Residuals

DENSE_BYTES = 2**29  # Jacobians of all instances together; beyond, only products with them are asked for


@dataclass(frozen=True)
class Source(abc.ABC):
    """A loss of each instance of a meter. Its linear algebra is done on the CPU, wherever the system runs.

    Args:
        meter: where everything is asked.
        scale: magnitudes ``(instances, d)``, positive.
        low, high: bounds in the unknown's own units, infinite where there are none.
        dense: form matrices for at most this many unknowns; for more, ask for products.
        products: per step at most.
    """

    meter: Meter
    scale: Tensor
    low: Tensor
    high: Tensor
    dense: int
    products: int

    @abc.abstractmethod
    def losses(self, y: Tensor, which: Tensor) -> tuple[Tensor, Tensor | None]:
        """Losses ``(rows,)``, ``inf`` where they are not finite, and what the model at ``y`` would ask again."""

    @abc.abstractmethod
    def model(self, y: Tensor, which: Tensor, known: Tensor | None) -> Model:
        """The quadratic models at points with finite losses; they may turn out not finite."""

    def model_of(self, tensors: Mapping[str, Tensor]) -> Model:
        """A model from what it consisted of."""
        if "J" in tensors:
            return Residuals(tensors["r"], tensors["J"])
        if "A" in tensors:
            return Metric(tensors["g"], tensors["A"])
        return Products(tensors["g"], tensors["y"], tensors["which"], self._times, self.products)

    def natural(self, y: Tensor, which: Tensor) -> Tensor:
        """The points in the unknown's own units; rounding leads neither beyond a bound nor away from it."""
        low, high = self.box(which)
        x = torch.where(y <= low, self.low[which], y * self.scale[which])
        return torch.where(y >= high, self.high[which], x).to(self.meter.best_x)

    def box(self, which: Tensor) -> tuple[Tensor, Tensor]:
        """Bounds in units of the magnitudes."""
        return self.low[which] / self.scale[which], self.high[which] / self.scale[which]

    def slopes(self, gradients: Tensor, which: Tensor) -> Tensor:
        """Gradients in units of the magnitudes."""
        return gradients.to(self.scale) * self.scale[which]

    def _times(self, y: Tensor, v: Tensor, which: Tensor) -> Tensor:
        """Products of the curvature."""
        x = self.natural(y, which)
        return self.slopes(self._product(x, (v * self.scale[which]).to(x), which), which)

    @abc.abstractmethod
    def _product(self, x: Tensor, v: Tensor, which: Tensor) -> Tensor:
        """Products of the curvature in the unknown's own units."""


@dataclass(frozen=True)
class SumOfSquares(Source):
    """``|r|^2`` with the curvature ``2 J^T J``."""

    def losses(self, y: Tensor, which: Tensor) -> tuple[Tensor, Tensor | None]:
        losses, r = asked.residuals(self.meter, self.natural(y, which), which)
        return losses.to(y), r.to(y)

    def model(self, y: Tensor, which: Tensor, known: Tensor | None) -> Model:
        assert known is not None
        x, count = self.natural(y, which), known.shape[1]
        size = 8 * count * y.shape[1] * self.meter.instances
        if y.shape[1] <= self.dense and size <= DENSE_BYTES:
            J = asked.jacobian(self.meter, x, which, count)
            return Residuals(known, J.to(y) * self.scale[which][:, None])
        _, gradients = self.meter.values_and_gradients(x, which)
        return Products(self.slopes(gradients, which), y, which, self._times, self.products)

    def _product(self, x: Tensor, v: Tensor, which: Tensor) -> Tensor:
        return asked.gauss_newton_products(self.meter, x, v, which)


@dataclass(frozen=True)
class NegativeLogDensity(Source):
    """Minus the log-density of a posterior (or of measurements) over the number of scenarios, a single instance.

    The gradient is exact, the curvature is the expected Fisher information of the data and the Hessian of the prior.

    Args:
        jacobian: the density of the free numbers; without, that of the natural ones, whose maximum is the usual
            estimate (maximum a posteriori).
    """

    jacobian: bool = field(kw_only=True)

    @property
    def _share(self) -> int:
        return 1 if self.jacobian else self.meter.problem.scenarios.count

    def losses(self, y: Tensor, which: Tensor) -> tuple[Tensor, Tensor | None]:
        x = self.natural(y, which)
        found = -self.meter.log_densities(x) if self.jacobian else self.meter.values(x, which)
        return found.to(y), None

    def model(self, y: Tensor, which: Tensor, known: Tensor | None) -> Model:
        x = self.natural(y, which)
        g = self.slopes(self._gradients(x, which), which)
        if y.shape[1] > self.dense:
            return Products(g, y, which, self._times, self.products)
        J = self.meter.fisher_roots(x).to(y)
        A = (J.T @ J + self._prior_hessian(x).to(y)) / self._share
        return Metric(g, (A * self.scale[which].T * self.scale[which])[None])

    def _gradients(self, x: Tensor, which: Tensor) -> Tensor:
        if self.jacobian:
            return -self.meter.log_densities_and_gradients(x)[1]
        return self.meter.values_and_gradients(x, which)[1]

    def _product(self, x: Tensor, v: Tensor, which: Tensor) -> Tensor:
        data = asked.fisher_products(self.meter, x, v)
        return (data + self._prior_products(x, v)) / self._share

    def _prior_hessian(self, x: Tensor) -> Tensor:
        if self.jacobian:
            return self.meter.prior_hessian(x)
        directions = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
        return torch.cat([self._prior_products(x, v[None]) for v in directions])

    def _prior_products(self, x: Tensor, v: Tensor) -> Tensor:
        """Of minus the Hessian of the prior's log-density; runs no simulator."""
        problem = self.meter.problem
        if problem.prior is None:
            return torch.zeros_like(v)
        if self.jacobian and problem.belief.white:
            return v
        point = x.detach().requires_grad_()
        free = tree.unravel(point[0], self.meter.layout())
        z = problem.unknown.natural(free)
        belief = problem.belief
        value = belief.log_density_free(free, z) if self.jacobian else belief.log_density(z)
        if not value.requires_grad:
            return torch.zeros_like(v)
        slope = torch.autograd.grad(value, point, create_graph=True, materialize_grads=True)[0]
        if not slope.requires_grad:
            return torch.zeros_like(v)
        return -torch.autograd.grad((slope * v).sum(), point, materialize_grads=True)[0]
