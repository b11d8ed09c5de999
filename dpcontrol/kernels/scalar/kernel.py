"""Runs of small steps through loops of scalar arithmetic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dpcontrol import tree
from dpcontrol.kernels.base import Kernel, Pulled, Wanted
from dpcontrol.kernels.native import in_threads
from dpcontrol.kernels.scalar.source import Loops
from dpcontrol.tree import Tree

PER_UPDATE = 10
"""Operations that cost as much as an update of a cell, to decide about threads."""
WORTH_A_CALL = 40
"""Operations of torch in a step, at least, for which calling the loops is cheaper."""


@dataclass(frozen=True)
class ScalarKernel(Kernel):
    """Whole runs of a small step, ``substeps`` in each, as one loop over steps and scenarios.

    ``axes`` are those of each coefficient where scenarios differ in it. Kept are the states; on the way back a step is
    computed again as far as its derivative needs it. Compiled at the first run and at the first gradient, in about a
    millisecond an operation.
    """

    loops: Loops
    dt: float
    axes: tuple[int, ...]
    substeps: int = 1

    @property
    def single_steps(self) -> bool:
        return self.loops.program.calls * self.substeps >= WORTH_A_CALL

    def repeated(self, count: int) -> Kernel:
        return replace(self, substeps=self.substeps * count)

    def axes_per_scenario(self, state: Tree, coefficients: Tree) -> list[int | None]:
        return list(self.axes)

    def run(self, state: Tree, inputs: Tree, coefficients: Tree, steps: int, first: int) -> Tree:
        leaves, like_state = tree.split_tensors(state)
        states = self._states(leaves, *self._given(inputs, coefficients, leaves), steps, first)
        return like_state(_parts(states[self.substeps - 1 :: self.substeps], leaves, 1))

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
        leaves, like_state = tree.split_tensors(state)
        sequences, like_inputs = tree.split_tensors(inputs)
        constants, like_coefficients = tree.split_tensors(coefficients)
        acting, given = self._given(inputs, coefficients, leaves)
        path, above = (_flat(tree.leaves(part), 2) for part in (states, cotangents))
        steps, scenarios, size = above.shape
        if self.substeps > 1:
            path = self._states(leaves, acting, given, steps, first)
            ends, above = above, above.new_zeros(path.shape)
            above[self.substeps - 1 :: self.substeps] = ends
        of_state = path.new_zeros(scenarios, size)
        of_inputs, of_given = torch.zeros_like(acting), torch.zeros_like(given)
        start = _flat(leaves, 1)
        arrays = [leaf.numpy() for leaf in (start, path, acting, given)]
        written = [leaf.numpy() for leaf in (above, of_state, of_inputs, of_given)]

        def call(begin: int, end: int) -> None:
            self.loops.pull(*arrays, self._clock(first), *written, begin, end)

        in_threads(call, scenarios, 1, 3 * self._updates(path))
        return Pulled(
            like_state(_parts(of_state, leaves, 1)),
            like_inputs(_parts(of_inputs, sequences, 2)) if wanted.inputs and sequences else None,
            like_coefficients(self._like(of_given, constants)) if wanted.coefficients else None,
        )

    def _states(self, leaves: list[Tensor], acting: Tensor, given: Tensor, steps: int, first: int) -> Tensor:
        """Behind every substep, ``(steps * substeps, scenarios, numbers)``."""
        run, start = self.loops.run, _flat(leaves, 1)
        states = start.new_empty(steps * self.substeps, *start.shape)
        arrays = [leaf.numpy() for leaf in (start, acting, given)]

        def call(begin: int, end: int) -> None:
            run(*arrays, self._clock(first), states.numpy(), begin, end)

        in_threads(call, len(start), 1, self._updates(states))
        return states

    def _clock(self, first: int) -> tuple[int, int, float]:
        return first * self.substeps, self.substeps, self.dt

    def _updates(self, states: Tensor) -> int:
        return len(self.loops.program.book.nodes) * states.shape[0] * states.shape[1] // PER_UPDATE

    def _given(self, inputs: Tree, coefficients: Tree, leaves: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Inputs ``(steps, scenarios, numbers)`` and coefficients ``(scenarios, numbers)``."""
        scenarios = len(leaves[0])
        sequences = tree.split_tensors(inputs)[0]
        acting = _flat(sequences, 2) if sequences else leaves[0].new_zeros(1, scenarios, 1)
        constants = tree.split_tensors(coefficients)[0]
        if not any(map(_own, constants, self.axes)):
            shared = [leaf.reshape(-1) for leaf in constants] or [leaves[0].new_zeros(1)]
            return acting, torch.cat(shared).expand(scenarios, -1).contiguous()
        rows = [
            leaf.reshape(scenarios if _own(leaf, axes) else 1, -1).expand(scenarios, -1)
            for leaf, axes in zip(constants, self.axes, strict=True)
        ]
        return acting, torch.cat(rows, 1)

    def _like(self, of_given: Tensor, constants: list[Tensor]) -> list[Tensor]:
        """Gradients of the coefficients from those of each scenario."""
        found, place = [], 0
        for leaf, axes in zip(constants, self.axes, strict=True):
            own = _own(leaf, axes)
            count = leaf[0].numel() if own else leaf.numel()
            part = of_given[:, place : place + count]
            found.append((part if own else part.sum(0)).reshape(leaf.shape))
            place += count
        return found


def _own(leaf: Tensor, axes: int) -> bool:
    """Whether a coefficient has a row for each scenario."""
    return leaf.ndim == axes and len(leaf) > 1


def _flat(leaves: Sequence[Tensor], axes: int) -> Tensor:
    """Leaves as one tensor with a last axis of numbers behind their leading ``axes``; contiguous."""
    parts = [
        leaf.detach().flatten(axes) if leaf.ndim > axes else leaf.detach().unsqueeze(-1) for leaf in leaves
    ]
    return (torch.cat(parts, -1) if len(parts) > 1 else parts[0]).contiguous()


def _parts(flat: Tensor, like: Sequence[Tensor], axes: int) -> list[Tensor]:
    """The inverse: leaves with the shapes of others behind their leading ``axes``."""
    shapes = [leaf.shape[axes:] for leaf in like]
    parts = flat.split([math.prod(shape) for shape in shapes], -1)
    return [part.reshape(*flat.shape[:-1], *shape) for part, shape in zip(parts, shapes, strict=True)]
