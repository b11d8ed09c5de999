"""The linear equations that are stepped exactly: eigenmodes, closed forms, invariants, derivatives."""

import cmath
import math

import pytest
import torch
from rolled import roll
from taylor import taylor_rates

from dpcontrol.engine import rollout
from dpcontrol.results import UsageError
from dpcontrol.sim import AdvectionDiffusion, Wave

F64 = torch.float64
SHAPES = [(12,), (8, 9), (6, 4, 5)]


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def mode(box, numbers):
    """``cos(k . x + 0.3)`` and ``k``."""
    k = [2 * math.pi * n / length for n, length in zip(numbers, box.lengths, strict=True)]
    phase = sum(ki * xi for ki, xi in zip(k, box.grid(), strict=True))
    return torch.cos(phase + 0.3)[None], k, phase + 0.3


# -- heat


@pytest.mark.parametrize("shape", SHAPES, ids=len)
def test_heat_modes_decay_travel_and_answer_to_a_held_source(shape):
    lengths, numbers = (1.0, 2.0, 1.5)[: len(shape)], (2, 1, -1)[: len(shape)]
    velocity = (0.3, -0.2, 0.5)[: len(shape)]
    simulator = AdvectionDiffusion(0.7, shape, 0.02, velocity, lengths)
    wave, k, phase = mode(simulator.box, numbers)
    rate = 0.02 * sum(ki**2 for ki in k)
    drift = sum(ki * ci for ki, ci in zip(k, velocity, strict=True))
    wanted = math.exp(-rate * 1.4) * torch.cos(phase - drift * 1.4)[None]
    torch.testing.assert_close(roll(simulator, wave, 2), wanted, rtol=0, atol=1e-13)
    still = AdvectionDiffusion(0.7, shape, 0.02, lengths=lengths)
    heated = roll(still, 0 * wave, 2, wave.expand(2, *wave.shape))
    torch.testing.assert_close(heated, wave * (1 - math.exp(-rate * 1.4)) / rate, rtol=0, atol=1e-13)
    level = roll(still, 0 * wave + 2, 2, torch.full((2, *wave.shape), 0.5, dtype=F64))
    torch.testing.assert_close(level, 0 * wave + 2.7, rtol=0, atol=1e-13)


def test_a_point_of_heat_spreads_as_a_gaussian():
    (x,) = AdvectionDiffusion(1.0, (128,)).box.grid()

    def exact(t, kappa=0.01):
        images = x[:, None] - torch.arange(-8, 9, dtype=F64) - 0.5
        return (torch.exp(-(images**2) / (4 * kappa * t)).sum(1) / math.sqrt(4 * math.pi * kappa * t))[None]

    found = roll(AdvectionDiffusion(0.05, (128,), 0.01), exact(0.1), 8)
    torch.testing.assert_close(found, exact(0.5), rtol=0, atol=1e-12)


def test_the_total_of_heat_changes_by_the_sources_and_one_step_equals_many():
    simulator = AdvectionDiffusion(0.3, (8, 9), 0.02, (0.4, 0.1))
    u, source = random(2, 8, 9), random(2, 8, 9, seed=1)
    after = roll(simulator, u, 3, source.expand(3, 2, 8, 9))
    total = u.sum((1, 2)) + 0.9 * source.sum((1, 2))
    torch.testing.assert_close(after.sum((1, 2)), total, rtol=0, atol=1e-11)
    long = AdvectionDiffusion(0.9, (8, 9), 0.02, (0.4, 0.1))
    torch.testing.assert_close(roll(long, u, 1, source[None]), after, rtol=0, atol=1e-12)


# -- waves


@pytest.mark.parametrize("shape", SHAPES, ids=len)
@pytest.mark.parametrize("damping", [0.0, 0.6, 300.0])
def test_wave_modes_swing_and_fade(shape, damping):
    lengths, numbers = (1.0, 2.0, 1.5)[: len(shape)], (2, 1, -1)[: len(shape)]
    simulator = Wave(0.11, shape, 1.3, damping, lengths)
    wave, k, _ = mode(simulator.box, numbers)
    frequency2 = 1.3**2 * sum(ki**2 for ki in k)
    root = complex(frequency2 - damping**2 / 4) ** 0.5
    time = 0.33

    def oscillator(q, p):
        fade = math.exp(-damping * time / 2)
        cosine, sine = cmath.cos(root * time), cmath.sin(root * time) / root
        return (fade * (q * cosine + (p + damping * q / 2) * sine)).real

    found = roll(simulator, torch.stack((0.7 * wave, -0.4 * wave), 1), 3)
    torch.testing.assert_close(found[:, 0], oscillator(0.7, -0.4) * wave, rtol=0, atol=1e-12)
    # a held force moves the place of rest to F / omega^2
    forced = roll(simulator, torch.stack((0 * wave, 0 * wave), 1), 3, wave.expand(3, *wave.shape))
    rest = 1 / frequency2
    torch.testing.assert_close(forced[:, 0], (rest + oscillator(-rest, 0.0)) * wave, rtol=0, atol=1e-12)


def test_the_mean_of_a_wave_moves_freely():
    simulator = Wave(0.5, (8,))
    state = torch.tensor([1.0, 0.3], dtype=F64).reshape(1, 2, 1).expand(1, 2, 8)
    after = roll(simulator, state, 4, torch.full((4, 1, 8), 0.2, dtype=F64))
    torch.testing.assert_close(after[0, :, 0], torch.tensor([1 + 0.6 + 0.4, 0.7], dtype=F64))


@pytest.mark.parametrize("shape", SHAPES, ids=len)
def test_wave_energy_is_kept_and_damping_takes_it(shape):
    simulator = Wave(0.2, shape, 1.2)
    state = random(2, 2, *shape)
    energies = torch.stack([simulator.energy(s) for s in rollout(simulator, state, length=50).states])
    torch.testing.assert_close(energies, energies[:1].expand_as(energies), rtol=1e-12, atol=0)
    assert bool((simulator.energy(roll(simulator, state, 50, damping=1.0)) < 1e-2 * energies[0]).all())
    wave, k, _ = mode(simulator.box, (1,) + (0,) * (len(shape) - 1))
    mean = simulator.energy(torch.stack((wave, 0 * wave), 1))
    assert float(mean) == pytest.approx(0.25 * 1.2**2 * k[0] ** 2, rel=1e-12)


def test_a_pulse_travels_once_around():
    simulator = Wave(0.05, (64,), 2.0)
    (x,) = simulator.box.grid()
    pulse = torch.exp(-((x - 0.5) ** 2) / 0.005)
    slope = -(x - 0.5) / 0.0025 * pulse
    right = torch.stack((pulse, -2.0 * slope))[None]
    states = rollout(simulator, right, length=10).states[:, 0, 0]
    torch.testing.assert_close(states[10], pulse, rtol=0, atol=1e-8)
    torch.testing.assert_close(states[5], pulse.roll(32), rtol=0, atol=1e-8)


# -- both


def cases():
    heat = AdvectionDiffusion(0.1, (4, 6), 0.01, (0.3, -0.2))
    wave = Wave(0.1, (4, 6), 0.8, 0.4)
    return [pytest.param(heat, (4, 6), id="heat"), pytest.param(wave, (2, 4, 6), id="wave")]


@pytest.mark.parametrize(("simulator", "shape"), cases())
def test_taylor_in_state_control_and_parameters(simulator, shape):
    values = {
        name: float(value) * torch.tensor([1.0, 1.2], dtype=F64)
        for name, value in simulator.parameters.items()
    }
    point = {"state": random(2, *shape), "control": random(4, 2, 4, 6, seed=1), **values}

    def loss(z):
        parameters = {name: z[name] for name in values}
        return roll(simulator, z["state"], 4, z["control"], **parameters).pow(4).sum()

    for name in point:

        def along(value, name=name):
            return loss({**point, name: value})

        direction = 0.5 * point[name] if name in values else None
        rates = taylor_rates(along, point[name], direction, largest=0.01)
        assert min(rates) > 1.9 and max(rates) < 2.1, (name, rates)


@pytest.mark.parametrize(("simulator", "shape"), cases())
def test_second_derivatives_and_forward_mode(simulator, shape):
    names = list(simulator.parameters)

    def step(state, control, *values):
        coefficients = simulator.prepare(dict(zip(names, values, strict=True)), {})
        return simulator.step(state, control, coefficients, None, 0.0)

    numbers = [torch.tensor(float(v), dtype=F64) for v in simulator.parameters.values()]
    inputs = tuple(v.requires_grad_() for v in (random(1, *shape), random(1, 4, 6, seed=1), *numbers))
    assert torch.autograd.gradcheck(step, inputs, check_forward_ad=True, fast_mode=True)
    assert torch.autograd.gradgradcheck(step, inputs, check_fwd_over_rev=True, fast_mode=True)


@pytest.mark.parametrize(("simulator", "shape"), cases())
def test_scenarios_do_not_see_each_other_and_single_precision_is_close(simulator, shape):
    state, control = random(3, *shape), random(5, 3, 4, 6, seed=1)
    values = {
        name: float(value) * torch.tensor([0.8, 1.0, 1.2], dtype=F64)
        for name, value in simulator.parameters.items()
    }
    together = roll(simulator, state, 5, control, **values)
    for s in range(3):
        own = {name: value[s] for name, value in values.items()}
        alone = roll(simulator, state[s : s + 1], 5, control[:, s : s + 1], **own)
        torch.testing.assert_close(alone, together[s : s + 1], rtol=0, atol=1e-12)
    single = roll(
        simulator, state.float(), 5, control.float(), **{name: v.float() for name, v in values.items()}
    )
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), together, rtol=0, atol=3e-5)


@pytest.mark.parametrize(
    ("pattern", "call"),
    [
        ("diffusivity must be zero or positive", lambda: AdvectionDiffusion(0.1, diffusivity=-1.0)),
        (r"tuple of 1 number\(s\)", lambda: AdvectionDiffusion(0.1, velocity=(1.0, 2.0))),
        ("one to three whole numbers", lambda: AdvectionDiffusion(0.1, shape=(8, 8, 8, 8))),
        ("needs 2 positive length", lambda: Wave(0.1, shape=(8, 8), lengths=(1.0,))),
        ("speed must be positive", lambda: Wave(0.1, speed=0.0)),
        (r"\(scenarios, 2, 64\); found", lambda: roll(Wave(0.1), torch.zeros(1, 64), 1)),
        (
            r"force at every point, \(1, 64\); found \(1, 2, 64\)",
            lambda: roll(Wave(0.1), torch.zeros(1, 2, 64), 1, torch.zeros(1, 1, 2, 64)),
        ),
    ],
)
def test_wrong_use_is_refused_in_one_sentence(pattern, call):
    with pytest.raises(UsageError, match=pattern):
        call()
