"""What people give, as the simulators and states that problems are made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch

from dpcontrol import tree
from dpcontrol.results import UsageError
from dpcontrol.sim.base import Simulator
from dpcontrol.sim.function import FunctionSimulator
from dpcontrol.tree import Tree


def as_simulator(
    simulator: Simulator | Callable[..., Tree], parameters: Mapping[str, Any] | None
) -> Simulator:
    """A simulator, or a user's function wrapped as one with ``parameters`` as its defaults."""
    given = dict(parameters or {})
    if isinstance(simulator, Simulator):
        system = simulator
        if isinstance(system, FunctionSimulator) and given:
            system = replace(system, defaults={**system.defaults, **given})
        unknown = sorted(set(given) - set(system.parameters))
        if unknown:
            raise UsageError(
                f"{type(simulator).__name__} has no parameter {', '.join(unknown)}; it has {sorted(system.parameters)}."
            )
        return system
    wrapped = FunctionSimulator(simulator, defaults=given)
    if given and "parameters" not in wrapped.keywords:
        raise UsageError(
            f"parameters {sorted(given)} were given, but the step function does not take the keyword parameters: "
            "write step(state, control, *, parameters)."
        )
    return wrapped


def solver_of(solver: Simulator | Callable[..., Tree], parameters: Mapping[str, Any]) -> Simulator:
    """A simulator, or a step function whose parameters, if it takes any, differ between trajectories.

    Raises:
        UsageError: for anything else.
    """
    if isinstance(solver, Simulator):
        return solver
    if not callable(solver):
        raise UsageError(
            f"a solver is a Simulator or a function step(state, control); found {type(solver).__name__}."
        )
    plain = FunctionSimulator(solver)
    return replace(plain, defaults=dict(parameters)) if "parameters" in plain.keywords else plain


def checked_state(initial_state: Tree) -> Tree:
    """The initial state as a tree of finite floating-point tensors with one scenario axis."""
    if initial_state is None or not tree.leaves(initial_state):
        raise UsageError("initial_state is empty; give a tensor (scenarios, ...), or a dict of such tensors.")
    try:
        state = tree.map(torch.as_tensor, initial_state)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UsageError(
            f"initial_state must be made of tensors or arrays; found {tree.describe(initial_state)}."
        ) from error
    for path, leaf in tree.named_leaves(state):
        where = f"initial_state{path}"
        if not leaf.is_floating_point():
            raise UsageError(
                f"{where} has dtype {str(leaf.dtype).removeprefix('torch.')}; states are floating point: call .float() "
                "or .double() on it."
            )
        if leaf.ndim < 1 or len(leaf) < 1:
            raise UsageError(
                f"{where} has shape {tuple(leaf.shape)}; the leading axis is the scenario axis, of length 1 or more: "
                "add it with state[None]."
            )
        if not bool(torch.isfinite(leaf).all()):
            bad = int((~torch.isfinite(leaf)).sum())
            raise UsageError(f"{where} has {bad} entries that are not finite; start from finite numbers.")
    return state
