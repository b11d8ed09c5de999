"""A worker process as its parent sees it."""

from __future__ import annotations

import json
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
from typing import Any

from dpcontrol.sweep import wire
from dpcontrol.sweep.worker import INTERRUPT, STOP

GONE = "gone"  # the kind of the last message of every worker

# Not `-m`: the module search path of the parent, which a script or a test may have extended, comes first.
START = """import json, sys
sys.path[:] = json.loads(sys.argv.pop())
from dpcontrol.sweep.worker import main
main({threads})"""

# Read once, when the libraries are loaded, so they cannot be set later.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")

Message = tuple["Process", str, Any]


class Process:
    """One spawned worker. Its messages are put into ``inbox`` as ``(process, kind, payload)``, GONE comes last."""

    def __init__(self, inbox: queue.SimpleQueue[Message], threads: int) -> None:
        self.job: int | None = None  # the index of the job that it works on
        command = [sys.executable, "-c", START.format(threads=threads), json.dumps(sys.path)]
        environment = os.environ | dict.fromkeys(THREAD_VARIABLES, str(threads))
        with _sigint_blocked():
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
            )
        self._thread = threading.Thread(target=self._listen, args=(inbox,), daemon=True)
        self._thread.start()

    def _listen(self, inbox: queue.SimpleQueue[Message]) -> None:
        assert self._process.stdout is not None
        try:
            while True:
                kind, payload = pickle.loads(wire.read(self._process.stdout))
                inbox.put((self, kind, payload))
        except wire.Closed:
            reason = None
        except Exception as error:  # what a job returned cannot be unpickled here: this is said about the job
            reason = f"its answer cannot be read: {error}"
            self._process.kill()
        inbox.put((self, GONE, reason))

    def start(self, job: int, body: bytes) -> None:
        """Hand over a job. A worker that has died says so by its GONE message."""
        self.job = job
        self._send(body)

    def interrupt(self) -> None:
        """Raise KeyboardInterrupt in the running job, unless a Ctrl-C has done so already."""
        self._send(INTERRUPT)

    def _send(self, message: Any) -> None:
        assert self._process.stdin is not None
        try:
            wire.send(self._process.stdin, message)
        except BrokenPipeError:
            pass  # it has died; GONE is on its way

    def kill(self) -> None:
        """End it now."""
        self._process.kill()

    def close(self, patience: float) -> None:
        """Ask it to stop, and kill it if it has not stopped after ``patience`` seconds."""
        self._send(STOP)
        try:
            self._process.wait(patience)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._thread.join()  # it reads to the end of the pipe that is closed next
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            try:
                pipe.close()
            except BrokenPipeError:
                pass  # unsent bytes for a process that has died

    def obituary(self) -> str:
        """How it died, in words."""
        code = self._process.wait()
        if code >= 0:
            return f"ended with exit code {code}"
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = "unknown"
        hint = ", often a sign of too little memory" if name == "SIGKILL" else ""
        return f"was killed by signal {-code} ({name}{hint})"


class _sigint_blocked:
    """SIGINT waits while a child is started: the child inherits this until its handler is there."""

    def __enter__(self) -> None:
        if os.name == "posix":
            self._before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})

    def __exit__(self, *_: object) -> None:
        if os.name == "posix":
            signal.pthread_sigmask(signal.SIG_SETMASK, self._before)
