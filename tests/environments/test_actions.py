"""What an action in [-1, 1] is worth as a control."""

from __future__ import annotations

import pytest
import torch

import dpcontrol as dp
from dpcontrol.environments.actions import action_map
from dpcontrol.problem.observing import controller


@pytest.mark.parametrize(("low", "high", "half"), [(-2.0, 6.0, 4.0), (None, None, 12.0), (0.0, None, 12.0)])
def test_one_map_serves_steps_of_different_scales(low: float | None, high: float | None, half: float) -> None:
    fading = torch.tensor([3.0, 1.0, 0.5, 0.1], dtype=torch.float64)[:, None]
    problem = dp.control_problem(
        lambda state, control: state + control,
        initial_state=torch.zeros(2, 1, dtype=torch.float64),
        horizon=4,
        objective=dp.effort(),
        control=dp.ControlSequence(1, low=low, high=high, scale=fading),
    )
    found = action_map(problem)
    assert found.half.shape == (1,)
    assert float(found.half) == half  # four times the largest scale where a side is open
    network = controller(problem, lambda inputs, outputs: torch.nn.Linear(inputs, outputs))
    assert network(torch.zeros(4, 1).double(), 0.0, {}).shape == (4, 1)
