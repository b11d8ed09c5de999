"""Any step as a kernel: a few steps, and their vector-Jacobian product, each compiled as one small graph.

The graphs are traced by ``make_fx`` and compiled by inductor, without the front end of ``torch.compile``: its guards
cost 20 microseconds at every call, as much as a small step itself. What guards would watch, shapes and everything that
is not a tensor, is the key under which graphs are remembered. Several steps go into one graph because a call costs as
much as a small step; the state behind each is an output, so that no step is computed again inside of the next one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from dpcontrol import tree
from dpcontrol.kernels.base import Kernel, Pulled, Wanted
from dpcontrol.kernels.graphs import Graphs, Leaves, smooth
from dpcontrol.results import UsageError
from dpcontrol.tree import Tree

StepFunction = Callable[[Tree, Tree, Tree, Any], Tree]
TOGETHER = 4  # steps in one graph, at most
FILLED = 4  # a batch is filled up to that many times its size, with what is thrown away, rather than compiled afresh


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
        sums = [torch.zeros_like(leaf) for leaf in batch.fixed if smooth(leaf)] if wanted.coefficients else []
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
        marked = [
            (i, mark) for i, mark in zip(self._used, self.marks, strict=True) if smooth(self._constants[i])
        ]
        for (i, mark), leaf in zip(marked, sums, strict=True):
            found[i] = self.cut(leaf, 0) if mark else leaf
        return self._build_coefficients(found)


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
