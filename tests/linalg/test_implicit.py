"""Implicit solves: dense derivatives, gradcheck, Taylor, transforms, null spaces, and what is told."""

import math

import pytest
import torch
from boxes import F64, MIXED, OPEN, WALLS, disc, matrix, random, smooth, unit_box
from taylor import convergence_order, taylor_rates

from dpcontrol.linalg import Box, LinearSolver, NotConverged, Stopping, on_faces, poisson, variable_poisson
from dpcontrol.results import UsageError

TIGHT = Stopping(1e-13)


def advected(theta, x):
    """A matrix that is not symmetric: diffusion, a wind that depends on ``theta``, and a sink."""
    wind, sink = theta["wind"], theta["sink"]
    left, right = torch.roll(x, 1, -1), torch.roll(x, -1, -1)
    return 2 * x - left - right + wind.sin() * (right - left) + sink * x


def advection(**options):
    return LinearSolver(advected, 1, symmetric=False, stop=TIGHT, **options)


def steep():
    return {"wind": random(2, 5), "sink": random(5, seed=1).exp()}


def test_nonsymmetric_against_dense_solves_and_their_derivatives():
    theta, b, weights = steep(), random(2, 5, seed=2), random(2, 5, seed=3)

    def dense(wind, sink, b):
        A = torch.vmap(lambda unit: advected({"wind": wind, "sink": sink}, unit.expand(2, 5)))(
            torch.eye(5, dtype=F64)
        )
        return torch.linalg.solve(A.permute(1, 2, 0), b.unsqueeze(-1)).squeeze(-1)

    def matrix_free(wind, sink, b):
        return advection().solve({"wind": wind, "sink": sink}, b)

    inputs = (theta["wind"], theta["sink"], b)
    found = [
        torch.func.grad(lambda *z, f=f: (f(*z).pow(3) * weights).sum(), (0, 1, 2))(*inputs)
        for f in (dense, matrix_free)
    ]
    for wanted, own in zip(*found, strict=True):
        torch.testing.assert_close(own, wanted, rtol=0, atol=1e-10)


@pytest.mark.parametrize("preconditioned", [False, True])
def test_nonsymmetric_derivatives_of_all_kinds(preconditioned):
    diagonal = (lambda theta: lambda r: r / (2 + theta["sink"])) if preconditioned else None
    solver = advection(preconditioner=diagonal)

    def solve(wind, sink, b):
        return solver.solve({"wind": wind, "sink": sink}, b)

    inputs = tuple(leaf.requires_grad_() for leaf in (*steep().values(), random(2, 5, seed=2)))
    assert torch.autograd.gradcheck(solve, inputs, check_forward_ad=True, fast_mode=True)
    assert torch.autograd.gradgradcheck(solve, inputs, check_fwd_over_rev=True, fast_mode=True)


@pytest.mark.parametrize("sides", [(MIXED, "periodic"), (WALLS, WALLS)], ids=["mixed", "closed"])
@pytest.mark.parametrize("sink", [False, True])
def test_box_derivatives_of_all_kinds(sides, sink):
    solver = variable_poisson((4, 3), (0.3, 0.2), sides, stop=TIGHT)
    coefficients = [random(2, *solver.box.faces(axis), seed=axis).exp() for axis in (0, 1)]
    reaction = [random(4, 3, seed=5).exp()] if sink else []

    def solve(first, second, f, *s):
        return solver.solve((first, second), f, reaction=s[0] if s else None)

    inputs = tuple(t.requires_grad_() for t in (*coefficients, random(2, 4, 3, seed=4), *reaction))
    assert torch.autograd.gradcheck(solve, inputs, check_forward_ad=True, fast_mode=True)
    assert torch.autograd.gradgradcheck(
        lambda *z: solve(*z).square(), inputs, check_fwd_over_rev=True, fast_mode=True
    )


def test_grad_of_vmap_vmap_of_grad_and_hessian_products():
    solver = variable_poisson((4, 3), (0.3, 0.2), (MIXED, "periodic"), stop=TIGHT)
    first, second = (random(*solver.box.faces(axis), seed=axis).exp() for axis in (0, 1))
    f = random(2, 4, 3)

    def loss(first, f):
        return solver.solve((first, second), f).pow(3).sum()

    many = torch.stack([first, 2 * first, first.square()])
    gradients = torch.vmap(torch.func.grad(loss), (0, None))(many, f)
    for row, own in zip(many, gradients, strict=True):
        torch.testing.assert_close(torch.func.grad(loss)(row, f), own, rtol=0, atol=1e-12)
    total = torch.func.grad(lambda rows: torch.vmap(loss, (0, None))(rows, f).sum())(many)
    torch.testing.assert_close(total, gradients, rtol=0, atol=1e-12)
    nested = torch.vmap(torch.vmap(lambda c, f: solver.solve((c, second), f), (None, 0)), (0, None))(
        many, torch.stack([f, 2 * f])
    )
    torch.testing.assert_close(nested[1, 1], solver.solve((many[1], second), 2 * f), rtol=0, atol=1e-12)
    direction = random(*first.shape, seed=7)
    product = torch.func.jvp(lambda c: torch.func.grad(loss)(c, f), (first,), (direction,))[1]
    h = 1e-5
    ends = [torch.func.grad(loss)(first + sign * h * direction, f) for sign in (1, -1)]
    torch.testing.assert_close(product, (ends[0] - ends[1]) / (2 * h), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("obstacle", [False, True])
@pytest.mark.parametrize("sides", [(OPEN, OPEN), (WALLS, WALLS)], ids=["open", "closed"])
def test_taylor_in_coefficients_and_right_hand_side(sides, obstacle):
    box = unit_box(12, sides)
    solver = variable_poisson(box.cells, box.spacing, sides, stop=TIGHT)
    base = disc(box) if obstacle else smooth(box)

    def loss(z):
        faces = [c * (1 + a) for c, a in zip(base, z["faces"], strict=True)]
        return (solver.solve(faces, z["f"]) * weights).sum().square()

    weights = random(2, 12, 12, seed=9)
    point = {
        "faces": [0.1 * random(*c.shape, seed=i) for i, c in enumerate(base)],
        "f": random(2, 12, 12, seed=4),
    }
    for name in point:
        rates = taylor_rates(lambda value, name=name: loss({**point, name: value}), point[name], largest=0.02)
        assert min(rates) > 1.9 and max(rates) < 2.1, (name, rates)


def test_the_memory_of_a_gradient_is_that_of_the_solution():
    """Nothing of the iterations is kept: what autograd saves is the solution and what the operator depends on."""
    box = unit_box(16, (OPEN, OPEN))
    coefficients, f = [c.requires_grad_() for c in smooth(box)], random(16, 16).requires_grad_()
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.numel()) or t, lambda t: t):
        variable_poisson(box.cells, box.spacing, box.sides).solve(coefficients, f)
    assert sum(saved) < 8 * f.numel()


# -- null spaces


def test_a_closed_box_gives_the_pseudo_inverse_with_closed_cells_left_out():
    box = unit_box(9, (WALLS, WALLS))
    coefficients = disc(box, sharp=True)
    f = random(9, 9)
    found = variable_poisson(box.cells, box.spacing, box.sides).solve(coefficients, f)
    wanted = -(torch.linalg.pinv(matrix(box, coefficients), hermitian=True) @ f.flatten()).reshape(9, 9)
    closed = matrix(box, coefficients).diagonal().reshape(9, 9) == 0
    assert int(closed.sum()) > 3
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-9)
    assert float(found[closed].abs().max()) == 0 and abs(float(found.sum())) < 1e-12


def test_constant_coefficients_agree_with_the_direct_solver():
    for sides in [(WALLS, WALLS), (MIXED, "periodic"), ("periodic", "periodic")]:
        box = unit_box(10, sides)
        f = random(3, 10, 10)
        ones = [torch.ones(box.faces(axis), dtype=F64) for axis in (0, 1)]
        direct = poisson(box.cells, box.spacing, sides).solve(f)
        found = variable_poisson(box.cells, box.spacing, sides).solve(ones, f)
        torch.testing.assert_close(found, direct, rtol=0, atol=1e-11)


def test_flow_around_an_obstacle_is_projected_to_have_no_divergence():
    """What a flow solver needs: ``v - grad p`` on the open fractions of the faces, ``div (c grad p) = div (c v)``."""
    box = unit_box(32, (WALLS, WALLS))
    open_ = disc(box)
    velocity = [random(2, *c.shape, seed=i) for i, c in enumerate(open_)]
    for axis, part in enumerate(velocity):  # nothing passes the walls
        part.movedim(axis + 1, 0)[[0, -1]] = 0

    def divergence(v):
        return sum(
            (c * part).diff(dim=axis) / h
            for axis, c, part, h in zip((-2, -1), open_, v, box.spacing, strict=True)
        )

    p = variable_poisson(box.cells, box.spacing, box.sides, stop=Stopping(1e-12)).solve(
        open_, divergence(velocity)
    )
    slopes = [torch.zeros_like(part) for part in velocity]
    slopes[0][:, 1:-1], slopes[1][:, :, 1:-1] = p.diff(dim=1) * 32, p.diff(dim=2) * 32
    after = divergence([part - slope for part, slope in zip(velocity, slopes, strict=True)])
    speed = max(float(part.abs().max()) for part in velocity)
    assert float(after.abs().max()) < 1e-9 * speed * 32


# -- what is told


def test_a_solve_that_does_not_converge_raises_or_gives_nan_and_so_do_those_of_derivatives():
    box = unit_box(16, (OPEN, OPEN))
    coefficients, f = smooth(box), random(2, 16, 16)
    strict, soft = (
        variable_poisson(box.cells, box.spacing, box.sides, stop=Stopping(iterations=3), on_failure=how)
        for how in ("raise", "nan")
    )
    with pytest.raises(NotConverged, match="2 of 2 linear systems did not converge within 3 iterations"):
        strict.solve(coefficients, f)
    f[1] = 0
    answer = soft.solve(coefficients, f)
    assert bool(answer[0].isnan().all()) and float(answer[1].abs().max()) == 0
    status = soft.solved(coefficients, f).status
    assert status.kind == "iterations spent" and "1 of 2" in status.sentence
    # the forward solve is easy (its guess is the answer), the one of the gradient is not
    f = random(1, 16, 16).requires_grad_()
    exact = variable_poisson(box.cells, box.spacing, box.sides).solve(coefficients, f.detach())
    with pytest.raises(NotConverged):
        strict.solve(coefficients, f, guess=exact).square().sum().backward()
    soft.solve(coefficients, f, guess=exact).square().sum().backward()
    assert bool(f.grad.isnan().all())


def test_one_bad_candidate_does_not_spoil_the_others():
    box = unit_box(8, (OPEN, OPEN))
    field = torch.ones(3, 8, 8, dtype=F64)
    field[1] = torch.nan
    answer = variable_poisson(box.cells, box.spacing, box.sides, on_failure="nan").solve(
        on_faces(field, box), torch.ones(3, 8, 8, dtype=F64)
    )
    assert answer.isnan().flatten(1).any(1).tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("pattern", "call"),
    [
        ("the method is one of", lambda: LinearSolver(advected, 1, method="gmres")),
        (
            "project belongs to symmetric",
            lambda: LinearSolver(advected, 1, symmetric=False, project=lambda t, v: v),
        ),
        ('"raise" or "nan"', lambda: variable_poisson((4,), (1.0,), (OPEN,), on_failure="ignore")),
        ("the preconditioner is", lambda: variable_poisson((4,), (1.0,), (OPEN,), preconditioner="ilu")),
        ("one entry for each", lambda: variable_poisson((4, 4), (1.0,), (OPEN,))),
        ("must be positive", lambda: Box((4,), (0.0,), (OPEN,))),
        ("the sides of an axis", lambda: Box((4,), (1.0,), ("open",))),
        ("the mean on a face", lambda: on_faces(torch.ones(4), Box((4,), (1.0,), (OPEN,)), "geometric")),
        (
            r"stand on the faces .* here \(..., 5\); found \[\(4,\)\]",
            lambda: variable_poisson((4,), (1.0,), (OPEN,)).solve([torch.ones(4)], torch.ones(4)),
        ),
        (
            r"right-hand side stands in the cells",
            lambda: variable_poisson((4,), (1.0,), (OPEN,)).solve([torch.ones(5)], torch.ones(5)),
        ),
    ],
)
def test_wrong_use_is_refused_in_one_sentence(pattern, call):
    with pytest.raises(UsageError, match=pattern):
        call()


def test_a_tensor_that_came_in_by_the_back_door_is_refused():
    hidden, b = torch.ones(3, dtype=F64), torch.ones(2, 3, dtype=F64)

    def loss(hidden):
        return LinearSolver(lambda theta, x: hidden * x, 1).solve((), b).sum()

    with pytest.raises(UsageError, match="is no leaf of theta"):
        loss(hidden.clone().requires_grad_())
    with pytest.raises(UsageError, match="is no leaf of theta"):
        torch.func.grad(loss)(hidden)
    assert float(loss(hidden)) == 6


# -- the equation


def test_second_order_for_a_smooth_coefficient():
    """``a = 1 + x y``, ``u = sin(pi x) cos(pi y / 2)``: zero at x = 0, 1 and y = 1, no flux at y = 0."""
    sizes, errors, p = [], [], math.pi
    for n in (16, 32, 64):
        box = unit_box(n, (OPEN, ("neumann", "dirichlet")))
        x, y = torch.meshgrid(*[(torch.arange(n, dtype=F64) + 0.5) / n] * 2, indexing="ij")
        u = torch.sin(p * x) * torch.cos(p * y / 2)
        f = (
            y * p * torch.cos(p * x) * torch.cos(p * y / 2)
            - x * p / 2 * torch.sin(p * x) * torch.sin(p * y / 2)
            - (1 + x * y) * 1.25 * p**2 * u
        )
        # between cells by the mean; on the sides themselves by the value there
        faces = list(on_faces(1 + x * y, box, "arithmetic"))
        row = (torch.arange(n, dtype=F64) + 0.5) / n
        faces[0][0], faces[0][-1], faces[1][:, -1] = 1.0, 1 + row, 1 + row
        sizes.append(1 / n)
        errors.append(
            float((variable_poisson(box.cells, box.spacing, box.sides).solve(faces, f) - u).abs().max())
        )
    assert convergence_order(sizes, errors) == pytest.approx(2.0, abs=0.1)


def test_layers_in_series_are_exact_with_the_harmonic_mean():
    """-(a u')' = 0 with a source of flux at one end: potentials fall by resistance."""
    n = 10
    box = Box((n,), (1 / n,), (("dirichlet", "neumann"),))
    a = torch.where(torch.arange(n) < 5, 1.0, 100.0).double()
    f = torch.zeros(n, dtype=F64)
    f[-1] = -float(n)  # unit flux enters the last cell
    u = variable_poisson((n,), (1 / n,), box.sides).solve(on_faces(a, box), f)
    x = (torch.arange(n, dtype=F64) + 0.5) / n
    exact = torch.where(x < 0.5, x, 0.5 + (x - 0.5) / 100)
    torch.testing.assert_close(u, exact, rtol=0, atol=1e-10)
