"""An examination of corrections in sentences: who is ahead, who lasts, and whether it pays."""

from __future__ import annotations

import math
from collections.abc import Sequence

from dpcontrol.comparison.marks import ANSWER, COARSE, SEEN, Bound, Marks, ranked, worth_it
from dpcontrol.comparison.words import counted, error_words, listed, number, ratio_words

CLEAR = 1.05  # errors that differ by less are called equal


def sentences(marks: Marks) -> list[str]:
    """What an examination says in words; nothing if nobody was examined."""
    if not marks.of(ANSWER) or SEEN not in marks.groups or not marks.of(COARSE):
        return [marks.failure] if marks.failure else []
    found = [_group(marks, group) for group in marks.groups]
    shaky = [
        f"{each.label} {100 * share:.0f} %"
        for each in ranked(marks)
        if (share := marks.share_stable(each.label, SEEN)) is not None and share < 1
    ]
    if shaky:
        found.append(f"Not every rollout is stable for {marks.stable:,} steps: {listed(shaky)}.")
    found += _paying(marks)
    return [*found, marks.failure] if marks.failure else found


def reservation(marks: Marks, first: Sequence[str]) -> str:
    """What a headline has to add where those in the first place do not beat the coarse solver in the longest rollouts
    over test trajectories; nothing where one of them does."""
    coarse, answers = marks.of(COARSE), marks.of(ANSWER)
    if not coarse or not answers or SEEN not in marks.groups:
        return ""
    steps = marks.lengths_of(SEEN)[-1]
    base = marks.error(coarse[0].label, SEEN, steps)
    beating = [each.label for each in answers if marks.error(each.label, SEEN, steps) < base]
    if any(label in first for label in beating):
        return ""
    over = f"over {counted(steps, 'step')}"
    if beating:
        return f", but {over} only {listed(beating)} {_agree('beat', beating)} the coarse solver"
    who = "none of the strategies beats" if len(answers) > 1 else "it does not beat"
    return f", but {who} the coarse solver {over}"


def unstable(marks: Marks, first: Sequence[str]) -> list[str]:
    """A sentence where rollouts of those in the first place do not last."""
    shares = {
        each.label: share
        for each in marks.of(ANSWER)
        if each.label in first and (share := marks.share_stable(each.label, SEEN)) is not None and share < 1
    }
    if not shares:
        return []
    told = [
        f"{f'only {100 * share:.0f} %' if share else 'none'} of the rollouts of {label}"
        for label, share in shares.items()
    ]
    return [f"Stable for {marks.stable:,} steps: {listed(told)}."]


def _agree(verb: str, names: Sequence[str]) -> str:
    return verb if len(names) > 1 else f"{verb}s"


def _group(marks: Marks, group: str) -> str:
    """Who is ahead in a group over the shortest and the longest rollouts, and of whom."""
    coarse = marks.of(COARSE)[0].label
    lengths = marks.lengths_of(group)
    parts = []
    for steps in dict.fromkeys((lengths[0], lengths[-1])):
        order = sorted(marks.of(ANSWER), key=lambda each: marks.error(each.label, group, steps))
        best, base = marks.error(order[0].label, group, steps), marks.error(coarse, group, steps)
        over = f"over {counted(steps, 'step')}"
        if math.isinf(best):
            parts.append(f"{over} {'all strategies fail' if len(order) > 1 else f'{order[0].label} fails'}")
            continue
        beside = [f"{ratio_words(best, base)} of the coarse solver's"] if 0 < base < math.inf else []
        beside += ["the coarse solver fails"] if math.isinf(base) else []
        if len(order) > 1:
            beside.append(f"{order[1].label} {_beside(marks.error(order[1].label, group, steps), best)}")
        parts.append(
            f"{over} {order[0].label} {error_words(best)}" + (f" ({'; '.join(beside)})" if beside else "")
        )
    name = "Test trajectories" if group == SEEN else f"{group[:1].upper()}{group[1:]}"
    return f"{name}: {', '.join(parts)}."


def _beside(error: float, best: float) -> str:
    """How an error compares with the best one, which is finite."""
    if math.isinf(error):
        return "fails"
    if error <= CLEAR * best:
        return "as good"
    return f"{error_words(error / best, 2)} times that" if best > 0 else error_words(error)


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
    made = marks.reference_seconds(batch)
    most = found.value if found.relation != ">" else found.most or math.inf
    lost = ": it does not pay" if most < 1 else ""
    if made is not None and found == Bound(made / own, "<"):
        return [
            f"{said}; what made the reference, which has no error by definition, takes {number(found.value, 2)} "
            f"times as long as it ({batch} at a time){lost}."
        ]
    if found.relation == ">" and found.value < 1 and not lost:
        label, _, error = worth_it(marks.solver_points(SEEN, steps, batch))[-1]
        return [
            f"{said}. Whether that pays is open: no solver that was run has so small an error over {steps} steps; "
            f"{label} has {ratio_words(error, marks.error(best, SEEN, steps))} times that, at "
            f"{number(found.value, 2)} of its cost."
        ]
    words = {"=": "", ">": "more than ", "<": "less than "}[found.relation]
    at_most = f", and what made the reference {number(found.most, 2)} times" if found.most is not None else ""
    return [
        f"{said}; for its error over {steps} steps solvers without a network take {words}{number(found.value, 2)} "
        f"times as long as it{at_most} ({batch} at a time){lost}."
    ]
