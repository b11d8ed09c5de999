"""Lotka and Volterra's predators and prey."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dpcontrol.sim.base import Value, require_positive
from dpcontrol.sim.ode import System


@dataclass(frozen=True)
class LotkaVolterra(System):
    r"""Two populations, one of which lives on the other.

    .. math:: \dot u = (\alpha - \beta v) u + w_1, \qquad \dot v = (-\gamma + \delta u) v + w_2

    =========  ==================  =======================================================================
    symbol     name                unit (time in years, populations in thousands, say)
    =========  ==================  =======================================================================
    ``u, v``   state               populations of prey and predators, ``(scenarios, 2)``, positive
    ``w``      control             added (negative: harvested) per time, ``(scenarios, 2)`` or ``None``
    ``alpha``  prey_growth         1 / time
    ``beta``   predation           1 / (time, predators): loss of prey for each predator
    ``gamma``  predator_death      1 / time
    ``delta``  predator_growth     1 / (time, prey): gain of predators for each prey
    =========  ==================  =======================================================================

    Without control ``delta u - gamma ln u + beta v - alpha ln v`` is conserved, and orbits are closed around the
    equilibrium ``(gamma / delta, alpha / beta)``. **Parameters**: the four rates.

    **Source**: A. J. Lotka, "Elements of Physical Biology" (1925), chapter VIII; V. Volterra, Nature 118 (1926) 558.

    **Good values**: the defaults (near those of the lynx and hare of Hudson's Bay) from ``(30, 5)`` with
    ``dt=0.1`` (RK4).

    Raises:
        UsageError: for a negative rate.
    """

    prey_growth: Value = 0.55
    predation: Value = 0.028
    predator_death: Value = 0.8
    predator_growth: Value = 0.024

    def __post_init__(self) -> None:
        for name, value in self.parameters.items():
            require_positive(name, value, zero_allowed=True)

    @property
    def components(self) -> tuple[str, ...]:
        return ("prey", "predators")

    @property
    def inputs(self) -> tuple[str, ...]:
        return ("prey added", "predators added")

    @property
    def parameters(self) -> Mapping[str, Value]:
        return {
            "prey_growth": self.prey_growth,
            "predation": self.predation,
            "predator_death": self.predator_death,
            "predator_growth": self.predator_growth,
        }

    def rate(self, state: Tensor, control: Tensor | None, parameters: Mapping[str, Any], t: float) -> Tensor:
        u, v = state.unbind(-1)
        change = torch.stack(
            (
                (parameters["prey_growth"] - parameters["predation"] * v) * u,
                (parameters["predator_growth"] * u - parameters["predator_death"]) * v,
            ),
            -1,
        )
        return change if control is None else change + control
