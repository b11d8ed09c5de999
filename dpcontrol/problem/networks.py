"""What is asked of somebody's own network before it is trained or judged as a controller."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from dpcontrol import tree
from dpcontrol.problem.base import Problem
from dpcontrol.problem.slots import BoundedNetwork, MemoryNetwork, Policy, played
from dpcontrol.problem.unknown import Inputs
from dpcontrol.results import UsageError
from dpcontrol.tree import Tree

CALLED = (
    "a module of your own is called module(state, t, scenario); for one from an observation to a control give a "
    "function (inputs, outputs) -> nn.Module instead"
)


def require_controller(problem: Problem, who: str) -> None:
    """Ask the network of a problem that seeks a policy twice what it would do at the start.

    Raises:
        UsageError: if it has no weights, cannot be called, gives no control of the right shape, one that does not
            depend on the weights, two different ones (dropout), or if it changes its own buffers (batch
            normalisation).
    """
    (slot,) = problem.unknown.slots
    assert isinstance(slot, Policy)
    if not any(True for _ in slot.network.parameters()):
        raise UsageError(f"the network of {who} has no weights to train: give it some, or try it as a law.")
    network = copy.deepcopy(slot.network)  # asking must not change it
    before = {name: value.clone() for name, value in network.named_buffers()}
    weights = tree.map(lambda leaf: leaf.requires_grad_(), slot.guess(problem.pose()))
    first, second = (_answered(problem, network, weights, who) for _ in range(2))
    _require_shape(problem, first, who)
    if not first.requires_grad:
        raise UsageError(
            f"what the network of {who} says does not depend on its weights: remove what cuts the graph, such as "
            ".detach() or no_grad()."
        )
    if not torch.equal(first.nan_to_num(), second.nan_to_num()):
        raise UsageError(
            f"the network of {who} says two different things about the same state (dropout?): a controller is "
            "deterministic; call network.eval() or leave it out."
        )
    after = dict(network.named_buffers())
    changed = [name for name, value in before.items() if not torch.equal(value, after[name])]
    if changed:
        raise UsageError(
            f"the network of {who} changes its own {', '.join(changed)} when it is asked (batch normalisation?), so "
            "that one scenario depends on the others: call network.eval(), or take LayerNorm or GroupNorm."
        )


def _answered(problem: Problem, network: nn.Module, weights: Tree, who: str) -> Tensor:
    data = problem.scenarios.data
    state, t = data["initial_state"], problem.first * problem.simulator.dt
    try:
        with torch.enable_grad():
            acting = Policy(network).place(weights, Inputs(state)).acting
            assert acting is not None
            found: Tensor = acting.act(acting.begin(state, data), state, t, data)[0]
    except UsageError:
        raise
    except Exception as error:
        words = (
            f"{type(error).__name__}: {str(error).strip().splitlines()[0].rstrip('.') if str(error) else ''}"
        )
        hint = "" if isinstance(network, (MemoryNetwork, BoundedNetwork)) else f"; {CALLED}"
        raise UsageError(
            f"the network of {who}, asked for a control at the start, raised {words}{hint}."
        ) from error
    return found


def _require_shape(problem: Problem, control: Tree, who: str) -> None:
    acting = played(problem.unknown.slots)
    count = problem.scenarios.count
    if not isinstance(control, Tensor) or (
        tuple(control.shape) != (count, *acting.sizes) if acting is not None else len(control) != count
    ):
        wanted = f"({count}, ...)" if acting is None else str((count, *acting.sizes))
        raise UsageError(
            f"the network of {who} must give a control of shape {wanted}; found {tree.describe(control)}."
        )
