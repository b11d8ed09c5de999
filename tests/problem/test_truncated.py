"""Biased gradients are the gradients of all costs, each of which looks back a few steps only: closed forms."""

import pytest
import torch

import dpcontrol as dp
from dpcontrol.engine import StopGradient, TruncatedBPTT

F64 = torch.float64
A, N = 0.9, 5


def posed(mode, objective):
    return dp.control_problem(
        lambda x, u: A * x + u,
        initial_state=torch.tensor([[1.0], [-0.5]], dtype=F64),
        horizon=N,
        objective=objective,
        control=dp.ControlSequence(1, start=0.1),
        gradient=mode,
    )


def gradient(problem):
    z = problem.start()
    z["control"].requires_grad_()
    return torch.autograd.grad(problem.loss(z).sum(), z["control"])[0][..., 0]


@pytest.mark.parametrize("window", [1, 2, 3, N])
@pytest.mark.parametrize("stepwise", [False, True])
def test_every_cost_is_felt_by_the_controls_of_its_own_window(window, stepwise):
    mean = dp.fold(
        init=lambda x: torch.zeros_like(x[:, 0]),
        stage=lambda memory, x, u, t: memory + x[:, 0].square() + u[:, 0].square(),
        finish=lambda memory, x: memory + x[:, 0].square(),
    )
    squares = dp.track(torch.zeros(N + 1, 1, dtype=F64)) + dp.effort()
    problem = posed(TruncatedBPTT(window), mean if stepwise else squares)
    x = problem.simulate(problem.start()).states[..., 0]
    wanted = torch.full((2, N), 0.2, dtype=F64)
    for j in range(N):
        # the state at the edge of two windows is what the first of them has led to
        for k in range(j + 1, min((j // window + 1) * window, N) + 1):
            wanted[:, j] += 2 * x[k] * A ** (k - 1 - j)
    torch.testing.assert_close(gradient(problem), wanted, rtol=1e-12, atol=1e-13)


def test_stopped_gradients_are_windows_of_one_step():
    objective = dp.track(torch.zeros(N + 1, 1, dtype=F64)) + dp.effort()
    first, second = (gradient(posed(mode, objective)) for mode in (StopGradient(), TruncatedBPTT(1)))
    assert torch.equal(first, second)
