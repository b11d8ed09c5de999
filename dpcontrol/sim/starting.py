"""A simulator whose initial state is made of its parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dpcontrol import tree
from dpcontrol.kernels import Kernel
from dpcontrol.results import UsageError
from dpcontrol.sim.base import Simulator, Wrapper
from dpcontrol.tree import Tree


@dataclass(frozen=True)
class StartsFrom(Wrapper):
    r"""``inner``, started from ``x_0 = initial(parameters)`` whatever initial state it is given.

    Args:
        inner: the simulator.
        initial: takes the dict of parameters, ``()`` or ``(scenarios,)`` and larger, and returns leaves
            ``(scenarios, ...)``, or ``(1, ...)`` where all scenarios are alike.
        own: defaults of further parameters that only ``initial`` knows.
    """

    inner: Simulator
    initial: Callable[[Mapping[str, Tensor]], Tree]
    own: Mapping[str, Any]

    @property
    def dt(self) -> float:
        return self.inner.dt

    @property
    def added(self) -> Mapping[str, Any]:
        return self.own

    def template(self, scenarios: int, parameters: Mapping[str, Any]) -> Tree:
        """The initial state under the defaults and some other values, ``(scenarios, ...)``: it sets shapes and dtype.

        Raises:
            UsageError: if the function does not return such a state.
        """
        values = {
            name: tree.map(torch.as_tensor, value)
            for name, value in {**self.parameters, **parameters}.items()
        }
        with torch.no_grad():
            found = self.initial(values)
        leaves = tree.leaves(found)
        if not leaves or any(not isinstance(leaf, Tensor) or leaf.ndim < 1 for leaf in leaves):
            raise UsageError(
                "initial_state(parameters) must return leaves (scenarios, ...), or (1, ...) for all scenarios alike; "
                f"found {tree.describe(found)}: add the scenario axis with state[None]."
            )
        return _for_all(found, scenarios)

    def check(self, initial: Tree, parameters: Mapping[str, Tensor]) -> None:
        super().check(self._made(initial, parameters), parameters)

    def start(self, initial: Tree, parameters: Mapping[str, Tensor]) -> Tree:
        return super().start(self._made(initial, parameters), parameters)

    def step(self, state: Tree, control: Tree, coefficients: Any, noise: Tree, t: float) -> Tree:
        return self.inner.step(state, control, coefficients, noise, t)

    def kernel(self, state: Tree, control: Tree, noise: Tree, coefficients: Any) -> Kernel | None:
        return self.inner.kernel(state, control, noise, coefficients)

    def _made(self, initial: Tree, parameters: Mapping[str, Tensor]) -> Tree:
        return _for_all(self.initial(parameters), len(tree.leaves(initial)[0]))


def _for_all(state: Tree, scenarios: int) -> Tree:
    return tree.map(
        lambda leaf: leaf.expand(scenarios, *leaf.shape[1:]) if len(leaf) == 1 else leaf,
        state,
    )
