"""What trials found: losses, intervals and failures, as a table, a record and a figure."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dpcontrol.comparison.stats import Estimate, ratio_of_means
from dpcontrol.posterior.words import counted, number, table

DIGITS = 4
SHOWN_METRICS = 2


@dataclass(frozen=True)
class Row:
    """One controller in one trial.

    Attributes:
        controller, trial: labels.
        other_scenes: whether the trial was in other scenes than the problem's own, so that losses are not comparable.
        losses: ``(runs, scenes)``, a run for each seed of the trial and each trained copy; ``None`` if not played.
        metrics: the problem's figures, means over the runs.
        seconds: wall time of one decision for one scene, when all scenes are decided together.
        note: why it was not played.
    """

    controller: str
    trial: str
    other_scenes: bool = False
    losses: np.ndarray | None = field(default=None, repr=False)
    metrics: Mapping[str, float] = field(default_factory=dict)
    seconds: float = math.nan
    note: str = ""

    @property
    def episodes(self) -> int:
        """How many episodes were played."""
        return 0 if self.losses is None else self.losses.size

    @property
    def failures(self) -> int:
        """Episodes whose loss is not finite."""
        return 0 if self.losses is None else int((~np.isfinite(self.losses)).sum())

    @property
    def estimate(self) -> Estimate:
        """Mean loss with its 95 % interval; infinite where an episode failed, for a failure has no finite price."""
        if self.losses is None:
            return Estimate(math.nan, None, "nothing")
        if self.failures:
            return Estimate(math.inf, None, "nothing")
        return ratio_of_means(self.losses, np.ones_like(self.losses))

    @property
    def surviving(self) -> float:
        """Mean loss of the episodes that did not fail; NaN where all did."""
        if self.losses is None or self.failures == self.episodes:
            return math.nan
        return float(self.losses[np.isfinite(self.losses)].mean())


@dataclass(frozen=True)
class Robustness:
    """What :func:`robustness` found; ``print`` it.

    Attributes:
        problem: its name.
        rows: one for each trial and controller, in the order in which they were given.
    """

    problem: str
    rows: tuple[Row, ...]

    @property
    def trials(self) -> tuple[str, ...]:
        """Labels of the trials."""
        return tuple(dict.fromkeys(row.trial for row in self.rows))

    @property
    def controllers(self) -> tuple[str, ...]:
        """Labels of the controllers."""
        return tuple(dict.fromkeys(row.controller for row in self.rows))

    def row(self, controller: str, trial: str) -> Row:
        """The row of a controller and a trial, by their labels.

        Raises:
            KeyError: if there is none.
        """
        for row in self.rows:
            if (row.controller, row.trial) == (controller, trial):
                return row
        raise KeyError((controller, trial))

    @property
    def measure(self) -> str:
        """The trial that the others are measured by: the nominal one where it was played, else the first."""
        return "nominal" if "nominal" in self.trials else self.trials[0]

    def worse(self, row: Row) -> float:
        """Its mean loss over the same controller's in the nominal trial (in the first, where that was not played).

        NaN in other scenes, which do not compare.
        """
        first = self.row(row.controller, self.measure)
        if row.other_scenes or first.other_scenes or first.losses is None:
            return math.nan
        return row.estimate.value / first.estimate.value if first.estimate.value else math.nan

    def table(self) -> str:
        """A block for each trial, best first: loss, interval, times the nominal loss, metrics, failures."""
        there = [name for row in self.rows for name, value in row.metrics.items() if value == value]
        names = list(dict.fromkeys(there))[:SHOWN_METRICS]  # those that are a number anywhere
        head = ["trial", "controller", "loss", "95 % interval", f"× {self.measure}", *names, "failed"]
        lines = []
        for trial in self.trials:
            block = sorted((row for row in self.rows if row.trial == trial), key=_by_loss)
            for place, row in enumerate(block):
                lines.append([trial if place == 0 else "", row.controller, *self._cells(row, names)])
        return table(head, lines, left=2)

    def _cells(self, row: Row, names: list[str]) -> list[str]:
        if row.losses is None:
            return [row.note, *[""] * (3 + len(names))]
        found = row.estimate
        said = ""
        if found.interval is not None:
            said = f"[{number(found.interval[0], DIGITS)}, {number(found.interval[1], DIGITS)}]"
        worse = self.worse(row)
        figures = [number(row.metrics.get(name, math.nan), DIGITS) for name in names]
        failed = f"{row.failures} of {row.episodes}" if row.failures else ""
        ratio = "" if math.isnan(worse) else f"{number(worse)}"
        return [number(found.value, DIGITS), said, ratio, *figures, failed]

    @property
    def caption(self) -> str:
        """What the numbers are."""
        shapes = [row.losses.shape for row in self.rows if row.losses is not None] or [(0, 0)]
        runs, least, most = (
            max(shape[0] for shape in shapes),
            min(shape[1] for shape in shapes),
            max(shape[1] for shape in shapes),
        )
        scenes = counted(most, "scene") if least == most else f"{least} to {counted(most, 'scene')}"
        failing = sorted({row.controller for row in self.rows if row.failures})
        words = (
            f"Mean losses on the plant over {scenes} and up to {counted(runs, 'run')}, with 95 % bootstrap intervals "
            "where there is something to resample."
        )
        if failing:
            words += f" Not finite in some episodes: {', '.join(failing)}."
        return words

    def __str__(self) -> str:
        return f"Trials of controllers on {self.problem}\n{self.table()}\n{self.caption}"

    def record(self) -> dict[str, Any]:
        """Plain values, for JSON; numbers that JSON cannot say are ``None``."""
        return {
            "problem": self.problem,
            "rows": [
                {
                    "controller": row.controller,
                    "trial": row.trial,
                    "loss": _plain(row.estimate.value),
                    "interval": row.estimate.interval and list(row.estimate.interval),
                    "interval over": row.estimate.over,
                    "times the first trial": _plain(self.worse(row)),
                    "metrics": {name: _plain(value) for name, value in row.metrics.items()},
                    "runs": 0 if row.losses is None else len(row.losses),
                    "episodes": row.episodes,
                    "failures": row.failures,
                    "loss of those that did not fail": _plain(row.surviving),
                    "seconds of a decision": _plain(row.seconds),
                    "losses": []
                    if row.losses is None
                    else [[_plain(value) for value in run] for run in row.losses.tolist()],
                    "note": row.note,
                }
                for row in self.rows
            ],
        }

    def save(self, path: str | Path) -> None:
        """Write the record as JSON."""
        Path(path).write_text(json.dumps(self.record(), indent=1) + "\n")

    def plot(self, path: str | Path | None = None) -> Any:
        """A figure: losses of every controller in every trial, with intervals; written to ``path`` if one is given."""
        from dpcontrol.plot import write
        from dpcontrol.trials.figure import trials_figure

        figure = trials_figure(self)
        if path is not None:
            write(figure, path)
        return figure


def _by_loss(row: Row) -> tuple[bool, bool, float]:
    value = row.estimate.value
    return row.losses is None, not math.isfinite(value), value if math.isfinite(value) else 0.0


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None
