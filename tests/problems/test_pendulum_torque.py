"""Gymnasium's pendulum: every step as theirs, the law turns it upright, and gradients are right where they exist."""

import math

import numpy as np
import pytest
import torch
from dpcontrol.problems import pendulum_torque
from taylor import taylor_rates

from dpcontrol.environments import gymnasium_env

F64 = torch.float64


def theirs(start, torques):
    """Rewards and observations of Gymnasium's own environment from a state ``(2,)``."""
    gymnasium = pytest.importorskip("gymnasium")
    env = gymnasium.make("Pendulum-v1")
    env.reset(seed=0)
    env.unwrapped.state = np.array(start)
    rows = [env.step(np.array([torque])) for torque in torques]
    assert [row[3] for row in rows] == [False] * (len(rows) - 1) + [len(rows) == 200]
    return np.array([row[0] for row in rows]), np.array([row[1] for row in rows]), env.unwrapped.state


@pytest.mark.parametrize("start", [(0.3, -0.5), (3.1, 1.0), (-2.5, 7.9)])
def test_every_step_is_gymnasiums(start):
    torques = np.random.default_rng(0).uniform(-3, 3, 200)  # also beyond the bounds
    seen, rewards, end = theirs(start, torques)
    state, costs, views = torch.tensor([start], dtype=F64), [], []
    for torque in torques:
        control = torch.tensor([[torque]], dtype=F64).clamp(-2, 2)
        costs.append(float(pendulum_torque.stage(state, control, 0.0)))
        state = pendulum_torque.step(state, control)
        views.append(pendulum_torque.seen(state)[0].numpy())
    np.testing.assert_allclose(-np.array(costs), rewards, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(state[0].numpy(), end, rtol=1e-11)
    np.testing.assert_allclose(views, seen, atol=2e-6)  # theirs are float32


def test_an_episode_of_ours_is_one_of_theirs():
    problem = pendulum_torque.problem()
    start = problem.scenarios.data["initial_state"][7]
    env = gymnasium_env(problem)
    env.reset(options={"scenario": 7})
    actions = np.random.default_rng(1).uniform(-1, 1, 200)
    rewards = [env.step(np.array([action]))[1] for action in actions]
    np.testing.assert_allclose(rewards, theirs(start.numpy(), 2 * actions)[1], rtol=1e-9, atol=1e-9)
    # the time to go comes behind what Gymnasium shows
    assert env.observation_space.shape == (4,)


def test_starts_are_distributed_like_gymnasiums():
    starts = pendulum_torque.draw(torch.Generator().manual_seed(0), 20_000)["initial_state"]
    assert starts.abs().amax(0).tolist() == pytest.approx([math.pi, 1.0], rel=1e-3)
    # uniform: variance (b - a)^2 / 12, independent
    assert starts.square().mean(0).tolist() == pytest.approx([math.pi**2 / 3, 1 / 3], rel=0.03)
    assert abs(float((starts[:, 0] * starts[:, 1]).mean())) < 0.05


@pytest.mark.parametrize("size", ["small", "full"])
def test_the_law_turns_it_upright(size):
    problem = pendulum_torque.problem(size=size)
    samples = problem.metric_samples(problem.run_law(pendulum_torque.energy_shaping))
    assert float(samples["upright"][0].mean()) > (0.95 if size == "full" else 0.5)
    # better than the trained agents of the zoo, -157 and -172
    assert float(samples["episode_return"][0].mean()) > -200


def test_the_gradient_is_right_away_from_kinks():
    generator = torch.Generator().manual_seed(2)
    start = torch.rand(3, 2, generator=generator, dtype=F64) - 0.5

    def loss(z):
        state, total = z["state"], 0.0
        for control in z["control"].unbind(1):
            total = total + pendulum_torque.stage(state, control, 0.0)
            state = pendulum_torque.step(state, control)
        return total.sum()

    point = {"state": start, "control": torch.rand(3, 12, 1, generator=generator, dtype=F64) - 0.5}
    direction = {
        name: torch.randn(value.shape, generator=generator, dtype=F64) for name, value in point.items()
    }
    assert min(taylor_rates(loss, point, direction)) > 1.9
