"""Model predictive control: Riccati's laws, disturbance and mismatch, warm starts, budgets, resumption, refusals."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from dpcontrol.problems import burgers, ks_stabilisation, linear_quadratic, pendulum_swingup
from dpcontrol.problems.linear_quadratic import riccati
from plants import Lagging, Shaken
from strategy_cases import interrupted_and_resumed, same

from dpcontrol.meter import Budget
from dpcontrol.problem import (
    ControlSequence,
    Policy,
    Scenarios,
    UsageError,
    closing,
    control_problem,
    effort,
    fold,
    from_value,
    penalty,
    play,
    reach,
    track,
)
from dpcontrol.problem.acting import Acting
from dpcontrol.run import run
from dpcontrol.sim import DiscreteLinear
from dpcontrol.strategies import CEM, CMAES, LBFGS, MPC, MPPI, Baseline, LearnedPolicy, MovingHorizon
from dpcontrol.strategies.names import resolve
from dpcontrol.strategies.receding.mpc import PLANNERS

F64 = torch.float64
TIGHT = LBFGS(iterations=300, gradient_tolerance=1e-11, loss_tolerance=1e-16)
CHEAP = LBFGS(iterations=5)


def shaken(problem, size, seed=0, plant=None):
    """The problem on a plant that is disturbed, in its small scenes or in other ones."""
    start = problem.scenarios.data["initial_state"]
    drawn = torch.Generator().manual_seed(seed)
    noise = size * torch.randn(len(start), problem.horizon, *start.shape[1:], generator=drawn, dtype=F64)
    scenes = Scenarios({**problem.scenarios.data, "noise": noise})
    return replace(problem, plant=Shaken(plant or problem.simulator), scenarios=scenes, metric_functions={})


def regulator(count=2, horizon=20):
    """The double integrator of linear_quadratic, from several states."""
    problem = linear_quadratic.problem(size="small", horizon=horizon)
    scenes = problem.scenarios.draw(torch.Generator().manual_seed(3), count)
    return problem.with_scenarios(scenes)


# -- Riccati ---------------------------------------------------------------------------------------------------------


def test_a_shrinking_horizon_plays_riccati_s_law():
    problem = regulator()
    found = run(problem, MPC(TIGHT))
    best = problem.run_law(problem.baselines["LQR feedback"])
    A, B = problem.simulator.A, problem.simulator.B
    _, weight = riccati(A, B, 0.1, problem.horizon)
    x = problem.scenarios.data["initial_state"]
    torch.testing.assert_close(found.losses, torch.einsum("si,ij,sj->s", x, weight, x), rtol=1e-8, atol=0)
    torch.testing.assert_close(found.value["control"], best.controls.transpose(0, 1), rtol=0, atol=1e-5)
    assert found.status.kind == "scored" and "20 decisions by LBFGS for 20 steps" in found.status.sentence


@pytest.mark.parametrize("horizon", [1, 6])
def test_with_riccati_s_weight_at_its_end_a_window_of_any_length_plays_the_infinite_law(horizon):
    problem = regulator(horizon=14)
    A, B = problem.simulator.A, problem.simulator.B
    gains, weight = riccati(A, B, 0.1, 2000)
    to_go = cost_to_go(weight)
    found = run(problem, MPC(TIGHT, horizon=horizon, terminal=to_go))
    law = problem.run_law(lambda x, t, scenario: -x @ gains[0].T)
    before = problem.horizon - horizon  # from there on windows see the true end
    torch.testing.assert_close(
        found.value["control"][:, :before], law.controls[:before].transpose(0, 1), rtol=0, atol=1e-5
    )
    if horizon == 6:  # without it a short window is myopic, and pays for that
        short = run(problem, MPC(TIGHT, horizon=4, terminal="own"))
        assert float((short.losses / found.losses).min()) > 1.02


def cost_to_go(weight):
    return lambda x: torch.einsum("si,ij,sj->s", x, weight, x)


def test_the_plant_s_noise_is_met_as_riccati_s_law_meets_it():
    """Certainty equivalence: with additive noise of mean zero the optimal law is that without noise."""
    problem = shaken(regulator(), 0.05)
    law = problem.run_law(problem.baselines["LQR feedback"])
    feedback = {"control": law.controls.transpose(0, 1)}
    found = run(problem, MPC(TIGHT))
    torch.testing.assert_close(found.losses, problem.judge(feedback), rtol=1e-8, atol=0)
    torch.testing.assert_close(found.trajectory().states, law.states, rtol=0, atol=1e-5)
    blind = run(problem, TIGHT)
    assert float(found.losses.mean()) < 0.9 * float(blind.losses.mean())


def test_plans_do_not_know_the_noise_unless_they_are_told():
    problem = regulator()
    pushed = control_problem(
        lambda x, u, *, noise: x @ problem.simulator.A.T + u @ problem.simulator.B.T + noise,
        initial_state=problem.scenarios.data["initial_state"],
        horizon=20,
        objective=track(torch.zeros(21, 2)) + 0.1 * effort(),
        control=ControlSequence(1),
        scenarios={
            "noise": 0.05 * torch.randn(2, 20, 2, generator=torch.Generator().manual_seed(1), dtype=F64)
        },
    )
    clairvoyant = run(pushed, TIGHT)  # its model contains the noise that will come
    told = run(pushed, MPC(TIGHT, foresight=True))
    torch.testing.assert_close(told.losses, clairvoyant.losses, rtol=1e-8, atol=0)
    honest = run(pushed, MPC(TIGHT))
    gains, _ = riccati(problem.simulator.A, problem.simulator.B, 0.1, 20)
    law = pushed.run_law(lambda x, t, scenario: -x @ gains[round(t)].T)
    played = {"control": law.controls.transpose(0, 1)}
    torch.testing.assert_close(honest.losses, pushed.loss(played), rtol=1e-8, atol=0)
    assert bool((honest.losses > told.losses).all())


def test_a_plant_that_is_not_the_model():
    problem = regulator()
    A, B = problem.simulator.A, problem.simulator.B
    heavier = DiscreteLinear(A + torch.tensor([[0.0, 0.0], [0.08, 0.02]], dtype=F64), 0.6 * B, dt=0.1)
    other = replace(problem, plant=heavier)
    found, blind = run(other, MPC(TIGHT)), run(other, TIGHT)
    law = other.run_law(problem.baselines["LQR feedback"])
    torch.testing.assert_close(found.trajectory().states, law.states, rtol=0, atol=1e-5)
    assert float(found.losses.mean()) < 0.8 * float(blind.losses.mean())


# -- nonlinear -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("inner", ["lbfgs", "cem", "mppi"])
def test_a_chaotic_flow_is_held_under_disturbance(inner):
    """From near rest, pushed at each step: a plan that does not look is carried off, feedback is not."""
    problem = ks_stabilisation.problem(size="small")
    near = {name: value[:1] for name, value in problem.scenarios.data.items()}
    near["initial_state"] = 0.02 * near["initial_state"]
    problem = shaken(problem.with_scenarios(Scenarios(near)), 0.1)
    blind = run(problem, LBFGS(iterations=20))
    planner = LBFGS(iterations=5) if inner == "lbfgs" else inner
    found = run(problem, MPC(planner, horizon=8, hold=2), budget=Budget(simulated_steps=15_000))
    assert found.loss < 0.75 * blind.loss, (found.loss, blind.loss)


def test_bounds_are_kept_and_a_task_at_the_end_is_done():
    problem = pendulum_swingup.problem(size="small")
    found = run(problem, MPC(LBFGS(iterations=15), horizon=30, hold=3))
    u = found.value["control"]
    assert float(u.abs().max()) <= pendulum_swingup.STRONGEST
    assert found.metrics["swung_up"] == 1.0


def test_a_closing_condition_is_met_at_the_end():
    problem = burgers.problem(size="small")
    found = run(problem, MPC(LBFGS(iterations=10), hold=8))
    assert found.value["control"].shape[1] == problem.free_steps
    assert found.metrics["target_error"] < 1e-12
    shorter = run(problem, MPC(LBFGS(iterations=10), horizon=10, hold=5))
    assert shorter.metrics["target_error"] < 1e-12
    # it was there after each window already, at a price
    assert shorter.loss > found.loss


def test_a_fold_is_followed_along_the_way():
    """The largest excursion so far is part of the state: without memory a later window would begin a new one."""
    peak = fold(
        lambda x: x[:, 0].square(), lambda m, x, u, t: torch.maximum(m, x[:, 0].square()), lambda m, x: m
    )
    problem = control_problem(
        DiscreteLinear(torch.tensor([[1.0, 0.2], [0.0, 1.0]]), torch.tensor([[0.02], [0.2]]), dt=0.2),
        initial_state=torch.tensor([[0.5, 1.0], [1.0, -0.5]], dtype=F64),
        horizon=15,
        objective=30 * peak + effort() + 5 * reach(torch.zeros(2)),
        control=ControlSequence(1),
    )
    whole = run(problem, TIGHT)
    found = run(problem, MPC(TIGHT))
    assert bool((found.losses < whole.losses * (1 + 1e-3)).all())


# -- work ------------------------------------------------------------------------------------------------------------


def test_a_warm_start_saves_work():
    problem = shaken(regulator(), 1e-3)
    controller = MPC(LBFGS(iterations=200, gradient_tolerance=1e-2)).controller(problem)

    @dataclass(frozen=True)
    class Cold:
        inner: Acting

        def init(self, outset):
            return self.inner.init(outset)

        def act(self, memory, state, t, scenario):
            return self.inner.act(memory if memory.due else replace(memory, plan=None), state, t, scenario)

    warm, cold = play(problem, controller), play(problem, Cold(controller))
    assert warm.memory.decisions == cold.memory.decisions == 20
    assert warm.memory.counts.gradients < 0.5 * cold.memory.counts.gradients
    assert abs(warm.loss / cold.loss - 1) < 1e-4


def test_one_iteration_for_each_decision_tracks_the_optimum():
    """Real-time iterations: the search goes on while the plant moves."""
    problem = regulator(horizon=30)
    found = run(problem, MPC(LBFGS(iterations=1)))
    best = run(problem, TIGHT)
    assert float((found.losses / best.losses).max()) < 1.02


@pytest.mark.parametrize("steps", [15, 3_000, 30_000])
@pytest.mark.parametrize("inner", [LBFGS(), CEM(), MPPI()], ids=["lbfgs", "cem", "mppi"])
def test_the_budget_lasts_to_the_end_and_is_kept(inner, steps):
    problem, sampling = regulator(count=2), inner.stochastic
    found = run(problem, MPC(inner, horizon=10), budget=Budget(simulated_steps=steps))
    assert found.counts.simulated_steps <= steps
    assert found.value["control"].shape == (2, 20, 1)
    if steps > 15:
        assert (
            found.status.kind == "scored"
            and found.loss < (0.95 if sampling and steps < 5_000 else 0.35) * 18.78
        )
        assert found.history["simulated_steps"] == [found.counts.simulated_steps]
        # a population of 32 over 10 steps of 2 scenarios costs 640: most decisions cannot have one
        if steps == 3_000:
            assert ("could not pay" in found.status.sentence) == isinstance(inner, MPPI)
    else:
        assert found.status.kind == "budget spent" and "without looking" in found.status.sentence
        assert "could not pay" in found.status.sentence


def test_budgets_in_gradients_and_seconds():
    problem = regulator(count=2)
    found = run(problem, MPC(), budget=Budget(gradients=300))
    assert 100 < found.counts.gradients <= 300 and found.status.kind == "scored"
    found = run(problem, MPC("cem"), budget=Budget(seconds=1.0))
    assert found.status.kind == "scored" and found.counts.simulated_steps > 0


@pytest.mark.parametrize("name", PLANNERS)
def test_every_planner_keeps_a_disturbed_regulator_near_rest(name):
    problem = shaken(regulator(count=2, horizon=12), 0.05)
    found = run(problem, MPC(name, horizon=6, hold=2, iterations=4))
    assert found.loss < 0.7 * float(problem.judge(problem.start()).mean())
    assert found.counts.failures == 0


def test_a_window_of_one_step_begins_with_the_control_before():
    problem = regulator(horizon=6)
    controller = MPC(TIGHT, horizon=1).controller(problem)
    asked = []

    @dataclass(frozen=True)
    class Listening:
        def init(self, outset):
            return controller.init(outset)

        def act(self, memory, state, t, scenario):
            asked.append((memory.played, controller.window(memory, state, scenario).start()["control"][:, 0]))
            return controller.act(memory, state, t, scenario)

    play(problem, Listening())
    assert len(asked) == 6
    for before, start in asked[1:]:
        assert torch.equal(before, start)


def test_holding_more_steps_costs_fewer_decisions():
    problem = shaken(regulator(), 0.1)
    often, seldom = (run(problem, MPC(TIGHT, hold=hold)) for hold in (1, 7))
    assert "20 decisions" in often.status.sentence and "3 decisions" in seldom.status.sentence
    assert seldom.counts.gradients < often.counts.gradients
    assert often.loss < seldom.loss


@pytest.mark.parametrize("inner", [CEM(iterations=3), CMAES(iterations=3), MPPI(iterations=2)])
def test_same_seed_same_bits(inner):
    problem = shaken(regulator(count=2), 0.05)
    strategy = MPC(inner, horizon=8, hold=2)
    first, second, other = (run(problem, strategy, seed=seed) for seed in (4, 4, 5))
    same(first, second)
    assert not torch.equal(first.value["control"], other.value["control"])


@pytest.mark.parametrize("inner", [LBFGS(iterations=4), CEM(iterations=3), MPPI(iterations=2)])
@pytest.mark.parametrize("budget", [None, Budget(simulated_steps=20_000)])
def test_resume_equals_uninterrupted(inner, budget, tmp_path, monkeypatch):
    problem = shaken(regulator(count=2), 0.05)
    strategy = MPC(inner, horizon=8, hold=2)
    whole = run(problem, strategy, budget=budget, seed=5)
    resumed = interrupted_and_resumed(
        problem, strategy, tmp_path / "run", monkeypatch, after=25, budget=budget
    )
    same(whole, resumed)


def test_an_interrupted_run_plays_its_last_plan():
    problem = regulator()
    seen = []

    def stop(progress):
        seen.append(progress)
        return len(seen) == 60

    found = run(problem, MPC(TIGHT), callback=stop)
    assert found.status.kind == "stopped" and "played without looking" in found.status.sentence
    # without noise and mismatch the plan is the optimum already
    assert found.loss < 1.01 * run(problem, TIGHT).loss
    assert 0 < seen[-1].fraction < 1


def test_as_a_controller_it_plays_what_it_plays_as_a_strategy():
    problem = shaken(regulator(), 0.05)
    strategy = MPC(TIGHT, horizon=10, hold=3)
    found, played = run(problem, strategy), play(problem, strategy.controller(problem))
    torch.testing.assert_close(played.losses, found.losses, rtol=1e-12, atol=0)
    assert isinstance(strategy.controller(problem), Acting)
    blind = play(problem, from_value(problem, run(problem, TIGHT).value))
    assert played.loss < blind.loss


def test_as_a_controller_it_acts_in_other_scenes():
    problem = pendulum_swingup.problem(size="small")  # its start guess and its data are those of three scenes
    scenes = problem.scenarios.draw(torch.Generator().manual_seed(8), 2)
    controller = MPC(LBFGS(iterations=10), horizon=30, hold=5).controller(problem)
    played = play(problem, controller, scenarios=scenes)
    assert played.losses.shape == (2,) and float(played.losses.max()) < 50


def test_a_model_that_fails_keeps_the_plan_before():
    """Where every plan leaves the finite world there is nothing to choose: the run says so."""
    edge = control_problem(
        lambda x, u: torch.where(x.abs() > 2, torch.nan, x) + 0.1 * u,
        initial_state=torch.tensor([[0.5], [1.9]], dtype=F64),
        horizon=6,
        objective=track(torch.full((7, 1), 0.5)) + 0.1 * effort(),
        control=ControlSequence(1, low=-1.0, high=1.0),
    )
    edge = replace(edge, plant=Shaken(edge.simulator))
    noise = torch.zeros(2, 6, 1, dtype=F64)
    noise[1, 1] = 3.0
    edge = edge.with_scenarios(Scenarios({**edge.scenarios.data, "noise": noise}))
    found = run(edge, MPC(CHEAP))
    assert found.status.kind == "diverged"
    assert bool(torch.isfinite(found.losses[0])) and not bool(torch.isfinite(found.losses[1]))


# -- the door --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: MPC("ppo"), "inner=...\\) must be one of lbfgs"),
        (lambda: MPC(MPC()), "must be an open-loop strategy"),
        (lambda: MPC(3), "must be an open-loop strategy"),
        (lambda: MPC(horizon=2, hold=3), "plays more steps than its windows have"),
        (lambda: MPC(hold=0), "hold=...\\) must be a whole number"),
        (lambda: MPC(horizon=0), "horizon=...\\) must be a whole number"),
        (lambda: MPC(iterations=2.5), "iterations=...\\) must be a whole number"),
        (lambda: MPC(narrow=0.0), "narrow=...\\) must be a positive number"),
        (lambda: MPC(terminal="reach"), "'own', 'none' or a function"),
        (lambda: MPC(estimator="kalman"), "'auto', None, or an object with init"),
        (lambda: MPC(estimator=MovingHorizon), "such as MovingHorizon\\(\\)"),
        (lambda: MPC(foresight="yes"), "must be True or False"),
    ],
)
def test_options_that_make_no_sense(make, words):
    with pytest.raises(UsageError, match=words):
        make()


def test_problems_that_it_cannot_play():
    problem = regulator()
    with pytest.raises(UsageError, match="no open-loop strategy"):
        run(problem, MPC(LearnedPolicy()))
    network = torch.nn.Linear(2, 1)
    with pytest.raises(UsageError, match="seeks policy"):
        run(problem.with_unknown(Policy(network)), MPC(LBFGS()))
    with pytest.raises(UsageError, match=r"seeks control \(shared\)"):
        run(problem.with_unknown(ControlSequence(1, shared=True)), MPC())
    smooth = replace(problem, objective=(track("reference") + penalty("control")))
    with pytest.raises(UsageError, match="penalty"):
        run(smooth, MPC())
    closed = control_problem(
        lambda x, u: x + u,
        initial_state=torch.zeros(1, 2, dtype=F64),
        horizon=6,
        objective=closing(torch.ones(2)) + effort(),
        control=ControlSequence(2),
    )
    with pytest.raises(UsageError, match="closing condition, which takes the last"):
        run(closed, MPC(horizon=3, hold=3))
    with pytest.raises(UsageError, match="cannot honour the bounds"):
        run(pendulum_swingup.problem(size="small"), MPC(Unbounded()))
    with pytest.raises(UsageError, match="needs simple laws"):
        run(replace(problem, baselines={}), MPC(Baseline()))
    with pytest.raises(UsageError, match="give the problem an observation"):
        run(replace(problem, plant=Lagging(problem.simulator)), MPC())


@dataclass(frozen=True)
class Unbounded(LBFGS):
    """A strategy that knows no bounds."""

    @property
    def honours(self):
        return frozenset()


def test_it_is_found_by_its_name():
    assert resolve("mpc", {"inner": "cem", "horizon": 7}) == MPC("cem", horizon=7)
    assert resolve("mppi") == MPPI()
    assert MPC("cem").stochastic and not MPC().stochastic
