"""The graphs of a compiled step: traced once for each kind of arguments, differentiated, and handed to inductor."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dpcontrol import tree
from dpcontrol.kernels.base import Wanted
from dpcontrol.results import UsageError

if TYPE_CHECKING:
    from dpcontrol.kernels.compiled import CompiledKernel

Leaves = list[Tensor]
Graph = Callable[[Leaves], Any]
RULE = (
    "a compiled step is made of torch operations and looks at no numbers (no .item(), no if on a tensor or on t): "
    "leave out compile=True."
)
logger = logging.getLogger(__name__)


class Graphs:
    """What is compiled for one set of shapes, each when it is first asked for: some steps together, their adjoints."""

    def __init__(
        self, kernel: CompiledKernel, examples: tuple[Leaves, Leaves, Leaves], builds: tuple[Any, Any, Any]
    ) -> None:
        state, rows, constants = ([_sample(leaf) for leaf in part] for part in examples)
        like_state, like_row, like_coefficients = builds
        t = torch.zeros((), dtype=torch.float64)
        self._compilations = kernel.compilations
        self._steps: dict[int, Graph] = {}
        self._pulls: dict[tuple[int, Wanted], Graph] = {}

        def whole(x: Leaves, row: Leaves, fixed: Leaves, moment: Any) -> Leaves:
            after = kernel.step(like_state(x), like_row(row), like_coefficients(fixed), moment)
            return [leaf.contiguous() for leaf in tree.leaves(after)]

        sought = _asked(whole, (state, rows, constants, t))
        places = [node for node in sought.nodes if node.op == "placeholder"]
        looked_at = [bool(node.users) for node in places[len(state) + len(rows) :]]
        self.used = [i for i in range(len(constants)) if looked_at[i]]
        self.timed = looked_at[-1]

        def step(x: Leaves, row: Leaves, fixed: Leaves, moment: Leaves) -> Leaves:
            every = list(constants)
            for i, leaf in zip(self.used, fixed, strict=True):
                every[i] = leaf
            return whole(x, row, every, moment[0] if moment else 0.0)

        self._flat = step
        self._examples = state, rows, [constants[i] for i in self.used], [t] if self.timed else []

    def steps(self, together: int) -> Graph:
        """``[*state, *rows, *constants, *times] -> [*state after the first step, .. *state after the last]``.

        Rows and times have a leading axis of steps.
        """
        with self._compilations.lock:
            if together not in self._steps:
                state, rows, fixed, moment = self._examples
                examples = state, _repeated(rows, together), fixed, _repeated(moment, together)
                self._steps[together] = _compiled(f"{together} steps", self._in_turn(together), examples)
            return self._steps[together]

    def pull(self, together: int, wanted: Wanted) -> Graph:
        """``[*states, *rows, *constants, *times, *above, *carried, *sums] -> [*carried, *sums, *rows, ..]``.

        The gradients of rows come last row first. States (those that the steps begin with), rows, times and what comes
        from above have a leading axis of steps.
        """
        with self._compilations.lock:
            if (together, wanted) not in self._pulls:
                state, rows, fixed, moment = self._examples
                sums = [leaf for leaf in fixed if smooth(leaf)] if wanted.coefficients else []
                many, acting, moments = (_repeated(part, together) for part in (state, rows, moment))
                # tracing takes the same tensor for the same argument
                above, carried, sums = ([_sample(leaf) for leaf in part] for part in (many, state, sums))
                examples = many, acting, fixed, moments, above, carried, sums
                function = self._adjoint(together, wanted)
                self._pulls[together, wanted] = _compiled(
                    f"the adjoint of {together} steps", function, examples
                )
            return self._pulls[together, wanted]

    def _in_turn(self, together: int) -> Callable[..., Leaves]:
        def steps(x: Leaves, rows: Leaves, fixed: Leaves, moments: Leaves) -> Leaves:
            found = []
            for k in range(together):
                x = self._flat(x, _at(rows, k), fixed, _at(moments, k))
                found += x
            return found

        return steps

    def _adjoint(self, together: int, wanted: Wanted) -> Callable[..., Leaves]:
        def pull(
            states: Leaves,
            rows: Leaves,
            fixed: Leaves,
            moments: Leaves,
            above: Leaves,
            carried: Leaves,
            sums: Leaves,
        ) -> Leaves:
            of_rows, on_the_way = [], []
            for k in reversed(range(together)):
                cotangent = [a + c for a, c in zip(_at(above, k), carried, strict=True)]
                arguments = _at(states, k), _at(rows, k), fixed, _at(moments, k)
                carried, of_row, of_fixed = self._pulled(arguments, cotangent, wanted)
                sums = [s + g for s, g in zip(sums, of_fixed, strict=True)]
                of_rows += of_row
                on_the_way += carried
            # what is given out is computed once, which is wanted of the cotangents between the steps
            return [leaf.contiguous() for leaf in (*carried, *sums, *of_rows, *on_the_way)]

        return pull

    def _pulled(
        self, arguments: tuple[Leaves, Leaves, Leaves, Leaves], cotangent: Leaves, wanted: Wanted
    ) -> tuple[Leaves, Leaves, Leaves]:
        """Gradients of one step in its state, its row and the constants, as far as wanted."""
        state, row, fixed, moment = arguments
        places = [i for i, leaf in enumerate(fixed) if smooth(leaf)] if wanted.coefficients else []
        acting = row if wanted.inputs else []

        def of(x: Leaves, u: Leaves, some: Leaves) -> Leaves:
            every = list(fixed)
            for i, leaf in zip(places, some, strict=True):
                every[i] = leaf
            return self._flat(x, u if wanted.inputs else row, every, moment)

        found: tuple[Leaves, Leaves, Leaves] = torch.func.vjp(of, state, acting, [fixed[i] for i in places])[
            1
        ](cotangent)
        return found


def _at(rows: Leaves, k: int) -> Leaves:
    return [leaf[k] for leaf in rows]


def _repeated(row: Leaves, times: int) -> Leaves:
    return [leaf[None].expand(times, *leaf.shape).contiguous() for leaf in row]


def _asked(step: Callable[..., Leaves], arguments: tuple[Any, ...]) -> Any:
    """The graph of a step over tensors without numbers: what looks at numbers, or captures what it may not, is found.

    Raises:
        UsageError: if the step cannot be compiled.
    """
    try:
        graph = _traced(step, arguments, tracing_mode="fake", _allow_non_fake_inputs=True)
    except UsageError:
        raise
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        said = f"{type(error).__name__}: {(lines or [''])[0][:160]}"
        raise UsageError(f"the step cannot be compiled, tracing it failed with {said} - {RULE}") from error
    if any(node.target is torch.ops.aten._local_scalar_dense.default for node in graph.graph.nodes):
        raise UsageError(f"the step cannot be compiled, it makes a number out of a tensor - {RULE}")
    captured = [getattr(graph, node.target) for node in graph.graph.nodes if node.op == "get_attr"]
    if any(isinstance(leaf, Tensor) and leaf.requires_grad for leaf in captured):
        raise UsageError(
            "a compiled step uses a tensor that requires a gradient but is no argument of the step, and would silently "
            "get none: pass it through parameters or scenarios."
        )
    return graph.graph


def _traced(function: Callable[..., Leaves], arguments: tuple[Any, ...], **how: Any) -> Any:
    from torch.fx.experimental.proxy_tensor import make_fx

    tensors, build = tree.split_tensors(arguments)
    with torch.no_grad():
        return make_fx(lambda *leaves: function(*build(leaves)), **how)(*tensors)


def _compiled(what: str, function: Callable[..., Leaves], arguments: tuple[Any, ...]) -> Graph:
    from torch._inductor.compile_fx import compile_fx_inner
    from torch._inductor.decomposition import select_decomp_table

    begin = time.perf_counter()
    tensors, build = tree.split_tensors(arguments)
    # inductor wants graphs that change nothing in place
    pure = torch.func.functionalize(lambda *leaves: function(*build(leaves)))
    graph = _traced(lambda *leaves: pure(*leaves), tuple(tensors), decomposition_table=select_decomp_table())
    with torch.no_grad():
        found: Graph = compile_fx_inner(graph, tensors)
    shapes, seconds = tree.describe(arguments[0]), time.perf_counter() - begin
    logger.info("compiled %s for %s: %.1f s", what, shapes, seconds)
    return found


def _sample(leaf: Tensor) -> Tensor:
    """A tensor like a given one for tracing, without its history and laid out as arguments will be."""
    return leaf.detach().clone(memory_format=torch.contiguous_format)


def smooth(leaf: Tensor) -> bool:
    return leaf.is_floating_point() or leaf.is_complex()
