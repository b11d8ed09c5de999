"""Messages between a parent and its worker: a length of 8 bytes, then that many bytes of pickle.

Both ends are the same user's processes on one machine; nothing is ever read from a file or a network.
"""

from __future__ import annotations

import pickle
import struct
from typing import IO, Any

import cloudpickle

LENGTH = struct.Struct("<Q")


class Closed(EOFError):
    """The other end has gone."""


def send(stream: IO[bytes], message: Any) -> None:
    """Write one message. Whatever pickling raises is raised before a byte is written."""
    write(stream, cloudpickle.dumps(message))


def write(stream: IO[bytes], body: bytes) -> None:
    """Write one message that is pickled already."""
    stream.write(LENGTH.pack(len(body)))
    stream.write(body)
    stream.flush()


def read(stream: IO[bytes]) -> bytes:
    """The pickled bytes of the next message; :class:`Closed` where the stream ends, also in mid-message."""
    (length,) = LENGTH.unpack(_exactly(stream, LENGTH.size))
    return _exactly(stream, length)


def receive(stream: IO[bytes]) -> Any:
    """The next message."""
    return pickle.loads(read(stream))


def _exactly(stream: IO[bytes], count: int) -> bytes:
    body = stream.read(count)  # a buffered stream blocks until it has them all
    if len(body) < count:
        raise Closed
    return body
