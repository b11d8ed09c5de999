"""Evolution of weights: its searches on functions with known minima, a known optimal feedback, budgets, resuming."""

import math

import pytest
import torch
from strategy_cases import F64, interrupted_and_resumed

import dpcontrol as dp
from dpcontrol.meter import Budget, Meter
from dpcontrol.run import run
from dpcontrol.strategies.evolving.evolved_policy import EvolvedPolicy
from dpcontrol.strategies.evolving.searches import Antithetic, Separable

QUICK = {"width": 8, "depth": 1, "population": 16, "batch": 8, "validation": 32}


def searched(search, function, generations, count=20, rate=lambda done: 1.0):
    generator = torch.Generator().manual_seed(3)
    for k in range(generations):
        search.tell(function(search.ask(count, generator)), rate(k / generations))
    return float(function(search.mean[None]))


def ellipsoid(size, condition):
    scales = torch.logspace(0, math.log10(condition), size, dtype=F64)
    return lambda x: (scales * (x - 1).square()).sum(1)


def test_separable_adaptation_converges_linearly_and_learns_the_scales():
    function = ellipsoid(12, 1e6)
    search = Separable(torch.zeros(12, dtype=F64), 0.5, 16)
    early = searched(search, function, 150, 16)
    late = searched(search, function, 250, 16)
    assert late < 1e-6 * early and late < 1e-8
    # the variances become those of the inverse Hessian, up to a factor
    slope = torch.linalg.lstsq(
        torch.stack([torch.arange(12, dtype=F64), torch.ones(12, dtype=F64)], 1),
        search._variances.log10()[:, None],
    ).solution[0]
    assert float(slope) == pytest.approx(-6 / 11, rel=0.25)


def test_antithetic_pairs_follow_the_gradient():
    function = ellipsoid(30, 10.0)
    search = Antithetic(torch.zeros(30, dtype=F64), 0.05, 0.05)
    before = float(function(search.mean[None]))
    assert searched(search, function, 150, 20, lambda done: 1 - done) < 1e-2 * before
    # samples are mirrored around the mean
    samples = search.ask(6, torch.Generator().manual_seed(0))
    torch.testing.assert_close(samples[:3] + samples[3:], 2 * search.mean.expand(3, 30))


@pytest.mark.parametrize("make", [lambda m: Antithetic(m, 0.1, 0.1), lambda m: Separable(m, 0.1, 8)])
def test_only_ranks_count_and_failures_are_last(make):
    function = ellipsoid(5, 3.0)
    start = torch.zeros(5, dtype=F64)
    ends = []
    for change in (lambda v: v, lambda v: v.exp(), lambda v: torch.where(v > v.median(), torch.inf, v)):
        search = make(start)
        searched(search, lambda x, change=change: change(function(x)) if len(x) > 1 else function(x), 10, 8)
        ends.append(search.mean)
    torch.testing.assert_close(ends[0], ends[1])
    assert bool(torch.isfinite(ends[2]).all())
    search = make(start)
    search.ask(8, torch.Generator().manual_seed(0))
    search.tell(torch.full((8,), torch.inf), 1.0)
    assert torch.equal(search.mean, start)


def drawn(generator, n):
    return {"initial_state": torch.randn(n, 1, generator=generator, dtype=F64)}


def integrator(sampler=drawn):
    """``x+ = x + u``, ``sum (x^2 + u^2) + x_N^2``; the optimal loss is 1.618 E x^2."""
    return dp.control_problem(
        lambda x, u: x + u,
        initial_state=drawn(torch.Generator().manual_seed(9), 40)["initial_state"],
        horizon=8,
        objective=dp.cost(
            stage=lambda x, u, t: x.square().sum(1) + u.square().sum(1), terminal=lambda x: x.square().sum(1)
        ),
        control=dp.ControlSequence(1),
        scenarios=dp.Scenarios({}, sampler=sampler),
        name="integrator",
    )


class Gain(torch.nn.Module):
    """A constant gain on the state."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.zeros(1))

    def forward(self, seen):
        return self.gain * seen[:, :1]


@pytest.mark.parametrize("options", [{"learning_rate": 0.05}, {"search": "separable", "sigma": 0.2}])
def test_it_finds_the_optimal_gain(options):
    """The stationary gain of the scalar problem is -0.618; a constant one is nearly optimal."""
    problem = integrator()
    solution = run(problem, EvolvedPolicy(network=Gain, iterations=60, **QUICK, **options))
    scale = float(problem.scenarios.data["initial_state"].square().mean())
    assert solution.loss / scale == pytest.approx(1.618, rel=0.02)
    gain = float(next(iter(solution.value["policy"].values())))
    sizes = scale**0.5  # the observation is divided by it
    assert gain / sizes == pytest.approx(-0.618, abs=0.12)
    assert solution.counts.gradients == 0


def test_a_network_learns_on_drawn_scenes_within_its_budget():
    problem = integrator()
    budget = Budget(simulated_steps=60_000)
    solution = run(problem, EvolvedPolicy(**QUICK), budget=budget)
    assert solution.status.kind == "budget spent" and solution.counts.simulated_steps <= 60_000
    nothing = float(problem.loss(problem.start()).mean())
    optimum = dp.solve(problem, "lbfgs").loss
    assert solution.loss - optimum < 0.1 * (nothing - optimum)
    assert "very scenarios" not in solution.status.sentence
    assert "very scenarios" in run(integrator(None), EvolvedPolicy(**QUICK, iterations=2)).status.sentence


@pytest.mark.parametrize("search", ["antithetic", "separable"])
def test_same_seed_same_numbers_and_resumed_equals_uninterrupted(search, tmp_path, monkeypatch):
    strategy = EvolvedPolicy(**QUICK, search=search, iterations=9, validate_every=2)
    whole = run(integrator(), strategy, seed=5)
    assert run(integrator(), strategy, seed=6).loss != whole.loss
    again = interrupted_and_resumed(integrator(), strategy, tmp_path / "run", monkeypatch, after=3)
    assert again.loss == whole.loss and again.history["latest"] == whole.history["latest"]


def test_a_population_is_one_batch_and_paid_for():
    problem = EvolvedPolicy(**QUICK).pose(integrator())
    meter = Meter(problem)
    rows = meter.start() + 0.1 * torch.randn(5, meter.dimension, dtype=F64)
    scenes = problem.scenarios.draw(torch.Generator().manual_seed(0), 7)
    losses = meter.sampled_rows(rows, scenes)
    assert losses.shape == (5, 7) and meter.counts.simulated_steps == 5 * 7 * 8
    torch.testing.assert_close(losses[3], meter.sampled_values(rows[3:4], scenes))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"population": 7}, "even"),
        ({"search": "full"}, "one of"),
        ({"sigma": 0}, "positive"),
        ({"batch": 0}, "whole"),
    ],
)
def test_wrong_options_are_refused(wrong, words):
    with pytest.raises(dp.UsageError, match=words):
        EvolvedPolicy(**wrong)


def test_a_law_that_is_not_there_is_refused():
    with pytest.raises(dp.UsageError, match="no law"):
        dp.solve(integrator(), "evolved_policy", base="look ahead")
