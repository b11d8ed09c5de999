"""Live progress of many runs: a redrawn block on a terminal, a line when a run starts and ends elsewhere."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TextIO

WIDTH = 14  # of a bar
REDRAW_SECONDS = 0.2


@dataclass
class _Row:
    label: str
    group: str = ""
    state: str = "waiting"
    loss: float | None = None
    fraction: float = 0.0
    began: float = 0.0
    heard: float = 0.0
    seconds: float = 0.0
    text: str = ""
    spent: dict[str, Any] = field(default_factory=dict)


class Display:
    """Told about runs by :meth:`event`; writes to ``stream``.

    Args:
        labels: one for each job.
        workers: how many jobs run at the same time.
        stream: a terminal gets a block that is drawn over and over.
        limit: seconds that a run may take at most, if the budget says so.
    """

    def __init__(
        self, labels: Sequence[str], workers: int, stream: TextIO, limit: float | None = None
    ) -> None:
        self._rows = [_Row(label, label.rsplit(", seed ", 1)[0]) for label in labels]
        self._workers = max(1, workers)
        self._stream = stream
        self._limit = limit
        self._live = stream.isatty()
        self._drawn = 0
        self._last = -float("inf")
        self._began = time.monotonic()
        self._width = max((len(label) for label in labels), default=0)

    def event(self, index: int, event: dict[str, Any]) -> None:
        """Take in what a run says: ``state`` (started, ended), ``loss``, ``fraction``, ``text``."""
        row = self._rows[index]
        row.heard = time.monotonic()
        if row.state == "waiting":
            self._start(row)
        row.loss = event.get("loss", row.loss)
        row.fraction = event.get("fraction", row.fraction)
        if event.get("state") == "ended":
            row.state, row.seconds, row.text = "ended", row.heard - row.began, event.get("text", "")
            self._say(self._ended(row))
        elif self._live and row.heard - self._last > REDRAW_SECONDS:
            self._redraw()

    def close(self) -> None:
        """Remove the block."""
        if self._live:
            self._erase()
            self._stream.flush()

    def _start(self, row: _Row) -> None:
        running = [other for other in self._rows if other.state == "running"]
        if len(running) >= self._workers:  # a worker that died could not say so
            silent = min(running, key=lambda other: other.heard)
            silent.state, silent.text = "ended", "its worker process died"
            self._say(self._ended(silent))
        row.state, row.began = "running", row.heard
        if not self._live:
            self._say(f"{row.label.ljust(self._width)}  started")

    def _say(self, line: str) -> None:
        self._erase()
        print(line, file=self._stream, flush=True)
        if self._live:
            self._redraw()

    def _ended(self, row: _Row) -> str:
        done = sum(other.state == "ended" for other in self._rows)
        return (
            f"{row.label.ljust(self._width)}  {_loss(row.loss)}  {row.seconds:6.1f} s  {row.text}"
            f"  ({done} of {len(self._rows)}, {_left(self.seconds_left())})"
        )

    def _erase(self) -> None:
        if self._drawn:
            self._stream.write(f"\x1b[{self._drawn}F\x1b[J")
            self._drawn = 0

    def _redraw(self) -> None:
        now = time.monotonic()
        self._erase()
        columns = shutil.get_terminal_size((100, 24)).columns - 1
        running = [row for row in self._rows if row.state == "running"]
        lines = [self._running(row, now) for row in running]
        done = sum(row.state == "ended" for row in self._rows)
        waiting = len(self._rows) - done - len(running)
        lines.append(
            f"{done} of {len(self._rows)} runs done, {len(running)} running, {waiting} waiting; "
            f"{now - self._began:.0f} s so far, {_left(self.seconds_left())}"
        )
        self._stream.write("".join(f"{line[:columns]}\n" for line in lines))
        self._stream.flush()
        self._drawn, self._last = len(lines), now

    def _running(self, row: _Row, now: float) -> str:
        filled = round(WIDTH * row.fraction)
        bar = "█" * filled + "·" * (WIDTH - filled)
        share = f"{100 * row.fraction:3.0f} % of budget"
        return f"{row.label.ljust(self._width)}  {_loss(row.loss)}  {now - row.began:6.1f} s  {bar} {share}"

    def seconds_left(self) -> float | None:
        """An upper estimate of the time that is left: runs may end before their budget. ``None``: nothing is known yet.

        A running job is extrapolated from the share of its budget that is gone, a waiting one takes as long as those
        of its strategy that ended, or else as the longest that a budget lasted; they are dealt out to the workers.
        """
        now = time.monotonic()
        ended = [row for row in self._rows if row.state == "ended"]
        running = [row for row in self._rows if row.state == "running"]
        whole = {row.label: (now - row.began) / row.fraction for row in running if row.fraction > 0.0}
        # only runs that use up their budget tell about those that have not begun
        spent = [row.seconds for row in ended if row.fraction > 0.98]
        longest = max([*spent, *whole.values()], default=self._limit)
        if longest is None:
            return None
        longest = longest if self._limit is None else min(longest, self._limit)

        def expected(row: _Row) -> float:
            known = [other.seconds for other in ended if other.group == row.group]
            return sum(known) / len(known) if known else longest

        rest = [max(0.0, whole.get(row.label, expected(row)) - (now - row.began)) for row in running]
        free = sorted(rest + [0.0] * max(0, self._workers - len(rest)))
        for row in self._rows:
            if row.state == "waiting":
                free = sorted([free[0] + expected(row), *free[1:]])
        return max(free)


def _loss(loss: float | None) -> str:
    return "loss " + (f"{loss:<11.5g}" if loss is not None else "–".ljust(11))


def _left(seconds: float | None) -> str:
    if seconds is None:
        return "time left not known yet"
    if seconds < 0.5:
        return "nothing left"
    return (
        f"at most about {seconds:.0f} s left"
        if seconds < 90
        else f"at most about {seconds / 60:.1f} min left"
    )
