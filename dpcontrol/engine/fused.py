"""Runs through a kernel: one autograd Function around a whole loop, or around one step of a loop that must stop there.

Raw calls inside, no graph of any step. The eager definition stays the reference: second derivatives, forward mode and
every ``torch.func`` transform but ``vmap`` go through it, so that all of them work as if there were no kernel. What
``vmap`` adds, a population of candidates, becomes more scenarios of one run where the kernel can take them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dpcontrol import tree
from dpcontrol.engine.runs import Differentiable, Population, Run, Step, Tensors
from dpcontrol.kernels import Kernel
from dpcontrol.tree import Tree


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
    tensors = tuple(leaf for part in flat for leaf in part)
    plain = is_plain(tensors)
    if plain and not any(leaf.requires_grad for leaf in flat[2]):
        # constants need not come and go with the graph, and kernels know them again by their identity
        build, tensors = (*build[:2], lambda _: coefficients), (*flat[0], *flat[1])
    run = Run(kernel, step, steps, first, build, (len(flat[0]), len(flat[1])))
    if plain:
        return build[0](_states(run, tensors))
    if _is_batched(tensors):
        return build[0](_OfCandidates.apply(run, *tensors))
    return build[0](run.eager(tensors))


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


def _is_batched(tensors: Tensors) -> bool:
    """Whether ``vmap`` alone looks at these tensors."""
    functorch, inside = torch._C._functorch, []
    for leaf in tensors:
        while functorch.is_batchedtensor(leaf):
            leaf = functorch.get_unwrapped(leaf)
        inside.append(leaf)
    return is_plain(inside)


def _states(run: Differentiable, tensors: Tensors) -> Tensors:
    """The states of a run as its kernel makes them, differentiable; eagerly where a transform is in the way."""
    if not (torch.is_grad_enabled() and any(leaf.requires_grad for leaf in tensors)):
        return run.raw(tensors)
    if torch._C._are_functorch_transforms_active():  # of something else
        return run.eager(tensors)
    found: Tensors = _Fused.apply(run, *tensors)
    return found


class _Fused(torch.autograd.Function):
    # Not the form with setup_context: it looks the signature up at every call (25 microseconds), and no transform
    # ever comes here.
    @staticmethod
    def forward(ctx: Any, run: Differentiable, *tensors: Tensor) -> Tensors:
        output = run.raw(tensors)
        ctx.run, ctx.count = run, len(tensors)
        ctx.save_for_backward(*tensors, *output)
        ctx.set_materialize_grads(False)
        return output

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        run: Differentiable = ctx.run
        tensors, states = ctx.saved_tensors[: ctx.count], ctx.saved_tensors[ctx.count :]
        needed = ctx.needs_input_grad[1:]
        if all(c is None for c in cotangents):
            return (None,) * (1 + ctx.count)
        above = tuple(
            torch.zeros_like(y) if c is None else c for y, c in zip(states, cotangents, strict=True)
        )
        if torch.is_grad_enabled() or not is_plain((*tensors, *above)):
            return (None, *_through_eager(run, tensors, above, needed))
        gradients = run.pull(tensors, states, above, needed)
        return (None, *(g if need else None for g, need in zip(gradients, needed, strict=True)))


class _OfCandidates(torch.autograd.Function):
    """The door through which ``vmap`` comes in: nothing but its rule is ever called."""

    @staticmethod
    def forward(run: Run, *tensors: Tensor) -> Tensors:
        return run.raw(tensors)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensors) -> None:
        pass

    @staticmethod
    def vmap(info: Any, dims: tuple[Any, ...], run: Run, *tensors: Tensor) -> tuple[Tensors, Any]:
        population = Population.of(run, info.batch_size, dims[1:], tensors)
        fast = population.foldable and is_plain(tensors)
        states = _states(population, tensors) if fast else population.eager(tensors)
        return states, (1,) * len(states)


def _through_eager(
    run: Differentiable, tensors: Tensors, above: Tensors, needed: tuple[bool, ...]
) -> Tensors | tuple[Tensor | None, ...]:
    """The same product from the eager definition, itself differentiable."""
    with torch.enable_grad():
        # fresh leaves where the graph does not go on: autograd.grad asks for inputs that are part of a graph
        places = [i for i, need in enumerate(needed) if need]
        arguments = list(tensors)
        for i in places:
            arguments[i] = tensors[i] if tensors[i].requires_grad else tensors[i].detach().requires_grad_()
            arguments[i] = arguments[i].view_as(arguments[i])
        states = run.eager(tuple(arguments))
        found = torch.autograd.grad(
            states, [arguments[i] for i in places], above, create_graph=True, allow_unused=True
        )
    gradients: list[Tensor | None] = [None] * len(tensors)
    for i, gradient in zip(places, found, strict=True):
        gradients[i] = gradient
    return tuple(gradients)
