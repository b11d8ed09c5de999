"""The process that jobs run in: reads jobs from its standard input, answers on its former standard output.

What a job prints goes to standard error, so that it cannot end up among the answers; what it reads is empty. When the
parent disappears, even by ``kill -9``, the input ends and the worker with it, in the middle of a job if need be.
"""

from __future__ import annotations

import os
import pickle
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any, BinaryIO

import cloudpickle

from dpcontrol.sweep import wire
from dpcontrol.sweep.interrupt import Interrupts
from dpcontrol.sweep.report import Report

# The kinds of message from a worker to its parent; each message is a pair (kind, payload).
EVENT, VALUE, ERROR, INTERRUPTED = "event", "value", "error", "interrupted"
# Messages from the parent: the pickled bytes of a job (name, function, kwargs), or one of these.
STOP, INTERRUPT = "stop", "interrupt"


def attempt(
    call: Callable[[Report], Any], send: Callable[[dict[str, Any]], None], interrupts: Interrupts
) -> tuple[str, Any]:
    """Run one job and say how it ended: ``(VALUE, value)``, ``(ERROR, text)`` or ``(INTERRUPTED, None)``."""

    def send_whole(event: dict[str, Any]) -> None:
        with interrupts.held():  # half a message would be the end of the worker
            send(event)

    report = Report(send_whole)
    try:
        with interrupts.job():
            try:
                answer: tuple[str, Any] = (VALUE, call(report))
            except (Exception, SystemExit):
                answer = (ERROR, traceback.format_exc())
    except KeyboardInterrupt:
        answer = (INTERRUPTED, None)
    report.flush()
    return answer


def main(threads: int) -> None:
    """Serve jobs until the parent says stop or is gone. ``threads`` are those of torch, if a job imports it."""
    requests, answers = take_pipes()
    interrupts = Interrupts(limit=1)
    signal.signal(signal.SIGINT, interrupts.handle)
    if os.name == "posix":  # the parent blocked it, so that none arrives before the handler is there
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    jobs: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(requests, jobs, interrupts), daemon=True).start()
    while (body := jobs.get()) is not None:
        _serve(body, answers, interrupts, threads)


def take_pipes() -> tuple[BinaryIO, BinaryIO]:
    """The two pipes on numbers of their own; 0 becomes empty, and 1 the same as 2."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return requests, answers


def _listen(requests: BinaryIO, jobs: queue.SimpleQueue[bytes | None], interrupts: Interrupts) -> None:
    while True:
        try:
            message = wire.receive(requests)
        except wire.Closed:
            os._exit(1)  # the parent is gone: nobody waits for an answer
        if message == STOP:
            jobs.put(None)
            return
        if message == INTERRUPT:
            if not interrupts.count:  # a Ctrl-C at the terminal has reached this process by itself
                _interrupt_main_thread()
        else:
            interrupts.count = 0  # meant for an earlier job; if not, the parent will say INTERRUPT
            jobs.put(message)


def _interrupt_main_thread() -> None:
    if os.name == "posix":  # ends a sleep or a read as well
        main_thread = threading.main_thread().ident
        assert main_thread is not None
        signal.pthread_kill(main_thread, signal.SIGINT)
    else:
        import _thread

        _thread.interrupt_main()


def _serve(body: bytes, answers: BinaryIO, interrupts: Interrupts, threads: int) -> None:
    def call(report: Report) -> Any:
        _, function, kwargs = pickle.loads(body)
        if "torch" in sys.modules:  # otherwise the environment variables will tell it
            sys.modules["torch"].set_num_threads(threads)
        return function(**kwargs, report=report)

    start = time.monotonic()
    kind, payload = attempt(call, lambda event: wire.send(answers, (EVENT, event)), interrupts)
    seconds = time.monotonic() - start
    sys.stdout.flush()
    try:
        packed = cloudpickle.dumps((kind, (payload, seconds)))
    except Exception:
        text = f"the answer cannot be sent to the parent process\n{traceback.format_exc()}"
        packed = cloudpickle.dumps((ERROR, (text, seconds)))
    wire.write(answers, packed)
