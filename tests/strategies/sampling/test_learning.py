"""What the warm-up learns, and posteriors of walks from one end to the other.

Statistical comparisons have a false-alarm rate of 1e-4 each; seeds are fixed.
"""

import arviz
import numpy as np
import pytest
from sampling_targets import Banana, Gaussian, Here, begun, walked
from scipy import stats

from dpcontrol.strategies.posteriors.sampling import (
    Chains,
    CrankNicolson,
    Langevin,
    Metric,
    NoUTurn,
    Plan,
    RandomWalk,
    Schedule,
    StepSize,
    Walk,
    find_mode,
    refined,
)

ALARM = 1e-4
RANDOM = np.random.default_rng(0)
ROOT = RANDOM.standard_normal((10, 10))
TEN = Gaussian(np.arange(10.0), ROOT @ ROOT.T + 0.1 * np.eye(10))


def close(x, ask):
    """Means and variances of draws ``(chains, draws, d)`` within their Monte-Carlo error."""
    bound = stats.norm.isf(ALARM / 2 / (2 * x.shape[2]))
    flat = x.reshape(-1, x.shape[2])
    sd = np.sqrt(np.diag(ask.covariance))
    for i in range(x.shape[2]):
        error = sd[i] / np.sqrt(arviz.ess(x[:, :, i], method="mean"))
        assert abs(flat[:, i].mean() - ask.mean[i]) < bound * error
        square = (x[:, :, i] - ask.mean[i]) ** 2
        error = np.sqrt(2) * sd[i] ** 2 / np.sqrt(arviz.ess(square, method="mean"))
        assert abs(square.mean() - sd[i] ** 2) < bound * error


@pytest.mark.parametrize("dense", [True, False])
def test_nuts_on_a_correlated_normal(dense):
    x = TEN.mean + RANDOM.standard_normal((4, 10))
    walk = walked(NoUTurn(), TEN, x, draws=500 if dense else 100, warmup=300 if dense else 150, dense=dense)
    record = walk.record()
    close(record.x, TEN)
    assert not record.divergent.any()
    assert 0.7 < record.accepted.mean() < 0.97
    if dense:  # the metric has learned the correlations: the trajectories are short
        assert record.steps.mean() < 10
        assert min(arviz.ess(record.x[:, :, i]) for i in range(10)) > 1000
    np.testing.assert_allclose(record.log_density, TEN(record.x.reshape(-1, 10))[0].reshape(4, -1))


@pytest.mark.parametrize(
    "kernel, thin", [(Langevin(), 5), (RandomWalk(2.38 / np.sqrt(10)), 40)], ids=["mala", "metropolis"]
)
def test_other_kernels_on_a_correlated_normal(kernel, thin):
    x = TEN.mean + RANDOM.standard_normal((8, 10))
    walk = walked(kernel, TEN, x, draws=200, warmup=200, thin=thin)
    close(walk.record().x, TEN)
    assert walk.record().accepted.mean() == pytest.approx(kernel.target, abs=0.12)
    assert (walk.record().steps == thin).all()


def test_nuts_on_a_banana():
    record = walked(NoUTurn(), Banana(), RANDOM.standard_normal((8, 2)), draws=400, warmup=150).record()
    a, b = np.moveaxis(record.x, 2, 0)
    assert stats.kstest(a[:, ::10].ravel(), "norm").pvalue > ALARM
    assert stats.kstest(((b - a**2) * 2)[:, ::10].ravel(), "norm").pvalue > ALARM


def test_same_seed_same_draws_and_another_seed_others():
    x = RANDOM.standard_normal((3, 10))
    first, second, other = (
        walked(NoUTurn(), TEN, x, draws=20, warmup=40, seed=seed).record() for seed in (1, 1, 2)
    )
    assert np.array_equal(first.x, second.x) and np.array_equal(first.steps, second.steps)
    assert not np.array_equal(first.x, other.x)


@pytest.mark.parametrize(
    "kernel", [NoUTurn(), Langevin(), RandomWalk(0.7)], ids=["nuts", "mala", "metropolis"]
)
def test_a_walk_goes_on_from_its_state_to_the_bit(kernel):
    plan = Plan(15, Schedule.of(30), 2)
    x = RANDOM.standard_normal((3, 10))
    states = []
    walk = begun(kernel, TEN, x, Metric.identity(10), plan)
    walk.run(Here(kernel, TEN, 2, block=1), lambda: states.append(walk.pack()))
    assert len(states) == 45
    for packed in states[3::13]:
        again = Walk.unpacked(plan, packed)
        again.run(Here(kernel, TEN, 2), lambda: None)
        assert np.array_equal(again.record().x, walk.record().x)
        assert np.array_equal(again.record().energy, walk.record().energy)


def test_crank_nicolson_does_not_take_longer_steps_than_independent_ones():
    def nothing(x):
        return np.zeros(len(x)), np.zeros((len(x), 1))

    walk = walked(CrankNicolson(), nothing, RANDOM.standard_normal((4, 3)), draws=10, warmup=100)
    assert (walk.chains.size.step <= 1).all() and (walk.chains.size.step > 0.999).all()


def test_shares_of_chains_are_joined_again():
    walk = begun(
        NoUTurn(), TEN, RANDOM.standard_normal((5, 10)), Metric.identity(10), Plan(1, Schedule.of(0))
    )
    whole = walk.chains
    joined = Chains.joined([whole.take(0, 2), whole.take(2, 5)])
    assert np.array_equal(joined.points.x, whole.points.x)
    assert np.array_equal(joined.size.log_step, whole.size.log_step)
    assert joined.randoms == whole.randoms


# -- metrics ---------------------------------------------------------------------------------------------------------


def root_of(metric):
    return metric.push(np.eye(metric.dimension)).T


@pytest.mark.parametrize(
    "metric",
    [
        Metric(np.array([1.0, 2.0, 0.3])),
        Metric.of_hessian(np.linalg.inv(TEN.covariance)[:3, :3]),
        Metric(np.array([1.0, 2.0, 0.3]), root=ROOT[:3, :3]),
        Metric.of_jacobian(ROOT[:2, :3]),
        Metric(np.array([1.0, 2.0, 0.3]), basis=np.linalg.qr(ROOT[:3, :2])[0], factors=np.array([0.1, 4.0])),
    ],
)
def test_push_pull_and_whiten_are_one_map(metric):
    y, g = RANDOM.standard_normal((4, 3)), RANDOM.standard_normal((4, 3))
    root = root_of(metric)
    np.testing.assert_allclose(metric.push(y), y @ root.T, atol=1e-12)
    np.testing.assert_allclose(metric.pull(g), g @ root, atol=1e-12)
    np.testing.assert_allclose(metric.whiten(metric.push(y)), y, atol=1e-12)
    again = Metric.unpacked(metric.pack())
    assert np.array_equal(again.push(y), metric.push(y))


def test_metrics_of_a_hessian_and_of_a_jacobian():
    jacobian = ROOT[:4]
    hessian = np.eye(10) + jacobian.T @ jacobian
    for metric in (Metric.of_hessian(hessian), Metric.of_jacobian(jacobian)):
        root = root_of(metric)
        np.testing.assert_allclose(root @ root.T, np.linalg.inv(hessian), atol=1e-12)
    assert np.isfinite(root_of(Metric.of_hessian(np.diag([1.0, 0.0, -2.0])))).all()


def test_few_draws_leave_the_metric_and_many_teach_it():
    base = Metric.of_hessian(np.linalg.inv(TEN.covariance))
    few = TEN.exact(RANDOM, 12).reshape(2, 6, 10)
    kept = root_of(refined(base, few, dense=True))
    ratio = np.linalg.eigvals(np.linalg.solve(TEN.covariance, kept @ kept.T)).real
    assert 0.4 < ratio.min() and ratio.max() < 2.5  # as they are, some would be near 0
    many = TEN.exact(RANDOM, 20000).reshape(2, -1, 10)
    learned = root_of(refined(Metric.identity(10), many, dense=True))
    np.testing.assert_allclose(learned @ learned.T, TEN.covariance, atol=0.05 * TEN.covariance.max())
    scale = refined(Metric(np.full(10, 3.0)), many, dense=False).scale
    np.testing.assert_allclose(scale, np.sqrt(np.diag(TEN.covariance)), rtol=0.05)


# -- steps and windows -------------------------------------------------------------------------------------------------


def test_dual_averaging_finds_the_step_of_its_target():
    size = StepSize.starting(np.array([0.001, 1.0, 50.0]))
    for _ in range(500):
        size = size.learned(np.exp(-size.step), 0.8)
    np.testing.assert_allclose(np.exp(size.log_mean), -np.log(0.8), rtol=0.1)
    assert len(set(size.settled().step)) == 1


@pytest.mark.parametrize("warmup", [0, 1, 19, 20, 100, 149, 150, 151, 300, 500, 1000, 12345])
def test_windows_fill_the_warm_up(warmup):
    schedule = Schedule.of(warmup)
    edges = schedule.edges
    assert list(edges) == sorted(set(edges))
    assert all(schedule.begin < edge <= warmup for edge in edges)
    if warmup >= 20:
        assert (edges and edges[-1] < warmup) or warmup < 30
    if warmup == 1000:
        assert edges == (100, 150, 250, 450, 950)


def test_the_mode_is_found_beyond_a_wall():
    def ask(x):
        value, slope = TEN(x)
        lost = x[:, 0] > 0.5
        return np.where(lost, -np.inf, value), np.where(lost[:, None], 0.0, slope)

    assert np.abs(find_mode(TEN, np.full(10, 5.0), 200) - TEN.mean).max() < 0.1
    assert ask(find_mode(ask, TEN.mean - 3.0, 200)[None])[0][0] > ask(TEN.mean[None] - 3.0)[0][0]
