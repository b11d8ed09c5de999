"""The figures of an examination: which marks go where."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from dpcontrol.comparison.marks import ANSWER, COARSE, FINER, Examinee, Marks, Rolled, worth_it
from dpcontrol.plot import rollouts, style

NAMES = ERRORS, SPECTRA, COSTS = "error of long rollouts", "spectra", "what an error costs"


def drawn(marks: Marks, colours: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Name -> figure; those that there are numbers for."""
    known = colours or style.colours([each.label for each in marks.of(ANSWER)])
    solvers = [each.label for each in (*marks.of(COARSE), *marks.of(FINER))]
    look = {**style.colours([], solvers), **known}
    dashes = {label: style.DASHES[index % len(style.DASHES)] for index, label in enumerate(solvers)}
    found = {ERRORS: rollouts.error_figure(_panels(marks, _errors), look, dashes)}
    if any(len(group.spectrum) > 2 for group in marks.groups.values()):
        found[SPECTRA] = rollouts.spectrum_figure(_panels(marks, _spectrum), _truths(marks), look, dashes)
    if marks.timing is not None:
        found[COSTS] = rollouts.cost_figure(_costs(marks), look)
    return found


def _errors(one: Rolled) -> np.ndarray:
    return np.array(one.errors, float)


def _spectrum(one: Rolled) -> np.ndarray:
    """Infinite where the rollout has failed, however large its last states are."""
    found = np.array(one.spectrum, float)
    return found if np.isfinite(one.errors[-1]) else np.full_like(found, np.inf)


def _panels(marks: Marks, rows: Callable[[Rolled], np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    """Group -> label -> rows, one for each seed."""
    return {
        group: {
            each.label: np.array([rows(one) for one in each.rolled[group]])
            for each in _order(marks)
            if group in each.rolled
        }
        for group in marks.groups
    }


def _order(marks: Marks) -> list[Examinee]:
    return [*marks.of(COARSE), *marks.of(FINER), *marks.of(ANSWER)]


def _truths(marks: Marks) -> dict[str, np.ndarray]:
    return {group: np.array(known.spectrum, float) for group, known in marks.groups.items()}


def _costs(marks: Marks) -> dict[str, rollouts.Costs]:
    """Group -> the solver's line through its resolutions, and the answers."""
    assert marks.timing is not None
    batch, found = marks.timing.batches[-1], {}
    for group in marks.groups:
        steps = marks.judged_in(group)
        answers = {}
        for each in marks.of(ANSWER):
            seconds = marks.seconds(each.label, batch)
            if seconds is not None and group in each.rolled:
                answers[each.label] = (seconds, marks.errors(each.label, group, steps))
        words = f"{group}, {steps} steps"
        points = marks.solver_points(group, steps, batch)
        found[words] = rollouts.Costs(points, worth_it(points), answers, marks.reference_seconds(batch))
    return found
