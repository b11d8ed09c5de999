"""The hidden target: its gradient knows nothing of the disc, values do."""

import pytest
import torch
from dpcontrol.problems import hidden_target

from dpcontrol.meter import Budget
from dpcontrol.run import run
from dpcontrol.strategies.evolving.cross_entropy import CEM
from dpcontrol.strategies.minimising.quasi_newton import LBFGS


@pytest.mark.parametrize("size", ["small", "full"])
def test_the_law_that_knows_the_place_arrives(size):
    problem = hidden_target.problem(size=size)
    samples = problem.metric_samples(problem.run_law(hidden_target.go_home))
    assert float(samples["arrived"][0].mean()) == 1
    assert float(samples["share_inside"][0].mean()) > 0.5


def test_the_gradient_is_that_of_the_effort_alone():
    problem = hidden_target.problem(size="small")
    generator = torch.Generator().manual_seed(0)
    force = torch.rand(6, 40, 2, generator=generator, dtype=torch.float64).requires_grad_()
    problem.loss({"control": force}).sum().backward()
    torch.testing.assert_close(force.grad, 2e-3 * force.detach())


def test_the_loss_counts_the_states_outside():
    problem = hidden_target.problem(size="small")
    trajectory = problem.run_law(hidden_target.go_home)
    controls = trajectory.controls.transpose(0, 1)
    outside = trajectory.states[1:, :, :2].norm(dim=-1) > hidden_target.RADIUS
    expected = outside.sum(0) + 1e-3 * controls.square().sum((1, 2))
    torch.testing.assert_close(problem.loss({"control": controls}), expected)


def test_slopes_stay_at_home_and_samples_find_it():
    problem = hidden_target.problem(size="small")
    budget = Budget(simulated_steps=150_000)
    assert run(problem, LBFGS(), budget=budget).metrics["arrived"] == 0
    assert run(problem, CEM(), seed=1, budget=budget).metrics["arrived"] > 0.6
