"""A field that a few actuators act on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dpcontrol.kernels import Kernel
from dpcontrol.kernels.actuated import ActuatedKernel
from dpcontrol.results import UsageError
from dpcontrol.sim.base import Simulator, Wrapper
from dpcontrol.tree import Tree


@dataclass(frozen=True)
class Actuated(Wrapper):
    r"""``inner`` under the force ``F(x) = sum_j u_j W_j(x)``, whose few strengths ``u_j`` are the control.

    Control: ``(scenarios, inputs)`` or ``None``; everything else is that of ``inner``.

    Args:
        inner: a simulator whose control is a field ``(scenarios, *shape)``.
        shapes: ``W``, ``(inputs, *shape)``.

    Raises:
        UsageError: for shapes that are no stack of fields; in a step, for a control of another shape.
    """

    inner: Simulator
    shapes: Tensor

    def __post_init__(self) -> None:
        if not isinstance(self.shapes, Tensor) or self.shapes.ndim < 2:
            found = (
                tuple(self.shapes.shape) if isinstance(self.shapes, Tensor) else type(self.shapes).__name__
            )
            raise UsageError(f"shapes is a tensor (inputs, *shape), one field per actuator; found {found}.")

    @property
    def dt(self) -> float:
        return self.inner.dt

    @property
    def control_names(self) -> tuple[str, ...]:
        return ()

    def step(self, state: Tree, control: Tree, coefficients: Any, noise: Tree, t: float) -> Tree:
        return self.inner.step(state, self.force(control), coefficients, noise, t)

    def kernel(self, state: Tree, control: Tree, noise: Tree, coefficients: Any) -> Kernel | None:
        """That of ``inner`` under the fields; none while shapes are differentiated or a transform looks at them."""
        inner = self.inner.kernel(state, self.force(control), noise, coefficients)
        if inner is None or control is None:
            return inner
        if self.shapes.requires_grad or torch._C._functorch.is_functorch_wrapped_tensor(self.shapes):
            return None
        return ActuatedKernel(inner, self.shapes)

    def force(self, control: Tensor | None) -> Tensor | None:
        """The field ``F``, ``(scenarios, *shape)``."""
        if control is None:
            return None
        inputs, *shape = self.shapes.shape
        if control.ndim != 2 or control.shape[1] != inputs:
            raise UsageError(
                f"the control is one strength per actuator, (scenarios, {inputs}); found {tuple(control.shape)}."
            )
        rows = self.shapes.to(control).reshape(inputs, -1)
        return (control @ rows).reshape(len(control), *shape)
