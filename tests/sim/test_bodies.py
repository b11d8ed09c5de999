"""Bodies in a flow: exactness of the constraint, published forces, invariants, derivatives in place and motion."""

import math

import cylinder
import pytest
import torch
from taylor import convergence_order, taylor_rates

from dpcontrol.engine import rollout
from dpcontrol.results import UsageError
from dpcontrol.sim import Disc, FreeSlip, Grid, IncompressibleFlow, Inflow, NoSlip, Outflow
from dpcontrol.sim.bodies import fraction
from dpcontrol.sim.flow_pressure import divergence_of
from dpcontrol.sim.obstacle import RETRACTION, kernel

F64 = torch.float64
TORUS = ("periodic", "periodic")
CHANNEL = Grid((24, 16), (3.0, 2.0), ((Inflow(1.0), Outflow()), (NoSlip(), FreeSlip())))


def random_start(flow, count=2, seed=0, speed=0.3):
    generator = torch.Generator().manual_seed(seed)
    return {
        name: speed * torch.randn(count, *flow.grid.faces(axis), generator=generator, dtype=F64)
        for axis, name in enumerate(flow.names)
    }


def roll(flow, start, steps, control=None, **parameters):
    states = rollout(flow, start, control, length=steps, parameters=parameters).states
    return {name: part[-1] for name, part in states.items()}


# -- the constraint ---------------------------------------------------------------------------------------------


def test_kernel_is_a_partition_of_unity_and_the_retraction_its_mean_distance():
    x = torch.arange(-4, 5, dtype=F64)
    shifts = torch.linspace(0, 1, 11, dtype=F64)[:, None]
    weights = kernel(x - shifts)
    torch.testing.assert_close(weights.sum(1), torch.ones(11, dtype=F64))
    torch.testing.assert_close((weights * x).sum(1), shifts[:, 0])
    fine = torch.linspace(-1.5, 1.5, 601, dtype=F64)
    density = kernel(fine) / kernel(fine).sum()
    apart = (fine[:, None] - fine).abs()
    assert float(density @ apart @ density) / 2 == pytest.approx(RETRACTION, rel=1e-4)


@pytest.mark.parametrize("grid", [CHANNEL, Grid((20, 24), (2.0, 2.4), TORUS)], ids=["channel", "torus"])
@pytest.mark.parametrize("moves", [False, True], ids=["rests", "moves"])
@pytest.mark.parametrize("advection", ["central", "semi_lagrangian"])
def test_neither_divergence_nor_slip(grid, moves, advection):
    bodies = (Disc((0.8, 0.9), 0.3, rotation=2.0), Disc((1.5, 1.2), 0.25, moves=moves))
    flow = IncompressibleFlow(grid, 0.02, viscosity=0.02, bodies=bodies, advection=advection)
    velocity = torch.tensor([[[0.3, -0.2]], [[-0.5, 0.1]]], dtype=F64)
    control = {"rotation": torch.tensor([[1.0, -3.0], [0.5, 2.0]], dtype=F64)}
    control |= {"velocity": velocity} if moves else {}
    held = {name: part.expand(5, *part.shape) for name, part in control.items()}
    end = roll(flow, random_start(flow), 5, held)
    coefficients = cylinder.coefficients_of(flow)
    parts = tuple(end[name] for name in flow.names)
    speed = max(float(part.abs().max()) for part in parts)
    found = divergence_of(parts, coefficients["rules"], grid)
    assert float(found.abs().max()) < 1e-12 * speed / min(grid.spacing)
    now = flow.immersed.held(
        end.get("position"),
        (control.get("velocity"), control["rotation"]),
        coefficients["bodies"],
        [0.0],
        parts[0],
    )[0]
    assert float((now.surface.at_points(parts) - now.velocity).abs().max()) < 1e-8 * speed
    if moves:
        torch.testing.assert_close(end["position"], torch.tensor([[[1.5, 1.2]]], dtype=F64) + 0.1 * velocity)


def test_forces_on_bodies_are_what_the_fluid_lacks_in_momentum():
    grid = Grid((20, 16), (2.0, 1.6), TORUS)
    flow = IncompressibleFlow(
        grid, 0.02, viscosity=0.05, bodies=(Disc((0.7, 0.8), 0.3), Disc((1.5, 0.7), 0.25))
    )
    start = roll(flow, random_start(flow), 3)
    end = roll(flow, start, 1)
    for axis, name in enumerate(flow.names):
        gained = (end[name] - start[name]).sum((1, 2)) * (0.1 * 0.1 / 0.02)
        torch.testing.assert_close(gained, -end["force"][:, :, axis].sum(1), rtol=1e-9, atol=1e-11)


def test_nothing_happens_to_a_body_that_swims_with_the_stream():
    grid = Grid((20, 16), (2.0, 1.6), TORUS)
    flow = IncompressibleFlow(grid, 0.02, bodies=(Disc((0.7, 0.8), 0.3, velocity=(1.0, -0.5), moves=True),))
    stream = {
        "velocity_x": torch.ones(1, 20, 16, dtype=F64),
        "velocity_y": torch.full((1, 20, 16), -0.5, dtype=F64),
    }
    end = roll(flow, stream, 10)
    for name, part in stream.items():
        torch.testing.assert_close(end[name], part, rtol=0, atol=1e-10)
    assert float(end["force"].abs().max()) < 1e-8
    torch.testing.assert_close(end["position"], torch.tensor([[[0.9, 0.7]]], dtype=F64))


# -- published forces ---------------------------------------------------------------------------------------------


def creeping(cells):
    """Drag over viscosity times mean velocity of a square array of cylinders that fill a tenth of the plane."""
    grid = Grid((cells, cells), (1.0, 1.0), TORUS)
    disc = Disc((0.5, 0.47), math.sqrt(0.1 / math.pi))
    flow = IncompressibleFlow(grid, 2.4 / (8 * cells**2), viscosity=1.0, bodies=(disc,))
    push = torch.zeros(1, 2, cells, cells, dtype=F64)
    push[:, 0] = 1e-3
    state, coefficients = cylinder.rest(flow), cylinder.coefficients_of(flow)
    for _ in range(round(0.4 / flow.dt)):
        state = flow.step(state, push, coefficients, None, 0.0)
    assert float(state["force"][0, 0, 0]) == pytest.approx(
        1e-3, rel=1e-3
    )  # all of the push, in a steady state
    return 1e-3 / float(state["velocity_x"].mean())


def test_order_of_the_drag_of_an_array_of_cylinders():
    """24.83: A. S. Sangani, A. Acrivos, Int. J. Multiphase Flow 8 (1982) 193, table 1."""
    sizes = (12, 24, 32)
    errors = [abs(creeping(n) / 24.83 - 1) for n in sizes]
    assert errors[-1] < 0.01
    assert convergence_order([1 / n for n in sizes], errors) > 1.8


def test_cylinder_in_a_channel_at_20():
    flow = cylinder.channel(20, 10)
    state, forces = cylinder.run(flow, 20, 5.0)
    assert float(forces[-1, 0]) == pytest.approx(5.5795, rel=0.02)
    assert float(forces[-1, 1]) == pytest.approx(0.0106, abs=0.006)
    assert cylinder.pressure_difference(flow, state) == pytest.approx(0.1175, rel=0.05)


@pytest.mark.slow
def test_cylinder_in_a_channel_at_100():
    flow = cylinder.channel(100, 32)
    _, forces = cylinder.run(flow, 100, 8.0)
    found = cylinder.shedding(forces, flow.dt, 100, 1.5)
    assert 0.29 < found["Strouhal number"] < 0.31
    assert 0.97 * 3.22 < found["largest drag"] < 1.03 * 3.24


@pytest.mark.parametrize(("moves", "order"), [(False, 3.0), (True, 1.0)], ids=["turns", "moves"])
def test_order_in_time_around_a_body(moves, order):
    disc = Disc((1.0, 1.0), 0.3, rotation=1.0, velocity=(0.3, 0.2) if moves else (0.0, 0.0), moves=moves)

    def flow(steps):
        return IncompressibleFlow(CHANNEL, 0.4 / steps, viscosity=0.02, bodies=(disc,))

    start = roll(flow(64), random_start(flow(64), speed=0.05), 64)
    steps = (8, 16, 32)
    ends = [roll(flow(number), start, number)["velocity_x"] for number in (*steps, 256)]
    errors = [float((end - ends[-1]).abs().mean()) for end in ends[:-1]]
    assert convergence_order([1 / number for number in steps], errors) == pytest.approx(order, abs=0.25)


def test_a_body_that_is_towed_feels_what_it_feels_in_a_stream():
    grid = Grid((32, 24), (4.0, 3.0), TORUS)
    towed = IncompressibleFlow(
        grid, 0.04, viscosity=0.05, bodies=(Disc((2.0, 1.5), 0.5, velocity=(-1.0, 0.0), moves=True),)
    )
    held = IncompressibleFlow(grid, 0.04, viscosity=0.05, bodies=(Disc((2.0, 1.5), 0.5),))
    still = {"velocity_x": torch.zeros(1, 32, 24, dtype=F64)}
    stream = {"velocity_x": torch.ones(1, 32, 24, dtype=F64)}
    first, second = (
        rollout(flow, start, length=50).states["force"][11:, 0, 0, 0]
        for flow, start in ((towed, still), (held, stream))
    )
    assert float((first - second).abs().max()) < 0.05 * float(second.abs().max())
    assert float((first - second).mean().abs()) < 0.005 * float(second.mean().abs())


def test_a_coarse_wake_sheds():
    """64 x 32 cells on 200 x 100, a disc of radius 10: six cells across, semi-Lagrangian."""
    grid = Grid((64, 32), (200.0, 100.0), ((Inflow(1.0), Outflow()), (NoSlip(), NoSlip())))
    flow = IncompressibleFlow(
        grid, 1.0, viscosity=0.05, bodies=(Disc((50.0, 50.0), 10.0),), advection="semi_lagrangian"
    )
    generator = torch.Generator().manual_seed(0)
    start = {"velocity_y": 0.3 * torch.randn(1, *grid.faces(1), generator=generator, dtype=F64)}
    forces = rollout(flow, start, length=700).states["force"][:, 0, 0]
    lift = forces[400:, 1]
    crossings = int(((lift[:-1] < 0) & (lift[1:] >= 0)).sum())
    assert float(lift.abs().max()) > 0.02 * float(forces[400:, 0].mean())
    assert 2 <= crossings <= 6  # a Strouhal number of 0.13 to 0.4


# -- derivatives ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("moves", [False, True], ids=["rests", "moves"])
def test_taylor_in_place_size_and_motion(moves):
    grid = Grid((16, 12), (1.6, 1.2), ((Inflow(1.0), Outflow()), (NoSlip(), NoSlip())))
    flow = IncompressibleFlow(grid, 0.03, viscosity=0.02, bodies=(Disc((0.613, 0.587), 0.221, moves=moves),))
    generator = torch.Generator().manual_seed(3)
    point = {
        "state": random_start(flow),
        "rotation": torch.randn(3, 2, 1, generator=generator, dtype=F64),
        "velocity": 0.1 * torch.randn(3, 2, 1, 2, generator=generator, dtype=F64),
        "place": torch.tensor([[0.613, 0.587], [0.641, 0.601]], dtype=F64),
        "radius": torch.tensor([0.221, 0.243], dtype=F64),
        "viscosity": torch.tensor([0.02, 0.03], dtype=F64),
    }

    def loss(z):
        control = {"rotation": z["rotation"]} | ({"velocity": z["velocity"]} if moves else {})
        place = {"centre_x": z["place"][:, 0], "centre_y": z["place"][:, 1]}
        end = roll(flow, z["state"], 3, control, radius=z["radius"], viscosity=z["viscosity"], **place)
        return sum(part.square().sum() for part in end.values())

    for name in point:
        if name != "velocity" or moves:

            def along(value, name=name):
                return loss({**point, name: value})

            near = {"place": 1e-4, "radius": 1e-4, "viscosity": 1e-3}.get(name, 1e-3)
            rates = taylor_rates(along, point[name], largest=near)
            assert min(rates) > 1.9 and max(rates) < 2.1, (name, rates)


def test_scenarios_with_bodies_of_their_own_do_not_see_each_other():
    flow = IncompressibleFlow(CHANNEL, 0.03, viscosity=0.02, bodies=(Disc((1.0, 1.0), 0.3),))
    start = random_start(flow, count=3)
    places = torch.tensor([0.9, 1.0, 1.1], dtype=F64)
    together = roll(flow, start, 3, centre_x=places)
    for k in range(3):
        alone = roll(flow, {name: part[k : k + 1] for name, part in start.items()}, 3, centre_x=places[k])
        for name, part in alone.items():
            torch.testing.assert_close(together[name][k : k + 1], part, rtol=0, atol=1e-9)
    single = roll(flow, {name: part.float() for name, part in start.items()}, 3, centre_x=places.float())
    assert single["force"].dtype == torch.float32
    torch.testing.assert_close(single["velocity_x"].double(), together["velocity_x"], rtol=0, atol=1e-4)
    torch.testing.assert_close(single["force"].double(), together["force"], rtol=1e-2, atol=1e-3)


def test_the_share_of_cells_adds_up_to_the_area():
    found = fraction(CHANNEL, torch.tensor([[1.5, 1.0]], dtype=F64), torch.tensor([0.5], dtype=F64))
    assert float(found.sum()) * (3 / 24) * (2 / 16) == pytest.approx(math.pi / 4, rel=0.03)


def test_wrong_bodies_are_refused_in_one_sentence():
    def refused(pattern, call):
        with pytest.raises(UsageError, match=pattern):
            call()

    refused("radius of a disc must be positive", lambda: Disc((0.0, 0.0), 0.0))
    refused("needs moves=True", lambda: Disc((0.0, 0.0), 1.0, velocity=(1.0, 0.0)))
    refused("keeps 2 cells away", lambda: IncompressibleFlow(CHANNEL, 0.1, bodies=(Disc((1.0, 0.5), 0.4),)))
    room = Grid((6, 6, 6))
    refused("two axes", lambda: IncompressibleFlow(room, 0.1, bodies=(Disc((3.0, 3.0), 1.0),)))
    still = IncompressibleFlow(CHANNEL, 0.02, bodies=(Disc((1.0, 1.0), 0.3),))
    start = {"velocity_x": torch.zeros(1, *CHANNEL.faces(0), dtype=F64)}
    refused("'velocity' of this flow", lambda: roll(still, start, 1, {"velocity": torch.zeros(1, 1, 1, 2)}))


# -- room -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("moves", [False, True], ids=["rests", "moves"])
def test_a_body_without_room_spoils_its_own_scenario_alone(moves):
    flow = IncompressibleFlow(CHANNEL, 0.03, viscosity=0.02, bodies=(Disc((1.0, 1.0), 0.3, moves=moves),))
    start, values = random_start(flow, count=5), cylinder_values(flow)
    centre = torch.tensor([1.0, 0.5, 1.0, 7.0, math.nan], dtype=F64, requires_grad=True)
    radius = torch.tensor([0.3, 0.3, 0.1, 0.3, 0.3], dtype=F64, requires_grad=True)
    end = roll(flow, start, 2, centre_x=centre, radius=radius)
    for name in (*flow.names, "force"):
        part = end[name].flatten(1)
        assert bool(part[0].isfinite().all()) and bool(part[1:].isnan().any(1).all()), name
    alone = roll(flow, {name: part[:1] for name, part in start.items()}, 2, centre_x=centre[:1].detach())
    torch.testing.assert_close(end["velocity_x"][:1], alone["velocity_x"], rtol=0, atol=1e-12)
    gradients = torch.autograd.grad(end["force"][0].square().sum(), (centre, radius))
    assert all(bool(gradient[:1].isfinite().all()) and float(gradient[0].abs()) > 0 for gradient in gradients)
    with pytest.raises(UsageError, match="2 cells away from the sides along x"):
        flow.check(start, {**values, "centre_x": centre.detach()})
    with pytest.raises(UsageError, match="radius of a body is at least 2 cells; found 0.8"):
        flow.check(start, {**values, "radius": radius.detach()})


def cylinder_values(flow):
    return {name: torch.as_tensor(value, dtype=F64) for name, value in flow.parameters.items()}


def test_a_body_that_leaves_ends_in_nan_and_one_that_starts_outside_is_refused():
    disc = Disc((1.0, 1.0), 0.3, velocity=(0.0, 3.0), moves=True)
    flow = IncompressibleFlow(CHANNEL, 0.03, viscosity=0.02, bodies=(disc,))
    start = random_start(flow, count=1)
    forces = rollout(flow, start, length=8).states["force"]
    fits = 1.0 + 0.09 * torch.arange(9) <= 2.0 - 0.3 - 0.25
    assert torch.equal(forces.isfinite().all(-1).flatten(), fits)
    with pytest.raises(UsageError, match="sides along y"):
        rollout(flow, {**start, "position": torch.tensor([[[1.0, 1.6]]], dtype=F64)}, length=1)


@pytest.mark.parametrize(
    ("strategy", "options"), [("lbfgs", {}), ("adjoint", {"learning_rate": 2.0}), ("cmaes", {})]
)
def test_a_search_that_leaves_the_box_comes_back(strategy, options):
    import dpcontrol as dp

    flow = IncompressibleFlow(CHANNEL, 0.04, viscosity=0.02, bodies=(Disc((1.0, 1.0), 0.3),))
    bounds = {"low": -3.0, "high": 8.0} if strategy == "cmaes" else {}
    problem = dp.control_problem(
        flow,
        initial_state={"velocity_x": torch.ones(1, *CHANNEL.faces(0), dtype=F64)},
        horizon=3,
        objective=dp.cost(terminal=lambda state: -state["force"][:, 0, 0]),
        unknown=dp.Parameters("centre_x", "centre_y", "radius", **bounds),
    )
    budget = dp.Budget(simulated_steps=400) if strategy == "cmaes" else dp.Budget(gradients=12)
    found = dp.solve(problem, strategy, budget=budget, **options)
    place = {name: float(value) for name, value in found.value["parameters"].items()}
    assert math.isfinite(float(found.loss))
    assert place["radius"] + 0.25 <= place["centre_x"] + 1e-3 and place["centre_x"] <= 3.0


def test_bodies_that_touch_or_have_no_size_in_cells_are_refused():
    def refused(pattern, *discs, grid=CHANNEL):
        with pytest.raises(UsageError, match=pattern):
            IncompressibleFlow(grid, 0.02, bodies=discs)

    torus = Grid((20, 16), (2.0, 1.6), TORUS)
    refused("two bodies keep 1 cell between them", Disc((1.0, 1.0), 0.3), Disc((1.0, 1.0), 0.3))
    refused("two bodies keep 1 cell", Disc((1.0, 1.0), 0.3), Disc((1.7, 1.0), 0.3))
    IncompressibleFlow(CHANNEL, 0.02, bodies=(Disc((1.0, 1.0), 0.3), Disc((1.75, 1.0), 0.3)))
    refused("two bodies keep 1 cell", Disc((0.3, 0.8), 0.3), Disc((1.8, 0.8), 0.3), grid=torus)
    refused("its own image along the periodic axis y", Disc((1.0, 0.8), 0.8), grid=torus)
    refused("at least 2 cells; found 0.08", Disc((1.0, 1.0), 0.01))
    refused("at least 2 cells; found 0.8", Disc((1.0, 1.0), torch.tensor([0.3, 0.1])))
    refused("sides along x; found nan", Disc((math.nan, 1.0), 0.3))
    refused("sides along y; found nan", Disc((1.0, torch.tensor([1.0, math.nan])), 0.3))
    refused("periodic axis x; found nan", Disc((math.nan, 0.8), 0.3), grid=torus)


def test_one_disc_or_a_list_will_do_and_what_is_controlled_must_be_there():
    disc = Disc((1.0, 1.0), 0.3)
    plain = IncompressibleFlow(CHANNEL, 0.02, bodies=(disc,), controlled="rotation")
    for bodies in (disc, [disc]):
        assert IncompressibleFlow(CHANNEL, 0.02, bodies=bodies, controlled="rotation") == plain

    def refused(pattern, **options):
        with pytest.raises(UsageError, match=pattern):
            IncompressibleFlow(CHANNEL, 0.02, **options)

    refused("tuple of Disc.*found 0.3 among them", bodies=(disc, 0.3))
    refused("needs bodies that turn", controlled="rotation")
    refused("needs a body that moves", controlled="velocity")
    refused("needs a body that moves", bodies=disc, controlled="velocity")
