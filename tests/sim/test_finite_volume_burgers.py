"""The finite-volume step: order, closed forms, conservation, stability, derivatives."""

import math

import pytest
import torch
from rolled import roll
from taylor import convergence_order, taylor_rates

from dpcontrol.results import UsageError
from dpcontrol.sim import FiniteVolumeBurgers, Substeps

F64 = torch.float64


def centres(cells, extent=(0.0, 1.0)):
    return extent[0] + (extent[1] - extent[0]) * (torch.arange(cells, dtype=F64) + 0.5) / cells


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


@pytest.mark.parametrize("boundary", ["periodic", (0.0, 0.0)])
def test_second_order_against_cole_hopf(boundary):
    nu, a, end = 0.05, 1.2, 0.5
    extent = (-1.0, 1.0) if boundary == "periodic" else (0.0, 1.0)

    def exact(x, t):
        decay = math.exp(-(math.pi**2) * nu * t)
        return 2 * nu * math.pi * decay * torch.sin(math.pi * x) / (a + decay * torch.cos(math.pi * x))

    sizes, mean_errors, largest_errors = [], [], []
    for cells in (32, 64, 128, 256):
        h, x = (extent[1] - extent[0]) / cells, centres(cells, extent)
        steps = math.ceil(end * (0.6 / h + 2 * nu / h**2) / 0.9)
        error = (
            roll(FiniteVolumeBurgers(end / steps, nu, extent, boundary), exact(x, 0.0)[None], steps)
            - exact(x, end)
        ).abs()
        sizes.append(h)
        mean_errors.append(float(error.mean()))
        largest_errors.append(float(error.max()))
    assert convergence_order(sizes, mean_errors) == pytest.approx(2.05, abs=0.15)
    assert convergence_order(sizes, largest_errors) == pytest.approx(2.05, abs=0.15)


def test_second_order_in_space_and_time_without_viscosity():
    """A smooth inviscid wave before it breaks, dt in proportion to h: u = sin(2 pi (x - u t)) by characteristics."""
    end = 0.08
    sizes, errors = [], []
    for cells in (50, 100, 200, 400):
        x = centres(cells)
        exact = torch.sin(2 * math.pi * x)
        for _ in range(80):
            exact = torch.sin(2 * math.pi * (x - exact * end))
        steps = cells // 10
        u = roll(FiniteVolumeBurgers(end / steps, 0.0), torch.sin(2 * math.pi * x)[None], steps)
        errors.append(float((u - exact).abs().mean()))
        sizes.append(1 / cells)
    assert convergence_order(sizes, errors) == pytest.approx(2.0, abs=0.2)


def test_published_values_of_the_forming_shock():
    """From -sin(pi x), nu = 0.01/pi: u(0.25, t), and the largest slope, 152.00516 at t = 1.6037/pi (Cole-Hopf)."""
    nu, cells, steps = 0.01 / math.pi, 500, 40  # 0.25 is a cell centre
    x = centres(cells, (-1.0, 1.0))
    here = int((x - 0.25).abs().argmin())
    step = Substeps(FiniteVolumeBurgers(0.05 / steps, nu, (-1.0, 1.0)), steps)
    u, found = -torch.sin(math.pi * x)[None], {}
    for k in range(1, 21):
        u = roll(step, u, 1)
        found[round(0.05 * k, 2)] = float(u[0, here])
        if k == 10:  # t = 0.5, close to the steepest moment
            slope = float(torch.diff(u).abs().max()) * cells / 2
    for time, value in {
        0.1: -0.8682261482,
        0.25: -0.9920815616,
        0.5: -0.8473545245,
        1.0: -0.5591962931,
    }.items():
        assert found[time] == pytest.approx(value, abs=5e-4)
    assert slope == pytest.approx(152.0, rel=0.04)


def test_a_shock_travels_at_the_mean_of_the_speeds_beside_it():
    cells, end = 200, 0.3
    x = centres(cells)
    u = torch.where(x < 0.3, 2.0, 0.0).to(F64)[None]
    steps = math.ceil(end * 2.0 * cells / 0.9)
    simulator = FiniteVolumeBurgers(end / steps, 0.0, boundary=(2.0, 0.0))
    after = roll(simulator, u, steps)
    place = float(after.sum()) / cells / 2.0
    assert place == pytest.approx(0.3 + 1.0 * end, abs=1e-6)
    assert float(after.min()) > -0.02 and float(after.max()) < 2.02


def test_mass_and_constants_are_conserved():
    u = random(3, 64)
    after = roll(FiniteVolumeBurgers(0.002, 0.003), u, 200)
    torch.testing.assert_close(after.sum(1), u.sum(1), rtol=0, atol=1e-12)
    assert bool((after.square().sum(1) < u.square().sum(1)).all())
    constant = torch.full((2, 16), 0.7, dtype=F64)
    for boundary in ("periodic", (0.7, 0.7)):
        torch.testing.assert_close(
            roll(FiniteVolumeBurgers(0.01, 0.01, boundary=boundary), constant, 50),
            constant,
            rtol=0,
            atol=1e-13,
        )


def test_fixed_sides_pull_a_viscous_flow_to_the_steady_layer():
    """u = -2 nu k tanh(k (x - 1/2)) is steady between its own end values."""
    nu, k, cells = 0.1, 3.0, 64
    x = centres(cells)
    wanted = -2 * nu * k * torch.tanh(k * (x - 0.5))
    side = 2 * nu * k * math.tanh(k / 2)
    simulator = FiniteVolumeBurgers(1e-3, nu, boundary=(side, -side))
    torch.testing.assert_close(roll(simulator, 0.9 * wanted[None], 8000)[0], wanted, rtol=0, atol=1e-3)


def test_mirror_images_stay_mirror_images():
    u = random(2, 40)
    left = roll(FiniteVolumeBurgers(0.002, 0.01, boundary=(0.3, -0.5)), u, 40)
    right = roll(FiniteVolumeBurgers(0.002, 0.01, boundary=(0.5, -0.3)), -u.flip(1), 40)
    torch.testing.assert_close(-right.flip(1), left, rtol=0, atol=1e-13)


@pytest.mark.parametrize("boundary", ["periodic", (0.4, -0.2)])
def test_taylor_in_state_control_and_parameters(boundary):
    simulator = FiniteVolumeBurgers(0.004, 0.01, boundary=boundary)
    values = {
        name: torch.tensor([v, 1.1 * v, 0.8 * v], dtype=F64) for name, v in simulator.parameters.items()
    }
    point = {"state": random(3, 32), "control": random(6, 3, 32, seed=1), **values}

    def loss(z):
        return (
            roll(simulator, z["state"], 6, z["control"], **{name: z[name] for name in values}).square().sum()
        )

    for name in point:

        def along(value, name=name):
            return loss({**point, name: value})

        rates = taylor_rates(along, point[name], largest=1e-3)
        assert min(rates) > 1.9 and max(rates) < 2.1, (name, rates)


@pytest.mark.parametrize("boundary", ["periodic", (0.4, -0.2)])
def test_second_derivatives_and_forward_mode(boundary):
    simulator = FiniteVolumeBurgers(0.01, 0.01, boundary=boundary)
    names = list(simulator.parameters)
    values = [torch.tensor(float(v), dtype=F64, requires_grad=True) for v in simulator.parameters.values()]

    def step(state, control, *parameters):
        return simulator.step(
            state, control, simulator.prepare(dict(zip(names, parameters, strict=True)), {}), None, 0.0
        )

    inputs = (random(2, 5).requires_grad_(), random(2, 5, seed=2).requires_grad_(), *values)
    assert torch.autograd.gradcheck(step, inputs, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(step, inputs, check_fwd_over_rev=True)


def test_gradients_are_finite_where_nothing_moves():
    u = torch.zeros(1, 16, dtype=F64, requires_grad=True)
    (gradient,) = torch.autograd.grad(roll(FiniteVolumeBurgers(0.01, 0.0), u, 3)[0, 5], u, create_graph=True)
    torch.testing.assert_close(gradient, torch.eye(16, dtype=F64)[5:6])


@pytest.mark.parametrize("boundary", ["periodic", (0.4, -0.2)])
def test_scenarios_do_not_see_each_other(boundary):
    simulator, u, control = (
        FiniteVolumeBurgers(0.002, 0.01, boundary=boundary),
        random(4, 32),
        random(5, 4, 32, seed=1),
    )
    nu = torch.linspace(0.0, 0.02, 4, dtype=F64)
    together = roll(simulator, u, 5, control, viscosity=nu)
    order = torch.tensor([2, 0, 3, 1])
    assert torch.equal(roll(simulator, u[order], 5, control[:, order], viscosity=nu[order]), together[order])
    alone = [roll(simulator, u[s : s + 1], 5, control[:, s : s + 1], viscosity=nu[s]) for s in range(4)]
    torch.testing.assert_close(torch.cat(alone), together, rtol=0, atol=1e-14)
    single = roll(simulator, u.float(), 5, control.float(), viscosity=nu.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), together, rtol=0, atol=1e-5)


def test_vmap_of_gradients():
    simulator, u = FiniteVolumeBurgers(0.002, 0.01), random(3, 16)

    def loss(state):
        return roll(simulator, state[None], 3).pow(3).sum()

    torch.testing.assert_close(
        torch.func.vmap(torch.func.grad(loss))(u), torch.stack([torch.func.grad(loss)(row) for row in u])
    )


def test_an_unstable_step_names_its_cell():
    u = torch.zeros(3, 20, dtype=F64)
    u[1, 7] = -4.0
    simulator = FiniteVolumeBurgers(0.02, 0.001)
    with pytest.raises(
        UsageError, match=r"cell 7 of scenario 1 the speed is 4,.* needs dt <= 0\.0124"
    ) as caught:
        roll(simulator, u, 1)
    assert "Substeps" in str(caught.value)
    roll(Substeps(FiniteVolumeBurgers(0.01, 0.001), 2), u, 1)
    with pytest.raises(UsageError, match="cell 0 of scenario 0 the speed is 9"):
        roll(FiniteVolumeBurgers(0.02, 0.001, boundary=(9.0, 0.0)), u, 1)
    with pytest.raises(UsageError, match="cell 0 of scenario 2"):
        simulator.check_stability(torch.full((3, 20), float("nan")).index_fill(0, torch.tensor([0, 1]), 0.0))
    roll(simulator, u, 1, viscosity=0.0011)  # parameters other than its own are candidates: not judged
    roll(simulator, u.clone().requires_grad_(), 1)


def test_wrong_use_is_refused_in_one_sentence():
    for pattern, arguments in [
        ("viscosity must be zero or positive", {"viscosity": -1.0}),
        ("dt must be positive", {"dt": -0.1}),
        ("speed must be positive", {"speed": 0.0}),
        ("boundary must be", {"boundary": "zero"}),
        ("boundary must be", {"boundary": (1.0, float("nan"))}),
        ("left < right", {"extent": (1.0, 1.0)}),
    ]:
        with pytest.raises(UsageError, match=pattern):
            FiniteVolumeBurgers(**{"dt": 0.1, "viscosity": 0.0, **arguments})
    with pytest.raises(UsageError, match=r"found \(8,\) float32"):
        roll(FiniteVolumeBurgers(0.01, 0.0), torch.zeros(8), 1)
    with pytest.raises(UsageError, match="its shape is the state's"):
        roll(FiniteVolumeBurgers(0.01, 0.0), torch.zeros(1, 8), 1, torch.zeros(1, 2, 8))
