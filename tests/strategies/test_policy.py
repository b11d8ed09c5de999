"""``policy``: known optima of feedback, held-out scenes, reproducible and resumable, and what it refuses."""

from dataclasses import replace

import pytest
import torch
from strategy_cases import F64, interrupted_and_resumed

import dpcontrol as dp
from dpcontrol.engine import Full
from dpcontrol.meter import Budget, Meter
from dpcontrol.problem import ControlSequence, Policy, Scenarios, control_problem, cost, effort, reach
from dpcontrol.problem.observing import controller, observer
from dpcontrol.results import UsageError
from dpcontrol.run import run
from dpcontrol.sim import DiscreteLinear
from dpcontrol.strategies.learning.policy import LearnedPolicy

A, B = [[1.0, 0.1], [0.0, 1.0]], [[0.005], [0.1]]


def integrator(count=6, *, drawn=True, low=None, high=None, horizon=30, spy=None):
    """The double integrator from random starts in [-1, 1]^2."""

    def draw(generator, n):
        starts = 2 * torch.rand(n, 2, generator=generator, dtype=F64) - 1
        if spy is not None:
            spy(starts)
        return {"initial_state": starts}

    data = draw(torch.Generator().manual_seed(99), count)
    return control_problem(
        DiscreteLinear(A=A, B=B),
        initial_state=data.pop("initial_state"),
        horizon=horizon,
        objective=cost(
            stage=lambda x, u, t: x.square().sum(1) + 0.1 * u.square().sum(1),
            terminal=lambda x: x.square().sum(1),
        ),
        control=ControlSequence((1,), low=low, high=high),
        scenarios=Scenarios(data, sampler=draw if drawn else None),
        name="integrator",
    )


def optimal(problem):
    """The losses of the optimal time-varying feedback, by Riccati's recursion."""
    a, b = torch.tensor(A, dtype=F64), torch.tensor(B, dtype=F64)
    P = torch.eye(2, dtype=F64)
    for _ in range(problem.horizon):
        gain = torch.linalg.solve(0.1 * torch.eye(1, dtype=F64) + b.T @ P @ b, b.T @ P @ a)
        P = torch.eye(2, dtype=F64) + a.T @ P @ (a - b @ gain)
    starts = problem.scenarios.data["initial_state"]
    return torch.einsum("bi,ij,bj->b", starts, P, starts)


class StateGain(torch.nn.Module):
    """A constant gain, which does not look at the time."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.gain = torch.nn.Linear(inputs - 1, outputs, bias=False)

    def forward(self, seen):
        return self.gain(seen[:, :-1])


def linear(inputs, outputs):
    return torch.nn.Linear(inputs, outputs)


FAST = {"batch": 16, "learning_rate": 0.05, "validation": 16, "validate_every": 10}


@pytest.mark.parametrize("optimizer", ["soap", "adam"])
def test_a_linear_controller_comes_close_to_riccati_on_scenes_it_never_saw(optimizer):
    trained_on = []
    problem = integrator(spy=trained_on.append)
    held_out = trained_on.pop()
    options = {**FAST, "learning_rate": 0.3, "optimizer": optimizer}
    solution = run(problem, LearnedPolicy(StateGain, iterations=80, **options), seed=1)
    # a gain that does not change in time loses a little in the last steps
    assert solution.loss <= 1.03 * float(optimal(problem).mean())
    assert bool((solution.losses >= optimal(problem) - 1e-9).all())
    # validation and minibatches; draws of other numbers are looked at or set the scales of the observation
    assert len([drawn for drawn in trained_on if len(drawn) == 16]) == 1 + 80
    starts = torch.cat(trained_on)
    assert not (starts[:, None] == held_out[None]).all(-1).any()


def test_the_best_so_far_is_judged_on_validation_scenes_only():
    solution = run(integrator(), LearnedPolicy(linear, iterations=30, **FAST))
    assert len(solution.history["loss"]) == 30 / 10 + 1
    steps = 16 * 30
    assert solution.counts.simulated_steps == 30 * 2 * steps + 4 * steps
    assert solution.counts.gradients == 30 * 16


def test_the_default_network_learns_within_bounds():
    problem = integrator(low=-0.5, high=0.5, horizon=20)
    solution = run(problem, LearnedPolicy(width=16, iterations=60, **FAST))
    controls = solution.trajectory().controls
    assert float(controls.abs().max()) <= 0.5
    assert solution.loss < 0.9 * float(problem.loss(problem.start()).mean())


def same(first, second):
    for name, weight in first.value["policy"].items():
        assert torch.equal(weight, second.value["policy"][name]), name
    assert torch.equal(first.losses, second.losses) and first.counts == second.counts
    assert list(first.history["loss"]) == list(second.history["loss"])


def test_same_seed_same_bits_and_another_seed_other_weights():
    strategy = LearnedPolicy(width=8, iterations=25, **FAST)
    first = run(integrator(), strategy, seed=3)
    torch.rand(7)
    same(first, run(integrator(), strategy, seed=3))
    assert run(integrator(), strategy, seed=4).history["loss"] != first.history["loss"]


@pytest.mark.parametrize(
    ("drawn", "options"), [(True, {"curriculum": 5}), (False, {"optimizer": "adam"}), (True, {"window": 10})]
)
def test_resume_equals_uninterrupted(drawn, options, tmp_path, monkeypatch):
    problem = integrator(drawn=drawn, count=20)
    strategy = LearnedPolicy(width=8, **FAST, **options)
    budget = Budget(simulated_steps=60_000)
    whole = run(problem, strategy, budget=budget, seed=5)
    assert whole.status.kind == "budget spent" and whole.counts.simulated_steps <= 60_000
    resumed = interrupted_and_resumed(
        problem, strategy, tmp_path / "run", monkeypatch, after=3, budget=budget
    )
    same(whole, resumed)


def test_a_training_that_its_budget_ends_is_judged_where_it_ended():
    problem, steps = integrator(), 16 * 30
    strategy = LearnedPolicy(width=8, **{**FAST, "validate_every": 1000})
    # the first and the last validation, five iterations and half of another one
    solution = run(problem, strategy, budget=Budget(simulated_steps=2 * steps + 5 * 2 * steps + steps))
    assert solution.counts.gradients == 5 * 16 and solution.status.kind == "budget spent"
    assert len(solution.history["loss"]) == 2
    assert solution.history["loss"][-1] < solution.history["loss"][0]


def test_without_a_distribution_it_says_that_nothing_was_held_out():
    solution = run(integrator(drawn=False), LearnedPolicy(linear, iterations=5, **FAST))
    assert "the very scenarios that it is judged on" in solution.status.sentence
    assert "clipped in" in solution.status.sentence


def test_it_stops_early_where_nothing_gets_better():
    strategy = LearnedPolicy(linear, iterations=500, patience=1, **{**FAST, "learning_rate": 0.9})
    solution = run(integrator(), strategy)
    assert solution.status.kind == "converged" and solution.counts.gradients < 500 * 16


def test_a_module_of_ones_own_starts_from_its_weights():
    class Gain(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.gain = torch.nn.Parameter(torch.tensor([[2.5, 2.5]], dtype=F64))

        def forward(self, state, t, scenario):
            return -state @ self.gain.T

    problem = integrator()
    posed = problem.with_unknown(Policy(Gain()))
    before = float(posed.loss(posed.start()).mean())
    solution = run(problem, LearnedPolicy(Gain(), iterations=40, **FAST))
    assert solution.history["latest"][0] == pytest.approx(before, rel=0.5)
    assert float(optimal(problem).mean()) <= solution.loss < before


def test_a_biased_window_changes_the_gradient_and_still_learns():
    problem = integrator(horizon=20)
    whole, cut = (run(problem, LearnedPolicy(linear, iterations=40, window=w, **FAST)) for w in (None, 5))
    assert whole.history["latest"][1] != cut.history["latest"][1]
    assert cut.history["loss"][-1] < cut.history["loss"][0]


def test_a_curriculum_differentiates_the_end_first_and_the_whole_horizon_from_the_middle_on():
    reaches = []

    class Spying(Meter):
        def sampled_gradient(self, x, scenarios, mode=None):
            reaches.append((mode or Full()).swept(30))
            return super().sampled_gradient(x, scenarios, mode)

    problem, strategy = integrator(), LearnedPolicy(linear, curriculum=3, iterations=100, **FAST)
    meter = Spying(strategy.pose(problem))
    strategy.run(meter, torch.Generator().manual_seed(1))
    assert reaches[0] == 3 and reaches == sorted(reaches) and reaches[25] == pytest.approx(3 * 10**0.5, abs=1)
    assert reaches[50:] == [30] * 50 and len(set(reaches)) > 20
    # charged for what it differentiates: every iteration once for its run
    assert meter.counts.simulated_steps == 16 * (100 * 30 + sum(reaches)) + 11 * 16 * 30
    # the whole horizon has the last word
    assert float(meter.best[0]) < 1.15 * float(optimal(problem.with_scenarios(validated(problem))).mean())


def validated(problem):
    """The scenes that a training from seed 1 validates on."""
    seed = int(torch.randint(2**62, (), generator=torch.Generator().manual_seed(1)))
    return problem.scenarios.draw(torch.Generator().manual_seed(seed), FAST["validation"])


def test_gradients_that_are_not_finite_are_taken_back_or_end_the_run():
    class Blowing(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.gain = torch.nn.Parameter(torch.tensor(1e200, dtype=F64))

        def forward(self, state, t, scenario):
            return state[:, :1] * self.gain

    solution = run(integrator(), LearnedPolicy(Blowing(), iterations=50, **FAST))
    assert solution.status.kind == "diverged" and solution.counts.failures > 0


def test_the_observation_holds_state_target_and_time_to_go_and_nothing_else():
    def draw(generator, n):
        start = torch.randn(n, 3, generator=generator, dtype=F64)
        return {"initial_state": start, "target": 2 * start, "secret": torch.full((n, 3), 7.0, dtype=F64)}

    scenes = draw(torch.Generator().manual_seed(0), 5)
    problem = control_problem(
        lambda x, u: x + u,
        initial_state=scenes.pop("initial_state"),
        horizon=4,
        objective=reach("target") + 0.1 * effort(),
        control=ControlSequence((3,)),
        scenarios=Scenarios(scenes, sampler=draw),
        name="free",
    )
    data = problem.scenarios.data
    eyes = observer(problem)
    seen, scale = eyes(data["initial_state"], 1.0, data), eyes.scales["target"]
    assert scale == eyes.scales["state"] == pytest.approx(2.0, rel=0.15)
    expected = torch.cat(
        [data["initial_state"] / scale, data["target"] / scale, torch.full((5, 1), 0.75, dtype=F64)], 1
    )
    torch.testing.assert_close(seen, expected)


def test_what_it_refuses():
    with pytest.raises(UsageError, match="width"):
        LearnedPolicy(width=0)
    with pytest.raises(UsageError, match="network"):
        LearnedPolicy("mlp")
    with pytest.raises(UsageError, match=r"not both \(found 3 and 5\)"):
        LearnedPolicy(window=3, curriculum=5)
    with pytest.raises(UsageError, match="one of soap, adam"):
        LearnedPolicy(optimizer="sgd")
    problem = dp.control_problem(
        lambda x, u: x + u,
        initial_state=torch.zeros(1, 2, dtype=F64),
        horizon=3,
        objective=effort(),
        control=ControlSequence((2,)),
    )
    with pytest.raises(UsageError, match=r"nn\.Module"):
        run(problem, LearnedPolicy(lambda inputs, outputs: 3))
    sought = problem.with_unknown(dp.InitialState())
    with pytest.raises(UsageError, match="acts step by step"):
        run(sought, LearnedPolicy())
    with pytest.raises(UsageError, match="ControlSequence"):
        controller(sought, linear)


def test_a_network_may_correct_a_law_of_the_problem():
    def damped(state, t, scenario):
        return -state.sum(1, keepdim=True)

    problem = replace(integrator(), baselines={"damped": damped})
    law = controller(problem, lambda i, o: torch.nn.Linear(i, o).requires_grad_(False), "damped")
    torch.nn.init.zeros_(law.body.weight)
    torch.nn.init.zeros_(law.body.bias)
    asked = problem.with_unknown(Policy(law))
    # a network that says nothing leaves the law as it is
    found = asked.simulate(asked.start())
    torch.testing.assert_close(found.states, problem.run_law(damped).states)
    corrected = dp.solve(problem, "policy", base="damped", iterations=60, width=16)
    assert corrected.loss < float(asked.loss(asked.start()).mean())
    with pytest.raises(UsageError, match="no law called 'dampd'; it has damped"):
        dp.solve(problem, "policy", base="dampd")
