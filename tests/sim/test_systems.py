"""The systems: invariants, closed forms and published numbers, derivatives in state, control and parameters."""

import math

import pytest
import torch
from taylor import taylor_rates

from dpcontrol.results import UsageError
from dpcontrol.sim import (
    ODE,
    VERLET,
    CartPole,
    DiscreteLinear,
    LinearSystem,
    LotkaVolterra,
    Pendulum,
    VanDerPol,
)

F64 = torch.float64
A = [[0.0, 1.0], [-2.0, -0.3]]
B = [[0.0], [1.0]]
SIMULATORS = {
    "pendulum": ODE(Pendulum(damping=0.1), 0.05),
    "pendulum, Verlet": ODE(Pendulum(damping=0.1), 0.05, VERLET),
    "cart-pole": ODE(CartPole(), 0.02),
    "Van der Pol": ODE(VanDerPol(), 0.1),
    "Lotka-Volterra": ODE(LotkaVolterra(), 0.1),
    "linear": ODE(LinearSystem(A, B), 0.1),
    "discrete linear": DiscreteLinear(A, B),
}
everything = pytest.mark.parametrize("simulator", SIMULATORS.values(), ids=SIMULATORS.keys())


def roll(simulator, state, steps, control=None, parameters=None):
    values = simulator.parameters if parameters is None else parameters
    coefficients = simulator.prepare(values, {})
    for k in range(steps):
        state = simulator.step(
            state, None if control is None else control[k], coefficients, None, k * simulator.dt
        )
    return state


def sizes(simulator):
    return (
        (2, 1)
        if isinstance(simulator, DiscreteLinear)
        else (len(simulator.system.components), len(simulator.system.inputs))
    )


def sample(simulator, scenarios, steps=6):
    generator = torch.Generator().manual_seed(2)
    components, inputs = sizes(simulator)
    state = 1.0 + torch.rand((scenarios, components), generator=generator, dtype=F64)
    return state, torch.randn((steps, scenarios, inputs), generator=generator, dtype=F64)


@everything
def test_taylor_in_state_control_and_parameters(simulator):
    state, control = sample(simulator, 3)
    parameters = {name: torch.as_tensor(v, dtype=F64) for name, v in simulator.parameters.items()}
    point = {"state": state, "control": control, **parameters}

    def loss(z):
        end = roll(simulator, z["state"], 6, z["control"], {name: z[name] for name in parameters})
        return end.square().square().sum()

    for name in point:

        def along(value, name=name):
            return loss({**point, name: value})

        rates = taylor_rates(along, point[name], largest=1e-3)
        assert min(rates) > 1.9 and max(rates) < 2.1, (name, rates)


@everything
def test_second_derivatives_and_forward_mode(simulator):
    state, control = sample(simulator, 2, steps=1)
    names = list(simulator.parameters)
    values = [torch.as_tensor(v, dtype=F64).clone().requires_grad_() for v in simulator.parameters.values()]

    def step(x, u, *parameters):
        return simulator.step(
            x, u, simulator.prepare(dict(zip(names, parameters, strict=True)), {}), None, 0.0
        )

    inputs = (state.requires_grad_(), control[0].requires_grad_(), *values)
    assert torch.autograd.gradcheck(step, inputs, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(step, inputs)


@everything
def test_scenarios_do_not_see_each_other(simulator):
    state, control = sample(simulator, 4)
    matrices = isinstance(simulator, DiscreteLinear) or isinstance(simulator.system, LinearSystem)
    factors = torch.linspace(0.8, 1.2, 4, dtype=F64)
    each = {
        name: torch.stack([f * v for f in factors]) if matrices else factors * v
        for name, v in simulator.parameters.items()
    }
    together = roll(simulator, state, 6, control, each)
    order = torch.tensor([2, 0, 3, 1])
    shuffled = roll(
        simulator, state[order], 6, control[:, order], {name: v[order] for name, v in each.items()}
    )
    assert torch.equal(shuffled, together[order])
    alone = [
        roll(simulator, state[s : s + 1], 6, control[:, s : s + 1], {name: v[s] for name, v in each.items()})
        for s in range(4)
    ]
    torch.testing.assert_close(torch.cat(alone), together, rtol=1e-13, atol=1e-13)


@everything
def test_no_control_is_zero_control_and_single_precision_follows(simulator):
    state, control = sample(simulator, 2)
    free = roll(simulator, state, 6)
    torch.testing.assert_close(free, roll(simulator, state, 6, 0 * control), rtol=0, atol=1e-14)
    floats = {name: torch.as_tensor(v, dtype=torch.float32) for name, v in simulator.parameters.items()}
    single = roll(simulator, state.float(), 6, control.float(), floats)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), roll(simulator, state, 6, control), rtol=1e-4, atol=1e-4)


def test_pendulum_keeps_its_energy_rests_hanging_and_falls_from_upright():
    system = Pendulum(mass=0.7, length=1.3, gravity=9.0)
    start = torch.tensor([[2.0, 0.5]], dtype=F64)

    def energy(s):
        return 0.5 * 0.7 * 1.3**2 * s[:, 1] ** 2 - 0.7 * 9.0 * 1.3 * torch.cos(s[:, 0])

    torch.testing.assert_close(energy(roll(ODE(system, 0.01), start, 1000)), energy(start), rtol=1e-7, atol=0)
    assert torch.equal(roll(ODE(system, 0.01), torch.zeros(1, 2), 100), torch.zeros(1, 2))
    fallen = roll(ODE(system, 0.01), torch.tensor([[math.pi - 0.01, 0.0]], dtype=F64), 100)
    growth = math.cosh(math.sqrt(9.0 / 1.3))
    assert float(math.pi - fallen[0, 0]) == pytest.approx(0.01 * growth, rel=2e-3)
    damped = roll(ODE(Pendulum(damping=0.5), 0.01), start, 300)
    assert float(damped[0, 1] ** 2 / 2 - 9.81 * torch.cos(damped[0, 0])) < float(
        0.125 - 9.81 * torch.cos(start[0, 0])
    )


def test_cart_pole_keeps_energy_and_momentum():
    M, m, l, g = 1.1, 0.1, 0.5, 9.81
    start = torch.tensor([[0.0, 0.3, 0.4, -1.0]], dtype=F64)

    def energy(s):
        v, theta, omega = s[:, 1], s[:, 2], s[:, 3]
        kinetic = M * v**2 / 2 + m * l * v * omega * torch.cos(theta) + 2 / 3 * m * l**2 * omega**2
        return kinetic + m * g * l * torch.cos(theta)

    def momentum(s):
        return M * s[:, 1] + m * l * s[:, 3] * torch.cos(s[:, 2])

    end = roll(ODE(CartPole(), 0.005), start, 1000)
    torch.testing.assert_close(energy(end), energy(start), rtol=1e-6, atol=0)
    torch.testing.assert_close(momentum(end), momentum(start), rtol=0, atol=1e-8)
    pushed = roll(ODE(CartPole(), 0.005), start, 200, torch.full((200, 1, 1), 2.0, dtype=F64))
    torch.testing.assert_close(
        momentum(pushed) - momentum(start), torch.tensor([2.0], dtype=F64), rtol=0, atol=1e-7
    )


def test_van_der_pol_limit_cycle():
    simulator = ODE(VanDerPol(), 0.01)
    coefficients = simulator.prepare(simulator.parameters, {})
    state, crossings, largest = roll(simulator, torch.tensor([[0.1, 0.0]], dtype=F64), 4000), [], 0.0
    for k in range(2100):
        after = simulator.step(state, None, coefficients, None, 0.0)
        a, b = float(state[0, 0]), float(after[0, 0])
        if a < 0 <= b:
            crossings.append(simulator.dt * (k - a / (b - a)))
        largest, state = max(largest, b), after
    assert largest == pytest.approx(2.00862, abs=1e-4)
    assert (crossings[-1] - crossings[0]) / (len(crossings) - 1) == pytest.approx(6.66329, abs=1e-4)


def test_lotka_volterra_orbits_are_closed():
    system = LotkaVolterra()
    a, b, c, d = system.parameters.values()
    start = torch.tensor([[30.0, 5.0], [c / d, a / b]], dtype=F64)

    def invariant(s):
        u, v = s.unbind(-1)
        return d * u - c * torch.log(u) + b * v - a * torch.log(v)

    end = roll(ODE(system, 0.05), start, 400)
    torch.testing.assert_close(invariant(end), invariant(start), rtol=0, atol=1e-6)
    torch.testing.assert_close(end[1], start[1], rtol=0, atol=1e-10)
    assert float((end[0] - start[0]).norm()) > 1


def test_linear_systems_against_the_matrix_exponential():
    x = torch.tensor([[1.0, -0.5], [0.2, 0.3]], dtype=F64)
    u = torch.tensor([[0.4], [-1.0]], dtype=F64)
    a, b = torch.tensor(A, dtype=F64), torch.tensor(B, dtype=F64)
    whole = torch.zeros(3, 3, dtype=F64)
    whole[:2, :2], whole[:2, 2:] = a, b
    held = torch.linalg.matrix_exp(whole)
    exact = DiscreteLinear(held[:2, :2], held[:2, 2:])
    found = roll(ODE(LinearSystem(A, B), 0.01), x, 100, u.expand(100, 2, 1))
    torch.testing.assert_close(found, roll(exact, x, 1, u[None]), rtol=0, atol=1e-9)


def test_scalar_regulator_has_its_published_cost():
    """x+ = x + u, cost sum (x^2 + u^2) + x_N^2 from 1, N = 5: 1.6179775280898876 with the Riccati gains."""
    simulator, x, cost = DiscreteLinear([[1.0]], [[1.0]]), torch.ones(1, 1, dtype=F64), 0.0
    values = [1.0]
    for _ in range(5):
        values.append(1 + values[-1] / (1 + values[-1]))
    for k in range(5):
        p = values[4 - k]
        u = -p / (1 + p) * x
        cost += float(x**2 + u**2)
        x = simulator.step(x, u, simulator.parameters, None, float(k))
    assert cost + float(x**2) == pytest.approx(1.6179775280898876, abs=1e-14)


@pytest.mark.parametrize(
    ("pattern", "call"),
    [
        ("mass must be positive", lambda: Pendulum(mass=0.0)),
        ("damping must be zero or positive", lambda: Pendulum(damping=-1.0)),
        ("half_length must be positive", lambda: CartPole(half_length=-0.5)),
        ("nonlinearity must be", lambda: VanDerPol(nonlinearity=-1.0)),
        ("predation must be", lambda: LotkaVolterra(predation=-0.1)),
        (r"A must be \(n, n\) and B \(n, m\)", lambda: LinearSystem([[1.0, 0.0]], [[1.0]])),
        ("A must be a matrix of numbers", lambda: DiscreteLinear([[1.0, 0.0], [1.0]], [[1.0]])),
        ("B must be a matrix of finite numbers", lambda: DiscreteLinear([[1.0]], [[float("nan")]])),
        (
            r"is \(scenarios, 1\); found \(3, 2\)",
            lambda: DiscreteLinear([[1.0]], [[1.0]]).start(torch.zeros(3, 2), {}),
        ),
    ],
)
def test_wrong_use_is_refused_in_one_sentence(pattern, call):
    with pytest.raises(UsageError, match=pattern):
        call()
