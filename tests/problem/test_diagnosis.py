"""What is not finite is named: state, cost or adjoint, with step, field, scenario and the largest value before."""

import pytest
import torch

import dpcontrol as dp
from dpcontrol.problem.diagnosis import diagnose

F64 = torch.float64


def posed(step, objective, initial=None, horizon=6, **rest):
    return dp.control_problem(
        step,
        initial_state=torch.tensor([[1.0], [2.0], [3.0]], dtype=F64) if initial is None else initial,
        horizon=horizon,
        objective=objective,
        control=dp.ControlSequence(1),
        **rest,
    )


def drift(state, control):
    return state + 0.1 * control


def control(problem, value=0.0):
    return {"control": torch.full((problem.scenarios.count, problem.horizon, 1), value, dtype=F64)}


def test_all_is_well():
    problem = posed(drift, dp.reach(torch.zeros(1)))
    assert diagnose(problem, control(problem)) is None


def test_a_state_in_a_field_of_a_tree():
    """Squaring 2.5, 100 times larger each step."""

    def step(state, control):
        return {"calm": state["calm"] + control, "wild": 1e80 * state["wild"]}

    initial = {"calm": torch.ones(3, 1, dtype=F64), "wild": torch.tensor([[0.0], [2.0], [0.0]], dtype=F64)}
    problem = posed(step, dp.effort(), initial)
    found = diagnose(problem, control(problem))
    assert "state['wild'] is not finite from step 4 in scenario 1" in found and "was 2e+240" in found
    chosen = {"control": torch.zeros(2, 6, 1, dtype=F64)}
    assert "in scenario 1;" in diagnose(problem, chosen, torch.tensor([2, 1]))
    assert diagnose(problem, chosen, torch.tensor([2, 0])) is None


def test_the_cost_of_a_step():
    """log(2.3 - x - k/2) below zero: in the scenario that starts at 1 from the third step on."""

    def stage(x, u, t):
        return (3.3 - x[:, 0]).log()

    problem = posed(lambda x, u: x + 0.5 + u, dp.cost(stage=stage), torch.tensor([[1.0], [0.0]], dtype=F64))
    found = diagnose(problem, control(problem))
    # x_5 = 3.5, and the sum of the logarithms of 2.3, 1.8, 1.3, 0.8, 0.3
    assert "the cost of step 5 is not finite in scenario 0" in found and "0.256" in found and "3.5." in found


def test_the_cost_of_the_last_state():
    problem = posed(drift, dp.cost(terminal=lambda x: (2.5 - x[:, 0]).log()) + dp.effort())
    found = diagnose(problem, control(problem, 0.1))
    assert (
        "the cost of the last state is not in scenario 2" in found and "running loss before was 0.06" in found
    )


def test_an_adjoint_on_the_way_back():
    """A distance to a point that the state sits on at step 2: finite, with a derivative of 0/0."""

    def step(state, control):
        gap = torch.stack((state[:, 0] - 1.2, 0 * state[:, 0]), 1).square().sum(1).sqrt()
        moved = torch.where(gap == 0, state[:, 0] + gap, state[:, 0])
        return moved[:, None] + control

    initial = torch.tensor([[0.2], [1.0]], dtype=F64)
    problem = posed(step, 3 * dp.reach(torch.zeros(1)), initial, horizon=5)
    z = control(problem)
    z["control"][1, 1:3, 0] = torch.tensor([0.2, 0.3], dtype=F64)
    assert float(1.0 + z["control"][1, 1, 0]) == 1.2  # exactly, or the test says nothing
    found = diagnose(problem, z)
    assert "the adjoint of state is not finite at step 2 in scenario 1" in found
    assert "the largest value at step 3 was 9." in found and "dpcontrol.safe" in found


def test_the_adjoint_of_the_last_cost():
    problem = posed(drift, dp.cost(terminal=lambda x: (x[:, 0] - 2.0).abs().sqrt()))
    found = diagnose(problem, control(problem))
    assert "at step 6 in scenario 1, that of the last cost" in found


def test_the_gradient_in_a_control():
    problem = posed(
        lambda x, u: x + u, dp.reach(torch.ones(1)) + dp.cost(stage=lambda x, u, t: u[:, 0].sqrt())
    )
    z = control(problem, 0.5)
    z["control"][2, 4] = 0.0
    found = diagnose(problem, z)
    assert (
        "all adjoints of states are finite, the gradient in control at step 4 is not in scenario 2" in found
    )


def test_a_point_that_is_not_finite_itself():
    problem = posed(drift, dp.effort())
    assert "the point itself, z['control']" in diagnose(problem, control(problem, float("nan")))


def bursting(state, control):
    """Bursts where it is pushed by more than 3."""
    return state + control + torch.where(control > 3, 1e300 * control, 0.0) ** 2


@pytest.mark.parametrize("name, options", [("cem", {"iterations": 6}), ("cmaes", {"iterations": 6})])
def test_a_run_says_what_it_took_back_and_keeps_its_best(name, options):
    problem = posed(bursting, dp.reach(torch.full((1,), 20.0)), horizon=4)
    solution = dp.solve(problem, name, **options)
    assert solution.counts.failures > 1 and solution.losses.isfinite().all()
    assert (
        f"{solution.counts.failures} evaluations were not finite and taken back" in solution.status.sentence
    )
    assert "at the latest of them state is not finite from step" in solution.status.sentence
    assert not solution.status.failed or solution.status.kind == "diverged"


@pytest.mark.parametrize("name, fields", [("cem", {"iterations": 6}), ("cmaes", {"iterations": 6})])
def test_a_resumed_run_says_the_same(name, fields, tmp_path, monkeypatch):
    monkeypatch.setattr("dpcontrol.folder.KEEP_EVERY_SECONDS", 0.0)
    problem = posed(bursting, dp.reach(torch.full((1,), 20.0)), horizon=4)
    asked = []

    def interrupt(progress):
        asked.append(progress)
        if len(asked) == 3:
            raise KeyboardInterrupt

    whole = dp.solve(problem, name, **fields)
    half = dp.solve(problem, name, folder=tmp_path / "run", callback=interrupt, **fields)
    assert half.status.kind == "interrupted" and half.counts.failures < whole.counts.failures
    assert dp.solve(problem, name, folder=tmp_path / "run", resume=True, **fields).status == whole.status


def test_a_line_search_that_goes_too_far_says_so_and_converges():
    problem = posed(
        lambda x, u: x + u + torch.where(u.abs() > 30, 1e308 * u, 0.0) ** 2,
        dp.cost(terminal=lambda x: -(x[:, 0] - 5).square().neg().exp() - 1e-3 * x[:, 0]),
        horizon=1,
    )
    solution = dp.solve(problem, "lbfgs", iterations=50)
    if solution.counts.failures:
        assert "not finite and taken back" in solution.status.sentence
    assert solution.losses.isfinite().all()


def test_a_descent_that_runs_into_a_corner_ends_with_its_place_and_its_best():
    """sqrt(|u|): the derivative at zero is infinite, and that is where the start guess stands."""
    problem = posed(
        lambda x, u: x + u, dp.reach(torch.ones(1)) + dp.cost(stage=lambda x, u, t: u[:, 0].abs().sqrt())
    )
    solution = dp.solve(problem, "adjoint", iterations=5)
    assert solution.status.kind == "diverged"
    assert "the gradient in control at step 5 is not in scenario 0" in solution.status.sentence


def test_a_run_without_failures_says_nothing_of_them():
    solution = dp.solve(posed(drift, dp.reach(torch.zeros(1)) + dp.effort()), "lbfgs")
    assert "not finite" not in solution.status.sentence and solution.status.kind == "converged"
