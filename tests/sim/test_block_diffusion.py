"""Steady diffusion with a coefficient in blocks: elements, direct solves, and derivatives of any order."""

import math

import numpy as np
import pytest
import torch
from taylor import convergence_order, taylor_rates

from dpcontrol.results import UsageError
from dpcontrol.sim import block_diffusion

F64 = torch.float64
TEN = torch.tensor(10.0, dtype=F64)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def dense(coefficient, load, spacing):
    """The same elements assembled cell by cell into one dense matrix; ``(nx + 1, ny + 1)``."""
    nx, ny = coefficient.shape
    slope, mass = np.array([[1.0, -1.0], [-1.0, 1.0]]), np.array([[2.0, 1.0], [1.0, 2.0]]) / 6
    hx, hy = spacing
    cell = np.kron(slope / hx, mass * hy) + np.kron(mass * hx, slope / hy)
    number = np.arange((nx + 1) * (ny + 1)).reshape(nx + 1, ny + 1)
    matrix = np.zeros((number.size, number.size))
    for i in range(nx):
        for j in range(ny):
            corners = number[i : i + 2, j : j + 2].reshape(-1)
            matrix[np.ix_(corners, corners)] += float(coefficient[i, j]) * cell
    inside = number[1:-1, 1:-1].reshape(-1)
    u = np.zeros(number.size)
    u[inside] = np.linalg.solve(matrix[np.ix_(inside, inside)], load.reshape(-1)[inside])
    return torch.from_numpy(u.reshape(number.shape))


def test_second_order_where_the_blocks_are_alike():
    sizes, errors = [16, 32, 64], []
    for n in sizes:
        system = block_diffusion((4, 2), cells=(n // 4, n), lengths=(1.0, 2.0), coefficient=3.0)
        x, y = system.solve.box.centres()
        source = (
            3.0 * (math.pi**2 + (1.5 * math.pi) ** 2) * torch.sin(math.pi * x) * torch.sin(1.5 * math.pi * y)
        )
        nodes = torch.meshgrid(
            torch.linspace(0, 1, n + 1, dtype=F64), torch.linspace(0, 2, 2 * n + 1, dtype=F64), indexing="ij"
        )
        exact = torch.sin(math.pi * nodes[0]) * torch.sin(1.5 * math.pi * nodes[1])
        found = system.solve({"coefficient": system.defaults["coefficient"], "source": source})
        errors.append(float((found[0] - exact).square().mean().sqrt()))
    assert convergence_order(sizes, errors) == pytest.approx(-2.0, abs=0.05)


@pytest.mark.parametrize(
    ("blocks", "cells", "lengths"),
    [
        ((3, 4), (3, 2), (1.0, 2.0)),
        ((1, 1), (3, 4), (1.0, 1.0)),
        ((5, 1), (1, 2), (0.5, 1.0)),
        ((7, 3), 2, (1.0, 1.0)),
    ],
)
def test_it_solves_the_equations_of_the_elements(blocks, cells, lengths):
    """Whatever the number of rows that run abreast: eight, four and one of them are in eleven and in three."""
    for rows in (11, 3):
        system = block_diffusion(blocks, cells=cells, lengths=lengths)
        field = system.solve
        coefficient, source = random(rows, *blocks).exp(), random(rows, *field.box.cells, seed=1)
        found = field({"coefficient": coefficient, "source": source})
        load = field.load(source)
        assert float(found[:, [0, -1]].abs().max()) == float(found[:, :, [0, -1]].abs().max()) == 0.0
        for row in range(rows):
            fine = coefficient[row]
            for axis in range(2):
                fine = fine.repeat_interleave(field.box.cells[axis] // blocks[axis], axis)
            expected = dense(fine, load[row].numpy(), field.box.spacing)
            assert float((found[row] - expected).abs().max()) < 1e-12 * float(expected.abs().max())


def test_the_source_is_shared_evenly_by_the_corners_of_a_cell():
    field = block_diffusion((2, 3), cells=2).solve
    cells = random(2, 4, 6)
    assert float(field.load(cells).sum(1).sub(cells.sum((1, 2)) / 24).abs().max()) < 1e-15
    alike = field.load(torch.full((4, 6), 2.5, dtype=F64)).reshape(5, 7)[1:-1, 1:-1]
    assert torch.allclose(
        alike, field.load(torch.tensor(2.5, dtype=F64)).reshape(5, 7)[1:-1, 1:-1], rtol=1e-14
    )


def test_what_the_source_does_is_the_energy_of_the_field():
    system = block_diffusion((4, 4), cells=3)
    coefficient = random(5, 4, 4).exp()
    u = system.solve({"coefficient": coefficient, "source": TEN}).flatten(1)
    work = (u * system.solve.load(TEN)).sum(1)
    assert torch.allclose(
        (system.solve.system.energies(u, u) * coefficient.flatten(1)).sum(1), work, rtol=1e-12
    )
    thrice = system.solve({"coefficient": 3 * coefficient, "source": TEN}).flatten(1)
    assert torch.allclose(3 * thrice, u, rtol=1e-12)


def test_the_solution_operator_is_its_own_adjoint():
    field = block_diffusion((3, 3), cells=4).solve
    coefficient = random(6, 3, 3).exp()
    f, g = random(6, 12, 12, seed=1), random(6, 12, 12, seed=2)
    left = (field({"coefficient": coefficient, "source": f}).flatten(1) * field.load(g)).sum(1)
    right = (field({"coefficient": coefficient, "source": g}).flatten(1) * field.load(f)).sum(1)
    assert torch.allclose(left, right, rtol=1e-12)


def test_gradients_belong_to_their_function():
    system = block_diffusion((4, 4), cells=2)
    weights = random(3, 9, 9, seed=3)
    point = {"coefficient": random(3, 4, 4).exp(), "source": 1 + random(3, 8, 8, seed=1)}
    for name in point:

        def loss(value, name=name):
            return (system.solve({**point, name: value}) * weights).sum().square()

        rates = taylor_rates(loss, point[name], largest=0.004)
        assert min(rates) > 1.9 and max(rates) < 2.1, (name, rates)


@pytest.mark.parametrize("compiled", [True, False])
def test_derivatives_of_second_order_in_forward_and_reverse_mode(compiled, monkeypatch):
    if not compiled:
        monkeypatch.setattr("dpcontrol.kernels.fronts.Fronts.can_run", lambda *_: False)
    field = block_diffusion((2, 3), cells=2).solve

    def solve(coefficient, source):
        return field({"coefficient": coefficient, "source": source})

    point = random(2, 2, 3).exp().requires_grad_(), random(2, 4, 6, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(solve, point, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(solve, point)

    def loss(coefficient):
        return solve(coefficient, TEN)[0].square().sum()

    at = point[0][0].detach()
    mixed, reverse = torch.func.hessian(loss)(at), torch.func.jacrev(torch.func.jacrev(loss))(at)
    assert torch.allclose(mixed, reverse, rtol=1e-10)


def test_a_population_under_vmap_is_more_rows():
    field = block_diffusion((3, 4), cells=2).solve
    many = random(5, 3, 4).exp()

    def solve(coefficient):
        return field({"coefficient": coefficient, "source": TEN})

    together = torch.vmap(solve)(many)
    assert torch.equal(together[:, 0], solve(many))
    each = torch.vmap(torch.func.grad(lambda a: solve(a).square().sum()))(many)
    leaf = many.clone().requires_grad_()
    solve(leaf).square().sum().backward()
    assert torch.allclose(each, leaf.grad, rtol=1e-12)
    tangents = torch.eye(12, dtype=F64).reshape(12, 3, 4)
    forward = torch.vmap(lambda t: torch.func.jvp(solve, (many[0],), (t,))[1])(tangents)
    assert torch.allclose(
        forward.movedim(0, -1).reshape(1, 7, 9, 3, 4), torch.func.jacrev(solve)(many[0]), rtol=1e-10
    )


def test_rows_do_not_see_each_other():
    field = block_diffusion((4, 4), cells=3).solve
    many = random(13, 4, 4).exp()
    together = field({"coefficient": many, "source": TEN})
    for row in range(13):
        alone = field({"coefficient": many[row : row + 1], "source": TEN})[0]
        assert torch.allclose(together[row], alone, rtol=1e-12, atol=0)


@pytest.mark.parametrize("compiled", [True, False])
def test_a_bad_candidate_is_nan_alone(compiled, monkeypatch):
    if not compiled:
        monkeypatch.setattr("dpcontrol.kernels.fronts.Fronts.can_run", lambda *_: False)
    field = block_diffusion((2, 2), cells=3).solve
    many = torch.ones(5, 2, 2, dtype=F64)
    many[1, 0, 0], many[3, 1, 1], many[4, 0, 1] = -1.0, math.nan, 0.0
    found = field({"coefficient": many, "source": TEN})
    assert found[:, 1:-1, 1:-1].isnan().flatten(1).all(1).tolist() == [False, True, False, True, True]
    assert found.isnan().flatten(1).any(1).tolist() == [False, True, False, True, True]


@pytest.mark.parametrize(
    ("pattern", "call"),
    [
        ("blocks are two whole numbers.*found 8", lambda: block_diffusion(8)),
        (r"cells are two whole numbers.*found \(0, 2\)", lambda: block_diffusion((2, 2), cells=(0, 2))),
        ("no node inside", lambda: block_diffusion((5, 1), cells=1)),
        ("lengths must be positive", lambda: block_diffusion((2, 2), lengths=(1.0, -1.0))),
        (
            r"one value for each of the \(2, 2\) blocks.*found the shape \(3, 3\)",
            lambda: block_diffusion((2, 2), coefficient=torch.ones(3, 3)),
        ),
        (
            r"divide it evenly.*found the shape \(3, 3\)",
            lambda: block_diffusion((2, 2), source=torch.zeros(3, 3)),
        ),
    ],
)
def test_wrong_use_is_refused_in_one_sentence(pattern, call):
    with pytest.raises(UsageError, match=pattern):
        call()
