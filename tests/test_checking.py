"""check_gradient: it passes what is right, names what is wrong, and changes nothing."""

import pytest
import torch

import dpcontrol as dp
from dpcontrol.catalogue import find, names
from dpcontrol.problem import View
from dpcontrol.results import UsageError
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
    assert not check.passed and [row.verdict for row in check.rows] == ["cannot be judged"]
    told = str(check)
    assert "WRONG" not in told
    assert "verdict: the gradient cannot be judged: state is not finite from step 4 in scenario 0" in told
    assert "Take shorter steps" in told and "pass at=..., a point where the loss is finite" in told


def test_a_loss_that_is_infinite_is_neither_right_nor_wrong():
    cost = dp.cost(terminal=lambda x: torch.where(x[:, 0] > -9, torch.inf, x.sum(1))) + dp.effort()
    check = dp.check_gradient(posed(smooth, cost))
    assert not check.passed
    assert "cannot be judged: all states are finite, but the cost of the last state is not" in str(check)


def test_a_gradient_that_is_not_finite_where_the_loss_is_finite_is_wrong():
    corner = dp.cost(terminal=lambda x: (x - x.detach()).abs().sum(1).sqrt() + x.sum(1))
    check = dp.check_gradient(posed(smooth, corner))
    assert "the gradient is WRONG" in str(check) and check.unjudged is None


def test_the_hessian_of_a_smooth_scheme_has_rate_three():
    (row,) = dp.check_gradient(posed(smooth)).rows
    assert row.hessian == "right" and row.hessian_rate == pytest.approx(3, abs=0.05)
    assert len(row.hessian_remainders) == len(row.widths)


def test_a_quadratic_loss_leaves_nothing_but_rounding():
    check = dp.check_gradient(posed(lambda x, u: 0.9 * x + 0.1 * u))
    assert check.rows[0].hessian == "quadratic" and check.passed
    linear = dp.check_gradient(posed(lambda x, u: x + 0.1 * u, dp.cost(terminal=lambda x: x.sum(1))))
    assert linear.rows[0].hessian == "quadratic" and linear.rows[0].curvature == 0


class HalfForgotten(torch.autograd.Function):
    """x^3 with the right derivative, whose own derivative is forgotten."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, above):
        return 3 * ctx.saved_tensors[0].detach() ** 2 * above


def test_torch_drops_what_can_be_differentiated_once_only_and_the_check_sees_it():
    class Once(HalfForgotten):
        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, above):
            return 3 * ctx.saved_tensors[0] ** 2 * above

    check = dp.check_gradient(posed(lambda x, u: x + 0.1 * (u - Once.apply(x))))
    assert check.rows[0].verdict == "right" and check.rows[0].hessian == "WRONG"


def test_a_missing_second_derivative_is_no_mistake():
    def distance(x):  # torch has no second derivative of it
        return torch.cdist(x[:, None, :], torch.full((1, 1, 2), 3.0, dtype=x.dtype), p=3.0)[:, 0]

    check = dp.check_gradient(posed(lambda x, u: x + 0.1 * (u - distance(x))))
    assert check.passed and check.rows[0].hessian == "not there" and check.rows[0].hessian_remainders == ()


def test_a_gradient_that_is_off_by_a_little_is_found():
    """A part in ten thousand shows in the small widths only."""

    class Off(HalfForgotten):
        @staticmethod
        def backward(ctx, above):
            return 3.0003 * ctx.saved_tensors[0] ** 2 * above

    check = dp.check_gradient(posed(lambda x, u: x + 0.1 * (u - Off.apply(x))))
    assert not check.passed and check.rows[0].verdict == "wrong"


def test_a_kinked_derivative_is_not_smooth_and_not_wrong():
    """Once continuously differentiable: the curvature jumps wherever a state changes its sign."""
    generator = torch.Generator().manual_seed(1)
    problem = dp.control_problem(
        lambda x, u: x + 0.2 * (u - x * x.abs()),
        initial_state=0.01 * torch.randn(400, 2, generator=generator, dtype=F64),
        horizon=4,
        objective=dp.reach(torch.ones(2)),
        control=dp.ControlSequence(2),
    )
    (row,) = dp.check_gradient(problem).rows
    assert row.verdict == "right" and row.hessian == "not smooth"


# their small sizes are not that small: a check runs a problem about thirty times
LARGE = ("ks_stabilisation", "smoke_inverse", "smoke_shapes", "smoke_shapes_pushed")
CATALOGUE = [pytest.param(name, marks=pytest.mark.slow if name in LARGE else ()) for name in names()]


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", CATALOGUE)
def test_every_problem_of_the_catalogue_passes(name, seed):
    try:
        problem = find(name).build(size="small")
    except UsageError as error:
        if "is not installed here: pip install" not in str(error):
            raise
        pytest.skip(str(error))
    if View.EXACT_GRADIENT not in problem.offers:
        with pytest.raises(UsageError, match="nothing to check"):
            dp.check_gradient(problem, seed=seed)
        return
    check = dp.check_gradient(problem, seed=seed)
    assert check.passed and all(row.hessian != "not there" for row in check.rows)
    assert all(row.rate > 1.9 or "kinked" in row.verdict for row in check.rows)
