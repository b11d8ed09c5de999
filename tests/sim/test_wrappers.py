"""Wrappers leave everything but the step to what they wrap."""

import pytest
import torch
from rolled import roll

from dpcontrol.problem import ControlSequence, control_problem, reach
from dpcontrol.problem.base import View
from dpcontrol.results import UsageError
from dpcontrol.sim import Actuated, FiniteVolumeBurgers, FunctionSimulator, HybridSimulator, Substeps

F64 = torch.float64


def untouched(inner):
    """Wrappers that change nothing: one substep, an unused actuator, a correction that is zero."""
    network = torch.nn.Linear(8, 8, dtype=F64)
    torch.nn.init.zeros_(network.weight)
    torch.nn.init.zeros_(network.bias)
    return [Substeps(inner, 1), Actuated(inner, torch.ones(1, 8, dtype=F64)), HybridSimulator(inner, network)]


def test_idle_wrappers_change_nothing():
    inner = FiniteVolumeBurgers(0.01, 0.02)
    state = torch.randn(3, 8, generator=torch.Generator().manual_seed(0), dtype=F64)
    wanted = roll(inner, state, 5, viscosity=0.05)
    for wrapper in untouched(inner):
        assert wrapper.dt == inner.dt and wrapper.differentiable
        assert set(inner.parameters) <= set(wrapper.parameters)
        found = roll(wrapper, state, 5, viscosity=0.05)
        torch.testing.assert_close(found, wanted, rtol=1e-13, atol=1e-14)


def test_the_door_of_what_is_wrapped_stays_shut():
    for wrapper in untouched(FiniteVolumeBurgers(1.0, 0.02)):
        with pytest.raises(UsageError, match="reduce dt|needs dt"):
            roll(wrapper, torch.ones(1, 8, dtype=F64), 1)


def test_a_wrapped_black_box_is_still_one():
    box = FunctionSimulator(lambda x, u: x + u, differentiable=False)
    for wrapper in (Substeps(box, 3), Substeps(Actuated(box, torch.ones(1, 8)), 2)):
        width = 8 if isinstance(wrapper.inner, FunctionSimulator) else 1
        problem = control_problem(
            wrapper,
            initial_state=torch.zeros(2, 8),
            horizon=2,
            objective=reach(torch.ones(8)),
            control=ControlSequence(width),
        )
        assert View.LOSS in problem.offers and View.GRADIENT not in problem.offers
