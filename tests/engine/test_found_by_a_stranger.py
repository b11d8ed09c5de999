"""What somebody who only knew the README found: orders of dicts, kinks at rest, doors, checks, transforms."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from dpcontrol.problems import burgers

import dpcontrol as dp
from dpcontrol.sim import Compiled, SpectralBurgers, VorticityFlow

F64 = torch.float64


def test_a_step_may_return_its_dict_in_another_order() -> None:
    def step(state, control):
        return {"b": 0.9 * state["b"], "a": state["a"] + 0.1 * state["b"]}

    start = {"a": torch.ones(1, 1, dtype=F64), "b": 2 * torch.ones(1, 1, dtype=F64)}
    wanted = dp.rollout(dp.FunctionSimulator(step), start, length=5).states
    assert float(wanted["b"][-1]) == pytest.approx(2 * 0.9**5)
    pytest.importorskip("numba")
    for simulator, mode in (
        (dp.FunctionSimulator(step), dp.Checkpointed()),
        (Compiled(dp.FunctionSimulator(step)), dp.Full()),
    ):
        found = dp.rollout(simulator, start, length=5, gradient=mode).states
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize(
    "kinked",
    [
        lambda s: s.norm(dim=-1, keepdim=True),
        lambda s: torch.atan2(s, s.flip(-1)),
        lambda s: torch.sinc(s),
    ],
    ids=["norm", "atan2", "sinc"],
)
def test_compiled_steps_have_the_derivatives_of_the_eager_one_at_rest(kinked) -> None:
    pytest.importorskip("numba")
    state, control = torch.zeros(1, 2, dtype=F64), torch.zeros(3, 1, 2, dtype=F64, requires_grad=True)

    def step(s, u):
        return s + 0.1 * u - 0.01 * (s + 1) * kinked(s)

    found = []
    for simulator in (dp.FunctionSimulator(step), Compiled(dp.FunctionSimulator(step))):
        loss = dp.rollout(simulator, state, control).states[-1].sum()
        found.append(torch.autograd.grad(loss, control)[0])
    assert bool(torch.isfinite(found[0]).all())
    torch.testing.assert_close(found[1], found[0])


def test_a_compiled_step_must_keep_the_precision() -> None:
    simulator = Compiled(dp.FunctionSimulator(lambda s, u: (0.9 * s).float()))
    with pytest.raises(
        dp.UsageError,
        match=r"^a compiled step returns numbers of the kind .* float64 and returned .* float32",
    ):
        dp.rollout(simulator, torch.ones(1, 2, dtype=F64), length=3)


@pytest.mark.parametrize("mode", [dp.StopGradient, dp.TruncatedBPTT, "full"])
def test_what_is_no_gradient_mode_is_refused(mode) -> None:
    with pytest.raises(dp.UsageError, match="a mode such as Full"):
        dp.rollout(dp.FunctionSimulator(lambda s, u: s), torch.ones(1, 2), length=3, gradient=mode)


@pytest.mark.parametrize("length", [2.5, -2])
def test_a_length_is_a_whole_number(length) -> None:
    with pytest.raises(dp.UsageError, match="whole number of steps"):
        dp.rollout(dp.FunctionSimulator(lambda s, u: s), torch.ones(1, 2), length=length)


def test_a_check_in_double_precision_says_what_is_in_its_way() -> None:
    turned = torch.eye(2)
    problem = dp.control_problem(
        lambda s, u: s @ turned + 0.1 * u,
        initial_state=torch.zeros(1, 2), horizon=4, objective=dp.reach(torch.ones(2)), control=dp.ControlSequence(2),
    )  # fmt: skip
    with pytest.raises(
        dp.UsageError, match="looked at in float64.* captures has to come in through parameters"
    ):
        dp.check_gradient(problem)


def test_auto_is_not_called_biased_and_a_biased_mode_is_named() -> None:
    problem = burgers.problem(size="small")
    assert "biased" not in str(dp.plan_gradient(replace(problem, gradient=dp.Auto())))
    with pytest.raises(dp.UsageError, match=r"no exact gradient under gradient=TruncatedBPTT\(window=4\)"):
        dp.check_gradient(replace(problem, gradient=dp.TruncatedBPTT(4)))


def test_a_search_without_a_finite_gradient_says_so() -> None:
    problem = dp.control_problem(
        lambda s, u: s + 0.1 * u.abs().sqrt(),
        initial_state=torch.zeros(1, 1, dtype=F64), horizon=3, objective=dp.reach(torch.ones(1)),
        control=dp.ControlSequence(1),
    )  # fmt: skip
    check = dp.check_gradient(problem)
    assert not check.passed
    assert "no search can begin at the start guess: " in str(check)
    assert "the gradient in control" in str(check)
    status = dp.solve(problem, "lbfgs").status
    assert status.kind == "diverged"
    assert "never saw a finite loss with a finite gradient" in status.sentence


@pytest.mark.parametrize("mode", [dp.Full(), dp.Checkpointed(), dp.Auto()], ids=str)
def test_flow_under_transforms_in_every_exact_mode(mode) -> None:
    flow = VorticityFlow(0.05, (12, 12))
    state = torch.randn(2, 12, 12, dtype=F64, generator=torch.Generator().manual_seed(0))

    def loss(viscosity):
        return (
            dp.rollout(flow, state, length=5, parameters={"viscosity": viscosity}, gradient=mode)
            .states[-1]
            .square()
            .sum()
        )

    at = torch.tensor(0.02, dtype=F64)
    h = 1e-6
    slope = (loss(at + h) - loss(at - h)) / (2 * h)
    torch.testing.assert_close(torch.func.jacfwd(loss)(at), slope, rtol=1e-6, atol=0)
    torch.testing.assert_close(torch.func.vmap(torch.func.grad(loss))(at[None])[0], slope, rtol=1e-6, atol=0)


def test_coefficients_made_inside_a_transform_are_not_kept_beyond_it() -> None:
    simulator, state = SpectralBurgers(0.005, 16), torch.linspace(0, 1, 32, dtype=F64).reshape(2, 16)

    def loss(x):
        return dp.rollout(simulator, x, length=4).states.square().sum()

    inside = torch.func.grad(loss)(state)
    leaf = state.clone().requires_grad_()
    loss(leaf).backward()
    torch.testing.assert_close(leaf.grad, inside)
    torch.testing.assert_close(
        loss(state), dp.rollout(SpectralBurgers(0.005, 16), state, length=4).states.square().sum()
    )


def test_a_step_that_draws_random_numbers_is_not_run_again() -> None:
    network = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Dropout(0.5)).double()
    simulator = dp.HybridSimulator(dp.FunctionSimulator(lambda s, u: 0.9 * s), network)
    state = torch.ones(2, 3, dtype=F64, requires_grad=True)
    with pytest.raises(dp.UsageError, match="draws random numbers .* or use Full"):
        dp.rollout(simulator, state, length=4, gradient=dp.Checkpointed())
    network.eval()
    dp.rollout(simulator, state, length=4, gradient=dp.Checkpointed()).states.sum().backward()
    assert bool(torch.isfinite(state.grad).all())


def test_a_problem_may_be_posed_over_a_step_with_its_dict_in_another_order() -> None:
    def step(state, control):
        return {"b": 0.9 * state["b"] + 0.1 * control, "a": state["a"] + 0.1 * state["b"]}

    start = {"a": torch.ones(1, 1, dtype=F64), "b": 2 * torch.ones(1, 1, dtype=F64)}
    zero = {name: torch.zeros(1, dtype=F64) for name in start}
    problem = dp.control_problem(
        step, initial_state=start, horizon=4, objective=dp.reach(zero), control=dp.ControlSequence(1)
    )
    assert dp.solve(problem, "lbfgs").loss < 1e-12
