"""Heat between walls: modes, slabs, streams, orders, totals, derivatives."""

import math

import pytest
import torch
from rolled import roll
from taylor import convergence_order, taylor_rates

from dpcontrol.results import UsageError
from dpcontrol.sim import ETDRK2, ETDRK4, FixedFlux, FixedValue, WalledHeat

F64 = torch.float64
HELD, INSULATED = FixedValue(), FixedFlux()
PAIRS = [(HELD, HELD), (INSULATED, INSULATED), (HELD, INSULATED), (INSULATED, HELD), "periodic"]


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def row(n, length=1.0):
    return (torch.arange(n, dtype=F64) + 0.5) * (length / n)


def mode(pair, x, length, number=1):
    """An eigenfunction that meets the sides, and its wavenumber."""
    if pair == "periodic":
        k = 2 * math.pi * number / length
        return torch.cos(k * x + 0.3), k
    left, right = (isinstance(side, FixedValue) for side in pair)
    k = math.pi * (number if left == right else number + 0.5) / length
    return (torch.sin(k * x) if left else torch.cos(k * x)), k


@pytest.mark.parametrize("pair", PAIRS, ids=["held", "insulated", "left", "right", "periodic"])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_modes_decay_at_their_rate_whatever_the_step(pair, axes):
    cells, lengths = (12, 9, 6)[:axes], (1.0, 2.0, 1.5)[:axes]
    simulator = WalledHeat(0.7, cells, 0.02, lengths=lengths, sides=(pair, *PAIRS[1:axes]))
    wave, rate = torch.ones((), dtype=F64), 0.0
    for n, length, sides in zip(cells, lengths, (pair, *PAIRS[1:axes]), strict=True):
        factor, k = mode(sides, row(n, length), length, 2)
        wave, rate = wave[..., None] * factor, rate + (2 * n / length * math.sin(k * length / n / 2)) ** 2
    wave, rate = wave[None], 0.02 * rate
    torch.testing.assert_close(roll(simulator, wave, 2), math.exp(-1.4 * rate) * wave, rtol=0, atol=1e-13)
    heated = roll(simulator, 0 * wave, 2, wave.expand(2, *wave.shape))
    torch.testing.assert_close(heated, wave * (1 - math.exp(-1.4 * rate)) / rate, rtol=0, atol=1e-12)


def test_second_order_for_the_eigenmodes_of_the_equation():
    sizes, errors = [], []
    for n in (16, 32, 64):
        x, y = torch.meshgrid(row(n), row(n), indexing="ij")
        wave = (torch.sin(1.5 * math.pi * x) * torch.cos(2 * math.pi * y))[None]
        simulator = WalledHeat(0.5, (n, n), 0.02, sides=(PAIRS[2], PAIRS[1]))
        exact = math.exp(-0.02 * 6.25 * math.pi**2 * 0.5) * wave
        sizes.append(1 / n)
        errors.append(float((roll(simulator, wave, 1) - exact).abs().max()))
    assert convergence_order(sizes, errors) == pytest.approx(2.0, abs=0.05)


def test_a_cold_slab_with_one_hot_side_fills_up_by_error_functions():
    """u = 1 at x = 0, early: u = erfc(x / sqrt(4 kappa t)); second order."""
    sizes, errors = [], []
    for n in (32, 64, 128):
        simulator = WalledHeat(0.5, (n,), 0.01, sides=((FixedValue(1.0), INSULATED),))
        found = roll(simulator, torch.zeros(1, n, dtype=F64), 2)
        exact = torch.erfc(row(n) / math.sqrt(4 * 0.01))
        exact = exact + torch.erfc((2 - row(n)) / math.sqrt(4 * 0.01))
        sizes.append(1 / n)
        errors.append(float((found - exact).abs().max()))
    assert convergence_order(sizes, errors) == pytest.approx(2.0, abs=0.1)


def test_long_after_the_profile_between_sides_is_the_one_at_rest():
    sides = ((FixedValue(1.0), FixedFlux(2.0)),)
    found = roll(WalledHeat(1e4, (16,), 0.01, sides=sides), random(2, 16), 2)
    torch.testing.assert_close(found, (1 + 2 * row(16)).expand(2, 16), rtol=0, atol=1e-10)
    box = (FixedValue(1.0), FixedValue(1.0))
    found = roll(WalledHeat(1e4, (6, 5), 0.01, sides=(box, box)), random(2, 6, 5), 1)
    torch.testing.assert_close(found, torch.ones(2, 6, 5, dtype=F64), rtol=0, atol=1e-10)


def test_the_total_changes_by_sources_and_fluxes_and_there_are_no_new_extrema():
    sides = ((FixedFlux(0.5), FixedFlux(-0.2)), (INSULATED, INSULATED))
    simulator = WalledHeat(0.3, (8, 9), 0.02, sides=sides, lengths=(2.0, 1.0))
    u, source = random(2, 8, 9), random(2, 8, 9, seed=1)
    after = roll(simulator, u, 3, source.expand(3, 2, 8, 9))
    gained = 0.9 * source.mean((1, 2)) + 0.9 * 0.02 * 0.3 / 2.0
    torch.testing.assert_close(after.mean((1, 2)), u.mean((1, 2)) + gained, rtol=0, atol=1e-13)
    long = WalledHeat(0.9, (8, 9), 0.02, sides=sides, lengths=(2.0, 1.0))
    torch.testing.assert_close(roll(long, u, 1, source[None]), after, rtol=0, atol=1e-12)
    peaks = torch.zeros(1, 8, 9, dtype=F64)
    peaks[0, 3, 4] = 1
    for dt in (1e-3, 0.1, 10.0):
        spread = roll(WalledHeat(dt, (8, 9), 0.02, sides=PAIRS[:2]), peaks, 1)
        assert float(spread.min()) > -1e-14 and float(spread.max()) <= 1


# -- with a stream


def channel(n, dt, scheme=ETDRK4, velocity=0.5, kappa=0.05):
    return WalledHeat(
        dt, (n,), kappa, (velocity,), sides=((FixedValue(1.0), FixedValue(0.0)),), scheme=scheme
    )


def test_a_stream_settles_on_the_exponential_layer():
    """c u' = kappa u'': u = (e^P - e^{P x}) / (e^P - 1), P = c / kappa; second order."""
    sizes, errors = [], []
    for n in (16, 32, 64):
        found = roll(channel(n, 0.02), torch.zeros(1, n, dtype=F64), 1000)
        exact = (math.exp(10) - torch.exp(10 * row(n))) / (math.exp(10) - 1)
        sizes.append(1 / n)
        errors.append(float((found - exact).abs().max()))
    assert convergence_order(sizes, errors) == pytest.approx(2.0, abs=0.15)


@pytest.mark.parametrize(("scheme", "order"), [(ETDRK2, 2.0), (ETDRK4, 4.0)])
def test_order_in_time_with_a_stream(scheme, order):
    start = torch.sin(math.pi * row(24)).square()[None]
    steps = (40, 80, 160)
    exact = roll(channel(24, 0.4 / 1600, kappa=0.01), start, 1600)
    errors = [
        float((roll(channel(24, 0.4 / n, scheme, kappa=0.01), start, n) - exact).abs().max()) for n in steps
    ]
    assert convergence_order([1 / n for n in steps], errors) == pytest.approx(order, abs=0.25)


def test_a_stream_in_a_periodic_tube_carries_a_wave_and_keeps_the_total():
    """Periodic along the stream, insulated across: the wave of the periodic box, to second order."""
    sizes, errors = [], []
    for n in (16, 32, 64):
        x = row(n)[:, None].expand(n, 6)
        simulator = WalledHeat(0.01, (n, 6), 0.01, (0.7, 0.0), sides=("periodic", PAIRS[1]))
        wave = torch.cos(2 * math.pi * x)[None]
        found = roll(simulator, wave, 50)
        exact = math.exp(-0.01 * 4 * math.pi**2 * 0.5) * torch.cos(2 * math.pi * (x - 0.35))
        sizes.append(1 / n)
        errors.append(float((found - exact).abs().max()))
        assert float(found.sum().abs()) < 1e-11
    assert convergence_order(sizes, errors) == pytest.approx(2.0, abs=0.1)


# -- calculus


def cases():
    plain = WalledHeat(0.1, (4, 6), 0.01, sides=((FixedValue(0.3), FixedFlux(0.5)), PAIRS[3]))
    stream = WalledHeat(0.1, (4, 6), 0.01, (0.3, -0.2), sides=((FixedValue(0.3), FixedFlux(0.5)), PAIRS[3]))
    return [pytest.param(plain, id="plain"), pytest.param(stream, id="stream")]


@pytest.mark.parametrize("simulator", cases())
def test_taylor_in_state_control_and_parameters(simulator):
    values = {
        name: float(value) * torch.tensor([1.0, 1.2], dtype=F64)
        for name, value in simulator.parameters.items()
    }
    point = {"state": random(2, 4, 6), "control": random(4, 2, 4, 6, seed=1), **values}

    def loss(z):
        return roll(simulator, z["state"], 4, z["control"], **{n: z[n] for n in values}).pow(4).sum()

    for name in point:
        direction = 0.5 * point[name] if name in values else None
        rates = taylor_rates(
            lambda value, name=name: loss({**point, name: value}), point[name], direction, largest=0.01
        )
        assert min(rates) > 1.9 and max(rates) < 2.1, (name, rates)


@pytest.mark.parametrize("simulator", cases())
def test_second_derivatives_and_scenarios_on_their_own(simulator):
    names = list(simulator.parameters)

    def step(state, control, *values):
        coefficients = simulator.prepare(dict(zip(names, values, strict=True)), {})
        return simulator.step(state, control, coefficients, None, 0.0)

    numbers = [torch.tensor(float(v), dtype=F64) for v in simulator.parameters.values()]
    inputs = tuple(v.requires_grad_() for v in (random(1, 4, 6), random(1, 4, 6, seed=1), *numbers))
    assert torch.autograd.gradcheck(step, inputs, check_forward_ad=True, fast_mode=True)
    assert torch.autograd.gradgradcheck(step, inputs, check_fwd_over_rev=True, fast_mode=True)
    kappa = torch.tensor([0.008, 0.01, 0.02], dtype=F64)
    state = random(3, 4, 6)
    together = roll(simulator, state, 5, diffusivity=kappa)
    for s in range(3):
        alone = roll(simulator, state[s : s + 1], 5, diffusivity=kappa[s])
        torch.testing.assert_close(alone, together[s : s + 1], rtol=0, atol=1e-12)
    single = roll(simulator, state.float(), 5, diffusivity=kappa.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), together, rtol=0, atol=3e-5)


@pytest.mark.parametrize(
    ("pattern", "call"),
    [
        ("diffusivity must be positive", lambda: WalledHeat(0.1, diffusivity=0.0)),
        ("one to three whole numbers", lambda: WalledHeat(0.1, cells=(1,))),
        ("a pair of FixedValue", lambda: WalledHeat(0.1, sides=("open",))),
        ("one entry for each of the 1 axes", lambda: WalledHeat(0.1, lengths=(1.0, 1.0))),
        (r"tuple of 1 number\(s\)", lambda: WalledHeat(0.1, velocity=(1.0, 2.0))),
        (r"\(scenarios, 64\); found", lambda: roll(WalledHeat(0.1), torch.zeros(1, 32), 1)),
        (
            "passes 6.4 cells in a step of 0.1",
            lambda: roll(WalledHeat(0.1, velocity=(1.0,)), torch.zeros(1, 64), 1),
        ),
    ],
)
def test_wrong_use_is_refused_in_one_sentence(pattern, call):
    with pytest.raises(UsageError, match=pattern):
        call()
