"""Prior beliefs about what is sought: a density for each of its named parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.distributions import Distribution, biject_to
from torch.distributions.transforms import Transform

from dpcontrol import tree
from dpcontrol.tree import Tree


@dataclass(frozen=True)
class Prior:
    """Independent densities, keyed ``slot`` or ``slot.name`` (``"parameters.viscosity"``, ``"initial_state"``)."""

    densities: Mapping[str, Any]

    def transforms(self) -> dict[str, Transform]:
        """For each part the map from free numbers to the support of its density."""
        return {key: biject_to(density.support) for key, density in self.densities.items()}

    def log_density(self, z: Mapping[str, Tree]) -> Tensor:
        """``log p(z)`` with respect to the natural numbers, a scalar."""
        total: Any = 0.0
        for key, density in self.densities.items():
            total = total + density.log_prob(_part(z, key)).sum()
        return total

    def log_jacobian(self, free: Mapping[str, Tree], natural: Mapping[str, Tree]) -> Tensor:
        """``log |d natural / d free|``, a scalar: what a density gains when it is seen in free numbers."""
        total: Any = 0.0
        for key, transform in self.transforms().items():
            total = total + transform.log_abs_det_jacobian(_part(free, key), _part(natural, key)).sum()
        return total


def median_or_mean(density: Distribution) -> Tensor:
    """A central point of a density to start from."""
    base = getattr(density, "base_dist", None)
    if base is not None:  # a transformed density: the transformed centre of its base
        centre = base.mean
        for transform in density.transforms:  # type: ignore[attr-defined]
            centre = transform(centre)
        return centre
    return density.mean


def _part(z: Mapping[str, Tree], key: str) -> Tree:
    slot, _, name = key.partition(".")
    value = z[slot]
    found = value[name] if name else value
    return found if isinstance(found, Tensor) else tree.ravel(found)
