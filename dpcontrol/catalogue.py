"""Finds problem files, by name or path, and checks their face."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import importlib.metadata
import importlib.util
import inspect
import pkgutil
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import cloudpickle

from dpcontrol.problem.base import Origin, Problem
from dpcontrol.results import USERS_ERRORS, UsageError

SIZES = ("full", "small")
PACKAGE = "dpcontrol.problems"
GROUP = "dpcontrol.problems"


@dataclass(frozen=True)
class Entry:
    """One problem file: the name or path it was found by, and its module."""

    reference: str
    module: ModuleType

    @property
    def headline(self) -> str:
        """First line of its docstring."""
        return (self.module.__doc__ or "").strip().splitlines()[0]

    @property
    def docstring(self) -> str:
        """The whole docstring: a small paper."""
        return inspect.cleandoc(self.module.__doc__ or "")

    def defaults(self, size: str) -> dict[str, Any]:
        """What the file suggests (``DEFAULTS[size]``): a ``strategy``, ``strategies`` to compare, limits."""
        return dict(getattr(self.module, "DEFAULTS", {}).get(size, {}))

    def build(self, *, size: str = "full", seed: int = 0, **options: Any) -> Problem:
        """The problem, with its origin noted.

        Raises:
            UsageError: for a wrong size or seed, or where the file's own code fails.
        """
        if size not in SIZES:
            raise UsageError(f"size must be 'small' or 'full'; found {size!r}.")
        if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
            raise UsageError(f"a problem's seed must be a whole number, 0 or larger; found {seed!r}.")
        try:
            problem = self.module.problem(size=size, seed=seed, **options)
        except UsageError:
            raise
        except USERS_ERRORS as error:
            raise UsageError(
                f"problem({size=}, {seed=}) of {self.reference} failed: {_place(error)}."
            ) from error
        if not isinstance(problem, Problem):
            raise UsageError(
                f"problem() of {self.reference} returned {type(problem).__name__}; return a Problem."
            )
        origin = Origin(self.reference, size, seed)
        return dataclasses.replace(problem, origin=origin, description=self.docstring)


def find(reference: str) -> Entry:
    """A problem by its name in the catalogue, or by the path of a file.

    Raises:
        UsageError: if there is none, or the file is broken.
    """
    if reference.endswith(".py") or "/" in reference:
        return _checked(Entry(str(Path(reference).resolve()), _load_file(Path(reference))))
    known = names()
    if reference not in known:
        close = difflib.get_close_matches(reference, known, n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(known)}."
        raise UsageError(f"no problem is called {reference!r}; {hint} A path to a .py file works as well.")
    return _checked(Entry(reference, _import(known[reference])))


def names() -> dict[str, str]:
    """Names in the catalogue and the modules behind them: ours, and those that installed packages bring."""
    package = importlib.import_module(PACKAGE)
    found = {
        info.name: f"{PACKAGE}.{info.name}"
        for info in pkgutil.iter_modules(package.__path__)
        if not info.ispkg
    }
    for point in importlib.metadata.entry_points(group=GROUP):
        found.setdefault(point.name, point.value)
    return dict(sorted(found.items()))


def _import(module: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except USERS_ERRORS as error:
        raise UsageError(f"the problem module {module} cannot be imported: {_place(error)}.") from error


def _load_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise UsageError(
            f"there is no problem file {path}; give the path of a .py file, or a name that `dpcontrol list` shows."
        )
    name = f"dpcontrol_problem_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{path} is not a Python file; its name must end in .py.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up by name
    cloudpickle.register_pickle_by_value(module)  # worker processes cannot import it
    folder = str(path.resolve().parent)
    if folder not in sys.path:  # helpers beside the file can be imported, as if it were run as a script
        sys.path.append(folder)
    try:
        spec.loader.exec_module(module)
    except USERS_ERRORS as error:
        raise UsageError(f"the problem file {path} cannot be read: {_place(error)}.") from error
    return module


def _checked(entry: Entry) -> Entry:
    function = getattr(entry.module, "problem", None)
    if not callable(function):
        raise UsageError(
            f"{entry.reference} has no function problem(*, size='full', seed=0) -> Problem; add one."
        )
    parameters = inspect.signature(function).parameters
    missing = [name for name in ("size", "seed") if name not in parameters]
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    if missing and not takes_any:
        raise UsageError(
            f"problem() of {entry.reference} must take the keywords size and seed; it lacks {missing}."
        )
    if not (entry.module.__doc__ or "").strip():
        raise UsageError(
            f"{entry.reference} has no docstring; begin the file with one line that says what is asked."
        )
    return entry


def _place(error: BaseException) -> str:
    """Kind, message and line of an error in somebody's file, in one phrase."""
    if isinstance(error, SyntaxError):
        return f"SyntaxError in line {error.lineno}: {error.msg}"
    frames = traceback.extract_tb(error.__traceback__)
    where = f" (line {frames[-1].lineno} of {Path(frames[-1].filename).name})" if frames else ""
    message = str(error).strip().splitlines()
    return f"{type(error).__name__}: {message[0] if message else 'no message'}{where}"
