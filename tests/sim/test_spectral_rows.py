"""Kuramoto-Sivashinsky and Burgers in Fourier space: order, closed forms, invariants, aliasing, derivatives."""

import math

import numpy as np
import pytest
import torch
from rolled import roll
from scipy.integrate import solve_ivp
from taylor import convergence_order, taylor_rates

from dpcontrol.engine import Checkpointed, rollout
from dpcontrol.results import UsageError
from dpcontrol.sim import ETDRK2, ETDRK4, KuramotoSivashinsky, SpectralBurgers
from dpcontrol.sim.etdrk import phi_functions

F64 = torch.float64
SYSTEMS = [KuramotoSivashinsky(0.05, 32, 22.0), SpectralBurgers(0.01, 32)]
NAMES = ["ks", "burgers"]


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def smooth(simulator, count=1, seed=0):
    """Random combinations of the first four waves, of size about 1."""
    (x,) = simulator.box.grid()
    a, b = random(2, count, 4, seed=seed)
    waves = 2 * math.pi * torch.arange(1, 5, dtype=F64)[:, None] * x / simulator.length
    return 0.5 * (a @ torch.sin(waves) + b @ torch.cos(waves))


def exact_phi(k, z):
    """``phi_k(z) = int_0^1 exp((1 - s) z) s^(k - 1) / (k - 1)! ds`` by Gauss quadrature on pieces."""
    nodes, weights = (torch.from_numpy(row) for row in np.polynomial.legendre.leggauss(40))
    s = ((torch.arange(64, dtype=F64)[:, None] + (nodes + 1) / 2) / 64).reshape(-1)
    w = (weights / 128).repeat(64)
    return (torch.exp((1 - s) * z[:, None]) * s ** (k - 1) / math.factorial(k - 1) * w).sum(1)


def test_phi_functions_to_rounding_on_both_sides_of_their_branches():
    real = torch.tensor([0.0, 1e-9, -1e-3, 0.3, -0.999, -1.001, 1.01, 3.0, -8.0, -60.0], dtype=F64)
    for z in (real, 1j * real, (0.6 + 0.8j) * real):
        found = phi_functions(z)
        for k in (1, 2, 3):
            wanted = exact_phi(k, z)
            assert float(((found[k] - wanted) / wanted).abs().max()) < 3e-14, k
    point = torch.tensor([0.0, 0.5, -0.7, -3.0, -20.0], dtype=F64, requires_grad=True)
    assert torch.autograd.gradcheck(phi_functions, point, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(phi_functions, point)


@pytest.mark.parametrize("scheme", [ETDRK2, ETDRK4], ids=lambda scheme: scheme.name)
@pytest.mark.parametrize("system", NAMES)
def test_order_in_time(system, scheme):
    end, steps = (2.0, (80, 112, 160, 224)) if system == "ks" else (0.1, (40, 56, 80, 112))
    build = KuramotoSivashinsky if system == "ks" else SpectralBurgers

    def final(count, scheme=scheme):
        simulator = build(end / count, 64, scheme=scheme)
        return roll(simulator, smooth(simulator), count)

    wanted = final(1600, ETDRK4)
    errors = [float((final(count) - wanted).abs().max()) for count in steps]
    order = convergence_order([end / count for count in steps], errors)
    # stiff: between the scheme's stiff order 3 and its full order 4
    wanted = 3.8 if (system, scheme) == ("ks", ETDRK4) else scheme.order
    assert order == pytest.approx(wanted, abs=0.15)


def test_kuramoto_sivashinsky_agrees_with_an_independent_solver_until_chaos_separates_them():
    """The Galerkin ODE by scipy's LSODA, with dense products instead of transforms."""
    simulator = KuramotoSivashinsky(0.02, 48, 22.0)
    start = simulator.box.project(smooth(simulator), 2 / 3)
    modes, base = 15, 2 * math.pi / 22.0
    spectrum = torch.fft.rfft(start[0])[: modes + 1] / 48
    k = base * torch.arange(modes + 1, dtype=F64).numpy()

    def rate(t, y):
        half = y[: modes + 1] + 1j * y[modes + 1 :]
        full = np.concatenate((half[:0:-1].conj(), half))
        square = np.convolve(full, full)[2 * modes : 3 * modes + 1]
        found = (k**2 - k**4) * half - 0.5j * k * square
        return np.concatenate((found.real, found.imag))

    times = [10.0, 20.0, 40.0]
    y0 = np.concatenate((spectrum.real.numpy(), spectrum.imag.numpy()))
    other = solve_ivp(rate, (0, 40), y0, method="LSODA", t_eval=times, rtol=1e-11, atol=1e-13)
    ours = rollout(simulator, start, length=2000).states
    for index, time in enumerate(times):
        y = torch.from_numpy(other.y[:, index])
        theirs = torch.fft.irfft(
            torch.nn.functional.pad(torch.complex(y[: modes + 1], y[modes + 1 :]) * 48, (0, 24 - modes)), n=48
        )
        assert (
            float((ours[round(time / 0.02), 0] - theirs).abs().max())
            < {10.0: 1e-6, 20.0: 1e-5, 40.0: 1e-3}[time]
        )
    assert float(ours[-1].abs().max()) > 1


def test_a_small_wave_of_kuramoto_sivashinsky_grows_at_its_rate():
    simulator = KuramotoSivashinsky(0.5, 32, 22.0, viscosity=0.9)
    (x,) = simulator.box.grid()
    k = 2 * math.pi * 2 / 22.0
    wave = 1e-9 * torch.cos(k * x)[None]
    wanted = wave * math.exp((k**2 - 0.9 * k**4) * 10)
    torch.testing.assert_close(roll(simulator, wave, 20), wanted, rtol=1e-7, atol=1e-17)


def test_burgers_is_cole_hopf_to_rounding_and_gives_the_published_values():
    nu, a, end = 0.05, 1.2, 0.5
    simulator = SpectralBurgers(0.005, 96, 2.0, nu)
    (x,) = simulator.box.grid()

    def exact(t):
        decay = math.exp(-(math.pi**2) * nu * t)
        u = 2 * nu * math.pi * decay * torch.sin(math.pi * x) / (a + decay * torch.cos(math.pi * x))
        return u[None]

    torch.testing.assert_close(roll(simulator, exact(0.0), 100), exact(end), rtol=0, atol=1e-9)

    simulator = SpectralBurgers(0.00125, 1024, 2.0, 0.01 / math.pi)
    (x,) = simulator.box.grid()  # x here is x - 1 there: the wave enters with its other sign
    states = rollout(simulator, torch.sin(math.pi * x)[None], length=800).states
    for time, value in {
        0.1: -0.8682261482,
        0.25: -0.9920815616,
        0.5: -0.8473545245,
        1.0: -0.5591962931,
    }.items():
        assert float(states[round(time / 0.00125), 0, 640]) == pytest.approx(value, abs=1e-6)


def test_errors_fall_faster_than_any_power_of_the_grid():
    def final(cells):
        simulator = SpectralBurgers(0.0025, cells, 1.0, 0.02)
        (x,) = simulator.box.grid()
        return roll(simulator, torch.sin(2 * math.pi * x)[None], 40)[:, :: cells // 16]

    wanted = final(256)
    errors = [float((final(cells) - wanted).abs().max()) for cells in (16, 32, 64)]
    assert errors[1] < 0.05 * errors[0] and errors[2] < 1e-3 * errors[1]


@pytest.mark.parametrize("simulator", SYSTEMS, ids=NAMES)
def test_the_mean_changes_by_the_mean_of_the_force_only(simulator):
    u, force = smooth(simulator, 3) + 0.3, random(10, 3, 32, seed=2)
    after = roll(simulator, u, 10, force)
    wanted = u.mean(1) + simulator.dt * force.mean(2).sum(0)
    torch.testing.assert_close(after.mean(1), wanted, rtol=0, atol=1e-13)


def test_without_viscosity_energy_is_kept_unless_products_are_aliased():
    def drift(dealiasing):
        simulator = SpectralBurgers(0.001, 64, viscosity=0.0, dealiasing=dealiasing)
        u = simulator.start(random(2, 64, seed=4), {})
        after = roll(simulator, u, 100)
        return float((after.square().sum(1) / u.square().sum(1) - 1).abs().max())

    assert drift(2 / 3) < 1e-6
    assert not drift(1.0) < 0.1


@pytest.mark.parametrize("simulator", SYSTEMS, ids=NAMES)
def test_taylor_in_state_control_and_parameters(simulator):
    point = {
        "state": smooth(simulator, 3),
        "control": random(6, 3, 32, seed=1),
        "viscosity": float(simulator.viscosity) * torch.tensor([0.9, 1.0, 1.2], dtype=F64),
    }

    def loss(z):
        return roll(simulator, z["state"], 6, z["control"], viscosity=z["viscosity"]).square().sum()

    for name in point:
        direction = None if name != "viscosity" else 0.5 * point[name]

        def along(value, name=name):
            return loss({**point, name: value})

        rates = taylor_rates(along, point[name], direction, largest=0.05)
        assert min(rates) > 1.85 and max(rates) < 2.15, (name, rates)


@pytest.mark.parametrize("build", [KuramotoSivashinsky, SpectralBurgers], ids=NAMES)
def test_second_derivatives_and_forward_mode(build):
    simulator = build(0.05, 6, 4.0, scheme=ETDRK2)

    def step(state, control, viscosity):
        return simulator.step(state, control, simulator.prepare({"viscosity": viscosity}, {}), None, 0.0)

    nu = torch.tensor([0.7, 1.2], dtype=F64)
    inputs = tuple(v.requires_grad_() for v in (random(2, 6), random(2, 6, seed=2), nu))
    assert torch.autograd.gradcheck(step, inputs, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(step, inputs, check_fwd_over_rev=True)


@pytest.mark.parametrize("simulator", SYSTEMS, ids=NAMES)
def test_scenarios_do_not_see_each_other_and_single_precision_is_close(simulator):
    u, control = smooth(simulator, 4), random(5, 4, 32, seed=1)
    nu = float(simulator.viscosity) * torch.linspace(0.8, 1.2, 4, dtype=F64)
    together = roll(simulator, u, 5, control, viscosity=nu)
    alone = [roll(simulator, u[s : s + 1], 5, control[:, s : s + 1], viscosity=nu[s]) for s in range(4)]
    torch.testing.assert_close(torch.cat(alone), together, rtol=0, atol=1e-13)
    single = roll(simulator, u.float(), 5, control.float(), viscosity=nu.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), together, rtol=0, atol=2e-5)


def test_checkpoints_do_not_change_the_gradient():
    simulator = KuramotoSivashinsky(0.1)
    u = smooth(simulator, 2).requires_grad_()
    force = (0.1 * random(20, 2, 64, seed=3)).requires_grad_()
    nu = torch.tensor(1.0, dtype=F64, requires_grad=True)

    def gradients(mode):
        end = rollout(simulator, u, force, parameters={"viscosity": nu}, gradient=mode).states[-1]
        return torch.autograd.grad(end.pow(3).sum(), (u, force, nu))

    for found, wanted in zip(gradients(Checkpointed(snapshots=4)), gradients(None), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("pattern", "call"),
    [
        ("dt must be positive", lambda: KuramotoSivashinsky(0.0)),
        ("viscosity must be positive", lambda: KuramotoSivashinsky(0.1, viscosity=0.0)),
        ("viscosity must be zero or positive", lambda: SpectralBurgers(0.1, viscosity=-1.0)),
        ("at least 4; found", lambda: SpectralBurgers(0.1, cells=3)),
        (r"needs 1 positive length\(s\)", lambda: SpectralBurgers(0.1, length=-1.0)),
        ("dealiasing is the fraction", lambda: SpectralBurgers(0.1, dealiasing=1.5)),
        (r"\(scenarios, 64\); found", lambda: roll(KuramotoSivashinsky(0.1), torch.zeros(64), 1)),
        (
            "acts at every point",
            lambda: roll(KuramotoSivashinsky(0.1), torch.zeros(1, 64), 1, torch.zeros(1, 1, 2)),
        ),
    ],
)
def test_wrong_use_is_refused_in_one_sentence(pattern, call):
    with pytest.raises(UsageError, match=pattern):
        call()
