"""advection_diffusion_correction: the solver's known error, and what a network in its loop makes of it."""

import itertools
import math

import pytest
import torch
from dpcontrol.problems import advection_diffusion_correction as file
from taylor import taylor_rates

from dpcontrol.engine import rollout
from dpcontrol.meter import Budget
from dpcontrol.problem import Reference, evaluate
from dpcontrol.results import UsageError
from dpcontrol.solving import solve

F64 = torch.float64


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DPCONTROL_CACHE", str(tmp_path))


def test_upwinding_smears_a_wave_as_its_modified_equation_says():
    c, kappa = 0.7, file.DIFFUSIVITY
    errors = []
    for cells in (64, 128, 256):
        dt, steps = 0.2 / cells, cells
        x = torch.arange(cells, dtype=F64) / cells
        wave = torch.sin(2 * math.pi * x)[None]
        end = rollout(file.Upwind(dt, c), wave, length=steps).states[-1]
        amplitude = 2 * float(torch.fft.rfft(end)[0, 1].abs()) / cells
        diffusivity = -math.log(amplitude) / ((2 * math.pi) ** 2 * dt * steps)
        errors.append(abs(diffusivity - (kappa + c * (1 / cells - c * dt) / 2)))
        assert float((end.sum() - wave.sum()).abs()) < 1e-12
    assert errors[0] < 0.02 * c / 64
    assert all(fine < 0.4 * coarse for coarse, fine in itertools.pairwise(errors))


def test_gradients_of_the_coarse_solver():
    generator = torch.Generator().manual_seed(0)
    point = {
        "state": torch.randn(2, 8, generator=generator, dtype=F64),
        "control": torch.randn(3, 2, 8, generator=generator, dtype=F64),
        "parameters": {
            "velocity_0": torch.tensor(0.6, dtype=F64),
            "diffusivity": torch.tensor(1e-3, dtype=F64),
        },
    }

    def score(z):
        states = rollout(file.Upwind(0.02), z["state"], z["control"], parameters=z["parameters"]).states
        return states.pow(3).sum()

    assert all(rate > 1.9 for rate in taylor_rates(score, point, largest=1e-3))


def test_it_is_stable_up_to_its_limit_and_says_so():
    with pytest.raises(UsageError, match="reduce dt"):
        rollout(file.Upwind(0.05), torch.ones(1, 32, dtype=F64), length=1)
    with pytest.raises(UsageError, match="comes in the sizes"):
        file.problem(size="huge")


def test_the_reference_is_the_exact_translation():
    problem = file.problem(size="small")
    data = problem.scenarios.data
    assert tuple(data["reference"].shape) == (problem.scenarios.count, 21, 32)
    # means of four points lose the same of a wave at every step; its phase turns by the speed
    wave = torch.fft.rfft(data["reference"][:, :2])[..., 1]
    turned = torch.angle(wave[:, 1] / wave[:, 0])
    torch.testing.assert_close(turned, -2 * math.pi * data["velocity_0"] * file.DT, rtol=1e-9, atol=1e-10)
    faded = (wave[:, 1] / wave[:, 0]).abs()
    torch.testing.assert_close(
        faded,
        torch.full_like(faded, math.exp(-file.DIFFUSIVITY * (2 * math.pi) ** 2 * file.DT)),
        rtol=1e-9,
        atol=0,
    )


def test_trained_in_the_loop_it_beats_the_coarse_solver_and_the_network_alone():
    problem = file.problem(size="small")
    budget = Budget(simulated_steps=24_000)
    found = {
        name: solve(problem, name, budget=budget, learning_rate=0.01)
        for name in ("unrolled", "supervised", "surrogate")
    }
    ratios = {name: solution.metrics["error_ratio"] for name, solution in found.items()}
    assert ratios["unrolled"] < 0.25 and ratios["supervised"] < 0.25
    assert ratios["surrogate"] > 2 * max(ratios["unrolled"], ratios["supervised"])
    # and at speeds that training never saw
    fast = file.faster(torch.Generator().manual_seed(1), 10, 60)
    fast = Reference(fast.states, fast.parameters, {"train": (0,), "validation": (1,), "test": range(2, 10)})
    errors = {
        name: evaluate(solution.problem, solution.value, reference=fast).error(60)
        for name, solution in found.items()
    }
    coarse = evaluate(problem, reference=fast).error(60)
    assert errors["unrolled"] < 0.5 * coarse and errors["unrolled"] < errors["surrogate"]
    longest = evaluate(problem, found["unrolled"].value, steps=500)
    assert bool(longest.stable.all())
