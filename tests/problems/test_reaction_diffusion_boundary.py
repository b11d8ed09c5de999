"""The published scores are reproduced, and L-BFGS is proven near the optimum, also where the bounds hold it."""

import pytest
import torch
from dpcontrol.problems import reaction_diffusion_boundary as reaction
from dpcontrol.problems import transport_boundary as transport
from test_transport_boundary import certified, scores

from dpcontrol.checking import check_gradient
from dpcontrol.meter import Budget
from dpcontrol.problem import UsageError, gradient_growth
from dpcontrol.run import run
from dpcontrol.strategies.minimising.quasi_newton import LBFGS


def test_the_published_scores_of_backstepping_and_those_of_the_linear_regulator():
    problem = reaction.problem()
    assert scores(problem, "backstepping") == [
        pytest.approx(1275.44, abs=5e-3),
        pytest.approx(12754.4, abs=5e-2),
    ]
    regulated = scores(problem, "LQR feedback")
    for start, own in zip(range(2), regulated, strict=True):
        assert all(own < published[start] for published in reaction.PUBLISHED.values())
    largest = problem.run_law(problem.baselines["LQR feedback"]).controls.abs().amax((0, 2))
    assert float(largest[0]) < transport.STRONGEST == float(largest[1])  # clipped from 10


def test_the_uncontrolled_rod_heats_up_and_the_gradient_grows_with_it():
    problem = reaction.problem(size="small")
    A, _ = transport.held_matrices(problem.simulator)
    rate = float(torch.linalg.eigvals(A).abs().max().log()) / problem.simulator.dt
    assert rate == pytest.approx(0.85, abs=0.01)
    growth = gradient_growth(problem)
    assert growth.rate > 0 and growth.warning is None


def test_kernel_of_backstepping_makes_the_held_rod_stable():
    problem = reaction.problem()
    A, B = transport.held_matrices(problem.simulator)
    closed = A.clone()
    closed[:, :200] += B * reaction.backstepping()
    assert float(torch.linalg.eigvals(closed).abs().max()) < 1 < float(torch.linalg.eigvals(A).abs().max())


def test_lbfgs_proves_its_own_optimum_of_the_small_problem():
    found, proven = certified(reaction, "small", (1e-2, 1e-3), 100)
    assert bool((proven <= found).all()) and bool((found < 1.01 * proven).all())


@pytest.mark.slow
def test_lbfgs_is_below_every_published_score_and_within_a_thousandth_of_the_proven_optimum():
    found, proven = certified(reaction, "full", (0.1, 1e-2, 1e-3, 1e-4), 150)
    for published in reaction.PUBLISHED.values():
        assert bool((found < torch.tensor(published)).all())
    assert bool((found < 1.001 * proven).all()) and bool((proven <= found).all())


def test_the_small_problem_is_solved_below_its_laws_inside_the_bounds():
    problem = reaction.problem(size="small")
    solution = run(problem, LBFGS(), budget=Budget(gradients=200))
    laws = torch.tensor([scores(problem, law) for law in problem.baselines], dtype=torch.float64)
    assert bool((solution.losses < laws.amin(0)).all())
    assert float(solution.value["control"].abs().max()) <= transport.STRONGEST * (1 + 1e-12)
    assert check_gradient(problem).passed


def test_bad_arguments_are_one_sentence():
    with pytest.raises(UsageError, match="comes in the sizes"):
        reaction.problem(size="huge")
