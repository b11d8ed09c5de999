"""Multigrid: symmetric, exact where it is coarsest, and as fast on fine grids as on coarse ones."""

import itertools
import math

import pytest
import torch
from boxes import F64, MIXED, OPEN, WALLS, blocks, disc, matrix, random, smooth, unit_box

from dpcontrol.linalg import Box, cg, multigrid, on_faces, poisson, stationary, variable_poisson
from dpcontrol.linalg.diffusion import applied


def constant(box):
    return on_faces(torch.ones(box.cells, dtype=F64), box)


def iterations(box, coefficients):
    """Of CG with one cycle, from 1 to 1e-10, for noise."""
    f = random(*box.cells, seed=3)
    return int(variable_poisson(box.cells, box.spacing, box.sides).solved(coefficients, f).iterations)


CASES = {
    "constant": (constant, 13),
    "smooth": (smooth, 14),
    "disc": (disc, 14),
    "closed or open": (lambda box: disc(box, sharp=True), 14),
    "jumps": (blocks, 24),
}


@pytest.mark.parametrize("sides", [(OPEN, OPEN), (WALLS, WALLS), (MIXED, "periodic")], ids=str)
@pytest.mark.parametrize("name", CASES)
def test_iterations_do_not_grow_with_the_grid(name, sides):
    make, most = CASES[name]
    found = [iterations(box := unit_box(n, sides), make(box)) for n in (16, 32, 64, 128)]
    if name == "jumps":  # misplaced on every coarse grid but the first
        assert max(found) <= most
    else:
        assert max(found) <= most and max(found) - min(found) <= 2, found


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_iterations_do_not_grow_up_to_a_million_cells(name):
    make, most = CASES[name]
    boxes = [unit_box(512, (OPEN, WALLS)), unit_box(1024, (OPEN, WALLS)), unit_box(64, (OPEN, WALLS, WALLS))]
    assert max(iterations(box, make(box)) for box in boxes) <= most + 2


@pytest.mark.parametrize("name", ["constant", "smooth", "disc"])
def test_three_dimensions_odd_sizes_and_flat_cells(name):
    make = CASES[name][0]
    boxes = [
        unit_box(16, (OPEN, WALLS, "periodic")),
        Box((15, 21, 9), (1 / 15, 1 / 21, 1 / 9), (MIXED, WALLS, "periodic")),
        Box((33, 47), (1 / 33, 1 / 47), ("periodic", OPEN)),
        Box((65, 31), (1 / 65, 1 / 31), (WALLS, WALLS)),
        Box((16, 128), (1 / 16, 1 / 128), (WALLS, OPEN)),
        Box((1, 40), (1.0, 1 / 40), (WALLS, OPEN)),
    ]
    found = [iterations(box, make(box)) for box in boxes]
    assert max(found) <= 17, found


@pytest.mark.parametrize(
    "sides", list(itertools.product([WALLS, OPEN, MIXED, "periodic"], repeat=2)), ids=str
)
def test_a_cycle_is_symmetric_and_positive(sides):
    box = Box((9, 7), (0.1, 0.13), sides)
    reaction = random(9, 7, seed=2).abs()
    links = box.links([c + 0.1 for c in disc(Box((9, 7), (1 / 9, 1 / 7), sides))])
    cycle = multigrid(box, links, reaction)
    units = torch.eye(63, dtype=F64).reshape(63, 9, 7)
    dense = cycle(units).reshape(63, 63)
    torch.testing.assert_close(dense, dense.T, rtol=0, atol=1e-13)
    assert float(torch.linalg.eigvalsh(dense)[0]) > 0
    # what it leaves of an error, in the norm of the operator
    A = applied(links, reaction, units, [pair == "periodic" for pair in sides]).reshape(63, 63)
    root = torch.linalg.cholesky(A)
    left = torch.linalg.eigvalsh(torch.eye(63, dtype=F64) - root.T @ dense @ root)
    assert float(left.abs().max()) < 0.45


def test_as_a_solver_it_gains_the_same_in_every_cycle_on_every_grid():
    counts = []
    for n in (16, 32, 64, 128):
        box = unit_box(n, (OPEN, WALLS))
        links = box.links(smooth(box))
        solved = stationary(
            lambda u, links=links: applied(links, None, u, (False, False)),
            random(n, n),
            2,
            preconditioner=multigrid(box, links),
        )
        assert solved.status.kind == "converged"
        counts.append(int(solved.iterations))
    assert max(counts) - min(counts) <= 4 and max(counts) < 35, counts


def test_every_scenario_has_its_own_coefficients():
    box = unit_box(12, (OPEN, WALLS))
    fields = torch.exp(random(3, 12, 12))
    f = random(3, 12, 12, seed=1)
    coefficients = on_faces(fields, box)
    solver = variable_poisson(box.cells, box.spacing, box.sides)
    together = solver.solve(coefficients, f)
    for s in range(3):
        own = [c[s] for c in coefficients]
        torch.testing.assert_close(solver.solve(own, f[s]), together[s], rtol=0, atol=1e-9)
        wanted = -torch.linalg.solve(matrix(box, own), f[s].flatten()).reshape(12, 12)
        torch.testing.assert_close(together[s], wanted, rtol=0, atol=1e-9)


def test_transforms_precondition_as_well_while_the_coefficient_is_smooth():
    counts = {}
    for n in (16, 64, 128):
        box = unit_box(n, (OPEN, WALLS))
        f, soft = random(n, n), [c.pow(0.25) for c in smooth(box)]
        direct = poisson(box.cells, box.spacing, box.sides)
        for name, kind in (("transforms", direct), ("none", "none")):
            solver = variable_poisson(box.cells, box.spacing, box.sides, preconditioner=kind)
            counts[name, n] = int(solver.solved(soft, f).iterations)
    assert max(counts["transforms", n] for n in (16, 64, 128)) <= 16
    assert counts["none", 128] > 3.5 * counts["none", 16] / 2 > 20  # grows as 1 / h
    plain = cg(
        lambda u: applied(box.links(constant(box)), None, u, (False, False)),
        f,
        2,
        preconditioner=lambda r: -direct.solve(r),
    )
    assert int(plain.iterations) == 1


def test_single_precision():
    box = unit_box(64, (WALLS, WALLS))
    coefficients, f = disc(box), random(64, 64)
    solver = variable_poisson(box.cells, box.spacing, box.sides)
    single = solver.solve([c.float() for c in coefficients], f.float())
    double = solver.solve(coefficients, f)
    assert single.dtype == torch.float32
    assert float((single - double).norm()) < 1e-4 * float(double.norm())


def test_a_closed_box_costs_no_more_than_work_proportional_to_its_cells():
    """Cells of all grids together: 4/3 of the finest in 2-D, 8/7 in 3-D."""
    for axes, bound in ((2, 4 / 3), (3, 8 / 7)):
        box = unit_box(32, (WALLS,) * axes)
        levels = multigrid(box, box.links(constant(box))).levels
        total = sum(math.prod(level.diagonal.shape) for level in levels)
        assert total < bound * 32**axes and levels[-1].diagonal.numel() == 2**axes
