"""The driven pendulum."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dpcontrol.sim.base import Value, align, require_positive
from dpcontrol.sim.ode import SeparableSystem


@dataclass(frozen=True)
class Pendulum(SeparableSystem):
    r"""A point mass on a massless rod, driven by a torque at the pivot.

    .. math:: m l^2 \ddot\theta = - m g l \sin\theta - b \dot\theta + \tau

    =========  ===========  ==============  =======================================================
    symbol     name         unit
    =========  ===========  ==============  =======================================================
    ``theta``  state[0]     rad             angle from **hanging**: 0 at rest, pi upright; not wrapped
    ``omega``  state[1]     rad / s         angular velocity
    ``tau``    control[0]   N m             torque, ``(scenarios, 1)``
    ``m``      mass         kg
    ``l``      length       m
    ``g``      gravity      m / s^2
    ``b``      damping      N m s / rad
    =========  ===========  ==============  =======================================================

    **State**: ``(scenarios, 2)``. Without torque and damping the energy ``m l^2 omega^2 / 2 - m g l cos(theta)`` is
    conserved. **Parameters**: ``mass``, ``length``, ``gravity``, ``damping``.

    **Source**: R. Tedrake, "Underactuated Robotics", chapter "The simple pendulum".

    **Good values**: the defaults with ``dt=0.05`` (RK4); with torques up to
    ``m g l / 2`` a swing-up must pump energy first.

    Raises:
        UsageError: for a mass or length that is not positive, a negative gravity or damping.
    """

    mass: Value = 1.0
    length: Value = 1.0
    gravity: Value = 9.81
    damping: Value = 0.0

    def __post_init__(self) -> None:
        require_positive("mass", self.mass)
        require_positive("length", self.length)
        require_positive("gravity", self.gravity, zero_allowed=True)
        require_positive("damping", self.damping, zero_allowed=True)

    @property
    def components(self) -> tuple[str, ...]:
        return ("angle", "angular velocity")

    @property
    def inputs(self) -> tuple[str, ...]:
        return ("torque",)

    @property
    def parameters(self) -> Mapping[str, Value]:
        return {"mass": self.mass, "length": self.length, "gravity": self.gravity, "damping": self.damping}

    def velocity(self, momentum: Tensor, parameters: Mapping[str, Any]) -> Tensor:
        return momentum

    def force(
        self,
        position: Tensor,
        momentum: Tensor,
        control: Tensor | None,
        parameters: Mapping[str, Any],
        t: float,
    ) -> Tensor:
        m, l, g, b = (align(parameters[name], position) for name in ("mass", "length", "gravity", "damping"))
        torque = -b * momentum if control is None else control - b * momentum
        return torque / (m * l * l) - torch.sin(position) * (g / l)
