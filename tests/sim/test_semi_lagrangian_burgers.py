"""The semi-Lagrangian step: written-out definition, published numbers, order, derivatives."""

import json
import math
from pathlib import Path

import pytest
import torch
from rolled import roll
from taylor import convergence_order, taylor_rates

from dpcontrol.results import UsageError
from dpcontrol.sim import SemiLagrangianBurgers, Substeps

F64 = torch.float64
PUBLISHED = json.loads((Path(__file__).parents[1] / "data" / "burgers_reconstruction.json").read_text())


def scenes(count, cells, dtype=F64):
    """Two Gaussian humps that run into each other, as in the published control problem."""
    draw = torch.rand((6, count, 1), generator=torch.Generator().manual_seed(1), dtype=F64)
    x = (torch.arange(cells, dtype=F64) + 0.5) / cells
    left = 3 * draw[0] * torch.exp(-0.5 * ((x - 0.2 - 0.2 * draw[1]) / (0.05 + 0.1 * draw[2])) ** 2)
    right = -3 * draw[3] * torch.exp(-0.5 * ((x - 0.6 - 0.2 * draw[4]) / (0.05 + 0.1 * draw[5])) ** 2)
    return (left + right).to(dtype)


def by_the_book(u, force, nu, dt, length, periodic):
    """The step cell by cell in Python floats, from its definition."""
    n, h = len(u), length / len(u)
    cell = (lambda row, i: row[i % n]) if periodic else (lambda row, i: row[i] if 0 <= i < n else 0.0)
    d = [u[i] + nu * dt / h**2 * (cell(u, i - 1) - 2 * u[i] + cell(u, i + 1)) for i in range(n)]
    out = []
    for i in range(n):
        place = i - d[i] * dt / h
        j = math.floor(place)
        out.append((1 - (place - j)) * cell(d, j) + (place - j) * cell(d, j + 1) + dt * force[i])
    return out


@pytest.mark.parametrize("boundary", ["zero", "periodic"])
def test_one_step_is_its_definition(boundary):
    simulator = SemiLagrangianBurgers(0.03, 0.003, (-0.5, 1.0), boundary)
    u = scenes(4, 32)
    force = torch.randn(u.shape, generator=torch.Generator().manual_seed(0), dtype=F64)
    found = roll(simulator, u, 1, force[None])
    pairs = zip(u.tolist(), force.tolist(), strict=True)
    wanted = [by_the_book(row, f, 0.003, 0.03, 1.5, boundary == "periodic") for row, f in pairs]
    torch.testing.assert_close(found, torch.tensor(wanted, dtype=F64), rtol=0, atol=1e-13)


def test_published_reconstruction_to_six_digits():
    """Plain gradient descent reproduces the published loss sequence, and the published error of the reconstruction."""
    simulator = SemiLagrangianBurgers(1 / 32, 0.01 / (128 * math.pi), (-1.0, 1.0), "periodic")
    target = torch.tensor(PUBLISHED["u_half"])
    start = torch.zeros(1, 128)
    losses, evaluated = [], start
    for _ in range(50):
        evaluated = start.requires_grad_()
        loss = (roll(simulator, evaluated, 16) - target).square().mean()
        (gradient,) = torch.autograd.grad(loss, evaluated)
        losses.append(float(loss.detach()))
        start = (evaluated - 5 * gradient).detach()
    for step, published in PUBLISHED["published_loss"].items():
        assert losses[int(step)] == pytest.approx(published, abs=6e-7)
    truth, found = -torch.sin(math.pi * ((torch.arange(128) + 0.5) / 64 - 1))[None], evaluated.detach()
    error = (truth - found).abs().sum()
    for _ in range(32):
        truth, found = roll(simulator, truth, 1), roll(simulator, found, 1)
        error = error + (truth - found).abs().sum()
    assert float(error) / (32 * 128) == pytest.approx(
        PUBLISHED["published_mae"]["differentiable physics"], abs=1e-5
    )
    assert truth[0, :5].tolist() == pytest.approx(PUBLISHED["forward_t1_first5"], abs=2e-7)


def test_first_order_against_cole_hopf():
    nu, a, end = 0.02, 1.5, 0.5

    def exact(x, t):
        decay = math.exp(-(math.pi**2) * nu * t)
        return 2 * nu * math.pi * decay * torch.sin(math.pi * x) / (a + decay * torch.cos(math.pi * x))

    sizes, errors = [], []
    for cells in (32, 64, 128, 256):
        x = 2 * (torch.arange(cells, dtype=F64) + 0.5) / cells - 1
        steps = cells // 4  # dt in proportion to h: 0.5 / 64 at the finest, within the limit of the diffusion
        sub = Substeps(SemiLagrangianBurgers(end / steps / 8, nu, (-1.0, 1.0), "periodic"), 8)
        errors.append(float((roll(sub, exact(x, 0.0)[None], steps) - exact(x, end)).abs().mean()))
        sizes.append(1 / cells)
    assert convergence_order(sizes, errors) == pytest.approx(1.0, abs=0.15)


@pytest.mark.parametrize("boundary", ["zero", "periodic"])
def test_taylor_in_state_control_and_viscosity(boundary):
    simulator = SemiLagrangianBurgers(0.03, 0.003, boundary=boundary)
    control = torch.randn((8, 3, 32), generator=torch.Generator().manual_seed(3), dtype=F64)
    point = {
        "state": scenes(3, 32),
        "control": control,
        "viscosity": torch.tensor([0.002, 0.003, 0.004], dtype=F64),
    }

    def loss(z):
        return roll(simulator, z["state"], 8, z["control"], viscosity=z["viscosity"]).square().sum()

    for name in point:

        def along(value, name=name):
            return loss({**point, name: value})

        largest = 1e-4 if name == "viscosity" else 2e-5  # less than to the next kink
        rates = taylor_rates(along, point[name], largest=largest)
        assert min(rates) > 1.9 and max(rates) < 2.1, (name, rates)


def test_second_derivatives_and_forward_mode():
    simulator = SemiLagrangianBurgers(0.03, 0.003)
    u, f = (
        scenes(2, 6).requires_grad_(),
        torch.randn(2, 6, dtype=F64, generator=torch.Generator().manual_seed(4)),
    )
    nu = torch.tensor(0.003, dtype=F64, requires_grad=True)

    def step(state, control, viscosity):
        return simulator.step(state, control, simulator.prepare({"viscosity": viscosity}, {}), None, 0.0)

    inputs = (u, f.requires_grad_(), nu)
    assert torch.autograd.gradcheck(step, inputs, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(step, inputs, check_fwd_over_rev=True)


def test_scenarios_do_not_see_each_other():
    simulator, u = SemiLagrangianBurgers(0.03, 0.003), scenes(5, 32)
    control = torch.randn((6, 5, 32), generator=torch.Generator().manual_seed(5), dtype=F64)
    viscosity = torch.linspace(0.001, 0.005, 5, dtype=F64)
    together = roll(simulator, u, 6, control, viscosity=viscosity)
    order = torch.tensor([3, 1, 4, 0, 2])
    assert torch.equal(
        roll(simulator, u[order], 6, control[:, order], viscosity=viscosity[order]), together[order]
    )
    alone = [
        roll(simulator, u[s : s + 1], 6, control[:, s : s + 1], viscosity=viscosity[s]) for s in range(5)
    ]
    torch.testing.assert_close(torch.cat(alone), together, rtol=0, atol=1e-14)


def test_under_vmap_and_grad_of_torch_func():
    simulator, u = SemiLagrangianBurgers(0.03, 0.003), scenes(3, 16)

    def loss(state):
        return roll(simulator, state[None], 4).square().sum()

    gradients = torch.func.vmap(torch.func.grad(loss))(u)
    wanted = torch.autograd.functional.jacobian(lambda s: roll(simulator, s, 4).square().sum(), u)
    torch.testing.assert_close(gradients, wanted)


def test_single_precision_follows_double():
    simulator = SemiLagrangianBurgers(0.03, 0.003)
    single = roll(simulator, scenes(4, 32, torch.float32), 32)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), roll(simulator, scenes(4, 32), 32), rtol=0, atol=2e-5)


def test_no_control_is_zero_control():
    simulator, u = SemiLagrangianBurgers(0.03, 0.003), scenes(2, 32)
    assert torch.equal(roll(simulator, u, 3), roll(simulator, u, 3, torch.zeros(3, 2, 32, dtype=F64)))


def test_wrong_use_is_refused_in_one_sentence():
    def refused(pattern, call):
        with pytest.raises(UsageError, match=pattern):
            call()

    refused("viscosity must be zero or positive", lambda: SemiLagrangianBurgers(0.1, -1.0))
    refused("dt must be positive", lambda: SemiLagrangianBurgers(0.0, 1.0))
    refused("boundary must be one of", lambda: SemiLagrangianBurgers(0.1, 1.0, boundary="open"))
    refused("left < right", lambda: SemiLagrangianBurgers(0.1, 1.0, extent=(1.0, 0.0)))
    good = SemiLagrangianBurgers(0.03, 0.003)
    refused(r"\(scenarios, cells\)", lambda: roll(good, torch.zeros(32), 1))
    refused("its shape is the state's", lambda: roll(good, torch.zeros(2, 32), 1, torch.zeros(1, 3, 2, 32)))
    refused(r"needs dt <= 0\.00", lambda: roll(SemiLagrangianBurgers(0.03, 0.1), torch.zeros(2, 32), 1))
    roll(
        SemiLagrangianBurgers(0.03, 0.1), torch.zeros(2, 32).requires_grad_(), 1
    )  # a candidate is not judged
