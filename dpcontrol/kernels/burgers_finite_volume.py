"""Finite-volume Burgers as compiled loops over scenarios, with the hand-written adjoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dpcontrol.kernels.base import Kernel, Pulled, Wanted
from dpcontrol.kernels.native import gradient_like, held, in_threads, per_scenario, plain, rows
from dpcontrol.tree import Tree

NAMES = ("viscosity", "left_value", "right_value")
VECTOR = 64  # bytes of the widest vectors in use


@dataclass(frozen=True)
class FiniteVolumeKernel(Kernel):
    """Whole runs of :class:`~dpcontrol.sim.burgers_finite_volume.FiniteVolumeBurgers`, ``substeps`` in every step.

    Kept are the states of whole steps only: on the way back a step is run once more, which costs less than reading its
    stages from memory. For this a thread needs room for six numbers for each cell and substep of one step and of the
    scenarios in one register (two, for a single one). Value and gradient take less than four times the forward run.

    Many scenarios run side by side in vector registers, one or two (float32: up to four) one after the other. The loops
    are compiled at their first call, for each dtype and either kind by itself (some seconds), and kept in Numba's cache
    on disk.

    CPU only. A twin for GPUs has the same two methods over tensors of that device: a thread block for each scenario
    with its cells in shared memory; ``FiniteVolumeBurgers.kernel`` chooses between them by the state's device.
    """

    dt: float
    length: float
    speed: float
    periodic: bool
    substeps: int = 1

    def axes_per_scenario(self, state: Tensor, coefficients: Mapping[str, Tensor]) -> list[int | None]:
        return [2] * len(coefficients)

    def repeated(self, count: int) -> Kernel:
        return replace(self, substeps=self.substeps * count)

    def run(self, state: Tensor, inputs: Tree, coefficients: Tree, steps: int, first: int) -> Tensor:
        states = state.new_empty(steps, *state.shape)
        common = self._common(state, inputs, coefficients, steps)
        out, width = states.numpy(), _width(state)

        def call(begin: int, end: int) -> None:
            for loops, chunk in _parts(begin, end, width):
                loops.run(*common, out, chunk)

        in_threads(call, len(state), width, states.numel() * self.substeps)
        return states

    def pull(
        self,
        state: Tensor,
        states: Tensor,
        inputs: Tree,
        coefficients: Tree,
        cotangents: Tensor,
        wanted: Wanted,
        first: int,
    ) -> Pulled:
        of_state = torch.empty_like(state, memory_format=torch.contiguous_format)
        with_controls = wanted.inputs and inputs[0] is not None
        of_controls = states.new_empty(states.shape if with_controls else (1, 1, 1))
        of_sides = states.new_empty(len(state), len(NAMES))
        common = self._common(state, inputs, coefficients, len(states))
        asked = (with_controls, wanted.coefficients)
        written = of_state.numpy(), of_controls.numpy(), of_sides.numpy()
        kept, above, width = plain(states).numpy(), rows(cotangents), _width(state)

        def call(begin: int, end: int) -> None:
            for loops, chunk in _parts(begin, end, width):
                loops.pull(common[0], kept, *common[1:], above, asked, *written, chunk)

        in_threads(call, len(state), width, 3 * states.numel() * self.substeps)
        found = None
        if wanted.coefficients:
            found = {
                name: gradient_like(of_sides[:, NAMES.index(name)], value)
                for name, value in coefficients.items()
            }
        return Pulled(of_state, (of_controls if with_controls else None, None), found)

    def _common(
        self, state: Tensor, inputs: Tree, coefficients: Mapping[str, Tensor], steps: int
    ) -> tuple[Any, ...]:
        scenarios, cells = state.shape
        first = rows(state)
        kind = first[0].dtype.type
        zero = np.zeros(scenarios, kind)
        sides = tuple(
            per_scenario(coefficients[name], scenarios) if name in coefficients else zero for name in NAMES
        )
        numbers = kind(self.dt), kind(cells / self.length), kind(cells**-3.0 * self.speed**2)
        return first, held(inputs[0], steps, state), sides, numbers, self.periodic, self.substeps


def _width(state: Tensor) -> int:
    """How many scenarios fit into a register."""
    return VECTOR // state.element_size()


def _parts(begin: int, end: int, width: int) -> list[tuple[Any, tuple[Any, ...]]]:
    """The loops that some scenarios go through: side by side in registers, or one after the other.

    The last register need not be full; it takes the time of two or three scenarios by themselves, though (float32: of
    four or five).
    """
    from dpcontrol.kernels.loops import finite_volume, finite_volume_abreast

    left = (end - begin) % width
    middle = end - left if 4 * left <= width else end
    parts: list[tuple[Any, tuple[Any, ...]]] = []
    if begin < middle:
        parts.append((finite_volume_abreast, (begin, middle, (0,) * width)))
    if middle < end:
        parts.append((finite_volume, (middle, end)))
    return parts
