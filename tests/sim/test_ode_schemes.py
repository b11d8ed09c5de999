"""Time-stepping schemes: measured orders, energy, trees, refusals."""

import math

import pytest
import torch
from taylor import convergence_order, taylor_rates

from dpcontrol.results import UsageError
from dpcontrol.sim import (
    EULER,
    HEUN,
    MIDPOINT,
    ODE,
    RK4,
    SYMPLECTIC_EULER,
    VERLET,
    FunctionSystem,
    Partitioned,
    Pendulum,
    Substeps,
    Tableau,
    VanDerPol,
)

F64 = torch.float64
SCHEMES = [EULER, HEUN, MIDPOINT, RK4, SYMPLECTIC_EULER, VERLET]


def roll(simulator, state, steps, control=None, start=0.0):
    coefficients = simulator.prepare(simulator.parameters, {})
    for k in range(steps):
        state = simulator.step(state, control, coefficients, None, start + k * simulator.dt)
    return state


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.name)
def test_order_by_regression(scheme):
    start = torch.tensor([[1.0, 0.5]], dtype=F64)
    torque = torch.tensor([[0.7]], dtype=F64)
    exact = roll(ODE(Pendulum(), 1 / 4000), start, 4000, torque)
    counts = [40, 80, 160, 320]
    errors = [float((roll(ODE(Pendulum(), 1 / n, scheme), start, n, torque) - exact).norm()) for n in counts]
    assert convergence_order([1 / n for n in counts], errors) == pytest.approx(scheme.order, abs=0.15)


@pytest.mark.parametrize("scheme", [EULER, HEUN, MIDPOINT, RK4], ids=lambda scheme: scheme.name)
def test_order_where_time_enters(scheme):
    def rate(x, u, t):
        return -x * math.cos(t)

    counts = [20, 40, 80]
    errors = [
        abs(float(roll(ODE(rate, 2 / n, scheme), torch.ones(1, 1, dtype=F64), n)) - math.exp(-math.sin(2.0)))
        for n in counts
    ]
    assert convergence_order([1 / n for n in counts], errors) == pytest.approx(scheme.order, abs=0.25)


def energy(state):
    return state[:, 1] ** 2 / 2 - 9.81 * torch.cos(state[:, 0])


def test_symplectic_schemes_keep_the_energy_for_long_times():
    start = torch.tensor([[1.5, 0.0], [2.5, 0.0]], dtype=F64)
    drifts = {}
    for scheme in (VERLET, SYMPLECTIC_EULER, HEUN):
        simulator, state, errors = ODE(Pendulum(), 0.05, scheme), start, []
        for _ in range(40):
            state = roll(simulator, state, 50)  # 100 time units in all
            errors.append((energy(state) - energy(start)).abs())
        drifts[scheme.name] = torch.stack(errors)
    verlet, heun = drifts["Verlet"], drifts["Heun"]
    assert float(verlet.max()) < 0.15
    assert float(verlet[20:].max()) < 1.2 * float(verlet[:20].max())  # bounded, not growing
    assert float(drifts["symplectic Euler"].max()) < 2.5
    assert bool((heun[-1] > 3 * verlet.max()).all())


def test_verlet_is_reversible_and_preserves_area():
    simulator, back = ODE(Pendulum(), 0.1, VERLET), torch.tensor([1.0, -1.0], dtype=F64)
    start = torch.tensor([[1.2, -0.4]], dtype=F64)
    torch.testing.assert_close(
        roll(simulator, roll(simulator, start, 30) * back, 30) * back, start, rtol=0, atol=1e-12
    )
    for scheme in (VERLET, SYMPLECTIC_EULER):
        jacobian = torch.autograd.functional.jacobian(
            lambda s, e=scheme: roll(ODE(Pendulum(), 0.1, e), s[None], 5)[0], start[0]
        )
        assert float(torch.linalg.det(jacobian)) == pytest.approx(1.0, abs=1e-12)


def test_states_may_be_trees_and_functions_may_take_parameters():
    def rate(state, control, *, parameters, t):
        return {
            "x": state["v"],
            "v": -parameters["stiffness"] * state["x"] + (0.0 if control is None else control),
        }

    simulator = ODE(FunctionSystem(rate, {"stiffness": 4.0}), 0.01)
    assert simulator.parameters == {"stiffness": 4.0}
    start = {"x": torch.ones(2, dtype=F64), "v": torch.zeros(2, dtype=F64)}
    end = roll(simulator, start, 100)
    torch.testing.assert_close(end["x"], torch.full((2,), math.cos(2.0), dtype=F64), rtol=0, atol=1e-8)
    rates = taylor_rates(
        lambda k: simulator.step(start, None, {"stiffness": k}, None, 0.0)["v"].square().sum(),
        torch.tensor(4.0, dtype=F64),
        largest=1.0,
    )
    assert min(rates) > 1.9


def test_substeps_are_steps():
    start = torch.tensor([[1.0, 0.5]], dtype=F64)
    assert torch.equal(
        roll(Substeps(ODE(VanDerPol(), 0.1), 4), start, 3), roll(ODE(VanDerPol(), 0.1), start, 12)
    )


def test_wrong_use_is_refused_in_one_sentence():
    def refused(pattern, call):
        with pytest.raises(UsageError, match=pattern):
            call()

    refused("dt must be positive", lambda: ODE(Pendulum(), -0.1))
    refused("does not have; take a Runge-Kutta", lambda: ODE(VanDerPol(), 0.1, VERLET))
    refused("scheme is a Tableau", lambda: ODE(VanDerPol(), 0.1, "rk4"))
    refused("rate functions take", lambda: ODE(lambda x: x, 0.1))
    refused("rate functions take", lambda: ODE(lambda x, u, speed: x, 0.1))
    refused("a system is a System or a function", lambda: ODE(3.0, 0.1))
    refused("explicit scheme", lambda: Tableau("implicit", ((1.0,),), (1.0,), (1.0,), 1))
    refused("inconsistent", lambda: Tableau("wrong", ((), (0.4,)), (0.0, 1.0), (0.0, 0.5), 2))
    refused("as many drifts", lambda: Partitioned("wrong", (1.0,), (0.5, 0.5), 1))
    pendulum = ODE(Pendulum(), 0.1)
    refused(r"\(angle, angular velocity\).*found \(1, 3\)", lambda: pendulum.start(torch.zeros(1, 3), {}))
    refused(r"the control .*\(torque\)", lambda: roll(pendulum, torch.zeros(1, 2), 1, torch.zeros(1, 2)))
