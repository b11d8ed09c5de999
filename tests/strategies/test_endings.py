"""How searches end: confirmed minima, rounding floors, edges of the finite world, and budgets that are used up."""

import numpy as np
import pytest
import torch
from strategy_cases import F64, double_integrator, rosenbrock, static

from dpcontrol.meter import Budget
from dpcontrol.problem import ControlSequence, control_problem, effort, reach
from dpcontrol.run import run
from dpcontrol.strategies.evolving.cross_entropy import CEM
from dpcontrol.strategies.evolving.evolution import CMAES
from dpcontrol.strategies.minimising.first_order import Adjoint
from dpcontrol.strategies.minimising.floor import Floor
from dpcontrol.strategies.minimising.multistart import MultiStart
from dpcontrol.strategies.minimising.newton import NewtonKrylov
from dpcontrol.strategies.minimising.quasi_newton import LBFGS
from dpcontrol.strategies.verdict import Ended, summary

STEPS = 10


def far_off(start):
    """One weak push: the control that is needed is 10 to 30 of its magnitudes away."""
    return control_problem(
        lambda x, u: x + 0.1 * (x.sin() + u),
        initial_state=torch.tensor([[start]], dtype=F64),
        horizon=1,
        objective=reach(torch.zeros(1)),
        control=ControlSequence((1,)),
    )


def edged(low=None):
    """Controls beyond 1 in size make the state NaN; whoever knows can seek with bounds."""

    def step(x, u):
        return torch.where(u.abs() > 1, torch.nan, x + 2.0 * (u - 0.1 * x.sin()))

    return control_problem(
        step,
        initial_state=torch.tensor([[-4.0], [-1.0], [0.5], [2.0], [6.0]], dtype=F64),
        horizon=STEPS,
        objective=reach(torch.zeros(1)) + 0.05 * effort(),
        control=ControlSequence((1,), low=low, high=None if low is None else -low),
    )


@pytest.mark.parametrize("start", [-1.0, 3.0])
@pytest.mark.parametrize("strategy", [CEM(), CMAES()], ids=["cem", "cmaes"])
def test_a_minimum_far_from_the_first_samples_is_found_and_confirmed(strategy, start):
    solution = run(far_off(start), strategy, seed=1, budget=Budget(simulated_steps=20_000))
    assert solution.loss < 1e-8
    assert solution.status.kind == "converged" and "found nothing better" in solution.status.sentence


def test_a_spread_that_collapsed_is_no_confirmed_minimum():
    narrow = CEM(restarts=0, drift=0.0, floor=0.0, tolerance=1e-6)
    solution = run(far_off(3.0), narrow, budget=Budget(simulated_steps=20_000))
    assert solution.loss > 1 and solution.status.kind == "stalled"
    assert "spread collapsed" in solution.status.sentence


def test_restarts_search_in_more_modes_than_the_first_round():
    wave = torch.linspace(0, 3, 50, dtype=F64).sin()

    def away(u, number):
        return (u - wave).square().sum(1)

    for strategy, once in (
        (CMAES(basis=4), CMAES(basis=4, restarts=0)),
        (CEM(basis=4), CEM(basis=4, restarts=0)),
    ):
        budget = Budget(simulated_steps=8_000)
        assert (
            run(static(away, 50), strategy, budget=budget).loss
            < 0.2 * run(static(away, 50), once, budget=budget).loss
        )


@pytest.mark.parametrize("strategy", [NewtonKrylov(), LBFGS()], ids=["newton", "lbfgs"])
def test_steps_below_the_rounding_of_the_loss_are_convergence(strategy):
    # the loss's own rounding hides gradients below 1e-5; tolerances that cannot be met
    def function(u, number):
        return 1e6 + (u - 1).square().sum(1) + (u - 1).pow(4).sum(1)

    exact = type(strategy)(gradient_tolerance=1e-300, loss_tolerance=1e-300)
    solution = run(static(function, 3, count=2, start=0.3), exact, budget=Budget(gradients=2000))
    assert solution.status.kind == "converged", solution.status
    assert (solution.value["control"] - 1).abs().max() < 1e-4


def test_a_kink_is_not_taken_for_the_rounding_floor():
    floor, kink = Floor(eps=2.2e-16), np.array([1e-9])
    floor.note(np.array([1.0]), 4.0, np.array([3.0]))
    floor.note(kink, 1.0 + 3e-9, np.array([3.0]))
    for step in 0.5 ** np.arange(40):  # at last, shorter than rounding could tell
        floor.note(kink - step, 1.0 + 3 * step, np.array([-3.0]))
    assert not floor.reached()
    smooth = Floor(eps=2.2e-16)
    smooth.note(np.array([1.0]), 2.0, np.array([2.0]))
    smooth.note(kink, 1.0, np.array([2e-9]))
    smooth.note(-kink, 1.0, np.array([-2e-9]))
    assert smooth.reached()


@pytest.mark.parametrize(
    ("strategy", "accuracy"),
    [(LBFGS(), 0.01), (NewtonKrylov(), 0.01), (Adjoint(learning_rate=0.1), 0.1)],
    ids=["lbfgs", "newton", "adjoint"],
)
def test_steps_beyond_the_finite_world_are_taken_back(strategy, accuracy):
    wanted = run(edged(low=-1.0), LBFGS()).losses
    kept = run(edged(), strategy, budget=Budget(simulated_steps=40_000))
    torch.testing.assert_close(kept.losses, wanted, rtol=accuracy, atol=1e-5)
    assert kept.status.kind != "diverged"


def test_adjoint_halves_its_steps_until_they_are_finite():
    def function(u, number):
        return torch.where(u[:, 0] > 1.2, torch.nan, (u[:, 0] - 1.1).square())

    solution = run(static(function, 1), Adjoint(learning_rate=1.0, iterations=300))
    assert 0 < solution.counts.failures < 40
    assert solution.loss < 1e-6 and solution.status.kind in ("converged", "iterations spent")
    bad_start = run(static(function, 1, start=2.0), Adjoint())
    assert bad_start.status.kind == "diverged" and bad_start.counts.failures == 1


def test_a_status_counts_every_kind_of_ending():
    told = summary([Ended("converged"), Ended("stalled", "why"), Ended("iterations spent")])
    assert told.kind == "iterations spent"
    assert told.sentence.startswith(
        "1 converged, 1 iterations spent, 1 stalled of 3 searches (iterations spent: "
    )
    assert summary([Ended("stalled", "because")]).sentence == "because."


@pytest.mark.parametrize(
    "strategy", [Adjoint(gradient_tolerance=1e-300), CMAES(), CEM()], ids=["adjoint", "cmaes", "cem"]
)
def test_a_budget_is_used_up(strategy):
    budget = Budget(simulated_steps=6_000)
    solution = run(static(rosenbrock, 30, count=2, start=-1.2), strategy, budget=budget)
    assert solution.status.kind == "budget spent"
    assert solution.counts.simulated_steps > 5_700


def test_a_cosine_schedule_ends_with_the_budget():
    solution = run(
        double_integrator(2),
        Adjoint(schedule="cosine", gradient_tolerance=1e-300),
        budget=Budget(gradients=120),
    )
    assert solution.counts.gradients == 120
    latest = solution.history["latest"]
    assert abs(latest[-1] - latest[-2]) < 1e-2 * abs(latest[30] - latest[29])


def test_seconds_that_the_set_up_uses_up_are_no_divergence():
    solution = run(static(rosenbrock, 30, count=3000), CMAES(), budget=Budget(seconds=0.2))
    assert solution.status.kind == "budget spent" and solution.seconds < 2
    assert solution.losses.isfinite().all() and len(solution.history["loss"]) >= 1
    nothing = run(static(rosenbrock, 30), MultiStart(LBFGS()), budget=Budget(simulated_steps=1))
    assert nothing.status.kind == "budget spent"
