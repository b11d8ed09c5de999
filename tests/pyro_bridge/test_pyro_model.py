"""A problem as a Pyro model: everything of Pyro's works on it, against a closed form."""

import doctest

import pytest
import torch
from gaussian_line import DECAY, F64, SCALE, STEPS, design, line, posterior
from torch.distributions import HalfNormal, LogNormal, Normal, TransformedDistribution, Uniform
from torch.distributions.transforms import AffineTransform

import dpcontrol.pyro_bridge.model
import dpcontrol.pyro_bridge.plates
from dpcontrol import (
    Gaussian,
    Separately,
    StudentT,
    UsageError,
    inference_problem,
    observe,
    pyro_model,
    pyro_simulate,
)
from dpcontrol.problem import draw_prior, sites

pyro = pytest.importorskip("pyro")
infer = pytest.importorskip("pyro.infer")
guides = pytest.importorskip("pyro.infer.autoguide")
pytest.importorskip("pyro.infer.reparam")
from pyro import distributions as dist  # noqa: E402
from pyro import poutine  # noqa: E402


@pytest.fixture(autouse=True)
def fresh():
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    pyro.enable_validation(True)


def trace_of(model, **values):
    return poutine.trace(pyro.condition(model, values)).get_trace()


def test_its_log_density_is_the_problems():
    problem = line()
    z = draw_prior(problem, torch.Generator().manual_seed(3))
    found = trace_of(pyro_model(problem), **sites(z)).log_prob_sum()
    assert torch.allclose(found, problem.log_likelihood(z) + problem.log_prior(z), rtol=1e-12)


def test_sites_have_the_users_names_their_shapes_and_the_precision_of_the_state():
    trace = trace_of(pyro_model(line()))
    shapes = {name: tuple(trace.nodes[name]["value"].shape) for name in trace.stochastic_nodes}
    assert shapes == {"push": (), "initial_state": (1, 1)}
    assert all(trace.nodes[name]["value"].dtype == F64 for name in shapes)
    assert trace.nodes["prediction"]["value"].shape == (STEPS + 1, 1, 1)
    assert trace.nodes["data"]["is_observed"]


def test_densities_made_of_transforms_that_know_their_inverse():
    stretch = AffineTransform(double(1.0), double(2.0))
    assert stretch.inv.inv is stretch
    prior = {
        "push": TransformedDistribution(Normal(0.0, 1.0), [stretch, stretch.inv]),
        "initial_state": LogNormal(0.0, 0.3),
    }
    prior["initial_state"].transforms[0].inv(torch.ones(1))
    problem = line(prior=prior)
    z = draw_prior(problem, torch.Generator().manual_seed(0))
    found = trace_of(pyro_model(problem), **sites(z)).log_prob_sum()
    assert torch.allclose(found, problem.log_likelihood(z) + problem.log_prior(z), rtol=1e-6)


def test_conditioning_takes_a_site_out_of_the_posterior():
    problem = line()
    model = pyro.condition(pyro_model(problem), {"push": torch.tensor(0.3, dtype=F64)})
    trace = poutine.trace(model).get_trace()
    assert list(trace.stochastic_nodes) == ["initial_state"]
    other = torch.full((STEPS + 1, 1, 1), 2.0, dtype=F64)
    with_data = trace_of(pyro_model(problem), data=other)
    assert bool((with_data.nodes["data"]["value"] == 2).all())


def test_unconditioned_it_draws_its_data_and_an_intervention_replaces_a_site():
    model = pyro_model(line())
    drawn = poutine.trace(poutine.uncondition(model)).get_trace().nodes["data"]
    assert not drawn["is_observed"] and torch.isnan(drawn["value"]).sum() == 2
    acted = poutine.trace(pyro.do(model, {"push": torch.tensor(0.0, dtype=F64)})).get_trace()
    start = acted.nodes["initial_state"]["value"]
    assert torch.allclose(acted.nodes["prediction"]["value"][-1, 0], start[0] * DECAY**STEPS)


def test_plates_outside_run_as_a_batch():
    model = pyro_model(line())

    def in_plate():
        with pyro.plate("candidates", 5, dim=-1):
            return model()

    trace = poutine.trace(in_plate).get_trace()
    trace.compute_log_prob()
    assert trace.nodes["data"]["log_prob"].shape == (5,)
    start, push = trace.nodes["initial_state"]["value"], trace.nodes["push"]["value"]
    both = torch.stack([start[:, 0, 0], push], 1)
    assert torch.allclose(trace.nodes["prediction"]["value"][:, :, 0, 0], both @ design().T, rtol=1e-12)


def test_predictive_in_parallel_and_one_after_another_agree():
    model = pyro_model(line())
    draws = {
        "push": torch.randn(7, dtype=F64),
        "initial_state": torch.randn(7, 1, 1, dtype=F64),
    }
    for parallel in (True, False):
        found = infer.Predictive(model, draws, return_sites=["prediction", "data"], parallel=parallel)(
            measured=False
        )
        both = torch.stack([draws["initial_state"][:, 0, 0], draws["push"]], 1)
        assert torch.allclose(found["prediction"][..., 0, 0], both @ design().T, rtol=1e-12)
        assert found["data"].shape == (7, STEPS + 1, 1, 1)
        assert bool(torch.isnan(found["data"][:, 2]).all()), "what was not measured is not replicated either"


def test_the_prior_predictive_has_the_right_moments():
    found = infer.Predictive(pyro_model(line(missing=())), num_samples=4000, parallel=True)(measured=False)
    last = found["data"][:, -1, 0, 0]
    a, b = design()[-1]
    variance = a**2 + 0.25 * b**2 + SCALE**2
    assert abs(last.mean() - a) < 4 * (variance / 4000) ** 0.5
    assert abs(last.var() / variance - 1) < 4 * (2 / 4000) ** 0.5


def test_nuts_of_pyro_finds_the_closed_form():
    problem = line()
    chains = infer.MCMC(
        infer.NUTS(pyro_model(problem)), num_samples=100, warmup_steps=50, disable_progbar=True
    )
    chains.run()
    found = chains.get_samples()
    mean, covariance = posterior(problem)
    sd = covariance.diagonal().sqrt()
    both = torch.stack([found["initial_state"][:, 0, 0], found["push"]], 1)
    # some 40 effective draws at the least: four standard errors
    assert bool(((both.mean(0) - mean).abs() < 4 * sd / 40**0.5).all())
    assert bool(((both.std(0) / sd - 1).abs() < 4 / 80**0.5).all())


@pytest.mark.parametrize("kind", ["AutoNormal", "AutoLowRankMultivariateNormal"])
def test_svi_with_vectorised_particles_finds_the_closed_form(kind):
    problem = line()
    model = pyro_model(problem)
    options = {"rank": 1} if "LowRank" in kind else {}
    guide = getattr(guides, kind)(model, init_scale=0.1, **options)
    bound = infer.Trace_ELBO(num_particles=20, vectorize_particles=True, max_plate_nesting=0)
    svi = infer.SVI(model, guide, pyro.optim.ClippedAdam({"lr": 0.08, "lrd": 0.975}), bound)
    for _ in range(160):
        svi.step()
    mean, covariance = posterior(problem)
    sd = covariance.diagonal().sqrt()
    draws = infer.Predictive(guide, num_samples=4000, parallel=True, return_sites=("initial_state", "push"))()
    both = torch.stack([draws["initial_state"].reshape(-1), draws["push"].reshape(-1)], 1)
    assert bool(((both.mean(0) - mean).abs() < 0.25 * sd).all())
    if kind == "AutoNormal":  # the best factorised normal has the conditional variances
        wanted = torch.linalg.inv(covariance).diagonal() ** -0.5
    else:
        wanted = sd
    assert bool(((both.std(0) / wanted - 1).abs() < 0.2).all())


def test_second_derivatives_give_the_exact_covariance():
    problem = line()
    guide = guides.AutoLaplaceApproximation(pyro_model(problem))
    guide()
    found = guide.laplace_approximation().get_posterior().covariance_matrix
    wanted = posterior(problem)[1].flip(0, 1)  # the push comes first
    assert torch.allclose(found, wanted, rtol=1e-9)


def test_the_elbo_of_the_exact_posterior_is_the_evidence():
    """ln p(data) is known; a guide that is the posterior gives it without any scatter."""
    problem = line()
    mean, covariance = posterior(problem)
    exact = torch.distributions.MultivariateNormal(mean, covariance)

    def bound_at(point):
        values = {"initial_state": point[:1, None], "push": point[1]}
        return trace_of(pyro_model(problem), **values).log_prob_sum() - exact.log_prob(point)

    data = problem.scenarios.data["data"].reshape(-1)
    there = ~torch.isnan(data)
    A = design()[there]
    prior = torch.diag(torch.tensor([1.0, 0.25], dtype=F64))
    whole = A @ prior @ A.T + SCALE**2 * torch.eye(len(A), dtype=F64)
    evidence = torch.distributions.MultivariateNormal(A @ torch.tensor([1.0, 0.0], dtype=F64), whole)
    for point in (mean, mean + 1.0):
        assert torch.allclose(bound_at(point), evidence.log_prob(data[there]), rtol=1e-10)


def double(values):
    return torch.tensor(values, dtype=F64)


def several_experiments():
    def shrink(x, u, *, parameters):
        return (1 - parameters["rate"][:, None]) * x + parameters["push"]

    return inference_problem(
        shrink,
        data=[torch.rand(4, 3, 2, dtype=F64), torch.rand(1, 3, 2, dtype=F64)],
        observation=[
            observe(noise=Gaussian("sigma")),
            observe(noise=StudentT("tau", degrees=4.0), steps=[3]),
        ],
        initial_state=torch.zeros(3, 2, dtype=F64),
        horizon=3,
        prior={
            "rate": Separately(Uniform(double(0.1), double(0.4))),
            "push": Normal(double([0.0, 0.0]), 1.0),
            "initial_state": LogNormal(double(0.0), double(0.3)),
            "sigma": HalfNormal(double([0.3, 0.1])),
            "tau": Separately(LogNormal(double(-1.0), double(0.2))),
        },
        name="experiments",
    )


def test_experiments_scales_and_several_observations_in_vectorised_plates():
    problem = several_experiments()
    model = pyro_model(problem)
    generator = torch.Generator().manual_seed(1)
    draws = [draw_prior(problem, generator) for _ in range(4)]
    stacked = {name: torch.stack([sites(z)[name] for z in draws])[:, None, None] for name in sites(draws[0])}

    def in_plates():  # two further plates in front, of which one is empty
        with pyro.plate("draws", 4, dim=-3), pyro.plate("nothing", 1, dim=-2), pyro.plate("more", 1, dim=-1):
            return model()

    trace = poutine.trace(pyro.condition(in_plates, stacked)).get_trace()
    trace.compute_log_prob()
    total = sum(node["log_prob"] for node in trace.nodes.values() if "log_prob" in node)
    wanted = torch.stack([problem.log_likelihood(z) + problem.log_prior(z) for z in draws])
    assert torch.allclose(total.reshape(-1), wanted, rtol=1e-10)


def test_a_state_that_is_a_dict_with_guides_of_several_kinds_and_a_reparametrised_site():
    def step(x, u, *, parameters):
        return {"place": x["place"] + parameters["rate"] * x["speed"], "speed": 0.9 * x["speed"]}

    problem = inference_problem(
        step,
        data=torch.ones(3, 2, 1, dtype=F64),
        observation=observe(lambda x: x["place"], noise=Gaussian(0.5)),
        initial_state={"place": torch.zeros(2, 1, dtype=F64), "speed": torch.zeros(2, 1, dtype=F64)},
        horizon=2,
        prior={
            "rate": Normal(double(1.0), 0.5),
            "initial_state.place": Normal(double(0.0), 1.0),
            "initial_state.speed": LogNormal(double(0.0), double(0.3)),
        },
    )
    model = pyro_model(problem)
    shapes = {"rate": (), "initial_state.place": (2, 1), "initial_state.speed": (2, 1)}
    for kind in ("AutoDelta", "AutoNormal"):
        pyro.clear_param_store()
        guide = getattr(guides, kind)(model)
        assert torch.isfinite(torch.tensor(infer.Trace_ELBO().loss(model, guide)))
        found = guide()
        assert {name: tuple(value.shape) for name, value in found.items()} == shapes
    centred = poutine.reparam(model, config={"rate": infer.reparam.LocScaleReparam(0.0)})
    assert "rate_decentered" in poutine.trace(centred).get_trace().nodes


def test_a_step_that_looks_at_its_numbers_runs_draw_by_draw():
    def picky(x, u, *, parameters):
        return x + parameters["push"] if float(parameters["push"]) > 0 else x

    problem = inference_problem(
        picky,
        data=torch.ones(3, 1, 1, dtype=F64),
        observation=observe(noise=Gaussian(0.5)),
        initial_state=torch.ones(1, 1, dtype=F64),
        horizon=2,
        prior={"push": Normal(double(0.0), 1.0)},
    )
    draws = {"push": double([-1.0, 0.5, 2.0])}
    found = infer.Predictive(pyro_model(problem), draws, parallel=True, return_sites=("prediction",))()
    assert found["prediction"][:, 2, 0, 0].tolist() == [1.0, 2.0, 5.0]


def breaking(impossible=-float("inf")):
    """A model with the square root of a negative number where the push is below zero."""

    def root(x, u, *, parameters):
        return x + parameters["push"].sqrt()

    return pyro_model(
        inference_problem(
            root,
            data=torch.full((3, 1, 1), 1.5, dtype=F64),
            observation=observe(noise=Gaussian(0.5)),
            initial_state=torch.ones(1, 1, dtype=F64),
            horizon=2,
            prior={"push": Normal(0.5, 1.0)},
        ),
        impossible=impossible,
    )


def test_a_failing_draw_is_impossible_and_the_chain_lives():
    model = breaking()
    bad = trace_of(model, push=torch.tensor(-1.0, dtype=F64))
    assert bad.log_prob_sum() == -float("inf") and bad.nodes["failed"]["value"] == 1
    good = trace_of(model, push=torch.tensor(0.2, dtype=F64))
    assert bool(torch.isfinite(good.log_prob_sum())) and good.nodes["failed"]["value"] == 0
    chains = infer.MCMC(
        infer.NUTS(model),
        num_samples=40,
        warmup_steps=40,
        initial_params={"push": torch.tensor(0.5, dtype=F64)},
        disable_progbar=True,
    )
    chains.run()
    assert bool((chains.get_samples()["push"] >= 0).all())


def test_with_a_finite_penalty_svi_learns_to_stay_away():
    model = breaking(impossible=-1e3)
    guide = guides.AutoNormal(model, init_loc_fn=guides.init_to_value(values={"push": torch.tensor(0.5)}))
    bound = infer.Trace_ELBO(num_particles=10, vectorize_particles=True, max_plate_nesting=0)
    svi = infer.SVI(model, guide, pyro.optim.Adam({"lr": 0.02}), bound)
    for _ in range(100):
        svi.step()
    assert all(bool(torch.isfinite(value).all()) for value in pyro.get_param_store().values())
    assert float(guide.median()["push"]) > 0


def test_names_of_the_models_own_sites_are_refused():
    def step(x, u, *, parameters):
        return x + parameters["data"]

    problem = inference_problem(
        step,
        data=torch.ones(1, 1, 1, dtype=F64),
        observation=observe(noise=Gaussian(1.0), steps=[1]),
        initial_state=torch.zeros(1, 1, dtype=F64),
        horizon=1,
        prior={"data": Normal(0.0, 1.0)},
    )
    with pytest.raises(UsageError, match="call it something else"):
        pyro_model(problem)


def test_a_problem_without_a_prior_is_refused():
    from dpcontrol import Parameters

    problem = line(prior=None, unknown=Parameters("push"), parameters={"push": 0.1})
    with pytest.raises(UsageError, match="has no prior"):
        pyro_model(problem)


# -- simulators in models of one's own -----------------------------------------------------------------------------


def own_model(data=None, impossible=-float("inf")):
    """Three experiments with a shared push and starts of their own."""
    push = pyro.sample("push", dist.Normal(torch.zeros((), dtype=F64), 0.5))
    with pyro.plate("experiments", 3, dim=-1):
        start = pyro.sample("start", dist.Normal(torch.ones((), dtype=F64), 1.0))
        states = pyro_simulate(
            step_of_vector,
            start[..., None],
            steps=STEPS,
            axes=1,
            parameters={"push": push},
            impossible=impossible,
        )
        pyro.deterministic("states", states, event_dim=2)
        return pyro.sample("y", dist.Normal(states[..., 0], SCALE).to_event(1), obs=data)


def step_of_vector(x, u, *, parameters):
    return DECAY * x + parameters["push"][:, None]


def test_a_simulator_in_ones_own_model_with_plates_as_scenarios():
    trace = poutine.trace(own_model).get_trace()
    trace.compute_log_prob()
    both = torch.stack([trace.nodes["start"]["value"], trace.nodes["push"]["value"].expand(3)], 1)
    assert torch.allclose(trace.nodes["states"]["value"][..., 0], both @ design().T, rtol=1e-12)
    found = infer.Predictive(
        own_model, num_samples=50, parallel=True, return_sites=("start", "push", "states")
    )()
    both = torch.stack([found["start"], found["push"].expand(50, 3)], 2)
    assert torch.allclose(found["states"][..., 0], both @ design().T, rtol=1e-12)


def test_svi_of_ones_own_model_with_vectorised_particles_finds_the_closed_form():
    data = torch.tensor([1.0, 1.5, 0.4], dtype=F64)[:, None] * design()[:, 0] + 0.2 * design()[:, 1]
    guide = guides.AutoMultivariateNormal(own_model, init_scale=0.1)
    bound = infer.Trace_ELBO(num_particles=10, vectorize_particles=True, max_plate_nesting=1)
    svi = infer.SVI(own_model, guide, pyro.optim.ClippedAdam({"lr": 0.08, "lrd": 0.975}), bound)
    for _ in range(160):
        svi.step(data)
    # unknowns (push, starts); all data are a linear function of them
    A = torch.cat([design()[:, 1:].repeat(3, 1), torch.block_diag(*[design()[:, :1]] * 3)], 1)
    precision = torch.diag(torch.tensor([4.0, 1.0, 1.0, 1.0], dtype=F64)) + A.T @ A / SCALE**2
    mean = torch.linalg.solve(
        precision, A.T @ data.reshape(-1) / SCALE**2 + torch.tensor([0.0, 1, 1, 1], dtype=F64)
    )
    sd = torch.linalg.inv(precision).diagonal().sqrt()
    found = guide.median()
    away = torch.cat([found["push"].reshape(1), found["start"].reshape(3)]) - mean
    assert bool((away.abs() < 0.25 * sd).all())


def test_only_the_failed_entry_of_a_plate_is_impossible():
    def model():
        with pyro.plate("experiments", 3, dim=-1):
            start = pyro.sample("start", dist.Normal(torch.zeros(3, dtype=F64), 1.0))
            return pyro_simulate(lambda x, u: x.sqrt(), start[..., None], steps=2, axes=1)

    start = torch.tensor([1.0, -1.0, 4.0], dtype=F64, requires_grad=True)
    trace = poutine.trace(pyro.condition(model, {"start": start})).get_trace()
    trace.compute_log_prob()
    assert trace.nodes["ran"]["log_prob"].tolist() == [0.0, -float("inf"), 0.0]
    (gradient,) = torch.autograd.grad(trace.nodes["_RETURN"]["value"].sum(), start)
    assert torch.isfinite(gradient).all() and gradient[1] == 0 and gradient[0] != 0


def test_an_initial_state_without_its_own_axes_is_refused():
    with pytest.raises(UsageError, match="do not broadcast"):
        pyro_simulate(lambda x, u: x, torch.zeros(3, 2), steps=1, axes=1, parameters={"a": torch.zeros(2)})


@pytest.mark.parametrize("module", [dpcontrol.pyro_bridge.model, dpcontrol.pyro_bridge.plates])
def test_the_examples_in_the_docstrings_run(module):
    found = doctest.testmod(module)
    assert found.attempted > 0 and found.failed == 0
