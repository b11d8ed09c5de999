"""The time left: what finished runs, shares of the budget and workers let expect."""

import pytest

from dpcontrol.comparison.pace import Ended, Running, seconds_left


def test_at_the_very_beginning_nothing_is_known() -> None:
    assert seconds_left([], [], ["a", "b"], 2) is None
    assert seconds_left([], [Running("a", 1.0, 0.01)], ["b"], 2) is None
    # a scored law took no time, and says nothing about a search
    for share in (0.0005, 0.02):
        assert seconds_left([Ended("law", 0.1, share)], [Running("a", 1.0, 0.01)], ["b"], 2) is None


def test_laws_whose_lengths_are_known_need_nothing_else() -> None:
    assert seconds_left([Ended("law", 0.1, 0.0005)], [], ["law"], 1) == pytest.approx(0.1)


def test_a_run_takes_as_long_as_the_others_of_its_strategy() -> None:
    ended = [Ended("cem", 10.0, 1.0), Ended("cem", 12.0, 1.0), Ended("cmaes", 100.0, 1.0)]
    assert seconds_left(ended, [], ["cem"], 1) == pytest.approx(11.0)
    assert seconds_left(ended, [Running("cem", 3.0, 0.0)], [], 1) == pytest.approx(8.0)
    # one that is slower than they were, by its share
    assert seconds_left(ended, [Running("cem", 10.0, 0.5)], [], 1) == pytest.approx(10.0)
    # those that ended early, at 6 % of the budget, let expect the same
    early = [Ended("lbfgs", 6.0, 0.06)]
    assert seconds_left(early, [Running("lbfgs", 3.0, 0.03)], [], 1) == pytest.approx(3.0)


def test_waiting_runs_are_dealt_out_to_the_workers() -> None:
    ended = [Ended("a", 10.0, 1.0)]
    assert seconds_left(ended, [], ["a"] * 4, 1) == pytest.approx(40.0)
    assert seconds_left(ended, [], ["a"] * 4, 2) == pytest.approx(20.0)
    assert seconds_left(ended, [Running("a", 5.0, 0.5)], ["a", "a"], 2) == pytest.approx(15.0)


def test_the_last_run_of_a_fast_strategy_has_no_absurd_bound() -> None:
    # 2 % of the budget after 18 s: 15 minutes if it were spent, but it converges after 19 s
    ended = [Ended("cmaes", 33.0, 1.0), Ended("cem", 7.0, 1.0)]
    for seconds in (1.0, 5.0, 10.0, 18.0):
        left = seconds_left(ended, [Running("lbfgs", seconds, 0.02 * seconds / 18.0)], [], 2)
        assert left is not None and left < 40.0


def test_a_run_that_is_half_through_its_budget_is_taken_at_its_word() -> None:
    assert seconds_left([Ended("b", 1.0, 1.0)], [Running("a", 60.0, 0.5)], [], 1) == pytest.approx(60.0)


def test_no_run_is_expected_to_outlast_a_budget_in_seconds() -> None:
    left = seconds_left([Ended("b", 90.0, 1.0)], [Running("a", 50.0, 0.4)], ["c"], 1, limit=60.0)
    assert left == pytest.approx(10.0 + 60.0)


def test_without_budgets_times_alone_tell() -> None:
    left = seconds_left([Ended("a", 10.0, 0.0)], [Running("b", 4.0, 0.0)], ["a"], 2)
    assert left == pytest.approx(10.0)
