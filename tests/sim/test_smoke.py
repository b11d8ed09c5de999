"""Smoke: published numbers, invariants, a steady vortex, derivatives."""

import math

import pytest
import torch
from taylor import convergence_order, taylor_rates

from dpcontrol.engine import rollout
from dpcontrol.engine.gradients import Checkpointed
from dpcontrol.results import UsageError
from dpcontrol.sim import Grid, Smoke
from dpcontrol.sim.staggered import divergence

F64 = torch.float64


def roll(simulator, start, steps, control=None, **parameters):
    """The last state of a rollout."""
    states = rollout(simulator, start, control, length=steps, parameters=parameters).states
    return {name: part[-1] for name, part in states.items()}


def random_start(simulator, count=2, dtype=F64, speed=0.7, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        name: (
            (1.0 if name == "marker" else speed) * torch.randn(count, *shape, generator=generator, dtype=F64)
        ).to(dtype)
        for name, shape in simulator.shapes.items()
    }


def test_published_plume_losses():
    """Gradient descent on the initial velocities of four plumes, 20 steps, as published."""
    grid = Grid((32, 40))
    x, y = grid.centres()
    sources = torch.stack(
        [((x - a) ** 2 + (y - b) ** 2 <= 9).double() / 3 for a, b in ((12, 4), (13, 6), (14, 5), (16, 5))]
    )
    simulator = Smoke(grid, dt=1.0)
    velocity = {name: torch.zeros(4, *simulator.shapes[name], dtype=F64) for name in simulator.names}
    losses, spread = [], None
    for _ in range(3):
        velocity = {name: part.requires_grad_() for name, part in velocity.items()}
        end = roll(simulator, velocity, 20, inflow=sources)["marker"]
        loss = 0.5 * (end - end[3:].detach()).square().sum()
        gradients = torch.autograd.grad(loss, list(velocity.values()))
        spread = spread or float(gradients[0][0].std())
        losses.append(float(loss.detach()))
        velocity = {
            name: (part - 1e-3 * slope).detach()
            for (name, part), slope in zip(velocity.items(), gradients, strict=True)
        }
    assert losses[0] == pytest.approx(298.286, abs=6e-4)
    assert losses[1] == pytest.approx(291.454, rel=1e-5)
    assert losses[2] == pytest.approx(276.058, rel=1e-3)
    assert spread == pytest.approx(0.85, abs=0.005)


@pytest.mark.parametrize(
    "grid",
    [
        Grid((12, 10), (3.0, 2.0)),
        Grid((12, 10), sides=("periodic", ("free_slip", "no_slip"))),
        Grid((6, 7, 5), sides=(("no_slip", "no_slip"), ("free_slip", "free_slip"), "periodic")),
    ],
    ids=lambda grid: str(grid.cells),
)
@pytest.mark.parametrize("scheme", ["semi_lagrangian", "mac_cormack"])
def test_flow_has_no_divergence(grid, scheme):
    simulator = Smoke(grid, dt=0.2, marker_scheme=scheme, velocity_scheme=scheme)
    control = torch.randn(
        3, 2, len(grid.cells), *grid.cells, generator=torch.Generator().manual_seed(1), dtype=F64
    )
    states = rollout(simulator, random_start(simulator), control).states
    for k in (1, 3):
        velocity = tuple(states[name][k] for name in simulator.names)
        speed = max(float(part.abs().max()) for part in velocity)
        assert float(divergence(velocity, grid).abs().max()) < 1e-12 * speed / min(grid.spacing)


def test_layers_of_smoke_stay_at_rest():
    """Marker that depends on the height alone lifts evenly: pressure balances it, nothing moves."""
    grid = Grid((8, 9), (1.0, 2.0))
    layers = torch.rand(1, 1, 9, generator=torch.Generator().manual_seed(0), dtype=F64).expand(1, 8, 9)
    states = rollout(Smoke(grid, dt=0.1), {"marker": layers}, length=10).states
    assert float(states["velocity_x"].abs().max()) < 1e-13
    assert float(states["velocity_y"].abs().max()) < 1e-13
    torch.testing.assert_close(states["marker"][-1], layers, rtol=0, atol=1e-12)


def test_inflow_adds_up_while_nothing_moves():
    grid = Grid((8, 8))
    source = torch.rand(2, 8, 8, generator=torch.Generator().manual_seed(0), dtype=F64)
    start = {"marker": torch.zeros(2, 8, 8, dtype=F64)}
    end = roll(Smoke(grid, dt=0.5), start, 4, inflow=source, buoyancy=0.0)
    torch.testing.assert_close(end["marker"], 2 * source)
    each = roll(Smoke(grid, dt=0.5, buoyancy=0.0), start, 4, inflow=torch.tensor([1.0, 3.0], dtype=F64))
    torch.testing.assert_close(each["marker"].amax((1, 2)), torch.tensor([2.0, 6.0], dtype=F64))


def test_a_plume_rises_and_mirrors():
    grid = Grid((16, 24))
    x, y = grid.centres()
    source = ((x - 5) ** 2 + (y - 4) ** 2 <= 6).double()
    both = torch.stack((source, source.flip(0)))
    end = roll(Smoke(grid, dt=1.0), {"marker": torch.zeros(2, 16, 24, dtype=F64)}, 12, inflow=0.1 * both)
    height = (end["marker"] * y).sum((1, 2)) / end["marker"].sum((1, 2))
    assert float(height.min()) > 6  # it started at 4
    torch.testing.assert_close(end["marker"][0], end["marker"][1].flip(0), rtol=0, atol=1e-10)
    torch.testing.assert_close(end["velocity_x"][0], -end["velocity_x"][1].flip(0), rtol=0, atol=1e-10)


@pytest.mark.parametrize(("scheme", "order"), [("semi_lagrangian", 1.0), ("mac_cormack", 1.0)])
def test_order_against_a_steady_vortex(scheme, order):
    """u = (sin x cos y, -cos x sin y) on (0, pi)^2 between free-slip walls is a steady solution."""
    sizes, errors = [], []
    for n in (16, 32, 64):
        grid = Grid((n, n), (math.pi, math.pi), (("free_slip", "free_slip"),) * 2)
        inner = math.pi * torch.arange(1, n, dtype=F64) / n
        middle = math.pi * (torch.arange(n, dtype=F64) + 0.5) / n
        start = {
            "velocity_x": (torch.sin(inner)[:, None] * torch.cos(middle))[None],
            "velocity_y": -(torch.cos(middle)[:, None] * torch.sin(inner))[None],
        }
        simulator = Smoke(grid, dt=0.5 / (n // 4), velocity_scheme=scheme)
        end = roll(simulator, start, n // 4)
        errors.append(float((end["velocity_x"] - start["velocity_x"]).abs().mean()))
        sizes.append(1 / n)
    assert convergence_order(sizes, errors) > order - 0.2


@pytest.mark.parametrize("scheme", ["semi_lagrangian", "mac_cormack"])
def test_taylor_in_state_control_and_parameters(scheme):
    simulator = Smoke(Grid((7, 8), (1.4, 2.0)), dt=0.2, marker_scheme=scheme, velocity_scheme=scheme)
    generator = torch.Generator().manual_seed(2)
    point = {
        "state": random_start(simulator),
        "control": torch.randn(4, 2, 2, 7, 8, generator=generator, dtype=F64),
        "buoyancy": torch.tensor([0.7, 1.3], dtype=F64),
        "inflow": torch.rand(2, 7, 8, generator=generator, dtype=F64),
    }

    def loss(z):
        end = roll(simulator, z["state"], 4, z["control"], buoyancy=z["buoyancy"], inflow=z["inflow"])
        return sum(part.square().sum() for part in end.values())

    for name in point:

        def along(value, name=name):
            return loss({**point, name: value})

        rates = taylor_rates(along, point[name], largest=2e-5)  # less than to the next kink
        assert min(rates) > 1.9 and max(rates) < 2.1, (name, rates)


def test_second_derivatives_and_forward_mode():
    simulator = Smoke(Grid((3, 4)), dt=0.5)
    start = random_start(simulator, count=1)
    names = list(start)
    inputs = [start[name].requires_grad_() for name in names]
    coefficients = simulator.prepare(
        {"buoyancy": torch.tensor(1.0, dtype=F64), "inflow": torch.tensor(0.1, dtype=F64)}, {}
    )

    def step(*parts):
        state = dict(zip(names, parts, strict=True))
        return tuple(simulator.step(state, None, coefficients, None, 0.0).values())

    assert torch.autograd.gradcheck(step, inputs, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(step, inputs)


def test_scenarios_do_not_see_each_other_and_vmap_agrees():
    simulator = Smoke(Grid((8, 9)), dt=0.5)
    start = random_start(simulator, count=4)
    together = roll(simulator, start, 4)
    order = torch.tensor([2, 0, 3, 1])
    permuted = roll(simulator, {name: part[order] for name, part in start.items()}, 4)
    one_by_one = torch.func.vmap(
        lambda state: roll(simulator, {name: part[None] for name, part in state.items()}, 4)["marker"][0]
    )(start)
    for name, part in together.items():
        torch.testing.assert_close(permuted[name], part[order], rtol=0, atol=1e-12)
    torch.testing.assert_close(one_by_one, together["marker"], rtol=0, atol=1e-12)


def test_checkpointing_gives_the_same_gradient():
    simulator = Smoke(Grid((8, 9)), dt=0.5)
    start = {name: part.requires_grad_() for name, part in random_start(simulator).items()}
    gradients = []
    for mode in (None, Checkpointed(snapshots=2)):
        end = rollout(simulator, start, length=6, gradient=mode).states["marker"][-1]
        gradients.append(torch.autograd.grad(end.square().sum(), list(start.values())))
    for full, stored in zip(*gradients, strict=True):
        torch.testing.assert_close(stored, full, rtol=0, atol=1e-11)


def test_single_precision_follows_double():
    simulator = Smoke(Grid((12, 12)), dt=0.5)
    single = roll(simulator, random_start(simulator, dtype=torch.float32), 8)["marker"]
    assert single.dtype == torch.float32
    torch.testing.assert_close(
        single.double(), roll(simulator, random_start(simulator), 8)["marker"], rtol=0, atol=1e-3
    )


def test_wrong_use_is_refused_in_one_sentence():
    def refused(pattern, call):
        with pytest.raises(UsageError, match=pattern):
            call()

    grid = Grid((6, 7))
    good = Smoke(grid, dt=1.0)
    marker = torch.zeros(2, 6, 7, dtype=F64)
    refused("two or three axes", lambda: Smoke(Grid((6,)), dt=1.0))
    refused("dt must be positive", lambda: Smoke(grid, dt=0.0))
    refused("schemes of advection", lambda: Smoke(grid, dt=1.0, marker_scheme="upwind"))
    refused("dict with some of marker, velocity_x", lambda: roll(good, marker, 1))
    refused("dict with some of", lambda: roll(good, {"smoke": marker}, 1))
    refused(
        r"velocity_x of this grid has the shape \(scenarios, 5, 7\)",
        lambda: roll(good, {"velocity_x": marker}, 1),
    )
    refused(r"\(scenarios, 2, 6, 7\)", lambda: roll(good, {"marker": marker}, 1, torch.zeros(1, 2, 6, 7)))
