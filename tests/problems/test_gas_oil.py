"""Cracking of gas oil: the published optimum, and the posterior around it."""

import dataclasses

import numpy as np
import pytest
import torch
from dpcontrol.problems import gas_oil, gas_oil_posterior
from scipy.integrate import solve_ivp
from scipy.optimize import least_squares
from taylor import taylor_rates

import dpcontrol as dp
from dpcontrol.meter import Meter
from dpcontrol.problem import UsageError, View, sites


def residuals(k):
    """All 42, by scipy's own solver."""
    times, shares = gas_oil.measured()
    course = solve_ivp(
        lambda t, y: [-(k[0] + k[2]) * y[0] ** 2, k[0] * y[0] ** 2 - k[1] * y[1]],
        (0, times[-1]),
        [1.0, 0.0],
        t_eval=times,
        rtol=1e-10,
        atol=1e-12,
    ).y.T
    return (course - shares.numpy()).ravel()


def rates(solution):
    return [float(solution.value["parameters"][name]) for name in gas_oil.RATES]


def test_the_published_optimum_is_found():
    problem = gas_oil.problem()
    assert View.RESIDUALS in problem.offers
    solution = dp.solve(problem, "lbfgs")
    assert solution.loss == pytest.approx(5.2366e-3, abs=5e-8)
    assert rates(solution) == pytest.approx(list(gas_oil.PUBLISHED.values()), abs=6e-4)
    exact = least_squares(residuals, rates(solution), xtol=1e-12, ftol=1e-12, gtol=1e-12)
    assert solution.loss == pytest.approx(2 * exact.cost, rel=1e-5)
    assert rates(solution) == pytest.approx(list(exact.x), rel=1e-4)
    assert solution.metrics["root_mean_square"] == pytest.approx((5.2366e-3 / 42) ** 0.5, rel=1e-4)


def test_gauss_newton_finds_it_in_a_few_steps():
    problem = gas_oil.problem()
    solution = dp.solve(problem, "gauss_newton")
    assert solution.status.kind == "converged"
    assert solution.loss == pytest.approx(5.2366e-3, abs=5e-8)
    assert rates(solution) == pytest.approx(list(gas_oil.PUBLISHED.values()), abs=6e-4)
    assert solution.counts.simulated_steps < 6_000


def test_the_small_size_differs_by_less_than_the_published_digits():
    problem = gas_oil.problem(size="small")
    solution = dp.solve(problem, "lbfgs")
    assert solution.loss == pytest.approx(5.2366e-3, abs=1e-6)
    assert rates(solution) == pytest.approx(list(gas_oil.PUBLISHED.values()), rel=2e-3)


def test_gradients_are_exact():
    problem = gas_oil.problem(size="small")
    start = problem.start()
    assert min(taylor_rates(lambda z: problem.loss(z).sum(), start, largest=1e-2)) > 1.98
    problem = gas_oil_posterior.problem(size="small")
    free = problem.unknown.free(problem.start())
    assert min(taylor_rates(problem.log_density, free, largest=1e-3)) > 1.98


def test_the_posterior_agrees_with_the_estimate_where_the_prior_is_weak():
    problem = gas_oil_posterior.problem(size="small")
    solution = dp.solve(problem, "lbfgs")
    found = {name: float(value) for name, value in sites(solution.value).items()}
    assert found["to_gasoline"] == pytest.approx(gas_oil.PUBLISHED["to_gasoline"], rel=0.02)
    assert found["gasoline_loss"] == pytest.approx(gas_oil.PUBLISHED["gasoline_loss"], rel=0.02)
    assert found["to_gases"] == pytest.approx(gas_oil.PUBLISHED["to_gases"], rel=0.2)
    # without the pair that cannot miss there are 40 residuals
    assert found["scale"] == pytest.approx((5.2366e-3 / 40) ** 0.5, rel=0.03)
    # what the docstring says of how well they are known
    meter = Meter(dataclasses.replace(problem, joint=True))
    x = meter.start() * 0 + torch.cat(
        [leaf.reshape(-1) for leaf in dp.tree.leaves(problem.unknown.free(solution.value))]
    )
    J = meter.fisher_roots(x)
    sd = torch.linalg.inv(J.T @ J + torch.eye(4, dtype=torch.float64)).diagonal().sqrt()
    relative = dict(zip(sites(solution.value), sd.tolist(), strict=True))  # all priors have a log-sd of one
    assert 0.02 < relative["to_gasoline"] < 0.04 and 0.02 < relative["gasoline_loss"] < 0.04
    assert 0.25 < relative["to_gases"] < 0.45


def test_the_misfit_that_the_docstring_speaks_of():
    found = residuals(list(gas_oil.PUBLISHED.values())).reshape(-1, 2)
    scale = np.sqrt((found[1:] ** 2).mean())
    assert 4.5 < -found[1, 0] / scale < 5
    late = found[6:, 0]  # t = 0.15 and later
    assert (late < 0).sum() <= 1


@pytest.mark.parametrize("module", [gas_oil, gas_oil_posterior])
def test_bad_arguments_are_one_sentence(module):
    with pytest.raises(UsageError, match="comes in the sizes"):
        module.problem(size="huge")
    with pytest.raises(UsageError, match="seed"):
        module.problem(seed=-3)
