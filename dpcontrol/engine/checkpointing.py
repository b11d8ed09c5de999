"""One autograd Function around the whole loop: states are stored, the inside of steps is not.

First order: raw calls of each step's vector-Jacobian product. Everything else (``torch.func`` transforms, forward mode,
second derivatives) goes through ``torch.func.vjp`` and ``jvp`` of the same step, so that all of it composes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dpcontrol import tree
from dpcontrol.engine.gradients import Checkpointed
from dpcontrol.engine.memory import physical_bytes
from dpcontrol.engine.schedule import Plan, plan, split
from dpcontrol.results import UsageError
from dpcontrol.tree import Tree

Leaves = tuple[Tensor, ...]


@dataclass
class Loop:
    """The loop over flat tuples of tensors, and where its parts stand among the Function's inputs and outputs."""

    step: Callable[[Leaves, Leaves, Leaves, int], tuple[Leaves, Leaves]]
    plan: Plan
    carries: int
    rows: int
    outputs: int = 0

    def parts(self, tensors: tuple[Any, ...]) -> tuple[tuple[Any, ...], tuple[Any, ...], tuple[Any, ...]]:
        """Carry, inputs and constants out of the Function's inputs."""
        a, b = self.carries, self.carries + self.rows
        return tensors[:a], tensors[a:b], tensors[b:]

    def results(
        self, tensors: tuple[Any, ...]
    ) -> tuple[tuple[Any, ...], tuple[Any, ...], list[tuple[Any, ...]]]:
        """Last carry, stacked outputs and kept states out of the Function's outputs."""
        a, b = self.carries, self.carries + self.outputs
        kept = tensors[b:]
        return tensors[:a], tensors[a:b], [kept[i : i + a] for i in range(0, len(kept), a)]


def checkpointed_scan(
    body: Callable[[Tree, Tree, Tree, int], tuple[Tree, Tree]],
    carry: Tree,
    inputs: Tree,
    length: int,
    constants: Tree,
    mode: Checkpointed,
) -> tuple[Tree, Tree]:
    """See :func:`dpcontrol.engine.scan.scan`. Every tensor that requires a gradient must come in by an argument.

    Raises:
        UsageError: if the body uses a tensor that requires a gradient and did not come in by an argument, or draws
            random numbers.
    """
    flat_carry, build_carry = tree.split_tensors(carry)
    flat_inputs, build_inputs = tree.split_tensors(inputs)
    flat_constants, build_constants = tree.split_tensors(constants)
    shape: dict[str, Any] = {}

    def step(c: Leaves, row: Leaves, fixed: Leaves, k: int) -> tuple[Leaves, Leaves]:
        after, output = body(build_carry(c), build_inputs(row), build_constants(fixed), k)
        leaves, shape["carry"] = tree.split_tensors(after)
        out, shape["output"] = tree.split_tensors(output)
        return tuple(leaves), tuple(out)

    size = physical_bytes(flat_carry)
    loop = Loop(step, plan(length, mode.states(size, length)), len(flat_carry), len(flat_inputs))
    _refuse_captured(loop, flat_carry, flat_inputs, flat_constants)
    found = _Scan.apply(loop, *flat_carry, *flat_inputs, *flat_constants)
    last, outputs, _ = loop.results(found)
    return shape["carry"](last), shape["output"](outputs) if outputs else None


def _refuse_captured(loop: Loop, carry: list[Tensor], inputs: list[Tensor], constants: list[Tensor]) -> None:
    """Run one step on constants: if its result still requires a gradient, a tensor came in by the back door.

    And if it draws random numbers, it would draw others when it is run again.
    """
    if not torch.is_grad_enabled():
        return
    watched = torch._C._len_torch_dispatch_stack() == 0  # a mode that traces has no numbers to look at
    drawn = torch.get_rng_state() if watched else None
    row = tuple(leaf[0].detach() for leaf in inputs)
    after, out = loop.step(tuple(c.detach() for c in carry), row, tuple(c.detach() for c in constants), 0)
    if any(leaf.requires_grad for leaf in (*after, *out)):
        raise UsageError(
            "a step of a checkpointed loop uses a tensor that requires a gradient but is no argument of the loop, and "
            "would silently get none: pass it through parameters, scenarios or the unknown, or use Full()."
        )
    if drawn is not None and not torch.equal(torch.get_rng_state(), drawn):
        torch.set_rng_state(drawn)
        raise UsageError(
            "a step of a checkpointed loop draws random numbers (dropout in training mode?), and would draw others "
            "when it is run again on the way back: pass them in as noise, put networks into eval(), or use Full()."
        )


class _Scan(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(loop: Loop, *tensors: Tensor) -> tuple[Tensor, ...]:
        carry, inputs, constants = loop.parts(tensors)
        rows = [leaf.unbind(0) for leaf in inputs]
        keep_at, outputs = set(loop.plan.bounds[1:-1]), []
        # no output may be an input itself, nor another output: autograd would take it for one changed in place
        given = {id(tensor) for tensor in tensors}
        kept: list[Tensor] = []
        for k in range(loop.plan.steps):
            if k in keep_at:
                kept.extend(_own(carry, given))
            carry, out = loop.step(carry, tuple(row[k] for row in rows), constants, k)
            outputs.append(out)
        stacked = tuple(torch.stack(column) for column in zip(*outputs, strict=True))
        loop.outputs = len(stacked)
        return (*_own(carry, given), *stacked, *kept)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        loop, *tensors = inputs
        ctx.loop = loop
        _, _, kept = loop.results(output)
        saved = (*tensors, *(leaf for state in kept for leaf in state))
        ctx.save_for_backward(*saved)
        ctx.save_for_forward(*tensors)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        return (None, *_Backward(ctx.loop, ctx.saved_tensors, cotangents, ctx.needs_input_grad[1:]).run())

    @staticmethod
    def jvp(ctx: Any, _: None, *tangents: Tensor | None) -> tuple[Tensor, ...]:
        loop, tensors = ctx.loop, ctx.saved_tensors
        full = tuple(torch.zeros_like(x) if t is None else t for x, t in zip(tensors, tangents, strict=True))
        carry, inputs, constants = loop.parts(tensors)
        moved, moved_inputs, moved_constants = loop.parts(full)
        keep_at, outputs = set(loop.plan.bounds[1:-1]), []
        kept: list[Tensor] = []
        for k in range(loop.plan.steps):
            if k in keep_at:
                kept.extend(moved)
            row, moved_row = (tuple(leaf[k] for leaf in side) for side in (inputs, moved_inputs))
            values, along = torch.func.jvp(
                lambda c, r, f, k=k: loop.step(c, r, f, k),
                (carry, row, constants),
                (moved, moved_row, moved_constants),
            )[:2]
            (carry, _), (moved, out) = values, along
            outputs.append(out)
        return (*moved, *(torch.stack(column) for column in zip(*outputs, strict=True)), *kept)


class _Backward:
    """One sweep back: the cotangent of the carry from the last state to the first, gradients gathered on the way."""

    def __init__(
        self, loop: Loop, saved: tuple[Tensor, ...], cotangents: tuple[Any, ...], wanted: tuple[bool, ...]
    ) -> None:
        count = loop.carries + loop.rows + self._constants(loop, saved)
        self.loop = loop
        self.carry, inputs, self.constants = loop.parts(saved[:count])
        kept = saved[count:]
        self.kept = [kept[i : i + loop.carries] for i in range(0, len(kept), loop.carries)]
        self.rows = [leaf.unbind(0) for leaf in inputs]
        self.inputs = inputs
        self.last, self.outputs, self.on_kept = loop.results(cotangents)
        self.cotangent: tuple[Tensor | None, ...] = self.last
        self.of_inputs: list[list[Tensor | None]] = [[None] * loop.plan.steps for _ in inputs]
        self.of_constants: list[Tensor | None] = [None] * len(self.constants)
        _, self.wants_inputs, self.wants_constants = loop.parts(wanted)

    @staticmethod
    def _constants(loop: Loop, saved: tuple[Tensor, ...]) -> int:
        kept = (len(loop.plan.bounds) - 2) * loop.carries
        return len(saved) - kept - loop.carries - loop.rows

    def run(self) -> tuple[Tensor | None, ...]:
        edges = self.loop.plan.bounds
        starts = [self.carry, *self.kept]
        for segment in reversed(range(len(edges) - 1)):
            self._reverse(starts[segment], edges[segment], edges[segment + 1], self.loop.plan.working + 1)
            if segment > 0:
                self.cotangent = _add(self.cotangent, self.on_kept[segment - 1])
        inputs = [
            self._stacked(column, like) for column, like in zip(self.of_inputs, self.inputs, strict=True)
        ]
        return (*self.cotangent, *inputs, *self.of_constants)

    def _reverse(self, state: Leaves, begin: int, end: int, states: int) -> None:
        """Reverse steps ``begin .. end - 1`` from their first state, with ``states`` states to store, it included."""
        while end - begin > 1:
            middle, there = begin + (split(end - begin, states) if states > 1 else end - begin - 1), state
            for k in range(begin, middle):
                there, _ = self._plain(there, k)
            self._reverse(there, middle, end, max(states - 1, 1))
            end = middle
        self._vjp(state, begin)

    def _plain(self, state: Leaves, k: int) -> tuple[Leaves, Leaves]:
        return self.loop.step(state, tuple(row[k] for row in self.rows), self.constants, k)

    def _vjp(self, state: Leaves, k: int) -> None:
        row = tuple(column[k] for column in self.rows)
        above = (*self.cotangent, *(None if c is None else c[k] for c in self.outputs))
        if all(c is None for c in above):
            self.cotangent = tuple(None for _ in state)
            return
        found = (
            self._raw(state, row, above, k)
            if self._is_first_order(above)
            else self._composable(state, row, above, k)
        )
        of_state, of_row, of_constants = self.loop.parts(found)
        self.cotangent = of_state
        for column, gradient in zip(self.of_inputs, of_row, strict=True):
            column[k] = gradient
        self.of_constants = list(_add(tuple(self.of_constants), of_constants))

    def _is_first_order(self, above: tuple[Tensor | None, ...]) -> bool:
        if torch.is_grad_enabled():
            return False
        wrapped = torch._C._functorch.is_functorch_wrapped_tensor
        everything = (*self.carry, *self.inputs, *self.constants, *(c for c in above if c is not None))
        return not any(wrapped(leaf) for leaf in everything)

    def _raw(
        self, state: Leaves, row: Leaves, above: tuple[Tensor | None, ...], k: int
    ) -> tuple[Tensor | None, ...]:
        """The step's vector-Jacobian product by a graph of this step alone."""
        wanted = (*(True for _ in state), *self.wants_inputs, *self.wants_constants)
        with torch.enable_grad():
            arguments = [
                leaf.detach().requires_grad_(want and (leaf.is_floating_point() or leaf.is_complex()))
                for leaf, want in zip((*state, *row, *self.constants), wanted, strict=True)
            ]
            after, out = self.loop.step(*self.loop.parts(tuple(arguments)), k)
        pairs = [
            (y, c) for y, c in zip((*after, *out), above, strict=True) if c is not None and y.requires_grad
        ]
        active = [leaf for leaf in arguments if leaf.requires_grad]
        if not pairs or not active:
            return tuple(None for _ in arguments)
        ys, cs = zip(*pairs, strict=True)
        gradients = iter(torch.autograd.grad(ys, active, cs, allow_unused=True))
        return tuple(next(gradients) if leaf.requires_grad else None for leaf in arguments)

    def _composable(
        self, state: Leaves, row: Leaves, above: tuple[Tensor | None, ...], k: int
    ) -> tuple[Tensor, ...]:
        """The same, differentiable itself and under every ``torch.func`` transform."""

        def flat(*arguments: Tensor) -> tuple[Tensor, ...]:
            after, out = self.loop.step(*self.loop.parts(arguments), k)
            return (*after, *out)

        values, pull = torch.func.vjp(flat, *state, *row, *self.constants)[:2]
        return pull(
            tuple(torch.zeros_like(y) if c is None else c for y, c in zip(values, above, strict=True))
        )

    @staticmethod
    def _stacked(column: list[Tensor | None], like: Tensor) -> Tensor | None:
        if all(row is None for row in column):
            return None
        zero = torch.zeros_like(like[0])
        return torch.stack([zero if row is None else row for row in column])


def _own(tensors: Leaves, given: set[int]) -> Leaves:
    """The tensors, copied where they were given out before; notes that they now are."""
    own = tuple(leaf.clone() if id(leaf) in given else leaf for leaf in tensors)
    given.update(id(leaf) for leaf in own)
    return own


def _add(first: tuple[Tensor | None, ...], second: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
    return tuple(b if a is None else a if b is None else a + b for a, b in zip(first, second, strict=True))
