"""Names that a posterior is reported by: the parts of ``z`` under the names that the user gave their priors."""

from __future__ import annotations

from collections.abc import Mapping

from dpcontrol.tree import Tree

#: slots whose parts are reported by their own names; of the others the slot's name is the site's
DICTS = ("parameters", "experiment_parameters", "observation", "experiment_observation")


def sites(z: Mapping[str, Tree]) -> dict[str, Tree]:
    """The parts of ``z`` by site: ``viscosity``, ``initial_state`` (of a dict ``initial_state.q``), ``noise``."""
    found: dict[str, Tree] = {}
    for slot, value in z.items():
        if not isinstance(value, Mapping):
            found[slot] = value
        elif slot in DICTS:
            found.update(value)
        else:
            found.update({f"{slot}.{name}": part for name, part in value.items()})
    return found


def from_sites(values: Mapping[str, Tree], like: Mapping[str, Tree]) -> dict[str, Tree]:
    """The inverse of :func:`sites`; ``like`` is any ``z`` of the problem."""
    found: dict[str, Tree] = {}
    for slot, value in like.items():
        if not isinstance(value, Mapping):
            found[slot] = values[slot]
        else:
            prefix = "" if slot in DICTS else f"{slot}."
            found[slot] = {name: values[f"{prefix}{name}"] for name in value}
    return found


def site_of(key: str) -> str:
    """The site of a prior's key: ``parameters.viscosity`` is ``viscosity``."""
    slot, _, name = key.partition(".")
    return name if name and slot in DICTS else key
