"""Trust-region descent of many separate losses in lock-step, each with its own radius."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from dpcontrol.strategies.minimising.curvature import Source
from dpcontrol.strategies.minimising.floor import REACHED
from dpcontrol.strategies.minimising.newton import EDGE, NO_LOWER, REJECTIONS
from dpcontrol.strategies.minimising.trust_region import Model, inside_box
from dpcontrol.strategies.verdict import Ended

RUNNING, CONVERGED, AT_THE_FLOOR, NO_LOWER_LOSS, AT_THE_EDGE, SPENT, NOT_FINITE = range(7)
ENDINGS = {
    CONVERGED: Ended("converged"),
    AT_THE_FLOOR: Ended("converged", REACHED),
    NO_LOWER_LOSS: Ended("stalled", NO_LOWER),
    AT_THE_EDGE: Ended("stalled", EDGE),
    SPENT: Ended("iterations spent"),
    NOT_FINITE: Ended("diverged"),
}
GOOD_RATIO, POOR_RATIO, LEAST_RATIO = 0.75, 0.25, 1e-4


@dataclass(frozen=True)
class Rules:
    """When a search ends; see :class:`~dpcontrol.strategies.minimising.gauss_newton.GaussNewton`."""

    iterations: int
    gradient_tolerance: float
    loss_tolerance: float
    radius: float


@dataclass(frozen=True)
class State:
    """All searches. Tensors have the instances first; points are in units of the magnitudes.

    ``promise`` is what the first step that was refused since the last good one had promised, to first order, and
    ``edge`` the iterations for which a radius remains small because a step was not finite.
    """

    y: Tensor
    loss: Tensor
    radius: Tensor
    first: Tensor
    promise: Tensor
    rejected: Tensor
    edge: Tensor
    rounds: Tensor
    ending: Tensor
    model: Model

    def to_tree(self) -> dict[str, Any]:
        """What a resumed run needs."""
        own = {entry.name: getattr(self, entry.name) for entry in fields(self) if entry.name != "model"}
        return {**own, "model": self.model.tensors()}

    @classmethod
    def from_tree(cls, kept: Mapping[str, Any], source: Source) -> State:
        """The state that :meth:`to_tree` described."""
        return cls(**{**kept, "model": source.model_of(kept["model"])})

    def ended(self) -> list[Ended]:
        """How each search ended."""
        return [ENDINGS[int(code)] for code in self.ending]

    def put(self, rows: Tensor, **changes: Tensor) -> State:
        """With other values in some rows."""
        return replace(
            self, **{name: getattr(self, name).index_copy(0, rows, new) for name, new in changes.items()}
        )


def descend(source: Source, start: Tensor, rules: Rules, kept: Mapping[str, Any] | None) -> State:
    """Search each instance from its row of ``start`` ``(instances, d)`` until all have ended, or go on from ``kept``.

    The state is offered to the meter after every iteration.
    """
    state = _begin(source, start, rules) if kept is None else State.from_tree(kept, source)
    while bool((state.ending == RUNNING).any()):
        state = _iterate(state, source, rules)
        source.meter.keep(state.to_tree)
    return state


def _begin(source: Source, start: Tensor, rules: Rules) -> State:
    which = torch.arange(len(start))
    y = start.cpu().double() / source.scale
    y = torch.minimum(torch.maximum(y, source.box(which)[0]), source.box(which)[1])
    loss, known = source.losses(y, which)
    model = source.model(y, which, known)
    loss = torch.where(_finite(model), loss, torch.inf)
    size = _projected(model.slope, y, *source.box(which))
    ending = torch.where(size <= rules.gradient_tolerance, CONVERGED, RUNNING)
    ending = torch.where(torch.isfinite(loss), ending, NOT_FINITE)
    nothing = torch.zeros_like(which)
    radius = torch.full_like(loss, rules.radius * y.shape[1] ** 0.5)
    endless = torch.full_like(loss, torch.inf)
    return State(y, loss, radius, size, endless, nothing, nothing, nothing, ending, model)


def _iterate(state: State, source: Source, rules: Rules) -> State:
    """One step of every search that still goes on; those whose step is refused try a shorter one the next time."""
    rows = torch.nonzero(state.ending == RUNNING).flatten()
    y, loss, radius = state.y[rows], state.loss[rows], state.radius[rows]
    here = state.model.take(rows)
    after = inside_box(here, y, radius, *source.box(rows))
    p = after - y
    predicted = here.decrease(p)
    found, known = source.losses(after, rows)
    ratio = (loss - found) / predicted
    better = (found < loss) & (ratio > LEAST_RATIO) & (predicted > 0)
    state, better = _moved(state, source, rows, better, after, found, known)
    outside = ~torch.isfinite(found) | ~better & (found < loss) & (ratio > LEAST_RATIO)
    state = _measured(state, rows, p, torch.where(outside, -torch.inf, ratio), better, rules)
    promised = torch.where(
        better, torch.inf, torch.minimum(state.promise[rows], (here.slope * p).sum(1).abs())
    )
    first = torch.isinf(state.promise[rows]) | better
    state = state.put(
        rows,
        promise=torch.where(first, promised, state.promise[rows]),
        rejected=torch.where(better, 0, state.rejected[rows] + 1),
        edge=torch.where(outside, REJECTIONS, (state.edge[rows] - 1).clamp(min=0)),
        rounds=state.rounds[rows] + 1,
    )
    flat = better & (loss - found <= rules.loss_tolerance * torch.maximum(loss.abs(), found.abs()))
    return _judged(state, source, rules, rows, flat)


def _moved(
    state: State,
    source: Source,
    rows: Tensor,
    better: Tensor,
    y: Tensor,
    found: Tensor,
    known: Tensor | None,
) -> tuple[State, Tensor]:
    """Go to those trial points that are better, unless the model there is not finite; and which they are."""
    chosen = torch.nonzero(better).flatten()
    if not len(chosen):
        return state, better
    new = source.model(y[chosen], rows[chosen], None if known is None else known[chosen])
    good = _finite(new)
    better = better.index_copy(0, chosen, good)
    kept = torch.nonzero(good).flatten()
    chosen = chosen[kept]
    state = state.put(rows[chosen], y=y[chosen], loss=found[chosen])
    return replace(state, model=state.model.put(rows[chosen], new.take(kept))), better


def _measured(state: State, rows: Tensor, p: Tensor, ratio: Tensor, better: Tensor, rules: Rules) -> State:
    """The radii after steps ``p`` that gained ``ratio`` times what was predicted."""
    radius, length = state.radius[rows], p.norm(dim=1)
    largest = 1000.0 * rules.radius * p.shape[1] ** 0.5
    wider = torch.where(length > 0.99 * radius, (2 * radius).clamp(max=largest), radius)
    after = torch.where(ratio > GOOD_RATIO, wider, radius)
    narrower = torch.minimum(radius, length) / 4
    return state.put(rows, radius=torch.where((ratio < POOR_RATIO) | ~better, narrower, after))


def _judged(state: State, source: Source, rules: Rules, rows: Tensor, flat: Tensor) -> State:
    """Which searches end now; ``flat`` is whether the last step hardly lowered the loss."""
    size = _projected(state.model.slope[rows], state.y[rows], *source.box(rows))
    eps = torch.finfo(source.meter.best.dtype).eps
    floor = (size <= 1000 * eps * state.first[rows]) | (
        state.promise[rows] <= 100 * eps * state.loss[rows].abs()
    )
    refused, held = state.rejected[rows] > 0, state.edge[rows] > 0
    ending = torch.full_like(rows, RUNNING)
    ending = torch.where(state.rounds[rows] >= rules.iterations, SPENT, ending)
    ending = torch.where(state.rejected[rows] >= REJECTIONS, NO_LOWER_LOSS, ending)
    ending = torch.where(flat & held, AT_THE_EDGE, torch.where(flat, CONVERGED, ending))
    ending = torch.where((refused | flat & held) & floor, AT_THE_FLOOR, ending)
    ending = torch.where(~refused & (size <= rules.gradient_tolerance), CONVERGED, ending)
    return state.put(rows, ending=ending)


def _projected(slope: Tensor, y: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Norms of the gradients' feasible parts."""
    inside = torch.minimum(torch.maximum(y - slope, low), high)
    return (y - inside).norm(dim=1)


def _finite(model: Model) -> Tensor:
    parts = [value for value in model.tensors().values() if value.is_floating_point()]
    return torch.stack([torch.isfinite(part).flatten(1).all(1) for part in parts]).all(0)
