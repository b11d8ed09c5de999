"""Viscosity and initial state of Burgers' equation: sane estimates, exact gradients, a prior that knows no mesh."""

import dataclasses

import pytest
import torch
from dpcontrol.problems import burgers_viscosity
from taylor import taylor_rates

import dpcontrol as dp
from dpcontrol.meter import Meter
from dpcontrol.problem import UsageError, View, draw_prior, predictions


def test_the_estimate_fits_the_data_as_well_as_the_noise_allows_and_is_near_the_truth():
    problem = burgers_viscosity.problem(size="small")
    assert View.WHITE_PRIOR in problem.offers
    solution = dp.solve(problem, "lbfgs")
    assert solution.status.kind == "converged"
    assert 0.8 < solution.metrics["misfit"] < 1.1
    assert solution.metrics["initial_error"] < 0.02
    nu = float(solution.value["parameters"]["viscosity"])
    assert 0.5 * burgers_viscosity.VISCOSITY < nu < 2 * burgers_viscosity.VISCOSITY


def test_the_truth_is_plausible():
    problem = burgers_viscosity.problem(size="small", seed=5)
    truth = {
        "parameters": {"viscosity": torch.tensor(problem.truth["viscosity"], dtype=torch.float64)},
        "initial_state": problem.truth["initial_state"],
    }
    metrics = problem.metrics(truth)
    assert metrics["initial_error"] < 1e-3  # the waves that the solver drops
    assert metrics["misfit"] == pytest.approx(1, abs=4 / (2 * 100) ** 0.5)  # 100 residuals, 4 sigma
    assert torch.isfinite(problem.log_likelihood(truth))


def test_the_gradient_is_exact_in_viscosity_and_initial_state():
    problem = burgers_viscosity.problem(size="small")
    z = draw_prior(problem, torch.Generator().manual_seed(2))
    assert min(taylor_rates(problem.log_density, problem.unknown.free(z), largest=1e-3)) > 1.98


def test_what_the_data_tell_is_the_same_on_a_finer_mesh():
    """Eigenvalues of the information in white numbers at the same fields: how many directions the data inform."""
    informed = {}
    for size in ("small", "full"):
        problem = burgers_viscosity.problem(size=size)
        meter = Meter(dataclasses.replace(problem, joint=True))
        x = torch.zeros(1, meter.dimension, dtype=torch.float64)
        roots = meter.fisher_roots(x)
        informed[size] = torch.linalg.svdvals(roots)[:12] ** 2
    torch.testing.assert_close(informed["small"], informed["full"], rtol=0.1, atol=0.1)
    # no information beyond the readings, and little in most directions: there the posterior is the prior
    assert int((informed["full"] > 1).sum()) < 12


def test_predictions_have_the_layout_of_the_sensors():
    problem = burgers_viscosity.problem(size="small")
    (found,) = predictions(problem, problem.start())
    assert found.shape == (len(burgers_viscosity.STEPS), 1, burgers_viscosity.SENSORS)


def test_seeds_draw_the_initial_state_and_bad_arguments_are_one_sentence():
    first, other = (burgers_viscosity.problem(size="small", seed=s).truth["initial_state"] for s in (0, 1))
    assert not torch.equal(first, other)
    with pytest.raises(UsageError, match="comes in the sizes"):
        burgers_viscosity.problem(size="huge")
