"""vorticity_correction: what the coarse solver keeps and how it converges, the network's symmetries, a training."""

import math

import pytest
import torch
from dpcontrol.problems import vorticity_correction as file
from taylor import convergence_order, taylor_rates

from dpcontrol.engine import rollout
from dpcontrol.meter import Budget
from dpcontrol.problem import evaluate
from dpcontrol.problem.hybrids import training_windows
from dpcontrol.results import UsageError
from dpcontrol.sim import VorticityFlow
from dpcontrol.solving import solve

F64 = torch.float64


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DPCONTROL_CACHE", str(tmp_path))


def flow(points, *, count=2, seed=0):
    """Smooth vorticity on the box of side 2 pi."""
    generator = torch.Generator().manual_seed(seed)
    return file.vortices(generator, count, points, 2 * math.pi, 2.0).double()


def errors_at(sizes, order):
    """Distance from the spectral solution after a fifth of a unit of time, as cells of each size see it."""
    fine = flow(128)
    truth = rollout(VorticityFlow(0.005, (128, 128), viscosity=5e-3), fine, length=100).states[-1]
    found = []
    for cells in sizes:
        coarse = file.FiniteVolumeVorticity(0.8 / cells, 2 * math.pi / cells, 5e-3, order)
        end = rollout(coarse, file.seen(fine, cells), length=round(0.5 * cells / 0.8)).states[-1]
        found.append(float((end - file.seen(truth, cells)).square().mean().sqrt()))
    return found


def test_the_coarse_solver_is_of_second_order_and_parabolas_make_it_better():
    sizes = (32, 64, 128)
    central = errors_at(sizes, 2)
    assert convergence_order([1 / n for n in sizes], central) == pytest.approx(2, abs=0.15)
    assert all(better < worse / 2 for better, worse in zip(errors_at(sizes, 3), central, strict=True))


def test_it_keeps_the_sum_and_without_viscosity_the_enstrophy_up_to_the_time_steps():
    before = flow(32) + 0.3
    lost = []
    for dt in (0.04, 0.02, 0.01):
        simulator = file.FiniteVolumeVorticity(dt, viscosity=0.0)
        after = rollout(simulator, before, length=round(0.4 / dt)).states[-1]
        torch.testing.assert_close(after.sum((1, 2)), before.sum((1, 2)))
        lost.append(float((after.square().sum() / before.square().sum() - 1).abs()))
    assert lost[-1] < 1e-5 and convergence_order([0.04, 0.02, 0.01], lost) > 2.5


def test_gradients_in_state_viscosity_and_source():
    simulator = file.FiniteVolumeVorticity(0.05)
    weight = flow(32, seed=1)

    def loss(z):
        states = rollout(
            simulator, z["state"], z["source"], length=3, parameters={"viscosity": z["viscosity"]}
        ).states
        return (states[-1] * weight).sum()

    point = {
        "state": flow(32),
        "viscosity": torch.tensor([0.02, 0.05], dtype=F64),
        "source": 0.1 * flow(32, seed=2).expand(3, 2, 32, 32),
    }
    assert taylor_rates(loss, point) == pytest.approx([2.0] * 4, abs=0.1)


def test_steps_that_are_too_long_are_refused():
    with pytest.raises(UsageError, match="the flow crosses .* reduce dt"):
        rollout(file.FiniteVolumeVorticity(1.0), flow(32), length=1)
    with pytest.raises(UsageError, match=r"\(scenarios, nx, ny\)"):
        rollout(file.FiniteVolumeVorticity(0.05), flow(32)[0], length=1)


def test_resampling_and_means_agree_about_a_wave():
    x = 2 * math.pi * torch.arange(48, dtype=F64) / 48
    wave = torch.cos(3 * x)[:, None] * torch.sin(2 * x)[None] + 0.5
    back = file.resampled(file.resampled(wave[None], 96), 48)
    torch.testing.assert_close(back, wave[None])
    torch.testing.assert_close(file.resampled(wave[None], 96)[:, ::2, ::2], wave[None])
    torch.testing.assert_close(file.merged(wave[None], 12).mean(), torch.tensor(0.5, dtype=F64))


def test_the_network_conserves_commutes_with_shifts_and_leaves_constants_alone():
    torch.manual_seed(0)
    network = file.SeesVelocity(2, 1, width=4).double()
    x = torch.stack([flow(32), torch.ones(2, 32, 32, dtype=F64)], 1)
    found = network(x)
    torch.testing.assert_close(found.sum((2, 3)), torch.zeros(2, 1, dtype=F64), rtol=0, atol=1e-9)
    torch.testing.assert_close(network(x.roll((3, 5), (2, 3))), found.roll((3, 5), (2, 3)))
    assert float(network(torch.ones(1, 2, 16, 16, dtype=F64)).detach().abs().max()) < 1e-14


def test_a_short_training_in_the_loop_helps_also_in_a_larger_box():
    problem = file.problem(size="small")
    solution = solve(problem, "unrolled", budget=Budget(simulated_steps=8_000))
    assert solution.metrics["error_ratio"] < 0.55
    asked = training_windows(problem).examination
    larger = asked.unseen["larger box"]()
    assert larger.states.shape[2:] == (32, 32)
    corrected = evaluate(problem, solution.value, reference=larger, part="all")
    assert corrected.error(20) < 0.6 * evaluate(problem, reference=larger, part="all").error(20)
    for label in ("2 x finer", "third order, same grid", "spectral, 2 x finer"):
        found = evaluate(problem, solver=asked.resolutions[label])
        assert found.error(20) < evaluate(problem).error(20), label
