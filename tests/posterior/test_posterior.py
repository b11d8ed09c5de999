"""A posterior that is known in closed form: natural numbers, predictions, checks, ArviZ."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from known_posterior import NOISE, TRUTH, exact_draws, exact_posterior, line

import dpcontrol as dp
from dpcontrol.meter import Meter
from dpcontrol.posterior import Draws, Posterior
from dpcontrol.problem import observe
from dpcontrol.problem.candidates import each, vectorises
from dpcontrol.results import UsageError

PROBLEM = line()
POSTERIOR = Posterior(PROBLEM, exact_draws(PROBLEM))


def test_natural_numbers_have_the_exact_moments():
    exact = exact_posterior(PROBLEM)
    values = POSTERIOR.values
    assert {name: value.shape for name, value in values.items()} == {"slope": (4, 500), "kick": (4, 500, 2)}
    stacked = np.concatenate([values["slope"][..., None], values["kick"]], 2).reshape(-1, 3)
    error = 4 * exact.stddev.numpy() / math.sqrt(len(stacked))
    assert (np.abs(stacked.mean(0) - exact.mean.numpy()) < error).all()
    np.testing.assert_allclose(np.cov(stacked.T), exact.covariance_matrix.numpy(), rtol=0.15)
    z = POSTERIOR.natural(POSTERIOR.draws.free[1, 7])
    assert float(z["parameters"]["slope"]) == values["slope"][1, 7]


def test_log_density_of_the_problem_agrees_with_the_exact_one():
    """The test's own posterior is the problem's, so that the tests below mean something."""
    some = POSTERIOR.draws.flat()[:20]
    meant = Meter(PROBLEM).log_densities(some)
    exact = POSTERIOR.draws.log_density.reshape(-1)[:20]
    np.testing.assert_allclose((meant - exact).numpy(), float(meant[0] - exact[0]), atol=1e-9)


def test_verdict_of_independent_draws_is_good():
    found = POSTERIOR.verdict()
    assert found.good, str(found)
    assert "slope" in str(POSTERIOR.summary())
    assert repr(POSTERIOR) == "Posterior of line: 4 x 500 draws (mcmc) of 3 numbers"
    assert "slope" in str(POSTERIOR) and "have mixed" in POSTERIOR._repr_html_()


def test_importance_weights_tell_a_good_approximation_from_a_narrow_one():
    def approximation(width):
        exact = exact_draws(PROBLEM, 1, 4000)
        centre = exact.free.mean(1, keepdim=True)
        free = centre + width * (exact.free - centre)
        log_density = Meter(PROBLEM).log_densities(free[0])[None]
        # the exact density of the moved draws under the moved posterior is that of the draws
        return Draws(free, log_density, kind="independent", log_proposal=exact.log_density)

    assert Posterior(PROBLEM, approximation(1.0)).summary().weights_shape < 0.3
    narrow = Posterior(PROBLEM, approximation(0.15)).verdict()
    assert not narrow.good and "Pareto k" in narrow.warning


def test_predictions_have_the_exact_moments():
    exact = exact_posterior(PROBLEM)
    found = POSTERIOR.predict(2000, torch.Generator().manual_seed(1))
    assert found.failures == 0 and found.count == 2000
    np.testing.assert_array_equal(found.times[0], [1.0, 2.0, 5.0])
    kicks = [sum(0.8**j for j in range(k)) for k in (1, 2, 5)]
    rows = torch.tensor([[k, k, 0.0] for k in kicks], dtype=torch.float64)  # of the first number
    mean, variance = rows @ exact.mean, (rows @ exact.covariance_matrix * rows).sum(1)
    clean, noisy = found.predicted[0][:, :, 0, 0], found.replicated[0][:, :, 0, 0]
    np.testing.assert_allclose(clean.mean(0), mean, atol=4 * float(variance.max() / 2000) ** 0.5)
    np.testing.assert_allclose(clean.var(0), variance, rtol=0.15)
    np.testing.assert_allclose(noisy.var(0), variance + NOISE**2, rtol=0.15)


def test_predictions_do_not_depend_on_how_draws_are_batched():
    found = POSTERIOR.predict(30)
    single = [POSTERIOR.natural(POSTERIOR.draws.flat()[k]) for k in found.chosen]
    for k, z in enumerate(single):
        np.testing.assert_allclose(found.predicted[0][k], dp.problem.predictions(PROBLEM, z)[0], atol=1e-12)
    seen = []

    def looks(row):
        seen.append(float(row[0]))  # cannot be a batch
        return row * 2

    rows = torch.arange(12.0).reshape(6, 2)
    assert not vectorises(looks, rows[:2]) and vectorises(torch.square, rows[:2])
    assert torch.equal(each(looks, rows, batched=False), 2 * rows) and len(set(seen)) == 6


def test_data_of_the_model_pass_the_check_and_others_do_not():
    good = POSTERIOR.predict(500).check()
    assert good.passed, str(good)
    assert "misfit" in str(good) and "<table>" in good._repr_html_()
    # the same draws, for data with five times the noise
    noisy = line(seed=3, noise=5 * NOISE)
    wrong = Posterior(line(seed=3), exact_draws(line(seed=3)))
    data = dp.problem.predicting.measurements(noisy)
    wrong = Posterior(dp.problem.with_measurements(wrong.problem, [5 * data[0]]), wrong.draws)
    found = wrong.predict(300).check()
    assert not found.passed
    assert any("fits worse than its noise explains" in sentence for sentence in found.sentences)


def test_draws_that_break_the_simulator_are_counted_and_left_out():
    draws = exact_draws(PROBLEM, 2, 100)
    free = draws.free.clone()
    free[0, ::10] = float("nan")
    found = Posterior(PROBLEM, Draws(free, draws.log_density)).predict(200)
    assert found.failures == 10 and found.count == 190
    assert "10 draws made the simulator fail" in " ".join(found.check().sentences)


def test_what_was_not_measured_is_not_replicated():
    missing = dp.problem.predicting.measurements(PROBLEM)[0].clone()
    missing[1, 0, 0] = float("nan")
    posterior = Posterior(dp.problem.with_measurements(PROBLEM, [missing]), POSTERIOR.draws)
    found = posterior.predict(50)
    assert torch.isnan(found.replicated[0][:, 1, 0, 0]).all()
    assert torch.isfinite(found.predicted[0]).all() and found.failures == 0
    assert found.check().comparisons


def test_arviz_gets_everything_and_netcdf_keeps_it(tmp_path):
    arviz = pytest.importorskip("arviz")
    draws = exact_draws(PROBLEM, 2, 60, divergent=np.zeros((2, 60)), energy=np.ones((2, 60)))
    posterior = Posterior(PROBLEM, draws)
    path = posterior.to_netcdf(tmp_path / "line.nc", predictions=20, prior=30, log_likelihood=True)
    data = arviz.from_netcdf(str(path))
    assert set(data.groups()) == {
        "posterior", "posterior_predictive", "log_likelihood", "sample_stats", "prior", "observed_data",
    }  # fmt: skip
    np.testing.assert_array_equal(data.posterior["kick"].values, posterior.values["kick"])
    assert {"diverging", "energy", "lp"} <= set(data.sample_stats.data_vars)
    assert data.posterior_predictive["data"].shape == (1, 20, 3, 1, 2)
    assert data.log_likelihood["data"].shape == (2, 60, 3, 1, 2)
    z = posterior.natural(draws.free[1, 3])
    known = dp.problem.pointwise_log_likelihood(PROBLEM, z)[0]
    np.testing.assert_allclose(data.log_likelihood["data"].values[1, 3], known, atol=1e-12)
    assert set(posterior.to_arviz(predictions=0, prior=0).groups()) == {
        "posterior", "sample_stats", "observed_data",
    }  # fmt: skip


def test_draws_of_another_problem_are_refused():
    with pytest.raises(UsageError, match="line seeks 3 numbers, but the draws have 2"):
        Posterior(PROBLEM, Draws(np.zeros((1, 5, 2)), np.zeros((1, 5))))
    without = dp.inference_problem(
        lambda state, control: state,
        data=torch.ones(3, 1, 2),
        observation=observe(),
        initial_state=torch.zeros(1, 2),
        horizon=2,
        unknown=dp.InitialState(),
        name="estimate",
    )
    with pytest.raises(UsageError, match="has no prior"):
        Posterior(without, POSTERIOR.draws)
    with pytest.raises(UsageError, match="count must be"):
        POSTERIOR.predict(0)


def test_truth_by_site():
    from dpcontrol.posterior.posterior import truths

    assert set(truths(PROBLEM)) == {"slope", "kick"}
    np.testing.assert_array_equal(truths(PROBLEM)["kick"], TRUTH["kick"])
