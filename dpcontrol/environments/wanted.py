"""Imports of the optional libraries, and the one sentence where they are missing."""

from __future__ import annotations

import importlib
from types import ModuleType

from dpcontrol.results import UsageError


def wanted(name: str) -> ModuleType:
    """A module of Gymnasium or Stable-Baselines3.

    Raises:
        UsageError: if it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise UsageError(
            f"reinforcement learning needs {error.name}, which is not installed: pip install 'dpcontrol[rl]'."
        ) from error
