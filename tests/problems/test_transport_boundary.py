"""The published scores are reproduced, the lower bound bounds, and L-BFGS comes as low as it says."""

import dataclasses

import pytest
import torch
from dpcontrol.problems import transport_boundary as transport

from dpcontrol.checking import check_gradient
from dpcontrol.meter import Budget
from dpcontrol.problem import ControlSequence, UsageError, gradient_growth
from dpcontrol.run import run
from dpcontrol.sim import DiscreteLinear
from dpcontrol.strategies.minimising.quasi_newton import LBFGS


def scores(problem, law):
    return transport.norms(problem.run_law(problem.baselines[law])).sum(0).tolist()


def test_the_published_scores_of_backstepping_and_those_of_the_linear_regulator():
    problem = transport.problem()
    assert scores(problem, "backstepping") == [
        pytest.approx(106.086, abs=5e-4),
        pytest.approx(1060.86, abs=5e-3),
    ]
    assert float(problem.loss(problem.start())[0]) == pytest.approx(4411, abs=0.5)
    regulated = scores(problem, "LQR feedback")
    assert regulated == [pytest.approx(103.985, abs=1e-3), pytest.approx(1039.85, abs=1e-2)]
    for start, own in zip(range(2), regulated, strict=True):
        assert all(own < published[start] for published in transport.PUBLISHED.values())


def test_the_loss_is_the_score_and_the_metrics_quote_it_start_by_start():
    problem = transport.problem(size="small")
    trajectory = problem.run_law(problem.baselines["backstepping"])
    z = {"control": trajectory.controls.transpose(0, 1)}
    wanted = torch.linalg.vector_norm(trajectory.states[1:], dim=2).sum(0)
    torch.testing.assert_close(problem.loss(z), wanted)
    found = problem.metrics(z)
    assert [found["score_from_1"], found["score_from_10"]] == pytest.approx(wanted.tolist())


def test_smoothing_only_lowers_the_score_and_vanishes_with_it():
    exact = transport.problem(size="small")
    z = {"control": 0.1 * torch.randn(2, 25, 1, generator=torch.Generator().manual_seed(0)).double()}
    score, start = exact.loss(z), torch.tensor([10.0, 100.0], dtype=torch.float64)
    for smoothing in (1e-1, 1e-2, 1e-3):
        missing = score - transport.problem(size="small", smoothing=smoothing).loss(z)
        assert bool((missing > 0).all()) and bool((missing < 25 * smoothing * start).all())
    with pytest.raises(UsageError, match="smoothing must be a number"):
        transport.problem(smoothing=-1)


def test_gains_of_the_regulator_solve_riccatis_equation():
    simulator = transport.BoundaryTransport()
    A, B = transport.held_matrices(simulator)
    gains = transport.lqr(simulator, price=0.5)
    closed = A + B * gains
    assert float(torch.linalg.eigvals(closed).abs().max()) < 1 < float(torch.linalg.eigvals(A).abs().max())
    # the cost-to-go of these gains by Lyapunov's sum; no other gain does better from any start
    weight, power, extra = (
        torch.zeros_like(A),
        torch.eye(len(A), dtype=A.dtype),
        0.5 * torch.outer(gains, gains),
    )
    for _ in range(400):
        weight = weight + power.T @ (torch.eye(len(A), dtype=A.dtype) + extra) @ power
        power = closed @ power
    optimal = -(B.T @ weight @ A / (0.5 + B.T @ weight @ B))[0]
    torch.testing.assert_close(gains, optimal, rtol=1e-8, atol=1e-10)


def scalar(bound):
    """x+ = x + U from 3 with |U| <= bound, two steps, as a problem of this kind."""
    base = transport.problem(size="small")
    one = torch.ones(1, 1, dtype=torch.float64)
    return transport.control_problem(
        DiscreteLinear(one, one),
        initial_state=3 * one,
        horizon=2,
        objective=base.objective.terms[0][1],
        control=ControlSequence(1, low=-bound, high=bound),
    )


def test_the_lower_bound_is_the_optimum_at_its_own_dual_point():
    problem = scalar(2.0)  # from 3 to 1 to 0: score 1
    best = {"control": torch.tensor([[[-2.0], [-1.0]]], dtype=torch.float64)}
    assert float(problem.loss(best)) == 1
    dual = torch.tensor([1.0, 0.0], dtype=torch.float64).reshape(2, 1, 1)
    assert float(transport.lower_bound(problem, dual)) == 1
    assert float(transport.lower_bound(problem, 5 * dual)) == 1  # no longer than 1
    path = problem.simulate(best)
    assert float(transport.lower_bound(problem, transport.dual_point(path))) <= 1
    with pytest.raises(UsageError, match="needs bounds"):
        transport.lower_bound(problem.with_unknown(ControlSequence(1)), dual)


def test_no_control_scores_below_any_lower_bound():
    problem = transport.problem(size="small")
    generator = torch.Generator().manual_seed(4)
    lowest = torch.full((2,), float("inf"), dtype=torch.float64)
    for law in problem.baselines:
        lowest = torch.minimum(lowest, transport.norms(problem.run_law(problem.baselines[law])).sum(0))
    for size in (0.1, 1.0, 10.0):
        dual = size * torch.randn(25, 2, 100, generator=generator, dtype=torch.float64)
        assert bool((transport.lower_bound(problem, dual) < lowest).all())


def certified(module, size, smoothings, iterations, *, one_magnitude=False):
    """Scores of L-BFGS by continuation, and the bounds that it proves.

    With one magnitude for all controls late ones move further, which proves more.
    """
    exact, start = module.problem(size=size), 0.0
    proven = torch.zeros(2, dtype=torch.float64)
    for smoothing in smoothings:
        problem = module.problem(size=size, smoothing=smoothing, start=start)
        if one_magnitude:
            problem = problem.with_unknown(dataclasses.replace(problem.unknown.slots[0], scale=None))
        solution = run(problem, LBFGS(iterations=iterations, memory=150, loss_tolerance=1e-16))
        start = solution.value["control"]
        dual = transport.dual_point(solution.trajectory(), smoothing)
        proven = torch.maximum(proven, transport.lower_bound(exact, dual))
    assert float(start.abs().max()) <= transport.STRONGEST
    return exact.loss({"control": start}), proven


def test_lbfgs_proves_its_own_optimum_of_the_small_problem():
    found, proven = certified(transport, "small", (1e-2, 1e-3), 150)
    assert bool((proven <= found).all()) and bool((found < 1.01 * proven).all())


@pytest.mark.slow
def test_lbfgs_is_below_every_published_score_and_within_a_thousandth_of_the_proven_optimum():
    found, proven = certified(transport, "full", (0.1, 1e-2, 1e-3, 1e-4, 1e-5), 600, one_magnitude=True)
    for published in transport.PUBLISHED.values():
        assert bool((found < torch.tensor(published)).all())
    assert bool((found < 1.001 * proven).all()) and bool((proven <= found).all())


def test_the_small_problem_is_solved_below_its_laws():
    problem = transport.problem(size="small")
    solution = run(problem, LBFGS(), budget=Budget(gradients=600))
    laws = torch.tensor([scores(problem, law) for law in problem.baselines], dtype=torch.float64)
    assert bool((solution.losses < 0.9 * laws.amin(0)).all())


def test_the_gradient_passes_its_check_and_grows_with_the_unstable_plant():
    problem = transport.problem(size="small")
    assert check_gradient(problem).passed
    growth = gradient_growth(problem)
    assert 0.05 < growth.rate < 0.2 and growth.warning is None


def test_a_law_is_judged_on_a_plant_that_feeds_back_more_strongly():
    problem = transport.problem()
    ((_, field),) = problem.simulator.parameters.items()
    other = dataclasses.replace(problem, plant=transport.BoundaryTransport(1.1 * field))
    for law in problem.baselines:
        worse, usual = scores(other, law), scores(problem, law)
        assert all(1.02 * a < b < 2 * a for a, b in zip(usual, worse, strict=True))


def test_fresh_starts_are_constants_between_the_published_ones():
    problem = transport.problem(size="small")
    fresh = problem.with_scenarios(problem.scenarios.draw(torch.Generator().manual_seed(5), 6))
    start = fresh.scenarios.data["initial_state"]
    assert bool((start == start[:, :1]).all()) and 1 <= float(start.min()) and float(start.max()) <= 10
    per_start = fresh.loss(fresh.start()) / start[:, 0]
    torch.testing.assert_close(per_start, per_start[:1].expand(6))
    with pytest.raises(UsageError, match="comes in the sizes"):
        transport.problem(size="huge")


def test_its_pictures_are_drawn_for_solutions_and_laws():
    from matplotlib.figure import Figure

    problem = transport.problem()
    solution = run(problem, LBFGS(), budget=Budget(gradients=40))
    assert len(problem.plots) == 2 and len(transport.problem(size="small").plots) == 1
    for draw in problem.plots.values():
        figure = Figure(layout="constrained")
        draw(figure, {"lbfgs": solution})
        assert len(figure.axes) >= 2
        figure.canvas.draw()
