"""Raw twins of the steps of smoke and of stirring, with their adjoints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dpcontrol import tree
from dpcontrol.kernels import Pulled, StepKernel, Wanted
from dpcontrol.sim.base import Value, align
from dpcontrol.sim.carried import Parts, carried, carried_back
from dpcontrol.sim.grid import Grid
from dpcontrol.sim.staggered import (
    Faces,
    beyond_centres,
    beyond_faces,
    curl,
    gradient,
    projected,
    to_cells,
    to_centres,
    to_faces,
    travelled_at_faces,
)
from dpcontrol.tree import Tree

State = Mapping[str, Tensor]


def fits(shape: tuple[int, ...], control: Tensor | None, state: State) -> bool:
    """Whether a control is of this shape, one for each scenario; else the eager step says what is wrong."""
    counts = {len(part) for part in state.values()} | (set() if control is None else {len(control)})
    return len(counts) == 1 and (control is None or tuple(control.shape[1:]) == shape)


@dataclass(frozen=True)
class SmokeKernel(StepKernel):
    """See :class:`~dpcontrol.sim.smoke.Smoke`; ``coefficients`` are what it prepares."""

    grid: Grid
    dt: float
    names: tuple[str, ...]
    marker_scheme: str
    velocity_scheme: str

    def axes_per_scenario(self, state: State, coefficients: Mapping[str, Any]) -> list[int | None]:
        solver = [None] * len(tree.split_tensors(coefficients["solver"])[0])
        fields = [
            1 if leaf.ndim < 2 else 1 + len(self.grid.cells)  # a number, or a field
            for leaf in (coefficients["lift"], coefficients["inflow"])
        ]
        return [*fields, *solver]

    def step(self, state: State, row: Tree, coefficients: Mapping[str, Any], k: int) -> dict[str, Tensor]:
        velocity, centred, travelled = self._travelled(state)
        marker = carried(self.marker_scheme, state["marker"], travelled, beyond_centres(self.grid))
        marker = marker + align(coefficients["inflow"], marker)
        lift = marker * align(coefficients["lift"], marker)
        control = None if row is None else row[0]
        pushed = []
        for axis, part in enumerate(velocity):
            along = travelled_at_faces(velocity, centred, axis, self._scale, self.grid)
            moved = carried(self.velocity_scheme, part, along, beyond_faces(axis, self.grid))
            if axis == 1:
                moved = moved + to_faces(lift, axis, self.grid)
            if control is not None:
                moved = torch.add(moved, to_faces(control[:, axis], axis, self.grid), alpha=self.dt)
            pushed.append(moved)
        free = projected(tuple(pushed), self.grid, coefficients["solver"])
        return {"marker": marker, **dict(zip(self.names, free, strict=True))}

    def vjp(
        self,
        state: State,
        row: Tree,
        coefficients: Mapping[str, Any],
        k: int,
        cotangent: State,
        wanted: Wanted,
    ) -> Pulled:
        grid, scale = self.grid, self._scale
        velocity, centred, travelled = self._travelled(state)
        above = tuple(cotangent[name] for name in self.names)
        of_pushed = projected(above, grid, coefficients["solver"])  # orthogonal: its own adjoint
        of_force = [to_cells(part, axis, grid) for axis, part in enumerate(of_pushed)]
        of_marker = cotangent["marker"] + of_force[1] * align(coefficients["lift"], of_force[1])
        of_velocity, of_centred = [], [torch.zeros_like(part) for part in centred]
        for axis, part in enumerate(velocity):
            along = travelled_at_faces(velocity, centred, axis, scale, grid)
            own, paths = carried_back(
                self.velocity_scheme, part, along, beyond_faces(axis, grid), of_pushed[axis]
            )
            for other, path in enumerate(paths):
                if other == axis:
                    own = torch.add(own, path, alpha=scale[axis])
                else:
                    of_centred[other].add_(to_cells(path, axis, grid), alpha=scale[other])
            of_velocity.append(own)
        before, paths = carried_back(
            self.marker_scheme, state["marker"], travelled, beyond_centres(grid), of_marker
        )
        for axis, path in enumerate(paths):
            of_centred[axis].add_(path, alpha=scale[axis])
            of_velocity[axis] = of_velocity[axis] + to_faces(of_centred[axis], axis, grid)
        control = None
        if wanted.inputs and row is not None and row[0] is not None:
            control = torch.stack(of_force, 1).mul_(self.dt)
        of_coefficients: dict[str, Any] = {"lift": None, "inflow": None, "solver": None}
        if wanted.coefficients:
            marker = carried(self.marker_scheme, state["marker"], travelled, beyond_centres(grid))
            marker = marker + align(coefficients["inflow"], marker)
            of_coefficients["lift"] = _summed(of_force[1] * marker, coefficients["lift"])
            of_coefficients["inflow"] = _summed(of_marker, coefficients["inflow"])
        gradients = {"marker": before, **dict(zip(self.names, of_velocity, strict=True))}
        return Pulled(gradients, (control, None), of_coefficients)

    def _travelled(self, state: State) -> tuple[Faces, Faces, Parts]:
        velocity = tuple(state[name] for name in self.names)
        centred = to_centres(velocity, self.grid)
        return velocity, centred, [part * f for part, f in zip(centred, self._scale, strict=True)]

    @property
    def _scale(self) -> list[float]:
        return [self.dt / h for h in self.grid.spacing]


@dataclass(frozen=True)
class StirringKernel(StepKernel):
    """See :class:`~dpcontrol.sim.stirring.Stirring`."""

    grid: Grid
    dt: float
    scheme: str

    def axes_per_scenario(self, state: State, coefficients: Any) -> list[int | None]:
        return [None] * len(tree.split_tensors(coefficients)[0])

    def step(self, state: State, row: Tree, coefficients: Any, k: int) -> dict[str, Tensor]:
        velocity, travelled = self._travelled(row[0])
        marker = carried(self.scheme, state["marker"], travelled, beyond_centres(self.grid))
        return {"marker": marker, "velocity_x": velocity[0], "velocity_y": velocity[1]}

    def vjp(
        self, state: State, row: Tree, coefficients: Any, k: int, cotangent: State, wanted: Wanted
    ) -> Pulled:
        grid, (_, travelled) = self.grid, self._travelled(row[0])
        before, paths = carried_back(
            self.scheme, state["marker"], travelled, beyond_centres(grid), cotangent["marker"]
        )
        control = None
        if wanted.inputs:
            across, along = (
                torch.add(cotangent[name], to_faces(path, axis, grid), alpha=self.dt / grid.spacing[axis])
                for axis, (name, path) in enumerate(zip(("velocity_x", "velocity_y"), paths, strict=True))
            )
            control = gradient(along, grid)[0] - gradient(across, grid)[1]  # the adjoint of the curl
        unseen = {name: torch.zeros_like(state[name]) for name in ("velocity_x", "velocity_y")}
        return Pulled({"marker": before, **unseen}, (control, None), None)

    def _travelled(self, potential: Tensor) -> tuple[Faces, Parts]:
        velocity = curl(potential, self.grid)
        scale = [self.dt / h for h in self.grid.spacing]
        return velocity, [part * f for part, f in zip(to_centres(velocity, self.grid), scale, strict=True)]


def _summed(gradient: Tensor, coefficient: Value) -> Tensor | None:
    """The gradient of a coefficient that was shared by cells, and perhaps by scenarios."""
    shaped = align(coefficient, gradient)
    if not isinstance(shaped, Tensor) or not isinstance(coefficient, Tensor):
        return None
    return gradient.sum_to_size(shaped.shape).view(coefficient.shape)
