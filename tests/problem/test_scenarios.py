"""Samplers of scenarios: what does not draw what it is asked for is refused before anything is trained on it."""

from __future__ import annotations

import math

import pytest
import torch

import dpcontrol as dp
from dpcontrol.comparison.planning import plan
from dpcontrol.problem.distribution import require_distribution

F64 = torch.float64


def drawn(generator, n):
    return {
        "initial_state": torch.randn(n, 4, generator=generator, dtype=F64),
        "goal": {"x": torch.rand(n, 2, generator=generator, dtype=F64)},
    }


def only(**changed):
    """The good sampler with some entries replaced by ``function(generator, n)``."""
    return lambda generator, n: {
        **drawn(generator, n),
        **{name: function(generator, n) for name, function in changed.items()},
    }


def moving(sampler=drawn, count=5):
    scenes = drawn(torch.Generator().manual_seed(3), count)
    return dp.control_problem(
        lambda x, u: x + 0.1 * u,
        initial_state=scenes.pop("initial_state"),
        horizon=4,
        objective=dp.reach({"x": torch.zeros(2)}, of=lambda x: {"x": x[:, :2]}) + 1e-2 * dp.effort(),
        control=dp.ControlSequence(4),
        scenarios=dp.Scenarios(scenes, sampler=sampler),
        name="moving",
    )


SAMPLERS = {
    "another number": (
        lambda g, n: drawn(g, 3),
        r"asked for 2, must draw initial_state .* as \(2, 4\) float64; found \(3, 4\) float64",
    ),
    "another number of one entry": (
        only(goal=lambda g, n: {"x": torch.rand(3, 2, generator=g, dtype=F64)}),
        r"must draw goal .*, as \{x: \(2, 2\) float64\}; found \{x: \(3, 2\) float64\}",
    ),
    "single precision": (
        only(initial_state=lambda g, n: torch.randn(n, 4, generator=g)),
        r"initial_state .* as \(2, 4\) float64; found \(2, 4\) float32",
    ),
    "another shape": (
        only(initial_state=lambda g, n: torch.randn(n, 3, generator=g, dtype=F64)),
        r"initial_state .* as \(2, 4\) float64; found \(2, 3\) float64",
    ),
    "another structure": (
        only(goal=lambda g, n: torch.rand(n, 2, generator=g, dtype=F64)),
        r"goal .* as \{x: \(2, 2\) float64\}; found \(2, 2\) float64",
    ),
    "arrays": (
        only(initial_state=lambda g, n: torch.randn(n, 4, generator=g, dtype=F64).numpy()),
        "initial_state .* found ndarray",
    ),
    "numbers": (only(initial_state=lambda g, n: 1.0), "initial_state .* found float"),
    "no dict": (lambda g, n: torch.zeros(n, 4), r"must return a dict name -> tensor \(n, ...\)"),
    "an entry left out": (
        lambda g, n: {"initial_state": torch.zeros(n, 4, dtype=F64)},
        r"it left out \['goal'\]",
    ),
    "not a number": (
        only(goal=lambda g, n: {"x": torch.full((n, 2), math.nan, dtype=F64)}),
        "numbers for goal that are not finite",
    ),
    "another generator": (
        only(initial_state=lambda g, n: torch.randn(n, 4, dtype=F64)),
        "two different initial_state from equal generators",
    ),
    "raises": (lambda g, n: {}["initial_state"], r"sampler\(generator, 2\), failed with KeyError"),
    "no arguments": (lambda: {}, "failed with TypeError"),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_bad_sampler_is_refused_before_anything_is_trained(name, tmp_path):
    sampler, sentence = SAMPLERS[name]
    with pytest.raises(dp.UsageError, match=sentence) as caught:
        dp.solve(moving(sampler), "policy", folder=tmp_path / "run")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("strategy", ["policy", "evolved_policy", "planner"])
def test_who_trains_a_controller_asks_its_sampler(strategy):
    problem = moving(lambda g, n: drawn(g, 3))
    if strategy == "planner":
        problem = dp.control_problem(
            lambda x, u: x + 0.1 * u,
            initial_state=torch.ones(2, 4, dtype=F64),
            horizon=4,
            objective=dp.reach(torch.zeros(4, dtype=F64)),
            control=dp.ControlSequence(4),
            scenarios=dp.Scenarios({}, sampler=lambda g, n: {"initial_state": torch.zeros(7, 4, dtype=F64)}),
        )
    with pytest.raises(dp.UsageError, match="the sampler of scenarios, asked for"):
        dp.solve(problem, strategy)


def test_a_comparison_runs_the_others():
    tasks = plan(moving(lambda g, n: drawn(g, 3)), ["lbfgs", "policy"], 1)
    assert tasks[0].refused is None and "asked for 2, must draw" in tasks[1].refused


def test_a_problem_with_as_many_scenes_is_asked_for_another_number():
    with pytest.raises(dp.UsageError, match=r"asked for 3, must draw .* found \(2, 4\)"):
        require_distribution(moving(lambda g, n: drawn(g, 2), count=2).scenarios)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_good_sampler_passes_and_the_global_generator_stays(count):
    before = torch.get_rng_state()
    require_distribution(moving(count=count).scenarios)
    require_distribution(moving(sampler=None).scenarios)
    assert torch.equal(before, torch.get_rng_state())


def test_every_draw_is_counted():
    counted = moving(lambda g, n: drawn(g, min(n, 4))).scenarios
    assert counted.draw(torch.Generator(), 4).count == 4
    with pytest.raises(dp.UsageError, match=r"asked for 6, .* found \(4, 4\)"):
        counted.draw(torch.Generator(), 6)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (({}, 3), r"the sampler of Scenarios is a function sampler\(generator, n\) .* found 3"),
        ((3,), "the data of Scenarios are a dict"),
        (({}, None, frozenset({"noise"})), "Scenarios share noise, which is no entry"),
        (({"length": 3.0},), "same leading axis"),
    ],
)
def test_scenarios_of_a_wrong_kind_are_refused(given, sentence):
    with pytest.raises(dp.UsageError, match=sentence):
        dp.Scenarios(*given)
