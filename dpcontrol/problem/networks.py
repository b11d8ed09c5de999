"""What is asked of somebody's own network before it is trained: as a controller, or as a correction."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from dpcontrol import tree
from dpcontrol.engine.trajectory import rollout
from dpcontrol.problem.base import Problem
from dpcontrol.problem.policy_slot import BoundedNetwork, MemoryNetwork, Policy, played
from dpcontrol.problem.unknown import Inputs
from dpcontrol.results import UsageError, first_line
from dpcontrol.sim.hybrid import HybridSimulator
from dpcontrol.tree import Tree

CALLED = (
    "a module of your own is called module(state, t, scenario); for one from an observation to a control give a "
    "function (inputs, outputs) -> nn.Module instead"
)


def made_by(who: str, maker: Callable[[int, int], nn.Module], inputs: int, outputs: int) -> nn.Module:
    """The network that somebody's function makes for so many inputs and outputs.

    Raises:
        UsageError: if the function fails, or makes no module.
    """
    try:
        made = maker(inputs, outputs)
    except Exception as error:
        raise UsageError(
            f"{who}, called with (inputs, outputs) = ({inputs}, {outputs}), raised {first_line(error)}."
        ) from error
    if not isinstance(made, nn.Module):
        raise UsageError(
            f"{who} made a {type(made).__name__}; a function (inputs, outputs) must return an nn.Module."
        )
    return made


def require_controller(problem: Problem, who: str) -> None:
    """Ask the network of a problem that seeks a policy twice what it would do at the start.

    Raises:
        UsageError: if it has no weights, cannot be called, gives no control of the right shape, one that does not
            depend on the weights, two different ones (dropout), or if it changes its own buffers (batch
            normalisation).
    """
    (slot,) = problem.unknown.slots
    assert isinstance(slot, Policy)
    if not any(weight.requires_grad for weight in slot.network.parameters()):
        raise UsageError(
            f"the network of {who} has no weights to train: give it some that require a gradient, or try it as a law."
        )
    network = copy.deepcopy(slot.network)  # asking must not change it
    weights = tree.map(lambda leaf: leaf.requires_grad_(), slot.guess(problem.pose()))
    _ask_twice(
        f"the network of {who}",
        network,
        lambda: _answered(problem, network, weights, who),
        lambda found: _require_shape(problem, found, who),
    )
    _require_scenes_apart(problem, network, weights, who)


def require_correction(hybrid: HybridSimulator, measured: Mapping[str, Tree]) -> None:
    """Ask the network of a correction twice about measured states, and whether it plays a role in the step.

    Raises:
        UsageError: as :func:`require_controller`, or if the step does not depend on what the network says.
    """
    who, layout = "the network of the correction", hybrid.layout
    assert layout is not None
    network = copy.deepcopy(hybrid.network)
    weights = {name: value.detach().requires_grad_() for name, value in hybrid.added["correction"].items()}
    if not weights:
        raise UsageError(f"{who} has no weights to train: give it some that require a gradient.")
    state = measured["initial_state"]
    seen = layout.pack(state, {name: measured[name] for name in layout.inputs})
    wanted = (len(seen), layout.counts(state)[1], *seen.shape[2:])

    def answered() -> Tensor:
        try:
            with torch.enable_grad():
                found: Tensor = torch.func.functional_call(network, weights, (seen,))
        except Exception as error:
            raise UsageError(
                f"{who}, asked about channels of shape {tuple(seen.shape)}, raised {first_line(error)}."
            ) from error
        return found

    def require_shape(found: Any) -> None:
        if not isinstance(found, Tensor) or tuple(found.shape) != wanted:
            raise UsageError(
                f"{who} gets channels of shape {tuple(seen.shape)} and must return {wanted}; found "
                f"{tree.describe(found)}."
            )

    _ask_twice(who, network, answered, require_shape)
    own = {name: value for name, value in measured.items() if name in hybrid.coarse.parameters}
    with torch.enable_grad():
        after = rollout(
            hybrid, state, length=1, parameters={**own, "correction": weights}, scenario=measured
        ).states
    if not any(leaf.requires_grad for leaf in tree.leaves(after)):
        raise UsageError(
            f"what {who} says plays no role in a step: with where={hybrid.where!r} the step has to use it; one that "
            "ignores its control needs where='after', 'before' or 'source'."
        )


def _ask_twice(
    who: str, network: nn.Module, ask: Callable[[], Tensor], require_shape: Callable[[Any], None]
) -> None:
    """What is said must have the right shape, depend on the weights, be the same again, and change nothing."""
    before = {name: value.clone() for name, value in network.named_buffers()}
    first, second = ask(), ask()
    require_shape(first)
    if not first.requires_grad:
        raise UsageError(
            f"what {who} says does not depend on its weights: remove what cuts the graph, such as .detach() or "
            "no_grad()."
        )
    if not torch.equal(first.nan_to_num(), second.nan_to_num()):
        raise UsageError(
            f"{who} says two different things about the same state (dropout?): it has to be deterministic; call "
            "network.eval() or leave it out."
        )
    after = dict(network.named_buffers())
    changed = [name for name, value in before.items() if not torch.equal(value, after[name])]
    if changed:
        raise UsageError(
            f"{who} changes its own {', '.join(changed)} when it is asked (batch normalisation?), so that one scenario "
            "depends on the others: call network.eval(), or take LayerNorm or GroupNorm."
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
        hint = "" if isinstance(network, (MemoryNetwork, BoundedNetwork)) else f"; {CALLED}"
        raise UsageError(
            f"the network of {who}, asked for a control at the start, raised {first_line(error)}{hint}."
        ) from error
    return found


def _require_scenes_apart(problem: Problem, network: nn.Module, weights: Tree, who: str) -> None:
    """Each scenario's control must be what it is without the others."""
    count = problem.scenarios.count
    if count == 1:
        return
    together = _answered(problem, network, weights, who).detach()
    first = problem.scenarios.subset(torch.zeros(1, dtype=torch.long))
    alone = _answered(replace(problem, scenarios=first), network, weights, who).detach()
    slack = 1e3 * torch.finfo(alone.dtype).eps if alone.is_floating_point() else 0.0
    if not torch.allclose(alone[0], together[0], rtol=slack, atol=slack, equal_nan=True):
        raise UsageError(
            f"the network of {who} gives a scenario another control when it is alone than beside others (batch "
            "normalisation, a mean over the batch?): each row must depend on its own scenario; take LayerNorm or "
            "GroupNorm."
        )


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
    if control.is_complex():
        raise UsageError(
            f"the network of {who} gives complex numbers, {tree.describe(control)}, and a control is real: give its "
            "real and imaginary part as two entries, or what is wanted of it."
        )
