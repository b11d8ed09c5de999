"""Fields that know where they live: wrong sums, orders, adjoints, sides, and what simulators hand out."""

import math

import numpy as np
import pytest
import torch
from taylor import convergence_order, taylor_rates

from dpcontrol.results import UsageError
from dpcontrol.sim import (
    Field,
    FixedFlux,
    FixedValue,
    FreeSlip,
    Grid,
    IncompressibleFlow,
    Inflow,
    NoSlip,
    Outflow,
    Smoke,
    curl,
    divergence,
    gradient,
    laplacian,
    velocity_fields,
)

F64 = torch.float64
TORUS = Grid((8, 10), (1.0, 2.0), ("periodic", "periodic"))
CLOSED = Grid((9, 12), (3.0, 2.0))
STREAM = Grid((8, 6), (2.0, 1.0), ((Inflow(1.0), Outflow()), ("free_slip", "no_slip")))
MIXED = Grid((7, 6), (2.0, 1.0), ("periodic", (Outflow(), FreeSlip())))
ROOM = Grid((5, 6, 7), (1.0, 1.5, 1.25), (("free_slip", "no_slip"), "periodic", ("no_slip", "outflow")))
ROW = Grid((9,), (1.0,), (("no_slip", "outflow"),))
GRIDS = [TORUS, CLOSED, STREAM, MIXED, ROOM, ROW]
SIZES = (16, 24, 36, 54)


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def centred(grid, count=2, seed=0):
    return Field(random(count, *grid.cells, seed=seed), grid, "centre")


def sampled(grid, place, function):
    return Field.sampled(function, grid, place)


def largest(field, but=0):
    """Largest absolute value, without some layers of points."""
    inner = (slice(None), *[slice(but, n - but) for n in field.shape])
    return float(field.values[inner].abs().max())


def order(error, sizes=SIZES):
    """Observed order of ``error(n)``, a list of them if it returns several."""
    rows = [error(n) for n in sizes]
    steps = [1 / n for n in sizes]
    return [convergence_order(steps, list(column)) for column in zip(*rows, strict=True)]


# -- arithmetic ----------------------------------------------------------------------------------------------------


def test_points_lie_where_the_place_says():
    grid = Grid((4, 3), (2.0, 3.0), ("periodic", ("no_slip", "outflow")))
    x, y = sampled(grid, "face_y", lambda x, y: x).coordinates()
    assert x[:, 0].tolist() == [0.25, 0.75, 1.25, 1.75]
    assert y[0].tolist() == [0.0, 1.0, 2.0, 3.0]
    assert sampled(grid, "corner", lambda x, y: x).shape == (4, 4)
    assert torch.equal(torch.stack(centred(grid).coordinates()), torch.stack(grid.centres()))


def test_arithmetic_with_fields_numbers_and_scenarios():
    a, b = centred(CLOSED), centred(CLOSED, seed=1)
    rates = torch.tensor([2.0, 3.0], dtype=F64)
    each = rates[:, None, None]
    v, w = a.values, b.values
    for found, wanted in (
        (a + b, v + w),
        (a - b, v - w),
        (a * b, v * w),
        (a / b, v / w),
        (2 - a, 2 - v),
        (1 / a, 1 / v),
        (-a + 1, 1 - v),
        (rates * a, each * v),
        (rates + a, each + v),
        (rates - a, each - v),
        (a / rates, v / each),
        (rates / a, each / v),
        (np.float64(2.0) * a, 2 * v),
    ):
        assert isinstance(found, Field)
        assert found.place == "centre"
        torch.testing.assert_close(found.values, wanted, rtol=0, atol=1e-13)


def test_a_sampled_velocity_starts_a_flow():
    inside = Field.sampled(lambda x, y: y * (1 - y), STREAM, "face_x").free()
    assert tuple(inside.shape) == (1, *STREAM.faces(0))
    _, y = torch.meshgrid(STREAM.places(0, 0), STREAM.places(0, 1), indexing="ij")
    torch.testing.assert_close(inside[0], y * (1 - y), rtol=0, atol=1e-15)
    constant = Field.sampled(lambda x, y: 2.0, STREAM, "centre")
    assert constant.integral().tolist() == [4.0]
    with pytest.raises(UsageError, match="lives at one of"):
        Field.sampled(lambda x, y: x, STREAM, "face_z")


def test_wrong_sums_are_refused():
    a = centred(CLOSED)
    with pytest.raises(UsageError, match="found centre and face_x: move one with to_centres"):
        a + a.to_faces("x")
    with pytest.raises(UsageError, match="on one grid"):
        a * centred(Grid((9, 12), (3.0, 2.5)))
    with pytest.raises(UsageError, match="on one grid"):
        a - a.with_sides("periodic", (FixedValue(), FixedFlux()))
    with pytest.raises(UsageError, match="found 2 and 3 scenarios"):
        a / centred(CLOSED, count=3)
    with pytest.raises(UsageError, match=r"2 scenarios; found the shape \(2, 9, 12\)"):
        a + a.values
    with pytest.raises(UsageError, match=r"found the shape \(12,\)"):
        torch.ones(12, dtype=F64) * a
    with pytest.raises(UsageError, match="numbers and tensors; found str"):
        a + "1"


def test_wrong_places_are_refused():
    a = centred(CLOSED)
    faces = gradient(a)
    with pytest.raises(UsageError, match="lives at one of centre, face_x, face_y, corner; found 'edge'"):
        Field(a.values, CLOSED, "edge")
    with pytest.raises(UsageError, match="velocity_fields"):
        Field(random(2, *CLOSED.faces(0)), CLOSED, "face_x")
    for operator in (gradient, laplacian):
        with pytest.raises(UsageError, match="takes a field at centre; found one at face_x"):
            operator(faces[0])
    with pytest.raises(UsageError, match="face_x, face_y of one grid; found face_y, face_x"):
        divergence(faces[::-1])
    with pytest.raises(UsageError, match="takes a tuple of fields"):
        divergence(a)
    with pytest.raises(UsageError, match="in a plane"):
        curl(gradient(centred(ROOM)))
    with pytest.raises(UsageError, match="the axes of this grid are x, y; found 'z'"):
        a.to_faces("z")


def test_sides_of_scalars_stay_refused_for_velocities():
    tank = Grid((4, 4), (1.0, 1.0), ("periodic", (FixedValue(), FixedFlux())))
    with pytest.raises(UsageError, match="which is for scalars"):
        velocity_fields([random(1, *tank.faces(axis)) for axis in range(2)], tank)
    with pytest.raises(UsageError, match="which is for scalars"):
        curl(gradient(centred(tank)))


# -- operators -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: "x".join(map(str, grid.cells)))
def test_divergence_is_minus_the_adjoint_of_the_gradient(grid):
    pressure = centred(grid)
    fluxes = []
    for axis, slope in enumerate(gradient(pressure)):
        values = random(*slope.values.shape, seed=axis)
        if not grid.periodic(axis):  # nothing flows through walls and inflows
            first, behind = grid.free(axis)
            open_faces = torch.zeros(values.shape[axis + 1], dtype=F64)
            open_faces[first:behind] = 1
            values = values * open_faces.reshape(-1, *[1] * (len(grid.cells) - 1 - axis))
        fluxes.append(Field(values, grid, slope.place))
    power = (pressure * divergence(fluxes)).integral()
    work = sum((flux * slope).integral() for flux, slope in zip(fluxes, gradient(pressure), strict=True))
    torch.testing.assert_close(power, -work, rtol=1e-12, atol=1e-12)


def tank(n):
    """Three kinds of sides that ``hill`` meets; its derivatives of all orders differ from zero there."""
    sides = ((FixedValue(0.0), FixedFlux(1.0)), "periodic")
    return Grid((n, n), (1.0, 1.0), sides)


def hill(x, y):
    return torch.sin(x) + (1 - math.cos(1)) * x * x / 2


WAVE = 2 * math.pi


def test_gradient_is_second_order_up_to_fixed_values_and_fluxes():
    slope = lambda x: torch.cos(x) + (1 - math.cos(1)) * x  # noqa: E731

    def error(n):
        grid = tank(n)
        field = sampled(grid, "centre", lambda x, y: hill(x, y) + 0 * y)
        other = sampled(grid, "centre", lambda x, y: torch.sin(WAVE * y) + 0 * x)
        along = gradient(field)[0] - sampled(grid, "face_x", lambda x, y: slope(x) + 0 * y)
        across = gradient(other)[1] - sampled(grid, "face_y", lambda x, y: WAVE * torch.cos(WAVE * y))
        side = along.values[:, 0].abs().max()
        return largest(along), float(side), largest(across)

    found = order(error)
    assert all(1.9 < rate < 2.2 for rate in found), found
    field = sampled(tank(8), "centre", hill)
    assert (gradient(field)[0].values[:, -1] == 1.0).all()  # the given slope


def test_laplacian_is_second_order_inside_and_first_at_fixed_sides():
    def error(n):
        grid = tank(n)
        field = sampled(grid, "centre", lambda x, y: hill(x, y) + 0 * y)
        wrong = laplacian(field) - sampled(grid, "centre", lambda x, y: 1 - math.cos(1) - torch.sin(x))
        torus = Grid((n, n), (1.0, 1.0), ("periodic", "periodic"))
        waves = sampled(torus, "centre", lambda x, y: torch.sin(WAVE * x) * torch.cos(WAVE * y))
        around = laplacian(waves) + 2 * WAVE**2 * waves
        box = Grid((n, n), (1.0, 1.0))  # walls: no flux
        modes = sampled(box, "centre", lambda x, y: torch.cos(math.pi * x) * torch.cos(WAVE * y))
        walled = laplacian(modes) + (math.pi**2 + WAVE**2) * modes
        first, last = (float(wrong.values[:, end].abs().max()) for end in (0, -1))
        return largest(wrong, but=1), largest(around), largest(walled), first, last

    *second, left, right = order(error)
    assert all(1.9 < rate < 2.1 for rate in second), second
    assert 0.9 < left < 1.1, left
    assert 0.9 < right < 1.1, right


@pytest.mark.parametrize("sides", [(0, 1), (1, 0), (0, 0)], ids=str)
def test_solutions_with_fixed_sides_are_second_order(sides):
    """``f_xx = e^x`` with the values and slopes of ``e^x`` on the sides."""
    kinds = (
        (FixedValue(1.0), FixedFlux(-1.0)),
        (FixedValue(math.e), FixedFlux(math.e)),
    )
    pair = tuple(kinds[end][kind] for end, kind in enumerate(sides))

    def error(n):
        grid = Grid((n,), (1.0,), (pair,))
        apply = lambda values: laplacian(Field(values, grid, "centre")).values  # noqa: E731
        brought = apply(torch.zeros(1, n, dtype=F64))[0]
        matrix = (apply(torch.eye(n, dtype=F64)) - brought).T
        exact = sampled(grid, "centre", torch.exp).values[0]
        return (float((torch.linalg.solve(matrix, exact - brought) - exact).abs().max()),)

    (rate,) = order(error, (32, 48, 72, 108))
    assert 1.85 < rate < 2.25, rate


def test_divergence_and_moves_are_second_order():
    def error(n):
        grid = Grid((n, n), (1.0, 2.0), ((Inflow(1.0), Outflow()), "periodic"))
        u = sampled(grid, "face_x", lambda x, y: torch.exp(x) * torch.sin(math.pi * y))
        v = sampled(grid, "face_y", lambda x, y: x * torch.cos(math.pi * y))
        exact = lambda x, y: (torch.exp(x) - math.pi * x) * torch.sin(math.pi * y)  # noqa: E731
        wrong = divergence((u, v)) - sampled(grid, "centre", exact)
        moved = u.to_centres() - sampled(grid, "centre", lambda x, y: torch.exp(x) * torch.sin(math.pi * y))
        pair = tank(n)
        field = sampled(pair, "centre", lambda x, y: hill(x, y) + 0 * y)
        faces = field.to_faces("x") - sampled(pair, "face_x", lambda x, y: hill(x, y) + 0 * y)
        total = float(sampled(grid, "face_x", lambda x, y: torch.exp(x) + 0 * y).integral()) - 2 * (
            math.e - 1
        )
        return largest(wrong), largest(moved), largest(faces), abs(total)

    found = order(error)
    assert all(1.9 < rate < 2.2 for rate in found), found


# -- vorticity -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sides", [("periodic", "periodic"), ((FreeSlip(), FreeSlip()),) * 2], ids=["torus", "box"]
)
def test_vorticity_of_taylor_green(sides):
    """On the grid the vortex is an eigenvector: its vorticity is the exact one times ``sin(h/2) / (h/2)``."""
    n = 12
    grid = Grid((n, n), (2 * math.pi, 2 * math.pi), sides)
    u = sampled(grid, "face_x", lambda x, y: torch.sin(x) * torch.cos(y))
    v = sampled(grid, "face_y", lambda x, y: -torch.cos(x) * torch.sin(y))
    h = 2 * math.pi / n
    exact = sampled(grid, "corner", lambda x, y: 2 * torch.sin(x) * torch.sin(y))
    wrong = curl((u, v)) - exact * (math.sin(h / 2) / (h / 2))
    assert largest(wrong) < 1e-13
    assert largest(divergence((u, v))) < 1e-13
    assert abs(float(curl((u, v)).integral())) < 1e-12


def test_vorticity_between_plates_is_exact_for_a_lid_and_first_order_on_walls():
    lid = Grid((4, 10), (1.0, 1.0), ("periodic", (NoSlip(0.0), NoSlip(3.0))))
    u = sampled(lid, "face_x", lambda x, y: 3 * y)
    still = sampled(lid, "face_y", lambda x, y: 0 * x)
    assert largest(curl((u, still)) + 3) < 1e-12
    twice = torch.tensor(2.0, dtype=F64)
    assert largest(curl((2 * u, still), {"walls": twice}) + 6) < 1e-12

    def error(n):
        grid = Grid((4, n), (1.0, 1.0), ("periodic", ("no_slip", "no_slip")))
        u = sampled(grid, "face_x", lambda x, y: torch.sin(y) * (1 - y))
        v = sampled(grid, "face_y", lambda x, y: 0 * x)
        exact = sampled(grid, "corner", lambda x, y: torch.sin(y) - torch.cos(y) * (1 - y))
        wrong = curl((u, v)) - exact
        inside = wrong.values[:, :, 1:-1].abs().max()
        return float(inside), float(wrong.values[:, :, 0].abs().max())

    inside, side = order(error)
    assert 1.9 < inside < 2.1, inside
    assert 0.9 < side < 1.1, side


def test_everything_is_differentiable():
    def loss(point):
        speeds = {"inflow": point["inflow"]}
        fields = velocity_fields((point["u"], point["v"]), STREAM, speeds)
        marker = Field(point["s"], STREAM, "centre").with_sides(
            (FixedValue(1.0), FixedFlux(0.5)), ("no_slip", "outflow")
        )
        u, v = fields["velocity_x"], fields["velocity_y"]
        heat = laplacian(marker * marker) + marker.to_faces("y").to_centres()
        energy = u.to_centres() * u.to_centres() + divergence((u, v)) * v.to_centres()
        return ((fields["vorticity"] * fields["vorticity"]).integral() + energy.integral()).sum() + (
            heat * heat
        ).integral().sum()

    point = {
        "u": random(2, *STREAM.faces(0)),
        "v": random(2, *STREAM.faces(1), seed=1),
        "s": 0.1 * random(2, *STREAM.cells, seed=2),
        "inflow": torch.tensor([1.0, 0.5], dtype=F64),
    }
    assert all(1.95 < rate < 2.05 for rate in taylor_rates(loss, point, largest=1e-2))


# -- simulators ----------------------------------------------------------------------------------------------------


def test_a_flow_hands_out_its_fields():
    flow = IncompressibleFlow(STREAM, dt=0.01, viscosity=0.01, inflow=1.5)
    given = {name: torch.as_tensor(value, dtype=F64) for name, value in flow.parameters.items()}
    given["inflow"] = torch.tensor([1.5, 0.5], dtype=F64)  # one for each scenario
    start = {"velocity_x": random(2, *STREAM.faces(0)), "velocity_y": random(2, *STREAM.faces(1), seed=1)}
    state = flow.step(flow.start(start, given), None, flow.prepare(given, {}), None, 0.0)
    fields = flow.fields(state, given)
    assert list(fields) == ["velocity_x", "velocity_y", "vorticity"]
    u, v = fields["velocity_x"], fields["velocity_y"]
    assert largest(divergence((u, v))) < 1e-11
    assert u.values[:, 0].unique(dim=1).flatten().tolist() == [1.5, 0.5]
    assert (v.values[:, :, [0, -1]] == 0).all()
    for name in flow.names:
        assert torch.equal(fields[name].free(), state[name])
    assert (fields["vorticity"].values[:, 1:-1, 0] == 0).all()  # a free-slip side
    own = flow.fields(state)["velocity_x"]
    assert (own.values[:, 0] == 1.5).all()
    assert own.values.dtype == F64
    single = flow.fields({name: part.float() for name, part in state.items()})
    assert all(field.values.dtype == torch.float32 for field in single.values())


def test_smoke_hands_out_its_fields():
    smoke = Smoke(Grid((10, 12), (1.0, 1.2), ("periodic", ("no_slip", "free_slip"))), dt=0.1)
    given = {name: torch.as_tensor(value, dtype=F64) for name, value in smoke.parameters.items()}
    start = smoke.start({"marker": random(2, 10, 12)}, given)
    state = smoke.step(start, None, smoke.prepare(given, {}), None, 0.0)
    fields = smoke.fields(state)
    assert [field.place for field in fields.values()] == ["centre", "face_x", "face_y", "corner"]
    u, v = fields["velocity_x"], fields["velocity_y"]
    assert largest(divergence((u, v))) < 1e-12
    flux = fields["marker"].to_faces("y") * v  # upwards, a sum that would be wrong without the move
    assert (flux.values[:, :, 0] == 0).all()
    with pytest.raises(UsageError, match="found centre and face_y"):
        fields["marker"] * v
    solid = Smoke(Grid((4, 5, 6)), dt=0.1)
    blank = solid.start({"marker": random(1, 4, 5, 6)}, given)
    assert list(solid.fields(blank)) == ["marker", "velocity_x", "velocity_y", "velocity_z"]
