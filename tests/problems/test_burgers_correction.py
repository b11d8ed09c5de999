"""burgers_correction: the data are those of a finer solver, and a short training helps on what it has not seen."""

import pytest
import torch
from dpcontrol.problems import burgers_correction as file

from dpcontrol.meter import Budget
from dpcontrol.problem import Reference, evaluate
from dpcontrol.solving import solve


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DPCONTROL_CACHE", str(tmp_path))


def test_the_reference_conserves_momentum_and_loses_energy_which_the_coarse_solver_does_otherwise():
    found = file.finer(torch.Generator().manual_seed(0), 6, 40, file.VISCOSITIES)
    states = found.states.double()
    assert states.shape == (41, 6, file.CELLS) and found.states.dtype == torch.float32
    torch.testing.assert_close(states.sum(2), states[:1].sum(2).expand(41, 6), rtol=0, atol=1e-4)
    energy = states.square().sum(2)
    assert bool((energy[1:] < energy[:-1] * (1 + 1e-5)).all())
    low, high = file.VISCOSITIES
    assert bool(((found.parameters["viscosity"] >= low) & (found.parameters["viscosity"] <= high)).all())


def test_a_short_training_in_the_loop_helps_inside_and_outside_of_its_range():
    problem = file.problem(size="small")
    assert problem.metrics({"parameters": {"correction": {
        key: torch.zeros_like(value) for key, value in problem.start()["parameters"]["correction"].items()
    }}})["error_ratio"] == pytest.approx(1.0, rel=1e-4)  # fmt: skip
    options = {"optimizer": "adam", "learning_rate": 5e-3, "batch": 16, "validate_every": 20}
    solution = solve(problem, "unrolled", budget=Budget(simulated_steps=30_000), **options)
    assert solution.metrics["error_ratio"] < 0.4
    thin = file.outside(torch.Generator().manual_seed(1), 6, 40)
    thin = Reference(thin.states, thin.parameters, {"train": (0,), "validation": (1,), "test": range(2, 6)})
    corrected = evaluate(problem, solution.value, reference=thin)
    assert corrected.error(20) < evaluate(problem, reference=thin).error(20)
    assert bool(evaluate(problem, solution.value, steps=300).stable.all())
