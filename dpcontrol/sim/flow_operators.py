r"""Momentum of a viscous flow on a staggered grid with walls that may move, and with openings.

Fields as in ``staggered.py``. Each velocity component is first continued by one point beyond every side
(``flow_sides.py``), as the side asks; differences and means then are the same everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from dpcontrol.sim.base import Value, align
from dpcontrol.sim.flow_sides import Rules, extended
from dpcontrol.sim.grid import Grid
from dpcontrol.sim.staggered import Faces


def acceleration(velocity: Faces, rules: Rules, viscosity: Value, grid: Grid, advected: bool = True) -> Faces:
    r"""``-div(u u) + nu lap u`` on the free faces, both second order and in flux form.

    Central: the fluxes are products of means of two neighbours, so that between walls, and around, advection changes
    neither the momentum nor, as long as the divergence is zero, the energy. With ``advected=False`` friction alone.

    Source: F. H. Harlow, J. E. Welch, Phys. Fluids 8 (1965) 2182.
    """
    count, spacing = len(grid.cells), grid.spacing
    wide = [extended(part, axis, rules[axis]) for axis, part in enumerate(velocity)]
    nu = align(viscosity, velocity[0])
    found = []
    for axis in range(count):
        own, dim = _stripped(wide[axis], (axis,)), axis + 1
        flux = own.diff(dim=dim) * (-nu / spacing[axis])
        if advected:
            flux = flux + _mean(own, dim).square()
        found.append(flux.diff(dim=dim) * (-1 / spacing[axis]))
    for first in range(count):
        for second in range(first + 1, count):
            plane = (first, second)
            parts = {axis: _stripped(wide[axis], plane) for axis in plane}
            product = None
            if advected:
                means = [
                    _mean(_edges(parts[axis], axis, grid), other + 1) for axis, other in (plane, plane[::-1])
                ]
                product = means[0] * means[1]
            for axis, other in (plane, plane[::-1]):
                inner = parts[axis].narrow(axis + 1, 1, velocity[axis].shape[axis + 1])
                flux = inner.diff(dim=other + 1) * (-nu / spacing[other])
                if product is not None:
                    flux = flux + product.narrow(axis + 1, grid.free(axis)[0], inner.shape[axis + 1])
                found[axis] = torch.sub(found[axis], flux.diff(dim=other + 1), alpha=1 / spacing[other])
    return tuple(found)


def travelled(velocity: Faces, rules: Rules, component: int, dt: float, grid: Grid) -> Faces:
    """``u dt / h`` on the free faces of a component, from means of the nearest four; second order."""
    parts = []
    for axis, h in enumerate(grid.spacing):
        part = velocity[axis]
        if axis != component:
            part = _stripped(extended(part, axis, rules[axis]), (axis, component))
            part = _mean(_mean(_edges(part, axis, grid), axis + 1), component + 1)
            part = part.narrow(
                component + 1, grid.free(component)[0], velocity[component].shape[component + 1]
            )
        parts.append(part * (dt / h))
    return tuple(parts)


def carried(velocity: Faces, rules: Rules, dt: float, grid: Grid, scheme: Callable[..., Tensor]) -> Faces:
    """Every component advected for ``dt`` by a scheme of ``staggered.py`` that looks up where the fluid came from."""
    beyond = tuple(
        ("periodic", "periodic") if grid.periodic(axis) else ("edge", "edge")
        for axis in range(len(grid.cells))
    )
    pads = [0 if grid.periodic(axis) else 1 for axis in reversed(range(len(grid.cells))) for _ in range(2)]
    found = []
    for component, part in enumerate(velocity):
        shift = travelled(velocity, rules, component, dt, grid)
        wide = extended(part, component, rules[component], around=False)
        moved = scheme(wide, [torch.constant_pad_nd(row, pads) for row in shift], beyond)
        inner = [slice(None)] + [
            slice(None) if grid.periodic(axis) else slice(1, -1) for axis in range(len(grid.cells))
        ]
        found.append(moved[tuple(inner)])
    return tuple(found)


def centred_on_faces(field: Tensor, axis: int, grid: Grid) -> Tensor:
    """A centred field on the free faces of an axis, the mean of two cells; the outermost one on an outflow."""
    dim, n = axis + 1, grid.cells[axis]
    low, high = field.narrow(dim, 0, 1), field.narrow(dim, n - 1, 1)
    around = (high, field) if grid.periodic(axis) else (low, field, high)
    first, behind = grid.free(axis)
    return _mean(torch.cat(around, dim), dim).narrow(dim, first, behind - first)


def _edges(wide: Tensor, axis: int, grid: Grid) -> Tensor:
    """The faces ``0 .. n`` of an extended component."""
    return wide.narrow(axis + 1, 1 - grid.free(axis)[0], grid.cells[axis] + 1)


def _stripped(wide: Tensor, but: Sequence[int]) -> Tensor:
    """Without the points beyond the sides, but for some axes."""
    for axis in range(wide.ndim - 1):
        if axis not in but:
            wide = wide.narrow(axis + 1, 1, wide.shape[axis + 1] - 2)
    return wide


def _mean(field: Tensor, dim: int) -> Tensor:
    n = field.shape[dim] - 1
    return torch.lerp(field.narrow(dim, 0, n), field.narrow(dim, 1, n), 0.5)
