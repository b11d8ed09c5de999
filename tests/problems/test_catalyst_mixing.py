"""Catalyst mixing against the published optimum and its structure."""

import pytest
from dpcontrol.problems import catalyst_mixing

from dpcontrol.run import run
from dpcontrol.strategies.minimising.quasi_newton import LBFGS


def test_small_is_near_the_optimum_with_the_published_structure():
    solution = run(catalyst_mixing.problem(size="small"), LBFGS(iterations=45))
    assert solution.loss == pytest.approx(-0.0480556, abs=1e-6)
    control = solution.value["control"][0, :, 0]
    assert float(control.min()) >= 0 and float(control.max()) <= 1
    assert float(control[:6].min()) == 1 and float(control[38:].max()) == 0
    assert float(control[10:34].mean()) == pytest.approx(0.2273, abs=2e-3)


def test_the_structure_as_a_law_is_nearly_optimal():
    problem = catalyst_mixing.problem()
    found = problem.metric_samples(problem.run_law(problem.baselines["bang, singular, bang"]))["yield"][0]
    assert float(found) == pytest.approx(0.0480556, abs=5e-5)


@pytest.mark.slow
def test_200_held_controls_reach_the_published_digits():
    solution = run(catalyst_mixing.problem(), LBFGS())
    assert round(solution.loss, 7) == -0.0480557
