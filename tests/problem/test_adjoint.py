"""Adjoints step by step: a closed form, a known Lyapunov exponent, every exact mode, and the warnings."""

import math
from dataclasses import replace

import pytest
import torch

import dpcontrol as dp
from dpcontrol.engine import Checkpointed, Full, TruncatedBPTT
from dpcontrol.problem.adjoint import adjoint
from dpcontrol.sim import DiscreteLinear

F64 = torch.float64


def linear(radius, horizon, dtype=F64, objective=None, gradient=None):
    """``x' = A x + u``, with ``A`` a turn by one radian times its spectral radius."""
    c, s = radius * math.cos(1.0), radius * math.sin(1.0)
    generator = torch.Generator().manual_seed(0)
    return dp.control_problem(
        DiscreteLinear([[c, -s], [s, c]], [[1.0, 0.0], [0.0, 1.0]]),
        initial_state=torch.randn(4, 2, generator=generator, dtype=dtype),
        horizon=horizon,
        objective=objective or dp.cost(terminal=lambda x: 3 * x[:, 0]),
        control=dp.ControlSequence(2),
        gradient=gradient or Full(),
    )


@pytest.mark.parametrize("radius", [0.8, 1.0, 1.3])
def test_norms_and_rate_of_a_linear_system_are_the_closed_form(radius):
    growth = dp.gradient_growth(linear(radius, 30))
    expected = 3 * radius ** torch.arange(30, -1, -1, dtype=F64)
    torch.testing.assert_close(growth.mean, expected)
    torch.testing.assert_close(growth.largest, expected)
    assert growth.rate == pytest.approx(math.log(radius), abs=1e-12) and growth.warning is None
    assert growth.steps == 30 and "over 30 steps" in str(growth)


@pytest.mark.parametrize("mode", [Full(), Checkpointed(snapshots=3), dp.Auto(), TruncatedBPTT(2)], ids=repr)
def test_the_adjoint_is_the_gradient_of_what_is_to_come(mode):
    """dJ/dx_k is the gradient of the rest of the problem in its initial state; dJ/dz that of the loss."""

    def step(state, control):
        return {"a": state["a"] + 0.1 * (control - state["b"].sin()), "b": 0.9 * state["b"] + state["a"]}

    generator = torch.Generator().manual_seed(0)
    initial = {name: torch.randn(3, 2, generator=generator, dtype=F64) for name in "ab"}
    target = {name: torch.ones(2, dtype=F64) for name in "ab"}

    def posed(state, horizon, gradient=None):
        return dp.control_problem(
            step,
            initial_state=state,
            horizon=horizon,
            objective=dp.track({n: torch.ones(horizon + 1, 2, dtype=F64) for n in "ab"})
            + dp.reach(target)
            + dp.effort(),
            control=dp.ControlSequence(2),
            gradient=gradient or Full(),
        )

    problem = posed(initial, 6, mode)
    z = {"control": torch.randn(3, 6, 2, generator=generator, dtype=F64)}
    found = adjoint(problem, z)
    point = z["control"].clone().requires_grad_()
    exact = replace(problem, gradient=Full())
    (gradient,) = torch.autograd.grad(exact.loss({"control": point}).sum(), point)
    torch.testing.assert_close(found.unknown["control"], gradient)
    path = problem.simulate(z).states
    for k in (0, 2, 5):
        rest = posed({n: path[n][k] for n in "ab"}, 6 - k).with_unknown(
            dp.InitialState(), dp.ControlSequence(2)
        )
        start = {n: path[n][k].detach().requires_grad_() for n in "ab"}
        loss = rest.loss({"initial_state": start, "control": z["control"][:, k:]}).sum()
        for name, one in zip("ab", torch.autograd.grad(loss, list(start.values())), strict=True):
            torch.testing.assert_close(found.states[name][k], one)


def test_some_scenarios_only():
    problem = linear(1.1, 5, objective=dp.reach(torch.ones(2)))
    z = {"control": torch.ones(2, 5, 2, dtype=F64)}
    chosen = adjoint(problem, z, torch.tensor([3, 1]))
    whole = adjoint(problem, {"control": torch.ones(4, 5, 2, dtype=F64)})
    torch.testing.assert_close(chosen.states, whole.states[:, [3, 1]])


def test_the_rate_of_lorenz_is_its_lyapunov_exponent():
    """0.9056 per unit of time: J. Sprott, "Chaos and Time-Series Analysis" (2003), table of systems."""

    def rate(x, u):
        a, b, c = x.unbind(-1)
        return torch.stack((10 * (b - a), a * (28 - c) - b, a * b - 8 / 3 * c), -1)

    simulator = dp.ODE(rate, dt=0.02)
    generator = torch.Generator().manual_seed(0)
    scattered = torch.randn(200, 3, generator=generator, dtype=F64) + torch.tensor([0.0, 0.0, 25.0])
    with torch.no_grad():
        on_attractor = dp.rollout(simulator, scattered.to(F64), length=500).states[-1]
    problem = dp.control_problem(
        simulator,
        initial_state=on_attractor,
        horizon=800,
        objective=dp.cost(terminal=lambda x: x[:, 0]),
        unknown=dp.InitialState(),
        gradient=Checkpointed(),
    )
    growth = dp.gradient_growth(problem)
    assert growth.rate / growth.dt == pytest.approx(0.906, abs=0.05) and growth.warning is None
    longer = replace(growth, mean=torch.ones(2501))
    assert "the gradient is one of rounding errors" in longer.warning  # e^45 over 50 units of time


@pytest.mark.parametrize(
    "radius, horizon, dtype, expected",
    [
        (1.5, 60, torch.float32, "more than the digits of float32"),
        (1.5, 60, F64, None),
        (1.5, 100, F64, "more than the digits of float64"),
        (1.5, 300, torch.float32, "cannot be represented in float32"),
        (0.5, 200, torch.float32, "cannot be represented in float32"),
        (0.5, 200, F64, None),
    ],
)
def test_growth_that_no_number_can_carry_is_announced(radius, horizon, dtype, expected):
    growth = dp.gradient_growth(linear(radius, horizon, dtype))
    assert growth.warning is None if expected is None else expected in growth.warning
    assert growth.rate == pytest.approx(math.log(radius), rel=1e-6)


def test_the_check_prints_it():
    text = str(dp.check_gradient(linear(1.5, 100, objective=dp.reach(torch.ones(2)))))
    assert "backwards they grow by 50 % a step" in text and "WARNING: a change of the first state" in text


def test_no_growth_is_told_from_two_states_and_none_without_a_gradient():
    assert math.isnan(dp.gradient_growth(linear(1.1, 1)).rate)
    assert "no growth to be told" in str(dp.gradient_growth(linear(1.1, 1)))
    with pytest.raises(dp.UsageError, match="no adjoint"):
        dp.gradient_growth(replace(linear(1.1, 3), differentiable=False))
