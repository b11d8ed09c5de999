"""Trees of tensors on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from dpcontrol.results import UsageError
from dpcontrol.store.files import from_json, replacing, to_json
from dpcontrol.tree import Tree

SUFFIX = ".safetensors"
HEADER = "dpcontrol tree 1"  # a change that older files cannot be read with needs another number


def save(path: str | Path, tree: Tree, info: dict[str, Any] | None = None) -> Path:
    """Store a tree and some plain values as one file; the path of that file.

    Args:
        path: a file ``*.safetensors``, or a folder, in which the file is called ``tree.safetensors``.
        tree: nested dicts (with strings as keys), lists and tuples of tensors, None, bool, int, float and str.
        info: plain values that belong to it, nested in the same way.

    Tensors are stored without their history and come back on the CPU; dtypes (complex ones too) and every bit of
    floats, also nan and inf, are kept. The tensors are a safetensors file, the structure is JSON in its header.

    Raises:
        UsageError: something cannot be stored, or the folder cannot be written to.
    """
    file = _tree_file(path)
    tensors: dict[str, Tensor] = {}
    content = {"tree": to_json(tree, "the tree", tensors), "info": to_json(info or {}, "info", None)}
    # One entry only: safetensors writes several in random order, and the same tree should give the same bytes.
    header = {HEADER: json.dumps(content)}
    with replacing(file) as temporary:
        save_file(tensors, temporary, metadata=header)
    return file


def load(path: str | Path) -> tuple[Tree, dict[str, Any]]:
    """The tree and the info that :func:`save` has stored under this path.

    Raises:
        UsageError: there is no such file, or it was not written by :func:`save`.
    """
    file = _tree_file(path)
    if not file.is_file():
        raise UsageError(f"there is no stored tree {file}; name a folder that dpcontrol has written")
    try:
        with safe_open(file, framework="pt") as opened:
            header = opened.metadata() or {}
            if HEADER not in header:
                raise UsageError(f"{file} was not written by this version of dpcontrol; name another file")
            content = json.loads(header[HEADER])
            # Copied: safetensors may hand out the mapped file itself, whose tensors need not be aligned as
            # torch's complex kernels assume (that crashed), and which would change if the file did.
            tree = from_json(content["tree"], lambda name: opened.get_tensor(name).clone())
            return tree, from_json(content["info"], opened.get_tensor)
    except (SafetensorError, OSError, json.JSONDecodeError, KeyError) as error:
        raise UsageError(f"{file} is broken ({error}); delete it and run again") from error


def _tree_file(path: str | Path) -> Path:
    path = Path(path)
    return path if path.suffix == SUFFIX else path / f"tree{SUFFIX}"
