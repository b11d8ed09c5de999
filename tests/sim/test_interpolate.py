"""Gather-based linear interpolation: exact on linear functions, right at the ends, differentiable in every mode."""

import pytest
import torch

from dpcontrol.sim import interpolate

F64 = torch.float64


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def test_linear_functions_are_reproduced_inside():
    cells = 16
    field = (2.0 + 0.5 * torch.arange(cells, dtype=F64)).expand(3, cells)
    offset = 3 * random(3, cells)
    position = torch.arange(cells) + offset
    inside = (position >= 0) & (position <= cells - 1)
    assert inside.any(1).all()
    found = interpolate(field, offset, "zero")
    torch.testing.assert_close(found[inside], 2.0 + 0.5 * position[inside])


def test_beyond_the_last_cell_centre_the_field_falls_linearly_to_zero():
    field = torch.full((1, 4), 2.0, dtype=F64)
    offset = torch.tensor([[-0.25, -2.5, 1.5, 0.75]], dtype=F64)
    torch.testing.assert_close(
        interpolate(field, offset, "zero"), torch.tensor([[1.5, 0.0, 1.0, 0.5]], dtype=F64)
    )
    far = torch.tensor([[-1e6, 1e6, -4.0, 7.0]], dtype=F64)
    assert torch.equal(interpolate(field, far, "zero"), torch.zeros(1, 4, dtype=F64))


def test_periodic_rows_have_no_end():
    field, offset = random(2, 8), 2.3 * random(2, 8, seed=1)
    found = interpolate(field, offset, "periodic")
    torch.testing.assert_close(interpolate(field, offset + 24, "periodic"), found)
    torch.testing.assert_close(interpolate(field.roll(3, 1), offset.roll(3, 1), "periodic"), found.roll(3, 1))


@pytest.mark.parametrize("boundary", ["zero", "periodic"])
def test_what_is_not_finite_becomes_nan_and_stays_in_its_cell(boundary):
    offset = torch.zeros(1, 4, dtype=F64)
    offset[0, 1], offset[0, 2] = float("nan"), float("inf")
    found = interpolate(torch.ones(1, 4, dtype=F64), offset, boundary)
    assert torch.isnan(found).tolist() == [[False, True, True, False]]


@pytest.mark.parametrize("boundary", ["zero", "periodic"])
def test_derivatives_of_all_modes_and_orders(boundary):
    field, offset = random(2, 6).requires_grad_(), (1.7 * random(2, 6, seed=2)).requires_grad_()

    def value(f, s):
        return interpolate(f, s, boundary)

    assert torch.autograd.gradcheck(value, (field, offset), check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(value, (field, offset), check_fwd_over_rev=True)


def test_under_vmap_as_in_a_loop():
    field, offset = random(3, 2, 5), random(3, 2, 5, seed=3)
    torch.testing.assert_close(
        torch.func.vmap(lambda f, s: interpolate(f, s, "zero"))(field, offset),
        torch.stack([interpolate(f, s, "zero") for f, s in zip(field, offset, strict=True)]),
    )
