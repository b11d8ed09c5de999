"""Priors and noise models as Pyro distributions. This file imports Pyro: it is imported late."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, ClassVar

import pyro.distributions
import torch
from pyro.distributions.torch_distribution import TorchDistribution, TorchDistributionMixin
from torch import Size, Tensor
from torch.distributions import Distribution, Transform, constraints
from torch.distributions.transforms import _InverseTransform

from dpcontrol.problem.noise import NoiseModel
from dpcontrol.problem.white import unvalidated

FIELD_AXES = 3  # rows, scenarios, measurements


def as_pyro(density: Distribution, lead: Size, like: Tensor) -> Any:
    """Independent copies ``lead`` of a density as one event of a Pyro distribution, in dtype and device like ``like``.

    It becomes Pyro's of the same name where that adds nothing but methods, so that reparametrisations know it; others
    get these methods added.
    """
    found = _in_pyro(_cast(unvalidated(density), like)).expand(lead + density.batch_shape)
    found = found.to_event(len(found.batch_shape))
    # Pyro switches validation off while it samples, but only that of densities made inside
    found._validate_args = False
    return found


def _in_pyro(density: Any) -> Any:
    if isinstance(density, TorchDistributionMixin):
        return density
    found = copy.copy(density)
    base = getattr(found, "base_dist", None)
    if isinstance(base, Distribution):
        found.base_dist = _in_pyro(base)
    own = type(density)
    known = getattr(pyro.distributions, own.__name__, None)
    same = isinstance(known, type) and issubclass(known, own) and "__init__" not in vars(known)
    found.__class__ = known if same else type(own.__name__, (own, TorchDistributionMixin), {})
    return found


def _cast(value: Any, like: Tensor) -> Any:
    """A density, a transform or a list of them with its floating-point tensors in the dtype of ``like``."""
    if isinstance(value, Tensor):
        return value.to(like) if value.is_floating_point() else value.to(like.device)
    if isinstance(value, list):
        return [_cast(entry, like) for entry in value]
    if not isinstance(value, (Distribution, Transform)):
        return value
    if isinstance(value, _InverseTransform):
        return _cast(value.inv, like).inv
    found = copy.copy(value)
    for name, entry in vars(value).items():
        # a transform remembers its inverse, which remembers it
        found.__dict__[name] = None if name == "_inv" else _cast(entry, like)
    return found


class Measured(TorchDistribution):
    """Data ``(rows, scenarios, measurements)`` of one observation around their prediction, one event.

    Entries that were not measured are NaN in what is drawn, and have log-density zero. Where the noise model has no
    density (a logarithm of a negative prediction), the log-density is ``-inf``.

    Args:
        noise: the noise model.
        prediction: ``(..., rows, scenarios, measurements)``; the axes in front are batch axes.
        scales: what is sought, the ``observation`` part of ``z``, entries ``(..., 1.., own axes)``.
        measured: which entries were measured, ``(rows, scenarios, measurements)``.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    has_rsample = False
    # NaN stands for what was not measured, and passes
    support = constraints.independent(constraints.dependent(is_discrete=False, event_dim=0), FIELD_AXES)

    def __init__(
        self, noise: NoiseModel, prediction: Tensor, scales: Mapping[str, Tensor], measured: Tensor
    ) -> None:
        self.noise, self.prediction, self.measured = noise, prediction, measured
        self.scales = dict(scales)
        shape = prediction.shape
        super().__init__(shape[:-FIELD_AXES], shape[-FIELD_AXES:], validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Measured:
        """The same density over a larger batch."""
        shape = Size(batch_shape) + self.event_shape
        return Measured(self.noise, self.prediction.expand(shape), self.scales, self.measured)

    def sample(self, sample_shape: Any = Size()) -> Tensor:  # noqa: B008  torch's own signature
        """Draws by torch's global generator, as Pyro has it."""
        seed = int(torch.randint(2**62, ()))
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            prediction = self.prediction.expand(Size(sample_shape) + self.prediction.shape)
            found = self.noise.sample(prediction, {"observation": self.scales}, generator)
            return torch.where(self.measured, found, float("nan"))

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density of all data together."""
        found = self.noise.log_density(value, self.prediction, {"observation": self.scales})
        total = found.sum((-3, -2, -1))
        return torch.where(torch.isnan(total), float("-inf"), total)
