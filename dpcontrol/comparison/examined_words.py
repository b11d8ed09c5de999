"""An examination of corrections as words: tables for terminal, Markdown and report, and sentences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from dpcontrol.comparison.examined_said import sentences
from dpcontrol.comparison.marks import (
    ANSWER,
    COARSE,
    FINER,
    REFERENCE,
    SEEN,
    Bound,
    Marks,
    ranked,
    typical,
)
from dpcontrol.comparison.pricing import seconds_words
from dpcontrol.comparison.summary import aligned
from dpcontrol.comparison.words import counted, error_words, listed, number, ratio_words


@dataclass(frozen=True)
class Cell:
    """What stands in a table; the spread over seeds, from the best to the worst, and in short."""

    value: str
    spread: str = ""
    short: str = ""

    def __str__(self) -> str:
        return f"{self.value} {self.short}".rstrip()


@dataclass(frozen=True)
class Table:
    """A table of cells; ``kinds`` are those of the rows' examinees."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    kinds: tuple[str, ...]


# -- tables ------------------------------------------------------------------------------------------------------------


def tables(marks: Marks) -> list[Table]:
    """Errors in each group, and what they cost."""
    found = [_errors(marks, group) for group in marks.groups]
    return [*found, _costs(marks)] if marks.timing is not None else found


def _errors(marks: Marks, group: str) -> Table:
    lengths, known = marks.lengths_of(group), marks.groups[group]
    rows, kinds = [], []
    for each in ranked(marks):
        if group not in each.rolled:
            continue
        share = marks.share_stable(each.label, group)
        rows.append(
            (
                Cell(each.label),
                *(_error(marks.errors(each.label, group, steps)) for steps in lengths),
                Cell("–" if share is None else f"{100 * share:.0f} %"),
            )
        )
        kinds.append(each.kind)
    trajectories = f"{counted(known.trajectories, 'trajectory', 'trajectories')} of {known.steps} steps"
    return Table(
        f"{group}, {trajectories}: relative error over",
        ("", *(counted(steps, "step") for steps in lengths), f"stable for {marks.stable:,} steps"),
        tuple(rows),
        tuple(kinds),
    )


def _error(errors: Sequence[float]) -> Cell:
    """The error of a typical seed, from the best to the worst."""
    value = typical(errors)
    if len(errors) < 2:
        return Cell(error_words(value))
    low, high = min(errors), max(errors)
    if math.isinf(low):
        return Cell(error_words(value))
    short = f"±{50 * (high - low) / value:.0f} %" if math.isfinite(high) else f"(from {error_words(low, 2)})"
    return Cell(error_words(value), f"{error_words(low)} – {error_words(high)}", short)


def _costs(marks: Marks) -> Table:
    assert marks.timing is not None
    steps, batches = marks.judged_in(SEEN), marks.timing.batches
    coarse = marks.error(marks.of(COARSE)[0].label, SEEN, steps)
    at_once = [f"{batch} at a time" for batch in batches]
    rows = []
    examinees = [*ranked(marks), *marks.of(REFERENCE)]
    for each in examinees:
        error = 0.0 if each.kind == REFERENCE else marks.error(each.label, SEEN, steps)
        answer = each.kind == ANSWER
        rows.append(
            (
                Cell(each.label),
                Cell("0, by definition" if each.kind == REFERENCE else error_words(error)),
                Cell("–" if each.kind == REFERENCE else ratio_words(error, coarse, 3)),
                *(Cell(_seconds(marks.seconds(each.label, batch))) for batch in batches),
                *(
                    Cell(_bound(marks.speed_up(each.label, SEEN, steps, batch)) if answer else "–")
                    for batch in batches
                ),
                *(
                    Cell(
                        _bound(marks.speed_up(each.label, group, marks.judged_in(group), batches[-1]))
                        if answer
                        else "–"
                    )
                    for group in list(marks.groups)[1:]
                ),
            )
        )
    return Table(
        f"what an error over {counted(steps, 'step')} costs",
        (
            "",
            f"error ({SEEN})",
            "of the coarse one's",
            *(f"a step, {words}" for words in at_once),
            *(f"speed-up, {words}" for words in at_once),
            *(f"speed-up, {group}" for group in list(marks.groups)[1:]),
        ),
        tuple(rows),
        tuple(each.kind for each in examinees),
    )


def _seconds(seconds: float | None) -> str:
    return "–" if seconds is None else seconds_words(seconds)


def _bound(found: Bound | None) -> str:
    if found is None:
        return "–"
    words = {"=": "", ">": "more than ", "<": "less than "}[found.relation]
    value = number(found.value, 2)
    if found.most is not None:
        most = number(found.most, 2)
        return value if most == value else f"{value} to {most}"
    return f"{words}{value}"


# -- what the numbers are ----------------------------------------------------------------------------------------------


def notes(marks: Marks) -> list[str]:
    """What stands in the tables, and how it was measured."""
    seeds = max((len(rolled) for each in marks.of(ANSWER) for rolled in each.rolled.values()), default=1)
    spread = (
        " Of several seeds the mean (of four or more without the best and the worst quarter), with half of the way "
        "from the best to the worst."
        if seeds > 1
        else ""
    )
    found = [
        f"Errors are mean |x - r| / mean |r|, averaged over the steps of a rollout and over trajectories.{spread} "
        "Infinite is what a rollout that fails comes to.",
        f"Stable: the share of rollouts that are finite and below ten times the usual size after "
        f"{marks.stable:,} steps.",
    ]
    timing = marks.timing
    if timing is not None:
        at_once = listed([str(batch) for batch in timing.batches])
        found.append(
            f"A step is one of the coarse solver's, of one trajectory, with {at_once} at a time on one thread: the "
            f"least of {timing.rounds} rounds in which everybody had a turn ({timing.clock}); the median round was "
            f"{100 * timing.noise:.0f} % slower."
        )
        found.append(
            "Speed-up: the cost of the solvers without a network at the same error, interpolated between those that "
            "are better than all cheaper ones (logarithm over logarithm), over the answer's. Beyond those that were "
            "run nothing is extrapolated: more than, less than. What made the reference has no error, so the speed-up "
            "is never more than its cost over the answer's."
            if marks.of(FINER)
            else "No finer solvers were given to be measured by (examination=Examination(resolutions=...))."
        )
    return found


# -- forms -------------------------------------------------------------------------------------------------------------


def text(marks: Marks, *, said: bool = True) -> str:
    """The tables for a terminal, sentences (unless they are said elsewhere) and notes below."""
    parts = []
    for table in tables(marks):
        rows = [[str(cell) for cell in row] for row in table.rows]
        parts.append(f"{_capital(table.title)}\n{aligned(table.head, rows, range(1, len(table.head)))}")
    found = sentences(marks) if said else []
    parts += ["\n".join(f"- {sentence}" for sentence in found)] if found else []
    return "\n\n".join([*parts, " ".join(notes(marks))])


def markdown(marks: Marks) -> str:
    """The tables as Markdown, sentences and notes below."""
    parts = []
    for table in tables(marks):
        lines = [table.head, ["---"] + ["---:"] * (len(table.head) - 1)]
        lines += [[str(cell) for cell in row] for row in table.rows]
        body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        parts.append(f"**{_capital(table.title)}**\n\n{body}")
    parts += ["\n".join(f"- {sentence}" for sentence in sentences(marks))]
    return "\n\n".join([*(part for part in parts if part), " ".join(notes(marks))]) + "\n"


def _capital(title: str) -> str:
    return title[:1].upper() + title[1:]
