"""Any step as a kernel: a few steps, and their vector-Jacobian product, each compiled as one small graph.

The graphs are traced by ``make_fx`` and compiled by inductor, without the front end of ``torch.compile``: its guards
cost 20 microseconds at every call, as much as a small step itself. What guards would watch, shapes and everything that
is not a tensor, is the key under which graphs are remembered. Several steps go into one graph because a call costs as
much as a small step; the state behind each is an output, so that no step is computed again inside of the next one.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from dpcontrol import tree
from dpcontrol.kernels.base import Kernel, Pulled, Wanted
from dpcontrol.results import UsageError
from dpcontrol.tree import Tree

Leaves = list[Tensor]
Graph = Callable[[Leaves], Any]
StepFunction = Callable[[Tree, Tree, Tree, Any], Tree]
TOGETHER = 4  # steps in one graph, at most
FILLED = 4  # a batch is filled up to that many times its size, with what is thrown away, rather than compiled afresh
RULE = (
    "a compiled step is made of torch operations and looks at no numbers (no .item(), no if on a tensor or on t): "
    "leave out compile=True."
)
logger = logging.getLogger(__name__)


@dataclass
class Compilations:
    """What one simulator has compiled: by what is the same for every batch, then by its number of scenarios.

    A copy for another process starts empty.
    """

    families: dict[Hashable, dict[int, Graphs]] = field(default_factory=dict)
    lock: Any = field(default_factory=threading.RLock)

    def __reduce__(self) -> tuple[Any, tuple[()]]:
        return Compilations, ()

    @property
    def count(self) -> int:
        """Number of sets of shapes that were compiled for."""
        return sum(len(sizes) for sizes in self.families.values())


@dataclass(frozen=True)
class CompiledKernel(Kernel):
    """``step(state, (control, noise), coefficients, t) -> state``, compiled when it is first run with its shapes.

    ``per_scenario`` says of each tensor among the coefficients whether its leading axis is that of the scenarios;
    ``None`` where nobody knows: then every number of scenarios is compiled for by itself.

    Raises:
        UsageError: when run, if the step cannot be traced or compiled.
    """

    step: StepFunction
    dt: float
    compilations: Compilations
    per_scenario: tuple[bool, ...] | None = None

    def axes_per_scenario(self, state: Tree, coefficients: Tree) -> list[int | None] | None:
        if self.per_scenario is None:
            return None
        tensors = tree.split_tensors(coefficients)[0]
        return [leaf.ndim if mark else None for leaf, mark in zip(tensors, self.per_scenario, strict=True)]

    def run(self, state: Tree, inputs: Tree, coefficients: Tree, steps: int, first: int) -> Tree:
        batch = _Batch(self, state, inputs, coefficients, steps, first)
        call, here, states = batch.graphs.steps(batch.together), batch.state, []
        for rows, times in zip(batch.rows, batch.times, strict=True):
            # contiguous at once: a graph is compiled for the strides of its arguments
            found = [leaf.contiguous() for leaf in call([*here, *rows, *batch.fixed, *times])]
            each = [found[i : i + len(here)] for i in range(0, len(found), len(here))]
            states += each
            here = each[-1]
        columns = zip(*states[:steps], strict=True)
        return batch.like_state([batch.cut(torch.stack(column), 1) for column in columns])

    def pull(
        self,
        state: Tree,
        states: Tree,
        inputs: Tree,
        coefficients: Tree,
        cotangents: Tree,
        wanted: Wanted,
        first: int,
    ) -> Pulled:
        steps = len(tree.leaves(states)[0])
        batch = _Batch(self, state, inputs, coefficients, steps, first)
        call, together = batch.graphs.pull(batch.together, wanted), batch.together
        path = [
            torch.cat([head[None], batch.fill(leaf, 1)[:-1]])
            for head, leaf in zip(batch.state, tree.leaves(states), strict=True)
        ]
        before = batch.chunks(path)
        above = batch.chunks(
            [batch.fill(leaf, 1, zeros=True) for leaf in tree.leaves(cotangents)], zeros=True
        )
        carried = [torch.zeros_like(leaf) for leaf in batch.state]
        sums = (
            [torch.zeros_like(leaf) for leaf in batch.fixed if _smooth(leaf)] if wanted.coefficients else []
        )
        width, acting = len(carried), len(batch.rows[0]) if wanted.inputs else 0
        of_rows: list[Leaves] = []
        for states_here, rows, times, given in reversed(
            list(zip(before, batch.rows, batch.times, above, strict=True))
        ):
            found = [
                leaf.contiguous()
                for leaf in call([*states_here, *rows, *batch.fixed, *times, *given, *carried, *sums])
            ]
            carried, sums = found[:width], found[width : width + len(sums)]
            own = found[width + len(sums) : width + len(sums) + acting * together]
            of_rows += [own[i : i + acting] for i in range(0, len(own), acting)] if acting else []
        columns = zip(*of_rows[::-1][:steps], strict=True)
        return Pulled(
            batch.like_state([batch.cut(leaf, 0) for leaf in carried]),
            batch.like_inputs([batch.cut(torch.stack(column), 1) for column in columns]) if acting else None,
            batch.like_coefficients(sums) if wanted.coefficients else None,
        )


class _Batch:
    """The arguments of one run as flat lists, filled up to the number of scenarios that graphs were compiled for."""

    def __init__(
        self, kernel: CompiledKernel, state: Tree, inputs: Tree, coefficients: Tree, steps: int, first: int
    ) -> None:
        leaves, self.like_state = tree.split_tensors(state)
        sequences, self.like_inputs = tree.split_tensors(inputs)
        constants, self._build_coefficients = tree.split_tensors(coefficients)
        marks = kernel.per_scenario
        self.count = self.size = len(leaves[0])
        rows = [leaf[0] for leaf in sequences]
        exact = self.count if marks is None else None
        marks = marks or (False,) * len(constants)
        key = exact, _key(leaves, rows, constants, marks, (state, inputs, coefficients))
        with kernel.compilations.lock:
            sizes = kernel.compilations.families.setdefault(key, {})
            fitting = [size for size in sizes if self.count <= size <= FILLED * self.count]
            self.size = min(fitting, default=self.count)
            if not fitting:
                examples = leaves, rows, constants
                builds = self.like_state, self.like_inputs, self._build_coefficients
                sizes[self.count] = Graphs(kernel, examples, builds)
            self.graphs = sizes[self.size]
        self._constants, self._used = constants, self.graphs.used
        self.state = [self.fill(leaf, 0) for leaf in leaves]
        self.steps, self.together = steps, min(TOGETHER, steps)
        self.rows = self.chunks([self.fill(leaf, 1) for leaf in sequences])
        self.fixed = [
            self.fill(constants[i], 0) if marks[i] else constants[i].contiguous() for i in self._used
        ]
        self.marks = [marks[i] for i in self._used]
        # in double precision, as the number would be; a tensor without axes does not change the dtype of others
        moments = torch.arange(first, first + steps, dtype=torch.float64, device=leaves[0].device) * kernel.dt
        self.times = self.chunks([moments] if self.graphs.timed else [])

    def chunks(self, sequences: Leaves, *, zeros: bool = False) -> list[Leaves]:
        """Leaves ``(steps, ...)`` in pieces for one call each; copies of the last row, or zeros, fill up the last."""
        count = -(-self.steps // self.together)
        missing = count * self.together - self.steps
        if missing:
            ends = [torch.zeros_like(leaf[-1:]) if zeros else leaf[-1:] for leaf in sequences]
            sequences = [
                torch.cat([leaf, end.expand(missing, *leaf.shape[1:])])
                for leaf, end in zip(sequences, ends, strict=True)
            ]
        if not sequences:
            return [[] for _ in range(count)]
        return [list(row) for row in zip(*(leaf.split(self.together) for leaf in sequences), strict=True)]

    def fill(self, leaf: Tensor, axis: int, *, zeros: bool = False) -> Tensor:
        """More scenarios: copies of the first, or zeros."""
        if self.size == self.count:
            return leaf.contiguous()
        one = leaf.narrow(axis, 0, 1)
        one = torch.zeros_like(one) if zeros else one
        shape = [*leaf.shape[:axis], self.size - self.count, *leaf.shape[axis + 1 :]]
        return torch.cat([leaf, one.expand(shape)], axis)

    def cut(self, leaf: Tensor, axis: int) -> Tensor:
        """The scenarios that were asked for."""
        return leaf if self.size == self.count else leaf.narrow(axis, 0, self.count)

    def like_coefficients(self, sums: Leaves) -> Tree:
        """Gradients of the coefficients, ``None`` for those that the step does not look at."""
        found: list[Tensor | None] = [None] * len(self._constants)
        smooth = [
            (i, mark) for i, mark in zip(self._used, self.marks, strict=True) if _smooth(self._constants[i])
        ]
        for (i, mark), leaf in zip(smooth, sums, strict=True):
            found[i] = self.cut(leaf, 0) if mark else leaf
        return self._build_coefficients(found)


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
                sums = [leaf for leaf in fixed if _smooth(leaf)] if wanted.coefficients else []
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
        places = [i for i, leaf in enumerate(fixed) if _smooth(leaf)] if wanted.coefficients else []
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


def _smooth(leaf: Tensor) -> bool:
    return leaf.is_floating_point() or leaf.is_complex()


def _key(
    state: Leaves, rows: Leaves, constants: Leaves, marks: tuple[bool, ...], trees: tuple[Tree, ...]
) -> Hashable:
    """All that a graph depends on beside the number of scenarios."""

    def of(leaf: Tensor, mark: bool) -> Hashable:
        return (tuple(leaf.shape[1:] if mark else leaf.shape), mark, leaf.dtype, leaf.device)

    shells = tuple(tree.shell(part)[1] for part in trees)
    key = (shells, *(of(leaf, True) for leaf in (*state, *rows)), *map(of, constants, marks))
    try:
        hash(key)
    except TypeError as error:
        raise UsageError(
            f"the step cannot be compiled: what it is given is more than tensors, numbers and names ({error}): make it "
            "tensors, or leave out compile=True."
        ) from error
    return key
