"""What simulators look at before a rollout starts: shapes, names of boundaries, and whether numbers may be read."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from dpcontrol.results import UsageError
from dpcontrol.sim.base import Value
from dpcontrol.tree import Tree, describe


def readable(*tensors: Tensor) -> bool:
    """Whether these tensors are plain data, whose numbers a check may read and judge.

    Not so for tensors inside ``torch.func`` transforms (they have no numbers to read), while compiling, and for
    tensors that require a gradient: those are candidates that somebody is searching among, and a bad candidate shall
    have a bad loss rather than end the search.
    """
    if torch.compiler.is_compiling():
        return False
    wrapped = torch._C._functorch.is_functorch_wrapped_tensor
    return not any(wrapped(tensor) or tensor.requires_grad for tensor in tensors)


def same_as_defaults(parameters: Mapping[str, Tensor], defaults: Mapping[str, Value]) -> bool:
    """Whether readable parameters are the simulator's own (up to rounding to their dtype)."""
    return all(
        torch.equal(
            parameters[name],
            torch.as_tensor(value, dtype=parameters[name].dtype, device=parameters[name].device),
        )
        for name, value in defaults.items()
        if name in parameters
    )


def require_row_of_cells(state: Tree, fewest: int) -> None:
    """Refuse a state that is not a floating tensor ``(scenarios, cells)`` with at least ``fewest`` cells."""
    fine = isinstance(state, Tensor) and state.ndim == 2 and state.is_floating_point()
    if not fine or state.shape[1] < fewest:
        raise UsageError(
            f"the state of Burgers' equation is one floating tensor (scenarios, cells) with at least {fewest} cells; "
            f"found {describe(state)}: for one scenario pass state[None]."
        )


def require_shape(next_state: Tensor, state: Tensor, control: Tensor) -> None:
    """Refuse a control that does not act cell by cell."""
    if next_state.shape != state.shape:
        raise UsageError(
            f"the control acts in every cell, so that its shape is the state's, {tuple(state.shape)}; "
            f"found {tuple(control.shape)}."
        )


def require_extent(extent: object) -> None:
    """Refuse a domain that is not a pair of increasing finite numbers."""
    fine = (
        isinstance(extent, tuple) and len(extent) == 2 and all(isinstance(end, int | float) for end in extent)
    )
    if not fine or not (math.isfinite(extent[0]) and math.isfinite(extent[1]) and extent[0] < extent[1]):  # type: ignore[index]
        raise UsageError(
            f"extent is the pair (left end, right end) of the domain, left < right; found {extent!r}."
        )
