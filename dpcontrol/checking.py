"""``check_gradient``: is the gradient of a problem right? A table of Taylor rates and a verdict."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dpcontrol import tree
from dpcontrol.meter import Meter
from dpcontrol.problem.adjoint import gradient_growth, in_double
from dpcontrol.problem.base import Problem, View
from dpcontrol.problem.diagnosis import diagnose
from dpcontrol.results import UsageError
from dpcontrol.tree import Tree

WIDTHS = tuple(10.0 ** (-half / 2) for half in range(13))
PROBING_WIDTHS = (-1e-8, -5e-9, 5e-9, 1e-8)
DIFFERENCE_WIDTHS = (1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8)
PASSING_RATE, PASSING_HESSIAN_RATE = 1.9, 2.9
UNJUDGED = "cannot be judged"


@dataclass(frozen=True)
class TaylorRow:
    """Remainders of one slot over widths ``h``, and the rates at which they fall.

    Attributes:
        value_remainders: ``|J(z + h d) - J(z)|``.
        remainders: ``|J(z + h d) - J(z) - h J'(z) d|``.
        hessian_remainders: ``|J(z + h d) - J(z) - h J'(z) d - h^2 / 2 d J''(z) d|``; empty if there is no ``J''``.
        value_rate, rate, hessian_rate: 1, 2 and 3 are expected; NaN where all is rounding.
        slope: ``J'(z) d``; ``curvature``: ``d J''(z) d``.
        verdict: on the gradient; ``cannot be judged`` where the loss itself is not finite.
        hessian: on the Hessian: ``right``, ``quadratic`` (the third remainder is rounding), ``not smooth`` (the
            derivative jumps nearby; where the gradient jumps as well, no more can be said), ``not there``, ``WRONG``.
    """

    slot: str
    widths: tuple[float, ...]
    value_remainders: tuple[float, ...]
    remainders: tuple[float, ...]
    hessian_remainders: tuple[float, ...]
    value_rate: float
    rate: float
    hessian_rate: float
    slope: float
    curvature: float
    verdict: str
    hessian: str


@dataclass(frozen=True)
class GradientCheck:
    """What :func:`check_gradient` found. ``passed`` is its verdict; ``unjudged`` says why there is none, if so.

    ``at_start`` says what is not finite at the start guess, from where a search would have to begin.
    """

    problem: str
    rows: tuple[TaylorRow, ...]
    finite: str
    growth: str
    unjudged: str | None = None
    at_start: str | None = None

    @property
    def passed(self) -> bool:
        """Whether every slot's gradient is right, also at the start guess there, and no Hessian wrong."""
        return (
            self.unjudged is None
            and self.at_start is None
            and all(row.verdict != "wrong" and row.hessian != "WRONG" for row in self.rows)
        )

    def __str__(self) -> str:
        titles = f"{'rate of value':>15}{'rate of gradient':>18}{'rate of Hessian':>17}{'slope':>13}"
        head = f"{'unknown':<24}{titles}  verdict"
        lines = [f"Taylor test of {self.problem} (expected rates: 1, 2 and 3)", head, "-" * len(head)]
        lines += [
            f"{row.slot:<24}{row.value_rate:>15.3f}{row.rate:>18.3f}{_hessian_entry(row):>17}"
            f"{row.slope:>13.4g}  {row.verdict}"
            for row in self.rows
        ]
        return "\n".join([*lines, self.finite, self.growth, f"verdict: {self._sentence()}"])

    def _sentence(self) -> str:
        if self.unjudged is not None:
            return f"the gradient {UNJUDGED}: {self.unjudged}"
        if any(row.verdict == "wrong" for row in self.rows):
            return "the gradient is WRONG"
        wrong = [row.slot for row in self.rows if row.hessian == "WRONG"]
        if wrong:
            return (
                f"the gradient is right, the second derivative in {', '.join(wrong)} is WRONG: "
                "take no strategy of Newton's kind"
            )
        if self.at_start is not None:
            return f"the gradient is right, but no search can begin at the start guess: {self.at_start}"
        return "the gradient is right"


def check_gradient(problem: Problem, *, seed: int = 0, at: Tree = None) -> GradientCheck:
    """Taylor test of the gradient in every slot of the unknown, in float64, in a random direction.

    With the gradient ``J'`` and the Hessian ``J''`` (by exact Hessian products), ``|J(z + h d) - J(z)| = O(h)``,
    ``|J(z + h d) - J(z) - h J'(z) d| = O(h^2)`` and, where the scheme is smooth, ``O(h^3)`` with
    ``h^2 / 2 d J''(z) d`` taken off as well. Widths are searched from one typical magnitude down to a millionth of it;
    rates are read off the last ones above the rounding floor, which is measured. A remainder at the floor for every
    width (a linear or quadratic loss may do that) counts as right; a kink near the point shows as ``kinked`` or
    ``not smooth`` where central differences still agree with slope and curvature.

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
        mode = "" if problem.gradient.exact else f" under gradient={problem.gradient}"
        raise UsageError(f"{problem.name} offers no exact gradient{mode}, so there is nothing to check.")
    exact = in_double(problem)
    generator = torch.Generator().manual_seed(seed)
    meter = Meter(exact)
    point = (
        meter.start() if at is None else tree.ravel(exact.unknown.free(tree.to(at, dtype=torch.float64)), 1)
    )
    scale = meter.magnitudes()
    at_start = None
    if at is None:
        at_start = _at_start(meter, exact)
        point = _inside(meter, point + 0.1 * scale * _random(point, generator))
    rows = []
    for slot in exact.unknown.names:
        mask = _mask(meter, slot)
        direction = scale * _random(point, generator) * mask
        rows.append(_row(meter, slot, point, direction))
    z = meter.trees(point)
    unjudged = _why_unjudged(exact, z) if any(row.verdict == UNJUDGED for row in rows) else None
    growth = str(gradient_growth(problem, z))
    return GradientCheck(problem.name, tuple(rows), _finiteness(exact, z), growth, unjudged, at_start)


def _at_start(meter: Meter, problem: Problem) -> str | None:
    """What is not finite at the start guess; random points near it may lie beside a kink."""
    losses, _ = meter.values_and_gradients(meter.start())
    if bool(torch.isfinite(losses).all()):
        return None
    return diagnose(problem, problem.start()) or "its loss or gradient is not finite."


def _why_unjudged(problem: Problem, z: Any) -> str:
    """What is not finite, and what to do."""
    found = diagnose(problem, z) or "the loss is not finite."
    return f"{found} Or check it elsewhere: pass at=..., a point where the loss is finite."


def _row(meter: Meter, slot: str, point: Tensor, direction: Tensor) -> TaylorRow:
    losses, gradients = meter.values_and_gradients(point)
    value, slope = float(losses.sum()), float((gradients * direction).sum())
    # the meter calls a loss infinite where only its gradient is not finite: that gradient is wrong
    if not math.isfinite(value) and not math.isfinite(float(meter.values(point).sum())):
        nothing = (math.nan,) * len(WIDTHS)
        rates = (math.nan,) * 3
        return TaylorRow(slot, WIDTHS, nothing, nothing, (), *rates, slope, math.nan, UNJUDGED, "not there")
    curvature = _curvature(meter, point, direction)
    moved = [float(meter.values(point + h * direction).sum()) for h in (*WIDTHS, *PROBING_WIDTHS)]
    probes = torch.tensor([*moved[len(WIDTHS) :], value], dtype=torch.float64)
    floor = max(1e3 * torch.finfo(torch.float64).eps * abs(value), 10 * _roughness(probes - value), 1e-300)
    pairs = list(zip(WIDTHS, moved, strict=False))
    first = [abs(there - value) for _, there in pairs]
    second = [abs(there - value - h * slope) for h, there in pairs]
    third = [abs(there - value - h * slope - h * h / 2 * curvature) for h, there in pairs]
    rate, hessian_rate = _rate(second, floor, 2.0), _rate(third, floor, 3.0)
    verdict = _verdict(meter, point, direction, slope, second, floor, rate)
    return TaylorRow(
        slot,
        WIDTHS,
        tuple(first),
        tuple(second),
        tuple(third) if math.isfinite(curvature) else (),
        _rate(first, floor, 1.0),
        rate,
        hessian_rate,
        slope,
        curvature,
        verdict,
        _hessian(
            meter,
            point,
            direction,
            (slope, curvature),
            third,
            floor,
            hessian_rate,
            kinked="kinked" in verdict,
        ),
    )


def _roughness(values: Tensor) -> float:
    """By how much values at the probing widths and at 0 differ from a straight line: that is rounding."""
    widths = torch.tensor([*PROBING_WIDTHS, 0.0], dtype=torch.float64)
    line = (widths * values).sum() / widths.square().sum() * widths + values.mean()
    return float((values - line).abs().max())


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
    close = False
    for h in (1e-4, 1e-5, 1e-6, 1e-7):
        ahead, behind = (float(meter.values(point + side * h * direction).sum()) for side in (1, -1))
        central = (ahead - behind) / (2 * h)
        close |= abs(central - slope) <= 1e-6 * max(abs(central), abs(slope)) + floor / h
    if not close:
        return "wrong"
    why = "too little above rounding" if math.isnan(rate) else "kinked: the rate is below 2"
    return f"right ({why}, a central difference agrees)"


def _curvature(meter: Meter, point: Tensor, direction: Tensor) -> float:
    """``d J'' d``; NaN where the system cannot be differentiated twice."""
    try:
        return float((meter.hessian_products(point, direction) * direction).sum())
    except RuntimeError as error:  # torch has no type of its own for a missing derivative
        if "twice" in str(error) or "not implemented" in str(error):
            return math.nan
        raise


def _hessian(
    meter: Meter,
    point: Tensor,
    direction: Tensor,
    derivatives: tuple[float, float],
    remainders: list[float],
    floor: float,
    rate: float,
    *,
    kinked: bool,
) -> str:
    """See :class:`TaylorRow`. Where the rate is below 3, differences of gradients tell a kink from a mistake."""
    slope, curvature = derivatives
    if not (math.isfinite(curvature) and math.isfinite(slope)):
        return "not there"
    if all(remainder <= floor for remainder in remainders):
        return "quadratic"
    if rate >= PASSING_HESSIAN_RATE:
        return "right"
    rounding = 1e3 * torch.finfo(torch.float64).eps
    for h in DIFFERENCE_WIDTHS:
        ahead, behind = (
            meter.values_and_gradients(point + side * h * direction)[1] * direction for side in (1, -1)
        )
        size = float(ahead.abs().sum())
        central = float((ahead - behind).sum()) / (2 * h)
        if abs(central - curvature) <= 1e-3 * max(abs(central), abs(curvature)) + rounding * size / h:
            return "right" if math.isnan(rate) else "not smooth"
    # where the gradient itself jumps, differences of gradients cross jumps at any width and accuse nobody
    return "not smooth" if kinked else "WRONG"


def _hessian_entry(row: TaylorRow) -> str:
    if row.hessian == "right" and not math.isnan(row.hessian_rate):
        return f"{row.hessian_rate:.3f}"
    return row.hessian


def _rate(remainders: list[float], floor: float, expected: float) -> float:
    """The rate at which remainders fall with the width, just above the rounding floor; NaN if too few are above it.

    Rates are taken over a decade each. Of the last two decades above the floor, where a small mistake shows, the
    stretch of one and a half decades counts that comes closest to what is expected: a kink may lie in another.
    """
    usable = [math.isfinite(value) and value > floor for value in remainders]
    stretches = []
    for i in range(len(remainders) - 3):
        if all(usable[i : i + 4]):
            both = [_fall(remainders, i), _fall(remainders, i + 1)]
            stretches.append((max(abs(rate - expected) for rate in both), sum(both) / 2))
    if stretches:
        return min(stretches[-2:])[1]
    decades = [_fall(remainders, i) for i in range(len(remainders) - 2) if all(usable[i : i + 3])]
    return decades[-1] if decades else math.nan


def _fall(remainders: list[float], i: int) -> float:
    return math.log(remainders[i] / remainders[i + 2]) / math.log(WIDTHS[i] / WIDTHS[i + 2])


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
