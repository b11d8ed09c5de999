"""How a rollout is differentiated, as a value. Exact modes equal :class:`Full` to rounding; biased ones say so."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import ClassVar


class GradientMode(abc.ABC):
    """How :func:`dpcontrol.engine.scan.scan` is differentiated."""

    exact: ClassVar[bool]


@dataclass(frozen=True)
class Full(GradientMode):
    """Backpropagation through every step, all intermediate values kept: the fastest, memory linear in steps."""

    exact: ClassVar[bool] = True
