"""Gradients against none: what is said, and where differentiable physics lost."""

import dataclasses

import numpy as np
from made_runs import made, results

from dpcontrol.comparison import finding
from dpcontrol.comparison.decisions import NETWORK
from dpcontrol.comparison.marks import ANSWER, COARSE, Examinee, Group, Marks, Rolled
from dpcontrol.comparison.records import Results, Run
from dpcontrol.comparison.summary import Summary, summarise
from dpcontrol.comparison.verdict import verdict

HARD = np.random.default_rng(0).lognormal(0.0, 1.0, 40)


def said(*runs: Run, laws: tuple[str, ...] = ()) -> str:
    found = results(*runs, laws=laws)
    return str(finding.finding(found, summarise(found)))


def test_a_win_without_gradients_is_said_plainly_in_the_headline_and_in_a_sentence() -> None:
    words = said(made("lbfgs", 2 * HARD, family="gradients"), made("cmaes", HARD))
    assert words.startswith("cmaes is best, without gradients: ")
    assert "Differentiable physics lost: cmaes, the best strategy without gradients, is ahead" in words
    assert "lbfgs has 100 % more loss" in words
    assert "ahead of all with them in 40 of 40 scenes" in words


def test_a_win_with_gradients_says_by_how_much_and_on_which_scenes_it_was_none() -> None:
    losses = 2 * HARD
    losses[:3] = 0.5 * HARD[:3]
    words = said(made("lbfgs", HARD, family="gradients"), made("cmaes", losses))
    assert words.startswith("lbfgs is best: ")
    assert "Gradients through the simulator won" in words
    assert "ahead of all with them in 3 of 40 scenes" in words


def test_no_win_without_gradients_where_all_with_them_failed() -> None:
    words = said(made("policy", None, status="failed", family="gradients"), made("cmaes", HARD))
    assert words.startswith("cmaes is best: ")
    assert "No run with gradients has an answer, so nothing can be said of gradients against none." in words
    assert "nothing can be said" not in said(made("lbfgs", HARD, family="gradients"), made("cmaes", HARD))


def test_a_tie_is_no_win() -> None:
    noise = 1 + 0.001 * np.random.default_rng(1).standard_normal(40)
    words = said(made("lbfgs", HARD, family="gradients"), made("cmaes", HARD * noise))
    assert "Gradients made no difference that matters in quality" in words and "lost" not in words
    wild = np.random.default_rng(1).lognormal(0, 1, 40)
    words = said(made("lbfgs", HARD, family="gradients"), made("cmaes", HARD * wild / wild.mean()))
    assert "Gradients made no difference that can be told" in words and "lost" not in words


def test_learned_controllers_are_compared_among_themselves_and_with_the_bar() -> None:
    runs = [
        made("lbfgs", HARD, family="gradients"),
        made("policy", 6 * HARD, family="gradients", decision=NETWORK, course=[(100, 9.0), (900, 7.0)]),
        made("ppo", 4 * HARD, decision=NETWORK, course=[(100, 9.0), (900, 5.0)]),
        made("baseline: amble", 3 * HARD, family="law"),
    ]
    words = said(*runs, laws=("baseline: amble",))
    assert "Gradients through the simulator won: the best strategy with them is lbfgs" in words
    assert "Differentiable physics lost: ppo, the best learned controller without gradients" in words
    assert "Both are behind the simple law amble." in words


def test_untrained_controllers_say_nothing_of_gradients() -> None:
    runs = [
        made("policy", 6 * HARD, family="gradients", decision=NETWORK, course=[(900, 7.0)]),
        made("ppo", 4 * HARD, decision=NETWORK, course=[(100, 9.0), (900, 5.0)]),
    ]
    words = said(*runs)
    assert "policy never got beyond where it starts" in words and "Differentiable physics lost" not in words
    assert "Gradients" not in words


def test_a_family_that_failed_does_not_compete() -> None:
    broken = made("cmaes", None, status="failed")
    words = said(made("lbfgs", HARD, family="gradients"), broken)
    assert "No run without gradients has an answer" in words
    assert not any(
        verb in words for verb in ("Gradients through", "Differentiable", "with them", "no difference")
    )


def test_over_budgets_it_is_said_who_won_under_which() -> None:
    quick = results(made("lbfgs", 2 * HARD, family="gradients"), made("cmaes", HARD), budget=100)
    long = results(made("lbfgs", HARD, family="gradients"), made("cmaes", 2 * HARD), budget=9000)

    def told(*rounds: Results) -> str:
        return str(verdict([(each, summarise(each)) for each in rounds]))

    words = told(quick, long)
    assert words.startswith(
        "Who is best depends on the budget: cmaes with 100 simulated steps; lbfgs with 9,000 simulated steps"
    )
    assert "Differentiable physics lost over all strategies with 100 simulated steps." in words
    assert told(long, long).startswith("lbfgs is best under both budgets")
    level = results(made("lbfgs", HARD, family="gradients"), made("cmaes", HARD), budget=500)
    assert told(level, long).startswith(
        "lbfgs is in the first place under both budgets: beside cmaes with 500 simulated steps; "
        "alone with 9,000 simulated steps"
    )
    assert "Under no budget did differentiable physics lose" in told(long, long)
    assert told(quick) == str(finding.finding(quick, summarise(quick)))


def test_what_the_headline_of_a_budget_takes_back_that_of_all_does_too() -> None:
    def of(
        budget: int, error: float, *, trials: int = 0, factor: float = 1.0
    ) -> tuple[Results, list[Summary]]:
        tuned = {"trials": trials, "simulated_steps": 9, "drawn": True, "folder": None} if trials else None
        runs = [
            *(made("a", factor * HARD, seed=seed, decision=NETWORK) for seed in range(2)),
            *(made("b", 2 * HARD, seed=seed, decision=NETWORK, tuned=tuned) for seed in range(2)),
        ]
        errors = {"coarse solver": (COARSE, 0.4), "a": (ANSWER, error), "b": (ANSWER, 0.5)}
        examinees = tuple(
            Examinee(label, role, {"test": (Rolled((0.0, *[each] * 10), ()),)})
            for label, (role, each) in errors.items()
        )
        marks = Marks("some", (5, 10), 5, 100, {"test": Group(1, 10)}, examinees, None)
        found = dataclasses.replace(results(*runs, budget=budget), marks=marks)
        return found, summarise(found)

    def headline(*rounds: tuple[Results, list[Summary]]) -> str:
        return verdict(rounds).headline

    lost = ", but none of the strategies beats the coarse solver over 10 steps"
    best = "a is best under both budgets"
    assert headline(of(100, 0.1), of(900, 0.1)) == best
    assert headline(of(100, 0.5), of(900, 0.5)) == best + lost
    assert headline(of(100, 0.5), of(900, 0.1)) == f"{best}{lost} (with 100 simulated steps)"
    unequal = headline(of(100, 0.5, trials=3), of(900, 0.1, trials=3))
    assert unequal == f"{best}{lost} (with 100 simulated steps), with unequal tuning"
    assert headline(of(100, 0.5, factor=9), of(900, 0.1)) == (
        f"Who is best depends on the budget: b with 100 simulated steps{lost}; a with 900 simulated steps"
    )
