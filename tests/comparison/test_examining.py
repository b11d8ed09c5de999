"""Corrections examined: errors, stability and costs are what they are by hand; tables, files and interruptions."""

import json
import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from correction_cases import CELLS, DT, fine_reference, means, posed
from dpcontrol.problems.advection_diffusion_correction import Upwind

import dpcontrol as dp
from dpcontrol import tree
from dpcontrol.cli.display import show_comparison
from dpcontrol.comparison import Comparison, compare, examine, examining
from dpcontrol.comparison.examined import Examined
from dpcontrol.comparison.marks import INTERRUPTED, Bound, Marks, equal_cost, worth_it
from dpcontrol.comparison.running import waiting_run
from dpcontrol.meter import Budget
from dpcontrol.problem import Examination, Resolution, evaluate
from dpcontrol.results import UsageError

BUDGET = Budget(simulated_steps=600)
HALF = Resolution(Upwind(DT / 2), 2, partial(means, factor=2), partial(means, factor=2))
QUARTER = Resolution(Upwind(DT / 4), 4, partial(means, factor=1), partial(means, factor=4))


@pytest.fixture(autouse=True)
def quick(tmp_path, monkeypatch):
    """A cache of its own, and timings that take no time."""
    monkeypatch.setenv("DPCONTROL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("dpcontrol.comparison.racing.LONG_ENOUGH", 1e-4)
    monkeypatch.setattr("dpcontrol.comparison.racing.ROUNDS", 2)


def faster():
    return fine_reference(parameters={"velocity_0": torch.linspace(1.0, 1.2, 6, dtype=torch.float64)})


def examination(**fields):
    given = {
        "lengths": (2, 5, 50),
        "unseen": {"extrapolation": faster},
        "resolutions": {"2 x finer": HALF, "4 x finer": QUARTER},
        "stable": 12,
    }
    return Examination(**{**given, **fields})


def problem(**fields):
    return posed(reference=fine_reference(), unroll=2, examination=examination(**fields))


def zero(posed_problem):
    return tree.map(torch.zeros_like, posed_problem.start())


def test_the_cost_of_an_equal_error_lies_on_the_line_between_resolutions():
    points = [(1.0, 0.4), (4.0, 0.1), (16.0, 0.025)]  # an error that falls as 1 / cost
    for error in (0.3, 0.1, 0.05, 0.025):
        found = equal_cost(points, error)
        assert found.relation == "=" and found.value == pytest.approx(0.4 / error)
    assert equal_cost(points, 0.5) == Bound(1.0, "<") and equal_cost(points, 0.4) == Bound(1.0)
    assert equal_cost(points, 0.01) == Bound(16.0, ">")
    assert equal_cost([(1.0, 0.4), (4.0, 0.5)], 0.3) == Bound(4.0, ">")  # finer, and no better


def test_solvers_that_are_no_better_than_cheaper_ones_are_passed_over():
    points = [("coarse", 1.0, 0.4), ("other scheme", 2.0, 0.5), ("2 x", 4.0, 0.1), ("4 x", 16.0, 0.2)]
    assert [label for label, _, _ in worth_it(points)] == ["coarse", "2 x"]


def test_errors_are_those_of_an_evaluation_in_every_group():
    asked = problem()
    z = asked.start()
    found = examine(asked, {"untrained": z, "nothing": zero(asked)})
    marks = found.marks
    assert list(marks.groups) == ["test", "extrapolation"] and marks.lengths == (2, 5)
    assert marks.groups["extrapolation"].trajectories == 6 and marks.groups["test"].trajectories == 1
    for group, options in {"test": {}, "extrapolation": {"reference": faster(), "part": "all"}}.items():
        for steps in (2, 5):
            for label, answer in {"untrained": z, "coarse solver": None}.items():
                wanted = evaluate(asked, answer, **options).error(steps)
                assert marks.error(label, group, steps) == pytest.approx(wanted, rel=1e-9)
            finer = evaluate(asked, solver=HALF, **options).error(steps)
            assert marks.error("2 x finer", group, steps) == pytest.approx(finer, rel=1e-9)
            assert marks.error("nothing", group, steps) == pytest.approx(
                marks.error("coarse solver", group, steps)
            )
    assert marks.share_stable("untrained", "test") == 1.0 and marks.share_stable("2 x finer", "test") is None
    truth = evaluate(asked).reference_spectrum
    torch.testing.assert_close(
        torch.tensor(marks.groups["test"].spectrum), truth.to(torch.get_default_dtype())
    )


def test_costs_are_told_for_everybody_and_speed_ups_for_answers():
    asked = problem()
    marks = examine(asked, {"nothing": zero(asked)}).marks
    labels = {"coarse solver", "nothing", "2 x finer", "4 x finer", "reference's own solver"}
    assert set(marks.timing.seconds) == labels and marks.timing.batches == (1,)
    assert all(seconds > 0 for (seconds,) in marks.timing.seconds.values())
    points = marks.solver_points("test", 5, 1)
    assert {label for label, _, _ in points} == {"coarse solver", "2 x finer", "4 x finer"}
    seconds = {"coarse solver": (1e-3,), "2 x finer": (4e-3,), "4 x finer": (16e-3,), "nothing": (2e-3,)}
    known = replace(marks, timing=replace(marks.timing, seconds=seconds))
    # as good as the coarse one at twice the cost
    assert known.speed_up("nothing", "test", 5, 1) == Bound(pytest.approx(0.5))
    assert known.speed_up("coarse solver", "test", 5, 1).value == pytest.approx(1.0)
    cheap = replace(known.timing, seconds={**seconds, "reference's own solver": (5e-4,)})
    assert replace(known, timing=cheap).speed_up("nothing", "test", 5, 1) == Bound(pytest.approx(0.25), "<")
    alone = replace(known, examinees=tuple(each for each in known.examinees if each.kind != "finer"))
    assert alone.speed_up("nothing", "test", 5, 1) is None


def test_trajectories_shorter_than_every_length_are_judged_by_all_of_their_steps():
    asked = problem(lengths=(50, 100), resolutions={})
    marks = examine(asked, {"nothing": zero(asked)}).marks
    assert marks.lengths_of("test") == [5] and marks.judged_in("extrapolation") == 5


def test_a_solver_may_be_for_some_groups_only():
    own = replace(HALF, groups=())
    marks = examine(problem(resolutions={"2 x finer": own, "4 x finer": QUARTER}), {}).marks
    assert set(marks.find("2 x finer").rolled) == {"test"}
    assert set(marks.find("4 x finer").rolled) == {"test", "extrapolation"}
    with pytest.raises(UsageError, match="2 x finer is meant for larger box, which is not among"):
        examination(resolutions={"2 x finer": replace(HALF, groups=("larger box",))})


def test_several_seeds_are_one_row_with_their_spread():
    asked = problem(unseen={}, resolutions={})
    one, other = asked.start(), tree.map(lambda leaf: 0.5 * leaf + 0.02, asked.start())
    found = examine(asked, {"network": [one, other]})
    errors = found.marks.errors("network", "test", 5)
    assert errors == [pytest.approx(evaluate(asked, z).error(5)) for z in (one, other)]
    assert found.marks.error("network", "test", 5) == pytest.approx(sum(errors) / 2)
    assert "±" in str(found) and "mean (of four or more" in str(found)
    assert "No finer solvers were given" in str(found)


def test_what_blows_up_is_infinite_and_said_so(tmp_path):
    asked = problem()
    blown = tree.map(lambda leaf: 30.0 * torch.ones_like(leaf), asked.start())
    found = examine(asked, {"blown": blown, "nothing": zero(asked)})
    assert found.marks.share_stable("blown", "test") == 0.0
    assert math.isinf(found.marks.error("blown", "test", 5))
    assert found.marks.speed_up("blown", "test", 5, 1) is None
    text = str(found)
    assert "∞" in text and "Not every rollout is stable for 12 steps: blown 0 %." in text
    again = Examined.load(found.save(tmp_path / "marks.json"))
    assert again == found and "Infinity" not in (tmp_path / "marks.json").read_text()
    drawn = found.figures()
    assert all(len(figure.axes) >= 2 for figure in drawn.values())
    assert [text.get_text() for text in drawn["spectra"].axes[0].texts] == ["failed before the end: blown"]


def test_tables_in_words():
    asked = problem()
    found = examine(asked, {"nothing": zero(asked)})
    text, marked = str(found), found.markdown()
    for words in (
        "Test, 1 trajectory of 5 steps: relative error over",
        "Extrapolation, 6 trajectories of 5 steps: relative error over",
        "stable for 12 steps",
        "What an error over 5 steps costs",
        "0, by definition",
        "reference's own solver",
        "more than, less than",
    ):
        assert words in text and words in marked
    assert "| coarse solver |" in marked and "| --- | ---: |" in marked
    assert set(found.figures()) == {"error of long rollouts", "spectra", "what an error costs"}


def test_a_comparison_keeps_its_examination(tmp_path, monkeypatch):
    asked, folder = problem(), tmp_path / "kept"
    strategies = {"one step": dp.Supervised(batch=4), "alone": dp.Surrogate(batch=4)}
    comparison = compare(asked, strategies, seeds=1, budget=BUDGET, folder=folder, workers=0, progress=False)
    marks = comparison.examination.marks
    value = comparison.results.of("alone")[0].solution().value
    posed_alone = dp.Surrogate().pose(asked)
    wanted = evaluate(posed_alone, value).error(5)
    assert marks.error("alone", "test", 5) == pytest.approx(wanted, rel=1e-6)
    assert marks.timing.seconds["alone"] != marks.timing.seconds["one step"]
    assert json.loads((folder / "examination.json").read_text())["format"] == 1
    table = comparison.table()
    assert "relative error over" in table and table.count("Test trajectories: over 2 steps") == 1
    assert not any(
        words in table for words in ("one decision", "One decision", "breaks even", "tuning trials")
    )
    monkeypatch.setattr(examining, "evaluate", None)  # nothing is rolled out any more
    again = Comparison.load(folder)
    assert again.examination == comparison.examination and again.table() == table
    assert show_comparison(again, folder, as_json=True) == 0
    assert (folder / "examination.md").read_text() == comparison.examination.markdown()
    page = (folder / "report.html").read_text()
    assert "<h2>Long rollouts</h2>" in page and "What an error over 5 steps costs" in page
    assert "long rollouts" not in again.results.own_figures
    resumed = compare(
        asked, strategies, seeds=1, budget=BUDGET, folder=folder, workers=0, progress=False, resume=True
    )
    assert replace(resumed.examination.marks, timing=None) == replace(marks, timing=None)


def test_it_can_be_left_out():
    found = compare(
        problem(), [dp.Noisy(batch=4)], seeds=1, budget=BUDGET, workers=0, progress=False, examined=False
    )
    assert found.examination is None and "long rollouts" in found.results.own_figures


def test_ctrl_c_leaves_what_there_is_and_resuming_goes_on(tmp_path):
    once = tmp_path / "pressed"

    def unseen():
        if once.exists():
            return faster()
        once.touch()
        raise KeyboardInterrupt

    asked, folder = problem(unseen={"late": unseen}), tmp_path / "kept"
    options = {"seeds": 1, "budget": BUDGET, "folder": folder, "workers": 0, "progress": False}
    stopped = compare(asked, [dp.Supervised(batch=4)], **options)
    assert stopped.interrupted and stopped.examination.marks.failure == INTERRUPTED
    assert INTERRUPTED in stopped.table() and INTERRUPTED in stopped.report().read_text()
    whole = compare(asked, [dp.Supervised(batch=4)], **options, resume=True)
    assert not whole.interrupted and not whole.examination.marks.failure
    assert list(whole.examination.marks.groups) == ["test", "late"]
    once.unlink()
    with pytest.raises(KeyboardInterrupt):
        examine(asked, {"nothing": zero(asked)})


def test_who_stops_the_runs_does_not_wait_for_an_examination(monkeypatch):
    def left(problem, tasks, *rest):
        return [waiting_run(task, problem.name) for task in tasks]

    monkeypatch.setattr("dpcontrol.comparison.matrix.run_all", left)
    monkeypatch.setattr(examining, "evaluate", None)
    stopped = compare(problem(), [dp.Noisy(batch=4)], seeds=1, budget=BUDGET, workers=0, progress=False)
    assert stopped.interrupted and stopped.examination is None


def test_who_does_not_fit_is_told_before_the_others_run(monkeypatch, capsys):
    def left(problem, tasks, *rest):
        assert capsys.readouterr().err.startswith("refused: lbfgs cannot honour the held-out trajectories")
        return [waiting_run(task, problem.name) for task in tasks]

    monkeypatch.setattr("dpcontrol.comparison.matrix.run_all", left)
    compare(problem(), ["noisy", "lbfgs"], seeds=1, budget=BUDGET, workers=0, progress=True)


def test_a_failing_examination_is_a_sentence_and_no_lost_comparison():
    def unseen():
        raise UsageError("there is no more fluid.")

    asked = problem(unseen={"none": unseen})
    found = compare(asked, [dp.Noisy(batch=4)], seeds=1, budget=BUDGET, workers=0, progress=False)
    assert found.examination.marks.failure == "The examination failed: there is no more fluid."
    assert "there is no more fluid" in found.table() and found.summaries()[0].answered == 1
    with pytest.raises(UsageError, match="no more fluid"):
        examine(asked, {"nothing": zero(asked)})


def test_answers_are_kept_by_what_they_are(tmp_path, monkeypatch):
    asked = problem(unseen={}, resolutions={})
    first = examine(asked, {"a": asked.start()}, folder=tmp_path)
    other = examine(asked, {"a": zero(asked)}, folder=tmp_path)
    assert first.marks.error("a", "test", 5) != other.marks.error("a", "test", 5)
    monkeypatch.setattr(examining, "evaluate", None)
    again = examine(asked, {"a": zero(asked)}, folder=tmp_path)
    assert again.marks.examinees == other.marks.examinees


def test_what_does_not_fit_is_refused_in_a_sentence():
    asked = problem()
    with pytest.raises(UsageError, match="no answer under 'none'"):
        examine(asked, {"none": []})
    with pytest.raises(UsageError, match="found int under 'number'"):
        examine(asked, {"number": 3})
    plain = dp.control_problem(
        lambda x, u: x + u,
        initial_state=torch.zeros(1, CELLS),
        horizon=1,
        objective=dp.effort(),
        control=dp.ControlSequence(CELLS),
    )
    with pytest.raises(UsageError, match="pose it with correction_problem"):
        examine(plain, {})
    with pytest.raises(UsageError, match="nobody called 'who' was examined"):
        examine(problem(unseen={}, resolutions={}), {"nothing": zero(asked)}).marks.find("who")
    with pytest.raises(UsageError, match="no record of an examination"):
        Marks.from_record({"format": 0})
