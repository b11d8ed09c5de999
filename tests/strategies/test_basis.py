"""Smooth modes: orthogonal, complete in order of frequency, of the size that they promise."""

import torch
from strategy_cases import F64

from dpcontrol.strategies.evolving.basis import FEWEST, FULL_UP_TO, MODES, matrix, modes_of


def test_modes_are_orthogonal_and_of_unit_size_on_average():
    B = matrix({"control": torch.zeros(31, 32, dtype=F64)}, 40)
    assert B.shape == (31 * 32, 40)
    torch.testing.assert_close(B.T @ B, 31 * 32 / 40 * torch.eye(40, dtype=F64))
    sizes = (B @ torch.randn(40, 4000, generator=torch.Generator().manual_seed(0), dtype=F64)).square().mean()
    assert abs(float(sizes) - 1) < 0.03


def test_modes_are_the_eigenvectors_of_the_discrete_laplacian_with_the_smallest_eigenvalues():
    n, modes = 9, 7
    second = torch.diag(torch.full((n - 1,), -1.0, dtype=F64), 1)
    second = second + second.T + 2 * torch.eye(n, dtype=F64)
    second[0, 0] = second[-1, -1] = 1.0  # reflecting sides
    eye = torch.eye(n, dtype=F64)
    laplacian = torch.kron(second, eye) + torch.kron(eye, second)
    B = matrix({"control": torch.zeros(n, n, dtype=F64)}, modes)
    values = torch.einsum("ij,ik,kj->j", B, laplacian, B) / (n * n / modes)
    torch.testing.assert_close(laplacian @ B, B * values)
    lowest = torch.linalg.eigvalsh(laplacian)[:modes]
    # order by |(k1, k2)| and by eigenvalue agree up to the dispersion of the grid
    assert float(values.max()) <= float(lowest.max()) * 1.2


def test_all_modes_span_the_whole_space():
    assert matrix({"control": torch.zeros(5, 2, dtype=F64)}, 10) is None
    B = matrix({"control": torch.zeros(5, 2, dtype=F64)}, 9)
    assert int(torch.linalg.matrix_rank(B)) == 9


def test_every_leaf_takes_part_and_parameters_are_kept_whole():
    layout = {
        "control": (torch.zeros(20, dtype=F64), torch.zeros(20, dtype=F64)),
        "parameters": {"k": torch.ones(3)},
    }
    B = matrix(layout, 6)
    assert B.shape == (43, 9)
    assert (B.abs().sum(1) > 0).all()
    torch.testing.assert_close(B[40:, 6:], torch.eye(3, dtype=F64))
    first = matrix(layout, 1)  # at least one each
    assert first.shape == (43, 5)
    torch.testing.assert_close(first[:20, 0], torch.ones(20, dtype=F64))


def test_auto_searches_few_numbers_in_full():
    assert modes_of("auto", {"control": torch.zeros(FULL_UP_TO)}) is None
    assert modes_of("auto", {"control": torch.zeros(FULL_UP_TO + 1)}) == FEWEST
    assert modes_of("auto", {"control": torch.zeros(31, 32)}) == MODES
    assert modes_of(7, {"control": torch.zeros(3)}) == 7
