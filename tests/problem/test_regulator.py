"""The linear-quadratic-Gaussian regulator against its closed forms."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import linalg

import dpcontrol as dp
from dpcontrol.problem import Sensed, from_law, play
from dpcontrol.problem.regulator import KalmanLQR, quadratic_gain, riccati
from dpcontrol.sim import DiscreteLinear

A = torch.tensor([[1.05, 0.2], [0.0, 0.95]], dtype=torch.float64)
B = torch.tensor([[0.0], [0.3]], dtype=torch.float64)
C = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
Q = torch.diag(torch.tensor([1.0, 0.1], dtype=torch.float64))
R = torch.tensor([[0.2]], dtype=torch.float64)
W = torch.tensor([[0.02, 0.005], [0.005, 0.03]], dtype=torch.float64)
SIGMA = 0.4
V = SIGMA**2 * C @ C.mT
SCENES, STEPS, SETTLED = 600, 160, 60


def plant(scenes: int = SCENES, steps: int = STEPS, **bounds: Any) -> dp.Problem:
    return dp.control_problem(
        DiscreteLinear(A, B),
        initial_state=torch.zeros(scenes, 2, dtype=torch.float64),
        horizon=steps,
        objective=dp.effort(),
        control=dp.ControlSequence(1, **bounds),
    )


def regulator(**words: Any) -> KalmanLQR:
    zeros = torch.zeros(2, 2, dtype=torch.float64)
    given = {"process": W, "measurement": V, "mean": zeros[0], "covariance": zeros, **words}
    return KalmanLQR(A, B, C, quadratic_gain(A, B, Q, R), **given)


def stage_costs(controller: Any) -> torch.Tensor:
    """Mean cost of a step after the start has been forgotten, ``(scenes,)``."""
    drawn = torch.randn(STEPS, SCENES, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    pushes = drawn @ torch.linalg.cholesky(W).mT
    path = play(plant(), Sensed(controller, SIGMA), pushes=pushes).trajectory
    x, u = path.states[SETTLED:-1], path.controls[SETTLED:]
    return (((x @ Q) * x).sum(-1) + ((u @ R) * u).sum(-1)).mean(0)


def test_riccati_by_doubling_is_scipys() -> None:
    generator = torch.Generator().manual_seed(0)
    for n, inputs in ((2, 1), (5, 2), (12, 3)):
        a = torch.randn(n, n, generator=generator, dtype=torch.float64)
        b = torch.randn(n, inputs, generator=generator, dtype=torch.float64)
        q, r = torch.eye(n, dtype=torch.float64), 0.3 * torch.eye(inputs, dtype=torch.float64)
        wanted = linalg.solve_discrete_are(a.numpy(), b.numpy(), q.numpy(), r.numpy())
        assert np.allclose(riccati(a, b, q, r).numpy(), wanted, rtol=1e-8)
    with pytest.raises(dp.UsageError, match="growing mode"):
        riccati(A, torch.zeros_like(B), Q, R)


def test_the_cost_of_a_step_is_the_closed_form_within_its_monte_carlo_error() -> None:
    X, P = riccati(A, B, Q, R), riccati(A.mT, C.mT, W, V)
    seen = C @ P @ C.mT + V
    after = P - P @ C.mT @ torch.linalg.solve(seen, C @ P)
    K = quadratic_gain(A, B, Q, R)
    wanted = float((X @ W).trace() + (after @ K.mT @ (R + B.mT @ X @ B) @ K).trace())
    costs = stage_costs(regulator())
    error = float(costs.std()) / SCENES**0.5
    assert float(costs.mean()) == pytest.approx(wanted, abs=4 * error)
    assert error < 0.02 * wanted
    # without the filter, what is not measured cannot be acted on: the gain on noisy states costs more
    direct = stage_costs(from_law(lambda state, t, scenario: state @ K.mT))
    assert float((direct - costs).mean()) > 10 * float((direct - costs).std()) / SCENES**0.5


def test_the_filters_gains_settle_at_the_stationary_one() -> None:
    P = riccati(A.mT, C.mT, W, V)
    wanted = P @ C.mT / (C @ P @ C.mT + V)
    gains = regulator(covariance=torch.eye(2, dtype=torch.float64)).filter_gains(200)
    assert torch.allclose(gains[-1], wanted, rtol=1e-9)
    assert not torch.allclose(gains[0], wanted, rtol=1e-2)


def test_a_start_that_is_known_and_no_noise_leave_the_law_itself() -> None:
    problem = plant(3, 20)
    K = quadratic_gain(A, B, Q, R)
    start = torch.tensor([[1.0, -0.5]], dtype=torch.float64).expand(3, 2).clone()
    problem = problem.with_scenarios(dp.Scenarios({"initial_state": start}))
    law = play(problem, from_law(lambda state, t, scenario: state @ K.mT)).trajectory
    blind = play(problem, regulator(mean=start[0], process=torch.zeros_like(W))).trajectory
    assert torch.allclose(law.controls, blind.controls, rtol=1e-9, atol=1e-12)


def test_the_filter_knows_the_bounds() -> None:
    problem = plant(3, 20, low=-0.2, high=0.2)
    start = torch.full((3, 2), 0.4, dtype=torch.float64)
    problem = problem.with_scenarios(dp.Scenarios({"initial_state": start}))
    words = {"mean": start[0], "process": torch.zeros_like(W), "bounds": (-0.2, 0.2)}
    K = quadratic_gain(A, B, Q, R)
    law = play(problem, from_law(lambda state, t, scenario: state @ K.mT)).trajectory
    filtered = play(problem, regulator(**words)).trajectory
    assert float(law.controls.abs().max()) == 0.2
    assert torch.allclose(law.controls, filtered.controls, rtol=1e-9, atol=1e-12)


def test_matrices_that_do_not_fit_are_refused() -> None:
    with pytest.raises(dp.UsageError, match=r"KalmanLQR\(mean=...\) must be a tensor \(2,\); found \(3,\)"):
        regulator(mean=torch.zeros(3))
