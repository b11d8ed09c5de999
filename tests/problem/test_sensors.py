"""Sensors: orders of interpolation up to the walls, amplitudes of known waves, and refusals."""

from __future__ import annotations

import math

import pytest
import torch
from precision import double_precision  # noqa: F401
from taylor import convergence_order
from torch.func import jvp, vmap

from dpcontrol.problem import Component, Mask, Modes, Points, UsageError
from dpcontrol.sim.grid import Grid


def centres(n, length=1.0):
    return (torch.arange(n) + 0.5) * (length / n)


@pytest.mark.parametrize(
    ("wall", "function"),
    [
        ("flat", lambda x: torch.cos(math.pi * x)),
        ("zero", lambda x: torch.sin(math.pi * x)),
        ("linear", torch.exp),
    ],
)
def test_points_are_second_order_up_to_the_walls(wall, function):
    positions = torch.linspace(0, 1, 41)
    errors = []
    for n in (16, 32, 64, 128):
        seen = Points(positions, 1.0, wall=wall)(function(centres(n))[None])
        errors.append(float((seen - function(positions)).abs().max()))
    assert convergence_order([1 / 16, 1 / 32, 1 / 64, 1 / 128], errors) > 1.9


def test_points_wrap_around_a_periodic_box_and_nodes_are_hit():
    n, positions = 40, torch.tensor([-1.0, -0.98, 0.3, 0.97, 0.99, 2.3])
    for at, shift in (("nodes", 0.0), ("centres", 0.5)):
        x = -1 + (torch.arange(n) + shift) * (2 / n)
        seen = Points(positions, 2.0, periodic=True, at=at, origin=-1.0)(torch.sin(math.pi * x)[None])
        assert torch.allclose(seen[0], torch.sin(math.pi * positions), atol=4e-3)
        assert torch.allclose(Points(x, 2.0, periodic=True, at=at, origin=-1.0)(x[None])[0], x)
    both_ends = torch.linspace(0, 1, 21)
    seen = Points([0.0, 0.52, 1.0], 1.0, at="nodes")((3 * both_ends + 1)[None])
    assert torch.allclose(seen, torch.tensor([[1.0, 2.56, 4.0]]))


def test_points_in_a_box_are_exact_for_products_of_lines():
    x, y, z = torch.meshgrid(centres(6, 2.0), centres(5), centres(4, 3.0), indexing="ij")
    field = 2 * x - 3 * y + x * y * z
    p = torch.tensor([[0.3, 0.2, 0.1], [1.0, 0.5, 1.4], [0.0, 1.0, 3.0]])
    expected = 2 * p[:, 0] - 3 * p[:, 1] + p.prod(1)
    assert torch.allclose(Points(p, (2.0, 1.0, 3.0), wall="linear")(field[None])[0], expected)
    grid = Grid(cells=(6, 5, 4), extent=(2.0, 1.0, 3.0))
    state = {"marker": field[None], "speed": None}
    assert torch.allclose(Points(p, grid, wall="linear", of="marker")(state)[0], expected)


@pytest.mark.parametrize("at", ["nodes", "centres"])
def test_fourier_amplitudes_are_those_that_made_the_field(at):
    shift = 0.5 if at == "centres" else 0.0
    x, y = ((torch.arange(n) + shift) / n for n in (12, 9))
    angle = 2 * math.pi * x
    field = 2 + 3 * torch.cos(angle) - torch.sin(angle) + 0.5 * torch.cos(5 * angle)
    seen = Modes([0, 1, 5], at=at)(field[None])
    assert torch.allclose(seen, torch.tensor([[2.0, 3.0, -1.0, 0.5, 0.0]]))
    wave = 2 * math.pi * (2 * x[:, None] - 3 * y)
    plane = 1 + 2 * torch.cos(wave) + 3 * torch.sin(wave)
    seen = Modes([[0, 0], [2, -3], [1, 1]], at=at)(plane[None])
    assert torch.allclose(seen, torch.tensor([[1.0, 2.0, 3.0, 0.0, 0.0]]))


def test_standing_waves_between_walls():
    x, y = centres(12), centres(9)
    cosines = 2 + 3 * torch.cos(math.pi * x) - torch.cos(11 * math.pi * x)
    assert torch.allclose(
        Modes([0, 1, 5, 11], kind="cosine")(cosines[None]), torch.tensor([[2.0, 3.0, 0.0, -1.0]])
    )
    sines = 3 * torch.sin(math.pi * x) - torch.sin(11 * math.pi * x)
    assert torch.allclose(Modes([1, 5, 11], kind="sine")(sines[None]), torch.tensor([[3.0, 0.0, -1.0]]))
    plane = (
        1 + 2 * torch.outer(torch.cos(2 * math.pi * x), torch.cos(3 * math.pi * y)) + torch.cos(math.pi * y)
    )
    seen = Modes([[0, 0], [2, 3], [0, 1]], kind="cosine")(plane[None])
    assert torch.allclose(seen, torch.tensor([[1.0, 2.0, 1.0]]))


def test_masks_and_components_pick_entries():
    u = torch.arange(2 * 3 * 4.0).reshape(2, 3, 4)
    where = torch.zeros(3, 4, dtype=torch.bool)
    where[0, 1] = where[2, 3] = True
    assert torch.equal(Mask(where)(u), torch.stack((u[:, 0, 1], u[:, 2, 3]), 1))
    assert torch.equal(Mask([[2, 3], [0, 1]])(u), torch.stack((u[:, 2, 3], u[:, 0, 1]), 1))
    assert torch.equal(Mask([3, 0], of=1)(u), u[:, 1, [3, 0]])
    assert torch.equal(Component(-1)(u), u[:, 2])
    assert torch.equal(Component(1)(u[:, :, 0]), u[:, 1:2, 0])
    assert torch.equal(Component("b")({"a": u, "b": u + 1}), u + 1)
    assert torch.equal(Component(0)((u, u + 1)), u)
    assert torch.equal(Mask([0], of=lambda state: state["a"].sum(1))({"a": u}), u.sum(1)[:, :1])


@pytest.mark.parametrize(
    "sensor",
    [
        Points([[0.3, 0.2], [0.99, 0.5]], (1.0, 1.0), periodic=(True, False)),
        Modes([[1, 2], [0, 0]]),
        Modes([[1, 2]], kind="sine"),
        Mask([[1, 2], [0, 0]]),
    ],
)
def test_sensors_are_linear_and_work_in_batches_and_both_modes(sensor):
    u = torch.randn(3, 2, 7, 6, generator=torch.Generator().manual_seed(0))
    each = torch.stack([sensor(v) for v in u])
    assert each.shape[:2] == (3, 2)
    assert torch.allclose(vmap(sensor)(u), each)
    assert torch.allclose(vmap(lambda v: jvp(sensor, (v,), (2 * v,))[1])(u), 2 * each)
    assert torch.allclose(sensor(u[0] + 2 * u[1]), each[0] + 2 * each[1])
    assert torch.autograd.gradcheck(sensor, u[0, :1].clone().requires_grad_())
    assert sensor(u[0].float()).dtype == torch.float32


def test_what_cannot_be_measured_is_refused():
    u = torch.zeros(2, 9, 5)
    where = torch.ones(9, 5, dtype=torch.bool)
    for call, words in (
        (lambda: Points([0.5, 1.5], 1.0), "a sensor at \\[1.5\\] is outside the box"),
        (lambda: Points([math.nan], 1.0, periodic=True), "outside the box"),
        (lambda: Points([0.5], -1.0), "lengths of the box must be one to three positive numbers"),
        (lambda: Points([[0.5]], (1.0, 1.0)), "a box with 2 axes are a tensor \\(measurements, 2\\)"),
        (lambda: Points([0.5], 1.0, wall="open"), "wall must be one of flat, zero, linear; found 'open'."),
        (lambda: Points([0.5], 1.0)(u), "looks at a field \\(scenarios, cells\\); found"),
        (
            lambda: Points([[0.5, 0.5]], Grid(cells=(9, 4)))(u),
            "looks at a field \\(scenarios, 9, 4\\); found",
        ),
        (lambda: Modes([0.5]), "wavenumbers are whole numbers"),
        (lambda: Modes([0], kind="sine"), "wave numbers of sines begin at 1"),
        (
            lambda: Modes([5], of=0)(u.mT),
            "9 cells along axis 0 resolve fourier wave numbers up to 4; found 5.",
        ),
        (lambda: Modes([1])(torch.zeros(2, 9) * 1j), "Modes\\(...\\) looks at real fields"),
        (lambda: Mask(torch.zeros(3, dtype=torch.bool)), "at least one entry that is measured"),
        (lambda: Mask([0.5]), "boolean tensor or whole-numbered indices"),
        (lambda: Mask(where)(u[:, :4]), "looks at a field \\(scenarios, 9, 5\\); found"),
        (
            lambda: Mask([[9, 0]])(u),
            "indices of the mask go up to \\(9, 0\\), beyond the field of shape \\(9, 5\\)",
        ),
        (lambda: Component("x")({"y": u}), "the state has no part 'x'; found"),
        (lambda: Component(9)(u), "the state has no part 9; found"),
    ):
        with pytest.raises(UsageError, match=words):
            call()
