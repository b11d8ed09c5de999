"""Gauss-Newton: linear least squares, known optima, order of convergence, boxes, and how searches end."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.optimize
import torch
from strategy_cases import F64, interrupted_and_resumed, same

from dpcontrol.engine import Checkpointed
from dpcontrol.meter import Budget, Meter
from dpcontrol.meter.squares import gauss_newton_products, jacobian, residuals
from dpcontrol.problem import (
    ControlSequence,
    Parameters,
    Scenarios,
    control_problem,
    cost,
    effort,
    reach,
    track,
)
from dpcontrol.results import UsageError
from dpcontrol.run import mismatch, run
from dpcontrol.strategies.minimising.gauss_newton import GaussNewton
from dpcontrol.strategies.minimising.multistart import MultiStart
from dpcontrol.strategies.minimising.quasi_newton import LBFGS

GAS_OIL = json.loads((Path(__file__).parents[1] / "data" / "gasoil.json").read_text())
both = pytest.mark.parametrize("strategy", [GaussNewton(), GaussNewton(dense=0)], ids=["dense", "products"])


def squares(function, size, targets, **control):
    """Minimise ``|function(u) - target|^2`` of one control for each target: ``x+ = x + u`` from zero, one step."""
    return control_problem(
        lambda x, u: x + u,
        initial_state=torch.zeros(len(targets), size, dtype=F64),
        horizon=1,
        objective=reach(targets, of=function),
        control=ControlSequence((size,), **control),
        name="squares",
    )


def rosenbrock(x):
    """Residuals of Rosenbrock's valley."""
    return torch.cat([10 * (x[:, 1:] - x[:, :-1].square()), 1 - x[:, :-1]], 1)


def bent(x):
    """A map of the plane that has no kinks and an inverse everywhere."""
    return torch.stack([x[:, 0] + 0.4 * x[:, 1].sin(), x[:, 1] + 0.4 * (x[:, 0] * 1.3).cos()], 1)


def pendulum(count=3, horizon=6):
    """A nonlinear system whose cost is a sum of squares: instances of different difficulty."""

    def step(x, u):
        return torch.stack([x[:, 0] + 0.3 * x[:, 1], x[:, 1] + 0.3 * (u[:, 0] - 2 * x[:, 0].sin())], 1)

    start = torch.zeros(count, 2, dtype=F64)
    start[:, 0] = torch.linspace(0.5, 3.0, count, dtype=F64)
    return control_problem(
        step,
        initial_state=start,
        horizon=horizon,
        objective=track(torch.zeros(horizon + 1, 2)) + 0.05 * effort(),
        control=ControlSequence((1,)),
        name="pendulum",
    )


def linear(seed=0, count=2, entries=7, size=4):
    generator = torch.Generator().manual_seed(seed)
    A = torch.randn(entries, size, generator=generator, dtype=F64)
    return A, torch.randn(count, entries, generator=generator, dtype=F64)


@both
@pytest.mark.parametrize("entries", [7, 3])
def test_linear_least_squares_take_one_step(strategy, entries):
    A, b = linear(entries=entries)
    solution = run(squares(lambda x: x @ A.T, 4, b), strategy)
    expected = torch.linalg.lstsq(A.expand(2, -1, -1), b[..., None], driver="gelsd").solution[..., 0]
    torch.testing.assert_close(solution.value["control"][:, 0], expected, rtol=0, atol=1e-10)
    asked = solution.history["latest"]
    if strategy.dense:
        assert len(asked) == 2 and solution.status.kind == "converged"
    assert solution.losses.sum() == pytest.approx(float((expected @ A.T - b).square().sum()), abs=1e-12)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("entries", [9, 2])
def test_jacobians_and_products_are_the_derivative_of_the_residuals(shared, entries):
    # by tangents where there are more residuals than unknowns, by cotangents where there are fewer
    W = torch.randn(entries, 3, generator=torch.Generator().manual_seed(1), dtype=F64)
    problem = squares(lambda x: (x @ W.T).sin() * 2, 3, torch.zeros(2, entries, dtype=F64), shared=shared)
    meter = Meter(problem)
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(meter.instances, 3, generator=generator, dtype=F64)
    v = torch.randn(meter.instances, 3, generator=generator, dtype=F64)
    which = torch.arange(meter.instances)
    losses, r = residuals(meter, x, which)
    torch.testing.assert_close(losses, meter.values(x))
    before = meter.counts
    J = jacobian(meter, x, which, r.shape[1])
    sweeps = min(3, r.shape[1])
    assert (meter.counts.gradients - before.gradients) == 2 * sweeps
    assert (meter.counts.simulated_steps - before.simulated_steps) == 2 * (1 + sweeps)
    h = 1e-6
    ahead, behind = (residuals(meter, x + s * h * v, which)[1] for s in (1, -1))
    torch.testing.assert_close(
        torch.einsum("nmd,nd->nm", J, v), (ahead - behind) / (2 * h), rtol=1e-7, atol=1e-8
    )
    found = gauss_newton_products(meter, x, v, which)
    torch.testing.assert_close(found, 2 * torch.einsum("nmd,nme,ne->nd", J, J, v))
    slope = meter.values_and_gradients(x)[1]
    torch.testing.assert_close(2 * torch.einsum("nmd,nm->nd", J, r), slope)


def test_products_of_the_same_points_run_the_system_once():
    ran = []

    def step(x, u):
        ran.append(len(x))
        return x + 0.3 * torch.sin(x) * u

    problem = control_problem(
        step,
        initial_state=torch.tensor([[0.5], [1.0], [1.5]], dtype=F64),
        horizon=4,
        objective=reach(torch.zeros(1, dtype=F64)) + effort(),
        control=ControlSequence(1),
    )
    meter, which = Meter(problem), torch.arange(3)
    frugal = Meter(replace(problem, gradient=Checkpointed(snapshots=2)))  # which may not keep a graph
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(2, 3, 4, generator=generator, dtype=F64)
    tangents = torch.randn(4, 3, 4, generator=generator, dtype=F64)
    for ask in (gauss_newton_products, lambda m, x, v, which: m.hessian_products(x, v, which)):
        known = {(i, j): ask(frugal, points[i], v, which) for i in range(2) for j, v in enumerate(tangents)}
        for i in (0, 1, 0):
            ran.clear()
            for j, v in enumerate(tangents):
                torch.testing.assert_close(ask(meter, points[i], v, which), known[i, j])
            assert len(ran) == problem.horizon
        # another scenario at the same point is another question
        rolled = ask(meter, points[0], tangents[0], which.roll(1))
        torch.testing.assert_close(rolled, ask(frugal, points[0], tangents[0], which.roll(1)))
        assert not torch.allclose(rolled, known[0, 0])


def gas_oil(substeps):
    dt = 0.025 / substeps

    def slope(y, k):
        squared = y[:, :1].square()
        return torch.cat([-(k[0] + k[2]) * squared, k[0] * squared - k[1] * y[:, 1:]], 1)

    def step(y, control, parameters):
        k = parameters["rates"]
        a = slope(y, k)
        b = slope(y + dt / 2 * a, k)
        c = slope(y + dt / 2 * b, k)
        return y + dt / 6 * (a + 2 * b + 2 * c + slope(y + dt * c, k))

    times = np.array(GAS_OIL["times"])
    steps = np.rint(times / dt).astype(int).tolist()
    return control_problem(
        step,
        initial_state=torch.tensor([[1.0, 0.0]], dtype=F64),
        horizon=max(steps),
        objective=track(torch.tensor(GAS_OIL["y"], dtype=F64), steps=steps),
        parameters={"rates": torch.ones(3, dtype=F64)},
        unknown=Parameters("rates", low=0.0),
        name="gas_oil",
    )


@pytest.mark.parametrize(
    ("strategy", "substeps", "accuracy"),
    [(GaussNewton(), 2, 1e-4), pytest.param(GaussNewton(dense=0), 1, 1e-3, marks=pytest.mark.slow)],
    ids=["dense", "products"],
)
def test_the_gas_oil_problem_of_cops(strategy, substeps, accuracy):
    solution = run(gas_oil(substeps), strategy)
    assert solution.status.kind == "converged"
    assert solution.loss == pytest.approx(5.2366e-3, rel=accuracy)
    rates = solution.value["parameters"]["rates"].tolist()
    assert rates == pytest.approx([11.847, 8.345, 1.001], abs=10 * accuracy + 6e-4)
    assert len(solution.history["loss"]) < 20


@both
def test_rosenbrocks_valley(strategy):
    start = torch.tensor([-1.2, 1.0, -1.2, 1.0], dtype=F64)
    solution = run(squares(rosenbrock, 4, torch.zeros(2, 6, dtype=F64), start=start), strategy)
    assert solution.status.kind == "converged" and solution.loss < 1e-18
    torch.testing.assert_close(solution.value["control"], torch.ones(2, 1, 4, dtype=F64))


@both
def test_convergence_is_quadratic_where_the_residuals_vanish(strategy):
    truth = torch.tensor([[0.7, -0.3]], dtype=F64)
    problem = squares(bent, 2, bent(truth), start=-1.0)
    tight = type(strategy)(dense=strategy.dense, gradient_tolerance=1e-300, loss_tolerance=1e-300)
    solution = run(problem, tight, budget=Budget(simulated_steps=2000))
    losses = np.array(sorted(set(solution.history["loss"]), reverse=True))
    misfits = np.sqrt(losses[(losses > 1e-28) & (losses < 1.0)])
    assert len(misfits) >= 3
    orders = np.log(misfits[2:] / misfits[1:-1]) / np.log(misfits[1:-1] / misfits[:-2])
    assert orders[-1] > 1.8, orders
    assert solution.status.kind == "converged"


@both
@pytest.mark.parametrize("seed", range(6))
def test_bounded_least_squares_have_the_active_set_of_scipy(strategy, seed):
    A, b = linear(seed, count=3, entries=12, size=8)
    low, high = -0.1, 0.25
    problem = squares(lambda x: x @ A.T, 8, b, low=low, high=high)
    solution = run(problem, strategy)
    for i in range(3):
        wanted = scipy.optimize.lsq_linear(A.numpy(), b[i].numpy(), (low, high), method="bvls", tol=1e-14)
        found = solution.value["control"][i, 0].numpy()
        np.testing.assert_allclose(found, wanted.x, atol=1e-7)
        assert ((found == low) == (wanted.active_mask == -1)).all()
        assert ((found == high) == (wanted.active_mask == 1)).all()
    assert solution.status.kind == "converged"


@both
def test_separate_scenarios_do_not_influence_each_other(strategy):
    together = run(pendulum(3), strategy)
    assert together.status.kind == "converged"
    problem = pendulum(3)
    for i in range(3):
        one = Scenarios(problem.scenarios.take(torch.tensor([i])))
        alone = run(problem.with_scenarios(one), strategy)
        torch.testing.assert_close(together.losses[i : i + 1], alone.losses, rtol=1e-10, atol=1e-12)
    other = run(pendulum(3), LBFGS(gradient_tolerance=1e-9))
    assert (together.losses <= other.losses * (1 + 1e-9)).all()
    assert together.counts.gradients < 40 * other.counts.gradients


@pytest.mark.parametrize(
    "strategy",
    [
        GaussNewton(iterations=8),
        GaussNewton(iterations=6, dense=0),
        MultiStart(GaussNewton(iterations=3), starts=3),
    ],
    ids=["dense", "products", "multistart"],
)
def test_resume_budget_and_seed(strategy, tmp_path, monkeypatch):
    problem = pendulum(3)
    budget = Budget(simulated_steps=60_000)
    whole = run(problem, strategy, budget=budget, seed=5)
    same(whole, run(problem, strategy, budget=budget, seed=5))
    resumed = interrupted_and_resumed(
        problem, strategy, tmp_path / "run", monkeypatch, after=4, budget=budget
    )
    same(whole, resumed)
    for limit in (Budget(simulated_steps=1717), Budget(gradients=47)):
        short = run(problem, strategy, budget=limit)
        assert short.counts.simulated_steps <= (limit.simulated_steps or 10**9)
        assert short.counts.gradients <= (limit.gradients or 10**9)


@both
def test_steps_below_the_rounding_of_the_loss_are_convergence(strategy):
    def function(x):
        return torch.cat([x - 1, (x - 1).square(), torch.full_like(x, 1e3)], 1)

    exact = type(strategy)(dense=strategy.dense, gradient_tolerance=1e-300, loss_tolerance=1e-300)
    problem = squares(function, 3, torch.zeros(2, 9, dtype=F64), start=0.3)
    solution = run(problem, exact, budget=Budget(gradients=5000))
    assert solution.status.kind == "converged", solution.status
    assert (solution.value["control"] - 1).abs().max() < 1e-4


@both
def test_steps_beyond_the_finite_world_are_taken_back(strategy):
    def function(x):
        return torch.where(x.abs() > 1.2, torch.nan, 8 * (x - 1.1) + (x - 1.1).square())

    solution = run(squares(function, 1, torch.zeros(2, 1, dtype=F64), start=-1.1), strategy)
    assert solution.loss < 1e-12 and solution.status.kind == "converged"
    outside = run(squares(lambda x: 0.3 / (0.5 - x).sqrt(), 1, torch.zeros(1, 1, dtype=F64)), strategy)
    assert outside.losses.isfinite().all()
    nowhere = run(squares(function, 1, torch.zeros(1, 1, dtype=F64), start=2.0), strategy)
    assert nowhere.status.kind == "diverged"


def test_an_instance_that_is_never_finite_does_not_stop_the_others():
    def function(x):
        return torch.cat([rosenbrock(x), torch.where(x[:, :1] > 5, torch.nan, 0.0)], 1)

    start = torch.full((3, 1, 2), -1.2, dtype=F64)
    start[1] = 9.0
    solution = run(squares(function, 2, torch.zeros(3, 3, dtype=F64), start=start), GaussNewton())
    assert solution.status.kind == "diverged"
    assert solution.losses[0] < 1e-18 and solution.losses[2] < 1e-18


def test_what_is_no_sum_of_squares_is_refused():
    problem = control_problem(
        lambda x, u: x + u,
        initial_state=torch.zeros(1, 1, dtype=F64),
        horizon=2,
        objective=cost(terminal=lambda x: x.square().sum(1)),
        control=ControlSequence((1,)),
    )
    assert "needs a sum of squares or the density of measurements" in mismatch(problem, GaussNewton())
    with pytest.raises(UsageError, match=r"GaussNewton\(radius=...\) must be a positive number"):
        GaussNewton(radius=0.0)
    with pytest.raises(UsageError, match=r"GaussNewton\(products=...\) must be a whole number"):
        GaussNewton(products=0)
