"""A kernel of a field's control, driven by the strengths of a few actuators."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from dpcontrol.kernels.base import Kernel, Pulled, Wanted
from dpcontrol.tree import Tree


@dataclass(frozen=True, eq=False)
class ActuatedKernel(Kernel):
    r"""``inner`` under the fields ``F_k = sum_j u_{kj} W_j``; the gradient in ``u_{kj}`` is ``<W_j, dF_k>``.

    ``shapes`` is ``W``, ``(inputs, *shape)``, and is not differentiated.
    """

    inner: Kernel
    shapes: Tensor

    @property
    def single_steps(self) -> bool:
        return self.inner.single_steps

    def axes_per_scenario(self, state: Tree, coefficients: Tree) -> list[int | None] | None:
        return self.inner.axes_per_scenario(state, coefficients)

    def repeated(self, count: int) -> Kernel:
        return replace(self, inner=self.inner.repeated(count))

    def run(self, state: Tree, inputs: Tree, coefficients: Tree, steps: int, first: int) -> Tree:
        return self.inner.run(state, self._fields(inputs), coefficients, steps, first)

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
        found = self.inner.pull(state, states, self._fields(inputs), coefficients, cotangents, wanted, first)
        if found.inputs is None or found.inputs[0] is None:
            return found
        of_field, of_noise = found.inputs
        return found._replace(inputs=(of_field.flatten(2) @ self._rows(of_field).T, of_noise))

    def _fields(self, inputs: Tree) -> Tree:
        control, noise = inputs
        return (control @ self._rows(control)).unflatten(-1, self.shapes.shape[1:]), noise

    def _rows(self, like: Tensor) -> Tensor:
        return self.shapes.to(like).flatten(1)
