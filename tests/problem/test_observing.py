"""What a learned controller sees of a problem."""

from __future__ import annotations

import torch

import dpcontrol as dp
from dpcontrol.problem import advance, reset
from dpcontrol.problem.observing import controller, observer
from dpcontrol.sim import Grid, Smoke

F64 = torch.float64


def test_an_initial_state_that_the_simulator_completes_is_seen_whole():
    """Of the smoke only the marker is given; the air at rest has the scale 1."""
    problem = dp.control_problem(
        Smoke(Grid((4, 4)), dt=1.0),
        initial_state={"marker": torch.full((2, 4, 4), 3.0, dtype=F64)},
        horizon=3,
        objective=dp.reach(torch.ones(4, 4, dtype=F64), of=lambda state: state["marker"]),
        control=dp.ControlSequence((2, 4, 4)),
    )
    eyes, data = observer(problem), problem.scenarios.data
    assert eyes.scales["state"] == {"marker": 3.0, "velocity_x": 1.0, "velocity_y": 1.0}
    first = reset(problem)
    torch.testing.assert_close(eyes(data["initial_state"], 0.0, data), eyes(first.state, 0.0, first.scenario))
    acting = controller(problem, torch.nn.Linear)
    episode, reward = advance(first, acting(first.state, 0.0, data))
    assert acting(episode.state, 1.0, data).shape == (2, 2, 4, 4) and bool(torch.isfinite(reward).all())


def test_one_scene_looks_the_same_whatever_scenes_are_at_hand():
    """Where there is a distribution, scales are its own, and asking for them draws from nobody's random stream."""

    def draw(generator, n):
        return {
            "initial_state": 2.0 * torch.randn(n, 3, generator=generator, dtype=F64),
            "goal": 0.5 * torch.rand(n, 2, generator=generator, dtype=F64),
        }

    def posed(seed, count):
        scenes = draw(torch.Generator().manual_seed(seed), count)
        return dp.control_problem(
            lambda x, u: 0.9 * x + u,
            initial_state=scenes.pop("initial_state"),
            horizon=3,
            objective=dp.reach("goal", of=lambda x: x[:, :2]),
            control=dp.ControlSequence(3),
            scenarios=dp.Scenarios(scenes, sampler=draw),
        )

    first, second = posed(0, 2), posed(1, 5)
    before = torch.get_rng_state()
    eyes = observer(first)
    assert torch.equal(before, torch.get_rng_state())
    assert eyes.scales == observer(second).scales
    held_out = first.with_scenarios(first.scenarios.draw(torch.Generator().manual_seed(9), 1))
    assert observer(held_out).scales == eyes.scales
    assert abs(eyes.scales["state"] - 2.0) < 0.3
