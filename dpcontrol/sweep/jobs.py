"""``run_jobs``: independent jobs in this process or in spawned worker processes.

Workers are spawned, never forked (a fork after autograd has run is unsafe), and are not children of
``multiprocessing``, so that a user's script needs no ``if __name__ == "__main__"``. Functions defined in a script or a
notebook travel by value (cloudpickle), those of importable modules by name.
"""

from __future__ import annotations

import os
import queue
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import cloudpickle

from dpcontrol.sweep.interrupt import Interrupts
from dpcontrol.sweep.process import GONE, Message, Process
from dpcontrol.sweep.worker import ERROR, EVENT, INTERRUPTED, VALUE, attempt

OnEvent = Callable[[int, dict[str, Any]], None]


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


class Job(NamedTuple):
    """``function(**kwargs, report=report)``; ``report(dict)`` sends a live event. A plain tuple will do."""

    name: str
    function: Callable[..., Any]
    kwargs: dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    """What became of one job: a ``value``, an ``error`` (a traceback or a sentence), or it was ``interrupted``.

    ``interrupted`` says that the job was not run or not finished because of Ctrl-C. A job that handles
    KeyboardInterrupt itself and returns has a ``value`` as any other.
    """

    name: str
    value: Any = None
    error: str | None = None
    interrupted: bool = False
    seconds: float = 0.0


def run_jobs(
    jobs: Sequence[Job | tuple[str, Callable[..., Any], dict[str, Any]]],
    *,
    workers: int,
    threads_per_worker: int = 1,
    on_event: OnEvent | None = None,
    grace: float = 30.0,
) -> list[Outcome]:
    """Run all jobs and return their outcomes in the order of the jobs.

    Args:
        jobs: triples (name, function, kwargs). The function must take a keyword ``report``.
        workers: processes that live until the last job has ended; 0 runs the jobs here, one after another.
        threads_per_worker: threads of torch, MKL, OpenBLAS and Numba in each worker.
        on_event: called here as ``on_event(index of the job, event)``; a few events per second and job arrive,
            faster ones are merged; of a worker that dies it hears ``{"died": sentence}``. What it raises ends all
            workers and goes through.
        grace: seconds that running jobs get to return after a Ctrl-C. A second Ctrl-C ends them at once.

    A job that raises or a worker that dies gives an ``Outcome`` with an ``error``; the other jobs go on, in a new
    worker if need be. After Ctrl-C no further job is started.

    Raises:
        ValueError: ``workers`` below 0 or ``threads_per_worker`` below 1.
    """
    if workers < 0:
        raise ValueError(f"workers is {workers}; it must be 0 (run in this process) or more")
    if threads_per_worker < 1:
        raise ValueError(f"threads_per_worker is {threads_per_worker}; it must be 1 or more")
    tasks = [Job(*job) for job in jobs]
    listen = on_event if on_event is not None else _ignore
    interrupts = Interrupts()
    with interrupts.watching():
        if workers == 0:
            return [_run_here(index, job, listen, interrupts) for index, job in enumerate(tasks)]
        pool = _Pool(tasks, min(workers, len(tasks)), threads_per_worker, listen, interrupts)
        try:
            return pool.run(grace)
        finally:
            pool.close()


def _ignore(index: int, event: dict[str, Any]) -> None:
    return


def _run_here(index: int, job: Job, on_event: OnEvent, interrupts: Interrupts) -> Outcome:
    start = time.monotonic()
    kind, payload = attempt(
        lambda report: job.function(**job.kwargs, report=report),
        lambda event: on_event(index, event),
        interrupts,
    )
    if kind == INTERRUPTED:
        interrupts.count += 1  # also where the job raised it by itself: the user wants to stop
    return _outcome(job, kind, payload, time.monotonic() - start)


def _outcome(job: Job, kind: str, payload: Any, seconds: float) -> Outcome:
    if kind == VALUE:
        return Outcome(job.name, value=payload, seconds=seconds)
    if kind == ERROR:
        return Outcome(job.name, error=payload, seconds=seconds)
    return Outcome(job.name, interrupted=True, seconds=seconds)


class _Pool:
    """The bookkeeping of one call of ``run_jobs`` with workers."""

    def __init__(
        self, jobs: list[Job], workers: int, threads: int, on_event: OnEvent, interrupts: Interrupts
    ) -> None:
        self._jobs = jobs
        self._threads = threads
        self._on_event = on_event
        self._interrupts = interrupts
        self._waiting = deque(range(len(jobs)))
        self._outcomes: dict[int, Outcome] = {}
        self._started: dict[int, float] = {}
        self._inbox: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._processes = [Process(self._inbox, threads) for _ in range(workers)]

    def run(self, grace: float) -> list[Outcome]:
        for process in list(self._processes):
            self._next_job(process)
        deadline = float("inf")
        while any(process.job is not None for process in self._processes):
            if self._interrupts.count and deadline == float("inf"):
                deadline = time.monotonic() + grace
                self._waiting.clear()
                self._tell_running(Process.interrupt)
            if self._interrupts.count > 1 or time.monotonic() > deadline:
                self._tell_running(Process.kill)
            try:
                process, kind, payload = self._inbox.get(timeout=0.1)
            except queue.Empty:
                continue
            self._handle(process, kind, payload)
        return [
            self._outcomes.get(index, Outcome(job.name, interrupted=True))
            for index, job in enumerate(self._jobs)
        ]

    def _tell_running(self, message: Callable[[Process], None]) -> None:
        for process in self._processes:
            if process.job is not None:
                message(process)

    def _handle(self, process: Process, kind: str, payload: Any) -> None:
        if kind == EVENT:
            assert process.job is not None
            self._on_event(process.job, payload)
            return
        index, process.job = process.job, None
        if kind != GONE:
            assert index is not None
            self._outcomes[index] = _outcome(self._jobs[index], kind, *payload)
            self._next_job(process)
            return
        if index is not None:
            outcome = self._outcomes[index] = self._bury(process, index, payload)
            if outcome.error is not None:
                self._on_event(index, {"died": outcome.error})
        self._processes.remove(process)
        process.close(patience=0)
        if self._waiting:
            self._processes.append(Process(self._inbox, self._threads))
            self._next_job(self._processes[-1])

    def _bury(self, process: Process, index: int, reason: str | None) -> Outcome:
        job, seconds = self._jobs[index], time.monotonic() - self._started[index]
        obituary = process.obituary()
        if self._interrupts.count:
            return Outcome(job.name, interrupted=True, seconds=seconds)
        said = reason if reason is not None else obituary
        error = f"the worker process of the job {job.name!r} {said}; run it with workers=0 to see more"
        return Outcome(job.name, error=error, seconds=seconds)

    def _next_job(self, process: Process) -> None:
        while self._waiting and not self._interrupts.count:
            index = self._waiting.popleft()
            try:
                body = cloudpickle.dumps(tuple(self._jobs[index]))
            except Exception as error:
                text = f"the job cannot be sent to a worker process: {type(error).__name__}: {error}"
                self._outcomes[index] = Outcome(self._jobs[index].name, error=text)
                continue
            self._started[index] = time.monotonic()
            process.start(index, body)
            return

    def close(self) -> None:
        """End all workers: idle ones by a word, busy ones (only after an exception) by force."""
        self._tell_running(Process.kill)
        for process in self._processes:
            process.close(patience=5.0)
