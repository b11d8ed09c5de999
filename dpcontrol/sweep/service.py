"""A function that long-lived processes answer: calls go in, answers or reasons come out, and nothing hangs."""

from __future__ import annotations

import itertools
import queue
import time
import weakref
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from dpcontrol.sweep.answering import ERROR
from dpcontrol.sweep.child import ANSWERS, GARBAGE, GONE, Answer, Call, Child, Speech

STARTING = (
    60.0  # seconds that a process gets beyond the time limit until its first answer: imports, licence servers
)
LISTENING = 0.5  # seconds after which a signal is noticed at the latest, whichever thread it came to
GOODBYE = 2.0  # seconds that a process gets to end by itself


@dataclass
class _Task:
    """Calls that one process is asked at a time, and what has been answered of them."""

    places: list[int]
    deadline: float = 0.0
    answers: list[Answer] = field(default_factory=list)


class Service:
    """Up to ``workers`` processes, started when they are first needed, that answer calls until :meth:`close`.

    A process that crashes, hangs or answers nonsense is ended and replaced. An exception while waiting, Ctrl-C among
    them, ends those that are busy. All are ended when the service is collected or the interpreter exits.
    """

    def __init__(self, speech: Speech, workers: int, timeout: float) -> None:
        self._speech = speech
        self._workers = workers
        self._timeout = timeout
        self._inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._children: list[Child] = []
        self._finalizer = weakref.finalize(self, _end_all, self._children)

    def ask(self, calls: Sequence[Call]) -> list[Answer]:
        """An answer for each call: ``(VALUE, value)``, or ``(ERROR, phrase)`` for one that failed.

        Calls that share a process with one that kills it are asked again, one by one.

        Raises:
            FileNotFoundError, PermissionError: if the program cannot be started.
        """
        found: dict[int, Answer] = {}
        waiting = deque(_Task(part) for part in _shares(len(calls), self._workers))
        busy: dict[Child, _Task] = {}
        try:
            while waiting or busy:
                self._hand_out(calls, waiting, busy)
                self._hear(waiting, busy, found)
        except BaseException:
            for child in busy:
                self._end(child)
            raise
        return [found[place] for place in range(len(calls))]

    def close(self) -> None:
        """End all processes; another :meth:`ask` would start new ones."""
        _end_all(self._children)

    def _hand_out(self, calls: Sequence[Call], waiting: deque[_Task], busy: dict[Child, _Task]) -> None:
        while waiting and len(busy) < self._workers:
            idle = [child for child in self._children if child not in busy]
            if not idle:
                idle = [Child(self._speech, self._inbox)]
                self._children += idle
            child, task = idle[0], waiting.popleft()
            busy[child] = task
            allowed = self._timeout * len(task.places) + (STARTING if child.fresh else 0.0)
            task.deadline = time.monotonic() + allowed
            child.ask([calls[place] for place in task.places])

    def _hear(self, waiting: deque[_Task], busy: dict[Child, _Task], found: dict[int, Answer]) -> None:
        """Wait for one message, or for the first deadline."""
        first = min(busy, key=lambda child: busy[child].deadline)
        patience = busy[first].deadline - time.monotonic()
        try:
            child, kind, payload = self._inbox.get(timeout=min(max(patience, 0.0), LISTENING))
        except queue.Empty:
            if patience > LISTENING:
                return
            self._end(first)
            self._failed(busy.pop(first), f"did not answer within {self._timeout:g} s", waiting, found)
            return
        if child not in busy:  # one that was idle has ended, or one that has been ended already speaks
            if child in self._children:
                self._end(child)
            return
        task = busy[child]
        if kind == ANSWERS:
            child.fresh = False
            task.answers += payload
            if len(task.answers) >= len(task.places):
                found.update(zip(task.places, task.answers, strict=False))
                del busy[child]
            return
        how = self._end(child, GOODBYE if kind == GONE else 0.0)
        said = f"answered with {payload}" if kind == GARBAGE else how
        self._failed(busy.pop(child), said, waiting, found)

    def _failed(self, task: _Task, said: str, waiting: deque[_Task], found: dict[int, Answer]) -> None:
        found.update(zip(task.places, task.answers, strict=False))
        left = task.places[len(task.answers) :]
        if len(left) == 1:
            found[left[0]] = (ERROR, said)
        else:
            waiting.extend(_Task([place]) for place in left)

    def _end(self, child: Child, patience: float = 0.0) -> str:
        self._children.remove(child)
        return child.end(patience)


def _shares(count: int, workers: int) -> list[list[int]]:
    """``0 .. count - 1`` in at most ``workers`` runs of about the same length."""
    parts = min(workers, count)
    edges = [count * part // parts for part in range(parts + 1)] if parts else [0]
    return [list(range(a, b)) for a, b in itertools.pairwise(edges)]


def _end_all(children: list[Child]) -> None:
    while children:
        children.pop().end(GOODBYE)
