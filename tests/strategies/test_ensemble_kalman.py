"""Ensemble Kalman inversion: exact where everything is linear, and honest where not."""

import numpy as np
import pytest
import torch
from posterior_cases import F64, Linear, grid_moments, growth
from strategy_cases import interrupted_and_resumed
from torch.distributions import FisherSnedecor, Normal

from dpcontrol.meter import Budget, Meter
from dpcontrol.problem import Gaussian, LogNormal, StudentT, inference_problem, observe
from dpcontrol.results import UsageError
from dpcontrol.run import mismatch, run
from dpcontrol.strategies.posteriors.ensemble_kalman import EnsembleKalman, flat_data, standardised


def moments(solution, site):
    found = solution.posterior.values[site][0]
    return found.mean(0), np.cov(found.T)


@pytest.mark.parametrize(("size", "members"), [(3, 6), (3, 50), (12, 40)])
def test_a_linear_posterior_is_met_to_rounding(size, members):
    case = Linear(size=size)
    solution = run(case.problem(), EnsembleKalman(members=members))
    mean, covariance = moments(solution, "theta")
    wanted = case.closed_form()
    np.testing.assert_allclose(mean, wanted[0].numpy(), rtol=0, atol=1e-9)
    np.testing.assert_allclose(covariance, wanted[1].numpy(), rtol=0, atol=1e-9)
    notes, counts = solution.draws.notes, solution.counts
    assert notes["temperatures"][-1] == 1.0 and len(notes["temperatures"]) > 3
    assert counts.gradients == 0
    assert counts.simulated_steps == 2 * members * len(notes["temperatures"])  # one more for the densities
    assert solution.status.kind == "converged"


def test_few_members_are_told_to_be_too_few():
    case = Linear(size=30, entries=8)
    solution = run(case.problem(), EnsembleKalman(members=20))
    assert "They span 19 of 30 directions" in solution.status.sentence
    # in the mean over ensembles the data are fitted, but the spread is too small
    narrow = moments(solution, "theta")[1].trace() / float(case.closed_form()[1].trace())
    assert narrow < 0.9


def test_a_mildly_nonlinear_posterior_is_approximated():
    problem = growth(scale=0.05)
    solution = run(problem, EnsembleKalman(members=400), seed=1)
    mean, sd = grid_moments(problem)
    found = torch.log(torch.as_tensor(solution.posterior.values["rate"][0]))
    assert float(found.mean()) == pytest.approx(mean[0], abs=0.25 * sd[0])
    assert float(found.std()) == pytest.approx(sd[0], rel=0.25)


def test_data_less_predictions_are_standard_normal_in_units_of_the_noise():
    scales = torch.tensor([0.2, 1.5], dtype=F64)
    problem = inference_problem(
        lambda state, control, *, parameters: state + parameters["theta"],
        data=[
            torch.tensor([[[1.0, torch.nan]], [[3.0, 4.0]]], dtype=F64),
            torch.tensor([[[5.0]]], dtype=F64),
        ],
        observation=[
            observe(noise=Gaussian(scales), steps=[1, 2]),
            observe(lambda state: state[:, :1], noise=LogNormal(0.5), steps=[2]),
        ],
        initial_state=torch.ones(1, 2, dtype=F64),
        horizon=2,
        prior={"theta": Normal(torch.zeros(2, dtype=F64), 1.0)},
    )
    flat = flat_data(problem)
    assert flat.tolist() == [1.0, 3.0, 4.0, 5.0]
    found = standardised(problem, torch.stack([flat, 2 * flat]))
    wanted = torch.tensor([1 / 0.2, 3 / 0.2, 4 / 1.5, np.log(5.0) / 0.5], dtype=F64)
    torch.testing.assert_close(found[0], wanted)
    assert float(found[1, 3] - found[0, 3]) == pytest.approx(np.log(2.0) / 0.5)
    meter = Meter(EnsembleKalman().pose(problem))
    assert meter.predictions(meter.start()).shape == (1, 4)


def fragile(edge):
    """Predicts theta, and cannot be simulated beyond an edge."""

    def step(state, control, *, parameters):
        theta = parameters["theta"]
        return state + torch.where(theta > edge, torch.nan, theta)

    return inference_problem(
        step,
        data=torch.full((1, 1, 1), -0.5, dtype=F64),
        observation=observe(noise=Gaussian(0.3), steps=[1]),
        initial_state=torch.zeros(1, 1, dtype=F64),
        horizon=1,
        prior={"theta": Normal(*torch.tensor([0.0, 1.0], dtype=F64))},
        start={"theta": torch.tensor(-2.0, dtype=F64)},
        name="fragile",
    )


def test_members_that_cannot_be_simulated_are_counted_and_drawn_again():
    solution = run(fragile(1.2), EnsembleKalman(members=300), seed=1)
    assert solution.counts.failures > 10 and solution.status.kind == "converged"
    assert "not finite" in solution.status.sentence
    mean, variance = moments(solution, "theta")
    precision = 1 + 1 / 0.3**2  # without the edge, which the posterior hardly sees
    assert mean == pytest.approx(-0.5 / 0.3**2 / precision, abs=0.1)
    assert variance == pytest.approx(1 / precision, rel=0.2)
    hopeless = run(fragile(-1.0), EnsembleKalman(members=50))
    assert hopeless.status.kind == "failed" and "stress_test" in hopeless.status.sentence


def test_same_seed_same_ensemble_budget_and_resumed(tmp_path, monkeypatch):
    problem, strategy = growth(scale=0.05), EnsembleKalman(members=40)
    whole = run(problem, strategy, seed=5)
    assert torch.equal(whole.draws.free, run(problem, strategy, seed=5).draws.free)
    assert not torch.equal(whole.draws.free, run(problem, strategy, seed=6).draws.free)
    resumed = interrupted_and_resumed(problem, strategy, tmp_path / "run", monkeypatch, after=1, seed=5)
    assert torch.equal(whole.draws.free, resumed.draws.free)
    assert whole.counts == resumed.counts
    short = run(problem, strategy, budget=Budget(simulated_steps=2000))
    assert short.status.kind == "budget spent" and short.counts.simulated_steps <= 2000
    few = run(problem, EnsembleKalman(members=40, steps=1))
    assert few.status.kind == "iterations spent" and "% of the likelihood only" in few.status.sentence


def test_what_does_not_fit_is_refused():
    assert "Gaussian or log-normal with a known scale" in mismatch(growth(), EnsembleKalman())

    def posed(noise, prior):
        return inference_problem(
            lambda state, control, *, parameters: state + parameters["rate"],
            data=torch.ones(1, 1, 1, dtype=F64),
            observation=observe(noise=noise, steps=[1]),
            initial_state=torch.zeros(1, 1, dtype=F64),
            horizon=1,
            prior={"rate": prior},
        )

    one = torch.ones((), dtype=F64)
    assert "known scale" in mismatch(posed(StudentT(1.0, 4), Normal(one, one)), EnsembleKalman())
    assert "in some coordinates" in mismatch(
        posed(Gaussian(1.0), FisherSnedecor(6 * one, 8 * one)), EnsembleKalman()
    )
    with pytest.raises(UsageError, match="at least 4; found 3"):
        EnsembleKalman(members=3)
