"""Ctrl-C while jobs run: a count that is looked at, and one KeyboardInterrupt inside the job that is running.

A KeyboardInterrupt that may come at any instruction would tear messages in two; so the signal is only counted,
and raised where a job has said that it may be (:meth:`Interrupts.job`).
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class Interrupts:
    """Counts SIGINT. ``limit`` bounds how often one job is interrupted."""

    def __init__(self, limit: int | None = None) -> None:
        self.count = 0
        self._limit = limit
        self._armed = False
        self._raised = 0

    def handle(self, number: int, frame: FrameType | None) -> None:
        """The signal handler."""
        self.count += 1
        if self._armed and (self._limit is None or self._raised < self._limit):
            self._raised += 1
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def job(self) -> Iterator[None]:
        """Inside, the signal raises KeyboardInterrupt; at once if it came before."""
        self._raised = 0
        try:
            self._armed = True
            if self.count:
                self._raised = 1
                raise KeyboardInterrupt
            yield
        finally:
            self._armed = False

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Inside, a signal waits: it raises its KeyboardInterrupt at the end of the block."""
        armed, before = self._armed, self.count
        self._armed = False
        try:
            yield
        finally:
            self._armed = armed
        if armed and self.count > before and (self._limit is None or self._raised < self._limit):
            self._raised += 1
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Handle SIGINT inside the block, and as before after it.

        Python delivers signals to the main thread only; elsewhere, and where the shell has switched SIGINT off
        (``nohup``, ``&``), nothing is installed.
        """
        elsewhere = threading.current_thread() is not threading.main_thread()
        if elsewhere or signal.getsignal(signal.SIGINT) in (signal.SIG_IGN, None):
            yield
            return
        before = signal.signal(signal.SIGINT, self.handle)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)
