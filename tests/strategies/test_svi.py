"""Variational inference: the nearest member of a family, its bound, and how a fit ends."""

import math

import numpy as np
import pytest
import torch
from posterior_cases import F64, FALSE_ALARM, Linear, field, grid_moments, growth, surprises
from strategy_cases import interrupted_and_resumed
from torch.distributions import MultivariateNormal

from dpcontrol.meter import Budget
from dpcontrol.problem import Gaussian, inference_problem, observe
from dpcontrol.results import UsageError
from dpcontrol.run import run
from dpcontrol.strategies.posteriors.guides import KINDS, first_guide, guide_of_information
from dpcontrol.strategies.posteriors.laplace import Laplace
from dpcontrol.strategies.posteriors.svi import SVI

each = pytest.mark.parametrize("kind", KINDS)


def theta(solution):
    """Draws in natural numbers, ``(draws, size)``."""
    return solution.posterior.values["theta"][0]


def log_evidence(case):
    """``log p(y)`` of a linear problem."""
    both, y = torch.cat([case.G, -case.G]), case.data.flatten()
    seen = ~torch.isnan(y)
    covariance = both @ case.prior.covariance_matrix @ both.T
    covariance = covariance[seen][:, seen] + case.scale**2 * torch.eye(int(seen.sum()), dtype=F64)
    return float(MultivariateNormal((both @ case.prior.mean)[seen], covariance).log_prob(y[seen]))


# -- guides --------------------------------------------------------------------------------------------------------


def moved(kind, d=5, steps=6):
    """A guide after some steps, and the generator that made them."""
    generator = torch.Generator().manual_seed(0)
    guide = first_guide(kind, torch.arange(float(d), dtype=F64), torch.full((d,), 0.7, dtype=F64), 3)
    for _ in range(steps):
        eps, u = torch.randn(2, 8, d, generator=generator, dtype=F64)
        guide = guide.shifted(0.1 * u.mean(0)).spread(u, eps, 0.4)
    return guide, generator


@each
def test_a_guide_is_one_normal_distribution(kind):
    guide, generator = moved(kind)
    identity = torch.eye(5, dtype=F64)
    R = guide.push(identity).T
    eps = torch.randn(7, 5, generator=generator, dtype=F64)
    torch.testing.assert_close(guide.place(eps), guide.mean + eps @ R.T)
    torch.testing.assert_close(guide.pull(eps), eps @ R)
    torch.testing.assert_close(guide.log_determinant(), torch.linalg.slogdet(R).logabsdet)
    theirs = MultivariateNormal(guide.mean, R @ R.T)
    torch.testing.assert_close(guide.log_density(eps), theirs.log_prob(guide.place(eps)))
    torch.testing.assert_close(guide.scaled(0.5).push(eps), 0.5 * guide.push(eps))


@each
def test_a_step_is_the_exponential_of_its_gradient(kind):
    guide, generator = moved(kind)
    eps, u = torch.randn(2, 2, 5, generator=generator, dtype=F64)
    if kind == "low_rank":  # with room for every direction
        filler = torch.linalg.qr(torch.cat([guide.V, torch.eye(5, dtype=F64)], 1)).Q[:, 3:5]
        V = torch.cat([guide.V, filler], 1)
        guide = type(guide)(guide.mean, guide.size, V, torch.cat([guide.f, torch.zeros(2, dtype=F64)]))
    A = 0.3 * u.T @ eps / 2
    G = torch.diag(A.diagonal()) if kind == "mean_field" else 0.5 * (A + A.T)
    c, Q = torch.linalg.eigh(G)
    R = guide.push(torch.eye(5, dtype=F64)).T
    wanted = R @ (Q * c.clamp(-1, 1).exp()) @ Q.T @ R.T
    after = guide.spread(u, eps, 0.3)
    found = after.push(torch.eye(5, dtype=F64))
    torch.testing.assert_close(found.T @ found, wanted, rtol=1e-9, atol=1e-9)


@each
@pytest.mark.parametrize("rank", [2, 5])
def test_a_guide_with_the_expected_information(kind, rank):
    J = torch.randn(2, 5, generator=torch.Generator().manual_seed(0), dtype=F64)
    P = torch.tensor([1.0, 2.0, 3.0, 0.5, 0.2], dtype=F64)
    guide = guide_of_information(kind, torch.zeros(5, dtype=F64), J, P, rank)
    R = guide.push(torch.eye(5, dtype=F64)).T
    wanted = torch.linalg.inv(J.T @ J + torch.diag(P))
    if kind == "mean_field":
        wanted = torch.diag(1 / (J.T @ J + torch.diag(P)).diagonal())
    torch.testing.assert_close(R @ R.T, wanted)


# -- fits ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["full", "low_rank"])
@pytest.mark.parametrize("start", ["laplace", "prior"])
def test_a_normal_posterior_is_met_and_its_bound_is_the_evidence(kind, start):
    case = Linear()
    solution = run(case.problem(), SVI(guide=kind, start=start, draws=4000), seed=1)
    notes = solution.draws.notes
    assert solution.status.kind == "converged"
    assert notes["elbo"] == pytest.approx(log_evidence(case), abs=1e-5)
    assert notes["weights_ess"] > 3999
    found = surprises(theta(solution), *case.closed_form())
    assert min(found.values()) > FALSE_ALARM, found


@pytest.mark.parametrize("start", ["laplace", "prior"])
def test_a_mean_field_has_the_mean_and_the_conditional_spreads(start):
    case = Linear()
    problem = case.problem()
    strategy = SVI(guide="mean_field", start=start, halvings=6, particles=32, draws=4000)
    solution = run(problem, strategy, seed=1)
    # of the normal N(m, C) the nearest independent one has the variances 1 / (C^-1)_ii, in free numbers
    root = case.prior.scale_tril
    mean, covariance = case.closed_form()
    free = torch.linalg.solve(root, torch.linalg.solve(root, covariance).T)
    sd = torch.linalg.inv(free).diagonal().rsqrt()
    centre = torch.linalg.solve(root, mean - case.prior.mean)
    found = solution.draws.free[0]
    # what the noise of the gradient leaves, and that of 4,000 draws, each 1.6 % of a sd
    torch.testing.assert_close(found.mean(0), centre, rtol=0, atol=float(0.08 * sd.min()))
    torch.testing.assert_close(found.std(0), sd, rtol=0.08, atol=0)
    gap = 0.5 * float(torch.log(sd.square()).sum() - torch.logdet(free))
    assert solution.draws.notes["elbo"] == pytest.approx(log_evidence(case) + gap, abs=0.05)


def test_a_skewed_posterior_is_fitted_better_than_by_laplace():
    problem = growth(scale=0.05)
    mean, sd = grid_moments(problem)
    solution = run(problem, SVI(draws=4000), seed=1)
    values = solution.posterior.values
    found = [np.log(values["rate"][0]), np.log(values["initial_state"][0]).ravel()]
    for k, draws in enumerate(found):
        assert draws.mean() == pytest.approx(mean[k], abs=0.12 * sd[k])
        assert draws.std() == pytest.approx(sd[k], rel=0.12)
    laplace = run(problem, Laplace(draws=4000), seed=1)
    assert solution.draws.notes["weights_ess"] > laplace.draws.notes["weights_ess"]


def test_few_directions_are_enough_for_many_unknowns():
    case = Linear(size=150, entries=6)
    solution = run(case.problem(), SVI(rank=8, draws=400), seed=1)
    assert solution.draws.notes["guide"] == "low_rank"
    mean, covariance = case.closed_form()
    z = (theta(solution).mean(0) - mean.numpy()) / np.sqrt(covariance.diagonal().numpy() / 400)
    assert np.abs(z).max() < 5.0
    assert solution.draws.notes["elbo"] == pytest.approx(log_evidence(case), abs=0.2)


def test_a_fit_of_a_field_is_near_its_posterior():
    solution = run(field(64), SVI(draws=200), seed=1)
    assert solution.status.kind == "converged"
    assert solution.draws.notes["weights_ess"] > 150


def edge(at):
    """Predicts theta, and cannot be simulated beyond an edge."""

    def step(state, control, *, parameters):
        return state + torch.where(parameters["theta"] > at, torch.nan, parameters["theta"])

    return inference_problem(
        step,
        data=torch.full((1, 1, 1), -0.5, dtype=F64),
        observation=observe(noise=Gaussian(0.3), steps=[1]),
        initial_state=torch.zeros(1, 1, dtype=F64),
        horizon=1,
        prior={"theta": torch.distributions.Normal(*torch.tensor([-1.0, 1.0], dtype=F64))},
        name="edge",
    )


def test_particles_that_cannot_be_simulated_are_counted_and_left_out():
    solution = run(edge(-0.2), SVI(draws=2000, start="prior", spread=2.0), seed=1)
    assert solution.counts.failures > 0 and solution.status.kind == "converged"
    assert theta(solution).mean() == pytest.approx(-0.55, abs=0.1)
    assert solution.draws.log_density.isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_same_seed_same_draws_and_resumed(kind, tmp_path, monkeypatch):
    problem, strategy = growth(scale=0.05), SVI(guide=kind, iterations=12, draws=20, rank=1)
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    whole = run(problem, strategy, seed=5)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert whole.status.kind == "iterations spent"
    assert not torch.equal(whole.draws.free, run(problem, strategy, seed=6).draws.free)
    for after in (3, 20):  # on the way to the mode, and in the fit
        resumed = interrupted_and_resumed(
            problem, strategy, tmp_path / str(after), monkeypatch, after=after, seed=5
        )
        assert torch.equal(whole.draws.free, resumed.draws.free)
        assert whole.counts == resumed.counts
        assert whole.draws.notes["elbos"] == resumed.draws.notes["elbos"]


@pytest.mark.parametrize("limit", [Budget(simulated_steps=20_000), Budget(gradients=900)])
def test_a_budget_leaves_enough_for_the_draws(limit):
    solution = run(growth(scale=0.05), SVI(draws=100), budget=limit)
    assert solution.status.kind == "budget spent" and solution.draws.count == 100
    assert solution.counts.simulated_steps <= (limit.simulated_steps or math.inf)
    assert solution.counts.gradients <= (limit.gradients or math.inf)


def test_impossible_fields_are_refused():
    with pytest.raises(UsageError, match="must be one of auto, mean_field, low_rank, full"):
        SVI(guide="flow")
    with pytest.raises(UsageError, match="must be one of laplace, prior"):
        SVI(start="map")
    with pytest.raises(UsageError, match=r"SVI\(rate=...\) must be a positive number"):
        SVI(rate=0)
