"""Hares and lynxes: the published model to its digits, an estimate inside the published posterior, the step."""

import math

import numpy as np
import pytest
import torch
from dpcontrol.problems import hare_lynx
from scipy import stats
from scipy.integrate import solve_ivp
from taylor import convergence_order, taylor_rates

import dpcontrol as dp
from dpcontrol.problem import UsageError, from_sites, sites

POINT = {
    "prey_growth": 0.55,
    "predation": 0.028,
    "predator_death": 0.8,
    "predator_growth": 0.024,
    "initial_state": [[33.0, 6.0]],
    "sigma": [0.25, 0.3],
}


def placed(problem, point):
    values = {name: torch.tensor(value, dtype=torch.float64) for name, value in point.items()}
    return from_sites(values, problem.start())


def published_density(point):
    """Log-likelihood and log-prior of the published model, by scipy."""
    a, b, c, d = (point[name] for name in hare_lynx.RATES)
    course = solve_ivp(
        lambda t, z: [(a - b * z[1]) * z[0], (-c + d * z[0]) * z[1]],
        (0, 20),
        point["initial_state"][0],
        t_eval=np.arange(21),
        rtol=1e-11,
        atol=1e-11,
    ).y.T
    counts = hare_lynx.pelts().numpy()
    likelihood = stats.lognorm.logpdf(counts, s=np.array(point["sigma"]), scale=course).sum()
    prior = stats.lognorm.logpdf(point["initial_state"], s=1, scale=10).sum()
    prior += stats.lognorm.logpdf(point["sigma"], s=1, scale=math.exp(-1)).sum()
    for value, mean, sd in ((a, 1, 0.5), (c, 1, 0.5), (b, 0.05, 0.05), (d, 0.05, 0.05)):
        prior += stats.truncnorm.logpdf(value, -mean / sd, np.inf, loc=mean, scale=sd)
    return likelihood, prior


def test_it_is_the_published_model():
    problem = hare_lynx.problem(substeps=40)
    z = placed(problem, POINT)
    likelihood, prior = published_density(POINT)
    assert float(problem.log_likelihood(z)) == pytest.approx(likelihood, abs=1e-6)
    assert float(problem.log_prior(z)) == pytest.approx(prior, abs=1e-10)


def test_the_error_of_the_step_is_of_fourth_order_and_small():
    counts = [2, 4, 8, 16]
    z = placed(hare_lynx.problem(), POINT)
    exact = published_density(POINT)[0]
    errors = [abs(float(hare_lynx.problem(substeps=n).log_likelihood(z)) - exact) for n in counts]
    assert convergence_order([1 / n for n in counts], errors) == pytest.approx(4, abs=0.3)
    # a log-density that is wrong by eps moves a mean by about eps standard deviations
    assert errors[0] < 0.05 and errors[1] < 5e-3


def test_the_most_plausible_point_lies_inside_the_published_posterior():
    problem = hare_lynx.problem(size="small")
    solution = dp.solve(problem, "lbfgs")
    assert solution.status.kind == "converged"
    found = sites(solution.value)
    for name, (mean, sd) in problem.reference_posterior.items():
        assert float(((found[name] - torch.as_tensor(mean)) / torch.as_tensor(sd)).abs().max()) < 1, name
    assert 0.15 < solution.metrics["mean_log_error"] < 0.3
    # its density is higher than at the published means
    means = {name: torch.as_tensor(mean).double() for name, (mean, _) in problem.reference_posterior.items()}
    means["initial_state"] = means["initial_state"][None]
    assert solution.loss < float(problem.loss(from_sites(means, problem.start())))


def test_the_gradient_is_exact_in_all_eight_numbers():
    problem = hare_lynx.problem(size="small")
    free = problem.unknown.free(placed(problem, POINT))
    assert min(taylor_rates(problem.log_density, free, largest=1e-3)) > 1.98


def test_the_data_are_the_published_ones_and_bad_arguments_are_one_sentence():
    counts = hare_lynx.pelts()
    assert counts.shape == (21, 2) and counts[0].tolist() == [30.0, 4.0] and float(counts.max()) == 77.4
    with pytest.raises(UsageError, match="comes in the sizes"):
        hare_lynx.problem(size="huge")
    for wrong in (0, 2.5, True, "four"):
        with pytest.raises(UsageError, match="substeps must be a whole number"):
            hare_lynx.problem(substeps=wrong)


@pytest.mark.slow
def test_nuts_gives_the_published_posterior():
    """As ``tests/benchmarks/hare_lynx.py``, in one process, with a few draws more for the luck of another machine."""
    solution = dp.solve(
        hare_lynx.problem(), "nuts", chains=4, draws=1250, warmup=500, target_acceptance=0.9, seed=0
    )
    summary = solution.posterior.summary()
    for name, (mean, sd) in hare_lynx.published().items():
        site = summary.sites[name]
        assert float(np.abs((site.mean - np.asarray(mean)) / np.asarray(sd)).max()) < 0.1, name
        assert float(np.abs(site.sd / np.asarray(sd) - 1).max()) < 0.1, name
        assert float(site.mixing.rhat.max()) < 1.01 and float(site.mixing.ess_bulk.min()) > 1500, name
    assert summary.divergences == 0
