"""Burgers and Kuramoto-Sivashinsky in Fourier space as compiled loops over scenarios, with the hand-written adjoint."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dpcontrol.kernels.base import Kernel, Pulled, Wanted
from dpcontrol.kernels.native import chunks, held, in_threads, rows
from dpcontrol.kernels.spectral import HalfSpectrum
from dpcontrol.kernels.spectral_exponential import Stages, Tables, tables_per_scenario
from dpcontrol.kernels.spectral_loops import TABLES, Kept, imaginary, listed, plan, real, shared, structure
from dpcontrol.tree import Tree

TOGETHER = 8
"""Scenarios that are run together: enough to fill vectors, few enough for the innermost cache."""
WORK = 10
"""What a point costs in a step, counted in updates of a stencil, to decide about threads."""


@dataclass(frozen=True)
class RowKernel(Kernel):
    r"""The :class:`~dpcontrol.kernels.spectral_exponential.ExponentialKernel` of ``N = u^2`` without calls inside.

    Transforms are part of the loops: at one scenario the calls of a library cost more than its work. The tables of the
    linear part are taken for real and those of the flux for imaginary, as ``L`` and ``-ik/2`` are; gradients in them
    are complex all the same. Kept are the states only, a step's stages are computed again on the way back.

    CPU only, for sizes that :func:`~dpcontrol.kernels.spectral_loops.suits` agrees to. The loops are compiled at their
    first call, for each dtype by itself (some seconds), and kept in Numba's cache on disk.
    """

    transforms: HalfSpectrum
    stages: Stages
    _kept: Kept = field(default_factory=Kept, init=False, repr=False, compare=False)

    def axes_per_scenario(self, state: Tensor, coefficients: Tables) -> list[int | None]:
        return tables_per_scenario(state, coefficients)

    def run(self, state: Tensor, inputs: Tree, coefficients: Tables, steps: int, first: int) -> Tensor:
        from dpcontrol.kernels.loops.spectral_rows import run

        states = state.new_empty(steps, *state.shape)
        common, out = self._common(state, inputs[0], coefficients, steps), states.numpy()

        def call(begin: int, end: int) -> None:
            for chunk in chunks(begin, end, TOGETHER):
                run(*common, out, chunk)

        in_threads(call, len(state), TOGETHER, WORK * states.numel())
        return states

    def pull(
        self,
        state: Tensor,
        states: Tensor,
        inputs: Tree,
        coefficients: Tables,
        cotangents: Tensor,
        wanted: Wanted,
        first: int,
    ) -> Pulled:
        from dpcontrol.kernels.loops.spectral_rows import pull

        control = inputs[0]
        with_control = wanted.inputs and control is not None
        of_state = torch.empty_like(state, memory_format=torch.contiguous_format)
        of_control = states.new_empty(states.shape if with_control else (1, 1, 1))
        common = self._common(state, control, coefficients, len(states))
        room = (len(state), self.transforms.columns, 2) if wanted.coefficients else (0, 0, 2)
        of_tables = [states.new_empty((len(table), *room)) for table in common[-1]]
        asked = (with_control, wanted.coefficients)
        written = of_state.numpy(), of_control.numpy(), tuple(part.numpy() for part in of_tables)
        kept, above = states.detach().numpy(), rows(cotangents)

        def call(begin: int, end: int) -> None:
            for chunk in chunks(begin, end, TOGETHER):
                pull(common[0], kept, *common[1:], above, asked, *written, chunk)

        in_threads(call, len(state), TOGETHER, 3 * WORK * states.numel())
        found = None
        if wanted.coefficients:
            parts = zip(TABLES, of_tables, strict=True)
            scheme = {name: shared(torch.view_as_complex(part), name, coefficients) for name, part in parts}
            found = {"scheme": scheme, "force": None}
        return Pulled(of_state, (of_control, None) if with_control else None, found)

    def _common(
        self, state: Tensor, control: Tensor | None, coefficients: Tables, steps: int
    ) -> tuple[Any, ...]:
        """State, controls, whether there are any, plan, scheme, tables ``(rows, scenarios or 1, columns)``."""
        return (
            rows(state),
            held(control, steps, state),
            np.bool_(control is not None),
            *self._kept.of(coefficients, self._constant),
        )

    def _constant(self, coefficients: Tables) -> tuple[Any, ...]:
        tables = [
            torch.stack(
                [part(table).reshape(-1, self.transforms.columns) for table in listed(coefficients, name)]
            )
            for name, part in zip(TABLES, (real, real, imaginary, imaginary), strict=True)
        ]
        return (
            plan(self.transforms.shape[0], self.transforms.columns, tables[0].numpy().dtype),
            structure(self.stages, coefficients),
            tuple(table.numpy() for table in tables),
        )
