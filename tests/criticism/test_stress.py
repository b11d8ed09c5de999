"""``stress_test``: it finds the draws of a prior that make a simulator fail, and where they lie."""

import pytest
import torch
from torch.distributions import Normal, Uniform

from dpcontrol import (
    FunctionSimulator,
    Gaussian,
    Parameters,
    UsageError,
    inference_problem,
    observe,
    stress_test,
)

F64 = torch.float64


def double(value):
    return torch.tensor(value, dtype=F64)


def posed(step, prior, **options):
    return inference_problem(
        step,
        data=torch.ones(4, 1, 2, dtype=F64),
        observation=observe(noise=Gaussian(0.5)),
        initial_state=torch.ones(1, 2, dtype=F64),
        horizon=3,
        prior=prior,
        name="rooted",
        **options,
    )


def rooted(x, u, *, parameters):
    """Fails in the first step where the push is negative, whatever the other parameter is."""
    return x + parameters["push"].sqrt() + 0.1 * parameters["idle"]


def prior():
    return {"push": Normal(double(1.0), 1.0), "idle": Normal(double(0.0), 1.0)}


def test_failing_draws_are_those_below_zero():
    found = stress_test(posed(rooted, prior()), n=150, seed=3)
    low, high = found.interval
    assert low < 0.1587 < high, "Phi(-1) of the prior lies below zero"
    assert {each.what for each in found.failures} == {"density"}
    push, idle = found.regions
    assert push.name == "push" and push.failing[2] < 0 and push.above == 0.0
    assert 0.25 < idle.above < 0.75
    assert not found.passed


def test_the_step_and_the_field_are_named():
    found = stress_test(posed(rooted, prior()), n=30)
    assert "from step 1 in scenario 0" in found.failures[0].sentence
    words = str(found)
    assert "where push is small" in words and "TruncatedNormal" in words
    (line,) = (line for line in words.splitlines() if line.startswith("draw"))
    first = ", ".join(str(each.draw) for each in found.failures[:5])
    assert line.startswith(f"draws {first} (density): ")


def test_a_prior_within_the_domain_passes_with_a_bound():
    found = stress_test(
        posed(rooted, {"push": Uniform(double(0.5), double(1.5)), "idle": Normal(double(0.0), 1.0)}), n=60
    )
    assert found.passed and found.failures == () and found.failing == 0
    assert found.interval[1] == pytest.approx(1 - 0.025 ** (1 / 60))
    assert "all 60 draws" in found.verdict


def test_a_gradient_that_is_not_finite_is_told_from_a_density():
    def rooted_at_zero(x, u, *, parameters):
        push = parameters[
            "push"
        ]  # the root of zero for a negative one, with slopes of both signs that are infinite
        return x + (push + push.abs()).sqrt()

    found = stress_test(posed(rooted_at_zero, {"push": Normal(double(0.5), 1.0)}), n=40)
    assert {each.what for each in found.failures} == {"gradient"}


def test_a_step_that_raises_is_reported_and_not_hidden():
    def picky(x, u, *, parameters):
        if float(parameters["push"]) < 0:
            raise ArithmeticError("no root of a negative push")
        return x + parameters["push"]

    found = stress_test(posed(picky, {"push": Normal(double(0.8), 1.0)}), n=30)
    assert found.failures and {each.what for each in found.failures} == {"raised"}
    assert "ArithmeticError: no root" in str(found) and "end there" in found.verdict
    assert not found.passed


def test_a_black_box_is_tried_without_gradients():
    def black(x, u, *, parameters):
        return x + parameters["push"].sqrt()

    system = FunctionSimulator(black, defaults={"push": 1.0}, differentiable=False)
    found = stress_test(posed(system, {"push": Normal(double(0.5), 1.0)}), n=20)
    assert not found.gradients and found.failures


def test_the_same_seed_finds_the_same():
    problem = posed(rooted, prior())
    first, second = (stress_test(problem, n=20, seed=5) for _ in range(2))
    assert first.failures == second.failures and first.regions == second.regions


def test_a_problem_without_a_prior_is_refused():
    problem = inference_problem(
        rooted,
        data=torch.ones(4, 1, 2, dtype=F64),
        observation=observe(noise=Gaussian(0.5)),
        initial_state=torch.ones(1, 2, dtype=F64),
        horizon=3,
        unknown=Parameters("push"),
        parameters={"push": 1.0, "idle": 0.0},
    )
    with pytest.raises(UsageError, match="has no prior"):
        stress_test(problem)
    with pytest.raises(UsageError, match="1 or more"):
        stress_test(posed(rooted, prior()), n=0)
