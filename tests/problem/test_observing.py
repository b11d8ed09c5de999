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
