"""PhiFlow's own step reproduces what was published for it, and agrees with ours."""

import json

import pytest
import torch

from dpcontrol.engine import rollout
from dpcontrol.meter import Budget
from dpcontrol.run import run
from dpcontrol.sim import SemiLagrangianBurgers
from dpcontrol.strategies.minimising.first_order import Adjoint
from dpcontrol.strategies.minimising.quasi_newton import LBFGS

pytest.importorskip("jax")
pytest.importorskip("phi")

from dpcontrol.problems import burgers_phiflow


@pytest.fixture(scope="module")
def problem():
    return burgers_phiflow.problem()


def test_gradient_descent_reproduces_the_published_losses(problem):
    published = json.loads(burgers_phiflow.DATA.read_text())["published_loss"]
    solution = run(problem, Adjoint(optimizer="sgd", learning_rate=5.0, iterations=50))
    for step, loss in published.items():
        assert solution.history["latest"][int(step)] == pytest.approx(loss, abs=6e-7)


def test_lbfgs_solves_it(problem):
    solution = run(problem, LBFGS(), budget=Budget(gradients=40))
    assert solution.loss < 1e-3 < 0.38 < solution.history["loss"][0]


def test_it_is_the_step_that_we_have_ourselves(problem):
    ours = SemiLagrangianBurgers(
        burgers_phiflow.DT, burgers_phiflow.VISCOSITY, extent=(-1.0, 1.0), boundary="periodic"
    )
    start = torch.randn(3, 128, generator=torch.Generator().manual_seed(0))
    found, wanted = (rollout(simulator, start, length=1).states for simulator in (problem.simulator, ours))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=3e-5)
