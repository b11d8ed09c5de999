"""A long-lived process that answers calls, as its parent sees it: a Python function, or a program that speaks JSON."""

from __future__ import annotations

import abc
import contextlib
import json
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import IO, Any

import cloudpickle

from dpcontrol.sweep import wire
from dpcontrol.sweep.answering import ERROR, VALUE
from dpcontrol.sweep.process import THREAD_VARIABLES

Call = tuple[tuple[Any, ...], dict[str, Any]]
Answer = tuple[str, Any]  # (VALUE, what came back) or (ERROR, a phrase that says what went wrong)

# Kinds of message from a child: a list of answers, nonsense (a phrase), or its end.
ANSWERS, GARBAGE, GONE = "answers", "garbage", "gone"

START = """import json, sys
sys.path[:] = json.loads(sys.argv.pop())
from dpcontrol.sweep.answering import main
main()"""


class Speech(abc.ABC):
    """How a child is started and spoken to."""

    @abc.abstractmethod
    def command(self) -> list[str]:
        """What is started."""

    @abc.abstractmethod
    def greet(self, stream: IO[bytes]) -> None:
        """Write what it must know before the first call."""

    @abc.abstractmethod
    def ask(self, stream: IO[bytes], calls: Sequence[Call]) -> None:
        """Write some calls."""

    @abc.abstractmethod
    def hear(self, stream: IO[bytes]) -> list[Answer]:
        """Read the next answers, one or more; :class:`wire.Closed` at the end, ``ValueError`` for nonsense."""

    def environment(self) -> dict[str, str]:
        """The child's environment variables."""
        return dict(os.environ)


@dataclass(frozen=True)
class PythonSpeech(Speech):
    """A function in a fresh interpreter with one thread per library, by pickled messages."""

    function: Callable[..., Any]

    def command(self) -> list[str]:
        return [sys.executable, "-c", START, json.dumps(sys.path)]

    def environment(self) -> dict[str, str]:
        return os.environ | dict.fromkeys(THREAD_VARIABLES, "1")

    def greet(self, stream: IO[bytes]) -> None:
        wire.send(stream, cloudpickle.dumps(self.function))

    def ask(self, stream: IO[bytes], calls: Sequence[Call]) -> None:
        wire.send(stream, list(calls))

    def hear(self, stream: IO[bytes]) -> list[Answer]:
        body = wire.read(stream)
        try:
            return list(pickle.loads(body))
        except Exception as error:
            raise ValueError(f"something that cannot be unpickled here ({type(error).__name__})") from error


@dataclass(frozen=True)
class JsonSpeech(Speech):
    """A program that reads a line of JSON for each call, an object of the keywords, and answers with a line of JSON."""

    arguments: tuple[str, ...]

    def command(self) -> list[str]:
        return list(self.arguments)

    def greet(self, stream: IO[bytes]) -> None:
        return

    def ask(self, stream: IO[bytes], calls: Sequence[Call]) -> None:
        lines = (json.dumps(keywords, default=lambda array: array.tolist()) for _, keywords in calls)
        stream.write("".join(f"{line}\n" for line in lines).encode())
        stream.flush()

    def hear(self, stream: IO[bytes]) -> list[Answer]:
        line = stream.readline()
        if not line.endswith(b"\n"):
            raise wire.Closed
        try:
            found = json.loads(line)
        except ValueError:
            shown = line.decode(errors="replace").strip()[:80]
            raise ValueError(f"a line that is no JSON, {shown!r}") from None
        if isinstance(found, dict) and "error" in found:
            return [(ERROR, f"said {str(found['error'])[:200]!r}")]
        return [(VALUE, found)]


class Child:
    """One process. Its messages are put into ``inbox`` as ``(child, kind, payload)``, GONE comes last.

    It has a session of its own, so that a Ctrl-C at the terminal does not reach it and everything that it has started
    can be ended with it.
    """

    def __init__(self, speech: Speech, inbox: queue.SimpleQueue[Any]) -> None:
        self.fresh = True  # no answer yet: it may still be starting
        self._speech = speech
        self._process = subprocess.Popen(
            speech.command(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=speech.environment(),
            start_new_session=True,
        )
        self._letters: queue.SimpleQueue[Callable[[IO[bytes]], None] | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._listen, args=(inbox,), daemon=True),
            threading.Thread(target=self._write, daemon=True),  # a child that does not read would block us
        ]
        for thread in self._threads:
            thread.start()
        self._letters.put(speech.greet)

    def ask(self, calls: Sequence[Call]) -> None:
        """Hand over calls. A child that has died says so by its GONE message."""
        self._letters.put(lambda stream: self._speech.ask(stream, calls))

    def _write(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError), self._process.stdin as stream:
            while (letter := self._letters.get()) is not None:
                letter(stream)

    def _listen(self, inbox: queue.SimpleQueue[Any]) -> None:
        assert self._process.stdout is not None
        try:
            while True:
                inbox.put((self, ANSWERS, self._speech.hear(self._process.stdout)))
        except wire.Closed:
            pass
        except ValueError as error:
            inbox.put((self, GARBAGE, str(error)))
        inbox.put((self, GONE, None))

    def end(self, patience: float = 0.0) -> str:
        """End its input, wait so many seconds for it to end by itself, then end it and all that it started.

        Returns how it ended, in words.
        """
        self._letters.put(None)
        try:
            code = self._process.wait(patience) if patience else self._process.poll()
        except subprocess.TimeoutExpired:
            code = None
        self._kill_group()
        self._process.wait()
        for thread in self._threads:
            if thread is not threading.current_thread():  # a garbage collection may run anywhere
                thread.join()
        assert self._process.stdout is not None
        self._process.stdout.close()
        if code is None:
            return "was ended"
        if code >= 0:
            return f"ended with exit code {code}"
        return f"was killed by signal {-code} ({_signal_name(-code)})"

    def _kill_group(self) -> None:
        if os.name == "posix":
            with contextlib.suppress(ProcessLookupError, PermissionError):  # nobody is left in it
                os.killpg(self._process.pid, signal.SIGKILL)
        elif self._process.poll() is None:
            self._process.kill()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"
