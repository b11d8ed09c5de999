"""Densities of a measurement around its prediction."""

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


class NoiseModel(abc.ABC):
    """``log p(data | prediction)``, entry by entry."""

    @abc.abstractmethod
    def log_density(self, data: Tensor, prediction: Tensor, z: Mapping[str, Tree]) -> Tensor:
        """Log-density of each entry, ``(scenarios, measurements)``; ``z`` is what is sought."""

    @abc.abstractmethod
    def sample(self, prediction: Tensor, z: Mapping[str, Tree], generator: torch.Generator) -> Tensor:
        """One draw of the data, of the prediction's shape."""


@dataclass(frozen=True)
class Gaussian(NoiseModel):
    """``data ~ Normal(prediction, scale)``; ``scale`` is a number, a tensor, or the name of an unknown scale."""

    scale: float | Tensor | str

    def log_density(self, data: Tensor, prediction: Tensor, z: Mapping[str, Tree]) -> Tensor:
        return _normal(data, prediction, _scale(self.scale, prediction, z))

    def sample(self, prediction: Tensor, z: Mapping[str, Tree], generator: torch.Generator) -> Tensor:
        return prediction + _scale(self.scale, prediction, z) * _noise(prediction, generator)


@dataclass(frozen=True)
class LogNormal(NoiseModel):
    """``log data ~ Normal(log prediction, scale)``, for positive data and predictions."""

    scale: float | Tensor | str

    def log_density(self, data: Tensor, prediction: Tensor, z: Mapping[str, Tree]) -> Tensor:
        return _normal(data.log(), prediction.log(), _scale(self.scale, prediction, z)) - data.log()

    def sample(self, prediction: Tensor, z: Mapping[str, Tree], generator: torch.Generator) -> Tensor:
        return prediction * torch.exp(_scale(self.scale, prediction, z) * _noise(prediction, generator))


def _normal(data: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    return -0.5 * ((data - mean) / scale).square() - scale.log() - 0.5 * math.log(2 * math.pi)


def _noise(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(like.shape, dtype=like.dtype, generator=generator).to(like.device)


def _scale(scale: float | Tensor | str, like: Tensor, z: Mapping[str, Tree]) -> Tensor:
    if isinstance(scale, str):
        found = z.get("observation", {})
        if scale not in found:
            raise UsageError(
                f"the noise scale {scale!r} is not among the unknown scales {sorted(found)}: add it."
            )
        return found[scale]
    return tree.to(scale, dtype=like.dtype, device=like.device)
