"""How long a comparison will still take, from what is known: finished runs, and how far the running ones are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, median

# The share of a budget below which a running run says little about its end, and one that has ended (a scored law, say)
# nothing about other strategies.
EARLY = 0.05
PATIENCE = 2.0  # a run of unknown length is expected to go on for so many times as long as it has taken


@dataclass(frozen=True)
class Ended:
    """A run that is done: which strategy, how long it took, the share of its budget that it spent."""

    group: str
    seconds: float
    fraction: float


@dataclass(frozen=True)
class Running:
    """A run on its way: which strategy, how long it has taken, the share of its budget that is gone."""

    group: str
    seconds: float
    fraction: float


def seconds_left(
    ended: Sequence[Ended],
    running: Sequence[Running],
    waiting: Sequence[str],
    workers: int,
    limit: float | None = None,
) -> float | None:
    """The expected time until the last run ends; ``None`` at the very beginning, when nothing tells.

    A run takes as long as those of its strategy that ended. Without any, it may go on until its budget is spent, but
    many strategies end long before: then the budget's end only bounds what runs of other strategies, and the time that
    it has taken already, let expect. Runs are dealt out to the workers as these get free.

    Args:
        ended: runs that are done.
        running: runs that have started.
        waiting: the strategies of the others.
        workers: how many run at the same time.
        limit: seconds that a run may take at most, if the budget says so.
    """
    budgeted = any(run.fraction > 0.0 for run in ended) or any(run.fraction > 0.0 for run in running)
    telling = [run for run in ended if run.fraction >= EARLY or not budgeted]
    groups = {group: [run for run in ended if run.group == group] for group in {run.group for run in ended}}
    strangers = [run for run in running if run.group not in groups]
    if not telling and not any(run.fraction >= EARLY for run in running):
        if strangers or any(group not in groups for group in waiting):
            return None
    longest = max((run.seconds for run in telling), default=None)

    def rest(run: Running) -> float:
        known = groups.get(run.group)
        left = _as_usual(run, known) if known else _of_unknown_length(run, longest)
        return left if limit is None else min(left, max(0.0, limit - run.seconds))

    rests = [rest(run) for run in running]
    lengths = {group: median(run.seconds for run in known) for group, known in groups.items()}
    for run, left in zip(running, rests, strict=True):
        lengths.setdefault(run.group, run.seconds + left)
    others = [run.seconds for run in telling] or [
        run.seconds + left for run, left in zip(running, rests, strict=True)
    ]
    free = sorted(rests + [0.0] * max(0, workers - len(rests)))
    for group in waiting:
        length = lengths[group] if group in lengths else mean(others)
        free = sorted([free[0] + (length if limit is None else min(length, limit)), *free[1:]])
    return max(free)


def _as_usual(run: Running, known: Sequence[Ended]) -> float:
    """The rest of a run whose strategy has ended before: by its share of the budget, early on by its time."""
    usual = median(each.fraction for each in known)
    if usual > 0.0 and run.fraction >= 0.1 * usual:
        return max(0.0, run.seconds * (usual / run.fraction - 1.0))
    return max(0.0, median(each.seconds for each in known) - run.seconds)


def _of_unknown_length(run: Running, longest: float | None) -> float:
    whole = run.seconds * (1.0 / run.fraction - 1.0) if run.fraction > 0.0 else float("inf")
    if longest is None and run.fraction >= EARLY:
        return whole  # all that is known
    return min(whole, max((longest or 0.0) - run.seconds, PATIENCE * run.seconds))
