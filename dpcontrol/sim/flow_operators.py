r"""Operators of a viscous flow on a staggered grid with walls that may move, and with openings.

Fields as in ``staggered.py``. Each velocity component is first continued by one point beyond every side
(:func:`extended`), as the side asks; differences and means then are the same everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dpcontrol.linalg import Poisson, poisson
from dpcontrol.results import UsageError
from dpcontrol.sim.base import Value, align
from dpcontrol.sim.grid import Grid
from dpcontrol.sim.sides import FixedFlux, FixedValue, FreeSlip, Inflow, NoSlip, Outflow, Side
from dpcontrol.sim.staggered import Faces

Advection = Callable[..., Tensor]


@dataclass(frozen=True)
class Rule:
    """How a velocity component continues beyond a side: ``sign`` times its outermost value, plus ``value``.

    ``value`` is ``(scenarios or 1, ...)`` and broadcasts; ``factor`` names the parameter and the control that scale it.
    """

    sign: int
    value: Tensor | None = None
    factor: str = ""


Rules = tuple[tuple[tuple[Rule, Rule] | None, ...], ...]  # [component][axis], None for periodic axes


def side_rules(grid: Grid, like: Tensor, factors: Mapping[str, Tensor]) -> Rules:
    """The rules of every component beyond every side, for tensors like ``like``.

    Args:
        grid: cells and sides.
        like: gives dtype and device.
        factors: of the speeds, ``"inflow"`` and ``"walls"``, each ``()`` or ``(scenarios,)``.

    Raises:
        UsageError: for a side of scalars, or a moving wall with another number of velocities than the grid wants.
    """
    count = len(grid.cells)
    plain = tuple(
        tuple(
            None
            if grid.periodic(axis)
            else tuple(
                _rule(side, left, component, axis, grid, like) for left, side in enumerate(grid.pair(axis))
            )
            for axis in range(count)
        )
        for component in range(count)
    )
    return scaled(plain, factors)  # type: ignore[arg-type]


def _rule(side: Side, right: int, component: int, axis: int, grid: Grid, like: Tensor) -> Rule:
    through = component == axis
    if isinstance(side, Outflow) or (isinstance(side, FreeSlip) and not through):
        return Rule(1)
    if isinstance(side, FreeSlip) or (isinstance(side, NoSlip) and through):
        return Rule(0)
    if isinstance(side, Inflow):
        return (
            Rule(0, _speeds(side, axis, grid, like) * (-1 if right else 1), "inflow") if through else Rule(-1)
        )
    if isinstance(side, NoSlip):
        others = [other for other in range(len(grid.cells)) if other != axis]
        parts = side.velocity if isinstance(side.velocity, tuple) else (side.velocity,) * (len(others) == 1)
        if side.moves and len(parts) != len(others):
            raise UsageError(
                f"a moving wall of this grid has {len(others)} velocities along itself; found {side.velocity!r}."
            )
        speed = parts[others.index(component)] if parts else 0.0
        return (
            Rule(-1, like.new_full((1,) * (len(grid.cells) + 1), 2.0 * speed), "walls") if speed else Rule(-1)
        )
    raise UsageError(
        f"the sides of a flow are walls, inflows and outflows; found {side!r}, which is for scalars."
    )


def _speeds(side: Inflow, axis: int, grid: Grid, like: Tensor) -> Tensor:
    """The given speeds on the faces of a side, with an axis of length 1 where the side is, and one for scenarios."""
    along = [other for other in range(len(grid.cells)) if other != axis]
    shape = [1] + [1 if other == axis else n for other, n in enumerate(grid.cells)]
    if not callable(side.speed):
        return like.new_full(shape, float(side.speed))
    rows = torch.meshgrid(*(grid.places(None, other) for other in along), indexing="ij")
    found = torch.as_tensor(side.speed(*rows), dtype=torch.float64)
    return found.expand(rows[0].shape if rows else ()).reshape(shape).to(like)


def scaled(rules: Rules, factors: Mapping[str, Tensor]) -> Rules:
    """The rules with their given speeds multiplied by ``factors`` of the same name."""

    def one(rule: Rule) -> Rule:
        if rule.value is None or rule.factor not in factors:
            return rule
        return replace(rule, value=rule.value * align(factors[rule.factor], rule.value))

    return tuple(
        tuple(None if pair is None else (one(pair[0]), one(pair[1])) for pair in row) for row in rules
    )


def _ghost(edge: Tensor, rule: Rule) -> Tensor:
    if rule.value is None:
        return edge if rule.sign == 1 else -edge if rule.sign else torch.zeros_like(edge)
    return rule.value - edge if rule.sign else rule.value.expand_as(edge)


def extended(
    component: Tensor, own: int, rules: Sequence[tuple[Rule, Rule] | None], around: bool = True
) -> Tensor:
    """A component with one more point beyond every side; beyond periodic ones only with ``around``."""
    axes = [
        own,
        *(axis for axis in range(len(rules)) if axis != own),
    ]  # profiles of an inflow have no corners
    for axis in axes:
        pair, dim = rules[axis], axis + 1
        low, high = component.narrow(dim, 0, 1), component.narrow(dim, component.shape[dim] - 1, 1)
        if pair is not None:
            component = torch.cat((_ghost(low, pair[0]), component, _ghost(high, pair[1])), dim)
        elif around:
            component = torch.cat((high, component, low), dim)
    return component


def on_all_faces(
    component: Tensor, axis: int, rules: Sequence[tuple[Rule, Rule] | None], grid: Grid
) -> Tensor:
    """A component on all ``n + 1`` faces along its axis: with those whose velocity is given, or wrapped."""
    pair, dim = rules[axis], axis + 1
    if pair is None:
        return torch.cat((component, component.narrow(dim, 0, 1)), dim)
    first, behind = grid.free(axis)
    parts = [component]
    if first == 1:
        parts.insert(0, _ghost(component.narrow(dim, 0, 1), pair[0]))
    if behind == grid.cells[axis]:
        parts.append(_ghost(component.narrow(dim, component.shape[dim] - 1, 1), pair[1]))
    return torch.cat(parts, dim) if len(parts) > 1 else component


# -- momentum ----------------------------------------------------------------------------------------------------------


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


# -- pressure ----------------------------------------------------------------------------------------------------------


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


__all__ = [
    "FixedFlux",
    "FixedValue",
    "Rule",
    "Rules",
    "acceleration",
    "carried",
    "centred_on_faces",
    "divergence_of",
    "extended",
    "forward_transform",
    "gradient_of",
    "inverse_transform",
    "on_all_faces",
    "open_pressure_solver",
    "scaled",
    "side_rules",
    "travelled",
]
