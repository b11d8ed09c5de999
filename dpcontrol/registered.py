"""The problems of the catalogue as registered Gymnasium environments: importing this module registers them.

    import gymnasium
    env = gymnasium.make("dpcontrol.registered:dpcontrol/burgers-v0", size="small", seed=0)

Each is :func:`dpcontrol.environments.gymnasium_env` of the problem file of that name; ``size`` and ``seed`` are the
file's, further arguments the environment's. A problem that seeks no control says so when it is made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dpcontrol import catalogue
from dpcontrol.environments import gymnasium_env
from dpcontrol.environments.wanted import wanted

if TYPE_CHECKING:
    import gymnasium

NAMESPACE, VERSION = "dpcontrol", "v0"


def make(
    problem: str, *, size: str = "full", seed: int = 0, **options: Any
) -> gymnasium.Env[np.ndarray, np.ndarray]:
    """The environment of a problem file.

    Raises:
        UsageError: if there is no such problem, or it seeks no control.
    """
    built = catalogue.find(problem).build(size=size, seed=seed)
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
