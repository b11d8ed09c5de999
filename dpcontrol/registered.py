"""The problems of the catalogue as registered Gymnasium environments: importing this module registers them.

    import gymnasium
    env = gymnasium.make("dpcontrol.registered:dpcontrol/burgers-v0", size="small", seed=0)

Each is :func:`dpcontrol.environments.gymnasium_env` of the problem file of that name; ``size`` and ``seed`` are the
file's (``seed`` is the environment's as well, which without one draws scenes of its own), ``failure`` and
``render_mode`` the environment's. What a problem seeks is known once it is built, so all are registered; one
that seeks no control, which cannot be an environment, says so when it is made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dpcontrol import catalogue
from dpcontrol.environments import gymnasium_env
from dpcontrol.environments.wanted import wanted
from dpcontrol.problem import ControlSequence, View
from dpcontrol.results import UsageError

if TYPE_CHECKING:
    import gymnasium

NAMESPACE, VERSION = "dpcontrol", "v0"
OPTIONS = frozenset({"failure", "render_mode"})


def make(
    problem: str, *, size: str = "full", seed: int | None = None, **options: Any
) -> gymnasium.Env[np.ndarray, np.ndarray]:
    """The environment of a problem file.

    Raises:
        UsageError: if there is no such problem, it seeks no control, or there is no such argument.
    """
    strange = sorted(set(options) - OPTIONS)
    if strange:
        raise UsageError(
            f"the environment of {problem} takes size, seed, {', '.join(sorted(OPTIONS))}; found {', '.join(strange)}."
        )
    built = catalogue.find(problem).build(size=size, seed=0 if seed is None else seed)
    slots = built.unknown.slots
    if len(slots) != 1 or not isinstance(slots[0], ControlSequence) or View.ACTING not in built.offers:
        raise UsageError(
            f"{problem} cannot be an environment: an agent acts by a control, step by step, and this problem seeks "
            f"{', '.join(built.unknown.names)}; make one that seeks a control, such as {NAMESPACE}/burgers-{VERSION}."
        )
    return gymnasium_env(built, seed=seed, **options)


def register_all() -> list[str]:
    """Register every problem of the catalogue that is not yet there; their ids."""
    registration = wanted("gymnasium.envs.registration")
    ids = []
    for name in catalogue.names():
        ids.append(f"{NAMESPACE}/{name}-{VERSION}")
        if ids[-1] not in registration.registry:
            registration.register(ids[-1], entry_point="dpcontrol.registered:make", kwargs={"problem": name})
    return ids


register_all()
