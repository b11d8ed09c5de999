"""What an examination of corrections found: errors of long rollouts, stability, spectra, and what an error costs.

Errors are ``mean |x - r| / mean |r|``, averaged over the steps of a rollout and over trajectories. Costs are seconds of
one coarse step of one trajectory. What a solver of equal error would cost is interpolated between its resolutions, the
logarithm of cost over that of error, and never extrapolated: beyond the resolutions that were run there is a bound.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dpcontrol.comparison.stats import interquartile_mean
from dpcontrol.results import UsageError

COARSE, ANSWER, FINER, REFERENCE = "coarse", "answer", "finer", "reference"
SEEN = "test"  # the group of the problem's own trajectories that nobody has trained on
FORMAT = 1
INTERRUPTED = "The examination was interrupted; resuming the comparison goes on with it."


@dataclass(frozen=True)
class Rolled:
    """Rollouts over one group of trajectories.

    Attributes:
        errors: of each step ``0 .. steps``, mean over trajectories; infinite from where one of them has failed.
        stable: for each trajectory the number of steps for which its rollout stayed finite and of usual size; empty
            where that was not looked at.
        spectrum: energy of each whole wavenumber at the end of what is compared; empty where there is no grid.
    """

    errors: tuple[float, ...]
    stable: tuple[int, ...] = ()
    spectrum: tuple[float, ...] = ()

    def error(self, steps: int) -> float:
        """The mean over the steps ``1 .. steps``."""
        return float(np.mean(self.errors[1 : steps + 1]))


@dataclass(frozen=True)
class Group:
    """Trajectories that rollouts are compared with: how many, how long, and their spectrum at the end."""

    trajectories: int
    steps: int
    spectrum: tuple[float, ...] = ()


@dataclass(frozen=True)
class Examinee:
    """A solver, or the answers of one strategy: its rollouts in each group, one for each seed."""

    label: str
    kind: str
    rolled: Mapping[str, tuple[Rolled, ...]]


@dataclass(frozen=True)
class Timing:
    """Seconds of one coarse step of one trajectory: label -> one number for each number of trajectories at a time.

    They are the least of several rounds, in which everybody has a turn after the other; ``noise`` is how much slower
    the median round was, as a share, mean over all.
    """

    batches: tuple[int, ...]
    seconds: Mapping[str, tuple[float, ...]]
    rounds: int
    noise: float
    clock: str


@dataclass(frozen=True)
class Bound:
    """A number that is known (``"="``), or only to be larger (``">"``) or smaller (``"<"``); ``most`` is what one that
    is larger than ``value`` can be, where that is known."""

    value: float
    relation: str = "="
    most: float | None = None


@dataclass(frozen=True)
class Marks:
    """What an examination found, as plain numbers.

    Attributes:
        name: of the problem.
        lengths: of the rollouts over which errors are averaged.
        judged: the length that costs are told for: the one nearest to the problem's horizon.
        stable: steps of the rollouts in which it was seen whether they stay finite.
        groups: label -> trajectories, the problem's own test part first.
        examinees: the coarse solver, the answers, finer solvers.
        timing: what their steps cost; ``None`` if it was not measured.
        failure: a sentence, where something is missing.
    """

    name: str
    lengths: tuple[int, ...]
    judged: int
    stable: int
    groups: Mapping[str, Group]
    examinees: tuple[Examinee, ...]
    timing: Timing | None = None
    failure: str = ""

    # -- numbers -------------------------------------------------------------------------------------------------------

    def of(self, kind: str) -> list[Examinee]:
        """The examinees of a kind."""
        return [each for each in self.examinees if each.kind == kind]

    def find(self, label: str) -> Examinee:
        """The examinee of that label.

        Raises:
            UsageError: if there is none.
        """
        for each in self.examinees:
            if each.label == label:
                return each
        known = ", ".join(each.label for each in self.examinees)
        raise UsageError(f"nobody called {label!r} was examined; there are {known}.")

    def lengths_of(self, group: str) -> list[int]:
        """Those lengths that the trajectories of a group have; all of their steps where that is shorter."""
        steps = self.groups[group].steps
        return [length for length in self.lengths if length <= steps] or [steps]

    def judged_in(self, group: str) -> int:
        """The length that is told where there is room for one."""
        known = self.lengths_of(group)
        return min(known, key=lambda length: abs(math.log(length / self.judged)))

    def errors(self, label: str, group: str, steps: int) -> list[float]:
        """One error for each seed; empty where it was not rolled out."""
        return [rolled.error(steps) for rolled in self.find(label).rolled.get(group, ())]

    def error(self, label: str, group: str, steps: int) -> float:
        """The error of a typical seed: the interquartile mean, of fewer than four seeds the mean."""
        return typical(self.errors(label, group, steps))

    def share_stable(self, label: str, group: str) -> float | None:
        """The share of rollouts, over trajectories and seeds, that are stable to the end; ``None`` if not looked at."""
        ends = [end for rolled in self.find(label).rolled.get(group, ()) for end in rolled.stable]
        return float(np.mean([end >= self.stable for end in ends])) if ends else None

    def seconds(self, label: str, batch: int) -> float | None:
        """Of one coarse step of one trajectory, ``batch`` of them at a time."""
        if self.timing is None or label not in self.timing.seconds:
            return None
        return self.timing.seconds[label][self.timing.batches.index(batch)]

    def solver_points(self, group: str, steps: int, batch: int) -> list[tuple[str, float, float]]:
        """``(label, seconds, error)`` of the solvers without a network, the cheapest first."""
        found = []
        for each in (*self.of(COARSE), *self.of(FINER)):
            seconds, error = self.seconds(each.label, batch), self.error(each.label, group, steps)
            if seconds is not None and math.isfinite(error):
                found.append((each.label, seconds, error))
        return sorted(found, key=lambda point: point[1])

    def speed_up(self, label: str, group: str, steps: int, batch: int) -> Bound | None:
        """How many times cheaper it is than a solver of the same error; ``None`` without a finer solver to ask.

        What made the reference has no error, so it is never more times cheaper than that: where that costs less than
        those solvers this is the bound, where nobody was as good it is the ``most``.
        """
        seconds, error = self.seconds(label, batch), self.error(label, group, steps)
        points = worth_it(self.solver_points(group, steps, batch))
        if seconds is None or not self.of(FINER) or not points or not math.isfinite(error):
            return None
        found = equal_cost([(cost, wrong) for _, cost, wrong in points], error)
        own = self.reference_seconds(batch)
        if own is not None and own < found.value:
            return Bound(own / seconds, "<")
        most = own / seconds if own is not None and found.relation == ">" else None
        return Bound(found.value / seconds, found.relation, most)

    def reference_seconds(self, batch: int) -> float | None:
        """What a coarse step of one trajectory costs what made the reference; ``None`` where nobody knows."""
        return next((self.seconds(each.label, batch) for each in self.of(REFERENCE)), None)

    # -- as files ------------------------------------------------------------------------------------------------------

    def record(self) -> dict[str, Any]:
        """Plain values."""
        return {"format": FORMAT, **dataclasses.asdict(self)}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Marks:
        """What :meth:`record` gave.

        Raises:
            UsageError: for something else.
        """
        if record.get("format") != FORMAT:
            raise UsageError("this is no record of an examination; delete it and make the comparison again.")
        timing = record["timing"]
        return cls(
            name=record["name"],
            lengths=tuple(record["lengths"]),
            judged=record["judged"],
            stable=record["stable"],
            groups={name: Group(**_tuples(group)) for name, group in record["groups"].items()},
            examinees=tuple(
                Examinee(
                    each["label"],
                    each["kind"],
                    {
                        group: tuple(Rolled(**_tuples(one)) for one in rolled)
                        for group, rolled in each["rolled"].items()
                    },
                )
                for each in record["examinees"]
            ),
            timing=None if timing is None else _timing(timing),
            failure=record["failure"],
        )


def ranked(marks: Marks) -> list[Examinee]:
    """The coarse solver, answers by their error (the best first), finer solvers."""
    answers = marks.of(ANSWER)
    if SEEN in marks.groups:
        steps = marks.judged_in(SEEN)
        answers = sorted(answers, key=lambda each: marks.error(each.label, SEEN, steps))
    return [*marks.of(COARSE), *answers, *marks.of(FINER)]


def typical(errors: Sequence[float]) -> float:
    """The interquartile mean over seeds, of fewer than four seeds the mean; infinite where one of them is."""
    if not errors:
        return math.nan
    return interquartile_mean(np.array(errors)) if np.isfinite(errors).all() else math.inf


def worth_it(points: Sequence[tuple[str, float, float]]) -> list[tuple[str, float, float]]:
    """Those of the solvers ``(label, seconds, error)``, the cheapest first, that are better than all cheaper ones."""
    found: list[tuple[str, float, float]] = []
    for point in points:
        if not found or point[2] < found[-1][2]:
            found.append(point)
    return found


def equal_cost(points: Sequence[tuple[float, float]], error: float) -> Bound:
    """What a solver of that error costs, between ``(cost, error)`` of its resolutions, the cheapest first.

    Piecewise linear in the logarithms; the first crossing counts. Where already the first is as good it costs less
    than that one, where none is it costs more than the dearest.
    """
    if points[0][1] <= error:
        return Bound(points[0][0], "=" if points[0][1] == error else "<")
    for (cheap, worse), (dear, better) in itertools.pairwise(points):
        if better <= error:
            share = math.log(worse / error) / math.log(worse / better) if better > 0 else 1.0
            return Bound(cheap * (dear / cheap) ** share)
    return Bound(points[-1][0], ">")


def _timing(record: Mapping[str, Any]) -> Timing:
    seconds = {label: tuple(values) for label, values in record["seconds"].items()}
    return Timing(tuple(record["batches"]), seconds, record["rounds"], record["noise"], record["clock"])


def _tuples(record: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in record.items()}
