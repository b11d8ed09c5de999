"""Krylov methods: against dense solves, each scenario on its own, and nothing unconverged goes unnoticed."""

import pytest
import torch
from boxes import F64, random

from dpcontrol.linalg import NotConverged, Stopping, bicgstab, cg, stationary
from dpcontrol.results import UsageError


def spd(count, size, worst=100.0):
    """Symmetric definite matrices of growing condition."""
    q = torch.linalg.qr(random(count, size, size))[0]
    spread = torch.stack(
        [torch.linspace(1, 1 + (worst - 1) * (k + 1) / count, size, dtype=F64) for k in range(count)]
    )
    return q @ torch.diag_embed(spread) @ q.mT


def product(matrix):
    return lambda x: (matrix @ x.flatten(-2).unsqueeze(-1)).squeeze(-1).unflatten(-1, x.shape[-2:])


@pytest.mark.parametrize("method", [cg, bicgstab])
def test_against_dense_solves(method):
    A, b = spd(5, 12), random(5, 3, 4, seed=1)
    if method is bicgstab:
        A = A + 5 * random(5, 12, 12, seed=2)
    wanted = torch.linalg.solve(A, b.flatten(1)).reshape(b.shape)
    solved = method(product(A), b, 2, stop=Stopping(1e-12))
    assert solved.status.kind == "converged" and bool(solved.converged.all())
    torch.testing.assert_close(solved.solution, wanted, rtol=0, atol=1e-10 * float(wanted.abs().max()))
    true = (b - product(A)(solved.solution)).flatten(1).norm(dim=1) / b.flatten(1).norm(dim=1)
    torch.testing.assert_close(solved.residuals, true, rtol=1e-3, atol=1e-15)


def test_cg_ends_after_as_many_steps_as_there_are_eigenvalues():
    q = torch.linalg.qr(random(12, 12))[0]
    values = torch.tensor([1.0, 2.0, 7.0], dtype=F64).repeat(4)
    solved = cg(lambda x: x @ (q @ torch.diag(values) @ q.T), random(4, 12, seed=1), 1)
    assert solved.iterations.tolist() == [3, 3, 3, 3]


@pytest.mark.parametrize("method", [cg, bicgstab])
def test_scenarios_stop_when_they_have_converged_and_do_not_see_each_other(method):
    A, b, stop = spd(4, 12, 8.0), random(4, 3, 4, seed=1), Stopping(1e-4)
    b = b * torch.tensor([1e-6, 1.0, 0.0, 1e6], dtype=F64).reshape(4, 1, 1)
    together = method(product(A), b, 2, stop=stop)
    assert len(set(together.iterations.tolist())) > 2
    assert float(together.solution[2].abs().max()) == 0 and int(together.iterations[2]) == 0
    for s in range(4):
        alone = method(product(A[s : s + 1]), b[s : s + 1], 2, stop=stop)
        assert alone.iterations[0] == together.iterations[s]
        torch.testing.assert_close(alone.solution, together.solution[s : s + 1], rtol=1e-9, atol=0)
    rare = method(product(A), b, 2, stop=Stopping(1e-4, check_every=7))
    assert torch.equal(rare.iterations, together.iterations)


def test_a_preconditioner_and_a_guess_save_iterations():
    A, b = spd(1, 12, 1e4), random(1, 3, 4, seed=1)
    A = A + torch.diag(torch.logspace(0, 6, 12, dtype=F64))
    jacobi = torch.diagonal(A[0]).reshape(3, 4)
    plain, better = cg(product(A), b, 2), cg(product(A), b, 2, preconditioner=lambda r: r / jacobi)
    assert int(better.iterations) < int(plain.iterations)
    near = better.solution * (1 + 1e-6)
    assert int(cg(product(A), b, 2, preconditioner=lambda r: r / jacobi, guess=near).iterations) < int(
        better.iterations
    )
    assert int(cg(product(A), b, 2, guess=better.solution).iterations) == 0


def test_stationary_iteration_contracts_as_its_preconditioner_says():
    A, b = spd(1, 12, 3.0), random(1, 3, 4, seed=1)
    solved = stationary(product(A), b, 2, preconditioner=lambda r: r / 2)
    assert int(solved.iterations) in range(25, 36)  # 2^-33 = 1e-10
    assert float(solved.residuals) < 1e-10


@pytest.mark.parametrize("method", [cg, bicgstab])
def test_what_has_not_converged_is_told_and_given_out_by_no_oversight(method):
    A, b = spd(2, 12, 1e4), random(2, 3, 4, seed=1)
    short = method(product(A), b, 2, stop=Stopping(iterations=3))
    assert short.status.kind == "iterations spent" and not bool(short.converged.any())
    with pytest.raises(NotConverged, match="2 of 2 linear systems did not converge within 3 iterations"):
        _ = short.solution
    assert bool(short.or_nan().isnan().all()) and bool(short.best()[0].isfinite().all())
    b[1, 0, 0] = torch.inf
    half = method(product(A), b, 2)
    assert half.converged.tolist() == [True, False] and half.status.kind == "failed"
    assert "not finite" in half.status.sentence
    assert half.or_nan().isnan().flatten(1).any(1).tolist() == [False, True]


@pytest.mark.parametrize("method", [cg, bicgstab])
def test_a_right_hand_side_outside_the_range_stalls(method):
    singular = torch.diag(torch.tensor([0.0, 1.0, 2.0, 3.0], dtype=F64))
    solved = method(lambda x: x @ singular, torch.ones(1, 4, dtype=F64), 1)
    assert solved.status.kind == "stalled" and "outside its range" in solved.status.sentence
    solved = method(lambda x: x @ singular, torch.tensor([[0.0, 1.0, 1.0, 1.0]], dtype=F64), 1)
    torch.testing.assert_close(solved.solution, torch.tensor([[0.0, 1.0, 0.5, 1 / 3]], dtype=F64))


def test_single_precision_ends_at_its_rounding_and_says_so():
    A = spd(1, 12, 1e5)
    b = (A @ torch.ones(12, dtype=F64)).reshape(1, 3, 4)  # the worst case: a large x for a small b
    b = torch.linalg.eigh(A[0])[1][:, 0].reshape(1, 3, 4)
    solved = cg(product(A.float()), b.float(), 2, stop=Stopping(1e-6))
    assert solved.status.kind == "converged" and "as small as rounding allows" in solved.status.sentence
    assert 1e-6 < float(solved.residuals) < 1e-2
    assert cg(product(A), b, 2).status.kind == "converged"


@pytest.mark.parametrize(
    ("pattern", "call"),
    [
        ("tolerance is a fraction", lambda: Stopping(2.0)),
        ("must be 1 or more", lambda: Stopping(iterations=0)),
        ("a real floating tensor", lambda: cg(lambda x: x, torch.ones(3, dtype=torch.complex128), 1)),
        (
            "the guess must be like",
            lambda: cg(lambda x: x, torch.ones(1, 3), 1, guess=torch.ones(1, 3, dtype=F64)),
        ),
        ("no value inside", lambda: torch.vmap(lambda b: cg(lambda x: x, b, 1).solution)(torch.ones(2, 3))),
    ],
)
def test_wrong_use_is_refused_in_one_sentence(pattern, call):
    with pytest.raises(UsageError, match=pattern):
        call()
