"""An examination of corrections as words: tables for terminal, Markdown and report, and sentences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from dpcontrol.comparison.marks import (
    ANSWER,
    COARSE,
    FINER,
    REFERENCE,
    SEEN,
    Bound,
    Examinee,
    Marks,
    typical,
    worth_it,
)
from dpcontrol.comparison.pricing import seconds_words
from dpcontrol.comparison.summary import aligned
from dpcontrol.comparison.words import counted, listed, number

CLEAR = 1.05  # errors that differ by less are called equal


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


def ranked(marks: Marks) -> list[Examinee]:
    """The coarse solver, answers by their error (the best first), finer solvers."""
    answers = marks.of(ANSWER)
    if SEEN in marks.groups:
        steps = marks.judged_in(SEEN)
        answers = sorted(answers, key=lambda each: marks.error(each.label, SEEN, steps))
    return [*marks.of(COARSE), *answers, *marks.of(FINER)]


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
        return Cell(_size(value))
    low, high = min(errors), max(errors)
    if math.isinf(low):
        return Cell(_size(value))
    short = f"±{50 * (high - low) / value:.0f} %" if math.isfinite(high) else f"(from {_size(low, 2)})"
    return Cell(_size(value), f"{_size(low)} – {_size(high)}", short)


def _size(error: float, digits: int = 3) -> str:
    if math.isinf(error):
        return "∞"
    return "0" if error == 0 else number(error, digits)


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
                Cell("0, by definition" if each.kind == REFERENCE else _size(error)),
                Cell("–" if each.kind == REFERENCE else _size(error / coarse)),
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
    return f"{words}{number(found.value, 2)}"


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
            "run nothing is extrapolated: more than, less than. Where what made the reference costs less: less than."
            if marks.of(FINER)
            else "No finer solvers were given to be measured by (examination=Examination(resolutions=...))."
        )
    return found


def sentences(marks: Marks) -> list[str]:
    """What an examination says in words; nothing if nobody was examined."""
    if not marks.of(ANSWER) or SEEN not in marks.groups or not marks.of(COARSE):
        return [marks.failure] if marks.failure else []
    found = [_group(marks, group) for group in marks.groups]
    unstable = [
        f"{each.label} {100 * share:.0f} %"
        for each in ranked(marks)
        if (share := marks.share_stable(each.label, SEEN)) is not None and share < 1
    ]
    if unstable:
        found.append(f"Not every rollout is stable for {marks.stable:,} steps: {listed(unstable)}.")
    found += _paying(marks)
    return [*found, marks.failure] if marks.failure else found


def _group(marks: Marks, group: str) -> str:
    """Who is ahead in a group over the shortest and the longest rollouts, and of whom."""
    coarse = marks.of(COARSE)[0].label
    lengths = marks.lengths_of(group)
    parts = []
    for steps in dict.fromkeys((lengths[0], lengths[-1])):
        order = sorted(marks.of(ANSWER), key=lambda each: marks.error(each.label, group, steps))
        best, base = marks.error(order[0].label, group, steps), marks.error(coarse, group, steps)
        said = f"over {counted(steps, 'step')} {order[0].label} {_size(best)} "
        said += f"({_size(best / base, 2)} of the coarse solver's"
        if len(order) > 1:
            second = marks.error(order[1].label, group, steps)
            ahead = "as good" if second < CLEAR * best else f"{_size(second / best, 2)} times that"
            said += f"; {order[1].label} {ahead}"
        parts.append(f"{said})")
    name = "Test trajectories" if group == SEEN else f"{group[:1].upper()}{group[1:]}"
    return f"{name}: {', '.join(parts)}."


def _paying(marks: Marks) -> list[str]:
    if marks.timing is None:
        return []
    steps, batch = marks.judged_in(SEEN), marks.timing.batches[-1]
    best = min(marks.of(ANSWER), key=lambda each: marks.error(each.label, SEEN, steps)).label
    own, coarse = marks.seconds(best, batch), marks.seconds(marks.of(COARSE)[0].label, batch)
    found = marks.speed_up(best, SEEN, steps, batch)
    if own is None or coarse is None:
        return []
    said = f"A step of {best} takes {number(own / coarse, 2)} times as long as the coarse solver's"
    if found is None:
        return [f"{said}."]
    points = worth_it(marks.solver_points(SEEN, steps, batch))
    if found.relation == ">" and found.value < 1:
        label, _, error = points[-1]
        times = _size(error / marks.error(best, SEEN, steps), 2)
        return [
            f"{said}. Whether that pays is open: no solver that was run has so small an error over {steps} steps; "
            f"{label} has {times} times that, at {number(found.value, 2)} of its cost."
        ]
    words = {"=": "", ">": "more than ", "<": "less than "}[found.relation]
    most = [marks.seconds(each.label, batch) for each in marks.of(REFERENCE)]
    at_most = (
        f", and the reference's own {number(most[0] / own, 2)} times"
        if found.relation == ">" and most and most[0] is not None
        else ""
    )
    return [
        f"{said}; for its error over {steps} steps solvers without a network take {words}{number(found.value, 2)} "
        f"times as long as it{at_most} ({batch} at a time)"
        f"{': it does not pay' if found.relation != '>' and found.value < 1 else ''}."
    ]


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
