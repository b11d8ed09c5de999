"""``check_gradient``: is the gradient of a problem right? A table of Taylor rates and a verdict."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from dpcontrol import tree
from dpcontrol.meter import Meter
from dpcontrol.problem.base import Problem, View
from dpcontrol.results import UsageError
from dpcontrol.tree import Tree

WIDTHS = tuple(10.0**-power for power in (1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 5.5, 6.0))
PASSING_RATE = 1.9


@dataclass(frozen=True)
class TaylorRow:
    """Remainders ``|J(z + h d) - J(z) - h J'(z) d|`` of one slot over widths ``h``, and the rate at which they fall."""

    slot: str
    widths: tuple[float, ...]
    value_remainders: tuple[float, ...]
    remainders: tuple[float, ...]
    value_rate: float
    rate: float
    slope: float
    verdict: str


@dataclass(frozen=True)
class GradientCheck:
    """What :func:`check_gradient` found. ``passed`` is its verdict."""

    problem: str
    rows: tuple[TaylorRow, ...]
    finite: str

    @property
    def passed(self) -> bool:
        """Whether every slot's gradient is right."""
        return all(row.verdict != "wrong" for row in self.rows)

    def __str__(self) -> str:
        head = f"{'unknown':<24}{'rate of value':>15}{'rate of gradient':>18}{'slope':>13}  verdict"
        lines = [f"Taylor test of {self.problem} (expected rates: 1 and 2)", head, "-" * len(head)]
        lines += [
            f"{row.slot:<24}{row.value_rate:>15.3f}{row.rate:>18.3f}{row.slope:>13.4g}  {row.verdict}"
            for row in self.rows
        ]
        return "\n".join(
            [*lines, self.finite, f"verdict: the gradient is {'right' if self.passed else 'WRONG'}"]
        )


def check_gradient(problem: Problem, *, seed: int = 0, at: Tree = None) -> GradientCheck:
    """Taylor test of the gradient in every slot of the unknown, in float64, in a random direction.

    With the gradient ``J'``, ``|J(z + h d) - J(z)| = O(h)`` and ``|J(z + h d) - J(z) - h J'(z) d| = O(h^2)``. The rates
    are read off the best decade of widths above the rounding floor. A remainder at the rounding floor for every width
    (a linear or quadratic loss may do that) counts as right; a kink near the point shows as ``kinked`` where a central
    difference still agrees with the slope.

    Args:
        problem: what to check; it is not changed.
        seed: of the point and the directions.
        at: the point; by default the start guess, moved by a tenth of the typical magnitudes.

    Raises:
        UsageError: if the problem offers no exact gradient.
    """
    if not isinstance(problem, Problem):
        raise UsageError(f"check_gradient needs a Problem; found {type(problem).__name__}.")
    if View.EXACT_GRADIENT not in problem.offers:
        raise UsageError(f"{problem.name} offers no exact gradient, so there is nothing to check.")
    exact = in_double(problem)
    generator = torch.Generator().manual_seed(seed)
    meter = Meter(exact)
    point = (
        meter.start() if at is None else tree.ravel(exact.unknown.free(tree.to(at, dtype=torch.float64)), 1)
    )
    scale = meter.magnitudes()
    if at is None:
        point = _inside(meter, point + 0.1 * scale * _random(point, generator))
    rows = []
    for slot in exact.unknown.names:
        mask = _mask(meter, slot)
        direction = scale * _random(point, generator) * mask
        rows.append(_row(meter, slot, point, direction))
    return GradientCheck(problem.name, tuple(rows), _finiteness(exact, meter.trees(point)))


def in_double(problem: Problem) -> Problem:
    """The same problem in float64."""
    data = {name: tree.to(value, dtype=torch.float64) for name, value in problem.scenarios.data.items()}
    return replace(problem, scenarios=replace(problem.scenarios, data=data))


def _row(meter: Meter, slot: str, point: Tensor, direction: Tensor) -> TaylorRow:
    losses, gradients = meter.values_and_gradients(point)
    value, slope = float(losses.sum()), float((gradients * direction).sum())
    first, second = [], []
    for h in WIDTHS:
        moved = float(meter.values(point + h * direction).sum())
        first.append(abs(moved - value))
        second.append(abs(moved - value - h * slope))
    floor = 1e3 * torch.finfo(torch.float64).eps * max(abs(value), 1e-300)
    value_rate, rate = _best_rate(first, floor), _best_rate(second, floor)
    verdict = _verdict(meter, point, direction, slope, second, floor, rate)
    return TaylorRow(slot, WIDTHS, tuple(first), tuple(second), value_rate, rate, slope, verdict)


def _verdict(
    meter: Meter,
    point: Tensor,
    direction: Tensor,
    slope: float,
    remainders: list[float],
    floor: float,
    rate: float,
) -> str:
    if not math.isfinite(slope):
        return "wrong"
    if all(remainder <= floor for remainder in remainders):
        return "right (the loss is linear here)"
    if rate >= PASSING_RATE:
        return "right"
    h = 1e-6
    ahead, behind = (float(meter.values(point + side * h * direction).sum()) for side in (1, -1))
    central = (ahead - behind) / (2 * h)
    close = abs(central - slope) <= 1e-4 * max(abs(central), abs(slope)) + floor / h
    return "right (kinked: the rate is below 2, a central difference agrees)" if close else "wrong"


def _best_rate(remainders: list[float], floor: float) -> float:
    """The steepest fall over two neighbouring widths, among remainders above the rounding floor; NaN if none is."""
    usable = [i for i, value in enumerate(remainders) if value > floor]
    rates = [
        math.log(remainders[i] / remainders[i + 2]) / math.log(WIDTHS[i] / WIDTHS[i + 2])
        for i in usable
        if i + 2 in usable
    ]
    return sorted(rates)[len(rates) // 2] if rates else math.nan


def _mask(meter: Meter, slot: str) -> Tensor:
    """Ones where a slot's numbers stand in the rows, zeros elsewhere."""
    layout = meter.layout()
    marks = {
        name: tree.map(lambda leaf, n=name: torch.full_like(leaf, float(n == slot)), layout[name])
        for name in layout
    }
    return tree.ravel(marks)[None]


def _random(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=generator, dtype=like.dtype).to(like.device)


def _inside(meter: Meter, point: Tensor) -> Tensor:
    limits = meter.limits()
    return point if limits is None else point.clamp(*limits)


def _finiteness(problem: Problem, z: Any) -> str:
    """One line on the size of the states over the steps."""
    trajectory = problem.simulate(z, plant=False)
    sizes = [
        max(float(leaf[k].abs().max()) for leaf in tree.leaves(trajectory.states))
        for k in range(trajectory.horizon + 1)
    ]
    bad = [k for k, size in enumerate(sizes) if not math.isfinite(size)]
    if bad:
        before = f"{sizes[bad[0] - 1]:.3g}" if bad[0] else "not there"
        return f"states: NOT FINITE from step {bad[0]} on (largest value before: {before})"
    return f"states: finite at all {len(sizes)} steps, largest value {max(sizes):.4g} at step {sizes.index(max(sizes))}"
