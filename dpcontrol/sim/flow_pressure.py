"""Pressure of a flow: divergence, gradient, and the projection that also holds the fluid on bodies."""

from __future__ import annotations

import torch
from torch import Tensor

from dpcontrol.linalg import Poisson, poisson
from dpcontrol.results import UsageError
from dpcontrol.sim.bodies import Held
from dpcontrol.sim.flow_sides import Rules, on_all_faces
from dpcontrol.sim.grid import Grid
from dpcontrol.sim.sides import Inflow, Outflow
from dpcontrol.sim.staggered import Faces


def divergence_of(velocity: Faces, rules: Rules, grid: Grid) -> Tensor:
    """``sum_a (u_a[right face] - u_a[left face]) / h_a`` in every cell; second order at cell centres."""
    total: Tensor | None = None
    for axis, (part, h) in enumerate(zip(velocity, grid.spacing, strict=True)):
        slope = on_all_faces(part, axis, rules[axis], grid).diff(dim=axis + 1)
        total = slope * (1 / h) if total is None else torch.add(total, slope, alpha=1 / h)
    assert total is not None
    return total


def gradient_of(pressure: Tensor, grid: Grid) -> Faces:
    """``(p[right cell] - p[left cell]) / h_a`` on every free face, with ``p = 0`` on an outflow.

    Minus the adjoint of :func:`divergence_of`, where faces on an outflow count half, as their volume is.
    """
    parts = []
    for axis, h in enumerate(grid.spacing):
        dim, n = axis + 1, grid.cells[axis]
        first, behind = grid.free(axis)
        rows = [pressure]
        if grid.periodic(axis):
            rows.insert(0, pressure.narrow(dim, n - 1, 1))
        else:
            if first == 0:
                rows.insert(0, -pressure.narrow(dim, 0, 1))
            if behind == n + 1:
                rows.append(-pressure.narrow(dim, n - 1, 1))
        full = torch.cat(rows, dim) if len(rows) > 1 else pressure
        parts.append(full.diff(dim=dim) * (1 / h))
    return tuple(parts)


def open_pressure_solver(grid: Grid, like: Tensor) -> Poisson:
    """The direct solver of ``div grad p = f``: no flux through walls and inflows, ``p = 0`` on outflows.

    Raises:
        UsageError: for an inflow without any outflow.
    """
    sides: list[str | tuple[str, str]] = []
    kinds = set()
    for axis in range(len(grid.cells)):
        if grid.periodic(axis):
            sides.append("periodic")
            continue
        left, right = grid.pair(axis)
        kinds |= {type(left), type(right)}
        first, second = ("dirichlet" if isinstance(side, Outflow) else "neumann" for side in (left, right))
        sides.append((first, second))
    if Inflow in kinds and Outflow not in kinds:
        raise UsageError(
            "what flows in must flow out: a grid with an Inflow needs an Outflow on another side."
        )
    return poisson(grid.cells, grid.spacing, sides, dtype=like.dtype, device=like.device)


def forward_transform(solver: Poisson, field: Tensor) -> Tensor:
    """A centred field in the eigenvectors of the Laplacian."""
    dims = len(solver.transforms)
    for axis, transform in zip(range(-dims, 0), solver.transforms, strict=True):
        field = transform.forward(field, axis)
    return field


def inverse_transform(solver: Poisson, field: Tensor) -> Tensor:
    """Back from :func:`forward_transform`, to which it is the adjoint as well."""
    dims = len(solver.transforms)
    for axis, transform in zip(range(-dims, 0), solver.transforms, strict=True):
        field = transform.inverse(field, axis)
    return field


def freed(
    velocity: Faces, rules: Rules, grid: Grid, solver: Poisson, held: Held | None
) -> tuple[Faces, Tensor, Tensor | None]:
    """The closest velocity without divergence, and without slip at the points of a surface.

    Returns:
        The velocity, the pressure that made it (times ``dt`` over density), the forces at the points.
    """
    divergence = divergence_of(velocity, rules, grid)
    if held is None:
        pressure = solver.solve(divergence)
        slopes = gradient_of(pressure, grid)
        return tuple(part - slope for part, slope in zip(velocity, slopes, strict=True)), pressure, None
    points = held.surface
    spectrum = forward_transform(solver, divergence)
    slip = held.velocity - points.at_points(velocity) - points.pressed(spectrum * solver.reciprocals)
    forces = points.forces(slip)
    spectrum = (spectrum + points.spread_divergence(forces)) * solver.reciprocals
    pressure = inverse_transform(solver, spectrum)
    parts = zip(velocity, points.spread(forces), gradient_of(pressure, grid), strict=True)
    return tuple(part + force - slope for part, force, slope in parts), pressure, forces
