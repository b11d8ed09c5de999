"""Programs as loops over steps and scenarios, written as Python for Numba."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from dpcontrol.kernels.scalar.expressions import Expression, Node
from dpcontrol.kernels.scalar.operations import OPERATIONS
from dpcontrol.kernels.scalar.tracing import Program

LEAVES = {
    "x": "before[s, {0}]",
    "u": "inputs[k, s, {0}]",
    "p": "given[s, {0}]",
    "t": "(first + j) * dt",
    "d": "carried[s, {0}] + above[j, s, {0}]",
}
"""Where the numbers of a program are found in its loops."""

GRADIENTS = {"x": "carried[s, {0}] =", "u": "of_inputs[k, s, {0}] +=", "p": "of_given[s, {0}] +="}
"""Where their gradients go."""

RUN = """
def run(start, inputs, given, clock, states, begin, end):
    first, held, dt = clock
    for j in range(len(states)):
        k = j // held
        before = start if j == 0 else states[j - 1]
        for s in range(begin, end):
{lines}
"""

PULL = """
def pull(start, states, inputs, given, clock, above, carried, of_inputs, of_given, begin, end):
    first, held, dt = clock
    for j in range(len(states) - 1, -1, -1):
        k = j // held
        before = start if j == 0 else states[j - 1]
        for s in range(begin, end):
{lines}
"""


@dataclass(frozen=True, eq=False)
class Loops:
    """The loops of a program, each written and compiled when it is first asked for."""

    program: Program

    @functools.cached_property
    def run(self) -> Callable[..., Any]:
        """``run(start, inputs, given, clock, states, begin, end)`` writes the states behind all steps."""
        return compiled(run_source(self.program))

    @functools.cached_property
    def pull(self) -> Callable[..., Any]:
        """The way back: cotangents come and go in ``carried``; it adds to ``of_inputs`` and ``of_given``."""
        return compiled(pull_source(self.program))


def function(source: str) -> Callable[..., Any]:
    """The function that a source defines."""
    names: dict[str, Any] = {"math": math, "np": np}
    exec(compile(source, "<a step in scalars>", "exec"), names)
    found: Callable[..., Any] = names["run" if "run" in names else "pull"]
    return found


@functools.lru_cache(maxsize=256)
def compiled(source: str) -> Callable[..., Any]:
    """Its machine code, made at the first call; equal programs share it."""
    from numba import njit

    from dpcontrol.kernels.loops.compiling import OPTIONS

    found: Callable[..., Any] = njit(**OPTIONS)(function(source))
    return found


def run_source(program: Program) -> str:
    """The loop of a run, as source."""
    ends = [f"states[j, s, {i}] = {_written(result)}" for i, result in enumerate(program.results)]
    return RUN.format(lines=_indented([*_body(program, program.results), *ends]))


def pull_source(program: Program) -> str:
    """The loop back, as source: a step is computed again where its derivative needs it."""
    book = program.book
    above: list[Expression] = [book.leaf("d", i) for i in range(len(program.results))]
    of_leaf = book.pull(program.results, above)
    gradients = {
        node.args: of_leaf[node.index]
        for node in book.nodes
        if node.op == "leaf" and node.args[0] in GRADIENTS and node.index in of_leaf
    }
    unseen = {("x", i): 0.0 for i in range(len(above))}
    ends = [
        f"{GRADIENTS[kind].format(place)} {_written(gradient)}"
        for (kind, place), gradient in {**unseen, **gradients}.items()
    ]
    return PULL.format(lines=_indented([*_body(program, gradients.values()), *ends]))


def _body(program: Program, results: Iterable[Expression]) -> list[str]:
    """What must be computed for some results, one expression a line."""
    return [f"v{node.index} = {_formula(node)}" for node in program.book.needed(results)]


def _formula(node: Node) -> str:
    if node.op == "leaf":
        kind, place = node.args
        return LEAVES[kind].format(place)
    return OPERATIONS[node.op].source.format(*map(_written, node.args))


def _written(value: Expression) -> str:
    if isinstance(value, Node):
        return f"v{value.index}"
    if isinstance(value, bool):
        return repr(value)
    number = float(value)
    if math.isfinite(number):
        return repr(number) if math.copysign(1.0, number) > 0 else f"({number!r})"
    return "math.nan" if math.isnan(number) else f"({'-' if number < 0 else ''}math.inf)"


def _indented(lines: Iterable[str]) -> str:
    return "\n".join(" " * 12 + line for line in lines)
