"""Generated data in the user's cache folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

from dpcontrol.caching import cache_folder
from dpcontrol.store.files import to_json
from dpcontrol.store.trees import HEADER, SUFFIX, load, save
from dpcontrol.tree import Tree


def cached(key: dict[str, Any], make: Callable[[], Tree]) -> Tree:
    """The tree that ``make()`` generates, from the user's cache folder where it is there already.

    Args:
        key: plain values that say all that the data depend on: name, sizes, seeds, parameters, and a version that
            changes with the code that makes them.
        make: generates the data, a tree that :func:`save` can store.

    The first call and later ones return the same: tensors on the CPU, without history.

    Raises:
        UsageError: the folder cannot be written to (set ``DPCONTROL_CACHE``), or a cached file is broken.
    """
    text = json.dumps(to_json({"format": HEADER, "key": key}, "the key", None), sort_keys=True)
    name = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
    file = cache_folder() / f"{name}{SUFFIX}"
    if not file.is_file():
        save(file, make(), {"key": key})
    return load(file)[0]
