"""The compiled solves front by front, against dense matrices."""

import pytest
import torch

from dpcontrol.sim import block_diffusion

pytest.importorskip("numba")
F64 = torch.float64


def answers(field, theta, source, direction):
    """The field, the gradient of a number that is made of it, and a product with its Hessian."""
    theta, source = theta.clone().requires_grad_(), source.clone().requires_grad_()
    u = field({"coefficient": theta, "source": source})
    gradients = torch.autograd.grad((u * direction).sum().square(), (theta, source), create_graph=True)
    slope = sum((g * g.detach()).sum() for g in gradients)
    plain = torch.autograd.grad(
        (field({"coefficient": theta, "source": source}) * direction).sum(), (theta, source)
    )
    return [u, *gradients, *plain, *torch.autograd.grad(slope, (theta, source))]


@pytest.mark.parametrize(
    ("blocks", "cells", "rows", "dtype"),
    [
        ((4, 4), (4, 4), 13, F64),
        ((8, 8), (4, 4), 5, F64),
        pytest.param((3, 5), (2, 3), 8, torch.float32, marks=pytest.mark.slow),  # compiles once more
        ((6, 2), (5, 1), 3, F64),
    ],
)
def test_loops_equal_dense_matrices(blocks, cells, rows, dtype, monkeypatch):
    field = block_diffusion(blocks, cells=cells).solve
    generator = torch.Generator().manual_seed(1)
    shape = (blocks[0] * cells[0], blocks[1] * cells[1])
    theta = torch.randn(rows, *blocks, generator=generator, dtype=F64).exp()
    source = 1 + torch.rand(rows, *shape, generator=generator, dtype=F64)
    direction = torch.randn(rows, shape[0] + 1, shape[1] + 1, generator=generator, dtype=F64)
    assert field.system.raw_factor(theta.flatten(1).to(dtype)).ndim == 2
    loops = answers(field, *(leaf.to(dtype) for leaf in (theta, source, direction)))
    monkeypatch.setattr("dpcontrol.kernels.fronts.Fronts.can_run", lambda *_: False)
    assert field.system.raw_factor(theta.flatten(1)).ndim == 3
    tolerance = 1e-12 if dtype == F64 else 1e-3
    for found, expected in zip(loops, answers(field, theta, source, direction), strict=True):
        assert found.dtype == dtype
        assert float((found.double() - expected).detach().abs().max()) < tolerance * float(
            expected.detach().abs().max()
        )


def test_threads_change_nothing(monkeypatch):
    monkeypatch.setattr("dpcontrol.kernels.native.WORTH_A_THREAD", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    fronts = block_diffusion((4, 4)).solve.system.fronts
    theta = torch.rand(21, 16, generator=torch.Generator().manual_seed(3), dtype=F64) + 0.1
    several = fronts.factor(theta)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert torch.equal(several, fronts.factor(theta))
