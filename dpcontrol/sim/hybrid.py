"""A numerical step with a learned correction, itself a simulator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dpcontrol import tree
from dpcontrol.sim.base import Simulator
from dpcontrol.tree import Tree


@dataclass(frozen=True)
class HybridSimulator(Simulator):
    r"""``x_{k+1} = c + network(c)`` with ``c = coarse.step(x_k, u_k)``: a correction after each numerical step.

    Its weights are the parameter ``correction``, a dict of tensors, so that they can be sought
    (``Parameters("correction")``) like any other parameter. The network maps a state ``(scenarios, ...)`` to a
    correction of the same shape.

    **Source**: K. Um et al., "Solver-in-the-loop", NeurIPS 2020.
    """

    coarse: Simulator
    network: torch.nn.Module

    @property
    def dt(self) -> float:
        return self.coarse.dt

    @property
    def parameters(self) -> Mapping[str, Any]:
        weights = {name: weight.detach() for name, weight in self.network.named_parameters()}
        return {**self.coarse.parameters, "correction": weights}

    def check(self, initial: Tree, parameters: Mapping[str, Tensor]) -> None:
        self.coarse.check(initial, _without_weights(parameters))

    def start(self, initial: Tree, parameters: Mapping[str, Tensor]) -> Tree:
        return self.coarse.start(initial, _without_weights(parameters))

    def prepare(self, parameters: Mapping[str, Tensor], scenario: Mapping[str, Tree]) -> Any:
        return self.coarse.prepare(_without_weights(parameters), scenario), parameters["correction"]

    def step(self, state: Tree, control: Tree, coefficients: Any, noise: Tree, t: float) -> Tree:
        numerical, weights = coefficients
        plain = self.coarse.step(state, control, numerical, noise, t)
        correction = torch.func.functional_call(self.network, weights, (plain,))
        return tree.map(lambda a, b: a + b, plain, correction)


def _without_weights(parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in parameters.items() if name != "correction"}
