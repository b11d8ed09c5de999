"""How the velocity of a flow continues beyond the sides of its box."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dpcontrol.results import UsageError
from dpcontrol.sim.base import align
from dpcontrol.sim.grid import Grid
from dpcontrol.sim.sides import FreeSlip, Inflow, NoSlip, Outflow, Side


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


def fastest(velocity: Sequence[Tensor], rules: Rules, grid: Grid) -> Tensor:
    """The largest ``sum_a |u_a| / h_a`` of all cells, with the faces of the sides, and of all moving walls."""
    total, candidates = velocity[0].new_zeros(()), []
    for axis, (part, h) in enumerate(zip(velocity, grid.spacing, strict=True)):
        speed, n = on_all_faces(part, axis, rules[axis], grid).abs(), grid.cells[axis]
        faces = torch.maximum(speed.narrow(axis + 1, 0, n), speed.narrow(axis + 1, 1, n))
        total = total + faces / h
    candidates.append(total.max())
    for axis in range(len(grid.cells)):
        if not grid.periodic(axis):
            for side in range(2):
                sliding = velocity[0].new_zeros(())
                for other, h in enumerate(grid.spacing):
                    sliding = sliding + _along(rules[other][axis], side) / h
                candidates.append(sliding.max())
    return torch.stack(candidates).max()


def _along(pair: tuple[Rule, Rule] | None, side: int) -> Tensor | float:
    """The speed of a wall along itself; zero for other sides."""
    rule = pair[side] if pair is not None else Rule(0)
    return 0.5 * rule.value.abs() if rule.sign and rule.value is not None else 0.0
