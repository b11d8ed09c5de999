"""Who is said to have won: ties, gaps, bars, limits, from losses whose answer is known."""

import dataclasses
import re
from typing import Any

import numpy as np
import pytest

from dpcontrol.comparison import ranking
from dpcontrol.comparison.figures import merits
from dpcontrol.comparison.finding import Finding, caption, finding
from dpcontrol.comparison.ranking import standing
from dpcontrol.comparison.records import Results, Run, without_solution
from dpcontrol.comparison.summary import summarise, text_table
from dpcontrol.comparison.words import amount

BUDGET = 1_000_000
HARD = np.random.default_rng(0).lognormal(0.0, 1.0, 100)  # a hundred scenarios, some much harder than others
NOISE = np.random.default_rng(1).standard_normal(100)


def run(label: str, losses: Any, status: str = "budget spent", steps: int = BUDGET, seed: int = 0) -> Run:
    empty = without_solution(label, seed, "p", status, "it ended.")
    if losses is None:
        return empty
    losses = np.asarray(losses, float)
    counts = {"simulated_steps": steps, "gradients": 0}
    content = {"loss": float(losses.mean()), "losses": losses.tolist(), "counts": counts, "seconds": 1.0}
    return dataclasses.replace(empty, record={**empty.record, **content})


def results(*runs: Run, budget: int | None = BUDGET, laws: tuple[str, ...] = ()) -> Results:
    limits = {"seconds": None, "simulated_steps": budget, "gradients": None, "target_loss": None}
    return Results("p", runs, laws, {}, {"budget": limits, "scenarios": 100, "horizon": 5}, "", {})


def said(*runs: Run, **options: Any) -> Finding:
    made = results(*runs, **options)
    return finding(made, summarise(made))


# -- the first place -------------------------------------------------------------------------------------------------


def test_a_difference_that_is_certain_but_irrelevant_is_a_tie() -> None:
    found = said(run("a", HARD, steps=900), run("b", 1.0008 * HARD * (1 + 0.001 * NOISE), steps=300_000))
    assert found.headline.startswith("a and b share the first place")
    assert re.search(r"b 0\.\d+ % more loss \[0\.\d+, 0\.\d+\], practically the same", str(found))
    assert "a was cheapest: 900 simulated steps against 300 k (b)" in str(found)


def test_a_difference_that_is_relevant_and_certain_is_behind() -> None:
    found = said(run("a", HARD), run("b", 1.07 * HARD * (1 + 0.05 * NOISE)))
    assert found.headline.startswith("a is best")
    assert re.search(r"Behind a, paired .*: b [678]\.?\d* % more loss \[\d", str(found))
    assert "cheapest" not in str(found) and "overlap" not in str(found)


def test_the_first_place_is_one_contiguous_group() -> None:
    # c ranks last of three and cannot be told apart, so b between them shares the place, whose gap is clear
    between, wide = 1.02 * HARD * (1 + 0.01 * NOISE), 1.03 * HARD + 0.5 * NOISE
    wide = wide * (1.03 * HARD.mean() / wide.mean())
    made = results(run("a", HARD), run("b", between), run("c", wide), run("d", 3.5 * HARD))
    found = standing(summarise(made))
    assert found is not None
    assert [(each.summary.label, each.verdict) for each in found.sharing] == [
        ("b", ranking.CLEAR),
        ("c", ranking.OPEN),
    ]
    assert [each.summary.label for each in found.behind] == ["d"]
    words = said(*made.runs)
    assert words.headline.startswith("a, b and c share the first place")
    assert "a clear gap, but ranked before one that is not to be told apart" in str(words)
    assert "Behind a, paired on the same scenarios: d 3.5 times the loss" in str(words)


@pytest.mark.parametrize("factor", [1.0001, 1.003, 1.0049, 1.0051, 1.02, 1.2])
def test_a_lower_loss_never_stands_behind_a_higher_one_that_shares_the_place(factor: float) -> None:
    generator = np.random.default_rng(5)
    others = [run(f"s{k}", factor**k * HARD + 0.05 * k * generator.standard_normal(100)) for k in range(1, 5)]
    ranked = summarise(results(run("s0", HARD), *others))
    found = standing(ranked)
    assert found is not None
    assert [s.label for s in ranked] == [s.label for s in found.first] + [
        g.summary.label for g in found.behind
    ]


def test_equal_to_rounding_is_a_tie_and_a_stalled_answer_counts() -> None:
    found = said(
        run("lbfgs", [13.3], "converged", 500), run("newton", [13.3 * (1 + 1e-15)], "stalled", 21_000)
    )
    assert found.headline == "lbfgs and newton share the first place: loss 13.3"
    assert "lbfgs and newton reached the lowest mean loss, equal to rounding" in str(found)
    assert "newton stalled, with 2.1 % of the budget spent" in str(found) and "Its answer counts." in str(
        found
    )
    for wrong in ("failed", "Behind", "more loss"):
        assert wrong not in str(found)


def test_without_intervals_only_irrelevant_differences_are_ties() -> None:
    assert said(run("a", [1.0]), run("b", [1.004])).headline.startswith("a and b share")
    found = said(run("a", [1.0]), run("b", [1.006]))
    assert found.headline.startswith("a is best")
    assert "on the same scenarios, too few for intervals: b 0.6 % more loss (loss 1.01)" in str(found)


def test_differences_below_what_anybody_can_see_have_no_digits() -> None:
    assert "b less than 0.001 % above in loss, practically the same" in str(
        said(run("a", HARD), run("b", HARD + 1e-7 * abs(NOISE)))
    )


def test_luckier_runs_of_a_strategy_with_failures_do_not_win() -> None:
    found = said(run("a", HARD), run("b", 0.8 * HARD), run("b", None, "failed", seed=1))
    assert found.headline.startswith("a is best")
    assert re.search(r"b 20 % less loss \[.*\], not every run of it has an answer", str(found))
    assert "1 of 2 runs of b failed; its figures are of the 1 with an answer." in str(found)


# -- laws ------------------------------------------------------------------------------------------------------------


def test_the_bar_is_compared_on_the_same_scenarios() -> None:
    law = run("baseline: push", 2 * HARD, "scored")
    open_one = run("b", 1.95 * HARD + 0.6 * np.random.default_rng(8).standard_normal(100))
    found = str(said(run("a", HARD), open_one, run("c", 3 * HARD), law, laws=("baseline: push",)))
    assert "The bar is push, a simple law" in found
    assert "a beats it; b cannot be told apart from it; c does not reach it." in found


def test_a_law_in_the_first_place_is_named() -> None:
    law = run("baseline: optimum", HARD, "scored")
    found = said(run("a", HARD), run("b", 2 * HARD), law, laws=("baseline: optimum",))
    assert found.headline.startswith("No strategy clearly beats the simple law optimum; a shares its place")
    assert "The bar is" not in str(found)
    alone = said(run("b", 2 * HARD), law, laws=("baseline: optimum",))
    assert alone.headline.startswith("No strategy beats the simple law: optimum")


# -- what the numbers are --------------------------------------------------------------------------------------------


def captioned(*runs: Run) -> str:
    made = results(*runs)
    return caption(made, summarise(made))


def test_two_seeds_are_said_to_bound_an_interval_only_where_no_scenarios_are_resampled() -> None:
    bound = "Of two seeds it is no more than the lowest and the highest."
    assert bound not in captioned(run("a", HARD), run("a", 1.01 * HARD, seed=1))
    assert bound in captioned(run("a", [1.0, 2.0]), run("a", [2.0, 3.0], seed=1))


# -- how runs ended --------------------------------------------------------------------------------------------------


def test_who_stopped_before_the_budget_by_a_limit_of_its_own_is_said() -> None:
    early = run("adjoint", 1.1 * HARD, "iterations spent", 490_000)
    assert "adjoint stopped at its own limit of iterations with 49 % of the budget spent" in str(
        said(run("a", HARD), early)
    )
    late = run("adjoint", 1.1 * HARD, "iterations spent", 999_000)
    assert "own limit" not in str(said(run("a", HARD), late))
    assert "own limit of iterations: more" in str(said(run("a", HARD), early, budget=None))


def test_an_interrupted_comparison_has_no_winner() -> None:
    runs = (
        run("a", HARD),
        run("b", HARD, "interrupted", 10),
        run("c", None, "not run"),
        run("d", None, "not run"),
    )
    found = said(*runs)
    assert found.headline == f"Incomplete comparison: a leads so far, loss {HARD.mean():.3g}"
    assert "(1 run ended early, 2 not run), so budgets are not equal" in str(found)
    assert "b the same loss" in str(found)
    made = results(*runs)
    everything = str(found) + caption(made, summarise(made))
    for wrong in (
        "is best",
        "share the first place",
        "for every run (",
        "had the same budget",
        "cheapest",
        "first place",
    ):
        assert wrong not in everything
    nothing = said(run("a", None, "not run"))
    assert nothing.headline == "Incomplete comparison: no run has an answer so far."


def test_amounts_are_written_in_one_way() -> None:
    values = (0, 800, 3200, 9_999, 10_000, 396_800, 999_949, 999_999, 6_400_000, 6_377_600, 2.5e9)
    assert [amount(value) for value in values] == [
        "0", "800", "3,200", "9,999", "10 k", "397 k", "1 M", "1 M", "6.4 M", "6.38 M", "2.5 G",
    ]  # fmt: skip
    made = results(run("a", HARD))
    assert "with 1 M simulated steps for every run" in str(finding(made, summarise(made)))


def test_one_of_a_unit_is_singular() -> None:
    made = results(run("a", HARD), budget=1)
    assert made.budget == "1 simulated step"
    limits = {"seconds": 1.0, "simulated_steps": 2, "gradients": 1, "target_loss": 0.5}
    words = dataclasses.replace(made, asked={**made.asked, "budget": limits}).budget
    assert words == "1 second or 2 simulated steps or 1 gradient or 0.5 as target loss"


def test_no_axis_is_drawn_for_figures_that_agree_to_rounding() -> None:
    def drawn(*losses: float) -> object:
        made = results(*(run(name, [loss]) for name, loss in zip("abc", losses, strict=True)))
        return merits(made, summarise(made))

    assert drawn(12.775, 12.775 * (1 + 1e-9), 12.775) is None
    assert drawn(12.775, 12.8, 12.775) is not None


def test_samplers_that_a_small_budget_left_without_draws_do_not_win_by_their_start() -> None:
    silent = run("nuts", [3.0], steps=2000)
    silent = dataclasses.replace(silent, record={**silent.record, "seeks_posterior": True})
    found = said(silent, run("lbfgs", [4.0]))
    assert (
        found.headline == "No strategy left draws of the posterior: the budget is too small for any of them"
    )
    assert "nuts left no draws: it ended. So 2,000 simulated steps do not pay" in str(found)
    assert "(20 k) may leave some" in str(found) and "lbfgs gives a single point" in str(found)
    assert "is best" not in str(found)


def test_who_cannot_pay_for_a_first_question_is_scored_where_it_starts() -> None:
    found = said(run("a", HARD), run("b", 2 * HARD, steps=0))
    assert "b has not run a single step: its first question costs more than the budget" in str(found)
    assert "single step" not in str(said(run("a", HARD), run("b", 2 * HARD)))


def test_a_controller_that_never_got_better_is_said_to_be_scored_where_it_starts() -> None:
    def trained(label: str, *losses: float) -> Run:
        columns = {name: [1.0] * len(losses) for name in ("simulated_steps", "gradients", "seconds")}
        columns["loss"] = list(losses)
        decision = {"kind": "network", "seconds": 1e-4}
        return dataclasses.replace(run(label, HARD), history=columns, decision=decision)

    found = str(said(trained("policy", 1.0, 1.0), trained("ppo", 1.0, 1.0, 0.9), run("lbfgs", HARD)))
    assert "policy never got beyond where it starts" in found and "ppo never" not in found


def test_unequal_tuning_is_said_before_anything_else() -> None:
    def learned(label: str, factor: float, trials: int) -> Run:
        made = run(label, factor * HARD)
        tuned = {"trials": trials, "simulated_steps": 1000, "drawn": True, "folder": None} if trials else None
        return dataclasses.replace(
            made, decision={"kind": "network", "seconds": 1e-4}, record={**made.record, "tuned": tuned}
        )

    found = said(learned("policy", 1, 3), learned("ppo", 5, 0), run("lbfgs", 2 * HARD))
    assert found.headline.endswith(", with unequal tuning")
    assert found.sentences[0].startswith("Tuning was not equal, policy had 3 trials and ppo had none")
    for trials in (0, 3):
        found = said(learned("policy", 1, trials), learned("ppo", 5, trials), run("lbfgs", 2 * HARD))
        assert "not equal" not in str(found) and "unequal" not in str(found)


def told(label: str, losses: Any, sentence: str, status: str = "budget spent") -> Run:
    made = run(label, losses, status)
    return dataclasses.replace(made, record={**made.record, "sentence": sentence})


def test_controllers_that_were_trained_on_the_judged_scenes_have_a_reservation() -> None:
    remark = "budget spent; trained and validated on the very scenarios that it is judged on."
    found = str(said(told("policy", HARD, remark), told("ppo", 2 * HARD, remark), run("lbfgs", 3 * HARD)))
    assert "policy and ppo were trained, validated and judged on the same scenes" in found
    assert "nothing here says what they do in a new scene, nor that training pays there" in found
    assert "on the same scenes, as" not in str(said(run("policy", HARD), run("lbfgs", 3 * HARD)))


def test_plans_that_knew_the_noise_are_bounds_and_no_rivals() -> None:
    solved = run("lbfgs", HARD)
    solved = dataclasses.replace(solved, decision={"kind": "solved", "seconds": 1.0})
    made = results(solved, run("policy", 2 * HARD))
    assert "very noise" not in str(finding(made, summarise(made)))
    noisy = dataclasses.replace(made, asked={**made.asked, "noise": True})
    found = str(finding(noisy, summarise(noisy)))
    assert (
        "lbfgs planned with the very noise that it is judged on, which nobody knows beforehand: its loss"
        in found
    )


def test_decisions_that_were_not_paid_for_are_told() -> None:
    begun = "30 decisions by LBFGS for 30 steps"
    kept = "of which could not pay for an evaluation and kept the plan before"
    mpc = told("mpc", HARD, f"{begun}, 21 {kept}.", "scored")
    assert "mpc could not pay for 21 of its 30 decisions and kept the plan before" in str(said(mpc))
    bad = f"{begun}, 2 of which saw no finite loss in some scenario and kept the plan before there, 5 {kept}."
    assert "mpc could not pay for 5 of its 30 decisions" in str(said(told("mpc", HARD, bad, "scored")))
    other = dataclasses.replace(told("mpc", HARD, f"{begun}, 4 {kept}.", "scored"), seed=1)
    assert "mpc could, in the worst of its runs, not pay for 21 of its 30" in str(said(mpc, other))
    ended = (
        "9 decisions by LBFGS for 30 steps; planning ended in step 8 (budget spent), and the rest was played."
    )
    assert "mpc planned no further than step 8 of 30" in str(said(told("mpc", HARD, ended)))
    assert "pay for" not in str(said(told("mpc", HARD, f"{begun}.", "scored")))


def test_a_law_that_the_budget_cannot_pay_has_no_answer() -> None:
    law = run("baseline: damp", HARD, steps=0)
    law = dataclasses.replace(law, record={**law.record, "family": "law"})
    made = results(law, run("lbfgs", HARD, steps=0), laws=("baseline: damp",))
    found = finding(made, summarise(made))
    assert found.headline.startswith("lbfgs is best") and found.headline.endswith(", without a single step")
    assert "The simple law damp did not play: its rollout costs more than the budget" in str(found)
    assert "lbfgs has not run a single step" in str(found)
    assert "failed" not in str(found) and "No strategy" not in str(found)
    assert "not played: too dear" in text_table(made, summarise(made))
    assert (
        finding(results(law, laws=("baseline: damp",)), summarise(results(law))).headline
        == "No run has an answer."
    )


def chancy(label: str, losses: Any, seed: int = 0) -> Run:
    made = run(label, losses, seed=seed)
    return dataclasses.replace(made, record={**made.record, "stochastic": True})


def test_a_verdict_of_one_seed_says_that_it_is_one() -> None:
    once = (chancy("policy", HARD), chancy("ppo", 2 * HARD), run("lbfgs", 3 * HARD))
    found = said(*once)
    assert found.headline.startswith("policy is best: ") and found.headline.endswith(", with one seed")
    assert "policy and ppo ran with one seed each: what another seed would give is in no interval" in str(
        found
    )
    assert "for what ran once, of policy and ppo with a single seed, whose luck is not in them" in captioned(
        *once
    )
    assert "without chance" not in captioned(*once)
    behind = said(run("lbfgs", HARD), chancy("ppo", 2 * HARD))
    assert "with one seed" not in behind.headline and "ppo ran with one seed: what" in str(behind)
    twice = (chancy("policy", HARD), chancy("policy", HARD, 1), run("lbfgs", 3 * HARD))
    assert "one seed" not in str(said(*twice))
    assert "for strategies without chance, which ran once" in captioned(*twice)
