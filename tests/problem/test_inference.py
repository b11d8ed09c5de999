"""Posing an inference problem: what is sought, what is measured, and what the posterior's density is."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from precision import double_precision  # noqa: F401
from pyro.distributions import Delta
from torch.distributions import (
    Categorical,
    Dirichlet,
    FisherSnedecor,
    LogNormal,
    MultivariateNormal,
    Normal,
    VonMises,
)

import dpcontrol as dp
from dpcontrol.meter import Meter
from dpcontrol.problem import (
    draw_prior,
    from_sites,
    observe,
    pointwise_log_likelihood,
    predictions,
    replicate,
    sites,
    with_measurements,
)
from dpcontrol.problem.predicting import measurements

OSCILLATOR = torch.tensor([[0.95, 0.3], [-0.3, 0.95]], dtype=torch.float64)


def spiral(state, control, *, parameters):
    """A damped rotation whose pace and forcing are parameters."""
    turned = state @ OSCILLATOR.T
    return state + parameters["pace"][..., None] * (turned - state) + parameters["push"]


def posed(**changed):
    asked = {
        "data": torch.linspace(-1.0, 1.0, 12).reshape(3, 2, 2),
        "observation": observe(noise=dp.Gaussian("scale"), steps=[2, 4, 6]),
        "initial_state": torch.tensor([[1.0, 0.0], [0.0, -1.0]]),
        "horizon": 6,
        "prior": {
            "pace": LogNormal(torch.tensor(0.0), torch.tensor(0.3)),
            "push": MultivariateNormal(torch.zeros(2), torch.tensor([[0.5, 0.2], [0.2, 0.3]])),
            "scale": LogNormal(torch.tensor(-1.0), torch.tensor(0.5)),
        },
    }
    return dp.inference_problem(spiral, **{**asked, **changed})


def test_log_density_is_that_of_data_and_priors_with_the_jacobian():
    problem = posed()
    free = {
        "parameters": {"pace": torch.tensor(0.4), "push": torch.tensor([0.3, -0.2])},
        "observation": {"scale": torch.tensor(0.7)},
    }
    pace, scale = math.exp(0.3 * 0.4), math.exp(-1 + 0.5 * 0.7)
    prior = posed().prior.densities["parameters.push"]
    push = prior.scale_tril @ free["parameters"]["push"]
    z = problem.unknown.natural(free)
    assert z["parameters"]["pace"].item() == pytest.approx(pace)
    assert torch.allclose(z["parameters"]["push"], push)
    state, expected = problem.scenarios.data["initial_state"], 0.0
    for k in range(7):
        if k in (2, 4, 6):
            data = problem.scenarios.data["data"][:, k // 2 - 1]
            expected += Normal(state, scale).log_prob(data).sum()
        state = spiral(state, None, parameters={"pace": torch.tensor(pace), "push": push})
    likelihood = problem.log_likelihood(z)
    assert likelihood.item() == pytest.approx(float(expected))
    # natural numbers: the density of the priors as given
    natural = (
        LogNormal(0.0, 0.3).log_prob(torch.tensor(pace))
        + prior.log_prob(push)
        + LogNormal(-1.0, 0.5).log_prob(torch.tensor(scale))
    )
    assert problem.log_density(free, jacobian=False).item() == pytest.approx(float(expected + natural))
    # free numbers: white
    white = Normal(0.0, 1.0).log_prob(torch.tensor([0.4, 0.3, -0.2, 0.7])).sum()
    assert problem.prior.white
    assert problem.log_density(free).item() == pytest.approx(float(expected + white))


def test_a_prior_that_is_not_white_brings_its_jacobian():
    problem = posed(prior={**posed_prior(), "pace": FisherSnedecor(torch.tensor(6.0), torch.tensor(8.0))})
    assert not problem.prior.white
    free = problem.unknown.free(problem.start())
    z = problem.unknown.natural(free)
    difference = problem.log_density(free) - problem.log_density(free, jacobian=False)
    # pace = exp(free), the others are white: log|d natural / d free| by hand
    cholesky = posed().prior.densities["parameters.push"].scale_tril
    jacobian = (
        z["parameters"]["pace"].log()
        + torch.linalg.slogdet(cholesky)[1]
        + (0.5 * z["observation"]["scale"]).log()
    )
    assert difference.item() == pytest.approx(float(jacobian))


def posed_prior():
    return {
        "pace": LogNormal(torch.tensor(0.0), torch.tensor(0.3)),
        "push": MultivariateNormal(torch.zeros(2), torch.tensor([[0.5, 0.2], [0.2, 0.3]])),
        "scale": LogNormal(torch.tensor(-1.0), torch.tensor(0.5)),
    }


def test_meter_gives_densities_gradients_and_the_fisher_information():
    problem = replace(posed(), joint=True)
    meter = Meter(problem)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(5, meter.dimension, generator=generator)
    densities, gradients = meter.log_densities_and_gradients(x)
    assert torch.allclose(densities, meter.log_densities(x))
    shift = 1e-5 * torch.randn(5, meter.dimension, generator=generator)
    slope = (meter.log_densities(x + shift) - meter.log_densities(x - shift)) / 2
    assert torch.allclose(slope, (gradients * shift).sum(1), rtol=1e-7)
    assert meter.counts.simulated_steps == 5 * 2 * 6 * (2 + 1 + 1 + 1) and meter.counts.gradients == 10
    # the covariance of the score over replicated data is the Fisher information
    point = x[:1]
    jacobian = meter.fisher_roots(point)
    z = meter.trees(point)
    scores = []
    for _ in range(1500):
        data = replicate(problem, z, generator)
        rows = point.clone().requires_grad_()
        likelihood = with_measurements(problem, data).log_likelihood(Meter(problem).trees(rows))
        scores.append(torch.autograd.grad(likelihood, rows)[0][0])
    covariance = torch.cov(torch.stack(scores).T)
    fisher = jacobian.T @ jacobian
    size = fisher.diagonal().sqrt()
    assert ((covariance - fisher) / torch.outer(size, size)).abs().max() < 5 * math.sqrt(2 / 1500)


def test_entries_that_were_not_measured_count_for_nothing():
    data = torch.linspace(-1.0, 1.0, 12).reshape(3, 2, 2)
    holes = data.clone()
    holes[1, 0, 1] = holes[2, 1, 0] = float("nan")
    whole, some = posed(data=data), posed(data=holes)
    z = whole.start()
    lost = pointwise_log_likelihood(whole, z)[0]
    assert some.log_likelihood(z).item() == pytest.approx(float(lost.sum() - lost[1, 0, 1] - lost[2, 1, 0]))
    assert len(Meter(some).fisher_roots(Meter(some).start())) == 2 * 10
    assert torch.isnan(replicate(some, z, torch.Generator().manual_seed(0))[0]).sum() == 2
    with pytest.raises(dp.UsageError, match="not finite"):
        posed(data=holes / 0)


def test_several_experiments_share_some_of_what_is_sought():
    problem = posed(
        prior={**posed_prior(), "pace": dp.Separately(LogNormal(torch.tensor(0.0), torch.tensor(0.3)))}
    )
    z = problem.start()
    assert z["experiment_parameters"]["pace"].shape == (2,) and z["parameters"]["push"].shape == (2,)
    assert not problem.separate
    first = torch.func.grad(lambda p: problem.loss({**z, "experiment_parameters": {"pace": p}})[0])(
        z["experiment_parameters"]["pace"]
    )
    likelihood_only = torch.func.grad(
        lambda p: pointwise_log_likelihood(problem, {**z, "experiment_parameters": {"pace": p}})[0][
            :, 0
        ].sum()
    )(z["experiment_parameters"]["pace"])
    assert first[0] != 0 and likelihood_only[1] == 0
    assert set(sites(z)) == {"pace", "push", "scale"}
    assert from_sites(sites(z), z).keys() == z.keys()


def test_process_noise_and_initial_states_are_sought_together():
    def driven(state, control, *, noise):
        return state @ OSCILLATOR.T + noise

    data = torch.randn(4, 2, 1, generator=torch.Generator().manual_seed(0))
    problem = dp.inference_problem(
        driven,
        data=[data],
        observation=[observe(lambda x: x[:, :1], noise=dp.Gaussian(0.3), times=[0.0, 1.0, 2.0, 3.0])],
        initial_state=torch.zeros(2, 2),
        horizon=3,
        prior={"initial_state": Normal(0.0, 2.0), "noise": Normal(torch.zeros(2), torch.tensor([0.1, 0.2]))},
    )
    assert problem.separate and problem.start()["noise"].shape == (2, 3, 2)
    # everything is linear and Gaussian: the maximum of the posterior solves a linear system
    solution = dp.solve(problem, "lbfgs")
    z = solution.value
    states = [z["initial_state"]]
    for k in range(3):
        states.append(states[-1] @ OSCILLATOR.T + z["noise"][:, k])
    for scenario in range(2):
        dimension = 2 + 6
        maps = [torch.eye(2, dimension)]
        for k in range(3):
            into = torch.zeros(2, dimension)
            into[:, 2 + 2 * k : 4 + 2 * k] = torch.eye(2)
            maps.append(OSCILLATOR @ maps[-1] + into)
        rows = torch.stack([each[0] for each in maps]) / 0.3
        precision = torch.diag(torch.tensor([2.0, 2.0, *[0.1, 0.2] * 3]) ** -2)
        best = torch.linalg.solve(rows.T @ rows + precision, rows.T @ (data[:, scenario, 0] / 0.3))
        found = torch.cat([z["initial_state"][scenario], z["noise"][scenario].flatten()])
        assert torch.allclose(found, best, atol=1e-6)
        # and each scenario is a posterior of its own
        cost = 0.5 * (best @ precision @ best + ((rows @ best) - data[:, scenario, 0] / 0.3).square().sum())
        constant = (
            4 * math.log(0.3) - 0.5 * torch.logdet(precision) + 0.5 * (dimension + 4) * math.log(2 * math.pi)
        )
        assert solution.losses[scenario].item() == pytest.approx(float(cost + constant))
        assert torch.allclose(
            predictions(problem, z)[0][:, scenario, 0], torch.stack([x[scenario, 0] for x in states])
        )


def test_an_initial_state_may_be_made_of_parameters():
    def start(parameters):
        return torch.stack([parameters["height"], torch.zeros_like(parameters["height"])], -1)[None]

    problem = posed(
        initial_state=start,
        data=torch.zeros(3, 1, 2),
        prior={**posed_prior(), "height": Normal(torch.tensor(2.0), torch.tensor(0.5))},
    )
    z = problem.start()
    assert torch.allclose(problem.simulate(z).states[0], torch.tensor([[2.0, 0.0]]))
    gradient = torch.func.grad(
        lambda h: problem.loss({**z, "parameters": {**z["parameters"], "height": h}}).sum()
    )
    assert gradient(torch.tensor(2.0)) != 0


def test_a_part_of_a_state_may_be_sought():
    def step(state, control):
        return {"q": state["q"] + state["p"], "p": 0.9 * state["p"]}

    problem = dp.inference_problem(
        step,
        data=torch.ones(2, 1, 3),
        observation=observe(lambda state: state["q"], noise=dp.Gaussian(0.1), steps=[1, 2]),
        initial_state={"q": torch.zeros(1, 3), "p": torch.zeros(1, 3)},
        horizon=2,
        prior={"initial_state.p": Normal(1.0, 0.5)},
    )
    z = problem.start()
    assert set(sites(z)) == {"initial_state.p"} and torch.equal(z["initial_state"]["p"], torch.ones(1, 3))
    assert torch.allclose(predictions(problem, z)[0][:, 0, 0], torch.tensor([1.0, 1.9]))


def test_draws_from_the_prior_have_its_moments():
    problem = posed()
    generator = torch.Generator().manual_seed(0)
    push = torch.stack([draw_prior(problem, generator)["parameters"]["push"] for _ in range(2000)])
    assert torch.allclose(torch.cov(push.T), torch.tensor([[0.5, 0.2], [0.2, 0.3]]), atol=0.05)
    again = draw_prior(problem, torch.Generator().manual_seed(0))["parameters"]["push"]
    assert torch.equal(again, push[0])


def test_data_in_the_layout_of_predictions():
    problem = posed()
    z = problem.start()
    assert measurements(problem)[0].shape == predictions(problem, z)[0].shape == (3, 2, 2)
    moved = with_measurements(problem, predictions(problem, z))
    assert pointwise_log_likelihood(moved, z)[0].std() < 1e-12
    with pytest.raises(dp.UsageError, match="rows, scenarios, measurements"):
        with_measurements(problem, [torch.zeros(3, 4)])


def test_a_system_that_fails_has_density_minus_infinity():
    def step(state, control, *, parameters):
        return state * torch.log(parameters["pace"] + 0 * state)

    problem = dp.inference_problem(
        step,
        data=torch.ones(1, 1, 1),
        observation=observe(noise=dp.Gaussian(0.1), steps=[1]),
        initial_state=torch.ones(1, 1),
        horizon=1,
        prior={"pace": Normal(torch.tensor(2.0), torch.tensor(1.0))},
    )
    meter = Meter(problem)
    densities, gradients = meter.log_densities_and_gradients(torch.tensor([[0.5], [-5.0], [0.1]]))
    assert torch.isneginf(densities).tolist() == [False, True, False]
    assert gradients[1] == 0 and meter.counts.failures == 1 and torch.isfinite(meter.best).all()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"prior": {}}, "prior is empty"),
        ({"prior": {"pace": 3.0}}, "must be a density"),
        ({"prior": None}, "either prior"),
        ({"prior": {"pace": LogNormal(0.0, 1.0)}}, "has no prior"),
        ({"observation": observe(steps=[2, 4, 6])}, "density of the measurements"),
        ({"observation": lambda x: x}, "made by observe"),
        ({"observation": [observe(noise=dp.Gaussian(1.0))]}, "list of as many data"),
        ({"start": {"speed": 1.0}}, "has no prior"),
        ({"prior": {**posed_prior(), "initial_state": Normal(torch.zeros(3), 1.0)}}, "shape"),
        ({"prior": {**posed_prior(), "initial_state.q": Normal(0.0, 1.0)}}, "no part q"),
        ({"prior": {**posed_prior(), "spin": Normal(0.0, 1.0)}}, "spin has a prior, but changes nothing"),
        ({"prior": {**posed_prior(), "pace": VonMises(0.0, 1.0)}}, "VonMises"),
        (
            {"prior": {**posed_prior(), "pace": Categorical(torch.ones(3))}},
            "Categorical .* continuous density",
        ),
        (
            {"prior": {**posed_prior(), "pace": Delta(torch.tensor(1.0))}},
            "Delta says that the value is known",
        ),
        ({"prior": {**posed_prior(), "push": Dirichlet(torch.ones(2))}}, "more numbers than freedoms"),
        ({"truth": {"speed": 1.0}}, "truth names speed"),
        ({"truth": {"push": torch.ones(3)}}, "truth of push has shape"),
        ({"start": {"pace": -1.0}}, "outside of its prior's support"),
        ({"data": torch.full((3, 2, 2), float("nan"))}, "every entry is NaN"),
        ({"priors": {}}, "takes no priors"),
    ],
)
def test_one_sentence_for_what_cannot_be_posed(changed, words):
    with pytest.raises(dp.UsageError, match=words):
        posed(**changed)


def test_observations_say_what_does_not_fit():
    with pytest.raises(dp.UsageError, match="not both"):
        observe(noise=dp.Gaussian(1.0), steps=[1], times=[1.0])
    with pytest.raises(dp.UsageError, match="noise model"):
        observe(noise=0.1)
    with pytest.raises(dp.UsageError, match="by its name"):
        observe(dp.Gaussian(0.1))
    with pytest.raises(dp.UsageError, match="no whole number of steps"):
        posed(observation=observe(noise=dp.Gaussian("scale"), times=[1.5, 2.0, 3.0]))


@pytest.mark.parametrize("count", [2, 3])
def test_a_parameter_of_one_experiment_must_not_move_another(count):
    def careless(state, control, *, parameters):
        return state + 0.1 * parameters["push"]  # (scenarios,) along the last axis of (scenarios, 2)

    def careful(state, control, *, parameters):
        return state + 0.1 * parameters["push"][:, None]

    asked = {
        "data": torch.zeros(3, count, 2),
        "initial_state": torch.zeros(count, 2),
        "prior": {
            "push": dp.Separately(Normal(torch.tensor(0.0), torch.tensor(1.0))),
            "scale": dp.Separately(LogNormal(torch.tensor(-1.0), torch.tensor(0.5))),
        },
        "observation": observe(noise=dp.Gaussian("scale"), steps=[1, 2, 3]),
        "horizon": 3,
    }
    with pytest.raises(dp.UsageError, match="one experiment changes|line them up"):
        dp.inference_problem(careless, **asked)
    problem = dp.inference_problem(careful, **asked)
    z = problem.start()
    assert z["experiment_observation"]["scale"].shape == (count, 1) and problem.separate
    # scales of one experiment do not touch another
    scale = {"scale": z["experiment_observation"]["scale"] * torch.linspace(1.0, 2.0, count)[:, None]}
    density = pointwise_log_likelihood(problem, {**z, "experiment_observation": scale})[0]
    wanted = Normal(0.0, scale["scale"][None].expand(3, count, 2)).log_prob(torch.zeros(3, count, 2))
    torch.testing.assert_close(density, wanted)


def test_the_initial_states_of_experiments_may_be_made_of_their_own_parameters():
    def drift(state, control):
        return 0.9 * state

    problem = dp.inference_problem(
        drift,
        data=torch.ones(2, 3, 1),
        initial_state=lambda parameters: parameters["height"].reshape(-1, 1),
        horizon=2,
        prior={"height": dp.Separately(Normal(torch.tensor(1.0), torch.tensor(1.0)))},
        observation=observe(noise=dp.Gaussian(0.1), steps=[1, 2]),
    )
    solution = dp.solve(problem, "lbfgs")
    # linear regressions of one number, all alike
    precision = 1 + (0.9**2 + 0.81**2) / 0.01
    expected = (1 + (0.9 + 0.81) / 0.01) / precision
    found = solution.value["experiment_parameters"]["height"]
    torch.testing.assert_close(found, torch.full((3,), expected), atol=1e-6, rtol=0)


def test_a_simulator_that_raises_has_density_zero_there():
    def step(state, control, *, parameters):
        if parameters["pace"] > 1.0:
            raise ValueError("too fast")
        return state * parameters["pace"]

    problem = dp.inference_problem(
        step,
        data=torch.ones(1, 1, 1),
        observation=observe(noise=dp.Gaussian(0.1), steps=[1]),
        initial_state=torch.ones(1, 1),
        horizon=1,
        prior={"pace": Normal(torch.tensor(0.5), torch.tensor(1.0))},
    )
    meter = Meter(problem)
    densities, gradients = meter.log_densities_and_gradients(torch.tensor([[0.0], [1.0], [0.2]]))
    assert torch.isneginf(densities).tolist() == [False, True, False] and gradients[1] == 0
    assert meter.ledger.crash == "ValueError: too fast" and meter.counts.failures == 1
