"""Densities of a measurement around its prediction.

An entry of the data that is NaN was not measured: it has log-density zero, whatever is predicted for it, and no
gradient. Predictions, data and log-densities have one shape, ``(scenarios, measurements)`` or
``(rows, scenarios, measurements)``; scales broadcast to it.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from dpcontrol import tree
from dpcontrol.results import UsageError
from dpcontrol.tree import Tree

# the slot of scales of which every experiment has its own, (scenarios, 1) or (scenarios, entries)
EXPERIMENT_SCALES = "experiment_observation"


@dataclass(frozen=True)
class NoiseModel(abc.ABC):
    """``log p(data | prediction)``, entry by entry.

    Args:
        scale: a positive number or tensor, or the name of an unknown scale (an entry of ``z["observation"]``).
    """

    scale: float | Tensor | str

    def __post_init__(self) -> None:
        if isinstance(self.scale, str):
            return
        found = torch.as_tensor(self.scale)
        if found.is_complex() or not bool((torch.isfinite(found) & (found > 0)).all()):
            raise UsageError(
                f"{type(self).__name__}(scale=...) must be a positive number or tensor, or the name of an unknown "
                f"scale; found {self.scale!r}."
            )

    @property
    def standard(self) -> bool:
        """Whether the first Fisher root of the data less that of the prediction is drawn from ``Normal(0, 1)``."""
        return False

    def log_density(self, data: Tensor, prediction: Tensor, z: Mapping[str, Tree]) -> Tensor:
        """Log-density of each entry, of the data's shape, zero where it was not measured; ``z`` is what is sought."""
        measured = ~torch.isnan(data)
        # one is inside the support of every model here: what is not measured must not spoil a gradient either
        data, prediction = torch.where(measured, data, 1.0), torch.where(measured, prediction, 1.0)
        found = self._log_density(data, prediction, self._scale(prediction, z))
        return torch.where(measured, found, 0.0)

    @abc.abstractmethod
    def sample(self, prediction: Tensor, z: Mapping[str, Tree], generator: torch.Generator) -> Tensor:
        """One draw of the data, of the prediction's shape."""

    @abc.abstractmethod
    def fisher_root(self, prediction: Tensor, z: Mapping[str, Tree]) -> tuple[Tensor, ...]:
        """Tensors of the prediction's shape whose Jacobian ``J`` in anything gives the expected Fisher information.

        That is ``J^T J``, the covariance of the score, summed over all their entries. The first belongs to where the
        measurement lies, the second, for an unknown scale, to how far it spreads. Leave out the entries that were not
        measured.
        """

    @abc.abstractmethod
    def _log_density(self, data: Tensor, prediction: Tensor, scale: Tensor) -> Tensor:
        """Log-density of each entry, all of them measured."""

    def _scale(self, like: Tensor, z: Mapping[str, Tree]) -> Tensor:
        if isinstance(self.scale, str):
            found = {**z.get("observation", {}), **z.get(EXPERIMENT_SCALES, {})}
            if self.scale not in found:
                raise UsageError(
                    f"the noise scale {self.scale!r} is not among the unknown scales {sorted(found)}: add it."
                )
            return found[self.scale]
        return tree.to(self.scale, dtype=like.dtype, device=like.device)

    def _roots(self, place: Tensor, z: Mapping[str, Tree], where: float, spread: float) -> tuple[Tensor, ...]:
        """``where * place / scale``, and for an unknown scale ``spread * ln scale`` for each entry."""
        scale = self._scale(place, z)
        # the information on the place depends on the scale but does not inform about it
        root = where * place / scale.detach()
        return (root, (spread * scale.log()).expand(root.shape)) if isinstance(self.scale, str) else (root,)


@dataclass(frozen=True)
class Gaussian(NoiseModel):
    """``data ~ Normal(prediction, scale)``; see :class:`NoiseModel` for the scale."""

    @property
    def standard(self) -> bool:
        return not isinstance(self.scale, str)

    def sample(self, prediction: Tensor, z: Mapping[str, Tree], generator: torch.Generator) -> Tensor:
        return prediction + self._scale(prediction, z) * _normal_draw(prediction, generator)

    def fisher_root(self, prediction: Tensor, z: Mapping[str, Tree]) -> tuple[Tensor, ...]:
        return self._roots(prediction, z, 1.0, math.sqrt(2.0))

    def _log_density(self, data: Tensor, prediction: Tensor, scale: Tensor) -> Tensor:
        return _normal(data, prediction, scale)


@dataclass(frozen=True)
class LogNormal(NoiseModel):
    """``log data ~ Normal(log prediction, scale)``, for positive data and predictions."""

    @property
    def standard(self) -> bool:
        return not isinstance(self.scale, str)

    def sample(self, prediction: Tensor, z: Mapping[str, Tree], generator: torch.Generator) -> Tensor:
        return prediction * torch.exp(self._scale(prediction, z) * _normal_draw(prediction, generator))

    def fisher_root(self, prediction: Tensor, z: Mapping[str, Tree]) -> tuple[Tensor, ...]:
        return self._roots(prediction.log(), z, 1.0, math.sqrt(2.0))

    def _log_density(self, data: Tensor, prediction: Tensor, scale: Tensor) -> Tensor:
        return _normal(data.log(), prediction.log(), scale) - data.log()


@dataclass(frozen=True)
class StudentT(NoiseModel):
    r"""``(data - prediction) / scale`` follows Student's t: heavy tails, so that outliers weigh little.

    Its Fisher information on the prediction is :math:`(\nu + 1) / ((\nu + 3) s^2)`, on the logarithm of the scale
    :math:`2 \nu / (\nu + 3)`, and they are independent of each other.

    Args:
        scale: see :class:`NoiseModel`; the standard deviation is ``scale * sqrt(nu / (nu - 2))`` for ``nu > 2``.
        degrees: degrees of freedom ``nu``, a positive number; 1 is the Cauchy density, infinitely many the Gaussian.

    Source of the draws: R. Bailey, "Polar generation of random variates with the t-distribution", Math. Comp. 62
    (1994).
    """

    degrees: float

    def __post_init__(self) -> None:
        super().__post_init__()
        number = isinstance(self.degrees, (int, float)) and not isinstance(self.degrees, bool)
        if not number or not 0 < self.degrees < math.inf:
            raise UsageError(
                f"StudentT(degrees=...) must be a positive number; found {self.degrees!r}; "
                "the limit of infinitely many is Gaussian(scale)."
            )

    def sample(self, prediction: Tensor, z: Mapping[str, Tree], generator: torch.Generator) -> Tensor:
        # in the plane the t-density has a uniform angle and a radius whose distribution function has an inverse
        radius, angle = (_uniform_draw(prediction, generator) for _ in range(2))
        squared = self.degrees * torch.expm1(-2.0 / self.degrees * torch.log1p(-radius))
        return prediction + self._scale(prediction, z) * squared.sqrt() * torch.cos(2 * math.pi * angle)

    def fisher_root(self, prediction: Tensor, z: Mapping[str, Tree]) -> tuple[Tensor, ...]:
        nu = self.degrees
        return self._roots(prediction, z, math.sqrt((nu + 1) / (nu + 3)), math.sqrt(2 * nu / (nu + 3)))

    def _log_density(self, data: Tensor, prediction: Tensor, scale: Tensor) -> Tensor:
        nu = self.degrees
        constant = math.lgamma((nu + 1) / 2) - math.lgamma(nu / 2) - 0.5 * math.log(nu * math.pi)
        standard = (data - prediction) / scale
        return constant - scale.log() - (nu + 1) / 2 * torch.log1p(standard.square() / nu)


def _normal(data: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    return -0.5 * ((data - mean) / scale).square() - scale.log() - 0.5 * math.log(2 * math.pi)


def _normal_draw(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(like.shape, dtype=like.dtype, generator=generator).to(like.device)


def _uniform_draw(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.rand(like.shape, dtype=like.dtype, generator=generator).to(like.device)
