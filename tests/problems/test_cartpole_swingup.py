"""The pole on the cart: it hangs until it is pumped, the law holds it upright, and physics is that of the simulator."""

import math

import pytest
import torch
from dpcontrol.problems import cartpole_swingup

from dpcontrol.engine import rollout
from dpcontrol.meter import Budget
from dpcontrol.run import run
from dpcontrol.strategies.minimising.quasi_newton import LBFGS


@pytest.mark.parametrize("size", ["small", "full"])
def test_energy_shaping_swings_up_every_scene(size):
    problem = cartpole_swingup.problem(size=size)
    trajectory = problem.run_law(cartpole_swingup.energy_shaping)
    assert float(problem.metric_samples(trajectory)["upright"][0].mean()) == 1
    assert float(trajectory.controls.abs().max()) <= cartpole_swingup.STRONGEST


def test_without_force_it_swings_below_and_keeps_its_energy():
    problem = cartpole_swingup.problem(size="small")
    start = problem.scenarios.data["initial_state"]
    still = torch.zeros(problem.horizon, problem.scenarios.count, 1, dtype=torch.float64)
    path = rollout(problem.simulator, start, still).states
    assert float(torch.cos(path[..., 2]).max()) < -0.9
    _, v, theta, omega = path.unbind(-1)
    m, l, total = 0.1, 0.5, 1.1
    energy = (
        total * v.square() / 2
        + m * l * v * omega * torch.cos(theta)
        + 2 / 3 * m * l * l * omega.square()
        + m * 9.81 * l * torch.cos(theta)
    )
    assert float((energy - energy[0]).abs().max()) < 1e-4 * float(energy[0].abs().max())


def test_the_cost_counts_full_turns_as_nothing_and_observations_are_continuous():
    state = torch.tensor([[0.1, 0.2, 0.3, 0.4]], dtype=torch.float64)
    turned = state + torch.tensor([0.0, 0.0, 2 * math.pi, 0.0], dtype=torch.float64)
    force = torch.ones(1, 1, dtype=torch.float64)
    torch.testing.assert_close(
        cartpole_swingup.stage(state, force, 0.0), cartpole_swingup.stage(turned, force, 0.0)
    )
    torch.testing.assert_close(cartpole_swingup.seen(state), cartpole_swingup.seen(turned))
    rest = torch.zeros(1, 4, dtype=torch.float64)
    assert float(cartpole_swingup.stage(rest, 0 * force, 0.0)) == 0


def test_lbfgs_pumps():
    problem = cartpole_swingup.problem(size="small")
    nothing = float(problem.loss(problem.start()).mean())
    solution = run(problem, LBFGS(), budget=Budget(simulated_steps=30_000))
    assert solution.loss < 0.6 * nothing
