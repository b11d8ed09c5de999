"""Viscous flow: orders by regression, closed forms, invariants, derivatives, the driven cavity."""

import math
import re

import pytest
import torch
from cavity import SPECTRAL, against_ghia
from taylor import convergence_order, taylor_rates

from dpcontrol.engine import rollout
from dpcontrol.engine.gradients import Checkpointed
from dpcontrol.results import UsageError
from dpcontrol.sim import FixedValue, FreeSlip, Grid, IncompressibleFlow, Inflow, NoSlip, Outflow, Smoke
from dpcontrol.sim.flow_operators import acceleration
from dpcontrol.sim.flow_pressure import divergence_of, gradient_of
from dpcontrol.sim.flow_sides import side_rules

F64 = torch.float64
WALL, SLIDE, OPEN = NoSlip(), FreeSlip(), Outflow()
SIDES = (Inflow(1.0), OPEN)


def parabola(y):
    return 6 * y * (1 - y)


CHANNEL = Grid((12, 8), (2.0, 1.0), ((Inflow(parabola), OPEN), (WALL, NoSlip(0.5))))
BACKWARDS = Grid((8, 12), (1.0, 2.0), ((WALL, SLIDE), (OPEN, Inflow(0.7))))
THROUGH = Grid((6, 8), (1.0, 1.0), ((OPEN, OPEN), "periodic"))
LID = Grid((9, 7), (1.0, 1.5), ((WALL, SLIDE), (WALL, NoSlip(1.0))))
TORUS = Grid((8, 10), (1.0, 1.0), ("periodic", "periodic"))
ROOM = Grid((5, 6, 7), (1.0, 1.5, 1.25), ((Inflow(1.0), OPEN), "periodic", (WALL, NoSlip((0.5, -0.2)))))
GRIDS = [CHANNEL, BACKWARDS, THROUGH, LID, TORUS, ROOM]


def random_start(flow, count=2, dtype=F64, seed=0, speed=0.5):
    generator = torch.Generator().manual_seed(seed)
    return {
        name: (speed * torch.randn(count, *flow.grid.faces(axis), generator=generator, dtype=F64)).to(dtype)
        for axis, name in enumerate(flow.names)
    }


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def roll(flow, start, steps, control=None, **parameters):
    states = rollout(flow, start, control, length=steps, parameters=parameters).states
    return {name: part[-1] for name, part in states.items()}


def coefficients_of(flow, dtype=F64):
    return flow.prepare({name: torch.as_tensor(v, dtype=dtype) for name, v in flow.parameters.items()}, {})


def relative_divergence(flow, state):
    velocity = tuple(state[name] for name in flow.names)
    found = divergence_of(velocity, coefficients_of(flow)["rules"], flow.grid)
    speed = max(float(part.abs().max()) for part in velocity)
    return float(found.abs().max()) * min(flow.grid.spacing) / speed


# -- invariants and identities ---------------------------------------------------------------------------------


@pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: str(grid.cells))
@pytest.mark.parametrize("advection", ["central", "semi_lagrangian", "mac_cormack"])
def test_flow_has_no_divergence(grid, advection):
    flow = IncompressibleFlow(grid, 0.01, viscosity=0.05, advection=advection)
    control = random(3, 2, len(grid.cells), *grid.cells, seed=1)
    end = roll(flow, random_start(flow), 3, control)
    assert relative_divergence(flow, end) < 1e-12


@pytest.mark.parametrize("grid", [CHANNEL, BACKWARDS, THROUGH, LID, ROOM], ids=lambda grid: str(grid.cells))
def test_gradient_is_minus_the_adjoint_of_divergence_where_open_faces_count_half(grid):
    flow = IncompressibleFlow(grid, 0.01)
    rules = side_rules(
        grid, torch.zeros((), dtype=F64), {name: torch.zeros((), dtype=F64) for name in ("inflow", "walls")}
    )
    velocity, pressure = tuple(random_start(flow).values()), random(2, *grid.cells, seed=7)
    total = 0.0
    for axis, (slope, part) in enumerate(zip(gradient_of(pressure, grid), velocity, strict=True)):
        weight = torch.ones(grid.faces(axis)[axis], dtype=F64)
        if not grid.periodic(axis):
            weight[0] = 0.5 if grid.free(axis)[0] == 0 else 1.0
            weight[-1] = 0.5 if grid.free(axis)[1] == grid.cells[axis] + 1 else 1.0
        shape = [-1 if other == axis else 1 for other in range(len(grid.cells))]
        total += float((slope * part * weight.view(shape)).sum())
    inner = float((pressure * divergence_of(velocity, rules, grid)).sum())
    assert total == pytest.approx(-inner, rel=1e-12)


@pytest.mark.parametrize(
    "grid", [TORUS, Grid((9, 7), sides=((SLIDE, SLIDE), (WALL, WALL)))], ids=["torus", "box"]
)
def test_advection_changes_neither_energy_nor_around_the_torus_momentum(grid):
    flow = IncompressibleFlow(grid, 1e-3, viscosity=0.0)
    state = roll(flow, random_start(flow, speed=1.0), 1)
    velocity = tuple(state[name] for name in flow.names)
    rates = acceleration(velocity, coefficients_of(flow)["rules"], 0.0, grid)
    size = sum(float((part * rate).abs().sum()) for part, rate in zip(velocity, rates, strict=True))
    power = sum((part * rate).sum() for part, rate in zip(velocity, rates, strict=True))
    assert abs(float(power)) < 1e-13 * size
    if grid is TORUS:
        for rate in rates:
            assert float(rate.sum((1, 2)).abs().max()) < 1e-12 * float(rate.abs().sum())


def test_semi_lagrangian_flow_is_smoke_without_smoke():
    grid = Grid((9, 8), (1.5, 1.0), ((SLIDE, SLIDE), "periodic"))
    flow = IncompressibleFlow(grid, 0.1, viscosity=0.0, advection="semi_lagrangian")
    start, control = random_start(flow), random(4, 2, 2, *grid.cells, seed=5)
    found, wanted = roll(flow, start, 4, control), roll(Smoke(grid, dt=0.1, buoyancy=0.0), start, 4, control)
    for name in flow.names:
        torch.testing.assert_close(found[name], wanted[name], rtol=0, atol=1e-12)


# -- closed forms ----------------------------------------------------------------------------------------------


def vortices(n, dt, time, nu=0.05):
    """Error of Taylor and Green's decaying vortices, carried along by a uniform stream, at the end."""
    grid = Grid((n, n), (2 * math.pi, 2 * math.pi), ("periodic", "periodic"))
    flow = IncompressibleFlow(grid, dt, viscosity=nu)

    def exact(t):
        decay = math.exp(-2 * nu * t)
        parts = []
        for axis in range(2):
            x, y = torch.meshgrid(grid.places(axis, 0) - t, grid.places(axis, 1) - 0.5 * t, indexing="ij")
            part = (
                1 + decay * torch.sin(x) * torch.cos(y)
                if axis == 0
                else 0.5 - decay * torch.cos(x) * torch.sin(y)
            )
            parts.append(part[None])
        return dict(zip(flow.names, parts, strict=True))

    end = roll(flow, exact(0.0), round(time / dt))
    wanted = exact(time)
    return max(float((end[name] - wanted[name]).abs().max()) for name in flow.names), end


def test_order_in_space_of_decaying_vortices():
    sizes = (12, 24, 48)
    errors = [vortices(n, 0.04, 0.8)[0] for n in sizes]
    assert convergence_order([1 / n for n in sizes], errors) == pytest.approx(2.0, abs=0.1)


@pytest.mark.parametrize(("advection", "order"), [("central", 3.0), ("semi_lagrangian", 1.0)])
def test_order_in_time_between_moving_and_open_sides(advection, order):
    flow = IncompressibleFlow(CHANNEL, 0.2 / 512, viscosity=0.02, advection=advection)
    start = roll(flow, random_start(flow, speed=0.05), 64)
    steps = (8, 16, 32)
    count = 512
    best = roll(IncompressibleFlow(CHANNEL, 0.2 / count, viscosity=0.02, advection=advection), start, count)
    errors = []
    for number in steps:
        end = roll(
            IncompressibleFlow(CHANNEL, 0.2 / number, viscosity=0.02, advection=advection), start, number
        )
        errors.append(float((end["velocity_x"] - best["velocity_x"]).abs().max()))
    assert convergence_order([1 / number for number in steps], errors) > order - 0.2


def test_a_channel_carries_its_parabola_to_the_outflow_against_the_right_pressure():
    sizes, errors, slopes = (8, 16), [], []
    for n in sizes:
        grid = Grid((2 * n, n), (2.0, 1.0), ((Inflow(parabola), OPEN), (WALL, WALL)))
        flow = IncompressibleFlow(grid, 0.1 / n, viscosity=0.1)
        end = roll(flow, {"velocity_x": torch.zeros(1, 2 * n, n, dtype=F64)}, 40 * n)
        y = grid.places(0, 1)
        errors.append(float((end["velocity_x"][0, -1] - parabola(y)).abs().mean()))
        pressure, _ = flow.pressure(end, None, coefficients_of(flow))
        slopes.append(float(pressure[0, :, n // 2].diff()[n] * n))
        assert float(end["velocity_y"][0, n:].abs().max()) < 3e-3
    assert convergence_order([1 / n for n in sizes], errors) > 1.8
    assert slopes[1] == pytest.approx(-12 * 0.1, rel=0.01)


def test_shear_between_walls_decays_and_a_moving_wall_drags_the_fluid_along():
    sizes, errors = (8, 16, 32), []
    for n in sizes:
        grid = Grid((4, n), (1.0, 1.0), ("periodic", (WALL, WALL)))
        shear = torch.sin(math.pi * grid.places(0, 1)).expand(1, 4, n).clone()
        end = roll(IncompressibleFlow(grid, 4e-3, viscosity=0.1), {"velocity_x": shear}, 50)["velocity_x"]
        errors.append(float((end - shear * math.exp(-0.02 * math.pi**2)).abs().max()))
    assert convergence_order([1 / n for n in sizes], errors) == pytest.approx(2.0, abs=0.1)
    grid = Grid((4, 8), (1.0, 1.0), ("periodic", (NoSlip(-1.0), NoSlip(3.0))))
    end = roll(
        IncompressibleFlow(grid, 0.03, viscosity=0.2), {"velocity_x": torch.zeros(1, 4, 8, dtype=F64)}, 500
    )
    torch.testing.assert_close(end["velocity_x"][0, 0], 4 * grid.places(0, 1) - 1, rtol=0, atol=1e-9)


def test_a_room_is_a_plane_where_nothing_changes_across():
    plane = Grid((6, 8), (1.0, 1.0), ((Inflow(1.0), OPEN), (WALL, NoSlip(0.5))))
    room = Grid((6, 8, 3), (1.0, 1.0, 0.4), ((Inflow(1.0), OPEN), (WALL, NoSlip((0.5, 0.0))), "periodic"))
    flat, deep = (IncompressibleFlow(grid, 0.02, viscosity=0.02) for grid in (plane, room))
    start = random_start(flat)
    thick = {name: part[..., None].expand(*part.shape, 3).clone() for name, part in start.items()}
    end, found = roll(flat, start, 10), roll(deep, thick, 10)
    for name, part in end.items():
        torch.testing.assert_close(found[name], part[..., None].expand_as(found[name]), rtol=0, atol=1e-12)
    assert float(found["velocity_z"].abs().max()) < 1e-13


# -- the driven cavity -----------------------------------------------------------------------------------------


def test_driven_cavity_at_100():
    found = against_ghia(100, 32, 15.0)
    assert found["largest difference of u"] < 0.01 and found["largest difference of v"] < 0.01


@pytest.mark.slow
@pytest.mark.parametrize(("reynolds", "cells", "time"), [(100, 64, 20.0), (400, 64, 40.0), (1000, 128, 70.0)])
def test_driven_cavity_in_full(reynolds, cells, time):
    found = against_ghia(reynolds, cells, time)
    assert found["largest difference of u"] < 0.01
    # beyond, at 1000, the published values themselves are off by twice that; see tests/cavity.py
    assert found["largest difference of v" if reynolds < 1000 else "largest difference of v, x < 0.9"] < 0.01
    for name, value in SPECTRAL.get(reynolds, {}).items():
        assert found["extrema"][name] == pytest.approx(value, abs=0.01)


# -- derivatives and data --------------------------------------------------------------------------------------


@pytest.mark.parametrize("advection", ["central", "semi_lagrangian", "mac_cormack"])
def test_taylor_in_state_controls_and_parameters(advection):
    flow = IncompressibleFlow(CHANNEL, 0.03, viscosity=0.02, advection=advection)
    generator = torch.Generator().manual_seed(2)
    point = {
        "state": random_start(flow),
        "force": torch.randn(4, 2, 2, *CHANNEL.cells, generator=generator, dtype=F64),
        "inflow": 1 + 0.2 * torch.randn(4, 2, generator=generator, dtype=F64),
        "walls": 1 + 0.2 * torch.randn(4, 2, generator=generator, dtype=F64),
        "viscosity": torch.tensor([0.02, 0.03], dtype=F64),
        "speeds": torch.tensor([1.0, 1.2], dtype=F64),
    }

    def loss(z):
        control = {name: z[name] for name in ("force", "inflow", "walls")}
        end = roll(
            flow, z["state"], 4, control, viscosity=z["viscosity"], inflow=z["speeds"], walls=z["speeds"]
        )
        return sum(part.square().sum() for part in end.values())

    for name in point:

        def along(value, name=name):
            return loss({**point, name: value})

        # looking back, less than to the next kink
        near = {"state": 2e-5, "force": 5e-4, "viscosity": 5e-5}.get(name, 1e-4)
        rates = taylor_rates(along, point[name], largest=50 * near if advection == "central" else near)
        assert min(rates) > 1.9 and max(rates) < 2.1, (name, rates)


def test_second_derivatives_and_forward_mode():
    flow = IncompressibleFlow(Grid((3, 3), sides=((Inflow(1.0), OPEN), (WALL, WALL))), 0.1, viscosity=0.1)
    names, coefficients = flow.names, coefficients_of(flow)
    inputs = [part.requires_grad_() for part in random_start(flow, count=1).values()]

    def step(*parts):
        return tuple(flow.step(dict(zip(names, parts, strict=True)), None, coefficients, None, 0.0).values())

    assert torch.autograd.gradcheck(step, inputs, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(step, inputs)


def test_scenarios_do_not_see_each_other_checkpoints_and_single_precision_agree():
    flow = IncompressibleFlow(CHANNEL, 0.03, viscosity=0.02)
    start = random_start(flow, count=4)
    together = roll(flow, start, 4)
    order = torch.tensor([2, 0, 3, 1])
    permuted = roll(flow, {name: part[order] for name, part in start.items()}, 4)
    one_by_one = torch.func.vmap(
        lambda state: roll(flow, {name: part[None] for name, part in state.items()}, 4)["velocity_y"][0]
    )(start)
    for name, part in together.items():
        torch.testing.assert_close(permuted[name], part[order], rtol=0, atol=1e-12)
    torch.testing.assert_close(one_by_one, together["velocity_y"], rtol=0, atol=1e-12)
    single = roll(flow, random_start(flow, count=4, dtype=torch.float32), 4)["velocity_x"]
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), together["velocity_x"], rtol=0, atol=1e-5)
    leaves = {name: part.requires_grad_() for name, part in start.items()}
    gradients = []
    for mode in (None, Checkpointed(snapshots=2)):
        end = rollout(flow, leaves, length=6, gradient=mode).states["velocity_x"][-1]
        gradients.append(torch.autograd.grad(end.square().sum(), list(leaves.values())))
    for full, stored in zip(*gradients, strict=True):
        torch.testing.assert_close(stored, full, rtol=0, atol=1e-11)


def test_a_control_of_one_tensor_is_what_the_flow_says():
    start = {"velocity_x": torch.zeros(2, *CHANNEL.faces(0), dtype=F64)}
    factors = torch.tensor([[0.5, 2.0]], dtype=F64)
    plain = IncompressibleFlow(CHANNEL, 0.03, viscosity=0.02)
    named = IncompressibleFlow(CHANNEL, 0.03, viscosity=0.02, controlled="inflow")
    one, other = roll(plain, start, 1, {"inflow": factors}), roll(named, start, 1, factors)
    assert torch.equal(one["velocity_x"], other["velocity_x"])
    assert torch.equal(one["velocity_x"], roll(named, start, 1, factors[..., None])["velocity_x"])
    flux = other["velocity_x"].sum(2) / 8
    inlet = parabola(CHANNEL.places(0, 1)).sum() / 8
    torch.testing.assert_close(flux, (inlet * factors[0, :, None]).expand_as(flux), rtol=0, atol=1e-12)


def test_wrong_use_is_refused_in_one_sentence():
    def refused(pattern, call):
        with pytest.raises(UsageError, match=pattern):
            call()

    good = IncompressibleFlow(CHANNEL, 0.03)
    start = {"velocity_x": torch.zeros(2, *CHANNEL.faces(0), dtype=F64)}
    refused("two or three axes", lambda: IncompressibleFlow(Grid((6,)), 0.1))
    refused("dt must be positive", lambda: IncompressibleFlow(CHANNEL, 0.0))
    refused("advection is one of central", lambda: IncompressibleFlow(CHANNEL, 0.1, advection="upwind"))
    refused("controlled is one of force", lambda: IncompressibleFlow(CHANNEL, 0.1, controlled="speed"))
    refused(
        "for scalars", lambda: IncompressibleFlow(Grid((6, 6), sides=("periodic", (FixedValue(), WALL))), 0.1)
    )
    refused(
        "what flows in must flow out",
        lambda: IncompressibleFlow(Grid((6, 6), sides=((Inflow(), WALL), (WALL, WALL))), 0.1),
    )
    refused(
        "2 velocities along itself",
        lambda: IncompressibleFlow(Grid((4, 4, 4), sides=("periodic", "periodic", (WALL, NoSlip(1.0)))), 0.1),
    )
    refused("friction is explicit", lambda: good.check(start, {"viscosity": torch.tensor(1.0)}))
    refused("a dict with some of velocity_x", lambda: roll(good, start["velocity_x"], 1))
    refused(
        r"velocity_x of this flow has the shape \(scenarios, 12, 8\)",
        lambda: roll(good, {"velocity_x": torch.zeros(2, 11, 8)}, 1),
    )
    whole = {"velocity_x": torch.zeros(2, *CHANNEL.faces(0), dtype=torch.long)}
    refused("floating numbers of one kind; found .*int64", lambda: roll(good, whole, 1))
    mixed = {**start, "velocity_y": torch.zeros(2, *CHANNEL.faces(1))}
    refused("floating numbers of one kind", lambda: roll(good, mixed, 1))
    refused(
        "'force' in torch.float32 and the state in torch.float64",
        lambda: roll(good, start, 1, torch.zeros(1, 2, 2, *CHANNEL.cells)),
    )
    refused("dict with some of force", lambda: roll(good, start, 1, {"speed": torch.zeros(1, 2)}))
    refused(
        r"'force' of this flow has the shape \(scenarios, 2, 12, 8\)",
        lambda: roll(good, start, 1, torch.zeros(1, 2, 12, 8)),
    )
    refused("'rotation' of this flow", lambda: roll(good, start, 1, {"rotation": torch.zeros(1, 2, 1)}))


def test_a_step_beyond_the_limit_of_advection_is_refused_with_the_largest_one():
    def largest(grid, dt, speed=0.0, **options):
        values = options.pop("parameters", {})
        flow = IncompressibleFlow(grid, dt, viscosity=0.0, **options)
        start = {"velocity_x": torch.full((2, *grid.faces(0)), speed, dtype=F64)}
        try:
            rollout(flow, start, length=1, parameters=values)
        except UsageError as refusal:
            return float(re.search(r"take dt below ([0-9.e-]+), and less", str(refusal))[1])
        return None

    free = Grid((10, 8), (2.0, 1.0), (SIDES, ("free_slip", "free_slip")))
    assert largest(free, 0.35) == pytest.approx(1.7 * 0.2, rel=1e-2)  # the inflow alone
    assert largest(free, 0.33) is None
    assert largest(free, 0.33, parameters={"inflow": torch.tensor([1.0, 3.0])}) == pytest.approx(
        0.113, rel=1e-2
    )
    assert largest(free, 0.33, inflow=2.0) == pytest.approx(0.17, rel=1e-2)
    assert largest(free, 0.33, speed=-4.0) == pytest.approx(0.085, rel=1e-2)
    assert largest(free, 0.33, speed=4.0, advection="semi_lagrangian") is None
    lid = Grid((10, 10), (1.0, 1.0), ((WALL, WALL), (WALL, NoSlip(-2.0))))
    assert largest(lid, 0.1) == pytest.approx(0.085, rel=1e-2)
    assert largest(lid, 0.1, walls=0.5) is None
    room = Grid((4, 4, 4), (1.0, 1.0, 1.0), ("periodic", "periodic", (WALL, NoSlip((1.0, -3.0)))))
    assert largest(room, 0.2) == pytest.approx(1.7 / 16, rel=1e-2)
    torus = IncompressibleFlow(TORUS, 0.01)
    sought = {"velocity_x": torch.full((1, *TORUS.faces(0)), 1e3, dtype=F64, requires_grad=True)}
    torus.check(sought, {"viscosity": torch.tensor(1e-3)})  # a candidate of a search


def test_the_limit_of_advection_is_where_a_shear_becomes_unstable():
    """Beyond it noise on a uniform stream grows, below it does not."""
    grid = Grid((16, 16), (1.0, 1.0), ("periodic", "periodic"))
    growth = []
    for number in (1.65, 1.85):
        flow = IncompressibleFlow(grid, number / 16, viscosity=0.0)
        noise = random_start(flow, count=1, speed=1e-9)
        state = {**noise, "velocity_x": 1 + noise["velocity_x"]}
        coefficients = coefficients_of(flow)
        before = flow.step(state, None, coefficients, None, 0.0)
        state = before
        for _ in range(100):
            state = flow.step(state, None, coefficients, None, 0.0)
        growth.append(float(state["velocity_y"].norm() / before["velocity_y"].norm()))
    assert growth[0] < 1.0 and growth[1] > 100.0
