"""A numerical step with a learned correction, itself a simulator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dpcontrol import tree
from dpcontrol.sim.base import Simulator, Wrapper
from dpcontrol.tree import Tree


@dataclass(frozen=True)
class HybridSimulator(Wrapper):
    r"""``x_{k+1} = c + network(c)`` with ``c = coarse.step(x_k, u_k)``: a correction after each numerical step.

    Its weights are the parameter ``correction``, a dict of tensors, so that they can be sought
    (``Parameters("correction")``) like any other parameter. The network maps a state ``(scenarios, ...)`` to a
    correction of the same shape.

    **Source**: K. Um et al., "Solver-in-the-loop", NeurIPS 2020.
    """

    coarse: Simulator
    network: torch.nn.Module

    @property
    def inner(self) -> Simulator:
        return self.coarse

    @property
    def dt(self) -> float:
        return self.coarse.dt

    @property
    def added(self) -> Mapping[str, Any]:
        weights = {name: weight.detach() for name, weight in self.network.named_parameters()}
        return {"correction": weights}

    def prepare(self, parameters: Mapping[str, Tensor], scenario: Mapping[str, Tree]) -> Any:
        return super().prepare(parameters, scenario), parameters["correction"]

    def step(self, state: Tree, control: Tree, coefficients: Any, noise: Tree, t: float) -> Tree:
        numerical, weights = coefficients
        plain = self.coarse.step(state, control, numerical, noise, t)
        correction = torch.func.functional_call(self.network, weights, (plain,))
        return tree.map(lambda a, b: a + b, plain, correction)
