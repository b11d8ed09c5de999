"""A feedback policy as the unknown: the weights of a network, and what such a network may be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from dpcontrol import tree
from dpcontrol.problem.slots import ControlSequence, own_size
from dpcontrol.problem.unknown import Inputs, Pose, Slot
from dpcontrol.tree import Tree


class BoundedNetwork(torch.nn.Module):
    """A controller's network that knows which control it plays, and keeps to its bounds by itself."""

    control: ControlSequence


class MemoryNetwork(torch.nn.Module):
    """A controller's network with a memory: ``control, memory = network(memory, state, t, scenario)``."""

    def begin(self, state: Tree, scenario: Mapping[str, Tree]) -> Tree:
        """The memory before the first step, a tree of tensors ``(scenarios, ...)``; weights have no say in it."""
        raise NotImplementedError


@dataclass(frozen=True)
class _Weighted:
    """A network with memory under given weights."""

    network: MemoryNetwork
    weights: Tree
    control: ControlSequence | None

    def begin(self, state: Tree, scenario: Mapping[str, Tree]) -> Tree:
        return self.network.begin(state, scenario)

    def act(self, memory: Tree, state: Tree, t: float, scenario: Mapping[str, Tree]) -> tuple[Tree, Tree]:
        found: tuple[Tree, Tree] = torch.func.functional_call(
            self.network, self.weights, (memory, state, t, scenario)
        )
        control, after = found
        return control if self.control is None else self.control.clip(control), after


@dataclass(frozen=True)
class Policy(Slot):
    """The weights of a feedback controller, ``z["policy"]``: ``control = network(state, t, scenario)``.

    Args:
        network: a module called with the state ``(scenarios, ...)``, the time (a float) and the dict of per-scenario
            data; its present weights are the start guess, and those that require no gradient stay as they are. A
            :class:`MemoryNetwork` is called with its memory first.
        control: the control that it plays: what it says is clipped to the bounds of that. Where a problem's control
            sequence is replaced (``problem.with_unknown``) it is that one; ``None`` where there are no bounds.
    """

    network: torch.nn.Module
    control: ControlSequence | None = None
    shared: bool = field(default=True, init=False)
    name: str = field(default="policy", init=False)

    def guess(self, pose: Pose) -> Tree:
        weights = {
            key: value.detach() for key, value in self.network.named_parameters() if value.requires_grad
        }
        return tree.to(weights, dtype=pose.dtype, device=pose.device)

    def magnitude(self, pose: Pose) -> Tree:
        return tree.map(own_size, self.guess(pose))

    def place(self, value: Tree, inputs: Inputs) -> Inputs:
        clipping = None if isinstance(self.network, BoundedNetwork) else self.control
        if isinstance(self.network, MemoryNetwork):
            return replace(inputs, remembering=_Weighted(self.network, value, clipping))

        def law(state: Tree, t: float, scenario: Mapping[str, Tree]) -> Tree:
            found: Tensor = torch.func.functional_call(self.network, value, (state, t, scenario))
            return found if clipping is None else clipping.clip(found)

        return replace(inputs, law=law)

    @property
    def played(self) -> ControlSequence | None:
        """The control whose bounds hold; ``None`` where none are known."""
        return self.network.control if isinstance(self.network, BoundedNetwork) else self.control


def played(slots: tuple[Slot, ...]) -> ControlSequence | None:
    """The control that acts in a problem with these slots, whether it is sought or what a policy plays."""
    found = [slot.played if isinstance(slot, Policy) else slot for slot in slots]
    return next((slot for slot in found if isinstance(slot, ControlSequence)), None)
