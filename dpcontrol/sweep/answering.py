"""The process that answers calls of one function: lists of calls come in, lists of answers go out.

What the function prints goes to standard error. When the parent disappears, even by ``kill -9``, the input ends and the
process with it, in the middle of a call if need be.
"""

from __future__ import annotations

import os
import pickle
import queue
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import cloudpickle

from dpcontrol.sweep import wire
from dpcontrol.sweep.worker import take_pipes

# Each answer is a pair of one of these and a value or a sentence.
VALUE, ERROR = "value", "error"


def main() -> None:
    """The first message is the function, pickled by itself; every further one a list of ``(arguments, keywords)``."""
    requests, answers = take_pipes()
    messages: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(requests, messages), daemon=True).start()
    # unpickled here alone: two threads that import the same modules at once may each see half of them
    function = _loaded(pickle.loads(messages.get()))
    while True:
        calls = pickle.loads(messages.get())
        found = [_answer(function, *call) for call in calls]
        try:
            packed = cloudpickle.dumps(found)
        except Exception as error:
            said = f"returned something that cannot be sent to another process ({type(error).__name__})"
            packed = cloudpickle.dumps([(ERROR, said)] * len(found))
        wire.write(answers, packed)


def _listen(requests: BinaryIO, messages: queue.SimpleQueue[bytes]) -> None:
    while True:
        try:
            messages.put(wire.read(requests))
        except wire.Closed:
            os._exit(0)  # nobody waits for an answer


def _loaded(pickled: bytes) -> Callable[..., Any]:
    """The function, or one that says why it could not be loaded."""
    try:
        return pickle.loads(pickled)
    except (Exception, SystemExit) as error:
        said = f"cannot be loaded in another process, {_where(error)}"

        def refuse(*_: Any, **__: Any) -> Any:
            raise RuntimeError(said)

        return refuse


def _answer(
    function: Callable[..., Any], arguments: tuple[Any, ...], keywords: dict[str, Any]
) -> tuple[str, Any]:
    try:
        return VALUE, function(*arguments, **keywords)
    except (Exception, SystemExit) as error:
        return ERROR, f"failed with {_where(error)}"


def _where(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    place = f" (line {frames[-1].lineno} of {Path(frames[-1].filename).name})" if frames else ""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}{place}"
