"""Schroedinger's equation: order, norm, the free packet, trapped states, a soliton, derivatives."""

import math

import pytest
import torch
from rolled import roll
from taylor import convergence_order, taylor_rates

from dpcontrol.results import UsageError
from dpcontrol.sim import Schroedinger
from dpcontrol.sim.schroedinger import as_complex, as_real, eigenstates, grid

F64 = torch.float64


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def packet(x, t, width=1.0, momentum=1.5, mass=1.0):
    """The free Gaussian packet from ``(pi width^2)^(-1/4) exp(-x^2 / 2 width^2 + i k x)``."""
    spread = width**2 * (1 + 1j * t / (mass * width**2))
    place = x - momentum * t / mass
    factor = (math.pi * width**2) ** -0.25 * width / spread**0.5
    phase = 1j * (momentum * x - momentum**2 * t / (2 * mass))
    return factor * torch.exp(-(place**2) / (2 * spread) + phase)


def norm(state, length):
    return state.square().sum((1, 2)) * length / state.shape[1]


def trap(dt=0.02, order=2, interaction=None, cells=32, length=12.0):
    x = grid(cells, length)
    return Schroedinger(
        dt, cells, length, potential=0.5 * x**2, dipoles=x[None], interaction=interaction, order=order
    )


@pytest.mark.parametrize("mass", [1.0, 2.0])
def test_the_free_packet_spreads_as_it_should_in_one_step_or_many(mass):
    x = grid(256, 40.0)
    for steps in (1, 10):
        simulator = Schroedinger(1.5 / steps, 256, 40.0, mass=mass)
        end = roll(simulator, as_real(packet(x, 0.0, mass=mass))[None], steps)
        wanted = packet(x, 1.5, mass=mass)[None]
        torch.testing.assert_close(as_complex(end), wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("interaction", [None, 3.0])
@pytest.mark.parametrize("order", [2, 4])
def test_order_in_time(order, interaction):
    end, counts = 1.0, (40, 56, 80, 112)
    x = grid(64, 16.0)
    start = as_real(packet(x, 0.0))[None]
    field = 0.5 * torch.ones(1, 1, dtype=F64)

    def final(count, order=order):
        simulator = trap(end / count, order, interaction, 64, 16.0)
        return roll(simulator, start, count, field.expand(count, 1, 1))

    wanted = final(1500, 4)
    errors = [float((final(count) - wanted).abs().max()) for count in counts]
    assert convergence_order([end / c for c in counts], errors) == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize("interaction", [None, -2.0])
@pytest.mark.parametrize("order", [2, 4])
def test_the_norm_is_kept_and_the_way_back_leads_to_the_start(order, interaction):
    simulator = trap(0.05, order, interaction)
    start = as_real(torch.complex(random(3, 32), random(3, 32, seed=1)))
    start = start / norm(start, 12.0).sqrt()[:, None, None]
    control = random(200, 3, 1, seed=2)
    end = roll(simulator, start, 200, control)
    torch.testing.assert_close(norm(end, 12.0), torch.ones(3, dtype=F64), rtol=0, atol=1e-12)
    mirror = torch.tensor([1.0, -1.0], dtype=F64)  # time runs backwards for the conjugate
    back = roll(simulator, end * mirror, 200, control.flip(0)) * mirror
    torch.testing.assert_close(back, start, rtol=0, atol=1e-10)


def test_trapped_states_keep_their_density_and_turn_at_their_energy():
    x = grid(64, 16.0)
    energies, states = eigenstates(0.5 * x**2, 16.0, 4)
    torch.testing.assert_close(energies, torch.arange(4, dtype=F64) + 0.5, rtol=0, atol=1e-9)
    torch.testing.assert_close(states[0], math.pi**-0.25 * torch.exp(-(x**2) / 2), rtol=0, atol=1e-9)
    simulator = trap(0.01, 4, None, 64, 16.0)
    end = as_complex(roll(simulator, as_real(states), 100))
    torch.testing.assert_close(end, states * torch.exp(-1j * energies)[:, None], rtol=0, atol=1e-7)


def test_a_uniform_field_moves_the_mean_as_it_moves_a_classical_particle():
    x = grid(64, 16.0)
    _, states = eigenstates(0.5 * x**2, 16.0, 1)
    simulator = trap(0.005, 4, None, 64, 16.0)
    end = as_complex(roll(simulator, as_real(states), 400, torch.full((400, 1, 1), -0.8, dtype=F64)))
    mean = (x * end.abs().square()).sum() * 0.25
    assert float(mean) == pytest.approx(0.8 * (1 - math.cos(2.0)), abs=1e-8)


def test_a_soliton_travels_unchanged():
    """g = -1: psi = a sech(a (x - v t)) exp(i v x + i (a^2 - v^2) t / 2)."""
    a, v, end = 1.2, 0.8, 2.0
    x = grid(192, 48.0)

    def exact(t):
        phase = v * x + (a**2 - v**2) * t / 2
        return a / torch.cosh(a * (x - v * t)) * torch.exp(1j * phase)

    simulator = Schroedinger(0.005, 192, 48.0, interaction=-1.0, order=4)
    found = as_complex(roll(simulator, as_real(exact(0.0))[None], 400))[0]
    torch.testing.assert_close(found, exact(end), rtol=0, atol=1e-7)


@pytest.mark.parametrize("order", [2, 4])
def test_taylor_in_state_control_and_parameters(order):
    simulator = trap(0.05, order, 1.5)
    point = {
        "state": random(2, 32, 2),
        "control": random(5, 2, 1, seed=1),
        "mass": torch.tensor([0.9, 1.1], dtype=F64),
        "potential_strength": torch.tensor([1.0, 1.3], dtype=F64),
        "interaction": torch.tensor(1.5, dtype=F64),
    }
    weight = random(2, 32, 2, seed=3)

    def loss(z):
        values = {name: z[name] for name in simulator.parameters}
        return (weight * roll(simulator, z["state"], 5, z["control"], **values)).sum().square()

    for name in point:

        def along(value, name=name):
            return loss({**point, name: value})

        rates = taylor_rates(along, point[name], largest=2e-3)
        assert min(rates) > 1.9 and max(rates) < 2.1, (name, rates)


def test_second_derivatives_and_forward_mode():
    x = grid(6, 4.0)
    simulator = Schroedinger(0.1, 6, 4.0, potential=0.5 * x**2, dipoles=x[None], interaction=1.0)

    def step(state, control, mass, strength, interaction):
        values = {"mass": mass, "potential_strength": strength, "interaction": interaction}
        return simulator.step(state, control, simulator.prepare(values, {}), None, 0.0)

    numbers = [torch.tensor(v, dtype=F64) for v in (1.0, 1.2, 0.7)]
    inputs = tuple(v.requires_grad_() for v in (random(2, 6, 2), random(2, 1, seed=1), *numbers))
    assert torch.autograd.gradcheck(step, inputs, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(step, inputs, check_fwd_over_rev=True)


def test_scenarios_do_not_see_each_other_and_single_precision_is_close():
    simulator = trap(0.02, interaction=1.0)
    state, control = as_real(packet(grid(32, 12.0), 0.0)).expand(4, 32, 2), random(6, 4, 1)
    strength = torch.linspace(0.8, 1.2, 4, dtype=F64)
    together = roll(simulator, state, 6, control, potential_strength=strength)
    alone = [
        roll(simulator, state[s : s + 1], 6, control[:, s : s + 1], potential_strength=strength[s])
        for s in range(4)
    ]
    torch.testing.assert_close(torch.cat(alone), together, rtol=0, atol=1e-14)
    single = roll(simulator, state.float(), 6, control.float(), potential_strength=strength.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), together, rtol=0, atol=1e-5)


def test_a_potential_at_every_point_is_a_control_as_well():
    x = grid(32, 12.0)
    free, held = Schroedinger(0.02, 32, 12.0), trap()
    state = as_real(packet(x, 0.0))[None]
    by_hand = roll(free, state, 5, (0.5 * x**2 + 0.3 * x).expand(5, 1, 32))
    torch.testing.assert_close(by_hand, roll(held, state, 5, torch.full((5, 1, 1), 0.3, dtype=F64)))


@pytest.mark.parametrize(
    ("pattern", "call"),
    [
        ("mass must be positive", lambda: Schroedinger(0.1, mass=0.0)),
        ("order 2 or 4; found 3", lambda: Schroedinger(0.1, order=3)),
        ("potential holds a number for each point", lambda: Schroedinger(0.1, potential=torch.zeros(3))),
        ("dipoles hold a row of 64 numbers", lambda: Schroedinger(0.1, dipoles=torch.zeros(64))),
        (r"\(scenarios, 64, 2\)", lambda: roll(Schroedinger(0.1), torch.zeros(1, 64), 1)),
        (
            r"here \(1, 1\); found \(1, 2\)",
            lambda: roll(trap(), torch.zeros(1, 32, 2), 1, torch.zeros(1, 1, 2)),
        ),
    ],
)
def test_wrong_use_is_refused_in_one_sentence(pattern, call):
    with pytest.raises(UsageError, match=pattern):
        call()
