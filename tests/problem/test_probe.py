"""Questions at the door: a user's function is batched, pure and differentiable, or it is refused in one sentence."""

import functools

import pytest
import torch

import dpcontrol as dp
from dpcontrol.sim import FunctionSimulator

F64 = torch.float64
CALLS = []


def impure(state, control):
    CALLS.append(1)
    return state + 0.1 * control + 1e-3 * len(CALLS)


def in_place(state, control):
    state += 0.1 * control
    return state


def numpy_inside(state, control):
    return state + 0.1 * torch.from_numpy(control.detach().numpy())


def pose(step, n=3, dtype=F64, **rest):
    return dp.control_problem(
        step,
        initial_state=torch.linspace(0.1, 1.0, 4 * n, dtype=dtype).reshape(n, 4),
        horizon=3,
        objective=dp.reach(torch.zeros(4)),
        control=dp.ControlSequence(4),
        **rest,
    )


BAD = {
    "mean over the batch": (lambda x, u: x - x.mean(0) + u, "not batched over scenarios"),
    "one scenario only": (lambda x, u: x.roll(1, 0) + u, "not batched over scenarios"),
    "detached state": (lambda x, u: x.detach() + u, "wrong gradient in state"),
    "detached control": (numpy_inside, "wrong gradient in control"),
    "wrong gradient": (lambda x, u: x + 2 * u.detach() - u, "wrong gradient in control"),
    "random": (lambda x, u: x + u + torch.randn(()), "two different answers"),
    "memory": (impure, "two different answers"),
    "in place": (in_place, "changed its input"),
    "other shape": (lambda x, u: (x + u)[:, :2], "must return a state like the one"),
    "other dtype": (lambda x, u: (x + u).float(), "must return a state like the one"),
    "other structure": (lambda x, u: (x, u), "must return a state like the one"),
    "nothing": (lambda x, u: None, "must return a state like the one"),
    "not a number": (
        lambda x, u: (x - 5).log() + u,
        "not finite at the first step, step 0, in state of scenario 0",
    ),
    "infinite": (lambda x, u: x / 0 + u, "not finite at the first step, step 0"),
    "raises": (lambda x, u: x @ u, "failed with RuntimeError"),
    "one argument": (lambda x: x, "step functions take"),
    "other keywords": (lambda x, u, *, wind: x, "step functions take"),
    "not a function": (3.0, "step\\(state, control\\)"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_step_is_refused(name):
    step, sentence = BAD[name]
    with pytest.raises(dp.UsageError, match=sentence) as caught:
        pose(step)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["mean over the batch", "detached state"])
def test_one_scenario_is_enough_to_find_out(name):
    step, sentence = BAD[name]
    with pytest.raises(dp.UsageError, match=sentence):
        pose(step, n=1)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize(
    "step",
    [
        lambda x, u: x + 0.1 * (u - x**3),
        lambda x, u: torch.fft.irfft(torch.fft.rfft(x + u) * 0.9, n=4),
        lambda x, u: x + 0.1 * (u - x.abs()),
        functools.partial(lambda x, u, *, gain: x + gain * u, gain=0.1),
    ],
)
def test_good_steps_pass(step, dtype):
    assert dp.problem.View.EXACT_GRADIENT in pose(step, dtype=dtype).offers


def test_a_step_that_is_not_finite_names_field_and_scenario():
    start = {"x": torch.ones(3, 1, dtype=F64), "v": torch.tensor([[1.0], [1.0], [-1.0]], dtype=F64)}
    with pytest.raises(dp.UsageError, match=r"step 0, in state\['v'\] of scenario 2; look for"):
        dp.control_problem(
            lambda s, u: {"x": s["x"] + u, "v": s["v"].sqrt()},
            initial_state=start,
            horizon=3,
            objective=dp.effort(),
            control=dp.ControlSequence(1),
        )


def test_a_black_box_that_is_not_finite_is_refused():
    with pytest.raises(dp.UsageError, match="not finite at the first step"):
        pose(FunctionSimulator(lambda x, u: x * torch.nan, differentiable=False))


def test_a_start_at_the_end_of_a_domain_passes_and_what_overflows_later_diverges():
    # a root of the control is there at 0, and not beside it
    solved = dp.solve(pose(lambda x, u: x + u.sqrt() * 0), "cmaes", budget=dp.Budget(simulated_steps=60))
    assert solved.loss < float("inf")
    assert dp.solve(pose(lambda x, u: 1e200 * x + u), "lbfgs").status.kind == "diverged"


def test_a_declared_black_box_passes_and_offers_no_gradient():
    problem = pose(FunctionSimulator(numpy_inside, differentiable=False))
    assert dp.problem.View.GRADIENT not in problem.offers
    with pytest.raises(dp.UsageError, match="needs an exact gradient.*strategies that fit: .*cmaes"):
        dp.solve(problem, "lbfgs")


def test_trees_are_states():
    def step(state, control):
        return {"x": state["x"] + 0.1 * state["v"], "v": state["v"] + 0.1 * control}

    start = {"x": torch.ones(2, 1, dtype=F64), "v": torch.zeros(2, 1, dtype=F64)}
    problem = dp.control_problem(
        step,
        initial_state=start,
        horizon=20,
        objective=10.0 * dp.reach({"x": torch.zeros(1), "v": torch.zeros(1)}) + 1e-3 * dp.effort(),
        control=dp.ControlSequence(1),
    )
    solution = dp.solve(problem, "lbfgs")
    assert solution.status.kind == "converged"
    assert float(solution.trajectory().states["x"][-1].abs().max()) < 0.01
    assert dp.check_gradient(problem).passed


OBSERVATIONS = {
    "raises": (lambda s: s @ s, "observation\\(state\\) failed with RuntimeError: mat1"),
    "raises a key": (
        lambda s: {}["q"],
        "observation\\(state\\) failed with KeyError: 'q' - state is \\(2, 4\\)",
    ),
    "exits": (lambda s: exit(3), "failed with SystemExit"),
    "no function": (3, "observation must be a function from a state"),
    "nothing": (lambda s: None, "must return tensors \\(2, ...\\) .* found None"),
    "numbers": (lambda s: 1.0, "found float"),
    "no scenario axis": (
        lambda s: s[0],
        "must return tensors \\(2, ...\\) of the state's dtype.* found \\(4,\\)",
    ),
    "single precision": (lambda s: s.float(), "found \\(2, 4\\) float32"),
    "not a number": (lambda s: (s - 5).log(), "is not finite at the initial states"),
    "mean over the batch": (lambda s: s - s.mean(0), "observation\\(state\\) is not batched"),
}


@pytest.mark.parametrize("name", OBSERVATIONS)
def test_a_bad_observation_is_refused(name):
    observation, sentence = OBSERVATIONS[name]
    with pytest.raises(dp.UsageError, match=sentence) as caught:
        pose(lambda x, u: x + 0.1 * u, observation=observation)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("n", [1, 3])
def test_good_observations_pass(n):
    for observation in (lambda s: s[:, 0], lambda s: {"ends": s[:, ::3]}, lambda s: torch.fft.rfft(s).abs()):
        assert pose(lambda x, u: x + 0.1 * u, n=n, observation=observation).observation is observation
