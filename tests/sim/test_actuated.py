"""A few actuators act as the field they make."""

import pytest
import torch
from rolled import roll
from taylor import taylor_rates

from dpcontrol.results import UsageError
from dpcontrol.sim import Actuated, AdvectionDiffusion, KuramotoSivashinsky

F64 = torch.float64


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def test_actuators_make_the_field_that_is_their_sum():
    inner, shapes = AdvectionDiffusion(0.1, (6, 4)), random(3, 6, 4)
    state, control = random(2, 6, 4, seed=1), random(5, 2, 3, seed=2)
    found = roll(Actuated(inner, shapes), state, 5, control)
    torch.testing.assert_close(found, roll(inner, state, 5, torch.einsum("ksj,jxy->ksxy", control, shapes)))
    single = roll(Actuated(inner, shapes), state.float(), 5, control.float())
    assert single.dtype == torch.float32
    free = roll(Actuated(inner, shapes), state, 5)
    torch.testing.assert_close(free, roll(inner, state, 5))


def test_taylor_in_control_and_parameters():
    simulator, state = Actuated(KuramotoSivashinsky(0.1, 16, 12.0), random(3, 16)), random(2, 16, seed=1)

    def loss(z):
        return roll(simulator, state, 6, z["control"], viscosity=z["viscosity"]).pow(3).sum()

    rates = taylor_rates(
        loss, {"control": random(6, 2, 3), "viscosity": torch.tensor(1.0, dtype=F64)}, largest=0.01
    )
    assert min(rates) > 1.85 and max(rates) < 2.15


def test_wrong_use_is_refused_in_one_sentence():
    inner = KuramotoSivashinsky(0.1, 16)
    with pytest.raises(UsageError, match=r"one field per actuator; found \(16,\)"):
        Actuated(inner, torch.zeros(16))
    with pytest.raises(UsageError, match=r"\(scenarios, 3\); found \(2, 4\)"):
        roll(Actuated(inner, torch.zeros(3, 16)), torch.zeros(2, 16), 1, torch.zeros(1, 2, 4))
