"""What holds for every strategy: reproducible, resumable, within its budget, one batch per population."""

import numpy as np
import pytest
import torch
from strategy_cases import (
    BoxQuadratic,
    double_integrator,
    interrupted_and_resumed,
    rosenbrock,
    same,
    scalar_lqr,
    static,
    wells,
)

from dpcontrol.meter import Budget
from dpcontrol.run import run
from dpcontrol.strategies.evolving.cross_entropy import CEM
from dpcontrol.strategies.evolving.evolution import CMAES
from dpcontrol.strategies.minimising.first_order import Adjoint
from dpcontrol.strategies.minimising.multistart import MultiStart
from dpcontrol.strategies.minimising.newton import NewtonKrylov
from dpcontrol.strategies.minimising.quasi_newton import LBFGS

SCHEDULED = Adjoint(iterations=40, schedule="cosine")
ALL = {
    "adam": SCHEDULED,
    "sgd": Adjoint(optimizer="sgd", learning_rate=1e-3, momentum=0.9, iterations=40),
    "lbfgs": LBFGS(iterations=30),
    "newton": NewtonKrylov(iterations=20),
    "cmaes": CMAES(iterations=30),
    "cmaes in modes": CMAES(iterations=30, basis=6),
    "cem": CEM(iterations=30),
    "cem in modes": CEM(iterations=30, basis=6),
    "cem with restarts": CEM(population=8, elites=0.5, iterations=30, basis=6, tolerance=0.5),
    "cmaes with restarts": CMAES(iterations=30, basis=3, tolerance=0.1),
    "multistart": MultiStart(LBFGS(iterations=5), starts=3),
    "multistart of adam": MultiStart(Adjoint(iterations=8), starts=3),
    "multistart of cem": MultiStart(CEM(population=8, iterations=3), starts=3),
}
each = pytest.mark.parametrize("strategy", ALL.values(), ids=ALL.keys())


@each
def test_resume_equals_uninterrupted(strategy, tmp_path, monkeypatch):
    problem = double_integrator(3)
    budget = Budget(simulated_steps=40_000)
    whole = run(problem, strategy, budget=budget, seed=5)
    rows = len(whole.history["loss"])
    assert rows > 5
    after = min(7, rows - 2)
    resumed = interrupted_and_resumed(
        problem, strategy, tmp_path / "run", monkeypatch, after=after, budget=budget
    )
    same(whole, resumed)


@each
def test_same_seed_same_result_whatever_else_draws(strategy):
    problem = double_integrator(3)
    budget = Budget(simulated_steps=12_000)
    first = run(problem, strategy, budget=budget, seed=3)
    torch.rand(17)
    np.random.rand(17)
    before = np.random.get_state()[1].copy()
    same(first, run(problem, strategy, budget=budget, seed=3))
    assert (np.random.get_state()[1] == before).all()
    if strategy.stochastic:
        other = run(problem, strategy, budget=budget, seed=4)
        assert other.history["latest"] != first.history["latest"]


@each
@pytest.mark.parametrize(
    "limit", [Budget(simulated_steps=1717), Budget(simulated_steps=5000), Budget(gradients=47)]
)
def test_budgets_are_never_exceeded(strategy, limit):
    solution = run(double_integrator(3), strategy, budget=limit)
    if limit.simulated_steps is not None:
        assert solution.counts.simulated_steps <= limit.simulated_steps
        if solution.status.kind == "budget spent":  # no more was left than the next question would have cost
            assert solution.counts.simulated_steps > limit.simulated_steps - 50 * 3 * 40
    if limit.gradients is not None:
        assert solution.counts.gradients <= limit.gradients


@pytest.mark.parametrize("strategy", [CMAES(population=8, iterations=5), CEM(population=8, iterations=5)])
def test_a_population_of_all_instances_is_one_batch(strategy):
    sizes = []
    problem = static(wells, 2, count=7, spy=lambda u: sizes.append(len(u)))
    sizes.clear()
    run(problem, strategy)
    assert sizes[0] == 7  # the start guess
    assert sizes[1:6] == [7 * 8] * 5


def test_searches_that_are_done_leave_the_batch():
    sizes = []

    def function(u, number):
        return torch.where(number == 0, u.square().sum(1), rosenbrock(u, number))

    problem = static(function, 4, count=2, start=-1.2, spy=lambda u: sizes.append(len(u)))
    sizes.clear()
    solution = run(problem, LBFGS())
    assert sizes[0] == 2 and 1 in sizes
    assert solution.counts.gradients < 2 * len(sizes)


def test_ctrl_c_leaves_no_thread_behind():
    import threading

    before = threading.active_count()

    def interrupt(progress):
        raise KeyboardInterrupt

    solution = run(double_integrator(5), LBFGS(), callback=interrupt)
    assert solution.status.kind == "interrupted"
    assert threading.active_count() == before


def test_separate_scenarios_do_not_influence_each_other():
    together = run(double_integrator(3), LBFGS(), budget=Budget(simulated_steps=3 * 50 * 2 * 10))
    alone = run(double_integrator(1), LBFGS(), budget=Budget(simulated_steps=50 * 2 * 10))
    assert float(together.losses[0]) == pytest.approx(float(alone.losses[0]), rel=1e-9)


def test_one_number_can_be_searched():
    solution = run(scalar_lqr(1), CMAES(restarts=0), seed=1)
    assert solution.loss == pytest.approx(1.5, abs=1e-8)


def test_losses_that_are_not_finite_are_ranked_last():
    problem = static(
        lambda u, number: (u - 2).square().sum(1) + torch.where(u[:, 0] > 2.0, torch.inf, 0.0), 2
    )
    for strategy in (CMAES(restarts=0), CEM(population=60)):
        solution = run(problem, strategy, seed=1)
        assert solution.loss < 1e-4
        assert solution.counts.failures > 0


def test_points_of_smooth_modes_stay_inside_the_bounds():
    case = BoxQuadratic(size=12)
    problem = case.problem()
    case.seen.clear()
    for strategy in (CMAES(basis=4, sigma=2.0, iterations=20), CEM(basis=4, sigma=2.0, iterations=20)):
        run(problem, strategy)
    assert max(float(u.abs().max()) for u in case.seen) == 1.0
