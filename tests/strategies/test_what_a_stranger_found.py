"""Controllers as a stranger met them: what went wrong in their own small problems, and must not again."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import dpcontrol as dp
from dpcontrol.engine import Checkpointed, Full
from dpcontrol.engine.schedule import plan
from dpcontrol.environments import gymnasium_env

F64 = torch.float64
BUDGET = dp.Budget(simulated_steps=6_000)


def oscillator(state, control):
    """A driven oscillator by symplectic Euler."""
    speed = state[:, 1:] + 0.1 * (control - state[:, :1])
    return torch.cat([state[:, :1] + 0.1 * speed, speed], 1)


def moving(objective=None, *, shared=False, step=oscillator, size=1.0, **more):
    return dp.control_problem(
        step,
        initial_state=size * torch.linspace(-1, 1, 8, dtype=F64).reshape(4, 2),
        horizon=12,
        objective=objective or dp.reach(torch.zeros(2, dtype=F64)) + 0.1 * dp.effort(),
        control=dp.ControlSequence(1, low=-1, high=1, shared=shared),
        scenarios=dp.Scenarios(
            {},
            sampler=lambda g, n: {"initial_state": size * (2 * torch.rand(n, 2, generator=g, dtype=F64) - 1)},
        ),
        name="oscillator",
        **more,
    )


class Feedback(nn.Module):
    """A law with weights; ``mixing`` lets a scenario see the mean of the others."""

    def __init__(self, mixing=False):
        super().__init__()
        self.gain, self.mixing = nn.Linear(2, 1).double(), mixing

    def forward(self, state, t, scenario):
        return self.gain(state - state.mean(0) if self.mixing else state)


def test_a_window_whose_states_do_not_feel_the_control_any_more_keeps_the_plan():
    problem = moving(dp.cost(stage=lambda state, *_: state.square().sum(1)))
    found = dp.solve(problem, "mpc", iterations=5, progress=False)
    open_loop = dp.solve(problem, "lbfgs", progress=False)
    assert found.status.kind == "scored" and found.loss == pytest.approx(open_loop.loss, rel=1e-3)
    with pytest.raises(dp.UsageError, match="does not depend on what is sought"):
        dp.solve(moving(dp.cost(stage=lambda state, *_: 0 * state.sum(1).detach())), "mpc", progress=False)


@pytest.mark.parametrize("name", ["policy", "ppo", "evolved_policy"])
def test_one_control_for_all_scenarios_is_no_question_for_a_controller(name):
    with pytest.raises(
        dp.UsageError, match="one control for all of its 4 scenarios .* leave out shared=True"
    ):
        dp.solve(moving(shared=True), name, budget=BUDGET, progress=False)


def test_a_network_that_mixes_scenarios_is_refused_at_the_door():
    with pytest.raises(dp.UsageError, match="another control when it is alone than beside others"):
        dp.solve(moving(), "policy", network=Feedback(mixing=True), budget=BUDGET, progress=False)


def test_frozen_weights_stay_as_they_are():
    network = Feedback()
    network.gain.bias.requires_grad_(False)
    found = dp.solve(moving(), "policy", network=network, budget=BUDGET, progress=False)
    assert set(found.value["policy"]) == {"gain.weight"}
    network.gain.weight.requires_grad_(False)
    with pytest.raises(dp.UsageError, match="no weights to train: give it some that require a gradient"):
        dp.solve(moving(), "policy", network=network, budget=BUDGET, progress=False)


def test_a_stored_policy_is_not_one_of_another_problem(tmp_path):
    dp.solve(moving(), "policy", budget=BUDGET, progress=False, folder=tmp_path / "run", width=8)
    other = dp.control_problem(
        lambda s, u: 0.9 * s + 0.1 * u,
        initial_state=torch.ones(2, 3, dtype=F64),
        horizon=10,
        objective=dp.reach(torch.zeros(3, dtype=F64)),
        control=dp.ControlSequence(3),
        name="other",
    )
    with pytest.raises(dp.UsageError, match="weights of a network that does not fit other: .* trained for"):
        dp.load(tmp_path / "run", other)
    assert dp.load(tmp_path / "run", moving()).problem is not None


def test_to_resume_a_finished_training_by_rewards_changes_nothing(tmp_path):
    asked = {"budget": BUDGET, "progress": False, "folder": tmp_path / "run", "width": 8, "environments": 8}
    first = dp.solve(moving(), "ppo", validation=16, **asked)
    again = dp.solve(moving(), "ppo", validation=16, resume=True, **asked)
    assert again.loss == first.loss and again.counts == first.counts
    assert dp.load(tmp_path / "run", moving()).loss == first.loss


def test_a_finished_run_is_handed_back_and_more_budget_takes_it_further(tmp_path, monkeypatch):
    """Whatever it stored on the way: learners by rewards go on from there with fresh random streams."""
    monkeypatch.setattr("dpcontrol.folder.KEEP_EVERY_SECONDS", 0.02)
    asked = {"progress": False, "folder": tmp_path / "run", "width": 8, "environments": 8, "validation": 16}
    first = dp.solve(moving(), "ppo", budget=BUDGET, **asked)
    again = dp.solve(moving(), "ppo", budget=BUDGET, resume=True, **asked)
    assert again.loss == first.loss and again.counts == first.counts and again.history == first.history
    assert torch.equal(again.trajectory().states, first.trajectory().states)
    further = dp.solve(moving(), "ppo", budget=dp.Budget(simulated_steps=9_000), resume=True, **asked)
    assert further.counts.simulated_steps > first.counts.simulated_steps


def test_scenes_that_leave_the_finite_world_do_not_end_a_training_by_rewards():
    def bursting(state, control):
        return state + 0.3 * (state**3 + control)

    problem = moving(step=bursting, size=1.5)
    found = dp.solve(problem, "ppo", budget=BUDGET, progress=False, width=8, environments=8, validation=16)
    assert found.counts.simulated_steps > 1_000


def test_training_by_rewards_happens_on_the_model_and_not_on_the_plant():
    asked = {"plant": 0, "model": 0}

    def counted(who):
        def step(state, control):
            asked[who] += len(state)
            return oscillator(state, control)

        return step

    problem = moving(step=counted("model"), plant=counted("plant"))
    dp.solve(problem, "ppo", budget=BUDGET, progress=False, width=8, environments=8, validation=16)
    assert asked["model"] > 4_000 and asked["plant"] < 500


@pytest.mark.parametrize(("mode", "again"), [(Checkpointed(), 12), (Checkpointed(snapshots=2), None)])
def test_steps_that_are_run_again_on_the_way_back_are_charged(mode, again):
    again = plan(12, 2).recomputed if again is None else again
    spent = {}
    for gradient in (Full(), mode):
        problem = replace(moving(), gradient=gradient)
        for name, options in (("adjoint", {}), ("policy", {"width": 8, "batch": 4})):
            found = dp.solve(problem, name, iterations=3, progress=False, **options)
            spent[type(gradient), name] = found.counts
    for name in ("adjoint", "policy"):
        plain, more = spent[Full, name], spent[type(mode), name]
        assert more.gradients == plain.gradients > 0
        assert more.simulated_steps - plain.simulated_steps == again * plain.gradients


def test_a_comparison_tells_of_decisions_that_could_not_be_paid():
    budget = dp.Budget(simulated_steps=700)
    found = dp.compare(
        moving(), ["mpc", "cmaes"], seeds=1, budget=budget, workers=0, progress=False
    ).finding()
    assert "mpc could not pay for 4 of its 12 decisions" in str(found)


def test_complex_controls_are_refused():
    class Phasor(Feedback):
        def forward(self, state, t, scenario):
            return 1j * super().forward(state, t, scenario)

    with pytest.raises(dp.UsageError, match="gives complex numbers, .* and a control is real"):
        dp.solve(moving(), "policy", network=Phasor(), budget=BUDGET, progress=False)
    with pytest.raises(dp.UsageError, match="is real, of shape"):
        dp.robustness(moving(), {"phasor": lambda state, t, scenario: 1j * state[:, :1]}, [dp.Nominal()])


def test_a_sampler_that_fails_on_the_way_says_so():
    asked = [0]

    def sampler(generator, n):
        asked[0] += 1
        if asked[0] > 8:
            raise RuntimeError("the disk is gone")
        return {"initial_state": torch.rand(n, 2, generator=generator, dtype=F64)}

    problem = dp.control_problem(
        oscillator,
        initial_state=torch.ones(4, 2, dtype=F64),
        horizon=12,
        objective=dp.reach(torch.zeros(2, dtype=F64)),
        control=dp.ControlSequence(1),
        scenarios=dp.Scenarios({}, sampler=sampler),
    )
    with pytest.raises(
        dp.UsageError, match=r"sampler\(generator, \d+\), failed with RuntimeError: the disk is gone"
    ):
        dp.solve(problem, "policy", budget=dp.Budget(simulated_steps=60_000), progress=False)
    assert asked[0] == 9


def test_a_law_that_fails_and_a_delay_that_lets_nothing_through_are_refused_before_any_trial():
    def law(state, t, scenario):
        raise KeyError("wind")

    with pytest.raises(dp.UsageError, match="'law', called as law.* failed with KeyError: 'wind'"):
        dp.robustness(moving(), {"law": law}, [dp.Nominal()])
    with pytest.raises(
        dp.UsageError, match=r"ActuatorDelay\(12\) lets no command arrive: .* has 12 decisions"
    ):
        dp.robustness(moving(), {"law": lambda s, t, scenario: -s[:, :1]}, [dp.ActuatorDelay(12)])


@pytest.mark.parametrize("options", [{"iterations": 1}, {"inner": "cem", "iterations": 2, "horizon": 5}])
def test_what_mpc_simulates_is_charged(options):
    rows = {"forward": 0, "backward": 0}

    class Counted(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            rows["backward"] += len(gradient)
            return gradient

    def step(state, control):
        rows["forward"] += len(state)
        found = oscillator(state, control)
        return Counted.apply(found) if found.requires_grad else found

    problem = moving(step=step)
    rows.update(forward=0, backward=0)
    found = dp.solve(problem, "mpc", progress=False, **options)
    once = problem.horizon * problem.scenarios.count
    # besides, the answer is judged, and the trajectory asked for
    assert 0 < sum(rows.values()) - found.counts.simulated_steps <= 4 * once


def test_a_charge_for_the_whole_control_is_refused_by_all_who_act_and_no_environment_forgets_it():
    problem = moving(dp.effort() + dp.penalty("control"))
    for name in ("policy", "ppo", "evolved_policy", "mpc"):
        with pytest.raises(dp.UsageError, match="has a penalty"):
            dp.solve(problem, name, budget=BUDGET, progress=False)
    with pytest.raises(dp.UsageError, match="has a penalty"):
        gymnasium_env(problem)
    found = dp.compare(problem, ["lbfgs", "ppo"], seeds=1, budget=BUDGET, progress=False)
    assert "Refused:" in str(found) and "failed" not in str(found)


def test_a_controller_that_is_called_like_a_law_is_not_lost_and_the_nominal_trial_is_the_measure():
    problem = moving(baselines={"damp": lambda state, t, scenario: -state[:, 1:]})
    mine = {"law: damp": lambda state, t, scenario: 0 * state[:, :1]}
    with pytest.raises(dp.UsageError, match="'law: damp' is what the problem's own law is called"):
        dp.robustness(problem, mine, [dp.Nominal()])
    assert dp.robustness(problem, mine, [dp.Nominal()], laws=False).controllers == ("law: damp",)
    found = dp.robustness(problem, {}, [dp.ActuatorDelay(2), dp.Nominal()])
    assert "× nominal" in str(found) and found.worse(found.row("law: damp", "nominal")) == 1.0
