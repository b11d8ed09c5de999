"""The pole balanced on a cart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dpcontrol.sim.base import Value, require_positive
from dpcontrol.sim.ode import System


@dataclass(frozen=True)
class CartPole(System):
    r"""A uniform rod, hinged on a cart that a horizontal force pushes along a rail, without friction.

    .. math::
        \ddot\theta &= \frac{g \sin\theta - \cos\theta \, (F + m l \dot\theta^2 \sin\theta) / M}
                            {l \, (4/3 - m \cos^2\theta / M)}, \\
        \ddot x &= (F + m l (\dot\theta^2 \sin\theta - \ddot\theta \cos\theta)) / M,
        \qquad M = m_{cart} + m

    =========  ============  =========  ====================================================
    symbol     name          unit
    =========  ============  =========  ====================================================
    ``x``      state[0]      m          position of the cart; the rail has no end
    ``x'``     state[1]      m / s
    ``theta``  state[2]      rad        angle from **upright**, positive towards positive x; not wrapped
    ``theta'`` state[3]      rad / s
    ``F``      control[0]    N          force on the cart, ``(scenarios, 1)``
    ``m_cart`` cart_mass     kg
    ``m``      pole_mass     kg
    ``l``      half_length   m          from the hinge to the middle of the rod
    ``g``      gravity       m / s^2
    =========  ============  =========  ====================================================

    **State**: ``(scenarios, 4)``. Without force the energy ``M x'^2 / 2 + m l x' theta' cos(theta) +
    (2/3) m l^2 theta'^2 + m g l cos(theta)`` is conserved.
    **Parameters**: ``cart_mass``, ``pole_mass``, ``half_length``, ``gravity``.

    **Source**: A. G. Barto, R. S. Sutton, C. W. Anderson, IEEE Trans. Syst. Man Cybern. 13 (1983), appendix,
    without friction.

    **Good values**: the defaults (theirs, but for 9.8 m / s^2) with ``dt=0.02`` and forces up to 10 N.

    Raises:
        UsageError: for a mass or length that is not positive, or a negative gravity.
    """

    cart_mass: Value = 1.0
    pole_mass: Value = 0.1
    half_length: Value = 0.5
    gravity: Value = 9.81

    def __post_init__(self) -> None:
        require_positive("cart_mass", self.cart_mass)
        require_positive("pole_mass", self.pole_mass)
        require_positive("half_length", self.half_length)
        require_positive("gravity", self.gravity, zero_allowed=True)

    @property
    def components(self) -> tuple[str, ...]:
        return ("position", "velocity", "angle", "angular velocity")

    @property
    def inputs(self) -> tuple[str, ...]:
        return ("force",)

    @property
    def parameters(self) -> Mapping[str, Value]:
        return {
            "cart_mass": self.cart_mass,
            "pole_mass": self.pole_mass,
            "half_length": self.half_length,
            "gravity": self.gravity,
        }

    def rate(self, state: Tensor, control: Tensor | None, parameters: Mapping[str, Any], t: float) -> Tensor:
        _, velocity, theta, omega = state.unbind(-1)
        m, l, g = parameters["pole_mass"], parameters["half_length"], parameters["gravity"]
        M = parameters["cart_mass"] + m
        sin, cos = torch.sin(theta), torch.cos(theta)
        push = m * l * omega * omega * sin
        if control is not None:
            push = push + control[..., 0]
        angular = (g * sin - cos * push / M) / (l * (4 / 3 - m * cos * cos / M))
        linear = (push - m * l * angular * cos) / M
        return torch.stack((velocity, linear, omega, angular), -1)
