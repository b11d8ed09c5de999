"""The published reconstruction: its loss sequence, its error, and a better one by regularisation."""

import json

import pytest
import torch
from dpcontrol.problems import burgers_reconstruction as reconstruction

from dpcontrol.meter import Budget
from dpcontrol.problem import UsageError
from dpcontrol.run import run
from dpcontrol.strategies.minimising.first_order import Adjoint
from dpcontrol.strategies.minimising.quasi_newton import LBFGS


def test_gradient_descent_reproduces_the_published_losses_and_error():
    published = json.loads(reconstruction.DATA.read_text())
    problem = reconstruction.problem()
    solution = run(problem, Adjoint(optimizer="sgd", learning_rate=5.0, iterations=50))
    losses = solution.history["latest"]
    for step, loss in published["published_loss"].items():
        assert losses[int(step)] == pytest.approx(loss, abs=6e-7)
    assert solution.metrics["error"] == pytest.approx(
        published["published_mae"]["differentiable physics"], abs=6e-6
    )
    assert solution.metrics["misfit"] == pytest.approx(solution.loss, rel=1e-5)


def test_regularised_reconstruction_is_far_better_for_the_same_number_of_gradients():
    plain = run(reconstruction.problem(), LBFGS(memory=50), budget=Budget(gradients=50))
    better = run(
        reconstruction.problem(regularisation=reconstruction.CHOSEN.weight),
        LBFGS(memory=50),
        budget=Budget(gradients=50),
    )
    assert plain.metrics["error"] == pytest.approx(0.056, abs=0.004)
    assert better.metrics["error"] < 0.035
    assert better.counts.gradients <= 50


def test_the_truth_misses_the_data():
    problem = reconstruction.problem()
    truth = {"initial_state": problem.scenarios.data["truth"]}
    assert problem.metrics(truth)["error"] == 0
    assert problem.metrics(truth)["misfit"] == pytest.approx(1.9e-3, rel=0.02)


def test_smoothing_is_the_inverse_of_its_operator():
    smoothing = reconstruction.Smoothing(length=0.3, order=2.0)
    x = reconstruction.centres(dtype=torch.float64)
    wave = torch.cos(3 * torch.pi * x)
    torch.testing.assert_close(smoothing.inv(wave), (1 + (0.3 * 3 * torch.pi) ** 2) * wave)
    rough = torch.randn(2, 128, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(smoothing.inv(smoothing(rough)), rough)


def test_bad_regularisation_is_one_sentence():
    with pytest.raises(UsageError, match="regularisation >= 0"):
        reconstruction.problem(regularisation=-1.0)
