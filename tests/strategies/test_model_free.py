"""Controllers learned from rewards: they learn, keep to their budget, repeat, and leave the world as it was."""

from __future__ import annotations

import dataclasses
import random

import numpy as np
import pytest
import torch

import dpcontrol as dp
from dpcontrol.environments import Batch
from dpcontrol.environments.wanted import wanted
from dpcontrol.strategies.names import resolve

pytest.importorskip("stable_baselines3")
F64 = torch.float64
QUICK = {"width": 32, "learning_rate": 2e-3, "validation": 32, "validate_every": 2_000}
OPTIONS = {
    "ppo": {**QUICK, "environments": 64},
    "sac": {**QUICK, "environments": 16, "warmup": 400, "batch": 64},
}


def drawn(generator, n):
    return {
        "initial_state": torch.randn(n, 2, generator=generator, dtype=F64),
        "target": torch.randn(n, 2, generator=generator, dtype=F64),
    }


def step(x, u):
    return x + 0.2 * u


def moving():
    """Points that are pushed to a target; standing still costs 4 on average, the optimum 0.2."""
    scenes = drawn(torch.Generator().manual_seed(3), 50)
    return dp.control_problem(
        step,
        initial_state=scenes.pop("initial_state"),
        horizon=6,
        objective=dp.reach("target") + 1e-2 * dp.effort(),
        control=dp.ControlSequence(2, -4.0, 4.0),
        scenarios=dp.Scenarios(scenes, sampler=drawn),
        name="moving",
    )


@pytest.mark.parametrize(("name", "steps"), [("ppo", 60_000), ("sac", 5_000)])
def test_it_learns_and_keeps_its_budget(name, steps):
    problem = moving()
    optimum = dp.solve(problem, "lbfgs").loss
    solution = dp.solve(problem, name, budget=dp.Budget(simulated_steps=steps), **OPTIONS[name])
    assert solution.status.kind == "budget spent" and solution.counts.simulated_steps <= steps
    assert solution.counts.gradients == 0
    untrained = solution.history["loss"][0]
    # a good part of what can be gained
    assert solution.loss - optimum < 0.35 * (untrained - optimum)


@pytest.mark.parametrize("name", ["ppo", "sac"])
def test_the_same_seed_gives_the_same_numbers_and_nobody_elses_change(name):
    before = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    found = [
        dp.solve(moving(), name, seed=seed, steps=2_400, **{**OPTIONS[name], "environments": 16})
        for seed in (1, 1, 2)
    ]
    assert found[0].loss == found[1].loss != found[2].loss
    assert before[0] == random.getstate() and np.array_equal(before[1], np.random.get_state()[1])
    assert torch.equal(before[2], torch.get_rng_state())


def follow(state, t, scenario):
    """Four steps to the target, whatever the time."""
    return (scenario["target"] - state) / 0.8


@pytest.mark.parametrize("name", ["ppo", "sac"])
def test_actions_correct_a_law_and_start_near_it(name):
    problem = dataclasses.replace(moving(), baselines={"follow": follow})
    law = float(problem.loss({"control": problem.run_law(follow).controls.transpose(0, 1)}).mean())
    strategy = resolve(name, {**OPTIONS[name], "base": "follow"})
    posed = strategy.pose(problem)
    untrained = float(posed.loss(posed.start()).mean())
    nothing = float(problem.loss(problem.start()).mean())
    assert abs(untrained - law) < 0.15 * (nothing - law)
    # the environment plays what the controller plays
    batch = Batch(problem, 50, actions=posed.unknown.slots[0].network.actions)
    batch.reset(torch.arange(50))
    total = sum(batch.step(torch.zeros(50, 2)).reward for _ in range(6))
    assert -float(total.mean()) == pytest.approx(law, rel=1e-6)
    with pytest.raises(dp.UsageError, match="no law called 'lead'"):
        dp.solve(problem, name, base="lead")


def test_reach_is_that_of_an_open_control():
    problem = moving().with_unknown(dp.ControlSequence(2))
    network = resolve("ppo", {"reach": 0.5}).pose(problem).unknown.slots[0].network
    assert network.actions.half.tolist() == [0.5, 0.5]


@pytest.mark.parametrize("name", ["ppo", "sac"])
def test_it_explores_by_the_state_and_anneals_its_rate(name):
    options = {**OPTIONS[name], "environments": 16, "state_noise": 4, "schedule": "cosine", "steps": 480}
    found = [dp.solve(moving(), name, **options) for _ in range(2)]
    assert found[0].loss == found[1].loss and np.isfinite(found[0].loss)
    # what is played is the mean of the noisy actions, and the stored weights are those of the network
    assert any(key.endswith("log_std") for key in found[0].value["policy"])


@pytest.mark.parametrize(("updates", "environments"), [(0.25, 1), (0.05, 8), (0.3, 5), (2.0, 2), (0.002, 4)])
def test_sac_makes_as_many_updates_for_a_step_as_asked(updates, environments, monkeypatch):
    made = []
    learner = wanted("stable_baselines3").SAC
    monkeypatch.setattr(learner, "train", lambda _, gradient_steps, batch_size: made.append(gradient_steps))
    asked = {"updates": updates, "environments": environments, "warmup": 8, "steps": 2_008, "validation": 4}
    dp.solve(moving(), "sac", width=8, validate_every=5_000, progress=False, **asked)
    assert sum(made) == pytest.approx(updates * 2_000, rel=0.02, abs=1.5)


def test_losses_on_other_scenes_do_not_compete():
    """An untrained network is far better on these easy scenes than on drawn ones; that must not be its score."""
    hard = moving()
    easy = hard.with_scenarios(
        dataclasses.replace(hard.scenarios, data={k: 0.01 * v for k, v in hard.scenarios.data.items()})
    )
    solution = dp.solve(easy, "ppo", steps=200, **{**OPTIONS["ppo"], "environments": 16})
    assert min(solution.history["loss"]) > 1.0  # of drawn scenes
    assert solution.loss < 0.1


def test_a_problem_without_a_control_is_refused():
    problem = dp.control_problem(
        lambda x, u: 0.9 * x,
        initial_state=torch.ones(1, 2),
        horizon=3,
        objective=dp.reach(torch.zeros(2)),
        unknown=dp.InitialState(),
    )
    with pytest.raises(dp.UsageError, match="a control that acts step by step"):
        dp.solve(problem, "ppo")


WRONG = {
    "ppo": [
        ({"steps": 0}, "steps=...\\) must be a whole number, at least 1; found 0"),
        ({"environments": 1.5}, "environments=...\\) must be a whole number"),
        ({"learning_rate": -1.0}, "learning_rate=...\\) must be a positive number"),
        ({"schedule": "linear"}, "one of constant, cosine"),
        ({"reach": 0}, "reach=...\\) must be a positive number"),
        ({"discount": 1.5}, "discount=...\\) must be a number above 0 and at most 1; found 1.5"),
        ({"base": 3}, "base=...\\) must be the name of one of the problem's simple laws"),
        ({"state_noise": 0}, "state_noise=...\\) must be a whole number"),
        ({"minibatches": 0}, "minibatches=...\\) must be a whole number, at least 1; found 0"),
        (
            {"minibatches": 100_000},
            "two or more of the 64 x 66 = 4224 environment steps",
        ),
        ({"rollout": 8, "minibatches": 300}, "64 x 8 = 512 environment steps .* found 300"),
        ({"rollout": 0}, "rollout=...\\) must be a whole number, at least 1; found 0"),
        ({"environments": 1, "rollout": 1, "minibatches": 1}, "1 x 1 = 1 environment steps"),
        ({"epochs": 0}, "epochs=...\\) must be a whole number, at least 1; found 0"),
        ({"clip": -1}, "clip=...\\) must be a number above 0 and at most 1; found -1"),
        ({"trace": 3}, "trace=...\\) must be a number from 0 to 1; found 3"),
        ({"trace": float("nan")}, "trace=...\\) must be a number from 0 to 1; found nan"),
        ({"spread": "a"}, "spread=...\\) must be a number from -20 to 5; found 'a'"),
    ],
    "sac": [
        ({"discount": 2}, "discount=...\\) must be a number above 0 and at most 1; found 2"),
        ({"memory": 1}, "256 transitions or more; found 1"),
        ({"memory": 300, "environments": 400}, "400 transitions or more; found 300"),
        ({"updates": 0}, "updates=...\\) must be a positive number"),
        ({"temperature": -1}, "temperature=...\\) must be a positive number"),
        ({"entropy": "auto"}, "entropy=...\\) must be a number from -100"),
        ({"batch": 0}, "batch=...\\) must be a whole number"),
        ({"warmup": 0}, "warmup=...\\) must be a whole number"),
        ({"steps": 4_000}, "more than its warmup of 4000 random steps"),
    ],
}


@pytest.mark.parametrize(
    ("name", "wrong", "sentence"), [(name, *case) for name, cases in WRONG.items() for case in cases]
)
def test_wrong_options_are_refused_before_anything_is_played(name, wrong, sentence, tmp_path):
    with pytest.raises(dp.UsageError, match=sentence) as caught:
        dp.solve(moving(), name, folder=tmp_path / "run", **wrong)
    assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()


class Law(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.ones(()))

    def forward(self, state, t, scenario):
        return self.gain * (scenario["target"] - state)


def test_a_problem_that_seeks_other_weights_is_refused():
    problem = moving()
    with pytest.raises(
        dp.UsageError, match="seeks the weights of another one \\(Law\\): give it the problem"
    ):
        dp.solve(problem.with_unknown(dp.Policy(Law())), "ppo")
    posed = resolve("ppo", {"width": 16}).pose(problem)
    with pytest.raises(dp.UsageError, match="seeks the weights of another one"):
        dp.solve(posed, "ppo", width=8)
    with pytest.raises(dp.UsageError, match="SAC trains networks of its own"):
        dp.solve(posed, "sac", width=16)
    assert resolve("ppo", {"width": 16}).pose(posed) is posed


def test_an_interrupted_training_goes_on_with_its_networks(tmp_path, monkeypatch):
    monkeypatch.setattr("dpcontrol.folder.KEEP_EVERY_SECONDS", 0.0)
    problem, folder = moving(), tmp_path / "run"
    calls = []

    def stop(progress):
        calls.append(progress)
        return len(calls) >= 4

    options = {**OPTIONS["ppo"], "validate_every": 3_000}
    budget = dp.Budget(simulated_steps=30_000)
    first = dp.solve(problem, "ppo", budget=budget, callback=stop, folder=folder, **options)
    assert first.status.kind == "stopped"
    again = dp.solve(problem, "ppo", budget=budget, folder=folder, resume=True, **options)
    assert again.counts.simulated_steps <= 30_000 and again.loss < first.loss
    assert again.history["simulated_steps"][: len(calls)] == first.history["simulated_steps"][: len(calls)]
    assert "not to the bit" in again.status.sentence
