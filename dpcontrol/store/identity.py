"""What a value is, as a short text: under which data are kept that were made of it."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import types
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

PLAIN = (str, bytes, int, float, complex, bool, type(None), np.generic)


def identity(value: Any) -> str:
    """A hexadecimal digest that is the same for values that do the same, in this and in later processes.

    Dataclasses, dicts, tuples, tensors and arrays go by what they hold, functions by their code, defaults, what they
    close over and the plain globals that they name, modules of torch by class, weights and attributes. Any other object
    goes by its ``repr``; where that tells its address it is never the same again, so that nothing of another object is
    taken for its own.
    """
    found = hashlib.blake2b(digest_size=16)
    _write(found, value, ())
    return found.hexdigest()


def _write(found: Any, value: Any, inside: tuple[int, ...]) -> None:
    found.update(f"({type(value).__module__}.{type(value).__qualname__}:".encode())
    if id(value) in inside:
        found.update(b"again")
    else:
        _parts(found, value, (*inside, id(value)))
    found.update(b")")


def _parts(found: Any, value: Any, inside: tuple[int, ...]) -> None:
    if isinstance(value, PLAIN):
        found.update(repr(value).encode())
    elif isinstance(value, torch.Tensor):
        kept = value.detach().cpu().contiguous()
        found.update(f"{tuple(kept.shape)}{kept.dtype}".encode())
        found.update(kept.reshape(-1).view(torch.uint8).numpy().tobytes())
    elif isinstance(value, np.ndarray):
        found.update(f"{value.shape}{value.dtype}".encode() + np.ascontiguousarray(value).tobytes())
    elif isinstance(value, type | types.ModuleType | types.BuiltinFunctionType):
        found.update(getattr(value, "__qualname__", value.__name__).encode())
    else:
        for part in _inner(value):
            _write(found, part, inside)


def _inner(value: Any) -> list[Any]:
    """The parts that make a value what it is."""
    if isinstance(value, Mapping):
        return [part for key in sorted(value, key=repr) for part in (key, value[key])]
    if isinstance(value, tuple | list):
        return list(value)
    if isinstance(value, set | frozenset):
        return sorted(value, key=repr)
    if isinstance(value, functools.partial):
        return [value.func, value.args, value.keywords]
    if isinstance(value, types.MethodType):
        return [value.__func__, value.__self__]
    if isinstance(value, types.CodeType):
        return [value.co_code, value.co_consts, value.co_names]
    if isinstance(value, types.FunctionType):
        named = {
            name: value.__globals__[name] for name in value.__code__.co_names if name in value.__globals__
        }
        plain = {
            name: each for name, each in named.items() if isinstance(each, (*PLAIN, torch.Tensor, np.ndarray))
        }
        closed = [cell.cell_contents for cell in value.__closure__ or ()]
        return [value.__code__, value.__defaults__, value.__kwdefaults__, closed, plain]
    if isinstance(value, torch.nn.Module):
        return [dict(value.state_dict()), repr(value)]
    if dataclasses.is_dataclass(value):
        return [getattr(value, entry.name) for entry in dataclasses.fields(value)]
    return [repr(value)]
