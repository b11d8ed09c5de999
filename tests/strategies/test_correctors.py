"""Trainings of corrections: what they are equal to, resumed to the bit, equal budgets, held-out trajectories."""

from dataclasses import replace

import pytest
import torch
from correction_cases import F64, NETWORK, posed
from strategy_cases import interrupted_and_resumed

from dpcontrol import tree
from dpcontrol.engine import Full, StopGradient
from dpcontrol.meter import Budget, Meter
from dpcontrol.problem import training_scenarios
from dpcontrol.problem.hybrids import fresh_weights, training_windows
from dpcontrol.results import UsageError
from dpcontrol.run import run
from dpcontrol.sim import Still
from dpcontrol.solving import solve
from dpcontrol.strategies import Noisy, Stopped, Supervised, Surrogate, Unrolled

FAST = {"batch": 4, "iterations": 12, "validate_every": 5, "validation": 2}
EVERY = [Unrolled, Supervised, Noisy, Stopped, Surrogate]


def same(first, second):
    pairs = zip(tree.leaves(first.value), tree.leaves(second.value), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert torch.equal(first.losses, second.losses) and first.counts == second.counts
    assert list(first.history["loss"]) == list(second.history["loss"])


def test_supervised_is_unrolled_over_one_step_and_so_is_stopped():
    problem = posed()
    one = run(problem, Supervised(**FAST), seed=3)
    same(one, run(problem, Unrolled(unroll=1, **FAST), seed=3))
    same(one, run(problem, Stopped(unroll=1, **FAST), seed=3))


def test_stopped_is_unrolled_under_stopped_gradients():
    problem = posed()
    stopped, through = run(problem, Stopped(**FAST)), run(problem, Unrolled(**FAST))
    same(stopped, run(problem, Unrolled(gradient=StopGradient(), **FAST)))
    assert stopped.history["loss"][-1] != through.history["loss"][-1]
    same(through, run(problem, Unrolled(gradient=Full(), **FAST)))


@pytest.mark.parametrize("strategy", EVERY)
def test_resume_equals_uninterrupted_to_the_bit(strategy, tmp_path, monkeypatch):
    problem, chosen = posed(), strategy(**{**FAST, "iterations": None})
    budget = Budget(simulated_steps=1_000)
    whole = run(problem, chosen, budget=budget, seed=5)
    assert whole.status.kind == "budget spent" and whole.counts.simulated_steps <= 1_000
    same(
        whole, interrupted_and_resumed(problem, chosen, tmp_path, monkeypatch, after=2, budget=budget, seed=5)
    )


@pytest.mark.parametrize("strategy", EVERY)
def test_a_training_lowers_the_validation_loss_and_seeds_matter(strategy):
    first, other = (run(posed(), strategy(learning_rate=0.01, **FAST), seed=seed) for seed in (0, 1))
    assert first.history["loss"][-1] < first.history["loss"][0]
    assert first.history["loss"][0] != other.history["loss"][0]


def asked(monkeypatch, strategy, **fields):
    """The scenarios and horizons of every question of a training."""
    seen = []
    original = Meter._sampled

    def spy(self, x, scenarios, mode, horizon, *, sweeps):
        seen.append((scenarios, horizon, sweeps))
        return original(self, x, scenarios, mode, horizon, sweeps=sweeps)

    monkeypatch.setattr(Meter, "_sampled", spy)
    problem = posed(**fields)
    return problem, run(problem, strategy), seen


def test_it_trains_on_training_trajectories_and_validates_by_rollouts_of_held_out_ones(monkeypatch):
    problem, solution, seen = asked(monkeypatch, Unrolled(curriculum=None, **FAST))
    speeds = training_windows(problem).reference.parameters["velocity_0"]
    for scenarios, horizon, sweeps in seen:
        part = "train" if sweeps else "validation"
        own = speeds[list(training_windows(problem).reference.split[part])]
        assert bool(torch.isin(scenarios.data["velocity_0"], own).all())
        assert horizon == (3 if sweeps else 12)
        assert scenarios.data["reference"].shape[1] == horizon + 1
    validations = sum(1 for _, _, sweeps in seen if not sweeps)
    assert validations == 4 == len(solution.history["loss"])
    assert solution.counts.gradients == 12 * 4
    assert solution.counts.simulated_steps == 12 * 4 * 3 * 2 + validations * 2 * 12
    assert "validated on 2 rollouts of 12 steps" in solution.status.sentence


def test_a_curriculum_goes_from_few_steps_to_all(monkeypatch):
    strategy = Unrolled(unroll=6, **{**FAST, "iterations": 20})
    _, _, seen = asked(monkeypatch, strategy)
    steps = [horizon for _, horizon, sweeps in seen if sweeps]
    assert steps[0] == 1 and steps == sorted(steps) and steps[10:] == [6] * 10 and len(set(steps)) > 3


def test_noise_moves_the_first_states_and_nothing_else(monkeypatch):
    _, _, clean = asked(monkeypatch, Supervised(**FAST))
    problem, _, noisy = asked(monkeypatch, Noisy(noise=0.1, **FAST))
    size = training_windows(problem).sizes[0]
    first, second = (next(s for s, _, sweeps in seen if sweeps).data for seen in (clean, noisy))
    # the first minibatch is drawn before any noise
    assert torch.equal(first["reference"], second["reference"])
    moved = second["initial_state"] - second["reference"][:, 0]
    assert float(moved.std()) == pytest.approx(0.1 * size, rel=0.3)
    assert all(horizon == 1 for _, horizon, sweeps in noisy if sweeps)


def test_it_stops_early_where_nothing_gets_better():
    strategy = Unrolled(patience=1, learning_rate=3.0, **{**FAST, "iterations": 400})
    solution = run(posed(), strategy)
    assert solution.status.kind == "converged" and "stopped early" in solution.status.sentence
    assert solution.counts.gradients < 400 * 4


def test_weights_that_explode_are_taken_back_or_end_the_run():
    strategy = Unrolled(learning_rate=1e60, **{**FAST, "iterations": 40, "validate_every": 100})
    solution = run(posed(), strategy)
    assert solution.status.kind == "diverged" and solution.counts.failures > 0


def test_the_surrogate_is_posed_without_the_solver_and_starts_like_the_others():
    problem = posed()
    solution = run(problem, Surrogate(**FAST))
    assert isinstance(solution.problem.simulator.coarse, Still)
    first, second = (
        fresh_weights(one, torch.Generator().manual_seed(0)) for one in (problem, solution.problem)
    )
    assert all(torch.equal(a, b) for a, b in zip(tree.leaves(first), tree.leaves(second), strict=True))


def test_a_module_of_ones_own_starts_from_its_weights():
    torch.manual_seed(1)
    problem = posed(network=NETWORK(2, 1))
    before, after = (run(problem, Unrolled(**{**FAST, "iterations": 1}), seed=seed) for seed in (0, 1))
    assert before.history["loss"][0] == after.history["loss"][0]


def test_single_precision_stays_single():
    cut = training_windows(posed()).reference
    half = replace(
        cut,
        states=cut.states.float(),
        parameters={name: value.float() for name, value in cut.parameters.items()},
    )
    solution = run(posed(reference=half), Noisy(**FAST))
    assert {leaf.dtype for leaf in tree.leaves(solution.value)} == {torch.float32}
    assert solution.losses.dtype == torch.float32 and training_windows(posed()).reference.states.dtype == F64


def test_fields_that_make_no_sense_are_refused():
    for make in (
        lambda: Unrolled(unroll=0),
        lambda: Unrolled(curriculum=1.5),
        lambda: Noisy(noise=0.0),
        lambda: Supervised(batch=0),
        lambda: Stopped(patience=0),
        lambda: Surrogate(curriculum=0),
        lambda: Surrogate(optimizer="sgd"),
        lambda: Unrolled(gradient="full"),
    ):
        with pytest.raises(UsageError):
            make()
    with pytest.raises(UsageError, match="from 1 to the 12 steps of the reference; found 13"):
        run(posed(), Unrolled(unroll=13, **FAST))


def test_nothing_is_fitted_to_the_trajectories_that_it_is_judged_on():
    problem = posed()
    with pytest.raises(
        UsageError, match="cannot honour the held-out trajectories .* strategies that fit: noisy"
    ):
        solve(problem, "lbfgs")
    fitted = solve(problem.with_scenarios(training_scenarios(problem)), "lbfgs", iterations=50)
    assert fitted.problem.horizon == 4
    assert fitted.loss < 0.3 * float(fitted.problem.loss(problem.start()).mean())
