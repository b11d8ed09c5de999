"""The vectorised trees of NUTS against a recursive definition of one chain, and what it does where things go wrong."""

import numpy as np
import pytest
from sampling_targets import Banana, Elementwise, Funnel, Walled

from dpcontrol.strategies.posteriors.sampling import Chains, Metric, NoUTurn, Points, StepSize, chain_randoms
from dpcontrol.strategies.posteriors.sampling.leapfrog import Phase, leapfrog


def turns(momenta):
    """Whether a subtree of momenta ``(2^k, d)`` turns back by the definition: it, a part of it, across its halves."""
    count = len(momenta)
    if count == 1:
        return False
    left, right = momenta[: count // 2], momenta[count // 2 :]
    ways = (
        (left[0], right[-1], momenta.sum(0)),
        (left[0], right[0], left.sum(0) + right[0]),
        (left[-1], right[-1], right.sum(0) + left[-1]),
    )
    against = any(one @ way <= 0 or other @ way <= 0 for one, other, way in ways)
    return turns(left) or turns(right) or against


def recursive(x, ask, step, depth, random):
    """One transition of one chain from ``x (1, d)``, all of its trajectory in lists: point, steps, diverged."""
    metric = Metric.identity(x.shape[1])
    momentum = random.standard_normal(x.shape[1])[None]
    value, gradient = ask(x)
    start = Phase(x, momentum, value, gradient, gradient)
    energy = start.hamiltonian()[0]
    path, drawn, weight, steps = [start], x[0], 0.0, 0
    for level in range(depth):
        luck = np.log(1 - random.random(2**level + 2))
        forward = luck[0] > -np.log(2)
        half, weights = [], []
        here = path[-1] if forward else path[0]
        for leaf in range(2**level):
            here = leapfrog(ask, metric, here, np.full((1, 1), step if forward else -step))
            half.append(here)
            steps += 1
            weights.append(energy - here.hamiltonian()[0])
            if not weights[-1] >= -1000:
                return drawn, steps, True
            # subtrees that are complete already
            complete = [2**k for k in range(1, level + 1) if (leaf + 1) % 2**k == 0]
            if any(turns(np.concatenate([each.momentum for each in half[-size:]])) for size in complete):
                return drawn, steps, False
        chosen, total = half[0].x[0], weights[0]
        for leaf in range(1, len(half)):
            total = np.logaddexp(total, weights[leaf])
            if luck[2 + leaf] < weights[leaf] - total:
                chosen = half[leaf].x[0]
        if luck[1] < total - weight:
            drawn = chosen
        weight = np.logaddexp(weight, total)
        path = path + half if forward else half[::-1] + path
        momenta = np.concatenate([each.momentum for each in path])
        left, right = momenta[: 2**level], momenta[2**level :]
        ways = (
            (left[0], right[-1], momenta.sum(0)),
            (left[0], right[0], left.sum(0) + right[0]),
            (left[-1], right[-1], right.sum(0) + left[-1]),
        )
        if any(one @ way <= 0 or other @ way <= 0 for one, other, way in ways):
            break
    return drawn, steps, False


@pytest.mark.parametrize("ask", [Banana(), Funnel(), Walled()], ids=["banana", "funnel", "walled"])
@pytest.mark.parametrize("step", [0.02, 0.15, 0.9])
def test_all_chains_at_once_are_the_recursion_of_each(ask, step):
    chains, depth = 12, 7
    start = np.abs(np.random.default_rng(5).standard_normal((chains, 3 if ask == Funnel() else 2)))
    batch = Chains(Points.asked(ask, start), StepSize.starting(np.ones(chains)), chain_randoms(7, chains))
    moved = NoUTurn(depth).move(batch, np.full(chains, step), Metric.identity(start.shape[1]), ask)
    for i, random in enumerate(chain_randoms(7, chains)):
        drawn, steps, diverged = recursive(start[i : i + 1], ask, step, depth, random)
        np.testing.assert_allclose(moved.points.x[i], drawn, rtol=1e-9, atol=1e-12)
        assert moved.steps[i] == steps
        assert moved.divergent[i] == diverged
    value, slope = ask(moved.points.x)
    np.testing.assert_allclose(moved.points.log_density, value, rtol=1e-9)
    np.testing.assert_allclose(moved.points.gradient, slope, rtol=1e-9)


def test_a_chain_moves_the_same_whoever_goes_with_it():
    ask = Elementwise(np.array([1.0, 3.0, 0.2]))
    x = np.random.default_rng(1).standard_normal((5, 3))
    step, metric = np.linspace(0.05, 0.2, 5), Metric(np.array([1.0, 2.0, 0.3]))

    def after(rows):
        randoms = [chain_randoms(3, 5)[i] for i in rows]
        chains = Chains(Points.asked(ask, x[rows]), StepSize.starting(step[rows]), randoms)
        for _ in range(20):
            moved = NoUTurn().move(chains, step[rows], metric, ask)
            chains = Chains(moved.points, chains.size, randoms)
        return chains.points.x

    together = after([0, 1, 2, 3, 4])
    assert np.array_equal(together[[1, 4]], after([1, 4]))
    assert np.array_equal(together[2], after([2])[0])


@pytest.mark.parametrize("bad", [-np.inf, np.nan])
def test_a_point_that_cannot_be_ends_the_tree_and_the_chain_lives(bad):
    asked = []

    def ask(x):
        asked.append(len(x))
        return np.full(len(x), bad), np.zeros_like(x)

    x = np.ones((3, 2))
    points = Points(x, np.zeros(3), -x)
    chains = Chains(points, StepSize.starting(np.ones(3)), chain_randoms(0, 3))
    moved = NoUTurn().move(chains, np.full(3, 0.1), Metric.identity(2), ask)
    assert moved.divergent.all() and (moved.steps == 1).all() and asked == [3]
    assert np.array_equal(moved.points.x, x) and (moved.accepted == 0).all()


def test_a_trajectory_is_no_deeper_than_asked():
    ask = Elementwise(np.ones(2))
    chains = Chains(Points.asked(ask, np.ones((4, 2))), StepSize.starting(np.ones(4)), chain_randoms(0, 4))
    moved = NoUTurn(depth=3).move(chains, np.full(4, 1e-4), Metric.identity(2), ask)
    assert (moved.steps == 7).all()
    assert (moved.accepted > 0.999).all()
