"""Generated data that do not fit into memory: filled part by part, read through memory maps."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dpcontrol.caching import cache_folder
from dpcontrol.results import UsageError
from dpcontrol.store.files import from_json, to_json, unwritable
from dpcontrol.tree import Tree

FORMAT = "dpcontrol arrays 1"  # a change that older files cannot be read with needs another number
INDEX = "index.json"


def cached_rows(key: dict[str, Any], count: int, parts: Callable[[], Iterable[Tree]]) -> Tree:
    """A tree of tensors with ``count`` rows each, from the user's cache folder where it is there already.

    Each tensor is one ``.npy`` file, which is mapped into memory: what is not looked at is not read, and rows that lie
    one after the other in a file are read together. A process that changes such a tensor changes its own copy.

    Args:
        key: plain values that say all that the data depend on, as for :func:`~dpcontrol.store.cache.cached`.
        count: number of rows.
        parts: ``parts()`` yields the tree in pieces, leaves ``(some, ...)``, ``count`` rows in all, so that one piece
            at a time needs to be in memory. A folder appears only when it is complete.

    Raises:
        UsageError: the folder cannot be written to (set ``DPCONTROL_CACHE``), or what is there is broken.
    """
    text = json.dumps(
        to_json({"format": FORMAT, "key": key, "count": count}, "the key", None), sort_keys=True
    )
    folder = cache_folder() / hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
    if not (folder / INDEX).is_file():
        _fill(folder, key, count, parts)
    return _opened(folder)


def _fill(folder: Path, key: dict[str, Any], count: int, parts: Callable[[], Iterable[Tree]]) -> None:
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        temporary.mkdir(parents=True)
        node = _written(temporary, count, parts())
        index = {"tree": node, "key": to_json(key, "the key", None)}
        (temporary / INDEX).write_text(json.dumps(index), encoding="utf-8")
        _rename(temporary, folder)
    except OSError as error:
        raise unwritable(folder, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _rename(temporary: Path, folder: Path) -> None:
    """Another process may have made the same in the meantime: then its folder stays."""
    try:
        os.rename(temporary, folder)
    except OSError:
        if not (folder / INDEX).is_file():
            raise


def _written(folder: Path, count: int, parts: Iterable[Tree]) -> Any:
    """Write the pieces into files of ``count`` rows; the structure of the tree, as JSON."""
    node, arrays, row = None, {}, 0
    for part in parts:
        tensors: dict[str, Tensor] = {}
        node = to_json(part, "the data", tensors)
        rows = {len(tensor) for tensor in tensors.values()}
        if len(rows) != 1 or row + (some := rows.pop()) > count:
            raise ValueError(f"parts must have the same rows in every tensor, {count} in all")
        for name, tensor in tensors.items():
            values = tensor.numpy()
            if name not in arrays:
                shape = (count, *values.shape[1:])
                arrays[name] = np.lib.format.open_memmap(
                    folder / f"{name}.npy", mode="w+", dtype=values.dtype, shape=shape
                )
            arrays[name][row : row + some] = values
        row += some
    if row != count:
        raise ValueError(f"parts must have {count} rows in all; found {row}")
    for array in arrays.values():
        array.flush()
    return node


def _opened(folder: Path) -> Tree:
    def mapped(name: str) -> Tensor:
        # copy on write: torch wants memory that may be written to
        return torch.from_numpy(np.load(folder / f"{name}.npy", mmap_mode="c"))

    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        return from_json(index["tree"], mapped)
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(f"{folder} is broken ({error}); delete it and run again") from error
