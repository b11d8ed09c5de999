"""Whose code a function or class is, and what of their own a user's code names."""

from __future__ import annotations

import dis
import sys
import sysconfig
import types
from collections.abc import Iterator
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

    Attributes are looked for in every such module that is named: that is more than is used at times, and never less.
    Modules that the code imports itself count as soon as somebody has imported them.
    """
    codes = list(_codes(function.__code__))
    attributes = sorted({name for code in codes for name in code.co_names})
    found: dict[str, Any] = {}
    looked: set[str] = set()
    space = function.__globals__
    for name in _named_by(codes, ("LOAD_GLOBAL", "LOAD_NAME")):
        if name in space:
            found[name] = space[name]
            _enter(space[name], attributes, found, looked)
    package = space.get("__package__") or ""
    for name in _named_by(codes, ("IMPORT_NAME",)):
        for full in (name, f"{package}.{name}"):
            _enter(sys.modules.get(full), attributes, found, looked)
    return found


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for each in code.co_consts:
        if isinstance(each, types.CodeType):
            yield from _codes(each)


def _named_by(codes: list[types.CodeType], instructions: tuple[str, ...]) -> list[str]:
    """The names in some kinds of instructions; those of relative imports come without their dots."""
    return sorted(
        {
            str(each.argval)
            for code in codes
            for each in dis.get_instructions(code)
            if each.opname in instructions
        }
    )


def _enter(value: Any, names: list[str], found: dict[str, Any], looked: set[str]) -> None:
    """Look into a module, if it is one of the user's own."""
    if not isinstance(value, types.ModuleType) or value.__name__ in looked:
        return
    looked.add(value.__name__)
    if library(value.__name__) is None:
        for name in names:
            if name in vars(value):
                found[f"{value.__name__}.{name}"] = vars(value)[name]
                _enter(vars(value)[name], names, found, looked)
