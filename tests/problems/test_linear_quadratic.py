"""The regulator against its closed forms."""

import pytest
import torch
from dpcontrol.problems import linear_quadratic

from dpcontrol.problem import UsageError
from dpcontrol.run import run
from dpcontrol.strategies.minimising.quasi_newton import LBFGS

CASES = [
    ({}, 13.316266332761682),
    ({"system": "scalar", "horizon": 2}, 1.6),
    ({"system": "scalar", "size": "small"}, 1.6179775280898876),
    ({"system": "scalar"}, 1.618033988749895),
]


@pytest.mark.parametrize(("arguments", "optimum"), CASES)
def test_lbfgs_and_the_riccati_law_find_the_closed_form(arguments, optimum):
    problem = linear_quadratic.problem(**arguments)
    solution = run(problem, LBFGS())
    assert solution.loss == pytest.approx(optimum, abs=1e-8)
    top, bottom = problem.metric_samples(problem.run_law(problem.baselines["LQR feedback"]))["cost_ratio"]
    assert float(top) == pytest.approx(optimum, abs=1e-12)
    assert float(bottom) == pytest.approx(optimum, abs=1e-12)


def test_every_other_start_has_its_own_optimum():
    problem = linear_quadratic.problem(size="small")
    fresh = problem.with_scenarios(problem.scenarios.draw(torch.Generator().manual_seed(0), 5))
    assert run(fresh, LBFGS()).metrics["cost_ratio"] == pytest.approx(1, abs=1e-10)


def test_another_system_is_one_sentence():
    with pytest.raises(UsageError, match="double integrator"):
        linear_quadratic.problem(system="triple integrator")
