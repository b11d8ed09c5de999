"""``shac``: costs of windows, estimates of values, known optima, bits, and where gradients explode."""

from dataclasses import replace

import pytest
import torch
from dpcontrol.problems import burgers
from kicked_rotor import kicked_rotor
from strategy_cases import F64, interrupted_and_resumed
from test_policy import integrator, linear, optimal, same

import dpcontrol as dp
from dpcontrol.meter import Budget
from dpcontrol.problem import ControlSequence, Policy, Scenarios, control_problem, cost, gradient_growth
from dpcontrol.problem.acting import from_solution
from dpcontrol.problem.playing import play
from dpcontrol.problem.policy_slot import MemoryNetwork
from dpcontrol.results import UsageError
from dpcontrol.run import run
from dpcontrol.strategies.learning.actor_critic import ActorCritic
from dpcontrol.strategies.learning.critic import Critic
from dpcontrol.strategies.learning.policy import LearnedPolicy
from dpcontrol.strategies.learning.underway import Stretch, Underway, advance

FAST = {"batch": 16, "validation": 16, "validate_every": 10}
QUICK = {**FAST, "value_steps": 4, "value_batch": 64}


@pytest.mark.parametrize("window", [7, 31, 50])
def test_the_costs_of_all_windows_are_the_loss_closing_condition_and_terminal_cost_included(window):
    for problem in (burgers.problem(size="small"), integrator()):
        posed = LearnedPolicy(width=8).pose(problem)
        z, episodes, costs = posed.start(), Underway(posed.scenarios), []
        while episodes is not None:
            assert episodes.step(posed) == sum(map(len, costs))
            stretch = advance(posed, z, episodes, window)
            assert len(stretch.states) == len(stretch.costs) + 1
            costs.append(stretch.costs)
            episodes = stretch.after
        torch.testing.assert_close(torch.cat(costs).sum(0), posed.loss(z))


def test_a_window_over_the_whole_horizon_is_the_gradient_of_the_loss_and_the_training_of_policy():
    options = {**FAST, "width": 8, "iterations": 15, "learning_rate": 0.02}
    for problem in (burgers.problem(size="small"), integrator()):
        whole = run(problem, LearnedPolicy(**options), seed=2)
        one = run(problem, ActorCritic(window=40, **options), seed=2)
        torch.testing.assert_close(one.losses, whole.losses, rtol=1e-6, atol=0)
        assert one.counts == whole.counts


def stretch_of(costs, ended):
    """A stretch of one scenario whose states are 0, 1, 2, ..."""
    states = [torch.full((1, 2), float(k), dtype=F64) for k in range(len(costs) + 1)]
    after = None if ended else object()
    return Stretch(states, torch.tensor(costs, dtype=F64)[:, None], 4, {}, after)


@pytest.mark.parametrize("trace", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("ended", [True, False])
def test_estimates_of_values_are_those_of_their_definition(trace, ended):
    critic = Critic(integrator(), 0, 8, 1, "adam", trace, 0.5)
    stretch = stretch_of([1.0, 2.0, 4.0], ended)
    seen, found = critic.estimates(stretch)
    assert seen.shape == (3, 3) and seen[:, -1].tolist() == pytest.approx([1 - k / 30 for k in (4, 5, 6)])
    behind = [float(critic.value(stretch.states[k], 4 + k, stretch)) for k in range(4)]
    if ended:
        behind[3] = 0.0
    # the mean over n-step estimates with weights (1 - trace) trace^(n - 1), the longest one takes the rest
    for k in range(3):
        steps = [sum([1.0, 2.0, 4.0][k : k + n]) + behind[k + n] for n in range(1, 4 - k)]
        weights = [(1 - trace) * trace ** (n - 1) for n in range(1, len(steps))]
        weights.append(1 - sum(weights))
        assert float(found[k]) == pytest.approx(sum(w * s for w, s in zip(weights, steps, strict=True)))


@pytest.mark.parametrize(("start", "end"), [(1e4, 1e4), (1e-2, 1e-2), (30.0, 1.0), (1.0, 30.0)])
def test_values_of_any_magnitude_are_learnt_also_where_it_changes(start, end):
    critic = Critic(integrator(), 0, 32, 2, "soap", 0.95, 0.0)
    generator = torch.Generator().manual_seed(1)
    seen = 2 * torch.rand(512, 3, generator=generator, dtype=F64) - 1
    for k in range(100):
        size = start * (end / start) ** min(k / 50, 1)
        wanted = size * (seen[:, 0].square() + 0.5)
        error = critic.fit(seen, wanted, 5e-3, steps=4, batch=128, generator=generator)
    assert error < 0.05


def test_another_scale_does_not_change_the_values():
    critic = Critic(integrator(), 0, 32, 2, "soap", 0.95, 0.5)
    seen = torch.randn(64, 3, generator=torch.Generator().manual_seed(1), dtype=F64)
    critic._rescale(torch.full((4,), 2.0, dtype=F64))
    before = critic._of(critic._weights, seen), critic._of(critic._slow, seen)
    critic._rescale(torch.full((4,), 5e3, dtype=F64))
    torch.testing.assert_close((critic._of(critic._weights, seen), critic._of(critic._slow, seen)), before)


@pytest.mark.parametrize("window", [10, 30])
def test_it_comes_close_to_riccati_on_scenes_it_never_saw(window):
    problem = integrator()
    strategy = ActorCritic(width=32, window=window, learning_rate=0.02, iterations=80, **QUICK)
    solution = run(problem, strategy, seed=1)
    assert solution.loss <= 1.06 * float(optimal(problem).mean())
    assert bool((solution.losses >= optimal(problem) - 1e-9).all())
    said = "this is policy" if window == 30 else "the value was off by"
    assert "clipped in" in solution.status.sentence and said in solution.status.sentence


def test_same_seed_same_bits_another_seed_other_weights_and_the_budget_is_kept():
    strategy, budget = ActorCritic(width=8, window=12, **QUICK), Budget(simulated_steps=20_000)
    first = run(integrator(), strategy, seed=3, budget=budget)
    torch.rand(7)
    same(first, run(integrator(), strategy, seed=3, budget=budget))
    assert first.status.kind == "budget spent" and 19_000 < first.counts.simulated_steps <= 20_000
    assert run(integrator(), strategy, seed=4, budget=budget).history["loss"] != first.history["loss"]


def test_an_iteration_costs_as_much_as_one_of_policy():
    counts = run(integrator(), ActorCritic(width=8, window=7, iterations=10, **QUICK)).counts
    steps, staggered = 16 * 30, 16 * 28  # once, to where the last window begins
    assert counts.simulated_steps == 10 * 2 * steps + 2 * steps + staggered
    assert counts.gradients == 10 * 16


def test_a_window_as_long_as_the_horizon_is_said_to_be_policy():
    quick = {**QUICK, "width": 8, "iterations": 6}
    found = run(integrator(), ActorCritic(window=30, **quick))
    assert "the window is the whole horizon: no value is learned, and this is policy" in found.status.sentence
    assert "the value was off" in run(integrator(), ActorCritic(window=15, **quick)).status.sentence


@pytest.mark.parametrize("drawn", [True, False])
def test_resume_equals_uninterrupted(drawn, tmp_path, monkeypatch):
    problem, budget = integrator(drawn=drawn, count=20), Budget(simulated_steps=45_000)
    strategy = ActorCritic(width=8, window=12, **QUICK)
    whole = run(problem, strategy, budget=budget, seed=5)
    path = tmp_path / "run"
    same(whole, interrupted_and_resumed(problem, strategy, path, monkeypatch, after=3, budget=budget))


def trained(problem, steps, **methods):
    """Losses of several strategies after so many simulated steps."""
    budget = Budget(simulated_steps=steps)
    return {name: run(problem, strategy, budget=budget, seed=0).loss for name, strategy in methods.items()}


EXPLODING = {"width": 32, "batch": 32, "validation": 64, "validate_every": 25, "learning_rate": 0.01}


def test_where_gradients_explode_a_value_learns_what_the_whole_horizon_cannot():
    problem = kicked_rotor(horizon=40)
    growth = gradient_growth(problem)
    assert growth.rate > 0.5 and growth.rate * growth.steps > 20
    whole, value = LearnedPolicy(**EXPLODING), ActorCritic(window=5, **EXPLODING)
    found = trained(problem, 200_000, whole=whole, value=value)
    assert found["value"] < 0.75 * found["whole"], found


def test_a_value_knows_of_costs_that_come_long_after_a_window():
    """Rest at the end is all that is wanted: short windows alone see nothing but effort until it is late."""
    easy = integrator()
    problem = control_problem(
        easy.simulator,
        initial_state=easy.scenarios.data["initial_state"],
        horizon=30,
        objective=cost(
            stage=lambda x, u, t: 0.1 * u.square().sum(1), terminal=lambda x: 10 * x.square().sum(1)
        ),
        control=ControlSequence((1,)),
        scenarios=Scenarios({}, sampler=easy.scenarios.sampler),
        name="rest_at_the_end",
    )
    options = {"width": 16, "window": 5, "learning_rate": 0.02, "iterations": 100}
    blind = run(problem, LearnedPolicy(**options, **FAST), seed=1)
    value = run(problem, ActorCritic(**options, **QUICK), seed=1)
    assert value.loss < 0.6 * blind.loss


@pytest.mark.slow
def test_where_gradients_explode_a_curriculum_helps_as_well():
    whole, late = LearnedPolicy(width=64), LearnedPolicy(width=64, curriculum=5)
    value = ActorCritic(width=64, window=5)
    found = trained(kicked_rotor(), 2_000_000, whole=whole, late=late, value=value)
    assert found["late"] < 0.3 * found["whole"] and found["value"] < 0.3 * found["whole"], found


def test_a_trained_controller_can_be_put_on_trial():
    solution = dp.solve(integrator(), "shac", width=8, window=10, iterations=10, **QUICK)
    played = play(solution.problem, from_solution(solution))
    torch.testing.assert_close(played.losses, solution.losses)


def test_what_it_refuses():
    with pytest.raises(UsageError, match="window"):
        ActorCritic(window=0)
    with pytest.raises(UsageError, match="trace"):
        ActorCritic(trace=1.5)
    with pytest.raises(UsageError, match="network"):
        ActorCritic("mlp")
    with pytest.raises(UsageError, match=r"nn\.Module"):
        run(integrator(), ActorCritic(lambda inputs, outputs: 3))
    with pytest.raises(UsageError, match="acts step by step"):
        run(integrator().with_unknown(dp.InitialState()), ActorCritic())


def test_a_controller_with_a_memory_is_refused():
    class Counting(MemoryNetwork):
        def __init__(self):
            super().__init__()
            self.gain = torch.nn.Parameter(torch.ones(1, dtype=F64))

        def begin(self, state, scenario):
            return torch.zeros(len(state), 1, dtype=F64)

        def forward(self, memory, state, t, scenario):
            return -self.gain * state[:, :1], memory + 1

    asked = integrator().with_unknown(Policy(Counting()))
    with pytest.raises(UsageError, match="has a memory"):
        run(asked, ActorCritic(**QUICK))


def test_gradients_that_are_not_finite_are_taken_back_or_end_the_run():
    class Blowing(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.gain = torch.nn.Parameter(torch.tensor(1e200, dtype=F64))

        def forward(self, state, t, scenario):
            return state[:, :1] * self.gain

    solution = run(integrator(), ActorCritic(Blowing(), window=10, iterations=50, **QUICK))
    assert solution.status.kind == "diverged" and solution.counts.failures > 0


def test_a_linear_body_of_ones_own_corrects_a_law_of_the_problem():
    def damped(state, t, scenario):
        return -state.sum(1, keepdim=True)

    problem = replace(integrator(), baselines={"damped": damped})
    strategy = ActorCritic(linear, base="damped", window=10, iterations=80, **QUICK)
    solution = run(problem, replace(strategy, learning_rate=0.05), seed=1)
    assert solution.loss < dp.solve(problem, "baseline", law="damped").loss
