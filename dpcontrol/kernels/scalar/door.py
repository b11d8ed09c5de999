"""Which steps become loops of scalar arithmetic: traced once for each set of shapes, compared with the eager step."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
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
        own: whether a coefficient is known to have a row for each scenario. Others of that length are taken as shared
            first: a step that takes them for rows fails then, as it is traced with another number of scenarios.
    """
    first = tree.leaves(state)[0]
    count = len(first) if first.ndim else 0
    key = (
        _signature(state, lambda leaf: leaf.shape[:1] == (count,)),
        _signature(row, lambda leaf: leaf.shape[:1] == (count,)),
        _signature(coefficients, lambda leaf: _kind(leaf, own(leaf), count)),
    )
    try:
        hash(key)
    except TypeError:  # there is more in the coefficients than tensors, numbers and names
        return None
    with traces.lock:
        if key not in traces.known and count:
            trees = state, row, coefficients
            # elsewhere no transform and no mode of the caller looks on
            with ThreadPoolExecutor(1) as pool:
                traces.known[key] = pool.submit(_found, step, dt, trees, own).result()
        found = traces.known.get(key)
    return found if isinstance(found, ScalarKernel) else None


OWN, DOUBTFUL, SHARED, ODD = "own", "doubtful", "shared", "odd"


def _kind(leaf: Tensor, own: bool, count: int) -> str:
    """Whether a coefficient has rows for the scenarios, might have, has not, or others than they are."""
    if own:
        return OWN if leaf.ndim and len(leaf) in (1, count) else ODD
    return DOUBTFUL if leaf.ndim and len(leaf) == count else SHARED


def _signature(value: Any, kind: Callable[[Tensor], str | bool]) -> Hashable:
    """All that a program depends on: shapes but for rows of scenarios, dtypes, everything that is no tensor."""
    if isinstance(value, Tensor):
        found = kind(value)
        shape = value.shape[1:] if found is True or found is OWN else value.shape
        return (shape, found, value.dtype, value.device)
    if type(value) is dict:
        return tuple([(name, _signature(part, kind)) for name, part in value.items()])
    if type(value) is tuple or type(value) is list:
        return (type(value), *[_signature(part, kind) for part in value])
    if value is None or isinstance(value, (str, int, float)):
        return value
    tensors, shell = tree.shell(value)
    return (shell, *[_signature(leaf, kind) for leaf in tensors])


def _example(leaf: Tensor) -> Tensor:
    """A tensor's numbers, or those of one candidate where a transform looks at it."""
    functorch = torch._C._functorch
    while functorch.is_functorch_wrapped_tensor(leaf):
        axis = functorch.maybe_get_bdim(leaf)
        leaf = functorch.get_unwrapped(leaf)
        leaf = leaf if axis < 0 else leaf.select(axis, 0)
    return leaf.detach()


def _found(
    step: StepFunction, dt: float, trees: tuple[Tree, ...], own: Callable[[Tensor], bool]
) -> ScalarKernel | str:
    """A kernel that equals the step, or the reason why there is none."""
    if not can_run(trees):
        return "numbers of several precisions, complex ones, another device than the CPU, or no Numba"
    flat, build = zip(*map(tree.split_tensors, trees), strict=True)
    count = len(flat[0][0])
    kinds = [_kind(leaf, own(leaf), count) for leaf in flat[2]]
    if ODD in kinds or any(leaf.shape[:1] != (count,) for part in flat[:2] for leaf in part):
        return "data of another number of scenarios than there are"
    state, row, coefficients = ([_example(leaf) for leaf in part] for part in flat)
    reason = ""
    for chosen in dict.fromkeys(
        tuple(kind in marks for kind in kinds) for marks in ((OWN,), (OWN, DOUBTFUL))
    ):
        tried = Example(state, row, coefficients, build, chosen)
        try:
            kernel = ScalarKernel(
                Loops(traced(step, tried)),
                dt,
                tuple(leaf.ndim + (not mark) for leaf, mark in zip(coefficients, chosen, strict=True)),
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
    """One step by the loops and eagerly, values and gradients, on random numbers and at rest.

    At rest norms and angles have a kink, where autograd gives a derivative of its own and plain arithmetic none.

    Raises:
        Unsupported: if they differ.
    """
    generator = torch.Generator().manual_seed(0)

    def near(leaf: Tensor) -> Tensor:
        noise = torch.randn(leaf.shape, generator=generator, dtype=leaf.dtype)
        return leaf + 0.1 * noise * (1 + leaf.abs())

    like_state, like_row, like_coefficients = example.build
    for moved in (near, lambda leaf: near(torch.zeros_like(leaf)) * 10, torch.zeros_like):
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
        if any(leaf.dtype != like.dtype for leaf, like in zip(after, x, strict=True)):
            raise Unsupported("a step that returns another precision")
        for one, other in zip(found, [*after, *wanted], strict=True):
            _require_alike(one, other.detach())


def _detached(leaves: list[Tensor]) -> list[Tensor]:
    return [leaf.detach() for leaf in leaves]


def _require_alike(found: Tensor, wanted: Tensor) -> None:
    tolerance = TOLERANCE[wanted.dtype]
    finite = torch.isfinite(wanted)
    scale = float(wanted[finite].abs().max()) if bool(finite.any()) else 1.0
    if not torch.allclose(found, wanted, rtol=tolerance, atol=tolerance * scale, equal_nan=True):
        raise Unsupported("loops that do not equal the step on random numbers or at rest")
