"""Burgers' equation in the plane: Cole and Hopf, rows, orders, symmetries, derivatives."""

import itertools
import math

import pytest
import torch
from rolled import roll
from taylor import convergence_order, taylor_rates

from dpcontrol.results import UsageError
from dpcontrol.sim import ETDRK2, ETDRK4, PlaneBurgers, SpectralBurgers
from dpcontrol.sim.stability import growth

F64 = torch.float64
NU = 0.02


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def cole_hopf(shape, t, lengths=(1.0, 2.0), nu=NU):
    """``u = -2 nu grad phi / phi`` with two decaying modes on a constant: not a function of one coordinate."""
    grids = [torch.arange(n, dtype=F64) * (length / n) for n, length in zip(shape, lengths, strict=True)]
    x, y = torch.meshgrid(*grids, indexing="ij")
    a, b = (2 * math.pi / length for length in lengths)
    first, second = 0.6 * math.exp(-nu * (a * a + b * b) * t), 0.5 * math.exp(-nu * 4 * b * b * t)
    phi = 1.3 + first * torch.cos(a * x) * torch.sin(b * y) + second * torch.sin(2 * b * y)
    of_x = -first * a * torch.sin(a * x) * torch.sin(b * y)
    of_y = first * b * torch.cos(a * x) * torch.cos(b * y) + second * 2 * b * torch.cos(2 * b * y)
    return -2 * nu * torch.stack((of_x / phi, of_y / phi))[None]


def simulator(dt, shape=(48, 64), scheme=ETDRK4, **options):
    return PlaneBurgers(dt, shape, NU, (1.0, 2.0), scheme, **options)


def test_the_closed_form_of_cole_and_hopf():
    start, end = cole_hopf((48, 64), 0.0), cole_hopf((48, 64), 0.8)
    assert float((start - end).abs().max()) > 0.15
    found = roll(simulator(0.01), start, 80)
    assert float((found - end).abs().max()) < 1e-8


def test_errors_fall_faster_than_any_power_of_the_grid():
    errors = []
    for n in (16, 32, 64):
        found = roll(simulator(0.01, (n, n)), cole_hopf((n, n), 0.0), 40)
        errors.append(float((found - cole_hopf((n, n), 0.4)).abs().max()))
    rates = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert rates[1] > 1.5 * rates[0] > 6, (errors, rates)


@pytest.mark.parametrize(("scheme", "order"), [(ETDRK2, 2.0), (ETDRK4, 4.0)])
def test_order_in_time(scheme, order):
    start = cole_hopf((24, 24), 0.0) + 0.3 * simulator(1.0, (24, 24)).box.project(random(1, 2, 24, 24), 0.2)
    steps = (10, 20, 40)
    finest = roll(simulator(0.4 / 320, (24, 24)), start, 320)
    errors = [
        float((roll(simulator(0.4 / n, (24, 24), scheme), start, n) - finest).abs().max()) for n in steps
    ]
    assert convergence_order([1 / n for n in steps], errors) == pytest.approx(order, abs=0.35)


def test_rows_are_the_equation_of_one_coordinate():
    row = torch.sin(2 * math.pi * torch.arange(32, dtype=F64) / 32)[None]
    wanted = roll(SpectralBurgers(0.01, 32, viscosity=NU), row, 30)
    for axis in (0, 1):
        state = torch.zeros(1, 2, 32, 32, dtype=F64)
        state[:, axis] = row[..., None].expand(1, 32, 32) if axis == 0 else row[:, None].expand(1, 32, 32)
        found = roll(PlaneBurgers(0.01, (32, 32), NU), state, 30)
        one = found[:, axis, :, 0] if axis == 0 else found[:, axis, 0]
        torch.testing.assert_close(one, wanted, rtol=0, atol=1e-12)
        assert float(found[:, 1 - axis].abs().max()) < 1e-13


def test_axes_are_alike_and_a_moving_frame_changes_nothing_else():
    state = simulator(1.0, (16, 16)).box.project(0.3 * random(1, 2, 16, 16), 0.5)
    square = PlaneBurgers(0.01, (16, 16), NU)
    found = roll(square, state, 20)
    turned = roll(square, state.mT.flip(1), 20)
    torch.testing.assert_close(turned, found.mT.flip(1), rtol=0, atol=1e-13)
    # Galilei: a frame that moves by one point in 20 steps
    drift = torch.tensor([1 / 16 / 0.2, 0.0], dtype=F64).reshape(1, 2, 1, 1)
    moved = roll(PlaneBurgers(0.01, (16, 16), NU), state + drift, 20) - drift
    torch.testing.assert_close(moved, found.roll(1, 2), rtol=0, atol=2e-4)
    finer = roll(PlaneBurgers(0.005, (16, 16), NU), state + drift, 40) - drift
    exact = roll(PlaneBurgers(0.005, (16, 16), NU), state, 40).roll(1, 2)
    assert float((finer - exact).abs().max()) < float((moved - found.roll(1, 2)).abs().max()) / 8


def test_a_flow_without_vorticity_keeps_none_and_a_held_force_adds_its_mean():
    box = simulator(1.0).box
    kx, ky = box.wavenumbers(odd=True)
    found = roll(simulator(0.01), cole_hopf((48, 64), 0.0), 40)
    spectrum = box.forward(found)
    vorticity = box.inverse(1j * (kx * spectrum[:, 1] - ky * spectrum[:, 0]))
    assert float(vorticity.abs().max()) < 1e-9
    force = torch.full((5, 1, 2, 48, 64), 0.3, dtype=F64)
    pushed = roll(simulator(0.01), torch.zeros(1, 2, 48, 64, dtype=F64), 5, force)
    torch.testing.assert_close(pushed, torch.full_like(pushed, 0.015))


def test_taylor_in_state_control_and_viscosity():
    small = PlaneBurgers(0.05, (8, 6), 0.05)
    point = {
        "state": random(2, 2, 8, 6),
        "control": random(4, 2, 2, 8, 6, seed=1),
        "viscosity": torch.tensor([0.05, 0.08], dtype=F64),
    }

    def loss(z):
        return roll(small, z["state"], 4, z["control"], viscosity=z["viscosity"]).pow(4).sum()

    for name in point:
        rates = taylor_rates(
            lambda value, name=name: loss({**point, name: value}),
            point[name],
            0.3 * point[name],
            largest=0.02,
        )
        assert min(rates) > 1.9 and max(rates) < 2.1, (name, rates)


def test_second_derivatives_and_scenarios_on_their_own():
    small = PlaneBurgers(0.05, (6, 4), 0.05, scheme=ETDRK2)

    def step(state, control, viscosity):
        return small.step(state, control, small.prepare({"viscosity": viscosity}, {}), None, 0.0)

    inputs = tuple(
        v.requires_grad_()
        for v in (random(1, 2, 6, 4), random(1, 2, 6, 4, seed=1), torch.tensor(0.05, dtype=F64))
    )
    assert torch.autograd.gradcheck(step, inputs, check_forward_ad=True, fast_mode=True)
    assert torch.autograd.gradgradcheck(step, inputs, check_fwd_over_rev=True, fast_mode=True)
    nu, state = torch.tensor([0.04, 0.05, 0.1], dtype=F64), 0.3 * random(3, 2, 6, 4)
    together = roll(small, state, 5, viscosity=nu)
    for s in range(3):
        torch.testing.assert_close(
            roll(small, state[s : s + 1], 5, viscosity=nu[s]), together[s : s + 1], rtol=0, atol=1e-12
        )
    single = roll(small, state.float(), 5, viscosity=nu.float())
    torch.testing.assert_close(single.double(), together, rtol=0, atol=1e-4)


# -- how long a step may be


def test_the_growth_of_carried_modes_is_that_of_the_classical_schemes_without_diffusion():
    z = torch.linspace(0, 4, 41, dtype=F64)[:, None]
    zero = torch.zeros(1, 1, dtype=F64)
    runge_kutta = (1 - 1j * z - z**2 / 2 + 1j * z**3 / 6 + z**4 / 24).abs()[:, 0]
    heun = (1 - 1j * z - z**2 / 2).abs()[:, 0]
    torch.testing.assert_close(growth(ETDRK4, 1.0, zero, z), runge_kutta)
    torch.testing.assert_close(growth(ETDRK2, 1.0, zero, z), heun)


@pytest.mark.parametrize("scheme", [ETDRK2, ETDRK4])
def test_the_step_that_is_refused_is_one_that_blows_up_soon(scheme):
    weak = {"viscosity": 1e-5, "scheme": scheme}
    uniform = 2.0 + 1e-6 * random(1, 2, 24, 24)
    with pytest.raises(UsageError, match="whose speed reaches 2.83: .* allows steps up to") as refusal:
        roll(PlaneBurgers(1.0, (24, 24), **weak), uniform, 1)
    limit = float(str(refusal.value).split("up to ")[1].split(";")[0])

    def disturbed(dt):
        simulator_ = PlaneBurgers(dt, (24, 24), **weak)
        coefficients = simulator_.prepare({"viscosity": torch.tensor(1e-5, dtype=F64)}, {})
        state = simulator_.start(uniform, {})
        for _ in range(60):
            state = simulator_.step(state, None, coefficients, None, 0.0)
        return float((state - state.mean((-2, -1), keepdim=True)).abs().max())

    assert disturbed(0.95 * limit) < 1e-4 and not disturbed(1.4 * limit) < 1e-3


@pytest.mark.parametrize(
    ("pattern", "call"),
    [
        ("a shape of two numbers", lambda: PlaneBurgers(0.1, (8,), lengths=(1.0,))),
        ("viscosity must be zero or positive", lambda: PlaneBurgers(0.1, viscosity=-1.0)),
        ("fraction of modes", lambda: PlaneBurgers(0.1, dealiasing=2.0)),
        (r"\(scenarios, 2, 8, 8\); found", lambda: roll(PlaneBurgers(0.1, (8, 8)), torch.zeros(1, 8, 8), 1)),
        (
            "acts at every point",
            lambda: roll(PlaneBurgers(0.1, (8, 8)), torch.zeros(1, 2, 8, 8), 1, torch.zeros(1, 1, 8, 8)),
        ),
    ],
)
def test_wrong_use_is_refused_in_one_sentence(pattern, call):
    with pytest.raises(UsageError, match=pattern):
        call()
