"""Path integral plans: known optima, bounds, instances that are searches of their own, resumption, refusals."""

import pytest
import torch
from dpcontrol.problems import linear_quadratic, pendulum_swingup
from strategy_cases import interrupted_and_resumed, same

from dpcontrol.meter import Budget, Meter
from dpcontrol.problem import ControlSequence, UsageError, control_problem, effort, reach
from dpcontrol.run import run
from dpcontrol.strategies import MPPI

F64 = torch.float64


def lane(count=3, low=None):
    """A point pushed along a line, each scenario to another place."""
    return control_problem(
        lambda x, u: x + 0.2 * u,
        initial_state=torch.zeros(count, 1, dtype=F64),
        horizon=10,
        objective=10 * reach(torch.linspace(-1, 1, count, dtype=F64)[:, None]) + 0.1 * effort(),
        control=ControlSequence(1, low=low, high=None if low is None else -low),
    )


def test_it_comes_close_to_riccati():
    problem = linear_quadratic.problem(size="small")
    found = run(problem, MPPI(), budget=Budget(simulated_steps=200_000))
    assert found.metrics["cost_ratio"] < 1.003


def test_every_scenario_is_a_search_of_its_own():
    problem = lane()
    found = run(problem, MPPI(samples=128), budget=Budget(simulated_steps=300_000))
    wanted = torch.linspace(-1, 1, 3, dtype=F64)
    # equal pushes u each: minimise 10 (2 u - y)^2 + u^2
    torch.testing.assert_close(found.value["control"][..., 0].mean(1), 20 * wanted / 41, rtol=0, atol=0.02)
    assert float(found.losses[1]) < 1e-6  # the plan itself is the first sample, and it is the optimum here


def test_bounds_are_kept():
    problem = lane(low=-0.3)
    seen = []
    values = Meter.values

    def spy(meter, x, which=None):
        seen.append(float(x.abs().max()))
        return values(meter, x, which)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Meter, "values", spy)
        found = run(problem, MPPI(), budget=Budget(simulated_steps=60_000))
    assert max(seen) <= 0.3
    torch.testing.assert_close(
        found.value["control"][0], torch.full((10, 1), -0.3, dtype=F64), rtol=0, atol=2e-3
    )


def test_samples_of_its_noise_are_correlated_as_it_says():
    problem = pendulum_swingup.problem(size="small")
    strategy = MPPI(samples=4000, smoothing=0.7)
    drawn = strategy._perturbations(Meter(problem), torch.Generator().manual_seed(0))
    assert drawn.shape == (3, 4000, 60)
    torch.testing.assert_close(drawn.var((0, 1)), torch.ones(60, dtype=F64), rtol=0, atol=0.06)
    for lag in (1, 3):
        found = (drawn[..., lag:] * drawn[..., :-lag]).mean()
        assert abs(float(found) - 0.7**lag) < 0.01


def test_a_cold_weight_follows_the_best_sample_a_warm_one_the_mean():
    problem = lane(count=1)
    meter, generator = Meter(problem), torch.Generator()
    plan = meter.start()
    cold = MPPI(temperature=1e-9)._moved(plan, 0.5, meter, generator.manual_seed(3))
    torch.testing.assert_close(cold, meter.best_x)
    warm = MPPI(temperature=1e9)._moved(plan, 0.5, meter, generator.manual_seed(3))
    drawn = 0.5 * MPPI()._perturbations(meter, generator.manual_seed(3))
    drawn[:, 0] = 0
    torch.testing.assert_close(warm, drawn.mean(1))


def test_half_of_the_samples_may_fail():
    """Infinite losses have weight zero; where all are, the plan stays."""

    def step(x, u):
        return torch.where(u > 0.1, torch.nan, x + 0.2 * u)

    problem = control_problem(
        step,
        initial_state=torch.zeros(1, 1, dtype=F64),
        horizon=10,
        objective=10 * reach(torch.tensor([-1.0])) + 0.1 * effort(),
        control=ControlSequence(1),
    )
    found = run(problem, MPPI(), budget=Budget(simulated_steps=100_000))
    assert found.counts.failures > 10
    assert found.loss < 0.30  # 10 / 41 is the optimum


def test_same_seed_same_bits_and_resume(tmp_path, monkeypatch):
    problem, strategy = lane(), MPPI(samples=16, iterations=30)
    first, second, other = (run(problem, strategy, seed=seed) for seed in (5, 5, 6))
    same(first, second)
    assert not torch.equal(first.value["control"], other.value["control"])
    same(first, interrupted_and_resumed(problem, strategy, tmp_path / "run", monkeypatch, after=12))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"samples": 1}, "samples=...\\) must be a whole number, at least 2"),
        ({"temperature": 0.0}, "temperature=...\\) must be a positive number"),
        ({"sigma": -1.0}, "sigma=...\\) must be a positive number"),
        ({"smoothing": 1.0}, "smoothing=...\\) must be a number of at least 0 and below 1"),
        ({"decay": 1.5}, "decay=...\\) must be a number"),
        ({"iterations": 0}, "iterations=...\\) must be a whole number"),
    ],
)
def test_options_that_make_no_sense(fields, words):
    with pytest.raises(UsageError, match=words):
        MPPI(**fields)
