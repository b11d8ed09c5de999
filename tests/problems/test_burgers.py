"""The published Burgers control experiment: its scenes, baselines, ratios, and what L-BFGS makes of it."""

import pytest
import torch
from dpcontrol.problems import burgers
from matplotlib.figure import Figure

from dpcontrol.engine import rollout
from dpcontrol.problem import UsageError, View
from dpcontrol.run import run
from dpcontrol.strategies.minimising.quasi_newton import LBFGS


def ratios(problem, trajectory):
    samples = problem.metric_samples(trajectory)
    return {name: float(top.mean() / bottom.mean()) for name, (top, bottom) in samples.items()}


def test_ground_truth_reaches_its_target_and_has_ratio_one():
    problem = burgers.problem(size="small")
    data = problem.scenarios.data
    forces = data["force"].expand(burgers.HORIZON, -1, -1)
    trajectory = rollout(burgers.SIMULATOR, data["initial_state"], forces)
    found = ratios(problem, trajectory)
    assert found["effort_ratio"] == pytest.approx(1, rel=1e-12)
    assert found["force_ratio"] == pytest.approx(1, rel=1e-12)
    assert found["target_error"] < 1e-12
    z = {"control": forces[:-1].transpose(0, 1)}
    wanted = 0.5 * burgers.HORIZON * data["force"].square().sum(1)
    torch.testing.assert_close(problem.loss(z), wanted, rtol=1e-9, atol=0)


@pytest.mark.parametrize("seed", [0, 1])
def test_baselines_lie_where_they_were_published(seed):
    problem = burgers.problem(seed=seed)
    line = ratios(problem, problem.run_law(problem.baselines["straight line"]))
    ahead = ratios(problem, problem.run_law(problem.baselines["look ahead"]))
    assert 2.05 < line["effort_ratio"] < 2.25
    assert 1.15 < ahead["effort_ratio"] < 1.27
    assert max(line["target_error"], ahead["target_error"]) < 1e-12


def test_doing_nothing_games_the_force_but_not_the_effort():
    problem = burgers.problem()
    found = problem.metrics(problem.start())
    assert found["force_ratio"] == pytest.approx(0.74, abs=0.08)
    assert found["effort_ratio"] > 15


def test_lbfgs_beats_the_ground_truth_and_reaches_the_target():
    problem = burgers.problem(size="small")
    solution = run(problem, LBFGS(iterations=60))
    assert solution.metrics["effort_ratio"] < 0.85
    assert solution.metrics["target_error"] < 1e-12
    trajectory = solution.trajectory()
    assert torch.equal(trajectory.states[-1], problem.scenarios.data["target"])
    _draws_its_figure(problem, solution)


def _draws_its_figure(problem, solution):
    figure = Figure(figsize=(8, 4), layout="constrained")
    problem.plots["states and forces"](figure, {"lbfgs": solution, "again": solution})
    titles = [axis.get_title() for axis in figure.axes]
    assert titles[:4] == ["uncontrolled", "ground truth", "lbfgs", "again"]
    figure.canvas.draw()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_mean_effort_is_at_most_0_78_of_the_ground_truth(seed):
    solution = run(burgers.problem(seed=seed), LBFGS(iterations=60))
    assert solution.metrics["effort_ratio"] <= 0.78
    assert solution.metrics["force_ratio"] < 1.27  # the published network


def test_seeds_draw_scenes_and_fresh_ones_come_from_the_same_distribution():
    first, again, other = (burgers.problem(size="small", seed=s).scenarios.data for s in (3, 3, 4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["initial_state"], other["initial_state"])
    problem = burgers.problem(size="small")
    fresh = problem.with_scenarios(problem.scenarios.draw(torch.Generator().manual_seed(5), 4))
    assert View.DISTRIBUTION in problem.offers
    assert fresh.loss(fresh.start()).shape == (4,)
    humps = burgers.draw(torch.Generator().manual_seed(0), 2000)
    assert float(humps["force"].abs().amax(1).mean()) == pytest.approx(32 * 0.025, rel=0.05)
    assert humps["initial_state"].amax() <= 3 and humps["initial_state"].amin() >= -3


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [({"size": "huge"}, "comes in the sizes 'full', 'small'"), ({"seed": -1}, "whole number, 0 or more")],
)
def test_bad_arguments_are_one_sentence(arguments, sentence):
    with pytest.raises(UsageError, match=sentence):
        burgers.problem(**arguments)
