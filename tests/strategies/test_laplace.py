"""Laplace's approximation: exact where the posterior is normal, told where it is not."""

import math

import numpy as np
import pytest
import torch
from posterior_cases import F64, FALSE_ALARM, Linear, field, growth, squared, surprises
from strategy_cases import interrupted_and_resumed
from torch.distributions import FisherSnedecor

from dpcontrol import tree
from dpcontrol.meter import Budget, Meter
from dpcontrol.meter.squares import density_hessian_products, fisher_products
from dpcontrol.problem import Gaussian, Parameters, StudentT, inference_problem, observe
from dpcontrol.results import UsageError
from dpcontrol.run import mismatch, run
from dpcontrol.strategies.minimising.gauss_newton import GaussNewton
from dpcontrol.strategies.minimising.quasi_newton import LBFGS
from dpcontrol.strategies.posteriors.gaussian import Normal, low_rank_eigenpairs
from dpcontrol.strategies.posteriors.laplace import Laplace

KINDS = ["exact", "gauss_newton", "low_rank"]


def theta(solution):
    """Draws in natural numbers, ``(draws, size)``."""
    return solution.posterior.values["theta"][0]


# -- the maximum a posteriori, by Fisher scoring -------------------------------------------------------------------


@pytest.mark.parametrize("dense", [400, 0])
def test_a_linear_posteriors_mode_takes_one_step(dense):
    case = Linear()
    solution = run(case.problem(), GaussNewton(dense=dense))
    torch.testing.assert_close(
        solution.value["parameters"]["theta"], case.closed_form()[0], rtol=1e-7, atol=1e-7
    )
    assert solution.status.kind == "converged"
    if dense:
        assert solution.counts.gradients <= 2 * 3 + 2 * 3 + 2 * 2 * 3  # two models, and their tangents


@pytest.mark.parametrize("dense", [400, 0])
@pytest.mark.parametrize("scale", ["scale", 0.05])
def test_fisher_scoring_finds_the_maximum_that_lbfgs_finds(dense, scale):
    found = run(growth(scale=scale), GaussNewton(dense=dense))
    other = run(growth(scale=scale), LBFGS(gradient_tolerance=1e-10, loss_tolerance=1e-15))
    assert found.loss == pytest.approx(other.loss, abs=1e-9)
    flat = [tree.ravel(solution.value) for solution in (found, other)]
    torch.testing.assert_close(*flat, rtol=1e-4, atol=1e-5)


def test_estimation_without_prior_uses_the_density_of_the_measurements():
    problem = growth()
    data = problem.scenarios.data["data"].transpose(0, 1)
    estimate = inference_problem(
        lambda state, control, *, parameters: state + 0.2 * parameters["rate"] * state * (1 - state),
        data=data,
        observation=observe(noise=StudentT(0.05, 3.0), steps=[2, 4, 6, 8, 10, 12]),
        initial_state=torch.full((1, 1), 0.1, dtype=F64),
        horizon=12,
        parameters={"rate": torch.ones((), dtype=F64)},
        unknown=Parameters("rate", low=0.1, high=5.0),
    )
    found, other = run(estimate, GaussNewton()), run(estimate, LBFGS(gradient_tolerance=1e-10))
    assert found.loss == pytest.approx(other.loss, abs=1e-9)


# -- Hessians ------------------------------------------------------------------------------------------------------


def test_products_of_the_log_density_and_of_the_information():
    meter = Meter(Laplace().pose(growth()))
    generator = torch.Generator().manual_seed(0)
    x = meter.start() + 0.3 * torch.randn(1, 3, generator=generator, dtype=F64)
    V = torch.randn(4, 3, generator=generator, dtype=F64)
    before = meter.counts
    found = density_hessian_products(meter, x, V)
    assert meter.counts.gradients - before.gradients == 4 * 2
    h = 1e-5
    for v, product in zip(V, found, strict=True):
        above, below = (meter.log_densities_and_gradients(x + s * h * v)[1][0] for s in (1, -1))
        torch.testing.assert_close(product, -(above - below) / (2 * h), rtol=1e-6, atol=1e-6)
    J = meter.fisher_roots(x)
    torch.testing.assert_close(fisher_products(meter, x, V[:1]), V[:1] @ J.T @ J)


def test_the_dominant_eigenpairs_of_an_operator():
    generator = torch.Generator().manual_seed(1)
    Q = torch.linalg.qr(torch.randn(200, 200, generator=generator, dtype=F64)).Q
    c = torch.cat([torch.tensor([300.0, 40.0, 40.0, -0.5, 2.0]), 3.0 * 0.7 ** torch.arange(195)]).double()
    A = Q * c @ Q.T
    asked = []

    def product(rows):
        asked.append(len(rows))
        return rows @ A

    V, found = low_rank_eigenpairs(product, 200, 0.01, generator)
    wanted = c[c.abs() > 0.01]
    torch.testing.assert_close(found.sort().values, wanted.sort().values, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(V.T @ V, torch.eye(len(found), dtype=F64))
    assert (A - V * found @ V.T).norm() < 0.05
    assert sum(asked) < 100


def test_a_normal_distribution_says_its_own_density():
    generator = torch.Generator().manual_seed(2)
    V = torch.linalg.qr(torch.randn(5, 2, generator=generator, dtype=F64)).Q
    c = torch.tensor([8.0, -0.4], dtype=F64)
    mean = torch.arange(5.0, dtype=F64)
    normal = Normal.of_update(mean, V, c)
    x, density = normal.draw(20, generator)
    precision = torch.eye(5, dtype=F64) + V * c @ V.T
    theirs = torch.distributions.MultivariateNormal(mean, precision_matrix=precision)
    torch.testing.assert_close(density, theirs.log_prob(x))
    torch.testing.assert_close(normal.sd(), theirs.stddev)
    dense = Normal.of_hessian(mean, precision)
    torch.testing.assert_close(dense.sd(), theirs.stddev)


# -- the approximation ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_normal_posterior_is_met_exactly(kind):
    case = Linear()
    mean, covariance = case.closed_form()
    problem = case.problem()
    solution = run(problem, Laplace(hessian=kind, draws=4000, tolerance=1e-9), seed=1)
    notes = solution.draws.notes
    at = problem.unknown.natural({"parameters": {"theta": torch.tensor(notes["mode"], dtype=F64)}})
    torch.testing.assert_close(at["parameters"]["theta"], mean, rtol=1e-6, atol=1e-6)
    root = case.prior.scale_tril
    free = torch.linalg.solve(root, torch.linalg.solve(root, covariance).T)
    torch.testing.assert_close(
        torch.tensor(notes["sd"], dtype=F64), free.diagonal().sqrt(), rtol=1e-6, atol=0
    )
    found = surprises(theta(solution), mean, covariance)
    assert min(found.values()) > FALSE_ALARM, found
    # the weights are all equal
    assert notes["weights_ess"] == pytest.approx(4000, rel=1e-6)
    assert solution.posterior.verdict().good


def test_the_number_of_products_depends_on_the_data_and_not_on_the_unknowns():
    counts = []
    for size in (40, 160):
        case = Linear(size=size, entries=6)
        solution = run(case.problem(), Laplace(hessian="low_rank", draws=200), seed=1)
        assert len(solution.draws.notes["eigenvalues"]) == 6  # what -G measures again, G has measured
        counts.append(solution.counts.gradients)
        mean, covariance = case.closed_form()
        found = theta(solution).mean(0) - mean.numpy()
        z = found / np.sqrt(covariance.diagonal().numpy() / 200)
        assert np.abs(z).max() < 4.9  # 1e-4 / 160, two-sided
    assert counts[1] < 1.5 * counts[0]


def test_the_cost_of_a_field_does_not_depend_on_its_mesh():
    found = {}
    for cells in (32, 128):
        problem = field(cells)
        mode = run(problem, GaussNewton())
        solution = run(problem, Laplace(hessian="low_rank", draws=100))
        drawn = solution.posterior.values["initial_state"][0].reshape(100, cells)
        places = drawn.reshape(100, 32, -1).mean(2)
        found[cells] = (mode.counts.gradients, solution.counts.gradients, places.mean(0), places.std(0))
        assert 12 <= len(solution.draws.notes["eigenvalues"]) < 20
        assert mode.status.kind == solution.status.kind == "converged"
    for k in (0, 1):
        assert found[128][k] < 1.4 * found[32][k]
    # the same posterior, to what 100 draws of each tell
    sd = np.maximum(found[32][3], found[128][3])
    assert np.abs(found[32][2] - found[128][2]).max() < 5 * 1.5 * sd.max() * math.sqrt(2 / 100)


def test_the_mode_is_that_of_the_free_numbers():
    # hardly any data: a log-normal prior, whose most probable natural number is exp(mu - sd^2)
    problem = growth(data=[0.5], scale=50.0)
    solution = run(problem, Laplace(draws=4000))
    assert max(abs(entry) for entry in solution.draws.notes["mode"]) < 1e-3
    rate = np.log(solution.posterior.values["rate"][0])
    assert rate.mean() == pytest.approx(0.0, abs=4 * 0.7 / math.sqrt(4000))
    assert rate.std() == pytest.approx(0.7, rel=4 / math.sqrt(2 * 4000))


def test_a_saddle_is_told_with_a_remedy():
    solution = run(squared(start=0.0), Laplace())
    assert solution.status.kind == "failed" and solution.draws is None
    assert "has the eigenvalue -" in solution.status.sentence and "nuts" in solution.status.sentence
    around = run(squared(start=1.0), Laplace(draws=500))
    assert around.status.kind == "converged"


def test_a_skewed_posterior_is_told():
    solution = run(growth(), Laplace(draws=2000))
    notes = solution.draws.notes
    weights = (solution.draws.log_density - solution.draws.log_proposal)[0]
    weights = torch.softmax(weights, 0)
    assert notes["weights_ess"] == pytest.approx(float(1 / weights.square().sum()), rel=1e-9)
    assert 50 < notes["weights_ess"] < 1900
    assert "reweighted to the posterior they are worth" in solution.status.sentence


@pytest.mark.parametrize("kind", ["exact", "low_rank"])
def test_same_seed_same_draws_and_resumed(kind, tmp_path, monkeypatch):
    strategy = Laplace(hessian=kind, draws=50)
    whole = run(growth(), strategy, seed=5)
    other = run(growth(), strategy, seed=6)
    assert not torch.equal(whole.draws.free, other.draws.free)
    resumed = interrupted_and_resumed(growth(), strategy, tmp_path / "run", monkeypatch, after=5, seed=5)
    assert torch.equal(whole.draws.free, resumed.draws.free)
    assert whole.counts == resumed.counts
    short = run(growth(), strategy, budget=Budget(simulated_steps=100))
    assert short.status.kind == "budget spent" and short.counts.simulated_steps <= 100


def test_what_does_not_fit_is_refused():
    problem = inference_problem(
        lambda state, control, *, parameters: state + parameters["rate"],
        data=torch.ones(1, 1, 1, dtype=F64),
        observation=observe(noise=Gaussian(0.5), steps=[1]),
        initial_state=torch.zeros(1, 1, dtype=F64),
        horizon=1,
        prior={"rate": FisherSnedecor(*torch.tensor([6.0, 8.0], dtype=F64))},
    )
    assert "Gaussian in some coordinates" in mismatch(problem, Laplace(hessian="low_rank"))
    assert mismatch(problem, Laplace()) is None
    assert run(problem, Laplace(draws=100)).status.kind == "converged"
    with pytest.raises(UsageError, match="must be one of auto, exact, gauss_newton, low_rank"):
        Laplace(hessian="diagonal")
    with pytest.raises(UsageError, match=r"Laplace\(tolerance=...\) must be a positive number"):
        Laplace(tolerance=-1.0)
