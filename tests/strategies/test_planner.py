"""``planner``: known optima on held-out scenes, reproducible and resumable, what watching teaches, what it refuses."""

import pytest
import torch
from strategy_cases import F64, interrupted_and_resumed, scalar_lqr
from torch import nn

import dpcontrol as dp
from dpcontrol.meter import Budget, Meter
from dpcontrol.problem import (
    ControlSequence,
    Policy,
    Scenarios,
    closing,
    control_problem,
    effort,
)
from dpcontrol.problem.acting import from_solution
from dpcontrol.problem.playing import play
from dpcontrol.results import UsageError
from dpcontrol.run import run
from dpcontrol.strategies.learning.planned.planner import PlannedPolicy
from dpcontrol.strategies.learning.planned.pretraining import Pretraining
from dpcontrol.strategies.learning.policy import LearnedPolicy

TRAINING = LearnedPolicy(batch=16, validation=32, validate_every=10, learning_rate=0.02, iterations=150)


def linear(inputs, outputs):
    return nn.Linear(inputs, outputs)


def unstable(horizon=8, *, count=12, low=None, high=None, drawn=True):
    """``x+ = 1.2 x + u`` of two numbers between random states, the end exactly: the least effort has a closed form."""

    def draw(generator, n):
        start, end = torch.randn(2, n, 2, generator=generator, dtype=F64)
        return {"initial_state": start, "target": end}

    scenes = draw(torch.Generator().manual_seed(3), count)
    return control_problem(
        lambda x, u: 1.2 * x + u,
        initial_state=scenes.pop("initial_state"),
        horizon=horizon,
        objective=closing("target", gain=1.0) + effort(),
        control=ControlSequence((2,), low=low, high=high),
        scenarios=Scenarios(scenes, sampler=draw if drawn else None),
        name="unstable",
    )


def optimal(problem):
    """``|x_N - a^N x_0|^2 / sum_k a^(2 k)``."""
    data, steps = problem.scenarios.data, problem.horizon
    gap = data["target"] - 1.2**steps * data["initial_state"]
    return gap.square().sum(1) / sum(1.2 ** (2 * k) for k in range(steps))


@pytest.mark.parametrize(("scheme", "above"), [("chain", 0.02), ("staggered", 0.003), ("refined", 0.003)])
def test_linear_networks_find_the_least_effort_on_scenes_never_seen(scheme, above):
    # all plans and controls of this problem are linear, for spans that are powers of two
    problem = unstable(8)
    solution = dp.solve(
        problem, PlannedPolicy(scheme, linear, shared=False, pretraining=100, training=TRAINING)
    )
    best = float(optimal(problem).mean())
    assert best <= solution.loss < (1 + above) * best
    assert solution.counts.gradients == 150 * 16
    played = play(problem, from_solution(solution))
    assert torch.allclose(played.losses, solution.losses, rtol=1e-10)


def same(first, second):
    for name, weight in first.value["policy"].items():
        assert torch.equal(weight, second.value["policy"][name]), name
    assert torch.equal(first.losses, second.losses) and first.counts == second.counts
    assert list(first.history["loss"]) == list(second.history["loss"])


def test_same_seed_same_bits_and_another_seed_other_weights():
    strategy = PlannedPolicy(width=8, depth=1, pretraining=3, training=LearnedPolicy(iterations=8, batch=4))
    first = run(unstable(4), strategy, seed=3)
    torch.rand(7)
    same(first, run(unstable(4), strategy, seed=3))
    assert run(unstable(4), strategy, seed=4).history["loss"] != first.history["loss"]


def test_resume_equals_uninterrupted(tmp_path, monkeypatch):
    problem = unstable(4, drawn=False)
    strategy = PlannedPolicy(width=8, pretraining=5, training=LearnedPolicy(batch=4, validate_every=5))
    budget = Budget(simulated_steps=3_000)
    whole = run(problem, strategy, budget=budget, seed=5)
    assert whole.status.kind == "budget spent" and whole.counts.simulated_steps <= 3_000
    resumed = interrupted_and_resumed(
        problem, strategy, tmp_path / "run", monkeypatch, after=3, budget=budget
    )
    same(whole, resumed)


@pytest.mark.parametrize("scheme", ["chain", "staggered"])
def test_watching_teaches_which_control_led_on_and_what_lay_between_and_is_charged(scheme):
    problem = unstable(6)
    strategy = PlannedPolicy(
        scheme, linear, shared=False, training=LearnedPolicy(batch=32, learning_rate=0.05)
    )
    meter = Meter(strategy.pose(problem))
    generator = torch.Generator().manual_seed(0)
    watching = Pretraining(meter, generator, strategy.training)
    weights = watching.run(meter.start(), 200)
    assert meter.counts.simulated_steps == 200 * 32 * 6 and meter.counts.gradients == 0
    if scheme == "chain":
        return
    (slot,) = meter.problem.unknown.slots
    learnt = slot.network
    learnt.load_state_dict(meter.trees(weights)["policy"])
    layout = learnt.task.layout
    x = torch.randn(8, 2, dtype=F64, generator=generator)
    u = torch.randn(8, 2, dtype=F64, generator=generator)
    with torch.no_grad():
        found = learnt.estimate(layout.pack(x), layout.pack(1.2 * x + u), 1, None)
        # the middle of two steps under one control: linear in both ends
        end = 1.2 * (1.2 * x + u) + u
        between = layout.unpack(learnt.predict(layout.pack(x), layout.pack(end), 2, None), x)
    assert (found - u).norm() < 0.05 * u.norm()
    assert (between - (1.2 * x + u)).norm() < 0.2 * (1.2 * x + u).norm()


def test_bounds_are_kept():
    solution = dp.solve(
        unstable(low=-0.3, high=0.3), PlannedPolicy("refined", width=8, training=LearnedPolicy(iterations=5))
    )
    assert solution.trajectory().controls[:-1].abs().max() <= 0.3  # the last one closes the gap


def test_problems_without_a_target_state_are_refused_with_the_names_of_those_who_fit():
    with pytest.raises(UsageError, match=r"planner needs a target that is a whole state.*fit: .*policy"):
        dp.solve(scalar_lqr(5), "planner")
    seeks_weights = unstable().with_unknown(Policy(Gain()))
    with pytest.raises(UsageError, match="planner trains networks of its own"):
        dp.solve(seeks_weights, "planner")


class Gain(nn.Module):
    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones((), dtype=F64))

    def forward(self, state, t, scenario):
        return self.gain * state


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"scheme": "stagered"}, "scheme=...\\) must be one of chain, staggered, refined"),
        ({"network": "cnn"}, "'mlp', 'conv' or a function"),
        ({"padding": "periodic"}, "padding=...\\) must be one of zeros, circular"),
        ({"width": 0}, "width=...\\) must be a whole number"),
        ({"pretraining": -1}, "pretraining=...\\) must be a whole number"),
        ({"training": 3}, "must be a LearnedPolicy"),
    ],
)
def test_bad_options_are_refused_at_the_door(options, words):
    with pytest.raises(UsageError, match=words):
        PlannedPolicy(**options)
