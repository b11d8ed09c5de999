"""A function that keeps its arguments for the way back, and is called again there instead of keeping more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dpcontrol import tree
from dpcontrol.engine.fused import is_plain
from dpcontrol.tree import Tree


@dataclass
class Call:
    """The function over flat tensors; how its result is built is known once it has been called."""

    function: Callable[[Tree], Tree]
    build: Callable[[Any], Tree]
    build_result: Callable[[Any], Tree] | None = None

    def __call__(self, tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        found, self.build_result = tree.split_tensors(self.function(self.build(tensors)))
        return tuple(found)


def recomputed(function: Callable[[Tree], Tree], arguments: Tree) -> Tree:
    """``function(arguments)``, differentiable, of which only the arguments are kept.

    Every tensor that requires a gradient must be among the arguments. Under transforms, where nothing can be kept
    back, it is called as it is.
    """
    tensors, build = tree.split_tensors(arguments)
    if not torch.is_grad_enabled() or not is_plain(tensors):
        return function(arguments)
    call = Call(function, build)
    found = _Recomputed.apply(call, *tensors)
    assert call.build_result is not None
    return call.build_result(found)


class _Recomputed(torch.autograd.Function):
    @staticmethod
    def forward(call: Call, *tensors: Tensor) -> tuple[Tensor, ...]:
        # nothing may be given out that came in: autograd would take it for changed in place
        return tuple(leaf.clone() if any(leaf is one for one in tensors) else leaf for leaf in call(tensors))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.call, *tensors = inputs
        ctx.save_for_backward(*tensors)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        tensors, again = list(ctx.saved_tensors), torch.is_grad_enabled()
        places = [i for i, need in enumerate(ctx.needs_input_grad[1:]) if need]
        with torch.enable_grad():
            for i in places:
                kept = tensors[i] if again else tensors[i].detach().requires_grad_()
                tensors[i] = kept.view_as(kept)
            found = ctx.call(tuple(tensors))
            pairs = [
                (y, c) for y, c in zip(found, cotangents, strict=True) if c is not None and y.requires_grad
            ]
            gradients: list[Tensor | None] = [None] * len(tensors)
            if pairs and places:
                ys, cs = zip(*pairs, strict=True)
                wanted = [tensors[i] for i in places]
                parts = torch.autograd.grad(ys, wanted, cs, create_graph=again, allow_unused=True)
                for i, part in zip(places, parts, strict=True):
                    gradients[i] = part
        return (None, *gradients)
