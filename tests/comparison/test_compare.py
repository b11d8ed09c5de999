"""compare(): what is run, listed, kept, resumed and said. Runs stay in this process unless workers are the point."""

import json
import os
import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from dpcontrol.comparison import Comparison, compare
from dpcontrol.comparison.matrix import round_names
from dpcontrol.comparison.planning import plan
from dpcontrol.meter import Budget, Meter
from dpcontrol.problem import ControlSequence, Problem, control_problem, effort, reach
from dpcontrol.results import Status, UsageError
from dpcontrol.run import Strategy
from dpcontrol.solution import Solution
from dpcontrol.strategies.minimising.first_order import Adjoint
from dpcontrol.strategies.minimising.quasi_newton import LBFGS

BUDGET = Budget(simulated_steps=2000)


@dataclass(frozen=True)
class RandomSearch(Strategy):
    """Normal steps around zero: stochastic, and poor."""

    @property
    def stochastic(self) -> bool:
        return True

    def run(self, meter: Meter, generator: torch.Generator) -> Status:
        while True:
            meter.values(
                torch.randn(meter.instances, meter.dimension, generator=generator, dtype=torch.float64)
            )


@dataclass(frozen=True)
class Broken(Strategy):
    """Raises."""

    def run(self, meter: Meter, generator: torch.Generator) -> Status:
        raise ArithmeticError("the step size is not a number")


@dataclass(frozen=True)
class Deadly(Strategy):
    """Takes its process down."""

    def run(self, meter: Meter, generator: torch.Generator) -> Status:
        os._exit(3)


@dataclass(frozen=True)
class Stopping(Strategy):
    """As if somebody pressed Ctrl-C after a few evaluations, unless told to go on."""

    marker: str = ""

    def run(self, meter: Meter, generator: torch.Generator) -> Status:
        for _ in range(3):
            meter.values_and_gradients(meter.start())
        if not Path(self.marker).exists():
            Path(self.marker).touch()
            signal.raise_signal(signal.SIGINT)
        meter.values_and_gradients(torch.full_like(meter.start(), -0.2))
        return Status("converged", "done.")


def pushed(bounded: bool = False) -> Problem:
    """x' = x + 0.1 u from six starts to the origin; the law that divides by the time left is a poor bar."""
    low, high = (-1.0, 1.0) if bounded else (None, None)
    return control_problem(
        lambda state, control: state + 0.1 * control,
        initial_state=torch.linspace(0.5, 2.0, 6, dtype=torch.float64)[:, None].expand(6, 2),
        horizon=5,
        objective=reach(torch.zeros(2, dtype=torch.float64)) + 0.01 * effort(),
        control=ControlSequence(2, low=low, high=high),
        baselines={"rush": lambda x, t, s: -8.0 * x, "amble": lambda x, t, s: -x},
        references={"rest": lambda x, t, s: 0.0 * x},
        metrics={
            "distance": lambda trajectory, s: (
                trajectory.states[-1].norm(dim=1),
                trajectory.states[0].norm(dim=1),
            )
        },
        plots={"one line": _one_line},
        name="pushed",
    )


def _one_line(figure: object, solutions: dict[str, Solution]) -> None:
    axes = figure.subplots()  # type: ignore[attr-defined]
    for label, solution in solutions.items():
        axes.plot(solution.trajectory().states[:, 0, 0], label=label)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Comparison, Path]]:
    folder = tmp_path_factory.mktemp("kept") / "comparison"
    strategies = {"baseline": "baseline", "lbfgs": "lbfgs", "random": RandomSearch(), "broken": Broken()}
    yield (
        compare(pushed(), strategies, seeds=2, budget=BUDGET, folder=folder, workers=0, progress=False),
        folder,
    )


# -- what is run ---------------------------------------------------------------------------------------------------


def test_deterministic_strategies_run_once_stochastic_ones_per_seed_laws_one_by_one() -> None:
    tasks = plan(pushed(), ["baseline", "lbfgs", RandomSearch()], seeds=3)
    assert [(task.label, task.seed) for task in tasks] == [
        ("baseline: rush", 0),
        ("baseline: amble", 0),
        ("lbfgs", 0),
        ("RandomSearch", 0),
        ("RandomSearch", 1),
        ("RandomSearch", 2),
    ]


@pytest.mark.parametrize(
    ("strategies", "seeds", "said"),
    [
        ([], 1, "list of one or more"),
        ("lbfgs", 1, "list of one or more"),
        (["lbfgz"], 1, "lbfgz"),
        (["lbfgs", LBFGS()], 1, "two strategies are called 'lbfgs'"),
        (["lbfgs"], 0, "seeds"),
        (["lbfgs"], [1, 1], "seeds"),
    ],
)
def test_a_wrong_call_is_one_sentence_before_any_work(strategies: list[str], seeds: int, said: str) -> None:
    with pytest.raises(UsageError, match=re.escape(said)):
        plan(pushed(), strategies, seeds)


def test_records_have_the_fixed_keys(kept: tuple[Comparison, Path]) -> None:
    comparison, folder = kept
    records = comparison.records
    keys = {
        "problem",
        "strategy",
        "seed",
        "loss",
        "losses",
        "status",
        "seconds",
        "counts",
        "metrics",
        "folder",
    }
    assert all(keys <= set(record) for record in records)
    assert [record["strategy"] for record in records] == [
        "baseline: rush", "baseline: amble", "lbfgs", "random", "random", "broken",
    ]  # fmt: skip
    best = next(record for record in records if record["strategy"] == "lbfgs")
    assert len(best["losses"]) == 6 and best["problem"] == "pushed"
    assert set(best["counts"]) == {"simulated_steps", "gradients"}
    assert best["metrics"]["distance"] < 0.2
    assert best["counts"]["simulated_steps"] <= 2000
    assert Solution.load(folder / "runs" / "lbfgs-0").loss == best["loss"]
    json.dumps(records)


def test_what_does_not_compete_is_not_shown_as_a_run_without_a_loss(kept: tuple[Comparison, Path]) -> None:
    comparison = kept[0]
    assert "uncontrolled" in comparison.results.references
    assert "uncontrolled" not in repr(comparison) and "lbfgs" in repr(comparison)


def test_the_winner_has_the_closed_form_loss(kept: tuple[Comparison, Path]) -> None:
    # x_N = x_0 + 0.1 sum u with equal u: minimise x_N^2 + 0.01 * 5 u^2 per component
    gain = 0.5 / (0.05 + 0.25)
    x0 = torch.linspace(0.5, 2.0, 6, dtype=torch.float64)
    exact = 2 * ((x0 * (1 - 0.5 * gain)) ** 2 + 0.05 * (gain * x0) ** 2)
    best = kept[0].summaries()[0]
    assert best.label == "lbfgs"
    assert best.loss is not None and best.loss.value == pytest.approx(float(exact.mean()), rel=1e-6)


# -- what is said --------------------------------------------------------------------------------------------------


def test_the_table_shows_every_strategy_with_interval_costs_and_status(kept: tuple[Comparison, Path]) -> None:
    table = kept[0].table()
    lines = {line.split("  ")[0]: line for line in table.split("\n\n")[0].splitlines()}
    assert re.search(r"0\.\d+ \[0\.\d+, 0\.\d+\]", lines["lbfgs"]) and "converged" in lines["lbfgs"]
    assert "2 budget spent" in lines["random"]
    assert "failed" in lines["broken"]
    assert "baseline: rush" in table and "2,000 simulated steps" in table
    assert str(kept[0]) == table and len(repr(kept[0])) < 300 and "\n" not in repr(kept[0])


def test_the_finding_names_winner_bar_losers_and_failures(kept: tuple[Comparison, Path]) -> None:
    words = str(kept[0].finding())
    assert words.splitlines()[0].startswith("lbfgs is best")
    assert "The bar is" in words
    assert re.search(r"Behind lbfgs, paired on the same scenarios: .*random .* loss \[", words)
    assert "The run of broken failed." in words


def test_a_law_that_nobody_beats_is_said_to_win() -> None:
    found = compare(pushed(), ["baseline", RandomSearch()], seeds=1, budget=BUDGET, workers=0, progress=False)
    assert found.finding().headline.startswith("No strategy beats the simple law")


def test_equal_answers_share_the_first_place() -> None:
    found = compare(pushed(), {"a": LBFGS(), "b": LBFGS(memory=5)}, seeds=1, workers=0, progress=False)
    assert "share the first place" in found.finding().headline
    assert "No common budget" in found.table()


def test_a_failing_run_is_counted_with_its_error(kept: tuple[Comparison, Path]) -> None:
    run = kept[0].results.of("broken")[0]
    assert run.status == "failed" and run.record["loss"] is None
    assert "the step size is not a number" in run.record["sentence"]
    assert run.detail is not None and "Traceback" in run.detail


def test_a_strategy_that_does_not_fit_is_listed_as_refused() -> None:
    found = compare(pushed(bounded=True), [RandomSearch(), "lbfgs"], seeds=3, workers=0, progress=False)
    assert found.records[0]["status"] == "refused"
    assert "bounds" in found.records[0]["sentence"]
    assert "Refused: RandomSearch cannot honour" in found.table()


# -- workers -------------------------------------------------------------------------------------------------------


def test_a_worker_that_dies_is_counted_and_the_others_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    found = compare(pushed(), [Deadly(), "lbfgs"], seeds=1, budget=BUDGET, workers=1, laws=False)
    # its death is told when it happens, not when the next run starts
    lines = capsys.readouterr().err.splitlines()
    died = next(number for number, line in enumerate(lines) if "exit code 3" in line)
    assert died < next(number for number, line in enumerate(lines) if re.match(r"lbfgs +started", line))
    dead, alive = found.records
    assert dead["status"] == "failed" and "exit code 3" in dead["sentence"]
    assert alive["loss"] is not None and alive["folder"] is None
    assert found.results.of("lbfgs")[0].solution() is not None


# -- kept in a folder ----------------------------------------------------------------------------------------------


def test_a_comparison_is_loaded_as_it_was(kept: tuple[Comparison, Path]) -> None:
    comparison, folder = kept
    again = Comparison.load(folder)
    assert again.table() == comparison.table()
    assert again.records == comparison.records
    asked = Comparison.question(folder)
    assert asked["budget"]["simulated_steps"] == 2000 and asked["seeds"] == 2
    assert Comparison.stored_in(folder) and not Comparison.stored_in(folder.parent)


def test_a_folder_is_not_overwritten(kept: tuple[Comparison, Path]) -> None:
    with pytest.raises(UsageError, match="holds a comparison already"):
        compare(pushed(), ["lbfgs"], folder=kept[1], workers=0, progress=False)
    with pytest.raises(UsageError, match="budget"):
        compare(pushed(), ["lbfgs"], folder=kept[1], workers=0, progress=False, resume=True)


def test_resume_takes_finished_runs_continues_interrupted_ones_and_runs_the_rest(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    strategies = {
        "first": LBFGS(),
        "second": Stopping(str(tmp_path / "marker")),
        "third": Adjoint(iterations=5),
    }
    options = {"seeds": 1, "budget": BUDGET, "folder": folder, "workers": 0, "progress": False, "laws": False}
    stopped = compare(pushed(), strategies, **options)
    assert [record["status"] for record in stopped.records] == ["converged", "interrupted", "not run"]
    said = stopped.table()
    assert stopped.interrupted and "It can be resumed" in said
    assert stopped.finding().headline.startswith("Incomplete comparison: first leads so far")
    assert "share the first place" not in said and "had the same budget" not in said
    stopped.report()
    before = (folder / "runs" / "first-0" / "solution.safetensors").stat().st_mtime_ns
    whole = compare(pushed(), strategies, **options, resume=True)
    assert not whole.interrupted
    assert (folder / "runs" / "first-0" / "solution.safetensors").stat().st_mtime_ns == before
    second = whole.records[1]
    # three evaluations were replayed from the journal and one was added
    assert second["status"] == "converged" and second["counts"]["gradients"] == 4 * 6
    assert whole.records[2]["loss"] is not None


def test_a_killed_comparison_can_be_loaded(kept: tuple[Comparison, Path], tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    compare(pushed(), ["lbfgs"], budget=BUDGET, folder=folder, workers=0, progress=False)
    (folder / "runs" / "lbfgs-0" / "record.json").unlink()
    assert Comparison.load(folder).records[0]["status"] == "not run"
    resumed = compare(
        pushed(), ["lbfgs"], budget=BUDGET, folder=folder, workers=0, progress=False, resume=True
    )
    assert resumed.records[0]["status"] == "converged"


# -- several budgets -------------------------------------------------------------------------------------------------

BUDGETS = [Budget(simulated_steps=600), Budget(gradients=30)]


def test_several_budgets_are_comparisons_of_their_own_in_one(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    found = compare(pushed(), ["baseline", "lbfgs"], budget=BUDGETS, folder=folder, workers=0, progress=False)
    assert [each.results.limits for each in found.rounds] == [{"simulated_steps": 600}, {"gradients": 30}]
    assert (folder / "simulated-steps" / "runs" / "lbfgs-0" / "record.json").is_file()
    assert (folder / "gradients" / "runs" / "lbfgs-0" / "record.json").is_file()
    steps, gradients = (record for record in found.records if record["strategy"] == "lbfgs")
    assert steps["budget"]["simulated_steps"] == 600 and gradients["budget"]["gradients"] == 30
    assert steps["counts"]["simulated_steps"] <= 600 and gradients["counts"]["gradients"] <= 30
    words = found.table()
    assert "== 600 simulated steps ==" in words and "== 30 gradients ==" in words
    assert found.finding().headline == "lbfgs is best under both budgets"
    text = found.report().read_text()
    assert text.count("Where they ended") == 2 and text.count("In motion") == 1
    assert "With 600 simulated steps" in text and 'href="gradients/runs/lbfgs-0/"' in text
    assert "budget=[Budget(simulated_steps=600), Budget(gradients=30)]" in text
    again = Comparison.load(folder)
    assert again.table() == words and again.records == found.records
    assert Comparison.question(folder)["budgets"][1]["gradients"] == 30


def test_an_interrupted_budget_leaves_the_next_ones_waiting_and_all_are_resumed(tmp_path: Path) -> None:
    folder, strategies = tmp_path / "c", {"a": LBFGS(), "b": Stopping(str(tmp_path / "marker"))}
    options = {
        "seeds": 1,
        "budget": BUDGETS,
        "folder": folder,
        "workers": 0,
        "progress": False,
        "laws": False,
    }
    stopped = compare(pushed(), strategies, **options)
    assert [r["status"] for r in stopped.records] == ["converged", "interrupted", "not run", "not run"]
    words = str(stopped.finding())
    assert words.startswith("Incomplete comparison: not every budget") and ".." not in words
    assert "(1 run ended early, 2 not run)" in words and "Differentiable physics" not in words
    stopped.report()
    whole = compare(pushed(), strategies, **options, resume=True)
    assert [r["status"] for r in whole.records[:2]] == ["converged", "converged"]
    assert not whole.interrupted and whole.records[3]["loss"] is not None
    with pytest.raises(UsageError, match="budgets"):
        compare(pushed(), strategies, **{**options, "budget": BUDGETS[:1]}, resume=True)


@pytest.mark.parametrize("wrong", [[], [Budget(), Budget()], 3.0, ["60 s"]])
def test_wrong_budgets_are_one_sentence(wrong: object) -> None:
    with pytest.raises(UsageError, match="budget must be a Budget, such as"):
        compare(pushed(), ["lbfgs"], budget=wrong, workers=0, progress=False)  # type: ignore[arg-type]


def test_budgets_of_one_kind_have_folders_of_their_own() -> None:
    budgets = [Budget(seconds=1), Budget(seconds=2), Budget(), Budget(seconds=1, gradients=5)]
    assert round_names(budgets) == ["seconds", "seconds.2", "unlimited", "seconds-gradients"]


# -- report --------------------------------------------------------------------------------------------------------


def test_the_report_holds_every_run_and_needs_no_network(kept: tuple[Comparison, Path]) -> None:
    comparison, folder = kept
    text = comparison.report().read_text()
    assert (folder / "report.html").stat().st_size < 2_000_000
    assert "http://" not in text and "https://" not in text and 'src="data:' in text
    for loads in ("<link", "@import", "url(", "fetch(", "<iframe"):
        assert loads not in text
    for run in comparison.results.runs:
        assert run.label in text and run.record["sentence"].split("'")[0] in text
    assert comparison.finding().headline in text
    for section in (
        "Where they ended",
        "How they got there",
        "In motion",
        "One line",
        "Every run",
        "The setup",
    ):
        assert section in text
    assert "The median run of lbfgs, baseline: amble and random." in text  # in the problem's own figure
    assert '"rest"' in text and '"uncontrolled"' in text  # in the animation
    assert "compare(problem" in text  # how to make it again


def test_the_report_from_the_folder_is_the_same(kept: tuple[Comparison, Path]) -> None:
    comparison, folder = kept
    first = comparison.report().read_text()
    assert Comparison.load(folder).report().read_text() == first


def test_labels_cannot_break_out_of_the_report(tmp_path: Path) -> None:
    strategies = {"</script><b>x": LBFGS()}
    found = compare(pushed(), strategies, seeds=1, budget=BUDGET, workers=0, progress=False)
    text = found.report(tmp_path / "r.html").read_text()
    assert "</script><b>x" not in text


def test_without_any_answer_there_is_still_a_report(tmp_path: Path) -> None:
    found = compare(pushed(), [Broken()], seeds=1, workers=0, progress=False, laws=False)
    assert "No run has an answer" in found.report(tmp_path / "r.html").read_text()
    with pytest.raises(UsageError, match="needs a path"):
        found.report()


def test_plot_is_a_figure(kept: tuple[Comparison, Path], tmp_path: Path) -> None:
    figure = kept[0].plot(tmp_path / "p.png")
    assert len(figure.axes) == 2 and (tmp_path / "p.png").stat().st_size > 10_000


def test_the_simple_laws_stand_in_the_table_though_nobody_named_them() -> None:
    options = {"budget": BUDGET, "workers": 0, "progress": False}
    found = compare(pushed(), ["lbfgs"], **options)
    named = compare(pushed(), ["lbfgs", "baseline"], **options)
    assert [record["strategy"] for record in found.records] == [
        record["strategy"] for record in named.records
    ]
    assert len(found.records) > 1
    assert [r["strategy"] for r in compare(pushed(), ["lbfgs"], **options, laws=False).records] == ["lbfgs"]
