"""Whose code a function or class is, and what of their own a user's code names."""

from __future__ import annotations

import dis
import sys
import sysconfig
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

PACKAGES = frozenset({"site-packages", "dist-packages"})


def library(module: str) -> str | None:
    """Name and version of the package of a module that is no user's own: Python's, an installed one, or dpcontrol.

    A library's file lies in the folder of Python or in one for packages; without a file it is built in. dpcontrol's
    problem files are their user's, who edits them. So is what lies anywhere else, packages that are installed as
    editable among them, and what was typed in.
    """
    top = module.partition(".")[0]
    if top == "dpcontrol" and not module.startswith("dpcontrol.problems."):
        return top
    file = getattr(sys.modules.get(module), "__file__", None)
    if file is None:
        return top if module in sys.builtin_module_names else None
    at = Path(file)
    if PACKAGES.isdisjoint(at.parts) and not at.is_relative_to(sysconfig.get_path("stdlib")):
        return None
    return f"{top} {getattr(sys.modules.get(top), '__version__', '')}"


def home(function: types.FunctionType) -> str:
    """The module that a function was written in; ``__module__`` may be that of another, which it wraps."""
    return str(function.__globals__.get("__name__", ""))


def named(function: types.FunctionType) -> dict[str, Any]:
    """What the code of a function, and code inside of it, names: globals, and attributes of modules of the user's own.

    Names are looked up one by one: of ``helpers.step(x)`` both ``helpers`` and ``step`` are found, the latter also as a
    global if there is one of this name. That is more than is used at times, and never less. Modules that the code
    imports itself count as soon as somebody has imported them.
    """
    codes = list(_codes(function.__code__))
    names = sorted({name for code in codes for name in code.co_names})
    found: dict[str, Any] = {}
    looked: set[str] = set()
    _look(function.__globals__, "", names, found, looked)
    package = function.__globals__.get("__package__") or ""
    for name in sorted({name for code in codes for name in _imports(code)}):
        for full in (name, f"{package}.{name}"):
            _enter(sys.modules.get(full), names, found, looked)
    return found


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for each in code.co_consts:
        if isinstance(each, types.CodeType):
            yield from _codes(each)


def _imports(code: types.CodeType) -> Iterator[str]:
    """Modules that are imported by a piece of code; names of relative ones without their dots."""
    return (str(each.argval) for each in dis.get_instructions(code) if each.opname == "IMPORT_NAME")


def _look(
    space: Mapping[str, Any], prefix: str, names: list[str], found: dict[str, Any], looked: set[str]
) -> None:
    for name in names:
        if name in space:
            found[f"{prefix}{name}"] = space[name]
            _enter(space[name], names, found, looked)


def _enter(value: Any, names: list[str], found: dict[str, Any], looked: set[str]) -> None:
    if isinstance(value, types.ModuleType) and value.__name__ not in looked:
        looked.add(value.__name__)
        if library(value.__name__) is None:
            _look(vars(value), f"{value.__name__}.", names, found, looked)
