"""Burgers and Kuramoto-Sivashinsky in Fourier space as compiled loops over scenarios, with the hand-written adjoint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dpcontrol.kernels.base import Kernel, Pulled, Wanted
from dpcontrol.kernels.native import held, in_threads, rows
from dpcontrol.kernels.spectral import HalfSpectrum
from dpcontrol.kernels.spectral_exponential import Stages, Tables
from dpcontrol.tree import Tree

RADICES = (4, 2, 3, 5)
TABLES = ("decay", "held", "inner", "outer")
TOGETHER = 8
"""Scenarios that are run together: enough to fill vectors, few enough for the innermost cache."""


@dataclass(frozen=True)
class RowKernel(Kernel):
    r"""The :class:`~dpcontrol.kernels.spectral_exponential.ExponentialKernel` of ``N = u^2`` without a single call.

    Transforms are part of the loops: at one scenario the calls of a library cost more than its work. The tables of the
    linear part are taken for real and those of the flux for imaginary, as ``L`` and ``-ik/2`` are; gradients in them are
    complex all the same. Kept are the states only, a step's stages are computed again on the way back.

    CPU only, for even sizes without prime factors above 5, see :func:`suits`. The loops are compiled at their first call,
    for each dtype by itself (some seconds), and kept in Numba's cache on disk.
    """

    transforms: HalfSpectrum
    stages: Stages

    def run(self, state: Tensor, inputs: Tree, coefficients: Tables, steps: int, first: int) -> Tensor:
        from dpcontrol.kernels.loops.spectral_rows import run

        states = state.new_empty(steps, *state.shape)
        control, out = inputs[0], states.numpy()
        common = (
            rows(state),
            held(control, steps, state),
            np.bool_(control is not None),
            self._plan(out.dtype),
            self._scheme(coefficients),
            _packed(coefficients),
        )

        def call(begin: int, end: int) -> None:
            for chunk in _chunks(begin, end):
                run(*common, out, chunk)

        in_threads(call, len(state), TOGETHER, states.numel() * 10)
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

        control, scenarios = inputs[0], len(state)
        with_control = wanted.inputs and control is not None
        of_state = torch.empty_like(state, memory_format=torch.contiguous_format)
        of_control = states.new_empty(states.shape if with_control else (1, 1, 1))
        kept, tables = states.detach().numpy(), _packed(coefficients)
        of_tables = [
            states.new_empty(
                (len(table), scenarios, self.transforms.columns, 2) if wanted.coefficients else (0, 1, 1, 2)
            )
            for table in tables
        ]
        common = (
            rows(state),
            kept,
            held(control, len(states), state),
            np.bool_(control is not None),
            self._plan(kept.dtype),
            self._scheme(coefficients),
            tables,
            rows(cotangents),
            (with_control, wanted.coefficients),
            of_state.numpy(),
            of_control.numpy(),
            tuple(part.numpy() for part in of_tables),
        )

        def call(begin: int, end: int) -> None:
            for chunk in _chunks(begin, end):
                pull(*common, chunk)

        in_threads(call, scenarios, TOGETHER, states.numel() * 30)
        totals = _unpacked(of_tables, coefficients) if wanted.coefficients else None
        return Pulled(of_state, (of_control, None) if with_control else None, totals)

    def _plan(self, dtype: Any) -> tuple[Any, ...]:
        """Sizes, radices, and roots of unity: of each pass, and of the step from half to full length."""
        points = self.transforms.shape[0]
        radices = factors(points // 2)
        roots, left = [], points // 2
        for r in radices:
            roots.append(np.outer(np.arange(1, r), np.arange(left // r)).ravel() / left)
            left //= r
        passes = -2 * np.pi * np.concatenate(roots)
        halves = -2 * np.pi / points * np.arange(points // 2 + 1)
        tables = (np.cos(passes), np.sin(passes), np.cos(halves), np.sin(halves))
        sizes = (points, self.transforms.columns)
        return sizes, np.array(radices), tuple(table.astype(dtype) for table in tables)

    def _scheme(self, coefficients: Tables) -> tuple[Any, ...]:
        """For each stage but the first its node, the end of its sources, and all sources in a row."""
        keys = list(coefficients["scheme"]["decay"])
        nodes = [keys.index(key) for key in self.stages.keys]
        starts = np.cumsum([0, *(len(row) for row in self.stages.sources)])
        return np.array(nodes), starts, np.array([j for row in self.stages.sources for j in row])


def suits(points: int) -> bool:
    """Whether transforms of so many points are among those of the loops."""
    return points % 2 == 0 and points >= 4 and bool(factors(points // 2))


def factors(size: int) -> list[int]:
    """The radices of the passes of a transform; none if there is another prime factor."""
    found = []
    for r in RADICES:
        while size % r == 0:
            found.append(r)
            size //= r
    return found if size == 1 else []


def _packed(coefficients: Tables) -> tuple[Any, ...]:
    """The real or imaginary parts of the tables, ``(rows, scenarios or 1, columns)``; the last node is the step's end."""
    return tuple(
        torch.stack(
            [part(table).reshape(-1, table.shape[-1]) for table in _listed(coefficients, name)]
        ).numpy()
        for name, part in zip(TABLES, (torch.real, torch.real, torch.imag, torch.imag), strict=True)
    )


def _listed(coefficients: Tables, name: str) -> list[Tensor]:
    tables = coefficients["scheme"][name]
    if isinstance(tables, dict):
        return list(tables.values())
    return [table for row in tables for table in row] if name == "inner" else list(tables)


def _unpacked(packed: list[Tensor], coefficients: Tables) -> dict[str, Any]:
    """Gradients in the layout of the coefficients, summed over scenarios where a table is shared."""
    found: dict[str, Any] = {}
    for name, parts in zip(TABLES, packed, strict=True):
        like = _listed(coefficients, name)
        flat = [
            part.sum_to_size(table.shape)
            for part, table in zip(torch.view_as_complex(parts), like, strict=True)
        ]
        of_name = coefficients["scheme"][name]
        if isinstance(of_name, dict):
            found[name] = dict(zip(of_name, flat, strict=True))
        elif name == "inner":
            queue = iter(flat)
            found[name] = [[next(queue) for _ in row] for row in of_name]
        else:
            found[name] = flat
    return {"scheme": found, "force": None}


def _chunks(begin: int, end: int) -> list[tuple[int, int, int]]:
    """As many whole groups as there are, and the rest as one smaller group."""
    width = max(1, min(end - begin, TOGETHER))
    middle = end - (end - begin) % width
    parts = [(begin, middle, width), (middle, end, end - middle)]
    return [part for part in parts if part[0] < part[1]]
