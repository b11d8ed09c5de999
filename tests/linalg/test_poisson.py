"""Direct Poisson solves: manufactured solutions, residuals for every mix of sides, derivatives."""

import itertools
import math

import pytest
import torch
from taylor import convergence_order

from dpcontrol.linalg import poisson

F64 = torch.float64
SIDES = ["periodic", *itertools.product(("neumann", "dirichlet"), repeat=2)]
DENSE, FAST = 10**6, 0


def random(*shape, dtype=F64, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64).to(dtype)


def laplacian(field, spacing, sides):
    """``div grad`` cell by cell, from ghost cells; the axes of ``field`` are the last ones."""
    total = torch.zeros_like(field)
    for axis, (h, pair) in enumerate(zip(spacing, sides, strict=True), start=-len(sides)):
        row = field.movedim(axis, -1)
        if pair == "periodic":
            left, right = row[..., -1:], row[..., :1]
        else:
            sign = {"neumann": 1.0, "dirichlet": -1.0}
            left, right = sign[pair[0]] * row[..., :1], sign[pair[1]] * row[..., -1:]
        full = torch.cat((left, row, right), -1)
        total = total + ((full[..., 2:] - 2 * row + full[..., :-2]) / h**2).movedim(-1, axis)
    return total


@pytest.mark.parametrize("dense_up_to", [DENSE, FAST], ids=["dense", "fast"])
@pytest.mark.parametrize("sides", list(itertools.product(SIDES, repeat=2)), ids=str)
def test_residual_is_rounding_for_every_mix_of_sides(sides, dense_up_to):
    spacing = (0.3, 0.2)
    solver = poisson((9, 12), spacing, sides, dense_up_to=dense_up_to)
    f = random(3, 9, 12)
    if not any("dirichlet" in pair for pair in sides):
        f = f - f.mean((1, 2), keepdim=True)  # solvable only without a net source
    u = solver.solve(f)
    assert float((laplacian(u, spacing, sides) - f).abs().max()) < 1e-12
    if not any("dirichlet" in pair for pair in sides):
        assert float(u.mean((1, 2)).abs().max()) < 1e-14


@pytest.mark.parametrize("cells", [(11,), (6, 7, 8), (1, 5)])
@pytest.mark.parametrize("dense_up_to", [DENSE, FAST], ids=["dense", "fast"])
def test_one_and_three_dimensions_and_single_cells(cells, dense_up_to):
    sides = [("dirichlet", "neumann"), "periodic", ("neumann", "neumann")][: len(cells)]
    spacing = [0.5, 0.25, 0.4][: len(cells)]
    f = random(2, *cells)
    u = poisson(cells, spacing, sides, dense_up_to=dense_up_to).solve(f)
    assert float((laplacian(u, spacing, sides) - f).abs().max()) < 1e-12


def profile(pair):
    """A smooth function on (0, 1) that meets the sides, and its second derivative."""
    p = math.pi
    if pair == "periodic":
        return lambda x: torch.sin(2 * p * x), 4 * p**2
    if pair == ("neumann", "neumann"):
        return lambda x: torch.cos(2 * p * x), 4 * p**2
    if pair == ("dirichlet", "dirichlet"):
        return lambda x: torch.sin(2 * p * x), 4 * p**2
    if pair == ("neumann", "dirichlet"):
        return lambda x: torch.cos(1.5 * p * x), 2.25 * p**2
    return lambda x: torch.sin(1.5 * p * x), 2.25 * p**2


@pytest.mark.parametrize("sides", list(itertools.combinations_with_replacement(SIDES, 2)), ids=str)
def test_second_order_against_manufactured_solutions(sides):
    (first, a), (second, b) = profile(sides[0]), profile(sides[1])
    sizes, errors = [], []
    for n in (16, 32, 64, 128):
        x = (torch.arange(n, dtype=F64) + 0.5) / n
        # two lengths, so that confused axes would show
        exact = first(x)[:, None] * second(x)
        f = -(a / 4 + b) * exact
        u = poisson((n, n), (2 / n, 1 / n), sides, dense_up_to=32).solve(f)
        sizes.append(1 / n)
        errors.append(float((u - exact).abs().max()))
    assert convergence_order(sizes, errors) == pytest.approx(2.0, abs=0.05)


@pytest.mark.parametrize("dense_up_to", [DENSE, FAST], ids=["dense", "fast"])
@pytest.mark.parametrize("sides", SIDES, ids=str)
def test_derivatives_forward_reverse_and_second(sides, dense_up_to):
    solver = poisson((4, 5), (0.5, 0.7), (sides, ("neumann", "neumann")), dense_up_to=dense_up_to)
    f = random(2, 4, 5).requires_grad_()
    assert torch.autograd.gradcheck(solver.solve, f, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(
        lambda field: solver.solve(field).square(), f, check_fwd_over_rev=True
    )


@pytest.mark.parametrize("dense_up_to", [DENSE, FAST], ids=["dense", "fast"])
def test_self_adjoint_batched_and_under_vmap(dense_up_to):
    solver = poisson((8, 10), (1.0, 1.0), (("neumann", "dirichlet"), "periodic"), dense_up_to=dense_up_to)
    f, g = random(5, 8, 10), random(5, 8, 10, seed=1)
    assert float((solver.solve(f) * g).sum()) == pytest.approx(float((f * solver.solve(g)).sum()), rel=1e-12)
    alone = torch.stack([solver.solve(one) for one in f])
    torch.testing.assert_close(solver.solve(f), alone, rtol=0, atol=1e-13)
    torch.testing.assert_close(torch.func.vmap(solver.solve)(f), alone, rtol=0, atol=1e-13)


@pytest.mark.parametrize("dense_up_to", [DENSE, FAST], ids=["dense", "fast"])
def test_single_precision(dense_up_to):
    sides, spacing = (("neumann", "neumann"), ("dirichlet", "neumann")), (1.0, 1.0)
    f = random(2, 64, 64, dtype=torch.float32)
    single = poisson((64, 64), spacing, sides, dtype=torch.float32, dense_up_to=dense_up_to).solve(f)
    double = poisson((64, 64), spacing, sides, dense_up_to=dense_up_to).solve(f.double())
    assert single.dtype == torch.float32
    assert float((single - double).abs().max()) < 1e-5 * float(double.abs().max())


def test_wrong_use_is_refused_in_one_sentence():
    def refused(pattern, *arguments):
        with pytest.raises(ValueError, match=pattern):
            poisson(*arguments)

    refused("one entry for each axis", (8, 8), (1.0,), ("periodic", "periodic"))
    refused("must be positive", (8,), (0.0,), ("periodic",))
    refused("found \"?'?open", (8,), (1.0,), ("open",))
    refused("pair of", (8,), (1.0,), (("neumann", "open"),))
    with pytest.raises(ValueError, match="made for fields"):
        poisson((8,), (1.0,), ("periodic",)).solve(torch.zeros(2, 9, dtype=F64))
    with pytest.raises(ValueError, match="made for fields"):
        poisson((8,), (1.0,), ("periodic",)).solve(torch.zeros(2, 8))
