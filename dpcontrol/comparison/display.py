"""Live progress of many runs: a redrawn block on a terminal, a line when a run starts and ends elsewhere."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TextIO

from dpcontrol import sweep
from dpcontrol.comparison import pace

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
        """Take in what a run says: ``state`` (started, ended), ``loss``, ``fraction``, ``text``; or how it ``died``."""
        row = self._rows[index]
        row.heard = time.monotonic()
        if row.state == "waiting":
            self._start(row)
        row.loss = event.get("loss", row.loss)
        row.fraction = event.get("fraction", row.fraction)
        if event.get("state") == "ended" or "died" in event:
            row.state, row.seconds = "ended", row.heard - row.began
            row.text = event["died"] if "died" in event else event.get("text", "")
            self._say(self._ended(row))
        elif self._live and row.heard - self._last > REDRAW_SECONDS:
            self._redraw()

    def close(self) -> None:
        """Remove the block."""
        if self._live:
            self._erase()
            self._stream.flush()

    def _start(self, row: _Row) -> None:
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
            f"  ({done} of {len(self._rows)}{self._rest(done)})"
        )

    def _rest(self, done: int) -> str:
        return "" if done == len(self._rows) else f", {_left(self.seconds_left())}"

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
        """The expected time that is left; ``None`` as long as nothing tells."""
        now = time.monotonic()
        rows = self._rows
        return pace.seconds_left(
            [pace.Ended(row.group, row.seconds, row.fraction) for row in rows if row.state == "ended"],
            [
                pace.Running(row.group, now - row.began, row.fraction)
                for row in rows
                if row.state == "running"
            ],
            [row.group for row in rows if row.state == "waiting"],
            self._workers,
            self._limit,
        )


def run_shown(
    jobs: Sequence[sweep.Job], labels: Sequence[str], workers: int | None, limit: float | None, shown: bool
) -> list[sweep.Outcome]:
    """Run jobs in as many processes (one for each core by default), with their progress on standard error."""
    processes = min(sweep.cores() if workers is None else workers, len(jobs))
    display = Display(labels, processes, sys.stderr, limit) if shown else None
    try:
        return sweep.run_jobs(jobs, workers=processes, on_event=None if display is None else display.event)
    finally:
        if display is not None:
            display.close()


def _loss(loss: float | None) -> str:
    return "loss " + (f"{loss:<11.5g}" if loss is not None else "–".ljust(11))


def _left(seconds: float | None) -> str:
    if seconds is None:
        return "time left not known yet"
    if seconds < 1.0:
        return "less than 1 s left"
    return f"about {seconds:.0f} s left" if seconds < 90 else f"about {seconds / 60:.1f} min left"
