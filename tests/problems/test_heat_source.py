"""The heated plate: a linear problem, so its optimum is known."""

import numpy as np
import pytest
import torch
from dpcontrol.problems import heat_source
from scipy.optimize import lsq_linear

from dpcontrol.engine import rollout
from dpcontrol.meter import Budget
from dpcontrol.problem import ControlSequence, UsageError, control_problem, effort, reach
from dpcontrol.run import run
from dpcontrol.sim import AdvectionDiffusion
from dpcontrol.strategies.minimising.quasi_newton import LBFGS


def optimum(problem):
    """Losses of the bounded least-squares problem, by a dense solver, scene by scene."""
    steps, heaters = problem.horizon, len(problem.simulator.shapes)
    units = torch.eye(steps * heaters, dtype=torch.float64).reshape(-1, steps, heaters).transpose(0, 1)
    points = problem.scenarios.data["target"].shape[-1]
    start = torch.zeros(units.shape[1], points, points, dtype=torch.float64)
    answers = rollout(problem.simulator, start, units).states[-1].flatten(1).T.numpy() / points
    matrix = np.vstack((answers, np.sqrt(heat_source.PRICE) * np.eye(steps * heaters)))
    losses = []
    for target in problem.scenarios.data["target"]:
        wanted = np.concatenate((target.flatten().numpy() / points, np.zeros(steps * heaters)))
        found = lsq_linear(matrix, wanted, (0, heat_source.STRONGEST), tol=1e-12)
        losses.append(2 * found.cost)
    return torch.tensor(losses, dtype=torch.float64)


def test_lbfgs_reaches_the_optimum_of_the_dense_problem_and_beats_the_thermostat():
    problem = heat_source.problem(size="small")
    law = problem.metric_samples(problem.run_law(problem.baselines["thermostat"]))["relative_error"]
    solution = run(problem, LBFGS(), budget=Budget(gradients=600))
    wanted = optimum(problem)
    assert bool((solution.losses >= wanted * (1 - 1e-6)).all())
    torch.testing.assert_close(solution.losses, wanted, rtol=0.05, atol=1e-7)
    assert solution.metrics["relative_error"] < 0.3 * float(law[0].mean() / law[1].mean())


def test_a_mode_of_heat_is_cancelled_at_its_known_price():
    """From 1 to 0 in time 1, lambda = 0.1 pi^2: the least effort is 2 lambda / (exp(2 lambda) - 1)."""
    cells, steps = 8, 50
    simulator = AdvectionDiffusion(1 / steps, (cells,), 0.1, lengths=(2.0,))
    (x,) = simulator.box.grid()
    mode = torch.sin(torch.pi * x)[None]
    problem = control_problem(
        simulator,
        initial_state=mode,
        horizon=steps,
        objective=1e4 * reach(torch.zeros_like(mode)) + (1 / steps / float(mode.square().sum())) * effort(),
        control=ControlSequence(cells),
    )
    solution = run(problem, LBFGS(memory=20), budget=Budget(gradients=200))
    assert solution.loss == pytest.approx(0.31843355170305626, rel=2e-3)


def test_seeds_draw_targets_and_bad_arguments_are_one_sentence():
    first, other = (heat_source.problem(size="small", seed=s).scenarios.data["target"] for s in (0, 1))
    assert not torch.equal(first, other)
    with pytest.raises(UsageError, match="comes in the sizes"):
        heat_source.problem(size="huge")
