"""Shape transitions: the scenes, the start guess, what a short search reaches, and what it costs."""

import pytest
import torch
from dpcontrol.problems import smoke_shapes

from dpcontrol.meter import Budget
from dpcontrol.plot.style import new_figure
from dpcontrol.problem import UsageError
from dpcontrol.run import run
from dpcontrol.strategies.minimising.first_order import Adjoint


@pytest.fixture(scope="module")
def problem():
    return smoke_shapes.problem(size="small")


def test_shapes_lie_whole_in_the_box_and_depend_on_the_seed():
    fields = smoke_shapes.draw(torch.Generator().manual_seed(0), 200)
    assert set(fields.unique().tolist()) == {0.0, 1.0}
    assert 120 <= float(fields.sum((1, 2)).min()) and float(fields.sum((1, 2)).max()) <= 128
    again = smoke_shapes.problem(size="small").scenarios.data["target"]
    assert torch.equal(again, smoke_shapes.problem(size="small").scenarios.data["target"])
    assert not torch.equal(again, smoke_shapes.problem(size="small", seed=1).scenarios.data["target"])


def test_the_start_guess_carries_the_shape_to_the_target(problem):
    states = problem.simulate(problem.start()).states["marker"]
    gap = smoke_shapes.centre(states[-1]) - smoke_shapes.centre(problem.scenarios.data["target"])
    way = smoke_shapes.centre(states[0]) - smoke_shapes.centre(problem.scenarios.data["target"])
    assert float(gap.norm(dim=1).max()) < 0.2 * float(way.norm(dim=1).max())
    assert problem.metrics(problem.start())["relative_error"] < 0.7


def test_a_short_search_beats_the_published_error_with_less_effort_than_carrying(problem):
    before = problem.metrics(problem.start())
    solution = run(problem, Adjoint(iterations=60), budget=Budget(gradients=60 * 4))
    after = solution.metrics
    assert after["relative_error"] < 0.03 < 0.0545
    assert after["effort"] < before["effort"]
    assert 0 < after["floor"] < after["relative_error"]
    states = solution.trajectory().states
    target = problem.scenarios.data["target"]
    error = (states["marker"][-1] - target).abs().sum((1, 2)) / (states["marker"][0] - target).abs().sum(
        (1, 2)
    )
    assert after["relative_error"] == pytest.approx(float(error.mean()), rel=1e-6)
    figure = new_figure(9, 5)
    problem.plots["transition"](figure, {"adjoint": solution})
    assert len(figure.axes) == 4 * 7
    assert [text.get_text() for text in figure.axes[6].texts] == [f"{100 * float(error[0]):.1f} % off"]


def test_the_loss_is_misfit_plus_weighted_effort(problem):
    z = problem.start()
    figures = problem.metrics(z)
    end = problem.simulate(z).states["marker"][-1]
    misfit = (end - problem.scenarios.data["target"]).square().sum((1, 2))
    wanted = float(misfit.mean()) + smoke_shapes.EFFORT_WEIGHT * figures["effort"]
    assert float(problem.loss(z).mean()) == pytest.approx(wanted, rel=1e-5)


def test_pushing_the_fluid_itself_gets_there_as_well():
    problem = smoke_shapes.problem(size="small", dynamic=True)
    before = problem.metrics(problem.start())
    # the forces of the start guess make nearly the flow of the start guess, one step later
    assert before["relative_error"] < 0.7
    states = problem.simulate(problem.start()).states
    assert torch.equal(states["marker"][1], states["marker"][0])
    after = run(problem, Adjoint(iterations=25), budget=Budget(gradients=25 * 4)).metrics
    assert after["relative_error"] < 0.7 * before["relative_error"]
    force = problem.start()["control"]
    assert before["effort"] == pytest.approx(0.5 * float(force.square().sum()) / 16 / 4, rel=1e-5)


def test_a_negative_weight_is_refused():
    with pytest.raises(UsageError, match="effort_weight >= 0"):
        smoke_shapes.problem(size="small", effort_weight=-1.0)
