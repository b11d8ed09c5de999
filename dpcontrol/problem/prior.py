"""Prior beliefs about what is sought: a density for each of its named parts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.distributions.transforms import Transform

from dpcontrol import tree
from dpcontrol.problem.densities import unvalidated
from dpcontrol.problem.white import draw, free_transform, white_transform
from dpcontrol.results import UsageError
from dpcontrol.tree import Tree


@dataclass(frozen=True)
class Separately:
    """A prior of something of which every experiment (scenario) has a value of its own, independent of the others."""

    density: Distribution


@dataclass(frozen=True)
class Prior:
    """Independent densities, keyed ``slot`` or ``slot.name`` (``"parameters.viscosity"``, ``"initial_state"``).

    A part of ``z`` may have more axes than its density (scenarios, steps, or the entries of a vector with a scalar
    density): it consists of independent draws then.

    *Free* numbers are what searches and samplers move: white ones, of which the prior is standard normal, for every
    density of which such a map is known, and otherwise unconstrained ones.
    """

    densities: Mapping[str, Any]
    white: bool = field(init=False)  # whether the prior of all free numbers is standard normal
    transforms: Mapping[str, Transform] = field(init=False, repr=False)  # from free numbers to natural ones

    def __post_init__(self) -> None:
        # outside of its support a density is zero, and a batch (torch.func.vmap) cannot be looked into
        bare = {key: unvalidated(density) for key, density in self.densities.items()}
        object.__setattr__(self, "densities", bare)
        known = [white_transform(density) is not None for density in self.densities.values()]
        object.__setattr__(self, "white", all(known))
        maps = {key: free_transform(density) for key, density in self.densities.items()}
        object.__setattr__(self, "transforms", maps)

    def log_density(self, z: Mapping[str, Tree]) -> Tensor:
        """``log p(z)`` with respect to the natural numbers, a scalar."""
        total: Any = 0.0
        for key, density in self.densities.items():
            total = total + density.log_prob(_part(z, key)).sum()
        return total

    def split(self, z: Mapping[str, Tree], scenarios: int, own: frozenset[str]) -> Tensor:
        """:meth:`log_density` as a sum over scenarios, ``(scenarios,)``.

        What belongs to one scenario (slots ``own``, with a scenario axis) counts there, the rest in equal shares.
        """
        total: Any = 0.0
        for key, density in self.densities.items():
            found = density.log_prob(_part(z, key))
            separate = key.partition(".")[0] in own
            total = total + (found.reshape(scenarios, -1).sum(1) if separate else found.sum() / scenarios)
        return total

    def log_density_free(self, free: Mapping[str, Tree], natural: Mapping[str, Tree]) -> Tensor:
        """The log-density of the prior with respect to the free numbers, a scalar."""
        if self.white:
            parts = tree.leaves(dict(free))
            squares = torch.stack([part.square().sum() for part in parts]).sum()
            return -0.5 * squares - 0.5 * math.log(2 * math.pi) * sum(part.numel() for part in parts)
        total: Any = self.log_density(natural)
        for key, transform in self.transforms.items():
            total = total + transform.log_abs_det_jacobian(_part(free, key), _part(natural, key)).sum()
        return total

    def draw(self, like: Mapping[str, Tree], generator: torch.Generator) -> dict[str, Tree]:
        """One draw, shaped like any ``z`` of the problem."""
        result: dict[str, Tree] = {}
        for key, density in self.densities.items():
            shape = _part(like, key).shape
            own = len(density.batch_shape) + len(density.event_shape)
            lead = shape[: len(shape) - own]
            found = draw(density, generator, lead).to(_part(like, key))
            slot, _, name = key.partition(".")
            if name:
                result.setdefault(slot, {})[name] = found
            else:
                result[slot] = found
        return result


def centre(density: Distribution, like: Tensor, shape: tuple[int, ...], name: str) -> Tensor:
    """A central point of a density to start from: what white zeros map to, or its mean.

    Args:
        like: gives dtype and device.
        shape: of the point; it ends with the density's own.
        name: of what has this prior.

    Raises:
        UsageError: if the density has neither.
    """
    white = white_transform(density)
    if white is not None:
        return white(torch.zeros(shape, dtype=like.dtype, device=like.device))
    free_transform(density)  # what cannot be sought is told first
    try:
        mean = density.mean
    except NotImplementedError:
        mean = torch.tensor(float("nan"))
    if not bool(torch.isfinite(mean).all()):
        raise UsageError(
            f"the prior of {name} has no finite mean to start from: give start={{{name!r}: ...}}."
        )
    return mean.to(like).expand(shape)


def _part(z: Mapping[str, Tree], key: str) -> Tensor:
    slot, _, name = key.partition(".")
    value = z[slot]
    found = value[name] if name else value
    if not isinstance(found, Tensor):
        raise UsageError(
            f"the prior of {key} is one density, but {key} is {tree.describe(found)}: name a part, {key}.NAME."
        )
    return found
