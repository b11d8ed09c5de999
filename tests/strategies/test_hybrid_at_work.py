"""A trained correction at work: what is controlled and inferred through it is better than through the coarse solver.

Better means in the world that both stand for: controls are replayed in the exact solver, parameters have a true value.
"""

import pytest
import torch
from correction_cases import CELLS, DT, posed, trajectories
from dpcontrol.problems.advection_diffusion_correction import Upwind

import dpcontrol as dp
from dpcontrol.problem import corrected
from dpcontrol.sim import Actuated, AdvectionDiffusion

F64 = torch.float64
STEPS = 12


def exact():
    return AdvectionDiffusion(DT, (CELLS,), 2e-4, velocity=(1.0,))


@pytest.fixture(scope="module")
def hybrid():
    """Trained on single steps for a second or two."""
    problem = posed()
    solution = dp.solve(problem, "supervised", learning_rate=5e-3, batch=32, iterations=500, seed=0)
    assert solution.metrics["error_ratio"] < 0.2
    return corrected(problem, solution.value)


def pushed(simulator):
    """A source with two strengths, over the first half of the box."""
    x = (torch.arange(CELLS, dtype=F64) + 0.5) / CELLS
    return Actuated(simulator, torch.exp(-(((x - torch.tensor([[0.15], [0.35]])) / 0.1) ** 2)))


def test_it_goes_further_than_it_was_trained_to(hybrid):
    states, speeds = trajectories(count=5, steps=60, seed=7)
    errors = {}
    for label, simulator in {"hybrid": hybrid, "coarse": Upwind(DT)}.items():
        found = dp.rollout(simulator, states[0], length=60, parameters={"velocity_0": speeds}).states
        errors[label] = float((found - states).abs().mean() / states.abs().mean())
    assert errors["hybrid"] < 0.6 * errors["coarse"]


def test_controls_found_through_it_miss_less_when_they_are_replayed(hybrid):
    states, speeds = trajectories(count=5, steps=1, seed=8)
    start, given = states[0], {"velocity_0": speeds}
    t = torch.arange(STEPS, dtype=F64)[:, None, None] / STEPS
    size = torch.randn(2, 5, 2, generator=torch.Generator().manual_seed(1), dtype=F64)
    hidden = 6 * (size[0] + size[1] * torch.sin(3 * t))

    def end(controls):
        return dp.rollout(pushed(exact()), start, controls, parameters=given).states[-1]

    target, missed = end(hidden), {}
    for label, simulator in {"hybrid": hybrid, "coarse": Upwind(DT), "exact": exact()}.items():
        problem = dp.control_problem(
            pushed(simulator),
            initial_state=start,
            horizon=STEPS,
            objective=dp.reach(target) + 1e-5 * dp.effort(),
            control=dp.ControlSequence(2),
            scenarios=given,
        )
        controls = dp.solve(problem, "lbfgs", iterations=150).trajectory().controls
        missed[label] = float((end(controls) - target).norm())
    assert missed["exact"] < 0.5 * missed["hybrid"] < 0.25 * missed["coarse"]


def test_parameters_inferred_through_it_are_less_biased(hybrid):
    states, speeds = trajectories(count=6, steps=STEPS, seed=9)
    wrong = {}
    for label, simulator in {"hybrid": hybrid, "coarse": Upwind(DT)}.items():
        problem = dp.control_problem(
            simulator,
            initial_state=states[0],
            horizon=STEPS,
            objective=dp.track(states[:, :, ::4], of=lambda state: state[:, ::4]),
            unknown=dp.Parameters("velocity_0", low=0.2, high=1.3, start={"velocity_0": 0.75}, shared=False),
        )
        found = dp.solve(problem, "lbfgs", iterations=60).value["parameters"]["velocity_0"]
        wrong[label] = float((found - speeds).abs().mean())
    assert wrong["hybrid"] < 0.5 * wrong["coarse"]


def test_a_feedback_law_is_learned_through_it_for_another_plant(hybrid):
    states, speeds = trajectories(count=4, steps=1, seed=10)
    problem = dp.control_problem(
        pushed(hybrid),
        plant=pushed(exact()),
        initial_state=states[0],
        horizon=STEPS,
        objective=dp.reach(torch.zeros(CELLS, dtype=F64)) + 1e-3 * dp.effort(),
        control=dp.ControlSequence(2, low=-20.0, high=20.0),
        scenarios={"velocity_0": speeds},
    )
    idle = float(problem.loss(problem.start()).mean())
    policy = dp.solve(problem, "policy", budget=dp.Budget(simulated_steps=4_000))
    assert policy.loss < 0.95 * idle
