"""Flow in vorticity form: order, Taylor-Green, Kolmogorov, invariants, aliasing, derivatives."""

import math

import pytest
import torch
from rolled import roll
from taylor import convergence_order, taylor_rates

from dpcontrol.engine import rollout
from dpcontrol.results import UsageError
from dpcontrol.sim import ETDRK2, ETDRK4, VorticityFlow

F64 = torch.float64


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def smooth(simulator, count=1, seed=0):
    """A random vorticity of mean zero in the waves up to 4, of size about 3."""
    modes = [mode.abs() <= 4 for mode in simulator.box.modes()]
    spectrum = simulator.box.forward(random(count, *simulator.shape, seed=seed)) * (modes[0] & modes[1])
    spectrum[:, 0, 0] = 0
    field = simulator.box.inverse(spectrum)
    return 3 * field / field.abs().amax((1, 2), keepdim=True)


def energy(simulator, state):
    """Mean of ``|u|^2 / 2``, ``(scenarios,)``."""
    return 0.5 * simulator.velocity(state).square().sum(1).mean((1, 2))


@pytest.mark.parametrize("scheme", [ETDRK2, ETDRK4], ids=lambda scheme: scheme.name)
def test_order_in_time(scheme):
    end, counts = 1.0, (20, 28, 40, 56)

    def final(count, scheme=scheme):
        simulator = VorticityFlow(end / count, (24, 24), 0.02, 0.1, 0.5, scheme=scheme)
        return roll(simulator, smooth(simulator), count)

    wanted = final(400, ETDRK4)
    errors = [float((final(count) - wanted).abs().max()) for count in counts]
    assert convergence_order([end / c for c in counts], errors) == pytest.approx(scheme.order, abs=0.2)


@pytest.mark.parametrize("long_in_y", [0, 1])
def test_taylor_green_decays_at_its_rate_in_a_box_of_any_proportion(long_in_y):
    nu, drag = 0.05, 0.1
    lengths = (2 * math.pi, 4 * math.pi) if long_in_y else (2 * math.pi, 2 * math.pi)
    simulator = VorticityFlow(0.05, (16, 24), nu, lengths=lengths)
    x, y = simulator.box.grid()
    vortices = (2 * torch.cos(x) * torch.cos(y))[None]
    u, v = simulator.velocity(vortices)[0]
    torch.testing.assert_close(u, -torch.cos(x) * torch.sin(y), rtol=0, atol=1e-13)
    torch.testing.assert_close(v, torch.sin(x) * torch.cos(y), rtol=0, atol=1e-13)
    states = rollout(simulator, vortices, length=40).states
    for k in (0, 20, 40):
        wanted = 0.25 * math.exp(-4 * nu * 0.05 * k)
        assert float(energy(simulator, states[k])) == pytest.approx(wanted, rel=1e-12)
    damped = roll(simulator, vortices, 40, drag=drag)
    torch.testing.assert_close(damped, vortices * math.exp(-2 * (2 * nu + drag)), rtol=0, atol=1e-12)


def test_kolmogorov_flow_is_laminar_below_its_instability():
    """chi sin(k y) against nu k^2: u = chi / (nu k^2 + mu) sin(k y) is steady."""
    simulator = VorticityFlow(0.1, (16, 24), 0.5, 0.2, 0.7, stirring_mode=2)
    y = simulator.box.grid()[1]
    speed = 0.7 / (0.5 * 4 + 0.2)
    wanted = -speed * 2 * torch.cos(2 * y)[None]
    end = roll(simulator, 0.01 * smooth(simulator), 400)
    torch.testing.assert_close(end, wanted, rtol=0, atol=1e-10)
    torch.testing.assert_close(simulator.velocity(end)[0, 0], speed * torch.sin(2 * y), rtol=0, atol=1e-10)


def test_a_held_control_equals_stirring():
    simulator = VorticityFlow(0.02, (24, 24), 0.01)
    y = simulator.box.grid()[1]
    state = smooth(simulator, 2)
    force = (-0.6 * 4 * torch.cos(4 * y)).expand(30, 2, 24, 24)
    torch.testing.assert_close(
        roll(simulator, state, 30, force), roll(simulator, state, 30, stirring=0.6), rtol=0, atol=1e-12
    )


def test_energy_and_enstrophy_are_kept_without_viscosity_unless_products_are_aliased():
    def drift(dealiasing, dt, mean):
        simulator = VorticityFlow(dt, (24, 24), 0.0, scheme=ETDRK4, dealiasing=dealiasing)
        start = simulator.start(3 * random(2, 24, 24, seed=4), {})
        start = start - start.mean((1, 2), keepdim=True)
        end = roll(simulator, start, round(0.5 / dt))
        return float((mean(simulator, end) / mean(simulator, start) - 1).abs().max())

    def enstrophy(simulator, state):
        return 0.5 * state.square().mean((1, 2))

    for quantity in (energy, enstrophy):
        assert drift(2 / 3, 0.005, quantity) < 1e-6
        assert drift(1.0, 0.005, quantity) > 1e-3


def test_taylor_in_state_control_and_parameters():
    simulator = VorticityFlow(0.05, (12, 12), stirring_mode=2)
    point = {
        "state": smooth(simulator, 2),
        "control": random(4, 2, 12, 12, seed=1),
        "viscosity": torch.tensor([0.01, 0.02], dtype=F64),
        "drag": torch.tensor([0.1, 0.3], dtype=F64),
        "stirring": torch.tensor(0.8, dtype=F64),
    }

    def loss(z):
        values = {name: z[name] for name in simulator.parameters}
        return roll(simulator, z["state"], 4, z["control"], **values).square().sum()

    for name in point:

        def along(value, name=name):
            return loss({**point, name: value})

        direction = 0.5 * point[name] if name in simulator.parameters else None
        rates = taylor_rates(along, point[name], direction, largest=0.05)
        assert min(rates) > 1.85 and max(rates) < 2.15, (name, rates)


def test_second_derivatives_and_forward_mode():
    simulator = VorticityFlow(0.1, (6, 6), stirring_mode=1)

    def step(state, control, viscosity, drag, stirring):
        values = {"viscosity": viscosity, "drag": drag, "stirring": stirring}
        return simulator.step(state, control, simulator.prepare(values, {}), None, 0.0)

    fields = (random(1, 6, 6), random(1, 6, 6, seed=2))
    numbers = [torch.tensor(v, dtype=F64) for v in (0.1, 0.2, 0.3)]
    inputs = tuple(v.requires_grad_() for v in (*fields, *numbers))
    assert torch.autograd.gradcheck(step, inputs, check_forward_ad=True, fast_mode=True)
    assert torch.autograd.gradgradcheck(step, inputs, check_fwd_over_rev=True, fast_mode=True)


def test_scenarios_do_not_see_each_other_and_single_precision_is_close():
    simulator = VorticityFlow(0.02, (16, 12), drag=0.1, stirring=0.3)
    u, control = smooth(simulator, 3), random(5, 3, 16, 12, seed=1)
    nu = torch.tensor([0.01, 0.02, 0.03], dtype=F64)
    together = roll(simulator, u, 5, control, viscosity=nu)
    alone = [roll(simulator, u[s : s + 1], 5, control[:, s : s + 1], viscosity=nu[s]) for s in range(3)]
    torch.testing.assert_close(torch.cat(alone), together, rtol=0, atol=1e-13)
    single = roll(simulator, u.float(), 5, control.float(), viscosity=nu.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), together, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("pattern", "call"),
    [
        ("drag must be zero or positive", lambda: VorticityFlow(0.1, drag=-1.0)),
        ("shape of two numbers", lambda: VorticityFlow(0.1, shape=(8,), lengths=(1.0,))),
        ("stirring_mode is a whole number", lambda: VorticityFlow(0.1, shape=(8, 8), stirring_mode=4)),
        (r"\(scenarios, 64, 64\); found", lambda: roll(VorticityFlow(0.1), torch.zeros(64, 64), 1)),
    ],
)
def test_wrong_use_is_refused_in_one_sentence(pattern, call):
    with pytest.raises(UsageError, match=pattern):
        call()
