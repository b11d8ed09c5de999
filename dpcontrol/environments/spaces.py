"""Observation and action spaces of a batch, in Gymnasium's terms."""

from __future__ import annotations

from typing import Any

import numpy as np

from dpcontrol.environments.batch import Batch
from dpcontrol.environments.wanted import wanted


def spaces_of(batch: Batch) -> tuple[Any, Any]:
    """Unbounded observations ``(inputs,)`` and actions in [-1, 1], both float32."""
    box = wanted("gymnasium.spaces").Box
    seen = box(-np.inf, np.inf, (batch.inputs,), np.float32)
    return seen, box(-1.0, 1.0, (batch.map.size,), np.float32)
