"""Live events of a job, at most a few per second."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

INTERVAL = 0.25  # seconds between two events of one job


class Report:
    """What a job gets as keyword ``report``: call it as often as you like with a dict.

    Events that come too fast are merged (later values win) and sent with the next one, the last of them by
    :meth:`flush`, so that no key is lost.
    """

    def __init__(self, send: Callable[[dict[str, Any]], None], interval: float = INTERVAL) -> None:
        self._send = send
        self._interval = interval
        self._waiting: dict[str, Any] = {}
        self._sent = -float("inf")

    def __call__(self, event: dict[str, Any]) -> None:
        self._waiting.update(event)
        if time.monotonic() - self._sent >= self._interval:
            self.flush()

    def flush(self) -> None:
        """Send what waits."""
        if self._waiting:
            event, self._waiting = self._waiting, {}
            self._sent = time.monotonic()
            self._send(event)
