"""Steady heating: the closed form of the uniform plate, the dense optimum of plates with discs."""

import math

import pytest
import torch
from dpcontrol.problems import steady_source

from dpcontrol.meter import Budget
from dpcontrol.run import run
from dpcontrol.strategies.minimising.quasi_newton import LBFGS

ALPHA = steady_source.ALPHA


def test_the_uniform_plate_has_its_closed_form():
    problem = steady_source.problem(size="small", discs=False)
    solution = run(problem, LBFGS(), budget=Budget(gradients=400))
    assert solution.loss == pytest.approx(ALPHA / (8 * (1 + 4 * ALPHA * math.pi**4)), rel=1e-2)
    # the same with the eigenvalue of the difference equation
    answer, target = 1 / (2 * (32 * math.sin(math.pi / 32)) ** 2), 1 / (2 * math.pi**2)
    assert solution.loss == pytest.approx(ALPHA * target**2 / (8 * (answer**2 + ALPHA)), rel=1e-4)
    heating = solution.value["parameters"]["source"][0]
    x, y = steady_source.centres(16)
    exact = torch.sin(math.pi * x) * torch.sin(math.pi * y) / (1 + 4 * ALPHA * math.pi**4)
    assert float((heating - exact).abs().max()) < 0.01


def test_lbfgs_reaches_the_optimum_of_the_dense_problem():
    problem = steady_source.problem(size="small")
    solution = run(problem, LBFGS(), budget=Budget(gradients=400))
    plate = problem.simulator.solve
    units = torch.eye(256, dtype=torch.float64).reshape(256, 16, 16)
    for scene in range(2):
        data = {"log_coefficient": problem.simulator.parameters["log_coefficient"][scene]}
        S = plate({**data, "source": units})["temperature"].flatten(1).T
        target = problem.scenarios.data["target"][scene].flatten()
        f = torch.linalg.solve(S.T @ S + ALPHA * torch.eye(256, dtype=torch.float64), S.T @ target)
        wanted = 0.5 * ((S @ f - target).square().mean() + ALPHA * f.square().mean())
        assert float(solution.losses[scene]) == pytest.approx(float(wanted), rel=1e-3)
        assert float(solution.losses[scene]) > float(wanted) * (1 - 1e-9)


@pytest.mark.slow
def test_the_closed_form_on_the_full_grid():
    solution = run(steady_source.problem(discs=False), LBFGS(), budget=Budget(gradients=1_500))
    assert solution.loss == pytest.approx(ALPHA / (8 * (1 + 4 * ALPHA * math.pi**4)), rel=4e-4)


def test_discs_are_drawn_by_the_seed():
    first, other = (
        steady_source.problem(size="small", seed=s).scenarios.data["log_coefficient"] for s in (0, 1)
    )
    assert not torch.equal(first, other)
    assert set(torch.unique(first.exp().round(decimals=3)).tolist()) == {0.02, 1.0, 50.0}


def test_the_picture_shows_plate_heating_and_temperature():
    from matplotlib.figure import Figure

    problem = steady_source.problem(size="small")
    figure = Figure(layout="constrained")
    problem.plots["plates"](figure, {"lbfgs": run(problem, LBFGS(), budget=Budget(gradients=6))})
    assert len(figure.axes) == 6  # three fields with their scales
