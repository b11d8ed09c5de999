"""Plants that are not their models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from dpcontrol.sim.base import Simulator, Wrapper


@dataclass(frozen=True)
class Shaken(Wrapper):
    """A plant that is pushed by the noise of each step, which its model knows nothing of."""

    inner: Simulator

    @property
    def dt(self) -> float:
        return self.inner.dt

    def step(self, state: Any, control: Any, coefficients: Any, noise: Any, t: float) -> Any:
        return self.inner.step(state, control, coefficients, None, t) + noise


@dataclass(frozen=True)
class Lagging(Wrapper):
    """A plant whose state has one more entry than its model's: the control acts a step late."""

    inner: Simulator

    @property
    def dt(self) -> float:
        return self.inner.dt

    def start(self, initial: Any, parameters: Any) -> Any:
        return torch.cat([initial, torch.zeros_like(initial[:, :1])], 1)

    def step(self, state: Any, control: Any, coefficients: Any, noise: Any, t: float) -> Any:
        moved = self.inner.step(state[:, :2], state[:, 2:], coefficients, None, t)
        return torch.cat([moved, control], 1)
