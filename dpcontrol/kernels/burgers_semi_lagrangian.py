"""Semi-Lagrangian Burgers as compiled loops over scenarios, with the hand-written adjoint."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from dpcontrol.kernels.base import Kernel, Pulled, Wanted
from dpcontrol.kernels.native import gradient_like, held, in_threads, per_scenario, plain, rows
from dpcontrol.tree import Tree


@dataclass(frozen=True)
class SemiLagrangianKernel(Kernel):
    """Whole runs of :class:`~dpcontrol.sim.burgers_semi_lagrangian.SemiLagrangianBurgers`, ``substeps`` in every step.

    Kept are the states of whole steps only. The derivative is that of the interval in which a back-traced point lies,
    as in the eager definition; a point within rounding of a cell centre may be in the other one. The loops are compiled
    at their first call, for each dtype by itself (some seconds), and kept in Numba's cache on disk.

    CPU only. A twin for GPUs has the same two methods over tensors of that device: a thread block for each scenario
    with its row in shared memory, where the adjoint of the lookup adds atomically;
    ``SemiLagrangianBurgers.kernel`` chooses between them by the state's device.
    """

    dt: float
    length: float
    periodic: bool
    substeps: int = 1

    def axes_per_scenario(self, state: Tensor, coefficients: Tensor) -> list[int | None]:
        return [2]

    def repeated(self, count: int) -> Kernel:
        return replace(self, substeps=self.substeps * count)

    def run(self, state: Tensor, inputs: Tree, coefficients: Tensor, steps: int, first: int) -> Tensor:
        from dpcontrol.kernels.loops.semi_lagrangian import run

        states = state.new_empty(steps, *state.shape)
        common, out = self._common(state, inputs, coefficients, steps), states.numpy()
        in_threads(
            lambda begin, end: run(*common, out, (begin, end)), len(state), 1, states.numel() * self.substeps
        )
        return states

    def pull(
        self,
        state: Tensor,
        states: Tensor,
        inputs: Tree,
        coefficients: Tensor,
        cotangents: Tensor,
        wanted: Wanted,
        first: int,
    ) -> Pulled:
        from dpcontrol.kernels.loops.semi_lagrangian import pull

        of_state = torch.empty_like(state, memory_format=torch.contiguous_format)
        with_controls = wanted.inputs and inputs[0] is not None
        of_controls = states.new_empty(states.shape if with_controls else (1, 1, 1))
        of_spread = states.new_empty(len(state))
        common = self._common(state, inputs, coefficients, len(states))
        asked = (with_controls, wanted.coefficients)
        written = of_state.numpy(), of_controls.numpy(), of_spread.numpy()
        kept, above = plain(states).numpy(), rows(cotangents)

        def call(begin: int, end: int) -> None:
            pull(common[0], kept, *common[1:], above, asked, *written, (begin, end))

        in_threads(call, len(state), 1, 3 * states.numel() * self.substeps)
        found = None
        if wanted.coefficients:
            found = gradient_like(of_spread, coefficients) * state.shape[1] ** 2
        return Pulled(of_state, (of_controls if with_controls else None, None), found)

    def _common(self, state: Tensor, inputs: Tree, coefficients: Tensor, steps: int) -> tuple[Any, ...]:
        scenarios, cells = state.shape
        first = rows(state)
        kind = first[0].dtype.type
        spread = per_scenario(coefficients, scenarios) * kind(cells**2)
        numbers = kind(self.dt), kind(self.dt * cells / self.length)
        return first, held(inputs[0], steps, state), spread, numbers, self.periodic, self.substeps
