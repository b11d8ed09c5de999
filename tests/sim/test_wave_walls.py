"""Waves between walls: modes, echoes, energy, reversal, orders, derivatives."""

import math

import pytest
import torch
from rolled import roll
from taylor import convergence_order, taylor_rates

from dpcontrol.engine import rollout
from dpcontrol.results import UsageError
from dpcontrol.sim import FixedFlux, FixedValue, WalledWave, Wave, WaveInMedium

F64 = torch.float64
HELD, FREE = FixedValue(), FixedFlux()
PAIRS = [(HELD, HELD), (FREE, FREE), (HELD, FREE), (FREE, HELD), "periodic"]


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def row(n, length=1.0):
    return (torch.arange(n, dtype=F64) + 0.5) * (length / n)


def standing(sides, cells, lengths, number=2):
    """An eigenfunction of the box, and the square of its wavenumber."""
    wave, k2 = torch.ones((), dtype=F64), 0.0
    for pair, n, length in zip(sides, cells, lengths, strict=True):
        x = row(n, length)
        if pair == "periodic":
            k = 2 * math.pi * number / length
            factor = torch.cos(k * x + 0.3)
        else:
            left, right = (isinstance(side, FixedValue) for side in pair)
            k = math.pi * (number if left == right else number + 0.5) / length
            factor = torch.sin(k * x) if left else torch.cos(k * x)
        wave, k2 = wave[..., None] * factor, k2 + k * k
    return wave[None], k2


@pytest.mark.parametrize("pair", PAIRS, ids=["held", "free", "left", "right", "periodic"])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_modes_swing_at_their_frequency_whatever_the_step(pair, axes):
    cells, lengths, sides = (12, 9, 6)[:axes], (1.0, 2.0, 1.5)[:axes], (pair, *PAIRS[1:axes])
    wave, k2 = standing(sides, cells, lengths)
    simulator = WalledWave(0.9, cells, 1.3, 0.6, lengths, sides)
    found = roll(simulator, torch.stack((0.7 * wave, -0.4 * wave), 1), 3)
    root, t = math.sqrt(1.69 * k2 - 0.09), 2.7
    sine, cosine = math.sin(root * t) / root, math.cos(root * t)
    exact = math.exp(-0.3 * t) * (0.7 * cosine + (0.3 * 0.7 - 0.4) * sine)
    torch.testing.assert_close(found[:, 0], exact * wave, rtol=0, atol=1e-12)
    forced = roll(simulator, torch.zeros_like(found), 3, wave.expand(3, *wave.shape))
    rest = 1 / (1.69 * k2)
    exact = rest * (1 - math.exp(-0.3 * t) * (cosine + 0.3 * sine))
    torch.testing.assert_close(forced[:, 0], exact * wave, rtol=0, atol=1e-12)


def pulse(x, centre):
    return torch.exp(-((x - centre) ** 2) / 0.002)


@pytest.mark.parametrize(("side", "sign"), [(HELD, -1.0), (FREE, 1.0)], ids=["held", "free"])
@pytest.mark.parametrize("kind", [WalledWave, WaveInMedium])
def test_an_echo_returns_upside_down_from_a_held_end_and_as_it_was_from_a_free_one(kind, side, sign):
    x = row(128)
    slope = -(x - 0.5) / 0.001 * pulse(x, 0.5)
    right = torch.stack((pulse(x, 0.5), -slope))[None]
    found = roll(kind(0.0025, (128,), sides=((side, side),)), right, 400)[:, 0]  # once to the end and back
    torch.testing.assert_close(
        found[0], sign * pulse(x, 0.5), rtol=0, atol=1e-8 if kind is WalledWave else 0.02
    )


def test_a_box_of_half_the_periodic_one_is_its_odd_or_even_part():
    for side, sign in ((HELD, -1.0), (FREE, 1.0)):
        inner = WalledWave(0.13, (16,), 1.1, 0.2, sides=((side, side),))
        outer = Wave(0.13, (32,), 1.1, 0.2, (2.0,))
        smooth = torch.stack([standing(((side, side),), (16,), (1.0,), m)[0][0] for m in range(1, 6)])
        state = (random(2, 5) @ smooth)[None]
        mirrored = torch.cat((state, sign * state.flip(-1)), -1)
        torch.testing.assert_close(
            roll(inner, state, 4), roll(outer, mirrored, 4)[..., :16], rtol=0, atol=1e-12
        )


def test_energy_is_kept_to_rounding_in_a_uniform_medium():
    for axes in (1, 2, 3):
        cells, sides = (12, 9, 6)[:axes], (PAIRS[2], PAIRS[1], PAIRS[0])[:axes]
        simulator = WalledWave(0.2, cells, 1.2, sides=sides)
        state = random(2, 2, *cells)
        energies = torch.stack([simulator.energy(s) for s in rollout(simulator, state, length=30).states])
        torch.testing.assert_close(energies, energies[:1].expand_as(energies), rtol=1e-11, atol=0)
        assert bool((simulator.energy(roll(simulator, state, 50, damping=1.0)) < 1e-2 * energies[0]).all())


# -- media


def medium(cells):
    x = row(cells)
    return 1 + 0.3 * torch.sin(2 * math.pi * x)[:, None] * torch.cos(math.pi * x)


def hump(cells):
    x = row(cells)
    field = torch.exp(-((x[:, None] - 0.4) ** 2 + (x - 0.55) ** 2) / 0.02)
    return torch.stack((field, torch.zeros_like(field)))[None]


def test_second_order_in_time_against_the_exact_uniform_medium():
    exact = roll(WalledWave(0.5, (24, 24), 1.1), hump(24), 1)
    steps = (40, 80, 160)
    errors = [
        float((roll(WaveInMedium(0.5 / n, (24, 24), 1.1), hump(24), n) - exact)[:, 0].abs().max())
        for n in steps
    ]
    assert convergence_order([1 / n for n in steps], errors) == pytest.approx(2.0, abs=0.1)


def test_orders_in_a_smooth_medium_in_time_and_space():
    finest = roll(WaveInMedium(0.4 / 640, (32, 32), medium(32)), hump(32), 640)
    steps = (40, 80, 160)
    errors = [
        float((roll(WaveInMedium(0.4 / n, (32, 32), medium(32)), hump(32), n) - finest)[:, 0].abs().max())
        for n in steps
    ]
    assert convergence_order([1 / n for n in steps], errors) == pytest.approx(2.0, abs=0.15)
    # in space: three times as many cells have every third centre in common
    coarse, fine = (roll(WaveInMedium(0.005, (n, n), medium(n)), hump(n), 60)[:, 0] for n in (20, 60))
    assert float((coarse - fine[:, 1::3, 1::3]).abs().max()) < 2e-4


def test_without_losses_time_can_be_reversed_and_the_energy_stays():
    simulator = WaveInMedium(0.01, (24, 24), medium(24), sides=(PAIRS[0], PAIRS[1]))
    states = rollout(simulator, hump(24), length=200).states
    energies = torch.stack([simulator.energy(s) for s in states])[:, 0]
    assert float((energies / energies[0] - 1).abs().max()) < 0.01
    backwards = states[-1] * torch.tensor([1.0, -1.0], dtype=F64).reshape(2, 1, 1)
    torch.testing.assert_close(roll(simulator, backwards, 200)[:, 0], states[0, :, 0], rtol=0, atol=1e-11)


def test_a_layer_of_damping_swallows_what_would_be_reflected():
    x = row(128)
    layer = 60 * ((x - 0.75).clamp(min=0) / 0.25).square()
    # without a mean: a layer lets nothing pass, but the slowest part of a push on a string creeps out of it again
    s = (x - 0.4) / math.sqrt(0.001)
    right = torch.stack((s * pulse(x, 0.4), (s * s - 1) / math.sqrt(0.001) * pulse(x, 0.4)))[None]
    simulator = WaveInMedium(0.004, (128,), damping=layer, sides=((FREE, FREE),))
    after = roll(simulator, right, 250)
    assert float(simulator.energy(after)) < 5e-3 * float(simulator.energy(right))
    assert float(roll(simulator, right, 250, damping=torch.zeros(128, dtype=F64))[:, 0].abs().max()) > 0.5


# -- calculus


def cases():
    exact = WalledWave(0.1, (4, 6), 0.8, 0.4, sides=(PAIRS[2], PAIRS[1]))
    stepped = WaveInMedium(0.03, (4, 6), 0.8, 0.4, sides=(PAIRS[2], PAIRS[1]))
    return [pytest.param(exact, id="exact"), pytest.param(stepped, id="medium")]


@pytest.mark.parametrize("simulator", cases())
def test_taylor_in_state_control_and_parameters(simulator):
    shape = (2,) if isinstance(simulator, WalledWave) else (2, 4, 6)
    values = {
        "speed": 0.8 + 0.1 * random(*shape, seed=2).sin(),
        "damping": 0.4 + 0.1 * random(*shape, seed=3).sin(),
    }
    point = {"state": random(2, 2, 4, 6), "control": random(4, 2, 4, 6, seed=1), **values}

    def loss(z):
        return roll(simulator, z["state"], 4, z["control"], **{n: z[n] for n in values}).pow(4).sum()

    for name in point:
        rates = taylor_rates(
            lambda value, name=name: loss({**point, name: value}),
            point[name],
            0.3 * point[name],
            largest=0.02,
        )
        assert min(rates) > 1.9 and max(rates) < 2.1, (name, rates)


@pytest.mark.parametrize("simulator", cases())
def test_second_derivatives_and_scenarios_on_their_own(simulator):
    def step(state, control, speed, damping):
        coefficients = simulator.prepare({"speed": speed, "damping": damping}, {})
        return simulator.step(state, control, coefficients, None, 0.0)

    numbers = [torch.tensor(v, dtype=F64) for v in (0.8, 0.4)]
    inputs = tuple(v.requires_grad_() for v in (random(1, 2, 4, 6), random(1, 4, 6, seed=1), *numbers))
    assert torch.autograd.gradcheck(step, inputs, check_forward_ad=True, fast_mode=True)
    assert torch.autograd.gradgradcheck(step, inputs, check_fwd_over_rev=True, fast_mode=True)
    speed, state = torch.tensor([0.7, 0.8, 1.0], dtype=F64), random(3, 2, 4, 6)
    together = roll(simulator, state, 5, speed=speed)
    for s in range(3):
        alone = roll(simulator, state[s : s + 1], 5, speed=speed[s])
        torch.testing.assert_close(alone, together[s : s + 1], rtol=0, atol=1e-12)
    single = roll(simulator, state.float(), 5, speed=speed.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), together, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("pattern", "call"),
    [
        ("held at zero or free", lambda: WalledWave(0.1, sides=((FixedValue(1.0), HELD),))),
        ("held at zero or free", lambda: WaveInMedium(0.1, sides=((FixedFlux(1.0), HELD),))),
        ("speed must be positive", lambda: WalledWave(0.1, speed=0.0)),
        ("divide it evenly", lambda: WaveInMedium(0.1, (8, 8), torch.ones(3, 3))),
        (
            r"unstable for a speed of 2 .* below 0.00497",
            lambda: roll(WaveInMedium(0.01, speed=2.0), torch.zeros(1, 2, 64), 1),
        ),
        (r"\(scenarios, 2, 64\); found", lambda: roll(WalledWave(0.1), torch.zeros(1, 64), 1)),
        (
            r"force at every point, \(1, 64\); found \(1, 2, 64\)",
            lambda: roll(WalledWave(0.1), torch.zeros(1, 2, 64), 1, torch.zeros(1, 1, 2, 64)),
        ),
    ],
)
def test_wrong_use_is_refused_in_one_sentence(pattern, call):
    with pytest.raises(UsageError, match=pattern):
        call()
