"""The benchmark of Aristoff and Bangerth: its published vectors, its prior, its estimate."""

import json
import math
from pathlib import Path

import pytest
import torch
from dpcontrol.problems import poisson_inversion
from taylor import taylor_rates

import dpcontrol as dp
from dpcontrol.meter import Meter
from dpcontrol.problem.predicting import predictions

F64 = torch.float64
PUBLISHED = json.loads((Path(__file__).parents[1] / "data" / "poisson_inversion.json").read_text())[
    "forward_tests"
]


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("vector", range(len(PUBLISHED)))
def test_published_vectors(vector, compiled, monkeypatch):
    if not compiled:
        monkeypatch.setattr("dpcontrol.kernels.fronts.Fronts.can_run", lambda *_: False)
    published = PUBLISHED[vector]
    problem = poisson_inversion.problem()
    theta = torch.tensor(published["theta"], dtype=F64)
    z = {"parameters": {"theta": theta}}
    found = predictions(problem, z)[0].reshape(-1)
    assert float((found - torch.tensor(published["z"], dtype=F64)).abs().max()) < 1e-8
    ones = {"parameters": {"theta": torch.ones(64, dtype=F64)}}
    constant = -169 * math.log(poisson_inversion.SCALE * math.sqrt(2 * math.pi))
    assert float(problem.log_likelihood(z)) - constant == pytest.approx(published["log_likelihood"], abs=1e-8)
    prior = problem.log_prior(z) - problem.log_prior(ones)  # that of theta = 1 is published as 0
    assert float(prior) == pytest.approx(published["log_prior"], abs=1e-8)


def test_white_numbers_have_the_published_prior_with_the_jacobian_of_the_logarithm():
    """Density of x = ln theta: exp(-x^2 / 8) dtheta = exp(-x^2 / 8 + x) dx, which is N(4, 2)."""
    problem = poisson_inversion.problem()
    assert problem.belief.white
    white = torch.randn(64, generator=torch.Generator().manual_seed(0), dtype=F64)
    x = 4 + 2 * white
    z = problem.unknown.natural({"parameters": {"theta": white}})
    assert torch.allclose(z["parameters"]["theta"], x.exp(), rtol=1e-12)
    at = float(-(x.square() / 8).sum() + x.sum())
    shift = float(64 * (2.0 + 0.5 * math.log(2 * math.pi)))  # normalisation of N(4, 2) in white numbers
    assert float(problem.belief.log_density_free({"parameters": {"theta": white}}, z)) == pytest.approx(
        at - shift, rel=1e-12
    )


@pytest.mark.parametrize("size", ["small", "full"])
def test_gradients_of_the_log_density_of_several_chains(size):
    meter = Meter(poisson_inversion.problem(size=size))
    x = torch.randn(5, meter.dimension, generator=torch.Generator().manual_seed(1), dtype=F64) - 2.0

    def density(point):
        if point.requires_grad:  # by hand, as the meter hands out numbers
            values, gradients = meter.log_densities_and_gradients(point)
            return (values + (gradients * (point - point.detach())).sum(1)).sum()
        return meter.log_densities(point).sum()

    rates = taylor_rates(density, x, largest=2e-3)
    assert min(rates) > 1.9 and max(rates) < 2.1, rates
    together = meter.log_densities_and_gradients(x)
    for row in range(5):
        alone = meter.log_densities_and_gradients(x[row : row + 1])
        for many, one in zip(together, alone, strict=True):
            assert torch.allclose(many[row], one[0], rtol=1e-11, atol=1e-11)


def test_fisher_information_is_that_of_the_predictions():
    meter = Meter(poisson_inversion.problem(size="small"))
    x = torch.full((1, 16), -2.0, dtype=F64)
    roots = meter.fisher_roots(x)
    assert roots.shape == (36, 16)
    step = 1e-5 * torch.eye(16, dtype=F64)
    slopes = (meter.predictions(x + step) - meter.predictions(x - step)).T / (2e-5 * poisson_inversion.SCALE)
    assert torch.allclose(roots, slopes, rtol=1e-5, atol=1e-6)


def test_an_estimate_of_the_small_membrane():
    problem = poisson_inversion.problem(size="small")
    solution = dp.solve(problem, "lbfgs")
    assert solution.status.kind == "converged"
    assert 0.2 < solution.metrics["misfit"] < 1.5
    assert solution.loss < float(problem.loss({"parameters": {"theta": problem.truth["theta"]}}))
    found = solution.value["parameters"]["theta"].log().reshape(4, 4)
    assert found[1, 1] < -1.5 and found[3, 3] > 1.0
    assert float(found.abs().mean()) < 0.7


def test_the_seed_draws_the_noise_of_the_small_size_alone():
    small = [poisson_inversion.problem(size="small", seed=seed).scenarios.data for seed in (0, 1)]
    full = [poisson_inversion.problem(seed=seed).scenarios.data for seed in (0, 1)]
    name = next(name for name in small[0] if name != "initial_state")
    assert not torch.equal(small[0][name], small[1][name])
    assert torch.equal(full[0][name], full[1][name])


def test_the_picture_shows_truth_estimate_sag_and_residuals():
    from matplotlib.figure import Figure

    problem = poisson_inversion.problem(size="small")
    figure = Figure(layout="constrained")
    problem.plots["membrane"](figure, {"lbfgs": dp.solve(problem, "lbfgs")})
    assert len(figure.axes) == 8  # four panels with their scales
