"""tune(): equal numbers of trials, on scenes that nobody is judged on, every run kept."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from dpcontrol.comparison import TUNABLE, Choice, Comparison, Range, Tuned, compare, given_again, tune
from dpcontrol.comparison.tunable import points, space_for, spaces_of_words
from dpcontrol.meter import Budget
from dpcontrol.problem import ControlSequence, Problem, Scenarios, control_problem, effort, reach
from dpcontrol.results import UsageError
from dpcontrol.strategies.names import named, resolve

BUDGET = Budget(simulated_steps=3000)


def pushed(drawn: bool = True) -> Problem:
    """x' = x + 0.1 u to the origin, from starts that are drawn."""

    def draw(generator: torch.Generator, count: int) -> dict[str, torch.Tensor]:
        return {"initial_state": 1 + torch.rand(count, 2, generator=generator, dtype=torch.float64)}

    scenes = draw(torch.Generator().manual_seed(0), 6)
    return control_problem(
        lambda state, control: state + 0.1 * control,
        initial_state=scenes["initial_state"],
        horizon=5,
        objective=reach(torch.zeros(2, dtype=torch.float64)) + 0.01 * effort(),
        control=ControlSequence(2),
        scenarios=Scenarios({}, sampler=draw) if drawn else None,
        name="pushed",
    )


def tuned(folder: Path | None = None, problem: Problem | None = None, **options: Any) -> Tuned:
    settings: dict[str, Any] = {"trials": 5, "budget": BUDGET, "workers": 0, "progress": False}
    return tune(problem or pushed(), "adjoint", folder=folder, **{**settings, **options})


# -- spaces ----------------------------------------------------------------------------------------------------------


def test_ranges_and_choices_reach_from_end_to_end() -> None:
    assert [Range(1e-4, 1.0).at(share) for share in (0.0, 0.5, 1.0)] == [1e-4, 1e-2, 1.0]
    assert [Range(-1, 3, log=False).at(share) for share in (0.0, 0.25, 1.0)] == [-1.0, 0.0, 3.0]
    assert Range(5, 50, whole=True).at(0.5) == 16
    assert [Choice(("a", "b", "c")).at(share) for share in (0.0, 0.34, 0.999, 1.0)] == ["a", "b", "c", "c"]


def test_points_fill_the_space_evenly_and_are_the_same_for_everybody() -> None:
    space = {"learning_rate": Range(1e-3, 1.0), "schedule": Choice((None, "cosine"))}
    found = points(space, 16, 0)
    assert found == points(space, 16, 0) != points(space, 16, 1)
    decades = [int(-torch.tensor(each["learning_rate"]).log10().floor()) for each in found]
    assert {decades.count(k) for k in (1, 2, 3)} <= {5, 6}  # a Sobol sequence is balanced
    assert sum(each["schedule"] is None for each in found) == 8


def test_every_range_of_the_table_is_accepted_by_its_strategy() -> None:
    strategies = named()
    for name, table in TUNABLE.items():
        if name not in strategies:
            continue
        space = space_for(name, strategies[name], None)
        assert set(space) == set(table), f"{name} has no option {set(table) - set(space)}"
        for point in points(space, 32, 0):
            resolve(name, point)


@pytest.mark.parametrize(
    ("words", "space"),
    [
        (["learning_rate=1e-4:1e-2"], {"learning_rate": (1e-4, 1e-2)}),
        (["batch=16,32", "inner=lbfgs, cem"], {"batch": [16, 32], "inner": ["lbfgs", "cem"]}),
        ([], None),
    ],
)
def test_spaces_are_said_in_words(words: list[str], space: Any) -> None:
    from dpcontrol.cli.options import literal

    assert spaces_of_words(words, literal) == space


@pytest.mark.parametrize("wrong", ["learning_rate", "=1:2", "a=1:2:3", "a=", "a=x:2"])
def test_wrong_words_are_one_sentence(wrong: str) -> None:
    from dpcontrol.cli.options import literal

    with pytest.raises(UsageError, match="--space"):
        spaces_of_words([wrong], literal)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"trials": 0}, "trials must be a whole number"),
        ({"seeds": 0}, "seeds must be a whole number"),
        ({"budget": None}, "tune needs a budget"),
        ({"space": {"learning_rat": (1e-3, 1)}}, "no option 'learning_rat'; did you mean learning_rate"),
        ({"space": {"learning_rate": (1, 1e-3)}}, "the lower one first"),
        ({"space": {"learning_rate": 0.1}}, "a pair (low, high), a list of values"),
        ({"space": {}}, "must map fields to ranges"),
        ({"space": {"learning_rate": []}}, "a pair (low, high)"),
        ({"space": {"learning_rate": (-2.0, 0.5)}}, "learning_rate"),  # found out before any work
        ({"learning_rat": 0.1}, "no option"),
    ],
)
def test_a_wrong_call_is_one_sentence_before_any_work(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=re.escape(said)):
        tuned(**options)


def test_strategies_without_known_ranges_ask_for_some() -> None:
    @dataclass(frozen=True)
    class Own:
        rate: float = 1.0

    with pytest.raises(UsageError, match="no ranges are known for own; give some.*rate"):
        space_for("own", Own(), None)  # type: ignore[arg-type]


# -- trials ----------------------------------------------------------------------------------------------------------


def test_the_best_trial_is_found_the_defaults_are_the_first_and_every_run_is_kept(tmp_path: Path) -> None:
    folder = tmp_path / "t"
    found = tuned(folder, space={"learning_rate": (1e-6, 1e-1)})
    assert found.trials == 5 and found.seeds == 1 and len(found.tried) == 5
    assert found.tried[0].options == {}
    assert found.losses == (min(trial.loss for trial in found.tried), found.tried[0].loss)
    files = sorted((folder / "trials").iterdir())
    assert len(files) == 5
    record = json.loads(files[3].read_text())
    assert record["options"] == found.tried[3].options and record["loss"] == found.tried[3].loss
    assert record["history"]["loss"] and record["status"] == "budget spent"
    assert found.seconds == sum(json.loads(file.read_text())["seconds"] for file in files)
    assert found.simulated_steps == sum(
        json.loads(file.read_text())["counts"]["simulated_steps"] for file in files
    )
    assert Tuned.load(folder) == found


def test_the_tuning_scenes_are_not_the_judged_ones() -> None:
    problem = pushed()
    found = tuned(problem=problem, trials=1)
    judged = compare(problem, ["adjoint"], budget=BUDGET, workers=0, progress=False).records[0]["losses"]
    assert found.drawn and not set(found.tried[0].records[0]["losses"]) & set(judged)
    fixed = tuned(problem=pushed(drawn=False), trials=1)
    assert not fixed.drawn and "The tuning scenes are the judged ones" in str(fixed)


def test_an_interrupted_tuning_goes_on_with_the_trials_that_are_there(tmp_path: Path) -> None:
    whole = tuned(tmp_path / "whole")
    tuned(tmp_path / "part")
    gone = tmp_path / "part" / "trials" / "004-seed-0.json"
    stays = tmp_path / "part" / "trials" / "001-seed-0.json"
    before = stays.stat().st_mtime_ns
    gone.unlink()
    assert Tuned.load(tmp_path / "part").trials == 4
    again = tuned(tmp_path / "part")
    assert [trial.loss for trial in again.tried] == [trial.loss for trial in whole.tried]
    assert stays.stat().st_mtime_ns == before and gone.is_file()
    with pytest.raises(UsageError, match="holds a tuning with budget"):
        tuned(tmp_path / "part", budget=Budget(simulated_steps=4000))


def test_a_trial_that_fails_is_counted_and_loses(monkeypatch: pytest.MonkeyPatch) -> None:
    from dpcontrol.strategies.minimising.first_order import Adjoint

    run = Adjoint.run

    def sometimes(self: Adjoint, meter: Any, generator: Any) -> Any:
        if self.learning_rate is None:
            raise ArithmeticError("no rate")
        return run(self, meter, generator)

    monkeypatch.setattr(Adjoint, "run", sometimes)
    found = tuned(trials=3)
    assert found.trials == 3 and found.losses[1] == float("inf") and found.losses[0] < 10
    assert "no rate" in found.tried[0].records[0]["sentence"]
    with pytest.raises(UsageError, match="no trial of adjoint gave an answer"):
        tuned(trials=1)


# -- in a comparison -------------------------------------------------------------------------------------------------


def test_compare_takes_tuned_options_and_its_report_counts_the_trials(tmp_path: Path) -> None:
    found = tuned(tmp_path / "t", space={"learning_rate": (1e-3, 1e-1)})
    folder = tmp_path / "c"
    comparison = compare(pushed(), [found, "lbfgs"], budget=BUDGET, folder=folder, workers=0, progress=False)
    best, other = (
        next(r for r in comparison.records if r["strategy"] == name) for name in ("adjoint", "lbfgs")
    )
    assert best["tuned"]["trials"] == 5 and other["tuned"] is None
    rate = found.options.get("learning_rate")
    assert rate is None or f"learning_rate={rate!r}" in best["configuration"]
    table = comparison.table()
    assert re.search(r"adjoint .* 5 \(\S+( k)? steps\)", table) and "not every strategy had as many" in table
    text = comparison.report().read_text()
    assert "tuned in 5 trials" in text and str(tmp_path / "t") in text
    again = given_again(Comparison.question(folder)["strategies"])
    assert again[0] == Tuned.load(tmp_path / "t") or again[0].record() == found.record()
    resumed = compare(pushed(), again, budget=BUDGET, folder=folder, workers=0, progress=False, resume=True)
    assert resumed.records == comparison.records


def test_what_is_fixed_is_not_searched(tmp_path: Path) -> None:
    found = tuned(tmp_path / "fixed", learning_rate=0.123)
    assert {trial.options["learning_rate"] for trial in found.tried} == {0.123}
    assert len({str(trial.options) for trial in found.tried}) > 1
    with pytest.raises(UsageError, match="learning_rate is fixed, learning_rate=0.1, and searched"):
        tuned(space={"learning_rate": (0.01, 1.0)}, learning_rate=0.1)
    with pytest.raises(UsageError, match="all that is tuned of adjoint is fixed"):
        tuned(learning_rate=0.1, schedule=None)
