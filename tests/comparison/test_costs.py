"""What quality costs, by hand: courses, medians, break-even, profiles, decisions."""

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from made_runs import made, results
from torch import nn

from dpcontrol.comparison import Comparison, costs, pricing
from dpcontrol.comparison.decisions import LAW, NETWORK, REPLANNED, SOLVED, TOGETHER, decision_of
from dpcontrol.comparison.profiles import profiles
from dpcontrol.comparison.records import Run
from dpcontrol.comparison.summary import summarise
from dpcontrol.meter import Budget
from dpcontrol.problem import ControlSequence, Policy, Problem, Scenarios, control_problem, effort, reach
from dpcontrol.run import Strategy, run
from dpcontrol.solution import Solution
from dpcontrol.solving import solve
from dpcontrol.strategies import MPC
from dpcontrol.strategies.baselines import Baseline
from dpcontrol.strategies.minimising.first_order import Adjoint

# -- to get there ----------------------------------------------------------------------------------------------------


def test_the_threshold_is_a_tenth_above_the_best_run_of_anybody_also_below_zero() -> None:
    assert costs.threshold(results(made("a", [4.0, 6.0]), made("b", [2.0, 2.0]))) == pytest.approx(2.2)
    assert costs.threshold(results(made("a", [-4.0]), made("b", [-2.0]))) == pytest.approx(-3.6)
    assert costs.threshold(results(made("a", None, status="failed"), scenes=1)) is None


def test_the_cost_to_a_level_is_that_of_the_first_row_below_it() -> None:
    run = made("a", [1.0], course=[(100, 9.0), (200, 3.0), (300, 1.05), (400, 1.0)])
    assert costs.cost_to(run, 3.0) == (200, pytest.approx(0.2))
    assert costs.cost_to(run, 2.0) == (300, pytest.approx(0.3))
    assert costs.cost_to(run, 0.9) == (math.inf, math.inf)


def test_a_course_on_validation_scenes_is_scaled_to_end_at_the_judged_loss() -> None:
    # trained on scenes that are twice as hard: 8 -> 4 there is 4 -> 2 here
    run = made("a", [2.0], course=[(100, 8.0), (200, 5.0), (300, 4.0)])
    assert costs.course(run)[2].tolist() == [4.0, 2.5, 2.0]
    assert costs.cost_to(run, 2.5)[0] == 200
    shifted = made("a", [-1.0], course=[(100, 3.0), (200, 1.0)])
    assert costs.course(shifted)[2].tolist() == [1.0, -1.0]


def test_what_plans_as_it_goes_has_its_answer_at_the_end() -> None:
    # windows are shorter than the problem: a loss in between is none of the whole episode
    run = made("mpc", [2.0], course=[(100, 1.0), (900, 1.0)], decision=REPLANNED)
    assert costs.cost_to(run, 2.0)[0] == 900


def test_half_of_the_runs_have_to_get_there_and_failures_count() -> None:
    there = [made("a", [1.0], seed=k, course=[(100 * (k + 1), 1.0)]) for k in range(2)]
    away = [made("a", [5.0], seed=2), made("a", None, seed=3, status="failed")]
    assert costs.reached(results(*there, away[0]), "a") == costs.Reached(200, pytest.approx(0.2), 2, 3)
    found = costs.reached(results(*there, *away), "a")
    assert found.steps is None and (found.runs, found.asked) == (2, 4)


# -- break-even ------------------------------------------------------------------------------------------------------


def solver(label: str = "lbfgs") -> Run:
    # four scenes: 400 steps until as good as 2.2, that is 100 a scene; 800 until 2.0
    course = [(400, 2.2), (800, 2.0)]
    return made(label, [2.0] * 4, course=course, decision=SOLVED, family="gradients")


def test_a_controller_breaks_even_where_its_training_is_paid_by_the_solves_it_saves() -> None:
    policy = made("policy", [2.2] * 4, course=[(6000, 2.2)], decision=NETWORK, family="gradients")
    made_of = results(solver(), policy)
    (found,) = costs.break_even(made_of, summarise(made_of))
    assert found.solver == "lbfgs" and found.per_scene == 100
    assert found.steps == 60  # 6000 / 100
    # in seconds: 6 / (0.1 a scene - ten decisions of a millisecond)
    assert found.seconds == math.ceil(6 / 0.09)
    assert found.gap == pytest.approx(0.1) and found.equal
    assert "pays from 60 scenes on, against lbfgs" in pricing.told(made_of, summarise(made_of))[0]


def test_tuning_trials_are_part_of_what_training_and_solving_cost() -> None:
    def tuned(steps: int, seconds: float | None) -> dict[str, object]:
        return {"trials": 4, "simulated_steps": steps, "seconds": seconds, "folder": None, "drawn": True}

    def policy(trials: dict[str, object]) -> Run:
        return made("policy", [2.2] * 4, course=[(6000, 2.2)], decision=NETWORK, tuned=trials)

    made_of = results(solver(), policy(tuned(24_000, 12.0)))
    summaries = summarise(made_of)
    (found,) = costs.break_even(made_of, summaries)
    assert found.steps == 300  # (6000 + 24 000) / 100
    assert found.seconds == math.ceil((6 + 12) / 0.09)
    assert (
        "Training policy with its tuning trials pays from 300 scenes on"
        in pricing.told(made_of, summaries)[0]
    )
    assert "whole training, tuning trials included (the solver's too)," in " ".join(
        pricing.notes(made_of, summaries)
    )
    both = made("lbfgs", [2.0] * 4, course=[(400, 2.2)], decision=SOLVED, tuned=tuned(20_000, None))
    made_of = results(both, policy(tuned(24_000, 12.0)))
    (found,) = costs.break_even(made_of, summarise(made_of))
    assert found.steps == 100 and found.seconds is None  # seconds of these trials were not kept
    made_of = results(both, policy(tuned(0, 12.0)))
    (found,) = costs.break_even(made_of, summarise(made_of))
    assert found.steps == 1 and "from 1 scene on" in pricing.told(made_of, summarise(made_of))[0]
    untuned = results(solver(), made("policy", [2.2] * 4, decision=NETWORK))
    assert "tuning trials included" not in " ".join(pricing.notes(untuned, summarise(untuned)))


def test_never_where_solving_is_better_and_at_once_where_it_is_worse() -> None:
    poor = made("policy", [2.5] * 4, course=[(6000, 2.5)], decision=NETWORK)
    good = made("ppo", [1.5] * 4, course=[(6000, 1.5)], decision=NETWORK)
    made_of = results(solver(), poor, good)
    summaries = summarise(made_of)
    better, worse = sorted(
        costs.break_even(made_of, summaries), key=lambda each: each.controller, reverse=True
    )
    assert better.controller == "ppo" and better.solver is None
    assert worse.controller == "policy" and not worse.equal and worse.steps == 60
    cells = {row[0]: row[4] for row in pricing.rows(made_of, summaries)}
    assert cells == {"lbfgs": "–", "ppo": "at once: no solver is as good", "policy": "never (60 scenes)"}
    assert any("never breaks even in quality" in said for said in pricing.told(made_of, summaries))


def test_a_controller_that_a_simple_law_equals_never_pays() -> None:
    policy = made("policy", [2.2] * 4, course=[(6000, 2.2)], decision=NETWORK)
    good = made("ppo", [2.1] * 4, course=[(6000, 2.1)], decision=NETWORK)
    law = made("baseline: amble", [2.15] * 4, decision=LAW, family="law")
    made_of = results(solver(), policy, good, law, laws=("baseline: amble",))
    summaries = summarise(made_of)
    found = {each.controller: each for each in costs.break_even(made_of, summaries)}
    assert found["policy"].law == "baseline: amble" and found["policy"].steps is None
    assert found["ppo"].law is None and found["ppo"].per_scene == 200 and found["ppo"].steps == 30
    words = " ".join(pricing.told(made_of, summaries))
    assert "Training policy never pays: the simple law amble, which needs none, is at least as good." in words


def test_decisions_that_cost_more_than_solves_never_pay() -> None:
    assert costs.scenes_until(100.0, 0.0) == math.inf
    assert costs.scenes_until(100.0, -1.0) == math.inf
    assert costs.scenes_until(100.0, 30.0) == 4
    assert costs.scenes_until(90.0, 30.0) == 3


def test_what_is_sought_for_all_scenes_together_is_no_solver_of_each() -> None:
    pulse = made("lbfgs", [2.0] * 4, decision=TOGETHER)
    policy = made("policy", [2.2] * 4, decision=NETWORK)
    made_of = results(pulse, policy)
    assert costs.break_even(made_of, summarise(made_of)) == []


def test_the_overview_holds_the_tables_as_plain_values() -> None:
    tuned = {"trials": 4, "simulated_steps": 800, "seconds": 0.9, "folder": None, "drawn": True}
    policy = made(
        "policy", [2.2] * 4, course=[(6000, 2.2)], decision=NETWORK, family="gradients", tuned=tuned
    )
    failed = made("policy", None, seed=1, status="failed", tuned=tuned)
    whole = Comparison(results(solver(), policy)).overview()
    assert [row["strategy"] for row in whole] == ["lbfgs", "policy"]
    assert json.loads(json.dumps(whole)) == whole
    best, other = whole
    assert best["budget"] == {"simulated_steps": 1000} and best["loss"]["value"] == pytest.approx(2.0)
    assert best["to_near_best"] == {"simulated_steps": 400, "seconds": 0.4, "runs": 1}
    assert other["breaks_even"] == {
        "against": "lbfgs",
        "scenes": 68,  # (6000 + 800) / 100
        "scenes_by_seconds": 77,
        "equal_quality": True,
    }
    assert other["tuning_trials"] == 4 and other["decision"] == {"kind": NETWORK, "seconds": 1e-3}
    assert (best["share_best"], other["share_best"], other["share_within_twice"]) == (1.0, 0.0, 1.0)
    with_failure = Comparison(results(solver(), policy, failed)).overview()[1]
    assert with_failure["runs"] == {"asked": 2, "answered": 1, "failed": 1}
    assert with_failure["breaks_even"] is None and with_failure["share_within_twice"] == 0.5


# -- profiles --------------------------------------------------------------------------------------------------------


def test_profiles_count_runs_and_scenes_within_a_factor_of_the_best_of_each_scene() -> None:
    made_of = results(made("a", [1.0, 4.0]), made("b", [2.0, 2.0], seed=0), made("b", [4.0, 2.0], seed=1))
    found = {each.label: each for each in profiles(made_of, summarise(made_of))}
    assert found["a"].ratios.tolist() == [1.0, 2.0]
    assert found["b"].ratios.tolist() == [1.0, 1.0, 2.0, 4.0]
    assert found["a"].share(1.0) == 0.5 and found["a"].share(2.0) == 1.0
    assert found["b"].share(1.0) == 0.5 and found["b"].share(2.0) == 0.75 and found["b"].share(1.9) == 0.5


def test_a_failed_run_is_never_near_and_losses_that_are_not_positive_have_no_ratios() -> None:
    made_of = results(made("a", [1.0, 1.0]), made("b", [1.0, 1.0]), made("b", None, seed=1, status="failed"))
    found = {each.label: each for each in profiles(made_of, summarise(made_of))}
    assert found["b"].share(1e9) == 0.5 and np.isinf(found["b"].ratios[-1])
    below = results(made("a", [-1.0, 1.0]), made("b", [1.0, 1.0]))
    assert profiles(below, summarise(below)) == []


# -- decisions -------------------------------------------------------------------------------------------------------


def falling() -> Problem:
    return control_problem(
        lambda state, control: state + 0.1 * control,
        initial_state=torch.linspace(0.5, 2.0, 4, dtype=torch.float64)[:, None],
        horizon=5,
        objective=reach(torch.zeros(1, dtype=torch.float64)) + 0.01 * effort(),
        control=ControlSequence(1),
        baselines={"amble": lambda x, t, s: -x, "rush": lambda x, t, s: -8.0 * x},
        name="falling",
    )


class Gain(nn.Module):
    """One number times the state."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(-1.0, dtype=torch.float64))

    def forward(self, state: torch.Tensor, t: float, scenario: object) -> torch.Tensor:
        return self.gain * state


def test_a_decision_is_a_call_a_share_or_a_whole_solve() -> None:
    problem, budget = falling(), Budget(simulated_steps=400)
    solved = solve(problem, "lbfgs", budget=budget)
    found = decision_of(Adjoint(), problem, solved)
    assert found is not None and found.kind == SOLVED and found.seconds == solved.seconds / 4
    for strategy in (Baseline(law="amble"), Baseline()):
        law = decision_of(strategy, problem, solve(problem, strategy))
        assert law is not None and law.kind == LAW and 0 < law.seconds < 0.1
    acting = problem.with_unknown(Policy(Gain()))
    network = decision_of(Adjoint(), acting, solve(acting, "adjoint", budget=budget))
    assert network is not None and network.kind == NETWORK and 0 < network.seconds < 0.1


def test_the_note_says_how_the_decisions_of_those_who_act_were_measured() -> None:
    made_of = results(made("mpc", [2.0] * 4, decision=REPLANNED), made("policy", [2.2] * 4, decision=NETWORK))
    note = " ".join(pricing.notes(made_of, summarise(made_of)))
    assert "a call of the network for one scene alone" in note
    assert "was run again with one scene alone, which simulated no more than a scene of the batch" in note


def test_what_replans_is_run_with_one_scene_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def counted(problem: Problem, strategy: Strategy, **options: Any) -> Solution:
        found = run(problem, strategy, **options)
        asked.append((problem.scenarios.count, found.counts, found.seconds))
        return found

    monkeypatch.setattr("dpcontrol.comparison.decisions.run", counted)
    problem, strategy = falling(), MPC(iterations=3)
    solution = solve(problem, strategy, budget=Budget(simulated_steps=2_000))
    found = decision_of(strategy, problem, solution)
    ((count, counts, seconds),) = asked
    assert found is not None and found.kind == REPLANNED and found.seconds == seconds / 5
    assert count == 1 and 0 < counts.simulated_steps <= solution.counts.simulated_steps / 4 + 1
    alone = problem.with_scenarios(Scenarios(problem.scenarios.take(torch.tensor([0]))))
    single = solve(alone, strategy)
    again = decision_of(strategy, alone, single)
    assert again is not None and again.seconds == single.seconds / 5 and len(asked) == 1


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(2.5e-6, "2.5 µs"), (1.2e-3, "1.2 ms"), (0.9999, "1 s"), (2.0, "2 s"), (659.0, "11 min")],
)
def test_seconds_are_said_in_the_unit_that_suits_them(seconds: float, said: str) -> None:
    assert pricing.seconds_words(seconds) == said
