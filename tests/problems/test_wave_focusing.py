"""Focusing: time reversal is the transpose and refocuses, the optimum of the dense problem is reached."""

import pytest
import torch
from dpcontrol.problems import wave_focusing as focusing

from dpcontrol.engine import rollout
from dpcontrol.meter import Budget
from dpcontrol.problem import UsageError
from dpcontrol.run import run
from dpcontrol.strategies.minimising.quasi_newton import LBFGS


@pytest.fixture(scope="module")
def problem():
    return focusing.problem(size="small")


def reached(problem, signals):
    """``q`` at the end under signals ``(scenes, steps, transducers)``."""
    start, speed = torch.zeros(len(signals), 2, 24, 24, dtype=torch.float64), problem.scenarios.data["speed"]
    states = rollout(problem.simulator, start, signals.transpose(0, 1), parameters={"speed": speed}).states
    return states[-1][:, 0]


def responses(problem, speed):
    """The way from signals to ``q`` at the end, ``(cells, signals)``: a push later in time is a shorter wait."""
    push = torch.zeros(80, 6, 6, dtype=torch.float64)
    push[0] = torch.eye(6, dtype=torch.float64)
    start = torch.zeros(6, 2, 24, 24, dtype=torch.float64)
    states = rollout(problem.simulator, start, push, parameters={"speed": speed}).states
    return states[1:, :, 0].flip(0).flatten(2).flatten(0, 1).T / 24


def optimum(problem, scene):
    """The least loss of one scene, by dense least squares."""
    data = problem.scenarios.data
    way, target = responses(problem, data["speed"][scene]), data["target"][scene].flatten() / 24
    normal = way.T @ way + focusing.PRICE * torch.eye(480, dtype=torch.float64)
    signals = torch.linalg.solve(normal, way.T @ target)
    return float((way @ signals - target).square().sum() + focusing.PRICE * signals.square().sum())


def test_time_reversal_is_the_transpose_of_the_way_to_the_focus(problem):
    """Reciprocity: what is heard of the focus, reversed, is the gradient of what arrives there."""
    data = problem.scenarios.data
    silent = torch.zeros_like(data["reversed"]).requires_grad_()
    (gradient,) = torch.autograd.grad((reached(problem, silent) * data["target"]).sum(), silent)
    volume = (data["reversed"] * gradient).sum((1, 2)) / gradient.square().sum((1, 2))
    assert bool((volume > 0).all())
    torch.testing.assert_close(data["reversed"], volume[:, None, None] * gradient, rtol=0, atol=1e-12)


def test_time_reversal_refocuses_at_the_right_place_and_time(problem):
    data = problem.scenarios.data
    trajectory = problem.run_law(problem.baselines["time reversal"])
    torch.testing.assert_close(trajectory.controls.transpose(0, 1), data["reversed"])
    pressure = trajectory.states[:, :, 0]
    for scene in range(2):
        place = int(pressure[-1, scene].abs().argmax())
        found = torch.tensor([(place // 24 + 0.5) / 24, (place % 24 + 0.5) / 24])
        assert float((found - data["focus"][scene]).norm()) < focusing.FOCUS["small"]
        at_focus = torch.stack([focusing.at_focus(state, data)[scene] for state in trajectory.states])
        assert int(at_focus.argmax()) >= len(at_focus) - 2
    samples = problem.metric_samples(trajectory)
    assert float(samples["contrast"][0].mean() / samples["contrast"][1].mean()) > 5


def test_a_pulse_reversed_everywhere_comes_back_to_where_it_started(problem):
    """The closed, lossless box: the whole field, its rate reversed, returns to the target, to rounding."""
    medium, data = problem.simulator.inner.inner, problem.scenarios.data
    start = torch.stack((data["target"], torch.zeros_like(data["target"])), 1)
    parameters = {"speed": data["speed"]}
    away = rollout(medium, start, length=160, parameters=parameters).states[-1]
    assert float((away[:, 0] * data["target"]).sum() / data["target"].square().sum()) < 0.5
    back = rollout(
        medium, away * torch.tensor([1.0, -1.0]).reshape(2, 1, 1), length=160, parameters=parameters
    )
    torch.testing.assert_close(back.states[-1][:, 0], data["target"], rtol=0, atol=1e-11)


def test_lbfgs_approaches_the_optimum_of_the_dense_problem_and_beats_time_reversal(problem):
    solution = run(problem, LBFGS(), budget=Budget(gradients=150))
    for scene in range(2):
        wanted = optimum(problem, scene)
        assert wanted * (1 - 1e-6) < float(solution.losses[scene]) < 1.4 * wanted
    law = problem.metric_samples(problem.run_law(problem.baselines["time reversal"]))["relative_error"]
    assert solution.metrics["relative_error"] < 0.5 * float(law[0].mean() / law[1].mean())


@pytest.mark.slow
def test_lbfgs_reaches_the_optimum_of_the_dense_problem(problem):
    solution = run(problem, LBFGS(), budget=Budget(gradients=1_200))
    for scene in range(2):
        assert float(solution.losses[scene]) < 1.001 * optimum(problem, scene)


def test_the_picture_shows_the_wave_on_its_way(problem):
    from matplotlib.figure import Figure

    figure = Figure(layout="constrained")
    solution = run(problem, LBFGS(), budget=Budget(gradients=4))
    problem.plots["focus"](figure, {"lbfgs": solution, "again": solution})
    assert len(figure.axes) == 10


def test_bad_arguments_are_one_sentence():
    with pytest.raises(UsageError, match="comes in the sizes"):
        focusing.problem(size="huge")
