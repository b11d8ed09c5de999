"""The command line on real problems: what it prints, where it stores, how it ends."""

import json
import subprocess
import sys

import pytest

from dpcontrol.cli import main

KEYS = {"problem", "strategy", "seed", "loss", "losses", "status", "seconds", "counts", "metrics", "folder"}
SMALL = ["--size", "small", "--quiet"]


@pytest.fixture
def outside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_list_names_problems_and_strategies(capsys):
    assert main(["list"]) == 0
    shown = capsys.readouterr().out
    for name in (
        "burgers",
        "pendulum_swingup",
        "catalyst_mixing",
        "lbfgs",
        "newton_krylov",
        "cmaes",
        "baseline",
    ):
        assert f"  {name} " in shown
    rows = [line[2:] for line in shown.splitlines() if line.startswith("  ")]
    width = max(len(row.split()[0]) for row in rows) + 2
    assert all(row[width - 2 : width] == "  " and row[width] != " " for row in rows)


def test_solve_prints_one_record_and_stores_the_rest(capsys, outside):
    asked = [
        "solve",
        "burgers",
        *SMALL,
        "--strategy",
        "adjoint",
        "--set",
        "iterations=5",
        "--json",
        "--seed",
        "3",
    ]
    assert main(asked) == 0
    record = json.loads(capsys.readouterr().out)
    assert set(record) >= KEYS and record["strategy"] == "adjoint" and record["seed"] == 3
    assert (
        record["counts"] == {"simulated_steps": 8 * 64 * 5, "gradients": 8 * 5} and len(record["losses"]) == 8
    )
    assert {"effort_ratio", "force_ratio"} <= set(record["metrics"])
    for name in ("run.json", "solution.safetensors", "solution.png", "states_and_forces.png"):
        assert (outside / record["folder"] / name).stat().st_size > 0
    assert main(asked) == 0  # a second run goes to a folder of its own
    assert json.loads(capsys.readouterr().out)["folder"] != record["folder"]


def test_a_problem_without_gradient_names_its_own_strategy(capsys, outside):
    assert main(["solve", "fed_batch_reactor", *SMALL, "--json", "--simulated-steps", "200"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["strategy"] == "cmaes" and record["folder"].endswith("fed_batch_reactor-cmaes-1")


@pytest.mark.parametrize(
    "asked",
    [
        ["solve", "fed_batch_reactor", "--strategy", "lbfgs"],
        ["solve", "linear_quadratic", "--set", "iterations=-5", "--output", "a/b"],
        ["compare", "linear_quadratic", "--strategies", "lbfgs,foo"],
    ],
)
def test_a_refused_run_leaves_no_folder(asked, capsys, outside):
    assert main([*asked, *SMALL]) == 2
    assert list(outside.iterdir()) == []
    (outside / "mine").mkdir()
    assert main([*asked, *SMALL, "--output", "mine"]) == 2
    assert list(outside.iterdir()) == [outside / "mine"] and list((outside / "mine").iterdir()) == []


def test_a_budget_and_a_problem_seed_reach_the_run(capsys, outside):
    asked = ["solve", "linear_quadratic", *SMALL, "--json", "--simulated-steps", "500", "--problem-seed", "2"]
    assert main([*asked, "--output", "run with spaces"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["counts"]["simulated_steps"] <= 500 and record["budget"]["simulated_steps"] == 500
    assert json.loads((outside / "run with spaces" / "run.json").read_text())["problem_seed"] == 2


def test_compare_prints_records_and_writes_a_report_that_can_be_made_again(capsys, outside):
    asked = ["compare", "burgers", *SMALL, "--strategies", "baseline,lbfgs,cem", "--seeds", "2", "--json"]
    assert main([*asked, "--simulated-steps", "20000", "--output", "out", "--workers", "0"]) == 0
    records = json.loads(capsys.readouterr().out)
    assert isinstance(records, list) and all(set(record) >= KEYS for record in records)
    labels = [record["strategy"] for record in records]
    assert len(records) == 5 and sum("cem" in label for label in labels) == 2
    assert all(record["counts"]["simulated_steps"] <= 20000 for record in records)
    report = outside / "out" / "report.html"
    assert report.stat().st_size > 100_000
    report.unlink()
    assert main(["report", "out"]) == 0
    shown = capsys.readouterr().out
    assert report.exists() and "effort_ratio" in shown and "look ahead" in shown


def test_two_limits_are_two_budgets_and_what_was_tuned_is_compared_and_resumed(capsys, outside):
    tuning = ["tune", "linear_quadratic", *SMALL, "--strategy", "adjoint", "--trials", "2", "--workers", "0"]
    tuning += ["--simulated-steps", "4000", "--space", "learning_rate=0.01:0.5", "--output", "tuned"]
    assert main([*tuning, "--json"]) == 0
    tuned = json.loads(capsys.readouterr().out)
    assert tuned["trials"] == 2 and len(tuned["tried"]) == 2 and (outside / "tuned" / "tuning.json").is_file()
    assert main(tuning) == 0  # trials that are there are not run again
    assert "compare takes it with --tuned tuned" in capsys.readouterr().out
    asked = [
        "compare",
        "linear_quadratic",
        *SMALL,
        "--strategies",
        "lbfgs,adjoint",
        "--tuned",
        "tuned",
        "--workers",
        "0",
    ]
    assert main([*asked, "--simulated-steps", "4000", "--gradients", "50", "--output", "two", "--json"]) == 0
    records = json.loads(capsys.readouterr().out)
    # the simple law is in the table though nobody named it
    assert [record["strategy"] for record in records] == ["lbfgs", "adjoint", "baseline: LQR feedback"] * 2
    assert [record["budget"]["gradients"] for record in records] == [None] * 3 + [50] * 3
    assert [record["tuned"] and record["tuned"]["trials"] for record in records] == [None, 2, None] * 2
    report = (outside / "two" / "report.html").read_text()
    assert "--tuned tuned" in report and "--simulated-steps 4000 --gradients 50" in report
    assert main(["resume", "two", "--json", "--quiet", "--workers", "0"]) == 0
    assert json.loads(capsys.readouterr().out) == records
    assert main(["resume", "tuned"]) == 2 and "--output tuned" in capsys.readouterr().err
    assert main(["compare", "linear_quadratic", *SMALL, "--tuned", "two"]) == 2
    assert "holds no tuning" in capsys.readouterr().err


def test_check_ends_with_its_verdict(capsys, outside):
    assert main(["check", "burgers", "--size", "small"]) == 0
    assert "the gradient is right" in capsys.readouterr().out
    assert main(["check", "linear_quadratic", "--size", "small", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["passed"] is True
    assert main(["check", "burgers", *SMALL]) == 0
    assert capsys.readouterr().out == ""


BELIEVED = """'''What pushes it?'''
import torch
import dpcontrol as dp
def pushed(x, u, *, parameters):
    return x + parameters["push"].sqrt()
def problem(*, size="full", seed=0):
    return dp.inference_problem(pushed, data=torch.ones(3, 1, 1).double(), initial_state=torch.ones(1, 1).double(),
        observation=dp.observe(noise=dp.Gaussian(0.5)), horizon=2, name="believed",
        prior={"push": torch.distributions.Normal(*torch.tensor([0.5, 1.0]).double())})
"""


def test_check_stresses_the_prior(capsys, outside):
    (outside / "believed.py").write_text(BELIEVED)
    assert main(["check", "believed.py", "--draws", "40"]) == 1
    shown = capsys.readouterr().out
    assert "the gradient is right" in shown and "where push is small" in shown
    assert main(["check", "believed.py", "--draws", "0"]) == 0
    assert "Stress test" not in capsys.readouterr().out
    assert main(["check", "believed.py", "--draws", "20", "--json"]) == 1
    record = json.loads(capsys.readouterr().out)
    assert record["stress"]["passed"] is False and record["stress"]["failures"]


def test_calibrate_keeps_its_simulations_and_is_resumed(capsys, outside):
    (outside / "believed.py").write_text(BELIEVED)
    chains = [x for pair in ("chains=1", "draws=70", "warmup=30", "start=prior") for x in ("--set", pair)]
    asked = ["calibrate", "believed.py", "--strategy", "metropolis", "--simulations", "2", *chains]
    # two are too few to judge by
    assert main([*asked, "--workers", "0", "--quiet", "--output", "out"]) == 1
    assert "too few to judge by" in capsys.readouterr().out
    for name in ("calibration.json", "simulations/00000.json", "rank_differences.png", "rank_histograms.png"):
        assert (outside / "out" / name).stat().st_size > 0
    first = json.loads((outside / "out" / "simulations" / "00001.json").read_text())
    (outside / "out" / "simulations" / "00001.json").unlink()
    assert main(["resume", "out", "--workers", "0", "--json"]) == 1
    again = json.loads((outside / "out" / "simulations" / "00001.json").read_text())
    assert again["ranks"] == first["ranks"]
    assert json.loads(capsys.readouterr().out)["wanted"] == 2


def test_a_failed_run_has_its_exit_code(capsys, outside):
    (outside / "failing.py").write_text(
        '"""It always blows up."""\n'
        "import torch\n"
        "import dpcontrol as dp\n"
        "def problem(*, size='full', seed=0):\n"
        "    return dp.control_problem(lambda x, u: 1e200 * x + u, initial_state=torch.ones(1, 1).double(),\n"
        "        horizon=3, objective=dp.reach(torch.zeros(1)), control=dp.ControlSequence(1))\n"
    )
    assert main(["solve", "failing.py", "--quiet"]) == 1
    assert "not finite from step 2 in scenario 0" in capsys.readouterr().out


def test_python_dash_m_is_the_same_program(outside):
    found = subprocess.run(
        [sys.executable, "-m", "dpcontrol", "list"], capture_output=True, text=True, check=True
    )
    assert "burgers" in found.stdout and found.stderr == ""
