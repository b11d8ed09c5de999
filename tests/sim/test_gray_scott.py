"""Gray and Scott's model: order, the reaction alone, conservation, dealiasing, derivatives."""

import math

import pytest
import torch
from rolled import roll
from scipy.integrate import solve_ivp
from taylor import convergence_order, taylor_rates

from dpcontrol.results import UsageError
from dpcontrol.sim import ETDRK2, ETDRK4, GrayScott

F64 = torch.float64


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def patch(simulator, count=1):
    """A smooth patch of catalyst in a sea of feed, a little different in each scenario."""
    x = simulator.box.grid()
    hump = torch.ones_like(x[0])
    for axis in x:
        hump = hump * torch.exp(2 * (torch.cos(2 * math.pi * (axis / 2.5 - 0.4)) - 1))
    hump = hump * torch.linspace(0.4, 0.5, count, dtype=F64).reshape(-1, *[1] * len(x))
    return torch.stack((1 - hump, 0.7 * hump), 1)


@pytest.mark.parametrize("scheme", [ETDRK2, ETDRK4], ids=lambda scheme: scheme.name)
def test_order_in_time(scheme):
    end, counts = 20.0, (20, 28, 40, 56)

    def final(count, scheme=scheme):
        simulator = GrayScott(end / count, (48,), scheme=scheme)
        return roll(simulator, patch(simulator), count)

    wanted = final(600, ETDRK4)
    errors = [float((final(count) - wanted).abs().max()) for count in counts]
    assert convergence_order([end / c for c in counts], errors) == pytest.approx(scheme.order, abs=0.2)


def test_a_uniform_mixture_follows_its_ordinary_differential_equation():
    simulator = GrayScott(0.25, (6, 5), scheme=ETDRK4)
    start = torch.tensor([0.6, 0.3], dtype=F64).reshape(1, 2, 1, 1).expand(1, 2, 6, 5)

    def rate(t, y):
        a, b = y
        return [-a * b**2 + 0.04 * (1 - a) + 0.01, a * b**2 - 0.1 * b - 0.002]

    other = solve_ivp(rate, (0, 30), [0.6, 0.3], rtol=1e-11, atol=1e-13).y[:, -1]
    source = torch.tensor([0.01, -0.002], dtype=F64).reshape(1, 1, 2, 1, 1).expand(120, 1, 2, 6, 5)
    found = roll(simulator, start, 120, source)
    wanted = torch.from_numpy(other).reshape(1, 2, 1, 1).expand(1, 2, 6, 5)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-7)


def test_the_sea_of_feed_is_steady_and_matter_is_kept_without_feed():
    simulator = GrayScott(1.0, (8, 8))
    sea = torch.tensor([1.0, 0.0], dtype=F64).reshape(1, 2, 1, 1).expand(1, 2, 8, 8)
    torch.testing.assert_close(roll(simulator, sea, 20), sea, rtol=0, atol=1e-13)
    closed = GrayScott(0.5, (16, 12), 0.0, 0.0, 1e-3, 5e-4)
    start = patch(closed, 2)
    end = roll(closed, start, 40)
    torch.testing.assert_close(end.sum((1, 2, 3)), start.sum((1, 2, 3)), rtol=1e-12, atol=0)
    assert float((end - start).abs().max()) > 0.1


def test_half_of_the_modes_are_free_of_aliasing():
    """A shift of the grid by a fraction of a cell commutes with the step only where no product is aliased."""

    def mismatch(dealiasing):
        simulator = GrayScott(0.5, (32,), dealiasing=dealiasing)
        box = simulator.box
        shift = torch.exp(1j * 0.37 * box.modes()[0])

        def moved(state):
            return box.inverse(box.forward(state) * shift)

        state = simulator.start(0.5 + 0.3 * random(1, 2, 32), {})
        return float((moved(roll(simulator, state, 3)) - roll(simulator, moved(state), 3)).abs().max())

    assert mismatch(0.5) < 1e-13
    assert mismatch(0.8) > 1e-4


def test_taylor_in_state_control_and_parameters():
    simulator = GrayScott(1.0, (8, 6), diffusivity_a=2e-2, diffusivity_b=1e-2)
    values = {
        name: float(value) * torch.tensor([1.0, 1.1], dtype=F64)
        for name, value in simulator.parameters.items()
    }
    point = {"state": patch(simulator, 2), "control": 0.01 * random(5, 2, 2, 8, 6), **values}

    def loss(z):
        parameters = {name: z[name] for name in values}
        return roll(simulator, z["state"], 5, z["control"], **parameters).pow(3).sum()

    for name in point:

        def along(value, name=name):
            return loss({**point, name: value})

        direction = 0.5 * point[name] if name in values else None
        largest = 0.1 if name in values else 0.005
        rates = taylor_rates(along, point[name], direction, largest=largest)
        assert min(rates) > 1.85 and max(rates) < 2.15, (name, rates)


def test_second_derivatives_and_forward_mode():
    simulator = GrayScott(1.0, (6,), diffusivity_a=2e-2, diffusivity_b=1e-2)
    names = list(simulator.parameters)

    def step(state, control, *values):
        coefficients = simulator.prepare(dict(zip(names, values, strict=True)), {})
        return simulator.step(state, control, coefficients, None, 0.0)

    numbers = [torch.tensor(float(v), dtype=F64) for v in simulator.parameters.values()]
    inputs = tuple(v.requires_grad_() for v in (random(2, 2, 6), random(2, 2, 6, seed=1), *numbers))
    assert torch.autograd.gradcheck(step, inputs, check_forward_ad=True, fast_mode=True)
    assert torch.autograd.gradgradcheck(step, inputs, check_fwd_over_rev=True, fast_mode=True)


def test_scenarios_do_not_see_each_other_and_single_precision_is_close():
    simulator = GrayScott(1.0, (16, 12))
    state, control = patch(simulator, 3), 0.01 * random(6, 3, 2, 16, 12, seed=1)
    feed = torch.tensor([0.03, 0.04, 0.05], dtype=F64)
    together = roll(simulator, state, 6, control, feed=feed)
    alone = [roll(simulator, state[s : s + 1], 6, control[:, s : s + 1], feed=feed[s]) for s in range(3)]
    torch.testing.assert_close(torch.cat(alone), together, rtol=0, atol=1e-14)
    single = roll(simulator, state.float(), 6, control.float(), feed=feed.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), together, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("pattern", "call"),
    [
        ("feed must be zero or positive", lambda: GrayScott(1.0, feed=-0.1)),
        (r"\(scenarios, 2, 128, 128\)", lambda: roll(GrayScott(1.0), torch.zeros(1, 128, 128), 1)),
    ],
)
def test_wrong_use_is_refused_in_one_sentence(pattern, call):
    with pytest.raises(UsageError, match=pattern):
        call()
