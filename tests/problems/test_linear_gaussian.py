"""The linear-Gaussian smoothing problem against a smoother that goes forwards and backwards in time."""

import dataclasses

import numpy as np
import pytest
import torch
from dpcontrol.problems import linear_gaussian
from scipy.integrate import quad_vec
from scipy.linalg import expm
from taylor import taylor_rates

import dpcontrol as dp
from dpcontrol.meter import Meter
from dpcontrol.problem import UsageError, sites


def model():
    """``A`` and ``Q`` by another road: scipy's exponential, and quadrature of the noise that arrives in a step."""
    F = np.array([[0.0, 1.0], [-1.0, -0.2]])
    g = np.array([0.0, 0.5])

    def arrived(s):
        moved = expm(F * s) @ g
        return np.outer(moved, moved)

    return expm(F * 0.25), quad_vec(arrived, 0, 0.25, epsabs=1e-15)[0]


def smoothed(data, steps):
    """Means ``(steps + 1, 2)`` and covariances of the states, and covariances of neighbours, by Rauch-Tung-Striebel."""
    A, Q = model()
    mean, cov = np.array([1.0, 0.0]), 0.25 * np.eye(2)
    filtered, predicted = [(mean, cov)], []
    H, R = np.array([[1.0, 0.0]]), 0.2**2
    for k in range(1, steps + 1):
        mean, cov = A @ mean, A @ cov @ A.T + Q
        predicted.append((mean, cov))
        if k % 2 == 0:
            gain = cov @ H.T / (H @ cov @ H.T + R)
            mean = mean + gain[:, 0] * (data[k // 2 - 1] - mean[0])
            cov = cov - gain @ H @ cov
        filtered.append((mean, cov))
    means, covs, neighbours = [mean], [cov], []
    for k in reversed(range(steps)):
        (m, P), (ahead, C) = filtered[k], predicted[k]
        G = P @ A.T @ np.linalg.inv(C)
        neighbours.append(covs[-1] @ G.T)  # of state k + 1 with state k
        means.append(m + G @ (means[-1] - ahead))
        covs.append(P + G @ (covs[-1] - C) @ G.T)
    return np.array(means[::-1]), np.array(covs[::-1]), np.array(neighbours[::-1])


def measured(problem):
    return problem.scenarios.data["data"][0, :, 0].numpy()


def shocks(problem):
    """Means and standard deviations of the shocks ``(steps, 2)``, from the smoothed states."""
    A, Q = model()
    root = np.linalg.inv(np.linalg.cholesky(Q))
    means, covs, neighbours = smoothed(measured(problem), problem.horizon)
    mean = (means[1:] - means[:-1] @ A.T) @ root.T
    covariance = covs[1:] - neighbours @ A.T - A @ neighbours.transpose(0, 2, 1) + A @ covs[:-1] @ A.T
    return mean, np.sqrt(np.diagonal(root @ covariance @ root.T, axis1=1, axis2=2))


@pytest.mark.parametrize("size", ["small", "full"])
def test_the_dense_closed_form_is_that_of_the_smoother(size):
    problem = linear_gaussian.problem(size=size, seed=3)
    means, covs, _ = smoothed(measured(problem), problem.horizon)
    mean, sd = problem.reference_posterior["initial_state"]
    np.testing.assert_allclose(mean[0], means[0], atol=1e-9)
    np.testing.assert_allclose(sd[0], np.sqrt(np.diag(covs[0])), atol=1e-9)
    mean, sd = problem.reference_posterior["noise"]
    wanted = shocks(problem)
    np.testing.assert_allclose(mean[0], wanted[0], atol=1e-7)
    np.testing.assert_allclose(sd[0], wanted[1], atol=1e-7)
    # and so is what the figure shows: the band of the states
    mean, covariance = linear_gaussian.dense_posterior(torch.as_tensor(measured(problem)), problem.horizon)
    reach = linear_gaussian.influence(problem.horizon)
    np.testing.assert_allclose(reach @ mean, means, atol=1e-9)
    np.testing.assert_allclose(torch.einsum("kia,ab,kjb->kij", reach, covariance, reach), covs, atol=1e-9)


def test_the_model_in_steps_is_exact():
    A, Q = model()
    found = linear_gaussian.discrete()
    np.testing.assert_allclose(found.A, A, atol=1e-14)
    np.testing.assert_allclose(found.L @ found.L.T, Q, atol=1e-14)


def test_the_most_plausible_point_is_the_posterior_mean():
    problem = linear_gaussian.problem(size="small")
    solution = dp.solve(problem, "lbfgs")
    for name, (mean, sd) in problem.reference_posterior.items():
        assert float(((sites(solution.value)[name] - mean) / sd).abs().max()) < 1e-4
    path = torch.as_tensor(smoothed(measured(problem), problem.horizon)[0])
    torch.testing.assert_close(solution.trajectory().states[:, 0], path, atol=1e-4, rtol=0)


def test_the_information_of_data_and_prior_is_that_of_the_closed_form():
    """Fisher roots in free numbers: the inverse of ``1 + J^T J`` is the posterior covariance, mapped by the prior."""
    problem = linear_gaussian.problem(size="small")
    meter = Meter(dataclasses.replace(problem, joint=True))
    J = meter.fisher_roots(torch.zeros(1, meter.dimension, dtype=torch.float64))
    found = torch.linalg.inv(torch.eye(meter.dimension, dtype=torch.float64) + J.T @ J)
    _, covariance = linear_gaussian.dense_posterior(torch.as_tensor(measured(problem)), problem.horizon)
    scale = torch.ones(meter.dimension, dtype=torch.float64)
    scale[:2] = linear_gaussian.SPREAD
    torch.testing.assert_close(found * scale * scale[:, None], covariance, atol=1e-10, rtol=1e-8)


def test_the_truth_is_plausible_and_the_gradient_is_exact():
    problem = linear_gaussian.problem(size="small")
    free = problem.unknown.free(problem.truth)
    # 6 measurements with an error of one standard deviation or so
    assert -20 < float(problem.log_likelihood(problem.truth)) < 20
    assert min(taylor_rates(problem.log_density, free, largest=0.5)) > 1.99


def test_seeds_draw_truth_and_data_and_bad_arguments_are_one_sentence():
    first, other = (linear_gaussian.problem(size="small", seed=s) for s in (0, 1))
    assert not torch.equal(first.truth["noise"], other.truth["noise"])
    assert not torch.equal(first.scenarios.data["data"], other.scenarios.data["data"])
    with pytest.raises(UsageError, match="comes in the sizes"):
        linear_gaussian.problem(size="huge")
