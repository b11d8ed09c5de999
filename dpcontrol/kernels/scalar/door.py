"""Which steps become loops of scalar arithmetic: traced once for each set of shapes, compared with the eager step."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from dpcontrol import tree
from dpcontrol.kernels.base import Wanted
from dpcontrol.kernels.native import can_run
from dpcontrol.kernels.scalar.aten import Unsupported
from dpcontrol.kernels.scalar.kernel import ScalarKernel
from dpcontrol.kernels.scalar.source import Loops
from dpcontrol.kernels.scalar.tracing import Example, StepFunction, traced
from dpcontrol.tree import Tree

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3}
"""By how much the loops may differ from the eager step on random numbers, relative to the largest one."""
logger = logging.getLogger("dpcontrol.kernels.scalar")


@dataclass
class Traces:
    """What one simulator's step came to, by the shapes that it was called with: a kernel, or why there is none.

    A copy for another process starts empty.
    """

    known: dict[Hashable, ScalarKernel | str] = field(default_factory=dict)
    lock: Any = field(default_factory=threading.RLock)

    def __reduce__(self) -> tuple[Any, tuple[()]]:
        return Traces, ()

    @property
    def reasons(self) -> list[str]:
        """Why steps were not traced."""
        return [found for found in self.known.values() if isinstance(found, str)]


def scalar_kernel(
    traces: Traces,
    step: StepFunction,
    dt: float,
    state: Tree,
    row: Tree,
    coefficients: Tree,
    own: Callable[[Tensor], bool] = lambda leaf: False,
) -> ScalarKernel | None:
    """The kernel of ``step(state, (control, noise), coefficients, t)`` for data like these (one step's).

    Args:
        own: whether a coefficient is known to have a row for each scenario. Others of that length are tried as shared,
            with which a step of so many scenarios as theirs would not go wrong, then as theirs.
    """
    trees = state, row, coefficients
    if not can_run(trees):
        return None
    count = len(tree.leaves(state)[0])
    key = (
        *(_signature(part, 1) for part in (state, row)),
        _signature(coefficients, 0, lambda leaf: "own" if own(leaf) else len(leaf) == count),
    )
    try:
        hash(key)
    except TypeError:  # there is more in the coefficients than tensors, numbers and names
        return None
    with traces.lock:
        if key not in traces.known and count:
            # elsewhere no transform and no mode of the caller looks on
            with ThreadPoolExecutor(1) as pool:
                traces.known[key] = pool.submit(_found, step, dt, *_examples(trees, own)).result()
        found = traces.known.get(key)
    return found if isinstance(found, ScalarKernel) else None


def _signature(value: Any, hidden: int, rows: Callable[[Tensor], Any] = lambda leaf: True) -> Hashable:
    """All that a program depends on: shapes but for the axis of scenarios, dtypes, everything that is no tensor."""
    if isinstance(value, Tensor):
        kind = rows(value) if value.ndim else False
        return (value.shape[hidden or kind == "own" :], kind, value.dtype)
    if type(value) is dict:
        return tuple((name, _signature(part, hidden, rows)) for name, part in value.items())
    if type(value) in (tuple, list):
        return (type(value), *(_signature(part, hidden, rows) for part in value))
    if value is None or isinstance(value, (str, int, float)):
        return value
    tensors, shell = tree.shell(value)
    return (shell, *(_signature(leaf, hidden, rows) for leaf in tensors))


def _examples(trees: tuple[Tree, ...], own: Callable[[Tensor], bool]) -> tuple[Example, tuple[bool, ...]]:
    """Numbers to try, and which coefficients may be shared or have a row for each scenario."""
    flat, build = zip(*map(tree.split_tensors, trees), strict=True)
    state, row, coefficients = ([_example(leaf) for leaf in part] for part in flat)
    marks = tuple(map(own, flat[2]))
    doubtful = tuple(
        not mark and leaf.ndim > 0 and len(leaf) == len(state[0])
        for leaf, mark in zip(coefficients, marks, strict=True)
    )
    return Example(state, row, coefficients, build, marks), doubtful


def _example(leaf: Tensor) -> Tensor:
    """A tensor's numbers, or those of one candidate where a transform looks at it."""
    functorch = torch._C._functorch
    while functorch.is_functorch_wrapped_tensor(leaf):
        axis = functorch.maybe_get_bdim(leaf)
        leaf = functorch.get_unwrapped(leaf)
        leaf = leaf if axis < 0 else leaf.select(axis, 0)
    return leaf.detach()


def _found(step: StepFunction, dt: float, example: Example, doubtful: tuple[bool, ...]) -> ScalarKernel | str:
    """A kernel that equals the step, or the reason why there is none."""
    both = tuple(mark or doubt for mark, doubt in zip(example.own, doubtful, strict=True))
    reason = ""
    for own in dict.fromkeys((example.own, both)):
        tried = replace(example, own=own)
        try:
            kernel = ScalarKernel(
                Loops(traced(step, tried)),
                dt,
                tuple(leaf.ndim + (not mark) for leaf, mark in zip(example.coefficients, own, strict=True)),
            )
            _compare(kernel, step, tried)
        except Unsupported as error:
            reason = reason or str(error)
            continue
        logger.info(
            "a step of %d operations goes through loops of its own", len(kernel.loops.program.book.nodes)
        )
        return kernel
    logger.info("a step does not go through loops of its own: %s", reason)
    return reason


def _compare(kernel: ScalarKernel, step: StepFunction, example: Example) -> None:
    """One step by the loops and eagerly, values and gradients, on random numbers.

    Raises:
        Unsupported: if they differ.
    """
    generator = torch.Generator().manual_seed(0)

    def near(leaf: Tensor) -> Tensor:
        noise = torch.randn(leaf.shape, generator=generator, dtype=leaf.dtype)
        return leaf + 0.1 * noise * (1 + leaf.abs())

    like_state, like_row, like_coefficients = example.build
    for moved in (near, lambda leaf: near(torch.zeros_like(leaf)) * 10):
        x, u = ([moved(leaf).requires_grad_() for leaf in part] for part in (example.state, example.row))
        c = [near(leaf).requires_grad_() for leaf in example.coefficients]
        k = 3
        with torch.enable_grad():
            try:
                after = tree.leaves(step(like_state(x), like_row(u), like_coefficients(c), k * kernel.dt))
            except Exception as error:
                raise Unsupported(f"the step fails with {type(error).__name__} on random numbers") from error
            above = [torch.randn(leaf.shape, generator=generator, dtype=leaf.dtype) for leaf in after]
            if not any(leaf.requires_grad for leaf in after):
                raise Unsupported("a result that depends on nothing")
            wanted = torch.autograd.grad(after, [*x, *u, *c], above, materialize_grads=True)
        state, fixed = like_state(_detached(x)), like_coefficients(_detached(c))
        inputs = like_row([leaf.detach()[None] for leaf in u])
        states = kernel.run(state, inputs, fixed, 1, k)
        pulled = kernel.pull(
            state, states, inputs, fixed, like_state([leaf[None] for leaf in above]), Wanted(True, True), k
        )
        found = [
            *(leaf[0] for leaf in tree.leaves(states)),
            *tree.leaves(pulled.state),
            *(leaf[0] for leaf in tree.leaves(pulled.inputs)),
            *tree.leaves(pulled.coefficients),
        ]
        for one, other in zip(found, [*after, *wanted], strict=True):
            _require_alike(one, other.detach())


def _detached(leaves: list[Tensor]) -> list[Tensor]:
    return [leaf.detach() for leaf in leaves]


def _require_alike(found: Tensor, wanted: Tensor) -> None:
    tolerance = TOLERANCE[wanted.dtype]
    finite = torch.isfinite(wanted)
    scale = float(wanted[finite].abs().max()) if bool(finite.any()) else 1.0
    if not torch.allclose(found, wanted, rtol=tolerance, atol=tolerance * scale, equal_nan=True):
        raise Unsupported("loops that do not equal the step on random numbers")
