"""A simulator in another process, of which nothing is known but what it answers."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dpcontrol import tree
from dpcontrol.results import SimulationFailed, UsageError
from dpcontrol.sim.base import Simulator, Value, require_positive
from dpcontrol.sim.function import wanted_keywords
from dpcontrol.sweep.answering import VALUE
from dpcontrol.sweep.child import Call, JsonSpeech, PythonSpeech, Speech
from dpcontrol.sweep.service import Service
from dpcontrol.tree import Tree

PROGRAM_KEYWORDS = ("parameters", "noise", "t")


@dataclass(frozen=True)
class BlackBox(Simulator):
    r"""``x_{k+1} = program(x_k, u_k)``, computed in another process: numpy arrays go in, numpy arrays come out.

    ``program`` is one of two things:

    - a Python function ``step(state, control)`` that may also take ``parameters``, ``noise``, ``t``, ``scenario`` by
      keyword. It runs in a fresh interpreter that never imports torch unless the function does, and stays alive.
      Arrays have the state's dtype; ``control`` is ``None`` where nothing acts.
    - a command, ``["./reactor", "--serve"]``: a program that reads one line of JSON for each call,
      ``{"state": [...], "control": [...], "parameters": {...}, "noise": null, "t": 0.0}``, and answers with one
      line ``{"state": [...]}`` or ``{"error": "what went wrong"}``. It flushes its output after each line, keeps
      nothing from call to call, and ends when its input ends. What it writes to standard error is shown as it is.

    It has no gradient: problems over it offer none, and strategies that need one refuse them.

    **Scenarios**: with ``batched=False`` a call is about a single scenario, without the scenario axis; with several
    ``workers`` the scenarios are shared out among as many processes. Parameters are ``()`` or ``(scenarios,)``.

    **Failures**: an exception in the function, an ``error``, an answer of the wrong shape, a crash, a call that takes
    longer than ``timeout``: the process is ended and replaced where it must be, and a search ends with the status
    ``failed``, the reason, and the best so far. With ``tolerant=True`` the states of the scenarios of such a call
    become NaN instead, so that their candidates have an infinite loss and the search goes on; the status counts them.
    Ctrl-C ends busy processes at once; all of them, and what they started, end with this program. Where it is killed
    by ``kill -9``, Python functions end at once and commands when they see the end of their input.

    **Cost** of a step beside the program's own, measured on one busy core: 0.2 ms for a small state, 0.3 ms for 10,000
    numbers, 50 ms for a million; as JSON 0.15 ms, 6.5 ms for 10,000 numbers. Starting a process takes 0.1 to 0.5 s and
    what it imports: a function that travels by name imports its module there, with torch if that does
    (``tests/benchmarks/external_overhead.py``).

    Args:
        program: a function or a command, as above.
        dt: time that one step advances.
        defaults: default values of the parameters.
        batched: whether the program knows the scenario axis.
        workers: how many processes.
        timeout: seconds for one call (for each scenario of it with ``batched=False``); a first call gets 60 s more.
        tolerant: whether failed steps are bad losses rather than the end of the search.

    Raises:
        UsageError: for a program that is neither, or cannot be found; for numbers out of range.
        SimulationFailed: in a step, see above.
    """

    program: Callable[..., Any] | Sequence[str]
    dt: float = 1.0
    defaults: Mapping[str, Value] = field(default_factory=dict)
    batched: bool = True
    workers: int = 1
    timeout: float = 60.0
    tolerant: bool = False
    _service: Service = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        require_positive("dt", self.dt)
        require_positive("timeout", self.timeout)
        if not isinstance(self.workers, int) or self.workers < 1:
            raise UsageError(f"workers is a whole number of processes, at least 1; found {self.workers!r}.")
        # the processes are a resource, like an open file: they are started when the first step needs them
        object.__setattr__(self, "_service", Service(self._speech(), self.workers, self.timeout))

    def __reduce__(self) -> tuple[Any, ...]:
        return BlackBox, tuple(getattr(self, entry.name) for entry in fields(self) if entry.init)

    @property
    def differentiable(self) -> bool:
        return False

    @property
    def parameters(self) -> Mapping[str, Value]:
        return self.defaults

    def prepare(self, parameters: Mapping[str, Tensor], scenario: Mapping[str, Tree]) -> Any:
        return {"parameters": dict(parameters), "scenario": dict(scenario)}

    def step(self, state: Tree, control: Tree, coefficients: Any, noise: Tree, t: float) -> Tree:
        """The program's answer, on the device of ``state``."""
        if torch.is_grad_enabled() and any(leaf.requires_grad for leaf in tree.leaves((state, control))):
            raise UsageError(
                "a black box has no gradient: evaluate it under torch.no_grad(), or use a strategy that needs none, "
                "such as cmaes."
            )
        count = len(tree.leaves(state)[0])
        offered = {**coefficients, "noise": noise, "t": t}
        keywords = {name: _plain(offered[name], count) for name in self._keywords()}
        calls, parts = self._calls(_plain(state, count), _plain(control, count), keywords, count)
        answers = self._service.ask(calls)
        rows = [self._checked(answer, state, part, t) for answer, part in zip(answers, parts, strict=True)]
        return tree.map(lambda *leaves: torch.cat(leaves), rows[0], *rows[1:])

    def close(self) -> None:
        """End the processes now; a further step would start new ones."""
        self._service.close()

    def _speech(self) -> Speech:
        if callable(self.program):
            wanted_keywords(self.program)
            return PythonSpeech(self.program)
        words = self.program
        listed = isinstance(words, (list, tuple)) and len(words) > 0
        if not listed or not all(isinstance(word, str) for word in words):
            raise UsageError(
                "program is a function step(state, control) or a command such as ['./solver', '--serve']; found "
                f"{words!r}."
            )
        if shutil.which(words[0]) is None:
            raise UsageError(f"the program {words[0]!r} cannot be found or started; give its path.")
        return JsonSpeech(tuple(words))

    def _keywords(self) -> tuple[str, ...]:
        return wanted_keywords(self.program) if callable(self.program) else PROGRAM_KEYWORDS

    def _calls(
        self, state: Tree, control: Tree, keywords: dict[str, Any], count: int
    ) -> tuple[list[Call], list[slice]]:
        """The calls of a step, and the scenarios that each is about."""
        number = min(self.workers, count) if self.batched else count
        edges = [count * part // number for part in range(number + 1)]
        parts = [slice(a, b) for a, b in itertools.pairwise(edges)]
        calls: list[Call] = []
        for part in parts:
            chosen: Any = part if self.batched else part.start
            x, u, given = (_take(value, chosen) for value in (state, control, keywords))
            named = not callable(self.program)
            calls.append(((), {"state": x, "control": u, **given}) if named else ((x, u), given))
        return calls, parts

    def _checked(self, answer: tuple[str, Any], state: Tree, part: slice, t: float) -> Tree:
        """The answer as tensors, or what a failure becomes."""
        like = tree.map(lambda leaf: leaf[part], state)
        kind, value = answer
        if kind == VALUE:
            found = value if callable(self.program) else _of_json(value)
            fitting = _fitted(found, like, batched=self.batched)
            if fitting is not None:
                return fitting
            wanted = tree.describe(like if self.batched else tree.map(lambda leaf: leaf[0], like))
            value = f"answered with {_shown(found)}, where {wanted} was expected"
        if self.tolerant:
            return tree.map(lambda leaf: torch.full_like(leaf, float("nan")), like)
        last = part.stop - 1
        which = f"scenario {part.start}" if last == part.start else f"scenarios {part.start} to {last}"
        raise SimulationFailed(
            f"the black box {self._name()} {value}, at t = {t:g} in {which}; with tolerant=True a search would go on."
        )

    def _name(self) -> str:
        return str(getattr(self.program, "__name__", "") if callable(self.program) else self.program[0])


@dataclass(frozen=True)
class _Shared:
    """An array that is the same for all scenarios."""

    value: Any


def _plain(value: Tree, count: int) -> Tree:
    """Tensors as numpy arrays; those without the scenario axis are marked."""

    def convert(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return _Shared(leaf)
        array = leaf.numpy(force=True)
        return array if array.ndim and len(array) == count else _Shared(array if array.ndim else array[()])

    return tree.map(convert, value)


def _take(value: Tree, chosen: Any) -> Tree:
    return tree.map(lambda leaf: leaf.value if isinstance(leaf, _Shared) else leaf[chosen], value)


def _of_json(value: Any) -> Any:
    return value["state"] if isinstance(value, dict) and set(value) == {"state"} else value


def _fitted(found: Any, like: Tree, *, batched: bool) -> Tree | None:
    """The answer as tensors like the state, ``None`` if it does not fit."""
    pairs = _paired(found, like)
    if pairs is None:
        return None
    arrays = []
    for answer, leaf in pairs:
        try:
            array = np.asarray(answer, dtype=float)
        except (TypeError, ValueError):
            return None
        if array.shape != tuple(leaf.shape if batched else leaf.shape[1:]):
            return None
        arrays.append(torch.as_tensor(array, dtype=leaf.dtype, device=leaf.device).reshape(leaf.shape))
    return tree.shell(like)[1].fill(arrays)


def _paired(found: Any, like: Tree) -> list[tuple[Any, Tensor]] | None:
    """Answers beside the leaves that they belong to. Not by ``tree``: nested lists are arrays here."""
    if isinstance(like, Tensor):
        return [(found, like)]
    if isinstance(like, dict):
        if not isinstance(found, dict) or set(found) != set(like):
            return None
        parts = [_paired(found[key], like[key]) for key in like]
    elif isinstance(like, (list, tuple)):
        if not isinstance(found, (list, tuple)) or len(found) != len(like):
            return None
        parts = [_paired(a, b) for a, b in zip(found, like, strict=True)]
    else:
        return None
    if any(part is None for part in parts):
        return None
    return [pair for part in parts for pair in part or []]


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_shown(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, np.ndarray | np.generic):
        return f"an array {value.shape} {value.dtype}"
    return f"{type(value).__name__} {str(value)[:60]!r}"
