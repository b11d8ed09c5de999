"""Programs as loops over steps and scenarios, written as Python for Numba.

Constants are arguments of the loops: steps that differ in numbers only, in ``dt`` say, share their machine code.
"""

from __future__ import annotations

import functools
import hashlib
import math
import os
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from dpcontrol.caching import cache_folder
from dpcontrol.kernels.scalar.expressions import Book, Expression, Node
from dpcontrol.kernels.scalar.operations import OPERATIONS
from dpcontrol.kernels.scalar.tracing import Program
from dpcontrol.results import UsageError

LEAVES = {
    "x": "before[s, {0}]",
    "u": "inputs[k, s, {0}]",
    "p": "given[s, {0}]",
    "w": "constants[{0}]",
    "t": "(first + j) * dt",
    "d": "x{0} + above[j, s, {0}]",
}
"""Where the numbers of a program are found in its loops."""

GRADIENTS = {"x": "x{0} =", "u": "of_inputs[k, s, {0}] +=", "p": "p{0} +="}
"""Where their gradients go: into sums of one scenario, and from there into arrays."""

PLAIN = {0.0, 0.5, 1.0, 2.0}
"""Constants that are written as they are."""

RUN = """
def run(constants, start, inputs, given, clock, states, begin, end):
    first, held, dt = clock
{constants}
    for j in range(len(states)):
        k = j // held
        before = start if j == 0 else states[j - 1]
        for s in range(begin, end):
{lines}
"""

PULL = """
def pull(constants, start, states, inputs, given, clock, above, of_state, of_inputs, of_given, begin, end):
    first, held, dt = clock
{constants}
    for s in range(begin, end):
{zeros}
        for j in range(len(states) - 1, -1, -1):
            k = j // held
            before = start if j == 0 else states[j - 1]
{lines}
{ends}
"""


@dataclass(frozen=True, eq=False)
class Loops:
    """The loops of a program, each written and compiled when it is first asked for."""

    program: Program

    @functools.cached_property
    def run(self) -> Loop:
        """``run(start, inputs, given, clock, states, begin, end)`` writes the states behind all steps."""
        source, constants = run_source(self.program)
        return Loop(compiled(source), np.array([*constants, 0.0]), self.program.captured)

    @functools.cached_property
    def pull(self) -> Loop:
        """The way back: writes ``of_state`` and ``of_given``, and adds to ``of_inputs``."""
        source, constants = pull_source(self.program)
        return Loop(compiled(source), np.array([*constants, 0.0]), self.program.captured)


@dataclass(frozen=True, eq=False)
class Loop:
    """A loop with its constants, before them the tensors that its step captured, looked up at every call."""

    function: Callable[..., Any]
    constants: Any
    captured: tuple[Tensor, ...]

    def __call__(self, *arguments: Any) -> None:
        if any(leaf.requires_grad for leaf in self.captured):
            raise UsageError(
                "a step in loops of its own uses a tensor that now requires a gradient but is no argument of the step, "
                "and would silently get none: pass it through parameters or scenarios."
            )
        captured = [leaf.reshape(-1).double().numpy() for leaf in self.captured]
        self.function(np.concatenate([*captured, self.constants]) if captured else self.constants, *arguments)


def function(source: str, file: str = "<a step in scalars>") -> Callable[..., Any]:
    """The function that a source defines."""
    names: dict[str, Any] = {"math": math, "np": np, "__name__": __name__}
    exec(compile(source, file, "exec"), names)
    found: Callable[..., Any] = names["run" if "run" in names else "pull"]
    return found


@functools.lru_cache(maxsize=256)
def compiled(source: str) -> Callable[..., Any]:
    """Its machine code, made at the first call and kept in the user's cache folder; equal programs share it."""
    from numba import njit

    from dpcontrol.kernels.loops.compiling import OPTIONS

    file = _kept(source)
    if file is None:
        found: Callable[..., Any] = njit(**OPTIONS)(function(source))
        return found
    found = njit(cache=True, **OPTIONS)(function(source, str(file)))
    return found


def _kept(source: str) -> Path | None:
    """A file of the source, beside which Numba keeps machine code; ``None`` where nothing can be written."""
    file = cache_folder() / "loops" / f"{hashlib.blake2b(source.encode(), digest_size=16).hexdigest()}.py"
    try:
        if not file.is_file():
            file.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=file.parent, delete=False) as draft:
                draft.write(source)
            os.replace(draft.name, file)
    except OSError:
        return None
    return file


def run_source(program: Program) -> tuple[str, list[float]]:
    """The loop of a run, as source, and its constants."""
    text = Text(program)
    text.compute(program.book, program.results)
    for i, result in enumerate(program.results):
        text.lines.append(f"states[j, s, {i}] = {text.written(result)}")
    return text.filled(RUN)


def pull_source(program: Program) -> tuple[str, list[float]]:
    """The loop back, as source, and its constants: a step is computed again where its derivative needs it."""
    text, size = Text(program), len(program.results)
    unseen = {("x", i): 0.0 for i in range(size)}
    text.compute(program.book, program.gradients.values())
    for (kind, place), gradient in {**unseen, **program.gradients}.items():
        text.lines.append(f"{GRADIENTS[kind].format(place)} {text.written(gradient)}")
    sums = [("x", "of_state", i) for i in range(size)]
    sums += [("p", "of_given", place) for kind, place in program.gradients if kind == "p"]
    return text.filled(
        PULL,
        zeros=[f"{kind}{place} = 0.0" for kind, _, place in sums],
        ends=[f"{array}[s, {place}] = {kind}{place}" for kind, array, place in sums],
    )


class Text:
    """The body of a loop, one expression a line, with names for expressions and constants in order."""

    def __init__(self, program: Program) -> None:
        self.first = sum(leaf.numel() for leaf in program.captured)
        self.lines: list[str] = []
        self.names: dict[int, str] = {}
        self.constants: dict[float, str] = {}

    def compute(self, book: Book, results: Iterable[Expression]) -> None:
        """Lines for all that some results need."""
        for node in book.needed(results):
            if node.op == "leaf":
                formula = LEAVES[node.args[0]].format(node.args[1])
            else:
                formula = OPERATIONS[node.op].source.format(*map(self.written, node.args))
            self.names[node.index] = f"v{len(self.names)}"
            self.lines.append(f"{self.names[node.index]} = {formula}")

    def written(self, value: Expression) -> str:
        """An expression that is known by now, or a constant."""
        if isinstance(value, Node):
            return self.names[value.index]
        if isinstance(value, bool):
            return repr(value)
        number = float(value)
        if number in PLAIN:
            return repr(number)
        if math.isnan(number):
            return "math.nan"
        return self.constants.setdefault(number, f"c{len(self.constants)}")

    def filled(self, template: str, **around: list[str]) -> tuple[str, list[float]]:
        """The source around the lines, and the values of its constants."""
        named = [f"{name} = constants[{i}]" for i, name in enumerate(self.constants.values(), self.first)]
        parts = {"constants": (4, named), "lines": (12, self.lines), **{k: (8, v) for k, v in around.items()}}
        filled = {
            name: "\n".join(" " * indent + line for line in lines) for name, (indent, lines) in parts.items()
        }
        return template.format(**filled), list(self.constants)
