"""States from observations: the Kalman filter as what least squares over a moving horizon is for a linear system."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from plants import Shaken
from strategy_cases import interrupted_and_resumed, same

from dpcontrol.meter import Budget
from dpcontrol.problem import ControlSequence, UsageError, control_problem, effort, play, reset, track
from dpcontrol.problem.acting import Outset
from dpcontrol.run import run
from dpcontrol.sim import ODE, DiscreteLinear, Pendulum
from dpcontrol.strategies import LBFGS, MPC, Estimate, GaussNewton, MovingHorizon
from dpcontrol.strategies.receding.controller import Glance

F64 = torch.float64
A = torch.tensor([[1.0, 0.1], [-0.15, 0.95]], dtype=F64)
B = torch.tensor([[0.0], [0.1]], dtype=F64)
H = torch.tensor([[1.0, 0.0]], dtype=F64)
P0 = torch.tensor([[0.5, 0.1], [0.1, 0.3]], dtype=F64)
Q = torch.tensor([[0.004, 0.001], [0.001, 0.02]], dtype=F64)
R = torch.tensor([[0.09]], dtype=F64)
N, COUNT = 12, 3


def position(state):
    """All that is measured."""
    return state[:, :1]


def regulator(**options):
    drawn = torch.Generator().manual_seed(2)
    return control_problem(
        DiscreteLinear(A, B, dt=0.1),
        initial_state=torch.randn(COUNT, 2, generator=drawn, dtype=F64),
        horizon=N,
        objective=track(torch.zeros(N + 1, 2)) + 0.1 * effort(),
        control=ControlSequence(1),
        observation=position,
        **options,
    )


def kalman(mean, seen, controls, process, P):
    """Filtered means ``(scenarios, steps, 2)``, and the covariances of the predictions."""
    found, covariances = [], []
    for k in range(seen.shape[1]):
        covariances.append(P)
        gain = P @ H.T @ torch.linalg.inv(H @ P @ H.T + R)
        mean = mean + (seen[:, k] - mean @ H.T) @ gain.T
        P = (torch.eye(2, dtype=F64) - gain @ H) @ P
        found.append(mean)
        if k < controls.shape[1]:
            mean = mean @ A.T + controls[:, k] @ B.T
            P = A @ P @ A.T + process
    return torch.stack(found, 1), covariances


def estimated(estimator, problem, seen, controls):
    """What an estimator says to a series of observations."""
    scenario, found = problem.scenarios.data, []
    outset = Outset(reset(problem).state, scenario, N, 0.1, torch.Generator())
    memory = estimator.init(problem, outset)
    for k in range(seen.shape[1]):
        before = controls[:, k - 1] if k else None
        state, memory, counts = estimator.update(memory, Glance(seen[:, k], before, k, problem, Budget()))
        found.append(state)
        assert counts.simulated_steps > 0 or k == 0
    return torch.stack(found, 1)


def series(steps, seed=4):
    drawn = torch.Generator().manual_seed(seed)
    seen = torch.randn(COUNT, steps, 1, generator=drawn, dtype=F64)
    return seen, torch.randn(COUNT, steps - 1, 1, generator=drawn, dtype=F64)


@pytest.mark.parametrize("solver", [GaussNewton(), LBFGS(gradient_tolerance=1e-11, loss_tolerance=1e-16)])
def test_over_all_observations_it_is_the_kalman_filter(solver):
    problem, (seen, controls) = regulator(), series(7)
    start = problem.scenarios.data["initial_state"]
    trusting = MovingHorizon(7, prior=P0, sensor=R, solver=solver)
    wanted, _ = kalman(start, seen, controls, 0 * Q, P0)
    torch.testing.assert_close(estimated(trusting, problem, seen, controls), wanted, rtol=0, atol=1e-6)
    doubting = MovingHorizon(7, prior=P0, sensor=0.3, process=Q, solver=solver)
    wanted, _ = kalman(start, seen, controls, Q, P0)
    torch.testing.assert_close(estimated(doubting, problem, seen, controls), wanted, rtol=0, atol=1e-6)


def test_over_the_last_one_with_the_stationary_covariance_it_is_the_stationary_filter():
    problem, (seen, controls) = regulator(), series(10)
    many, unseen = torch.zeros(COUNT, 500, 1, dtype=F64), torch.zeros(COUNT, 499, 1, dtype=F64)
    _, covariances = kalman(torch.zeros(COUNT, 2, dtype=F64), many, unseen, Q, P0)
    stationary = covariances[-1]
    wanted, _ = kalman(problem.scenarios.data["initial_state"], seen, controls, Q, stationary)
    found = estimated(MovingHorizon(1, prior=stationary, sensor=R), problem, seen, controls)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-8)
    # the covariances have settled, or this would be no stationary filter
    torch.testing.assert_close(covariances[-2], stationary, rtol=0, atol=1e-12)
    # started from another state, both forget it alike
    elsewhere = torch.ones(COUNT, 2, dtype=F64)
    wanted, _ = kalman(elsewhere, seen, controls, Q, stationary)
    found = estimated(MovingHorizon(1, prior=stationary, sensor=R, start=elsewhere), problem, seen, controls)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-8)


def test_a_wrong_first_guess_is_forgotten_and_speeds_are_found_from_angles():
    """A pendulum of which only the sine of the angle is seen, without noise."""
    drawn = torch.Generator().manual_seed(1)
    problem = control_problem(
        ODE(Pendulum(), dt=0.05),
        initial_state=0.5 * torch.randn(COUNT, 2, generator=drawn, dtype=F64),
        horizon=14,
        objective=effort(),
        control=ControlSequence(1),
        observation=lambda x: x[:, :1].sin(),
    )
    controls = torch.randn(COUNT, 14, 1, generator=drawn, dtype=F64)
    states = problem.simulate({"control": controls}).states
    seen = states[:, :, :1].sin().transpose(0, 1)
    wrong = MovingHorizon(6, prior=1.0, sensor=1e-3, start=torch.zeros(COUNT, 2, dtype=F64))
    found = estimated(wrong, problem, seen, controls)
    error = (found - states.transpose(0, 1)).norm(dim=2).amax(0)
    assert float(error[0]) > 0.1 and float(error[-1]) < 1e-4


def test_mpc_sees_no_more_than_the_observation():
    """Two plants whose states differ but whose observations do not get the same controls."""
    problem = regulator()
    hidden = control_problem(
        lambda x, u: torch.stack((x[:, 0], x[:, 1] + u[:, 0]), 1),
        initial_state=torch.zeros(2, 2, dtype=F64),
        horizon=5,
        objective=track(torch.zeros(6, 2)) + 0.1 * effort(),
        control=ControlSequence(1),
        observation=position,
        scenarios={"noise": torch.zeros(2, 5, 2, dtype=F64)},
    )
    noise = hidden.scenarios.data["noise"].clone()
    noise[1, :, 1] = 1.0
    hidden = replace(
        hidden.with_scenarios(replace(hidden.scenarios, data={**hidden.scenarios.data, "noise": noise})),
        plant=Shaken(hidden.simulator),
    )
    u = run(hidden, MPC()).value["control"]
    torch.testing.assert_close(u[0], u[1], rtol=0, atol=0)
    seeing = run(hidden, MPC(estimator=None)).value["control"]
    assert float((seeing[0] - seeing[1]).abs().max()) > 0.1
    assert problem.observation is position


def test_estimated_states_cost_little_where_the_model_is_right():
    problem = regulator()
    seeing, looking = run(problem, MPC(estimator=None)), run(problem, MPC())
    # the first state is known, and nothing disturbs: the estimate is exact
    torch.testing.assert_close(looking.losses, seeing.losses, rtol=1e-6, atol=0)
    assert looking.counts.simulated_steps > seeing.counts.simulated_steps


def test_under_noise_estimates_keep_the_system_at_rest():
    drawn = torch.Generator().manual_seed(3)
    noise = 0.05 * torch.randn(COUNT, N, 2, generator=drawn, dtype=F64)
    problem = regulator(scenarios={"noise": noise})
    problem = replace(problem, plant=Shaken(problem.simulator))
    wrong = torch.zeros(COUNT, 2, dtype=F64)
    estimator = MovingHorizon(6, prior=1.0, sensor=0.05, process=0.05, start=wrong)
    blind = run(problem, LBFGS())
    found = run(problem, MPC(estimator=estimator))
    # it does not even know where it begins, and still comes close to whom it is told, and ahead of the blind one
    assert found.loss < 1.35 * run(problem, MPC(estimator=None)).loss
    assert found.loss < 1.35 * blind.loss
    same_again = play(problem, MPC(estimator=estimator).controller(problem))
    torch.testing.assert_close(same_again.losses, found.losses)


def test_resume_with_an_estimator(tmp_path, monkeypatch):
    problem, strategy = regulator(), MPC(LBFGS(iterations=3), horizon=6, hold=2, estimator=MovingHorizon(3))
    whole = run(problem, strategy, seed=5)
    same(whole, interrupted_and_resumed(problem, strategy, tmp_path / "run", monkeypatch, after=20))


@dataclass(frozen=True)
class Differences:
    """A user's own estimator: the speed from the last two positions."""

    def init(self, problem: Any, outset: Outset) -> Any:
        return None

    def update(self, memory: Any, glance: Glance) -> Estimate:
        last = glance.seen if memory is None else memory
        return Estimate(torch.cat([glance.seen, (glance.seen - last) / 0.1], 1), glance.seen)


def test_an_estimator_of_ones_own():
    problem = regulator()
    found = run(problem, MPC(estimator=Differences()))
    assert found.loss < problem.loss(problem.start()).mean()


def test_the_budget_is_kept_with_an_estimator():
    problem = regulator()
    for steps in (40, 2_000, 8_000):
        found = run(problem, MPC(horizon=6), budget=Budget(simulated_steps=steps))
        assert found.counts.simulated_steps <= steps
        assert found.value["control"].shape == (COUNT, N, 1)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"length": 0}, "length=...\\) must be a whole number"),
        ({"prior": -1.0}, "prior must be a positive standard deviation"),
        ({"sensor": torch.tensor([[1.0, 2.0], [2.0, 1.0]])}, "not positive definite"),
        ({"process": torch.ones(2, 3)}, "found shape"),
        ({"solver": "lbfgs"}, "must be a strategy such as GaussNewton"),
    ],
)
def test_options_that_make_no_sense(fields, words):
    with pytest.raises(UsageError, match=words):
        MovingHorizon(**fields)


def test_spreads_and_starts_of_another_size():
    problem, (seen, controls) = regulator(), series(2)
    with pytest.raises(UsageError, match=r"prior must be .* \(2, 2\); found shape \(3, 3\)"):
        estimated(MovingHorizon(prior=torch.eye(3)), problem, seen, controls)
    with pytest.raises(UsageError, match="start=...\\) must be like a state"):
        estimated(MovingHorizon(start=torch.zeros(2)), problem, seen, controls)
