"""Posteriors of the small problems by two strategies that share nothing but the density, and by closed forms."""

import dataclasses

import numpy as np
import pytest
import torch

import dpcontrol as dp
from dpcontrol import catalogue
from dpcontrol.meter import Meter
from dpcontrol.posterior import Posterior
from dpcontrol.problem import sites

FAR = 4.5  # standard errors; 33 entries stay within them in all but one of 5,000 runs


def weighted(log_weights: torch.Tensor, values) -> tuple[dict, dict, float]:
    """Means and standard deviations of weighted draws by site, and the effective number of them."""
    weights = torch.softmax(log_weights, 0).numpy()
    means, sds = {}, {}
    for name, flat in values.items():
        means[name] = np.tensordot(weights, np.asarray(flat), 1)
        sds[name] = np.sqrt(np.tensordot(weights, (np.asarray(flat) - means[name]) ** 2, 1))
    return means, sds, float(1 / (weights**2).sum())


def by_its_own_weights(posterior: Posterior) -> tuple[dict, dict, float]:
    """Moments of the draws of an approximation, weighted to those of the posterior."""
    logarithms = (posterior.draws.log_density - posterior.draws.log_proposal).reshape(-1)
    flat = {name: value.reshape(-1, *value.shape[2:]) for name, value in posterior.values.items()}
    return weighted(logarithms, flat)


def by_wide_draws(posterior: Posterior, draws: int = 6000, degrees: float = 4.0) -> tuple[dict, dict, float]:
    """Moments from draws of a Student t that is wider than an approximation: for posteriors that are no bell."""
    flat = posterior.draws.flat()
    d = flat.shape[1]
    root = 1.3 * torch.linalg.cholesky(torch.cov(flat.T))
    generator = np.random.default_rng(0)
    e = generator.standard_normal((draws, d)) / np.sqrt(generator.chisquare(degrees, (draws, 1)) / degrees)
    e = torch.as_tensor(e)
    x = flat.mean(0) + e @ root.T
    proposal = -0.5 * (degrees + d) * torch.log1p(e.square().sum(1) / degrees)
    meter = Meter(dataclasses.replace(posterior.problem, joint=True))
    density = torch.cat([meter.log_densities(part) for part in x.split(500)])
    return weighted(density - proposal, sites(posterior.natural(x)))


def agree(posterior: Posterior, means, sds, effective: float) -> None:
    """Means and standard deviations within their Monte-Carlo errors of others with ``effective`` draws."""
    for name, mean in means.items():
        site = posterior.summary(few=100).sites[name]
        error = np.sqrt(site.mixing.mcse_mean.reshape(site.mean.shape) ** 2 + sds[name] ** 2 / effective)
        assert float(np.abs((site.mean - mean) / error).max()) < FAR, name
        count = np.minimum(site.mixing.ess_bulk, site.mixing.ess_tail).reshape(site.mean.shape)
        error = np.sqrt(0.5 / count + 0.5 / effective)
        assert float(np.abs(np.log(site.sd / sds[name]) / error).max()) < FAR, name


def solved(name: str, strategy: str, **options) -> Posterior:
    return dp.solve(catalogue.find(name).build(size="small"), strategy, seed=1, **options).posterior


def exact(problem):
    parts = {
        name: (np.asarray(mean), np.asarray(sd)) for name, (mean, sd) in problem.reference_posterior.items()
    }
    return {name: mean for name, (mean, _) in parts.items()}, {name: sd for name, (_, sd) in parts.items()}


def test_laplace_is_exact_where_the_posterior_is_normal():
    posterior = solved("linear_gaussian", "laplace")
    weights = posterior.draws.log_density - posterior.draws.log_proposal
    assert float(weights.std()) < 1e-6  # up to the constant, the evidence, the two densities are one
    means, sds, effective = by_its_own_weights(posterior)
    assert effective == pytest.approx(posterior.draws.log_density.numel(), rel=1e-6)
    for name, (mean, sd) in posterior.problem.reference_posterior.items():
        mean, sd = np.asarray(mean), np.asarray(sd)
        assert float(np.abs((means[name] - mean) / sd).max()) < FAR / np.sqrt(effective)
        assert float(np.abs(np.log(sds[name] / sd)).max()) < FAR / np.sqrt(2 * effective)


@pytest.mark.parametrize(
    "name", ["hare_lynx", "linear_gaussian", "gas_oil", "burgers_viscosity", "heat_source_posterior"]
)
def test_problems_draw_their_figures(name):
    from matplotlib.figure import Figure

    problem = catalogue.find(name).build(size="small")
    solution = dp.solve(problem, "lbfgs", budget=dp.Budget(gradients=2))
    for draw in problem.plots.values():
        figure = Figure(layout="constrained")
        draw(figure, {"one": solution, "another": solution})
        figure.canvas.draw()
        assert len(figure.axes) >= 2


@pytest.mark.slow
def test_nuts_agrees_with_the_smoother():
    posterior = solved("linear_gaussian", "nuts", draws=1000, warmup=300)
    assert posterior.summary(few=100).worst_rhat.value < 1.02
    agree(posterior, *exact(posterior.problem), effective=np.inf)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gas_oil_posterior", "heat_source_posterior", "burgers_viscosity"])
def test_nuts_and_weighted_draws_agree(name):
    other = (by_its_own_weights if name == "burgers_viscosity" else by_wide_draws)(
        solved(name, "laplace", draws=4000)
    )
    assert other[2] > 400
    posterior = solved(name, "nuts", draws=500, warmup=300, target_acceptance=0.9)
    assert posterior.summary(few=100).worst_rhat.value < 1.03
    assert posterior.summary().divergences == 0
    agree(posterior, *other)
    for site, truth in (posterior.problem.truth or {}).items():
        found = posterior.summary(few=100).sites[site]
        assert float(np.abs((found.mean - np.asarray(truth)) / found.sd).max()) < FAR, site


@pytest.mark.slow
def test_sensors_on_a_line_leave_chains_on_two_hills_and_the_verdict_says_so():
    from dpcontrol.problems import heat_source_posterior

    problem = heat_source_posterior.problem(size="small", symmetric=True)
    short = {"chains": 4, "draws": 60, "warmup": 60, "depth": 5}
    posterior = dp.solve(problem, "nuts", start="prior", seed=2, **short).posterior
    heights = posterior.values["place_y"].mean(1)
    assert (heights > 0.55).any() and (heights < 0.45).any()
    assert posterior.verdict().warning and posterior.summary().worst_rhat.value > 1.1
