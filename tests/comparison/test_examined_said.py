"""What an examination says: who beats the coarse solver, who lasts, and what the reference's own solver means."""

import math

import pytest

from dpcontrol.comparison.examined_said import reservation, sentences, unstable
from dpcontrol.comparison.examined_words import tables
from dpcontrol.comparison.marks import (
    ANSWER,
    COARSE,
    FINER,
    REFERENCE,
    Bound,
    Examinee,
    Group,
    Marks,
    Rolled,
    Timing,
)

INF = math.inf


def marks(answers, *, coarse=0.4, finer=0.1, seconds=None, stable=()):
    """Errors that are the same over 10 steps; label -> one error for 1 .. 5 and one for 6 .. 10 steps."""

    def rolled(first, last, ends=()):
        return {"test": (Rolled((0.0, *[first] * 5, *[last] * 5), tuple(ends)),)}

    examinees = (
        Examinee("coarse solver", COARSE, rolled(coarse, coarse)),
        *(Examinee(label, ANSWER, rolled(*errors, stable)) for label, errors in answers.items()),
        Examinee("2 x finer", FINER, rolled(finer, finer)),
        Examinee("reference's own solver", REFERENCE, {}),
    )
    timing = seconds and Timing((1,), {label: (cost,) for label, cost in seconds.items()}, 3, 0.0, "time")
    return Marks("some", (5, 10), 5, 100, {"test": Group(1, 10)}, examinees, timing)


def costs(own, reference):
    return {"coarse solver": 1.0, "2 x finer": 4.0, "a": own, "reference's own solver": reference}


def test_a_headline_tells_that_nobody_beats_the_coarse_solver():
    lost = marks({"a": (0.01, INF), "b": (0.02, 1.0)})
    assert (
        reservation(lost, ["a", "b"]) == ", but none of the strategies beats the coarse solver over 10 steps"
    )
    assert (
        reservation(marks({"a": (0.5, 0.5)}), ["a"])
        == ", but it does not beat the coarse solver over 10 steps"
    )
    other = marks({"a": (0.01, INF), "b": (0.02, 0.02)})
    assert reservation(other, ["a"]) == ", but over 10 steps only b beats the coarse solver"
    assert reservation(other, ["a", "b"]) == ""


def test_a_winner_that_does_not_last_is_named():
    shaky = marks({"a": (0.01, 0.01), "b": (0.01, 0.01)}, stable=(100, 7))
    assert unstable(shaky, ["a"]) == ["Stable for 100 steps: only 50 % of the rollouts of a."]
    gone = marks({"a": (0.01, INF)}, stable=(7, 7))
    assert unstable(gone, ["a"]) == ["Stable for 100 steps: none of the rollouts of a."]
    assert unstable(shaky, ["a law"]) == [] and unstable(marks({"a": (0.1, 0.1)}, stable=(100,)), ["a"]) == []


def test_failures_are_words():
    (said,) = sentences(marks({"a": (0.1, 0.1), "b": (INF, INF)}))
    assert said.startswith("Test trajectories: over 5 steps a 0.1 (0.25 of the coarse solver's; b fails)")
    (said,) = sentences(marks({"a": (0.1, INF), "b": (0.3, INF)}))
    assert said.endswith("b 3 times that), over 10 steps all strategies fail.")
    (said,) = sentences(marks({"a": (0.1, 0.1)}, coarse=INF))
    assert "a 0.1 (the coarse solver fails)" in said
    (said,) = sentences(marks({"a": (0.0, 0.0), "b": (0.1, 0.1)}))
    assert "a 0 (0 of the coarse solver's; b 0.1)" in said


@pytest.mark.parametrize(
    ("error", "reference", "bound", "cell", "words"),
    [
        (
            0.2,
            0.5,
            Bound(0.05, "<"),
            "less than 0.05",
            "no error by definition, takes 0.05 times as long as it",
        ),
        (0.2, 20.0, Bound(0.2), "0.2", "take 0.2 times as long as it (1 at a time): it does not pay"),
        (0.5, 0.5, Bound(0.05, "<"), "less than 0.05", "it does not pay"),
        (0.01, 5.0, Bound(0.4, ">", 0.5), "0.4 to 0.5", "what made the reference 0.5 times"),
        (0.01, 80.0, Bound(0.4, ">", 8.0), "0.4 to 8", "Whether that pays is open"),
        (0.01, 2.0, Bound(0.2, "<"), "less than 0.2", "it does not pay"),
    ],
)
def test_nobody_is_more_times_cheaper_than_what_made_the_reference(error, reference, bound, cell, words):
    found = marks({"a": (error, error)}, seconds=costs(10.0, reference))
    known = found.speed_up("a", "test", 5, 1)
    assert (known.relation, known.most) == (bound.relation, bound.most)
    assert known.value == pytest.approx(bound.value)
    rows = {str(row[0]): [str(each) for each in row] for row in tables(found)[-1].rows}
    assert rows["a"][4] == cell and words in sentences(found)[-1]
    assert ("it does not pay" in sentences(found)[-1]) == (bound.most != 8.0)
