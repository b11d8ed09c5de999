"""A numerical step with a learned correction, itself a simulator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dpcontrol import tree
from dpcontrol.results import UsageError
from dpcontrol.sim.base import Simulator, Wrapper
from dpcontrol.sim.channels import Channels
from dpcontrol.tree import Tree

PLACES = ("after", "before", "force", "source")
Maker = Callable[[int, int], torch.nn.Module]


@dataclass(frozen=True)
class HybridSimulator(Wrapper):
    r"""A numerical step ``S`` (``coarse``) and a network ``N`` as one simulator, wherever a simulator may stand:

    ==============  ==========================================
    ``where``       ``x_{k+1}``
    ==============  ==========================================
    ``"after"``     ``c + N(c)`` with ``c = S(x_k, u_k)``
    ``"before"``    ``S(x_k + N(x_k), u_k)``
    ``"force"``     ``S(x_k, u_k + N(x_k))``: the network acts as a control does
    ``"source"``    ``S(x_k, u_k) + dt N(x_k)``
    ==============  ==========================================

    Its weights (those that require a gradient) are the parameter ``correction``, a dict of tensors, so that they can be
    sought (``Parameters("correction")``) like any other parameter; with weights of which the last layer is zero it is
    ``S`` to the bit. States, parameters, stability limits and what a control may be are those of ``coarse``.

    Args:
        coarse: the numerical part.
        network: maps channels to channels (see ``layout``), or without a layout a state ``(scenarios, ...)`` to a
            correction of the same shape.
        where: the network's place, see above.
        layout: how a state becomes channels, and which parameters the network sees beside it.
        maker: ``maker(inputs, outputs)`` makes such a network with new weights, so that each seed of a training may
            begin with its own; without it all begin with those of ``network``.

    Raises:
        UsageError: for another place; at the start of a rollout, for an input of the network that is neither a
            parameter nor an entry of the scenarios.

    **Source**: K. Um et al., "Solver-in-the-loop", NeurIPS 2020.
    """

    coarse: Simulator
    network: torch.nn.Module
    where: str = "after"
    layout: Channels | None = None
    maker: Maker | None = None

    def __post_init__(self) -> None:
        if self.where not in PLACES:
            raise UsageError(
                f"where a network corrects a step is one of {', '.join(PLACES)}; found {self.where!r}."
            )

    @property
    def inner(self) -> Simulator:
        return self.coarse

    @property
    def dt(self) -> float:
        return self.coarse.dt

    @property
    def added(self) -> Mapping[str, Any]:
        weights = {
            name: weight.detach() for name, weight in self.network.named_parameters() if weight.requires_grad
        }
        return {"correction": weights}

    def prepare(self, parameters: Mapping[str, Tensor], scenario: Mapping[str, Tree]) -> Any:
        known = {**scenario, **parameters}
        wanted = self.layout.inputs if self.layout is not None else {}
        missing = sorted(set(wanted) - set(known))
        if missing:
            raise UsageError(
                f"the network sees {', '.join(missing)}, which is neither a parameter of "
                f"{type(self.coarse).__name__} nor an entry of the scenarios: give it in scenarios=... or scenario=..."
            )
        scalars = {name: known[name] for name in wanted}
        return super().prepare(parameters, scenario), parameters["correction"], scalars

    def step(self, state: Tree, control: Tree, coefficients: Any, noise: Tree, t: float) -> Tree:
        numerical, weights, scalars = coefficients

        def solver(x: Tree, u: Tree) -> Tree:
            return self.coarse.step(x, u, numerical, noise, t)

        if self.where == "after":
            plain = solver(state, control)
            return _added(plain, self._correction(plain, weights, scalars))
        found = self._correction(state, weights, scalars)
        if self.where == "before":
            return solver(_added(state, found), control)
        if self.where == "force":
            return solver(state, found if control is None else _added(control, found))
        return _added(solver(state, control), tree.map(lambda leaf: self.dt * leaf, found))

    def _correction(self, state: Tree, weights: Tree, scalars: Mapping[str, Tensor]) -> Tree:
        seen = state if self.layout is None else self.layout.pack(state, scalars)
        found = torch.func.functional_call(self.network, weights, (seen,))
        return found if self.layout is None else self.layout.unpack(found, state)


@dataclass(frozen=True)
class Still(Wrapper):
    """``x_{k+1} = x_k``: what is left of a solver when a network shall do all of its work.

    It takes the states and parameters of ``inner`` and none of its steps.
    """

    inner: Simulator

    @property
    def dt(self) -> float:
        return self.inner.dt

    def check(self, initial: Tree, parameters: Mapping[str, Tensor]) -> None:
        """Nothing can become unstable."""

    def prepare(self, parameters: Mapping[str, Tensor], scenario: Mapping[str, Tree]) -> Any:
        return None

    def step(self, state: Tree, control: Tree, coefficients: Any, noise: Tree, t: float) -> Tree:
        return state


def _added(state: Tree, correction: Tree) -> Tree:
    """State plus correction; entries that have none stay as they are."""
    if isinstance(state, dict) and isinstance(correction, dict):
        moved = {name: _added(state[name], value) for name, value in correction.items()}
        return {**state, **moved}
    return tree.map(lambda a, b: a + b, state, correction)
