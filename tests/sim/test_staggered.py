"""Operators on the staggered grid: identities of vector calculus, exactness, order, derivatives."""

import math

import pytest
import torch
from taylor import convergence_order

from dpcontrol.results import UsageError
from dpcontrol.sim import FreeSlip, Grid, Inflow, NoSlip, Outflow, Periodic
from dpcontrol.sim.staggered import (
    beyond_centres,
    beyond_faces,
    curl,
    divergence,
    gradient,
    interpolated,
    mac_cormack,
    pressure_solver,
    projected,
    semi_lagrangian,
    to_centres,
    to_faces,
)

F64 = torch.float64
CLOSED = Grid((9, 12), (3.0, 2.0))
CHANNEL = Grid((8, 11), (2.0, 3.0), ("periodic", ("no_slip", "free_slip")))
TORUS = Grid((8, 10), (1.0, 2.0), ("periodic", "periodic"))
ROOM = Grid((5, 6, 7), (1.0, 1.5, 1.25), (("free_slip", "no_slip"), "periodic", ("no_slip", "no_slip")))
GRIDS = [CLOSED, CHANNEL, TORUS, ROOM]


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def velocities(grid, count=2, seed=0):
    return tuple(random(count, *grid.faces(axis), seed=seed + axis) for axis in range(len(grid.cells)))


def dot(first, second):
    return sum((a * b).sum() for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: str(grid.cells))
def test_gradient_is_minus_the_adjoint_of_divergence(grid):
    v, p = velocities(grid), random(2, *grid.cells, seed=9)
    assert float(dot(gradient(p, grid), v)) == pytest.approx(
        -float((p * divergence(v, grid)).sum()), rel=1e-12
    )


@pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: str(grid.cells))
def test_projection_is_exact_idempotent_and_orthogonal(grid):
    v = velocities(grid)
    solver = pressure_solver(grid, v[0])
    free = projected(v, grid, solver)
    size = max(float(part.abs().max()) for part in v) / min(grid.spacing)
    assert float(divergence(free, grid).abs().max()) < 1e-13 * size * 10
    again = projected(free, grid, solver)
    for once, twice in zip(free, again, strict=True):
        torch.testing.assert_close(twice, once, rtol=0, atol=1e-13)
    removed = tuple(a - b for a, b in zip(v, free, strict=True))
    assert abs(float(dot(free, removed))) < 1e-12 * float(dot(v, v))
    total = float(dot(free, free) + dot(removed, removed))
    assert total == pytest.approx(float(dot(v, v)), rel=1e-12)


@pytest.mark.parametrize("grid", [CLOSED, CHANNEL, TORUS], ids=lambda grid: str(grid.cells))
def test_a_curl_has_no_divergence_and_knows_its_potential(grid):
    corners = [n if grid.periodic(axis) else n - 1 for axis, n in enumerate(grid.cells)]
    v = curl(random(2, *corners), grid)
    assert [tuple(part.shape[1:]) for part in v] == [grid.faces(0), grid.faces(1)]
    assert float(divergence(v, grid).abs().max()) < 1e-12


def test_curl_of_a_known_potential():
    grid = Grid((40, 50), (1.0, 1.0))
    x = torch.arange(1, 40, dtype=F64) / 40
    y = torch.arange(1, 50, dtype=F64) / 50
    potential = torch.sin(math.pi * x)[:, None] * torch.sin(math.pi * y)
    u, v = curl(potential[None], grid)
    _, middle = grid.centres()
    exact = math.pi * torch.sin(math.pi * x)[:, None] * torch.cos(math.pi * middle[:1])
    assert float((u[0] - exact).abs().max()) < 1e-3 * math.pi
    columns, _ = grid.centres()
    exact = -math.pi * torch.cos(math.pi * columns[:, :1]) * torch.sin(math.pi * y)
    assert float((v[0] - exact).abs().max()) < 2e-3 * math.pi


def test_averages_are_exact_for_linear_fields():
    grid = Grid((6, 7), (3.0, 3.5))  # cells of size one half
    x, y = grid.centres()
    field = (2 * x - 3 * y + 1)[None]
    torch.testing.assert_close(to_faces(field, 0, grid), (field[:, 1:] + field[:, :-1]) / 2)
    torch.testing.assert_close(to_faces(field, 1, grid)[0], (2 * x - 3 * y + 1)[:, :-1] - 0.75)
    u = (0.5 * torch.arange(1, 6, dtype=F64))[:, None].expand(5, 7)[None]
    v = torch.zeros(1, 6, 6, dtype=F64)
    centred = to_centres((u, v), grid)[0][0]
    torch.testing.assert_close(centred[:-1], x[:-1])  # the last one sees the wall, where u is zero


@pytest.mark.parametrize("kind", ["zero", "edge", "periodic"])
def test_lookup_is_its_definition(kind):
    field, shape = random(2, 4, 5), (4, 5)
    places = [3 * random(2, 4, 5, seed=1), 3 * random(2, 4, 5, seed=2)]
    beyond = ((kind, kind), (kind, kind))

    def value(s, i, j):
        if kind == "periodic":
            return float(field[s, i % 4, j % 5])
        if kind == "edge":
            return float(field[s, min(max(i, 0), 3), min(max(j, 0), 4)])
        return float(field[s, i, j]) if 0 <= i < 4 and 0 <= j < 5 else 0.0

    wanted = torch.zeros(2, *shape, dtype=F64)
    for s, i, j in torch.cartesian_prod(torch.arange(2), torch.arange(4), torch.arange(5)).tolist():
        x, y = i + float(places[0][s, i, j]), j + float(places[1][s, i, j])
        a, b = math.floor(x), math.floor(y)
        p, q = x - a, y - b
        wanted[s, i, j] = (
            (1 - p) * (1 - q) * value(s, a, b)
            + (1 - p) * q * value(s, a, b + 1)
            + p * (1 - q) * value(s, a + 1, b)
            + p * q * value(s, a + 1, b + 1)
        )
    torch.testing.assert_close(interpolated(field, places, beyond), wanted, rtol=0, atol=1e-13)


def test_lookup_in_three_dimensions_is_exact_for_linear_fields():
    grid = Grid((6, 7, 8))
    x, y, z = grid.centres()
    field = (x - 2 * y + 0.5 * z + 0.3 * x * y * z)[None]
    shift = [0.3 * torch.tanh(random(1, 6, 7, 8, seed=s)) for s in range(3)]
    found = interpolated(field, shift, beyond_centres(grid))
    a, b, c = x + shift[0], y + shift[1], z + shift[2]
    wanted = a - 2 * b + 0.5 * c + 0.3 * a * b * c
    inner = (slice(None), slice(1, -1), slice(1, -1), slice(1, -1))
    torch.testing.assert_close(found[inner], wanted[inner], rtol=0, atol=1e-11)


def test_faces_continue_as_their_walls_say():
    grid = Grid((4, 5), sides=(("no_slip", "free_slip"), ("free_slip", "no_slip")))
    assert beyond_faces(0, grid) == (("zero", "zero"), ("edge", "zero"))
    assert beyond_faces(1, grid) == (("zero", "edge"), ("zero", "zero"))
    ones = torch.ones(1, *grid.faces(0), dtype=F64)
    far = torch.full_like(ones, 10.0)
    still = torch.zeros_like(ones)
    assert float(interpolated(ones, [still, -far], beyond_faces(0, grid)).min()) == 1.0
    assert float(interpolated(ones, [still, far], beyond_faces(0, grid)).max()) == 0.0


def carried(n, scheme):
    """Error after a smooth bump went a quarter of the way around the torus, at half a cell per step."""
    grid = Grid((n, n), (1.0, 1.0), ("periodic", "periodic"))
    x, y = grid.centres()
    start = torch.exp(torch.cos(2 * math.pi * x) + torch.sin(2 * math.pi * y))[None]
    step = [torch.full_like(start, 0.5), torch.full_like(start, -0.5)]
    field = start
    for _ in range(n // 2):
        field = scheme(field, step, beyond_centres(grid))
    exact = start.roll((n // 4, -n // 4), (1, 2))
    return float((field - exact).abs().mean()), field, start


def test_order_of_advection():
    sizes = (32, 64, 128)
    first = [carried(n, semi_lagrangian)[0] for n in sizes]
    second = [carried(n, mac_cormack)[0] for n in sizes]
    assert convergence_order([1 / n for n in sizes], first) == pytest.approx(1.0, abs=0.25)
    assert convergence_order([1 / n for n in sizes], second) == pytest.approx(2.0, abs=0.25)


@pytest.mark.parametrize("scheme", [semi_lagrangian, mac_cormack])
def test_advection_keeps_bounds_and_under_constant_velocity_mass(scheme):
    _, field, start = carried(16, scheme)
    assert float(field.max()) <= float(start.max()) and float(field.min()) >= float(start.min())
    if scheme is semi_lagrangian:
        assert float(field.sum()) == pytest.approx(float(start.sum()), rel=1e-13)
    rough, anywhere = random(2, 9, 12), [3 * random(2, 9, 12, seed=s) for s in (1, 2)]
    moved = scheme(rough, anywhere, beyond_centres(CLOSED))
    assert float(moved.max()) <= float(rough.max()) and float(moved.min()) >= float(rough.min())


def test_only_clamping_jumps_from_cell_to_cell():
    rough = random(1, 8, 8)

    def change(scheme, width):
        before, after = (
            scheme(
                rough, [torch.full_like(rough, 1 + side), torch.full_like(rough, 0.3)], ((("edge",) * 2),) * 2
            )
            for side in (-width, width)
        )
        return float((after - before).abs().max())

    assert change(semi_lagrangian, 1e-9) < 1e-8
    assert change(mac_cormack, 1e-9) > 0.1


@pytest.mark.parametrize("scheme", [semi_lagrangian, mac_cormack])
@pytest.mark.parametrize("kind", ["zero", "edge", "periodic"])
def test_derivatives_of_advection(scheme, kind):
    beyond = ((kind, kind), ("periodic", "periodic"))
    inputs = [random(2, 3, 4, seed=s).requires_grad_() for s in (3, 4, 5)]

    def advected(field, a, b):
        return scheme(field, (a, b), beyond)

    assert torch.autograd.gradcheck(advected, inputs, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(advected, inputs, check_fwd_over_rev=scheme is semi_lagrangian)


def test_lookups_survive_what_is_not_finite():
    field, far = random(1, 4, 4), torch.full((1, 4, 4), float("nan"), dtype=F64)
    assert bool(interpolated(field, [far, far], beyond_centres(Grid((4, 4)))).isnan().all())
    far = torch.full((1, 4, 4), 1e6, dtype=F64)
    assert bool(torch.equal(interpolated(field, [far, far], (("zero",) * 2,) * 2), torch.zeros_like(field)))


def test_bad_grids_are_refused_in_one_sentence():
    def refused(pattern, *arguments):
        with pytest.raises(UsageError, match=pattern):
            Grid(*arguments)

    refused("one to three axes", (8,) * 4)
    refused("at least 2 cells", (8, 1))
    refused("one entry for each of the 2 axes", (8, 8), (1.0,))
    refused("positive and finite", (8, 8), (1.0, math.nan))
    refused("pair of no_slip and free_slip; found 'open'", (8,), (1.0,), ("open",))


def test_sides_are_values_and_their_names_are_shorthands():
    named = Grid((8, 9), sides=("periodic", ("no_slip", "free_slip")))
    assert named == Grid((8, 9), sides=(Periodic(), (NoSlip(), FreeSlip())))
    channel = Grid((8, 6), (4.0, 1.5), ((Inflow(2.0), Outflow()), ("no_slip", NoSlip(1.0))))
    assert channel.free(0) == (1, 9) and channel.free(1) == (1, 6)
    assert channel.faces(0) == (8, 6) and channel.faces(1) == (8, 5)
    assert channel.places(0, 0).tolist() == [0.5 * i for i in range(1, 9)]
    assert Grid((8,), sides=((Outflow(), Outflow()),)).faces(0) == (9,)
    for wrong in (NoSlip, Inflow):
        with pytest.raises(UsageError, match="finite"):
            wrong(math.inf)
    with pytest.raises(UsageError, match=r"walls at rest; found Inflow\(speed=2.0\)"):
        pressure_solver(channel, torch.zeros(1))
