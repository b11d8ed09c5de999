"""Chaos brought to rest: the scenes are chaotic, the linear law works, and L-BFGS beats it inside the bounds."""

import pytest
import torch
from dpcontrol.problems import ks_stabilisation as ks

from dpcontrol.engine import rollout
from dpcontrol.meter import Budget
from dpcontrol.problem import UsageError
from dpcontrol.run import run
from dpcontrol.strategies.minimising.quasi_newton import LBFGS


def figures(problem, trajectory):
    samples = problem.metric_samples(trajectory)
    return {name: float(top.mean() / bottom.mean()) for name, (top, bottom) in samples.items()}


def test_scenes_stay_on_their_attractor_and_the_linear_law_brings_them_to_rest():
    problem = ks.problem()
    start = problem.scenarios.data["initial_state"]
    assert float(start.mean(1).abs().max()) < 1e-12
    assert 0.8 < float(start.square().mean(1).sqrt().min())
    idle = figures(problem, problem.simulate(problem.start()))
    law = figures(problem, problem.run_law(problem.baselines["LQR feedback"]))
    assert 0.8 < idle["final_rms"] < 2
    assert law["final_rms"] < 0.01
    assert law["loss_ratio"] == pytest.approx(1, rel=1e-10)
    assert idle["loss_ratio"] > 5


def test_the_small_grid_resolves_the_chaos_for_as_long_as_a_scene_lasts():
    coarse = ks.problem(size="small").scenarios.data["initial_state"]
    modes = torch.fft.rfft(coarse)
    fine = torch.fft.irfft(torch.nn.functional.pad(2 * modes, (0, 16)), n=64)
    ends = [rollout(ks.actuated(len(s[0])).inner, s, length=40).states[-1] for s in (coarse, fine)]
    assert float((ends[0] - ends[1][:, ::2]).abs().max()) < 0.05


def test_lbfgs_beats_the_linear_law_inside_the_bounds():
    problem = ks.problem(size="small")
    law = figures(problem, problem.run_law(problem.baselines["LQR feedback"]))
    solution = run(problem, LBFGS(), budget=Budget(gradients=360))
    assert solution.metrics["loss_ratio"] < 0.99
    assert solution.metrics["loss_ratio"] == pytest.approx(
        solution.loss / (law["energy"] + law["effort"]), rel=1e-9
    )
    assert float(solution.trajectory().controls.abs().max()) <= ks.STRONGEST


def test_seeds_draw_scenes_and_bad_arguments_are_one_sentence():
    first, again, other = (
        ks.problem(size="small", seed=s).scenarios.data["initial_state"] for s in (3, 3, 4)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)
    problem = ks.problem(size="small")
    fresh = problem.with_scenarios(problem.scenarios.draw(torch.Generator().manual_seed(5), 2))
    assert fresh.loss(fresh.start()).shape == (2,)
    with pytest.raises(UsageError, match="comes in the sizes"):
        ks.problem(size="huge")
