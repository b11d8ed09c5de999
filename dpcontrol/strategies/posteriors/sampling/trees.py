r"""``NoUTurn``: the No-U-Turn sampler, all chains at once.

The chains double their trajectories together. At any leapfrog all chains that are still in their tree have trees of the
same depth and stand at the same leaf, so that one vectorised loop serves them all and their questions are one batch; a
chain whose tree has ended leaves the arrays. The U-turns of all subtrees that end with a leaf are found without
recursion: for every level the momentum and the momentum sum with which the current subtree began are at hand.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dpcontrol.strategies.posteriors.sampling.asking import (
    Array,
    Ask,
    Chains,
    Moved,
    Points,
    log_uniforms,
    normals,
)
from dpcontrol.strategies.posteriors.sampling.leapfrog import Phase, leapfrog
from dpcontrol.strategies.posteriors.sampling.metric import Metric

DIVERGENT = 1000.0  # how much the energy may grow


@dataclass(frozen=True)
class NoUTurn:
    """Multinomial sampling from a trajectory that doubles until it turns back.

    The next point is drawn from the trajectory with weights ``exp(-energy)``, progressively: uniformly within a new
    half, biased towards the new half between the halves. A trajectory ends where the momentum at either end points
    against the sum of all momenta (in the metric), for the whole, for every subtree, and for each half together with
    the first point of the other; where it has ``depth`` doublings; or where it diverges: the energy has grown by more
    than 1000, or the log-density is not finite. A half that turns or diverges inside is not drawn from.

    Args:
        depth: doublings at most.

    Source: M. Hoffman, A. Gelman, "The No-U-Turn sampler", JMLR 15 (2014); M. Betancourt, "A conceptual introduction
    to Hamiltonian Monte Carlo", arXiv:1701.02434, appendix A; the check across halves as in Stan 2.21 and later.
    """

    depth: int = 10
    target: float = 0.8
    first_step: float = 1.0
    largest_step: float = np.inf
    uses_metric: bool = True

    def move(self, chains: Chains, step: Array, metric: Metric, ask: Ask) -> Moved:
        """One transition of all chains with step sizes ``step (chains,)``."""
        points = chains.points
        momentum = normals(chains.randoms, points.x.shape[1])
        force = metric.pull(points.gradient)
        tree = Trees(Phase(points.x, momentum, points.log_density, points.gradient, force), step)
        for level in range(self.depth):
            if not tree.double(level, chains.randoms, metric, ask):
                break
        return tree.moved()


class Trees:
    """The growing trajectories of all chains.

    Attributes of all chains: the drawn point, its weight's rest. Attributes of the ``active`` ones (chain numbers in
    ascending order), compact: the two ends, the sum of all momenta, the logarithm of the sum of weights.
    """

    def __init__(self, start: Phase, step: Array) -> None:
        chains = len(step)
        self.energy = start.hamiltonian()
        self.drawn = Points(start.x.copy(), start.log_density.copy(), start.gradient.copy())
        self.steps = np.zeros(chains, dtype=np.int64)
        self.divergent = np.zeros(chains, dtype=bool)
        self.accepted = np.zeros(chains)
        self.active = np.arange(chains)
        self._step = step
        self._ends = [start, start]  # backward, forward
        self._sum = start.momentum
        self._weight = np.zeros(chains)

    def moved(self) -> Moved:
        """What the transition came to."""
        mean = self.accepted / np.maximum(self.steps, 1)
        return Moved(self.drawn, mean, self.divergent, self.steps, self.energy)

    def double(self, level: int, randoms: list[np.random.Generator], metric: Metric, ask: Ask) -> bool:
        """Add a half of ``2^level`` points to every active trajectory; whether any is still active then."""
        luck = log_uniforms([randoms[chain] for chain in self.active], 2**level + 2)
        forward = luck[:, 0] > -np.log(2.0)
        backward_end, forward_end = self._ends
        inner = _picked(forward, forward_end, backward_end)
        signed = np.where(forward, 1.0, -1.0) * self._step[self.active]
        half = Half(inner, signed[:, None], self.energy[self.active], luck[:, 2:])
        rows = half.grow(level, metric, ask)
        self._count(half)
        if len(rows) < len(self.active):
            self._keep(rows)
            if not len(rows):
                return False
            forward, inner, luck = forward[rows], inner.take(rows), luck[rows]
            backward_end, forward_end = self._ends
        new = half.last
        better = luck[:, 1] < half.weight - self._weight
        _write(self.drawn, self.active[better], half.drawn, better)
        self._weight = np.logaddexp(self._weight, half.weight)
        outer = _momentum(forward, backward_end, forward_end)
        whole = self._sum + half.sum
        on = _ahead(outer, new.momentum, whole)
        on &= _ahead(outer, half.first, self._sum + half.first)
        on &= _ahead(inner.momentum, new.momentum, half.sum + inner.momentum)
        self._sum = whole
        self._ends = [_picked(forward, backward_end, new), _picked(forward, new, forward_end)]
        if not on.all():
            self._keep(np.flatnonzero(on))
        return bool(len(self.active))

    def _count(self, half: Half) -> None:
        self.steps[self.active] += half.steps
        self.accepted[self.active] += half.accepted
        self.divergent[self.active] = half.divergent

    def _keep(self, rows: Array) -> None:
        """Only these active chains go on."""
        self.active = self.active[rows]
        self._ends = [end.take(rows) for end in self._ends]
        self._sum, self._weight = self._sum[rows], self._weight[rows]


class Half:
    """New halves of some trajectories, grown leaf by leaf from ``last`` on.

    ``steps, accepted, divergent`` are of all rows that it began with, written when a row leaves; everything else is of
    those that are still there.
    """

    def __init__(self, start: Phase, step: Array, energy: Array, luck: Array) -> None:
        rows = len(step)
        self.last = start
        self.steps = np.zeros(rows, dtype=np.int64)
        self.accepted = np.zeros(rows)
        self.divergent = np.zeros(rows, dtype=bool)
        self._step, self._energy, self._luck = step, energy, luck
        self._rows, self._accepting = np.arange(rows), np.zeros(rows)

    def grow(self, level: int, metric: Metric, ask: Ask) -> Array:
        """Take ``2^level`` steps; the rows (ascending) in which nothing turned back or diverged."""
        self.sum = np.zeros_like(self.last.momentum)
        self._begin = [self.sum] * (level + 1)  # momenta that the current subtree of each level began with
        self._before = [self.sum] * (level + 1)  # the sum of momenta before it
        self._middle = [self.sum] * (level + 1)  # the last momentum of its first half
        for leaf in range(2**level):
            self.last = leapfrog(ask, metric, self.last, self._step)
            weight = self._energy - self.last.hamiltonian()
            fine = weight >= -DIVERGENT  # not a number is not
            if not fine.all():
                self.divergent[self._rows[~fine]] = True
                weight = np.where(np.isnan(weight), -np.inf, weight)
            self._accepting += np.exp(np.minimum(weight, 0.0))
            self._draw(leaf, weight)
            fine &= self._straight(leaf, level)
            if not fine.all():
                self._leave(~fine, leaf + 1)
                self._keep(np.flatnonzero(fine))
                if not len(self._rows):
                    return self._rows
        self._leave(np.ones(len(self._rows), dtype=bool), 2**level)
        return self._rows

    def _draw(self, leaf: int, weight: Array) -> None:
        """Draw among the leaves so far, uniformly by weight."""
        here = Points(self.last.x, self.last.log_density, self.last.gradient)
        if leaf == 0:
            self.first, self.weight, self.drawn = self.last.momentum, weight, here
            return
        self.weight = np.logaddexp(self.weight, weight)
        chosen = self._luck[:, leaf] < weight - self.weight
        if chosen.any():
            self.drawn = self.drawn.where(chosen, here)

    def _straight(self, leaf: int, level: int) -> Array:
        """Whether no subtree that ends with this leaf turns back."""
        momentum, before = self.last.momentum, self.sum
        self.sum = before + momentum
        for k in range((_trailing_zeros(leaf) if leaf else level) + 1):
            self._begin[k], self._before[k] = momentum, before
        ended = _trailing_zeros(leaf + 1)
        on = np.ones(len(momentum), dtype=bool)
        for k in range(1, ended + 1):
            begin, whole = self._begin[k], self.sum - self._before[k]
            on &= _ahead(begin, momentum, whole)
            if k > 1:
                first, second = self._middle[k], self._begin[k - 1]
                left = self._before[k - 1] - self._before[k]
                on &= _ahead(begin, second, left + second)
                on &= _ahead(first, momentum, whole - left + first)
        if ended < level:
            self._middle[ended + 1] = momentum
        return on

    def _leave(self, leaving: Array, steps: int) -> None:
        rows = self._rows[leaving]
        self.steps[rows], self.accepted[rows] = steps, self._accepting[leaving]

    def _keep(self, rows: Array) -> None:
        self._rows, self._accepting = self._rows[rows], self._accepting[rows]
        self.last, self.drawn = self.last.take(rows), self.drawn.take(rows)
        self._step, self._energy, self._luck = self._step[rows], self._energy[rows], self._luck[rows]
        self.weight, self.sum, self.first = self.weight[rows], self.sum[rows], self.first[rows]
        for listed in (self._begin, self._before, self._middle):
            listed[:] = [each[rows] for each in listed]


def _ahead(one: Array, other: Array, way: Array) -> Array:
    """Whether both momenta point along the way, ``(rows,)``."""
    return (np.vecdot(one, way) > 0.0) & (np.vecdot(other, way) > 0.0)


def _trailing_zeros(number: int) -> int:
    return (number & -number).bit_length() - 1


def _picked(chosen: Array, there: Phase, elsewhere: Phase) -> Phase:
    """``there`` in the chosen rows, ``elsewhere`` in the others."""
    if chosen.all():
        return there
    if not chosen.any():
        return elsewhere
    wide = chosen[:, None]
    return Phase(
        np.where(wide, there.x, elsewhere.x),
        np.where(wide, there.momentum, elsewhere.momentum),
        np.where(chosen, there.log_density, elsewhere.log_density),
        np.where(wide, there.gradient, elsewhere.gradient),
        np.where(wide, there.force, elsewhere.force),
    )


def _momentum(chosen: Array, there: Phase, elsewhere: Phase) -> Array:
    return np.where(chosen[:, None], there.momentum, elsewhere.momentum)


def _write(points: Points, to: Array, source: Points, chosen: Array) -> None:
    points.x[to] = source.x[chosen]
    points.log_density[to] = source.log_density[chosen]
    points.gradient[to] = source.gradient[chosen]
