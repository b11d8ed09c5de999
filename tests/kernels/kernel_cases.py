"""Does a kernel equal the eager step, in values, in first and in second derivatives? Asked of every kernel."""

from __future__ import annotations

from typing import Any

import torch

from dpcontrol import tree
from dpcontrol.engine.fused import run_fused
from dpcontrol.engine.trajectory import eager_step, parameter_values
from dpcontrol.sim.base import Simulator


def compare_with_eager(
    simulator: Simulator, state: Any, controls: Any, *, steps: int, tolerance: float, second: bool = True
) -> None:
    """States, gradients in state, controls and coefficients, and a Hessian product agree.

    ``controls`` are ``(steps, scenarios, ...)`` or ``None``; ``tolerance`` is relative to the largest entry.
    """
    coefficients = simulator.prepare(parameter_values(simulator, {}, like=state), {})
    control = tree.map(lambda leaf: leaf[0], controls)
    kernel = simulator.kernel(state, control, None, coefficients)
    assert kernel is not None, "the simulator has no kernel for these data"
    step = eager_step(simulator)
    flat, build = tree.split_tensors((state, (controls, None), coefficients))

    def states(fast: bool, tensors: list[torch.Tensor]) -> Any:
        x, inputs, fixed = build(tensors)
        if fast:
            return run_fused(kernel, step, x, inputs, fixed, steps)
        rows = tree.rows(inputs, steps)
        found = []
        for k, row in enumerate(rows):
            x = step(x, row, fixed, k)
            found.append(x)
        return tree.stack(found)

    generator = torch.Generator().manual_seed(3)
    places = [i for i, leaf in enumerate(flat) if leaf.is_floating_point() or leaf.is_complex()]
    results = []
    for fast in (False, True):
        generator.manual_seed(3)
        leaves = [
            leaf.detach().clone().requires_grad_() if i in places else leaf for i, leaf in enumerate(flat)
        ]
        ends = tree.leaves(states(fast, leaves))
        loss = sum(
            ((end * torch.randn(end.shape, generator=generator, dtype=end.dtype)).sum() for end in ends),
            torch.zeros((), dtype=ends[0].dtype),
        )
        wanted = [leaves[i] for i in places]
        # without create_graph: with it the eager definition would be asked instead of the kernel
        found = [*ends, *torch.autograd.grad(loss, wanted, retain_graph=second, materialize_grads=True)]
        if second:
            gradients = torch.autograd.grad(loss, wanted, create_graph=True, materialize_grads=True)
            along = [torch.randn(g.shape, generator=generator, dtype=g.dtype) for g in gradients]
            total = sum((g * v).real.sum() for g, v in zip(gradients, along, strict=True))
            found += torch.autograd.grad(total, wanted, materialize_grads=True)
        results.append([leaf.detach() for leaf in found])
    for eager, fast_one in zip(*results, strict=True):
        scale = float(eager.abs().max()) or 1.0
        assert float((eager - fast_one).abs().max()) <= tolerance * scale
