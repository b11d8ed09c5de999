"""The leapfrog step: second order, reversible, volume preserving, and the same in every metric's coordinates."""

import numpy as np
import pytest
from sampling_targets import Banana, Gaussian
from taylor import convergence_order

from dpcontrol.strategies.posteriors.sampling import Metric
from dpcontrol.strategies.posteriors.sampling.leapfrog import Phase, leapfrog

RANDOM = np.random.default_rng(3)
ROOT = np.array([[0.8, 0.1], [0.3, 1.2]])
METRICS = {
    "identity": Metric.identity(2),
    "diagonal": Metric(np.array([0.5, 2.0])),
    "full": Metric(np.array([1.0, 0.7]), root=ROOT),
    "few": Metric(np.ones(2), basis=np.array([[0.6], [0.8]]), factors=np.array([0.3])),
}


def phase(ask, metric, x, momentum):
    value, gradient = ask(x)
    return Phase(x, momentum, value, gradient, metric.pull(gradient))


def flow(ask, metric, x, momentum, step, count):
    here = phase(ask, metric, x, momentum)
    for _ in range(count):
        here = leapfrog(ask, metric, here, np.full((len(x), 1), step))
    return here


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_the_error_of_the_energy_falls_with_the_square_of_the_step(metric):
    x, momentum = RANDOM.standard_normal((1, 2)), RANDOM.standard_normal((1, 2))
    begin = phase(Banana(), metric, x, momentum).hamiltonian()[0]
    counts = np.array([20, 40, 80, 160])
    errors = [
        abs(flow(Banana(), metric, x, momentum, 0.5 / count, count).hamiltonian()[0] - begin)
        for count in counts
    ]
    assert convergence_order(0.5 / counts, errors) == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_a_trajectory_leads_back(metric):
    x, momentum = RANDOM.standard_normal((3, 2)), RANDOM.standard_normal((3, 2))
    there = flow(Banana(), metric, x, momentum, 0.05, 50)
    back = flow(Banana(), metric, there.x, -there.momentum, 0.05, 50)
    np.testing.assert_allclose(back.x, x, atol=1e-11)
    np.testing.assert_allclose(back.momentum, -momentum, atol=1e-11)


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_volume_is_kept(metric):
    x, momentum, h = np.array([[0.3, -0.4]]), np.array([[0.5, 1.1]]), 1e-5
    moved = np.concatenate([np.concatenate([x, momentum], 1) + s * h * np.eye(4) for s in (1, -1)])
    end = flow(Banana(), metric, moved[:, :2], moved[:, 2:], 0.1, 7)
    z = np.concatenate([end.x, end.momentum], 1)
    assert abs(np.linalg.det((z[:4] - z[4:]) / (2 * h))) == pytest.approx(1, abs=1e-6)


def test_a_metric_is_a_change_of_coordinates():
    covariance = ROOT @ ROOT.T
    y, momentum = RANDOM.standard_normal((2, 2)), RANDOM.standard_normal((2, 2))
    plain = flow(Gaussian(np.zeros(2), np.eye(2)), Metric.identity(2), y, momentum, 0.3, 9)
    there = flow(
        Gaussian(np.zeros(2), covariance), Metric(np.ones(2), root=ROOT), y @ ROOT.T, momentum, 0.3, 9
    )
    np.testing.assert_allclose(there.x, plain.x @ ROOT.T, rtol=1e-12)
    np.testing.assert_allclose(there.momentum, plain.momentum, rtol=1e-12)
