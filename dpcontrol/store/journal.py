"""The journal of a run: the answers that a resumed run replays."""

from __future__ import annotations

import hashlib
import math
import os
import struct
import sys
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dpcontrol.results import UsageError
from dpcontrol.store.files import unwritable


class Record(NamedTuple):
    """One answer in a journal: the checksum of its request, elapsed seconds, and arrays as they were appended."""

    request: bytes
    seconds: float
    arrays: list[np.ndarray | Tensor]


MAGIC = b"dpcontrol journal 1\n"
HEAD = struct.Struct("<QI")  # length and CRC-32 of the body
BODY = struct.Struct("<16sdI")  # request, seconds, number of arrays
ARRAY = struct.Struct("<?B4s")  # a tensor?, number of axes, dtype such as <f8; the shape follows


def checksum(*parts: bytes | np.ndarray | Tensor) -> bytes:
    """16 bytes that tell requests apart: they depend on values, dtypes and shapes (BLAKE2b)."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        if not isinstance(part, bytes):
            array = _numpy(part)
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            part = array.tobytes()
        digest.update(struct.pack("<Q", len(part)))
        digest.update(part)
    return digest.digest()


class Journal:
    """An append-only file of answers, which a resumed run replays.

    Opening reads the file through: a last record that is cut off or damaged (the process was killed while it wrote)
    is removed, ``dropped`` says how many bytes that were. A record is handed to the operating system before ``append``
    returns, so that it survives ``kill -9``; a power cut may cost the last seconds.

    Raises:
        UsageError: the file cannot be written, is not a journal, or is in use by another process.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.touch()
            self._file = open(self.path, "r+b")
        except OSError as error:
            raise unwritable(self.path, error) from error
        try:
            _lock(self._file, self.path)
            self._open()
        except BaseException:
            self._file.close()
            raise

    def _open(self) -> None:
        self.count = 0
        beginning = self._file.read(len(MAGIC))
        size = os.fstat(self._file.fileno()).st_size
        if beginning == MAGIC:
            ends = [end for _, end in _records(self._file)]
            self.count, end = len(ends), ends[-1] if ends else len(MAGIC)
        elif MAGIC.startswith(beginning):  # new, or killed at its birth
            end = 0
        else:
            raise UsageError(f"{self.path} is not a journal of dpcontrol; name another folder")
        self.dropped = size - end
        self._file.truncate(end)
        self._file.seek(end)
        if end == 0:
            self._file.write(MAGIC)
            self._file.flush()

    def append(self, request: bytes, seconds: float, arrays: Sequence[np.ndarray | Tensor]) -> None:
        """Add one answer.

        Args:
            request: the 16 bytes of :func:`checksum`.
            seconds: elapsed time, as the run counts it.
            arrays: numpy arrays and tensors of any shape, in native real, complex, integer or boolean dtypes.
        """
        if len(request) != 16:
            raise ValueError(f"a request has 16 bytes, from checksum(); found {len(request)}")
        body = b"".join([BODY.pack(request, seconds, len(arrays)), *(_pack(array) for array in arrays)])
        try:
            self._file.write(HEAD.pack(len(body), zlib.crc32(body)) + body)
            self._file.flush()
        except OSError as error:
            raise unwritable(self.path, error) from error
        self.count += 1

    def replay(self) -> Iterator[Record]:
        """The records in their order, those that were there when the iteration began."""
        wanted = self.count
        with open(self.path, "rb") as file:
            file.seek(len(MAGIC))
            for _, (body, _end) in zip(range(wanted), _records(file), strict=False):
                yield _unpack(body)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _lock(file: BinaryIO, path: Path) -> None:
    """Two runs that append to one journal would ruin it. The lock dies with its process."""
    if sys.platform == "win32":
        return  # Windows has no advisory locks of this kind
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise UsageError(f"{path} is in use by another run; wait for it or name another folder") from error


def _records(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Pairs (body, position behind it) until the first record that is not whole."""
    while len(head := file.read(HEAD.size)) == HEAD.size:
        length, crc = HEAD.unpack(head)
        rest = os.fstat(file.fileno()).st_size - file.tell()
        if not BODY.size <= length <= rest:  # do not ask for the bytes of a damaged length
            return
        body = file.read(length)
        if zlib.crc32(body) != crc:
            return
        yield body, file.tell()


def _numpy(value: np.ndarray | Tensor) -> np.ndarray:
    if not isinstance(value, Tensor):
        return np.asarray(value)
    try:
        return value.detach().cpu().resolve_conj().resolve_neg().numpy()
    except TypeError as error:
        raise UsageError(
            f"a tensor of dtype {value.dtype} cannot be journalled; convert it to float32"
        ) from error


def _pack(value: np.ndarray | Tensor) -> bytes:
    array = _numpy(value)
    if array.dtype.kind not in "biufc":
        raise UsageError(f"an array of dtype {array.dtype} cannot be journalled; use a dtype of numbers")
    head = ARRAY.pack(isinstance(value, Tensor), array.ndim, array.dtype.str.encode())
    return head + struct.pack(f"<{array.ndim}Q", *array.shape) + array.tobytes()


def _unpack(body: bytes) -> Record:
    request, seconds, count = BODY.unpack_from(body)
    position = BODY.size
    arrays: list[np.ndarray | Tensor] = []
    for _ in range(count):
        is_tensor, axes, kind = ARRAY.unpack_from(body, position)
        position += ARRAY.size
        shape = struct.unpack_from(f"<{axes}Q", body, position)
        position += 8 * axes
        dtype = np.dtype(kind.rstrip(b"\0").decode())
        array = np.frombuffer(body, dtype, math.prod(shape), position).reshape(shape).copy()
        position += array.nbytes
        arrays.append(torch.from_numpy(array) if is_tensor else array)
    return Record(request, seconds, arrays)
