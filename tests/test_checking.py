"""check_gradient: it passes what is right, names what is wrong, and changes nothing."""

import pytest
import torch

import dpcontrol as dp
from dpcontrol.sim import FunctionSimulator

F64 = torch.float64


def posed(step, objective=None, dtype=F64, **rest):
    asked = {"control": dp.ControlSequence(2)} if "unknown" not in rest else {}
    return dp.control_problem(
        step,
        initial_state=torch.linspace(0.1, 0.9, 6, dtype=dtype).reshape(3, 2),
        horizon=6,
        objective=objective or dp.reach(torch.zeros(2)) + 0.1 * dp.effort(),
        **asked,
        **rest,
    )


def smooth(state, control):
    return state + 0.1 * (control - state.sin())


def test_rates_of_a_smooth_problem_are_one_and_two():
    check = dp.check_gradient(posed(smooth))
    (row,) = check.rows
    assert (
        check.passed
        and row.rate == pytest.approx(2, abs=0.05)
        and row.value_rate == pytest.approx(1, abs=0.05)
    )
    assert "the gradient is right" in str(check) and "finite at all 7 steps" in str(check)


def test_single_precision_is_checked_in_double():
    problem = posed(smooth, dtype=torch.float32)
    assert dp.check_gradient(problem).rows[0].rate == pytest.approx(2, abs=0.05)
    assert problem.start()["control"].dtype == torch.float32


def wrong_far_away(state, control):
    """Right near the initial state, where the probe looks; the gradient is lost for large states."""
    moved = state + 0.3 * control + 0.2
    return torch.where(moved > 1.6, moved.detach(), moved)


def test_a_gradient_that_is_lost_on_the_way_is_found():
    check = dp.check_gradient(posed(wrong_far_away))
    assert not check.passed and check.rows[0].verdict == "wrong" and "WRONG" in str(check)


def test_a_linear_loss_is_right_at_the_rounding_floor():
    check = dp.check_gradient(posed(lambda x, u: x + 0.1 * u, dp.cost(terminal=lambda x: x.sum(1))))
    assert check.passed and "linear" in check.rows[0].verdict


def test_a_kink_is_told_from_a_wrong_gradient():
    def kinked(state, control):
        return state + 0.1 * control + 0.3 * (state - 0.41).abs()

    check = dp.check_gradient(posed(kinked, dp.cost(terminal=lambda x: x.abs().sum(1))))
    assert check.passed


def test_every_slot_has_its_row():
    def step(state, control, *, parameters):
        return state + 0.1 * (control - parameters["decay"] * state)

    slots = (dp.ControlSequence(2), dp.Parameters("decay"), dp.InitialState())
    check = dp.check_gradient(posed(step, unknown=slots, parameters={"decay": 0.3}))
    assert [row.slot for row in check.rows] == ["control", "parameters", "initial_state"] and check.passed


def test_checking_changes_neither_problem_nor_random_numbers():
    problem = posed(smooth)
    before = problem.start()["control"].clone()
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    first, second = dp.check_gradient(problem), dp.check_gradient(problem)
    assert torch.equal(torch.rand(1), expected) and torch.equal(problem.start()["control"], before)
    assert first == second


def test_a_black_box_has_nothing_to_check():
    with pytest.raises(dp.UsageError, match="no exact gradient"):
        dp.check_gradient(posed(FunctionSimulator(smooth, differentiable=False)))
    with pytest.raises(dp.UsageError, match="needs a Problem"):
        dp.check_gradient(smooth)


def test_states_that_blow_up_are_located():
    check = dp.check_gradient(posed(lambda x, u: 1e80 * x + u))
    assert "NOT FINITE from step 4" in check.finite
