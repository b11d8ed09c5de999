"""The time loop and plain rollouts."""

import pytest
import torch

from dpcontrol.engine import Full, Tail, rollout, scan
from dpcontrol.results import UsageError
from dpcontrol.sim import DiscreteLinear, FunctionSimulator, Substeps

F64 = torch.float64


def body(carry, row, constants, k):
    carry = constants * carry + row + k
    return carry, carry.square()


def test_scan_is_the_loop():
    inputs = torch.randn(5, 3, dtype=F64)
    carry, outputs = scan(body, torch.zeros(3, dtype=F64), inputs, 5, constants=torch.tensor(0.5, dtype=F64))
    expected = torch.zeros(3, dtype=F64)
    for k in range(5):
        expected = 0.5 * expected + inputs[k] + k
        assert torch.equal(outputs[k], expected.square())
    assert torch.equal(carry, expected)


def test_gradients_of_first_and_second_order_reach_inputs_carry_and_constants():
    def loss(carry, inputs, constants):
        last, outputs = scan(body, carry, inputs, 4, constants=constants)
        return last.pow(3).sum() + outputs.sum()

    point = (torch.randn(2, dtype=F64), torch.randn(4, 2, dtype=F64), torch.tensor(0.7, dtype=F64))
    point = tuple(leaf.requires_grad_() for leaf in point)
    assert torch.autograd.gradcheck(loss, point)
    assert torch.autograd.gradgradcheck(loss, point)


def test_of_a_tail_only_the_last_steps_are_differentiated():
    start, inputs = torch.randn(2, dtype=F64), torch.randn(6, 2, dtype=F64).requires_grad_()

    def gradients(mode):
        last, outputs = scan(body, start, inputs, 6, constants=torch.tensor(0.7, dtype=F64), gradient=mode)
        return last, torch.autograd.grad(last.pow(3).sum() + outputs.sum(), inputs)[0]

    exact, tail = gradients(Full()), gradients(Tail(2))
    assert torch.equal(exact[0], tail[0])
    # the last inputs do not act on what came before them, so their gradient is the exact one
    assert torch.equal(tail[1][4:], exact[1][4:]) and not tail[1][:4].any()
    assert torch.equal(gradients(Tail(6))[1], exact[1]) and torch.equal(gradients(Tail(9))[1], exact[1])
    assert Tail(2).swept(6) == 2 and Tail(9).swept(6) == 6 and Full().swept(6) == 6
    with pytest.raises(UsageError, match="at least 1"):
        Tail(0)


def test_no_steps_and_no_inputs():
    start = torch.ones(2)
    carry, outputs = scan(lambda c, row, _, k: (c, None), start, None, 0)
    assert carry is start and outputs is None


def test_a_wrong_number_of_rows_is_refused():
    with pytest.raises(UsageError, match=r"loop of 3 steps have 2 rows"):
        scan(body, torch.zeros(1), torch.zeros(2, 1), 3, constants=1.0)


def test_rollout_is_the_closed_form_of_a_linear_system():
    a = [[0.9, 0.1], [0.0, 0.8]]
    trajectory = rollout(DiscreteLinear(a, [[0.0], [1.0]]), torch.eye(2, dtype=F64), length=6)
    power = torch.linalg.matrix_power(torch.tensor(a, dtype=F64), 6)
    torch.testing.assert_close(trajectory.states[-1], power.T)
    assert trajectory.horizon == 6 and trajectory.times.tolist() == pytest.approx(range(7))


@pytest.mark.parametrize("given", [{}, {"length": 3, "controls": torch.zeros(2, 1, 1)}])
def test_the_number_of_steps_must_be_one(given):
    with pytest.raises(UsageError, match="one number of steps"):
        rollout(lambda: None, torch.zeros(1, 1), **given)


def test_noise_time_parameters_and_scenario_reach_a_function():
    def step(state, control, *, parameters, noise, t, scenario):
        return state + control + parameters["drift"] * t + noise + scenario["shift"]

    trajectory = rollout(
        FunctionSimulator(step, dt=0.5, defaults={"drift": 2.0}),
        torch.zeros(2, dtype=F64),
        torch.ones(3, 2, dtype=F64),
        noise=torch.full((3, 2), 0.1, dtype=F64),
        scenario={"shift": torch.tensor([0.0, 1.0], dtype=F64)},
    )
    expected = 3 * 1.1 + 2.0 * (0.0 + 0.5 + 1.0)
    assert trajectory.states[-1].tolist() == pytest.approx([expected, expected + 3])


def test_substeps_hold_the_control_and_advance_time():
    inner = FunctionSimulator(lambda x, u, *, t: x + u + t, dt=0.25)
    trajectory = rollout(Substeps(inner, 4), torch.zeros(1, dtype=F64), torch.ones(2, 1, dtype=F64))
    assert float(trajectory.states[-1]) == pytest.approx(8 + sum(0.25 * k for k in range(8)))
    assert trajectory.times.tolist() == [0.0, 1.0, 2.0]
