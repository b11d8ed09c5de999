"""Flow in vorticity form in Fourier space as compiled loops over scenarios, with the hand-written adjoint."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dpcontrol.kernels.base import Kernel, Pulled, Wanted
from dpcontrol.kernels.native import held, in_threads, rows
from dpcontrol.kernels.spectral_exponential import Stages, Tables, tables_per_scenario
from dpcontrol.kernels.spectral_loops import (
    TABLES,
    Kept,
    factors,
    imaginary,
    listed,
    plan,
    real,
    shared,
    structure,
    suits,
)
from dpcontrol.kernels.spectral_terms import Advection
from dpcontrol.tree import Tree

WORK = 20
"""What a point costs in a step, counted in updates of a stencil, to decide about threads."""


@dataclass(frozen=True)
class FlowKernel(Kernel):
    r"""The :class:`~dpcontrol.kernels.spectral_exponential.ExponentialKernel` of an advection, without calls inside.

    Transforms are part of the loops and leave out the columns that dealiasing drops. The tables of the scheme are taken
    for real; gradients in them are complex all the same. Kept are the states only, a step's stages are computed again
    on the way back.

    CPU only, for shapes that :meth:`fits` agrees to. The loops are compiled at their first call, for each dtype by
    itself (some seconds), and kept in Numba's cache on disk.
    """

    term: Advection
    stages: Stages
    _kept: Kept = field(default_factory=Kept, init=False, repr=False, compare=False)

    @staticmethod
    def fits(shape: tuple[int, ...]) -> bool:
        """Whether transforms of that shape are among those of the loops."""
        return suits(shape[1]) and bool(factors(shape[0]))

    def axes_per_scenario(self, state: Tensor, coefficients: Tables) -> list[int | None]:
        return tables_per_scenario(state, coefficients)

    def run(self, state: Tensor, inputs: Tree, coefficients: Tables, steps: int, first: int) -> Tensor:
        from dpcontrol.kernels.loops.spectral_flow import run

        states = state.new_empty(steps, *state.shape)
        common, out = self._common(state, inputs[0], coefficients, steps), states.numpy()

        def call(begin: int, end: int) -> None:
            run(*common, out, (begin, end))

        in_threads(call, len(state), 1, WORK * states.numel())
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
        from dpcontrol.kernels.loops.spectral_flow import pull

        control = inputs[0]
        with_control = wanted.inputs and control is not None
        of_state = torch.empty_like(state, memory_format=torch.contiguous_format)
        of_control = states.new_empty(states.shape if with_control else (1, 1, 1, 1))
        common = self._common(state, control, coefficients, len(states))
        room = (len(state), 2, common[-1].shape[-1]) if wanted.coefficients else (0, 2, 0)
        of_tables = [states.new_zeros((table.shape[1], *room)) for table in common[-2]]
        asked = (with_control, wanted.coefficients)
        written = of_state.numpy(), of_control.numpy(), tuple(part.numpy() for part in of_tables)
        kept, above = states.detach().numpy(), rows(cotangents)

        def call(begin: int, end: int) -> None:
            pull(common[0], kept, *common[1:], above, asked, *written, (begin, end))

        in_threads(call, len(state), 1, 3 * WORK * states.numel())
        found = self._unpacked(of_tables, coefficients) if wanted.coefficients else None
        return Pulled(of_state, (of_control, None) if with_control else None, found)

    def _common(
        self, state: Tensor, control: Tensor | None, coefficients: Tables, steps: int
    ) -> tuple[Any, ...]:
        """State, controls, whether there are any, plans, scheme, tables, and the tables of the term."""
        return (
            rows(state),
            held(control, steps, state),
            np.bool_(control is not None),
            *self._kept.of(coefficients, self._constant),
        )

    def _constant(self, coefficients: Tables) -> tuple[Any, ...]:
        (nx, ny), columns = self.term.transforms.shape, self.term.transforms.columns
        groups = [*(listed(coefficients, name) for name in TABLES), [coefficients["force"]]]
        tables = tuple(torch.stack([_flat(real(table)) for table in group], 1).numpy() for group in groups)
        term = torch.stack(
            [_flat(imaginary(self.term.to_velocity)), _flat(real(self.term.of_products))]
        ).numpy()
        return (
            (plan(ny, columns, term.dtype), plan(2 * nx, nx + 1, term.dtype)),
            structure(self.stages, coefficients),
            tables,
            term,
        )

    def _unpacked(self, of_tables: list[Tensor], coefficients: Tables) -> dict[str, Any]:
        transforms = self.term.transforms
        parts = []
        for part in of_tables:
            pairs = part.unflatten(-1, (transforms.shape[0], transforms.columns))
            parts.append(torch.complex(pairs[:, :, 0], pairs[:, :, 1]) * transforms.weights(part))
        scheme = {name: shared(part, name, coefficients) for name, part in zip(TABLES, parts, strict=False)}
        return {
            **coefficients,
            "scheme": scheme,
            "force": parts[-1][0].sum_to_size(coefficients["force"].shape),
        }


def _flat(table: Tensor) -> Tensor:
    """``(..., modes along x, columns)`` to ``(any, modes * columns)``."""
    return table.reshape(-1, table.shape[-1] * table.shape[-2])
