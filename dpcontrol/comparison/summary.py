"""Runs condensed: one line for each strategy, and the table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dpcontrol.comparison.records import LAW, NOT_RUN, REFUSED, Results, Run
from dpcontrol.comparison.stats import Estimate, over_seeds, ratio_of_means
from dpcontrol.comparison.words import amount, number, with_interval

ROUNDING = 1e-9


@dataclass(frozen=True)
class Summary:
    """What all runs of one strategy say together; estimates are those of the runs with a finite loss.

    Attributes:
        label: what the strategy is called.
        law: whether it is a simple law of the problem, the bar for the others.
        loss: interquartile mean over seeds of the mean loss over scenarios, ``None`` without any finite loss.
        metrics: the problem's figures of merit, likewise.
        luck: the loss again, with an interval over the seeds alone: what another seed would change on these scenarios.
        simulated_steps, gradients, seconds: means over the runs that ran.
        statuses: how many runs ended how.
        answered, failed, asked: how many runs have a finite loss, went wrong, were to be run.
        losses: ``(answered runs, scenarios)``.
        refused: the sentence of a strategy that does not fit.
        stochastic: whether another seed would give another answer.
        unplayed: whether it is a law that costs more than the budget.
        family: whether it follows gradients, goes without, or is a simple law.
    """

    label: str
    law: bool
    loss: Estimate | None
    metrics: Mapping[str, Estimate]
    luck: Estimate | None
    simulated_steps: float
    gradients: float
    seconds: float
    statuses: Mapping[str, int]
    answered: int
    failed: int
    asked: int
    losses: np.ndarray
    refused: str | None
    family: str
    stochastic: bool = False
    unplayed: bool = False

    @property
    def one_seed(self) -> bool:
        """Whether a single run of it has an answer although its answer depends on the seed."""
        return self.stochastic and self.answered == 1

    @property
    def complete(self) -> bool:
        """Whether every run that ran has an answer: those with failures cannot win by their luckier runs."""
        return self.answered > 0 and self.failed == 0


def summarise(results: Results) -> list[Summary]:
    """One summary for each strategy, best first: complete ones by their loss, then the others."""
    found = [_summary(label, results.of(label), label in results.laws) for label in results.labels]
    return sorted(found, key=_rank)


def _rank(summary: Summary) -> tuple[bool, bool, float]:
    value = summary.loss.value if summary.loss is not None else float("inf")
    return summary.loss is None, not summary.complete, value


def _summary(label: str, runs: Sequence[Run], law: bool) -> Summary:
    answered = [run for run in runs if run.answered]
    ran = [run for run in runs if run.status not in (REFUSED, NOT_RUN)]
    losses = np.array([run.record["losses"] for run in answered], float)
    refused = next((run.record["sentence"] for run in runs if run.status == REFUSED), None)

    def mean(values: Sequence[float]) -> float:
        return float(np.mean(values)) if len(values) else 0.0

    return Summary(
        label=label,
        law=law,
        loss=ratio_of_means(losses, np.ones_like(losses)) if answered else None,
        metrics=_metrics(answered),
        luck=over_seeds(losses.mean(1)) if answered else None,
        simulated_steps=mean([run.record["counts"]["simulated_steps"] for run in ran]),
        gradients=mean([run.record["counts"]["gradients"] for run in ran]),
        seconds=mean([run.record["seconds"] for run in ran]),
        statuses=Counter(run.status for run in runs),
        answered=len(answered),
        failed=sum(1 for run in ran if run.failed or not (run.answered or run.unplayed)),
        asked=len(runs),
        losses=losses,
        refused=refused,
        family=LAW if law else runs[0].family,
        stochastic=any(run.stochastic for run in runs),
        unplayed=any(run.unplayed for run in runs),
    )


def _metrics(answered: Sequence[Run]) -> dict[str, Estimate]:
    names = list(dict.fromkeys(name for run in answered for name in run.samples))
    found = {}
    for name in names:
        having = [run.samples[name] for run in answered if name in run.samples]
        top, bottom = np.array([pair[0] for pair in having]), np.array([pair[1] for pair in having])
        found[name] = ratio_of_means(top, bottom)
    return found


def metric_names(summaries: Sequence[Summary]) -> list[str]:
    """The problem's figures of merit, in its own order."""
    return list(dict.fromkeys(name for summary in summaries for name in summary.metrics))


def vanishes(summaries: Sequence[Summary], name: str) -> bool:
    """Whether a figure of merit is zero by construction, up to rounding, for all strategies."""
    return all(abs(s.metrics[name].value) < ROUNDING for s in summaries if name in s.metrics)


def status_words(summary: Summary) -> str:
    """How the runs ended: ``2 budget spent, 1 failed``; the count is left out where there is one run."""
    if summary.asked == 1:
        (status,) = summary.statuses
        return "not played: too dear" if summary.unplayed else status
    return ", ".join(f"{count} {kind}" for kind, count in summary.statuses.items())


def seeds_alone(summary: Summary) -> str:
    """What the luck of seeds makes of the loss: the interval over runs on these scenarios."""
    found = summary.luck
    return (
        "–" if found is None or found.interval is None else " – ".join(number(end) for end in found.interval)
    )


def text_table(results: Results, summaries: Sequence[Summary]) -> str:
    """The table for a terminal."""
    several = any(summary.luck is not None and summary.luck.interval is not None for summary in summaries)
    names = [name for name in metric_names(summaries) if not vanishes(summaries, name)]
    head = [
        "strategy",
        *names,
        "loss",
        *(["seeds alone"] * several),
        "steps",
        "gradients",
        "seconds",
        "status",
    ]
    rows = [
        [
            summary.label,
            *(with_interval(summary.metrics.get(name)) for name in names),
            number(summary.loss.value if summary.loss else None, 4),
            *([seeds_alone(summary)] * several),
            amount(summary.simulated_steps),
            amount(summary.gradients),
            f"{summary.seconds:.1f}",
            status_words(summary),
        ]
        for summary in summaries
    ]
    return aligned(head, rows, range(1 + len(names), len(head) - 1))


def aligned(head: Sequence[str], rows: Sequence[Sequence[str]], numeric: Sequence[int]) -> str:
    """A table for a terminal, with the ``numeric`` columns to the right."""
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        padded = (
            cell.rjust(width) if column in numeric else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return "  ".join(padded).rstrip()

    rule = "  ".join("─" * width for width in widths)
    return "\n".join([line(head), rule, *map(line, rows)])
