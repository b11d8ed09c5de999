"""What a value is, as a short text: under which data are kept that were made of it."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import re
import types
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from dpcontrol.store.authors import home, library, named

PLAIN = (str, bytes, int, float, complex, bool, type(None), np.generic)
ADDRESS = re.compile(r"\b0x[0-9a-f]+", re.IGNORECASE)
ROUTINES = (types.FunctionType, staticmethod, classmethod, property, functools.cached_property)


def identity(value: Any) -> str:
    """A hexadecimal digest that is the same for values that do the same, in this and in later processes.

    Dataclasses, dicts, tuples, tensors and arrays go by what they hold, modules of torch by class, weights, buffers
    and public attributes. A user's own functions go by their code, their defaults, what they close over and what the
    code names: globals and attributes of the user's own modules, and with them the functions and classes that it calls,
    those that these call, and so on. A user's own classes go by their methods, attributes and bases, and objects of
    them also by what would be stored of them (``__getstate__``, which may leave counters out). What belongs to Python,
    to an installed package or to dpcontrol itself goes by its name and the package's version (the rule is that of
    :func:`~dpcontrol.store.authors.library`), its functions also by what they close over.

    Any other object goes by its ``repr``, or by its attributes where that tells an address; one without attributes is
    then never the same again, so that nothing of another object is taken for its own. Not followed are methods of the
    arguments that a function gets, what ``getattr`` finds by a text, and compiled code of the user's own.
    """
    writing = _Writing()
    writing.write(value, ())
    for each in writing.met:  # grows on the way
        writing.write(_written(each), ())
    return writing.digest.hexdigest()


class _Writing:
    """A digest in the making, and the user's own functions and classes that it has met, each described once."""

    def __init__(self) -> None:
        self.digest = hashlib.blake2b(digest_size=16)
        self.met: list[Any] = []
        self._numbers: dict[int, int] = {}

    def write(self, value: Any, inside: tuple[int, ...]) -> None:
        kind = type(value)
        self._add(f"({kind.__module__}.{kind.__qualname__}:")
        if id(value) in inside:
            self._add("again")
        else:
            self._parts(value, (*inside, id(value)))
        self._add(")")

    def _add(self, text: str) -> None:
        self.digest.update(text.encode())

    def _parts(self, value: Any, inside: tuple[int, ...]) -> None:
        if isinstance(value, PLAIN):
            self._add(repr(value))
        elif isinstance(value, torch.Tensor):
            kept = value.detach().cpu().contiguous()
            self._add(f"{tuple(kept.shape)}{kept.dtype}")
            self.digest.update(kept.reshape(-1).view(torch.uint8).numpy().tobytes())
        elif isinstance(value, np.ndarray):
            self._add(f"{value.shape}{value.dtype}")
            self.digest.update(np.ascontiguousarray(value).tobytes())
        elif isinstance(value, types.ModuleType):
            self._add(f"{value.__name__} {library(value.__name__)}")
        elif isinstance(value, types.FunctionType | type) and _owner(value) is None:
            self._add(str(self._number(value)))
        else:
            if not isinstance(value, type) and _owner(type(value)) is None:
                self.write(type(value), inside)
            for part in _inner(value):
                self.write(part, inside)

    def _number(self, value: Any) -> int:
        """Which of those that were met this is; it is described later, so that circles end."""
        if id(value) not in self._numbers:
            self._numbers[id(value)] = len(self.met)
            self.met.append(value)
        return self._numbers[id(value)]


def _owner(value: Any) -> str | None:
    """The library that a function or class belongs to, if any."""
    return library(home(value) if isinstance(value, types.FunctionType) else value.__module__)


def _written(value: Any) -> list[Any]:
    """What a user has written for a function or class."""
    if isinstance(value, types.FunctionType):
        return [value.__code__, value.__defaults__, value.__kwdefaults__, _closed(value), named(value)]
    own = {
        name: each
        for name, each in vars(value).items()
        if isinstance(each, ROUTINES) or not (name.startswith("__") or name == "_abc_impl")
    }
    factories = {}
    if dataclasses.is_dataclass(value):
        # what it has written itself follows from the fields, and closes over marks that are objects without a name
        own = {name: each for name, each in own.items() if not _generated(each)}
        factories = {
            entry.name: entry.default_factory
            for entry in dataclasses.fields(value)
            if callable(entry.default_factory)
        }
    return [value.__qualname__, value.__bases__, own, factories]


def _generated(value: Any) -> bool:
    return isinstance(value, types.FunctionType) and (
        "__create_fn__" in value.__code__.co_qualname or home(value) in ("dataclasses", "reprlib")
    )


def _closed(value: types.FunctionType) -> list[Any]:
    """What a function closes over, but for what is not there yet."""
    return [cell.cell_contents for cell in value.__closure__ or () if cell != types.CellType()]


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
    if isinstance(value, types.BuiltinFunctionType):
        return [value.__qualname__, value.__module__, value.__self__]
    if isinstance(value, staticmethod | classmethod):
        return [value.__func__]
    if isinstance(value, property):
        return [value.fget, value.fset, value.fdel]
    if isinstance(value, functools.cached_property):
        return [value.func]
    if isinstance(value, types.CodeType):
        names = [value.co_names, value.co_varnames, value.co_freevars, value.co_cellvars]
        counts = [value.co_argcount, value.co_posonlyargcount, value.co_kwonlyargcount, value.co_flags]
        return [value.co_code, value.co_exceptiontable, value.co_consts, names, counts]
    if isinstance(value, types.FunctionType | type):  # of a library
        closed = _closed(value) if isinstance(value, types.FunctionType) else []
        return [value.__module__, value.__qualname__, _owner(value), closed]
    if isinstance(value, torch.nn.Module):
        inside = [[name, type(each), _public(each)] for name, each in value.named_modules()]
        return [dict(value.state_dict()), dict(value.named_buffers()), inside]
    if dataclasses.is_dataclass(value):
        return [getattr(value, entry.name) for entry in dataclasses.fields(value)]
    return _held(value)


def _public(module: torch.nn.Module) -> dict[str, Any]:
    return {name: each for name, each in vars(module).items() if not name.startswith("_")}


def _held(value: Any) -> list[Any]:
    """What an object without a form of its own holds."""
    attributes = getattr(value, "__dict__", None)
    if wrapped := getattr(value, "__wrapped__", None):  # compiled, or with a memory
        return [wrapped]
    if _owner(type(value)) is None:
        state = value.__getstate__()
        return [repr(value)] if state is None and attributes is None else [state]
    told = repr(value)
    return [attributes] if attributes is not None and ADDRESS.search(told) else [told]
