"""What a problem, its data, a solution and a trajectory look like where somebody types their name."""

from __future__ import annotations

import pytest

import dpcontrol as dp
from dpcontrol import catalogue


@pytest.mark.parametrize(
    "name", ["burgers", "poisson_inversion", "wave_focusing", "hidden_target", "smoke_inverse"]
)
def test_a_problem_is_shown_in_a_few_lines_without_numbers_of_fields(name: str) -> None:
    problem = catalogue.find(name).build(size="small", seed=0)
    assert "\n" not in repr(problem)
    assert repr(problem).startswith(f"Problem {problem.name}: {problem.scenarios.count} scenario")
    lines = str(problem).splitlines()
    assert lines[0] == repr(problem)
    assert len(lines) < 12
    assert max(len(line) for line in lines) < 140
    assert " at 0x" not in str(problem)
    for part in ("simulator", "data", "objective", *problem.unknown.names):
        assert any(line.startswith(f"  {part} ") for line in lines[1:])


def test_data_a_trajectory_and_a_solution_say_their_sizes() -> None:
    problem = catalogue.find("burgers").build(size="small", seed=0)
    assert repr(problem.scenarios) == (
        "Scenarios(8: initial_state (8, 32) float64, target (8, 32) float64, force (8, 32) float64; more can be drawn)"
    )
    assert "drawn" not in repr(dp.Scenarios({"x": problem.scenarios.data["target"]}))
    solution = dp.solve(problem, "lbfgs", budget=dp.Budget(simulated_steps=3000))
    assert (
        repr(solution.trajectory())
        == "Trajectory(32 steps: states (33, 8, 32) float64, controls (32, 8, 32) float64)"
    )
    assert "\n" not in repr(solution)
    assert repr(solution).startswith("Solution of burgers by lbfgs: loss ")
    assert f"effort_ratio {solution.metrics['effort_ratio']:.6g}" in repr(solution)
    told = str(solution).splitlines()
    assert told[0] == f"burgers by lbfgs: {solution.status.sentence}"
    assert [line.split()[0] for line in told[1:]] == ["loss", *solution.metrics, "cost"]
