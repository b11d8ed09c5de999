"""``dpcontrol trial`` on stored runs: who is played, what is stored, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dpcontrol.cli import main

SMALL = ["--size", "small", "--quiet", "--json"]


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plan, two trainings of a policy and one of another, and a run on another problem."""
    folder = tmp_path_factory.mktemp("runs")
    policy = ["solve", "transport_boundary", *SMALL, "--strategy", "policy", "--set", "batch=4"]
    fixed = ["--set", "validation=4", "--set", "width=8"]
    assert (
        main(["solve", "transport_boundary", *SMALL, "--gradients", "40", "--output", str(folder / "plan")])
        == 0
    )
    for name, seed, steps in (("one", "0", "2"), ("two", "1", "2"), ("three", "0", "3")):
        asked = [*policy, *fixed, "--set", f"iterations={steps}", "--seed", seed]
        assert main([*asked, "--output", str(folder / name)]) == 0
    assert main(["solve", "linear_quadratic", *SMALL, "--output", str(folder / "other")]) == 0
    return folder


def test_all_trials_that_fit_are_played(
    stored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["trial", str(stored / "plan"), str(stored / "one"), str(stored / "two"), "--seeds", "2"]
    assert main([*asked, "--output", str(tmp_path / "found"), "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    rows = {(row["controller"], row["trial"]): row for row in record["rows"]}
    assert {name for name, _ in rows} == {"lbfgs", "policy", "law: backstepping", "law: LQR feedback"}
    trials = {name for _, name in rows}
    assert {"nominal", "sensor noise 5 %", "recirculation × 1.1", "fresh scenes"} < trials
    assert rows["policy", "nominal"]["runs"] == 2 and rows["policy", "sensor noise 5 %"]["runs"] == 4
    assert rows["lbfgs", "fresh scenes"]["note"] == "a plan for other scenes"
    assert json.loads((tmp_path / "found" / "trials.json").read_text()) == record
    assert (tmp_path / "found" / "trials.png").stat().st_size > 10_000


def test_only_what_is_asked_for_is_played(stored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["trial", str(stored / "one"), str(stored / "three"), "--mistake", "recirculation=0.9"]
    assert (
        main([*asked, "--late", "2", "--noise", "0.1", "--lost", "0.2", "--pushes", "0.2", "--fresh", "3"])
        == 0
    )
    shown = capsys.readouterr().out
    for words in (
        "recirculation × 0.9",
        "commands 2 steps late",
        "sensor noise 10 %",
        "20 % of measurements lost",
    ):
        assert words in shown
    assert "pushes of 20 %" in shown and "fresh scenes" in shown
    # two trainings that differ are told apart
    assert "iterations=2" in shown and "iterations=3" in shown


def test_wrong_calls_are_one_sentence(stored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for asked, words in (
        ([str(stored)], "holds no finished run"),
        ([str(stored / "one"), str(stored / "other")], "try them one by one"),
        ([str(stored / "one"), "--mistake", "recirculation"], "NAME=FACTOR"),
        ([str(stored / "one"), "--mistake", "viscosity=2"], "has no parameter viscosity"),
    ):
        assert main(["trial", *asked]) == 2
        said = capsys.readouterr().err
        assert words in said and len(said.strip().splitlines()) == 1
