"""Files that are replaced atomically, and plain values as JSON, exactly."""

from __future__ import annotations

import contextlib
import json
import math
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor

from dpcontrol.results import UsageError


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path in the folder of ``path``; what is written there becomes ``path`` at the end of the block."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with open(temporary, "r+b") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        raise unwritable(path, error) from error
    finally:
        with contextlib.suppress(OSError):  # the error that matters is on its way
            temporary.unlink(missing_ok=True)


def unwritable(path: Path, error: Exception) -> UsageError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return UsageError(
        f"cannot write {path} ({reason}); name a folder that you may write to, on a disk with space"
    )


def to_json(value: Any, where: str, tensors: dict[str, Tensor] | None) -> Any:
    """Lists, plain values and tagged nodes; tensors move into ``tensors`` (``None``: none are allowed)."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, np.bool_):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        number = float(value)
        return number if math.isfinite(number) else {"float": repr(number)}
    if isinstance(value, Tensor) and tensors is not None:
        return _tensor_node(value, where, tensors)
    if isinstance(value, dict):
        wrong = [key for key in value if not isinstance(key, str)]
        if wrong:
            raise UsageError(
                f"the key {wrong[0]!r} of {where} is not a string; only strings can be stored as keys"
            )
        return {"dict": {key: to_json(item, f"{where}[{key!r}]", tensors) for key, item in value.items()}}
    if type(value) in (list, tuple):
        items = [to_json(item, f"{where}[{index}]", tensors) for index, item in enumerate(value)]
        return {"list" if isinstance(value, list) else "tuple": items}
    allowed = "dicts, lists, tuples, None, booleans, numbers and strings"
    if tensors is not None:
        allowed = "tensors, " + allowed
    raise UsageError(f"{where} is a {type(value).__name__}, which cannot be stored; only {allowed} can")


def _tensor_node(tensor: Tensor, where: str, tensors: dict[str, Tensor]) -> dict[str, str]:
    if tensor.layout != torch.strided:
        raise UsageError(f"{where} is a sparse tensor, which cannot be stored; make it dense first")
    name = str(len(tensors))
    # A copy of its own: safetensors refuses tensors that share memory.
    plain = tensor.detach().resolve_conj().resolve_neg().to("cpu", copy=True).contiguous()
    if plain.is_complex():
        tensors[name] = torch.view_as_real(plain)
        return {"complex": name}
    tensors[name] = plain
    return {"tensor": name}


def from_json(node: Any, tensors: Callable[[str], Tensor]) -> Any:
    """The inverse of :func:`to_json`."""
    if not isinstance(node, dict):
        return node
    ((tag, content),) = node.items()
    if tag == "float":
        return float(content)
    if tag == "tensor":
        return tensors(content)
    if tag == "complex":
        return torch.view_as_complex(tensors(content))
    if tag == "dict":
        return {key: from_json(item, tensors) for key, item in content.items()}
    items = [from_json(item, tensors) for item in content]
    return items if tag == "list" else tuple(items)


def write_json(path: str | Path, value: Any) -> Path:
    """Replace a JSON file atomically, for people and other programs to read.

    Dicts and lists are written as such, tuples as lists; a float that JSON does not have is written as
    ``{"float": "nan"}`` (``inf``, ``-inf``), which :func:`read_json` turns back.

    Raises:
        UsageError: something is not plain, or the file cannot be written.
    """
    file = Path(path)
    text = json.dumps(_strip(to_json(value, file.name, None)), indent=2, ensure_ascii=False) + "\n"
    with replacing(file) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return file


def read_json(path: str | Path) -> Any:
    """What :func:`write_json` has written.

    Raises:
        UsageError: the file is missing, unreadable or not JSON.
    """
    file = Path(path)
    try:
        return json.loads(file.read_text(encoding="utf-8"), object_hook=_unusual_float)
    except FileNotFoundError as error:
        raise UsageError(f"there is no file {file}; name a folder that dpcontrol has written") from error
    except OSError as error:
        raise UsageError(f"cannot read {file} ({error.strerror}); name a file that you may read") from error
    except ValueError as error:
        raise UsageError(f"{file} is not JSON ({error}); delete it and run again") from error


def _strip(node: Any) -> Any:
    """Without the tags that tell dicts from lists and tuples."""
    if not isinstance(node, dict):
        return node
    ((tag, content),) = node.items()
    if tag == "float":
        return node
    if tag == "dict":
        return {key: _strip(item) for key, item in content.items()}
    return [_strip(item) for item in content]


def _unusual_float(node: dict[str, Any]) -> Any:
    if len(node) == 1 and node.get("float") in ("nan", "inf", "-inf"):
        return float(node["float"])
    return node
