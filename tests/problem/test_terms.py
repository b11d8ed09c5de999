"""Objectives against their definitions, and the views that must agree with one another."""

import pytest
import torch
from torch.distributions import LogNormal as TorchLogNormal
from torch.distributions import Normal

import dpcontrol as dp
from dpcontrol.problem import Gaussian, LogNormal

F64 = torch.float64


def step(state, control):
    return state + 0.1 * (control - state**3)


def posed(objective, horizon=6, n=4, d=3, control=None, **rest):
    generator = torch.Generator().manual_seed(1)
    start = torch.rand(n, d, generator=generator, dtype=F64) + 0.5
    return dp.control_problem(
        step,
        initial_state=start,
        horizon=horizon,
        objective=objective,
        control=control or dp.ControlSequence(d),
        **rest,
    )


def drawn(problem, seed=2):
    generator = torch.Generator().manual_seed(seed)
    shape = problem.start()["control"].shape
    return {"control": torch.randn(shape, generator=generator, dtype=F64)}


def by_hand(problem, z):
    state, states = problem.scenarios.data["initial_state"], []
    for k in range(problem.horizon):
        states.append(state)
        state = step(state, z["control"][:, k])
    return torch.stack([*states, state])


TARGET = torch.linspace(0, 1, 3, dtype=F64)
REFERENCE = torch.arange(7 * 3, dtype=F64).reshape(7, 3) / 10


def test_terms_are_their_definitions():
    problem = posed(0.5 * dp.reach(TARGET) + dp.track(REFERENCE) * 2.0 + 1e-2 * dp.effort())
    z = drawn(problem)
    path = by_hand(problem, z)
    expected = 0.5 * (path[-1] - TARGET).square().sum(1)
    expected = (
        expected
        + 2 * (path - REFERENCE[:, None]).square().sum((0, 2))
        + 1e-2 * z["control"].square().sum((1, 2))
    )
    torch.testing.assert_close(problem.loss(z), expected)


def test_targets_per_scenario_and_by_name_are_the_same():
    targets = torch.rand(4, 3, dtype=F64)
    one, other = posed(dp.reach(targets)), posed(dp.reach("goal"), scenarios={"goal": targets})
    z = drawn(one)
    assert torch.equal(one.loss(z), other.loss(z))
    some = torch.tensor([3, 1, 1])
    assert torch.equal(one.loss({"control": z["control"][some]}, some), one.loss(z)[some])


def test_a_reference_may_differ_between_scenarios_and_count_at_some_steps_only():
    rows = torch.rand(2, 4, 2, dtype=F64)
    problem = posed(dp.track(rows, steps=[6, 0], of=lambda state: state[:, :2]))
    z = drawn(problem)
    path = by_hand(problem, z)[..., :2]
    expected = (path[6] - rows[0]).square().sum(1) + (path[0] - rows[1]).square().sum(1)
    torch.testing.assert_close(problem.loss(z), expected)


def test_residuals_square_to_the_loss():
    problem = posed(
        0.5 * dp.reach(TARGET) + 2.0 * dp.track(REFERENCE) + 1e-2 * dp.effort() + dp.penalty("control")
    )
    z = drawn(problem)
    torch.testing.assert_close(problem.residuals(z).square().sum(1), problem.loss(z))
    assert dp.problem.View.RESIDUALS not in posed(dp.cost(terminal=lambda x: x.sum(1))).offers


def test_any_cost_sees_state_control_time_and_scenario():
    def stage(state, control, t, *, scenario):
        return (t + 1) * control.square().sum(1) * scenario["weight"]

    weight = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=F64)
    problem = posed(dp.cost(stage, lambda x: x.square().sum(1)), scenarios={"weight": weight})
    z = drawn(problem)
    times = torch.arange(1, 7, dtype=F64)
    expected = weight * (z["control"].square().sum(2) * times).sum(1) + by_hand(problem, z)[-1].square().sum(
        1
    )
    torch.testing.assert_close(problem.loss(z), expected)


def test_a_peak_is_an_objective():
    peak = dp.fold(
        lambda x: x.abs().amax(1), lambda m, x, u, t: torch.maximum(m, x.abs().amax(1)), lambda m, x: m
    )
    problem = posed(peak)
    z = drawn(problem)
    torch.testing.assert_close(problem.loss(z), by_hand(problem, z)[:-1].abs().amax((0, 2)))


@pytest.mark.parametrize(
    "noise, density",
    [
        (Gaussian(0.3), lambda mean: Normal(mean, 0.3)),
        (LogNormal(0.2), lambda mean: TorchLogNormal(mean.log(), 0.2)),
    ],
)
def test_misfit_is_minus_the_log_likelihood(noise, density):
    data = torch.rand(7, 4, 3, dtype=F64) + 0.1
    problem = posed(dp.misfit(data, noise))
    z = {"control": 0.1 * drawn(problem)["control"]}
    expected = -density(by_hand(problem, z)).log_prob(data).sum((0, 2))
    torch.testing.assert_close(problem.loss(z), expected)


def test_closing_ends_at_the_target_and_its_control_counts():
    problem = posed(dp.closing(TARGET, gain=0.1) + 0.5 * dp.effort())
    z = drawn(problem)
    assert problem.free_steps == 5 and z["control"].shape == (4, 5, 3)
    path = problem.simulate(z)
    assert torch.equal(path.states[-1], TARGET.expand(4, 3)) and path.controls.shape == (6, 4, 3)
    torch.testing.assert_close(step(path.states[-2], path.controls[-1]), path.states[-1])
    torch.testing.assert_close(problem.loss(z), 0.5 * path.controls.square().sum((0, 2)))
    torch.testing.assert_close(problem.residuals(z).square().sum(1), problem.loss(z))


def test_closing_refuses_a_control_that_does_not_close():
    with pytest.raises(dp.UsageError, match="does not do for gain 0.2"):
        posed(dp.closing(TARGET, gain=0.2) + dp.effort())
    with pytest.raises(dp.UsageError, match="keep one"):
        posed(dp.closing(TARGET, gain=0.1) + dp.closing(TARGET, gain=0.1))


def test_the_plant_judges():
    stronger = lambda state, control: state + 0.12 * (control - state**3)  # noqa: E731
    problem = posed(dp.reach(TARGET), plant=stronger)
    z = drawn(problem)
    assert not torch.allclose(problem.judge(z), problem.loss(z))
    torch.testing.assert_close(problem.judge(z), (problem.simulate(z).states[-1] - TARGET).square().sum(1))


@pytest.mark.parametrize(
    "objective, sentence",
    [
        (dp.reach(torch.zeros(2)), r"target has shape \(2,\), expected \(4, 3\)"),
        (dp.reach("goal"), "no entry of the scenarios"),
        (dp.reach(torch.full((3,), float("nan"))), "not finite"),
        (dp.track(torch.zeros(6, 3)), r"expected \(7, 4, 3\)"),
        (dp.track(torch.zeros(1, 3), steps=[9]), "steps go to 9"),
        (dp.cost(terminal=lambda x: x.sum()), r"one number per scenario, shape"),
        (dp.cost(stage=lambda x, u, t: x @ u), "the objective failed at the first state"),
        (dp.penalty("parameters"), "needs that slot"),
    ],
)
def test_a_term_that_does_not_fit_is_refused_at_the_door(objective, sentence):
    with pytest.raises(dp.UsageError, match=sentence):
        posed(objective)


def test_objectives_scale_by_finite_numbers():
    with pytest.raises(dp.UsageError, match="scaled by finite numbers"):
        float("nan") * dp.effort()
    with pytest.raises(TypeError):
        dp.effort() + 1.0
