"""Runs through a kernel: one autograd Function around a whole loop, or around one step of a loop that must stop there.

Raw calls inside, no graph of any step. The eager definition stays the reference: second derivatives, forward mode and
every ``torch.func`` transform go through it, so that all of them work as if there were no kernel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dpcontrol import tree
from dpcontrol.kernels import Kernel, Wanted
from dpcontrol.tree import Tree

Step = Callable[[Tree, Tree, Tree, int], Tree]


@dataclass(frozen=True)
class Run:
    """A run of ``steps`` steps from step ``first``, and how to build its trees from flat tensors.

    ``step(state, (control, noise), coefficients, k)`` is the eager definition.
    """

    kernel: Kernel
    step: Step
    steps: int
    first: int
    build: tuple[Callable[[Any], Tree], Callable[[Any], Tree], Callable[[Any], Tree]]
    counts: tuple[int, int]

    def trees(self, tensors: tuple[Tensor, ...]) -> tuple[Tree, Tree, Tree]:
        """State, inputs and coefficients."""
        a, b = self.counts
        parts = tensors[:a], tensors[a : a + b], tensors[a + b :]
        state, inputs, coefficients = (make(part) for make, part in zip(self.build, parts, strict=True))
        return state, inputs, coefficients

    def raw(self, tensors: tuple[Tensor, ...]) -> Tree:
        """The states by the kernel."""
        state, inputs, coefficients = self.trees(tuple(leaf.detach() for leaf in tensors))
        return self.kernel.run(state, inputs, coefficients, self.steps, self.first)

    def eager(self, state: Tree, inputs: Tree, coefficients: Tree) -> Tree:
        """The states by the eager definition."""
        states = []
        for k, row in enumerate(tree.rows(inputs, self.steps), self.first):
            state = self.step(state, row, coefficients, k)
            states.append(state)
        return tree.stack(states)


def run_fused(
    kernel: Kernel, step: Step, state: Tree, inputs: Tree, coefficients: Tree, steps: int, *, first: int = 0
) -> Tree:
    """The states ``x_1 .. x_steps``, leaves ``(steps, scenarios, ...)``, differentiable.

    Args:
        kernel: the raw twin of ``step``.
        step: ``step(state, (control, noise), coefficients, k)``, the eager definition.
        state: ``x_0``, leaves ``(scenarios, ...)``.
        inputs: the pair ``(controls, noise)``, leaves ``(steps, scenarios, ...)`` or ``None``.
        coefficients: what the simulator prepared.
        steps: number of steps, at least one.
        first: number of the first step.
    """
    flat, build = zip(*(tree.split_tensors(part) for part in (state, inputs, coefficients)), strict=True)
    run = Run(kernel, step, steps, first, build, (len(flat[0]), len(flat[1])))
    tensors = tuple(leaf for part in flat for leaf in part)
    if not is_plain(tensors):
        return run.eager(state, inputs, coefficients)
    if not (torch.is_grad_enabled() and any(leaf.requires_grad for leaf in tensors)):
        return run.raw(tensors)
    if torch._C._are_functorch_transforms_active():  # of something else
        return run.eager(state, inputs, coefficients)
    return build[0](_Fused.apply(run, *tensors))


def run_fused_step(kernel: Kernel, step: Step, state: Tree, row: Tree, coefficients: Tree, k: int) -> Tree:
    """One step ``x_{k+1}``, leaves ``(scenarios, ...)``, differentiable; ``row`` is its pair ``(control, noise)``."""
    inputs = tree.map(lambda leaf: leaf[None], row)
    return tree.map(lambda leaf: leaf[0], run_fused(kernel, step, state, inputs, coefficients, 1, first=k))


def is_plain(tensors: Any) -> bool:
    """Whether no transform and no forward mode looks at these tensors."""
    wrapped = torch._C._functorch.is_functorch_wrapped_tensor
    if any(wrapped(leaf) for leaf in tensors):
        return False
    forward_mode = torch.autograd.forward_ad._current_level >= 0
    return not (
        forward_mode
        and any(torch.autograd.forward_ad.unpack_dual(leaf).tangent is not None for leaf in tensors)
    )


class _Fused(torch.autograd.Function):
    # Not the form with setup_context: it looks the signature up at every call (25 microseconds), and no transform
    # ever comes here.
    @staticmethod
    def forward(ctx: Any, run: Run, *tensors: Tensor) -> tuple[Tensor, ...]:
        output = tuple(tree.leaves(run.raw(tensors)))
        ctx.run = run
        ctx.save_for_backward(*tensors, *output)
        ctx.set_materialize_grads(False)
        return output

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        run: Run = ctx.run
        saved = ctx.saved_tensors
        count = len(saved) - run.counts[0]
        tensors, states = saved[:count], saved[count:]
        needed = ctx.needs_input_grad[1:]
        if all(c is None for c in cotangents):
            return (None,) * (1 + count)
        above = tuple(
            torch.zeros_like(y) if c is None else c for y, c in zip(states, cotangents, strict=True)
        )
        if torch.is_grad_enabled() or not is_plain((*tensors, *above)):
            return (None, *_through_eager(run, tensors, above, needed))
        a, b = run.counts
        wanted = Wanted(any(needed[a : a + b]), any(needed[a + b :]))
        state, inputs, coefficients = run.trees(tuple(leaf.detach() for leaf in tensors))
        found = run.kernel.pull(
            state, run.build[0](states), inputs, coefficients, run.build[0](above), wanted, run.first
        )
        gradients = (
            *_leaves_like(found.state, state),
            *_leaves_like(found.inputs, inputs),
            *_leaves_like(found.coefficients, coefficients),
        )
        return (None, *(g if need else None for g, need in zip(gradients, needed, strict=True)))


def _through_eager(
    run: Run, tensors: tuple[Tensor, ...], above: tuple[Tensor, ...], needed: tuple[bool, ...]
) -> tuple[Tensor | None, ...]:
    """The same product from the eager definition, itself differentiable."""
    with torch.enable_grad():
        # fresh leaves where the graph does not go on: autograd.grad asks for inputs that are part of a graph
        places = [i for i, need in enumerate(needed) if need]
        arguments = list(tensors)
        for i in places:
            arguments[i] = tensors[i] if tensors[i].requires_grad else tensors[i].detach().requires_grad_()
            arguments[i] = arguments[i].view_as(arguments[i])
        states = tree.leaves(run.eager(*run.trees(tuple(arguments))))
        found = torch.autograd.grad(
            states, [arguments[i] for i in places], above, create_graph=True, allow_unused=True
        )
    gradients: list[Tensor | None] = [None] * len(tensors)
    for i, gradient in zip(places, found, strict=True):
        gradients[i] = gradient
    return tuple(gradients)


def _leaves_like(found: Tree, reference: Tree) -> list[Tensor | None]:
    """The gradients that belong to the tensors of ``reference``, in their order."""
    if isinstance(reference, Tensor):
        return [found]
    if type(reference) is dict and type(found) is dict:
        return [leaf for name, like in reference.items() for leaf in _leaves_like(found[name], like)]
    if type(reference) in (tuple, list) and type(found) in (tuple, list):
        return [leaf for one, like in zip(found, reference, strict=True) for leaf in _leaves_like(one, like)]
    if reference is None:
        return []
    if found is None:
        return [None] * len(tree.split_tensors(reference)[0])
    pairs: list[Tensor | None] = []

    def note(like: Any, gradient: Any) -> Any:
        if isinstance(like, Tensor):
            pairs.append(gradient)
        return like

    tree.map(note, reference, found)
    return pairs
