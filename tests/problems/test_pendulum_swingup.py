"""The swing-up: it needs swings, the energy law does it, and so does L-BFGS, inside the bounds."""

import math

import pytest
import torch
from dpcontrol.problems import pendulum_swingup

from dpcontrol.engine import rollout
from dpcontrol.problem import ControlSequence
from dpcontrol.run import run
from dpcontrol.strategies.minimising.quasi_newton import LBFGS


def test_the_motor_alone_does_not_lift():
    problem = pendulum_swingup.problem(size="small")
    data = problem.scenarios.data
    full = torch.full((problem.horizon, problem.scenarios.count, 1), pendulum_swingup.STRONGEST).double()
    parameters = {name: data[name] for name in ("length", "damping")}
    path = rollout(problem.simulator, data["initial_state"], full, parameters=parameters)
    assert float(path.states[..., 0].max()) < math.pi / 2


def test_rest_is_stationary_which_is_why_the_start_guess_swings():
    problem = pendulum_swingup.problem(size="small")
    still = problem.with_unknown(ControlSequence(1, low=-3.5, high=3.5))
    z = {"control": still.start()["control"].clone().requires_grad_()}
    still.loss(z).sum().backward()
    assert float(z["control"].grad.abs().max()) < 1e-10
    assert float(problem.start()["control"].abs().max()) > 0.5


@pytest.mark.parametrize("size", ["small", "full"])
def test_energy_shaping_swings_up_every_scene(size):
    problem = pendulum_swingup.problem(size=size)
    trajectory = problem.run_law(problem.baselines["energy shaping"])
    assert float(problem.metric_samples(trajectory)["swung_up"][0].mean()) == 1
    assert float(trajectory.controls.abs().max()) <= pendulum_swingup.STRONGEST


def test_lbfgs_swings_up_with_less_effort_than_the_law():
    problem = pendulum_swingup.problem(size="small")
    # half as strong again as the usual guess: from that, rounding decides which minimum a scene ends in
    start = 1.5 * problem.start()["control"]
    wider = ControlSequence(1, low=-3.5, high=3.5, start=start)
    solution = run(problem.with_unknown(wider), LBFGS(iterations=200))
    law = problem.metric_samples(problem.run_law(problem.baselines["energy shaping"]))
    controls = solution.trajectory().controls
    assert solution.metrics["swung_up"] == 1
    assert solution.metrics["final_angle_error"] < 0.05
    assert solution.metrics["effort"] < float(law["effort"][0].mean())
    assert float(controls.abs().max()) <= pendulum_swingup.STRONGEST
    # it needs swings: the torque changes its direction
    assert int((controls.sign().diff(dim=0).abs() > 1).sum(0).min()) >= 2
