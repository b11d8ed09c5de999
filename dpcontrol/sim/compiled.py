"""Any simulator with its step and the adjoint of its step compiled, a small one with its whole loop."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from dpcontrol import tree
from dpcontrol.kernels import Kernel
from dpcontrol.kernels.compiled import Compilations, CompiledKernel
from dpcontrol.kernels.scalar import Traces, scalar_kernel
from dpcontrol.results import UsageError
from dpcontrol.sim.base import Simulator, Wrapper
from dpcontrol.sim.function import FunctionSimulator
from dpcontrol.tree import Tree

COMPILERS = ("g++", "clang++", "c++")


@dataclass(frozen=True)
class Compiled(Wrapper):
    """``inner`` with its step, and the vector-Jacobian product of its step, compiled. The same numbers to rounding.

    **Small states** (up to 64 numbers for each scenario, on the CPU, with Numba installed): whole runs become one loop
    over steps and scenarios of scalar arithmetic, its adjoint another one (:mod:`dpcontrol.kernels.scalar`). Each
    takes a second or so to compile (at most some ten), once for a machine. Tensors that the step captures are looked
    at in every run, but they stay those that it captured first: a name that is bound to another tensor later is not
    noticed, no more than a captured number that changes, nor a tensor that is changed in place between a run and its
    way back. What varies belongs into parameters or scenarios. A step goes the other way if it is long, if it is made
    of other operations than elementwise functions, sums, products of small matrices and rearrangements, or if it does
    not pass the comparison with the eager step. The logger ``dpcontrol.kernels.scalar`` says which and why (level
    ``INFO``), and so does ``traces.reasons``.

    **Others**: one small graph for a few steps together. Compiling takes seconds, at the first value and at the first
    gradient, and again for every other shape, dtype or device; a smaller batch of scenarios is filled up to one that is
    compiled already where that is at most four times as many. The logger ``dpcontrol.kernels.graphs`` says when
    (level ``INFO``). A C++ compiler or a CUDA device is needed. Worth it for steps of several small operations;
    transforms (FFT) and complex numbers gain nothing.

    Second derivatives, and transforms other than ``vmap``, run the step of ``inner`` as it is. A simulator that has a
    kernel of its own keeps it.

    The step must be made of torch operations that do not depend on numbers: no ``.item()``, no ``if`` on a tensor or
    on ``t`` (``torch.where`` instead).

    Args:
        inner: a simulator, or a function ``step(state, control)`` as for
            :class:`~dpcontrol.sim.function.FunctionSimulator`.

    Raises:
        UsageError: without Numba, a C++ compiler or a CUDA device; at the first run, if a step cannot be compiled.
    """

    inner: Simulator
    compilations: Compilations = field(default_factory=Compilations, init=False, repr=False, compare=False)
    traces: Traces = field(default_factory=Traces, init=False, repr=False, compare=False)

    def __init__(self, inner: Simulator | Callable[..., Tree]) -> None:
        system = inner if isinstance(inner, Simulator) else FunctionSimulator(inner)
        object.__setattr__(self, "inner", system)
        object.__setattr__(self, "compilations", Compilations())
        object.__setattr__(self, "traces", Traces())
        if importlib.util.find_spec("numba") is None:
            require_compiler()

    @property
    def dt(self) -> float:
        return self.inner.dt

    def step(self, state: Tree, control: Tree, coefficients: Any, noise: Tree, t: float) -> Tree:
        return self.inner.step(state, control, coefficients, noise, t)

    def kernel(self, state: Tree, control: Tree, noise: Tree, coefficients: Any) -> Kernel | None:
        own = self.inner.kernel(state, control, noise, coefficients)
        if own is not None or not self.differentiable:
            return own

        def step(x: Tree, row: Tree, constants: Any, t: Any) -> Tree:
            return _of_the_same_kind(self.inner.step(x, row[0], constants, row[1], t), x)

        own_rows = _scenario_data(self.inner, coefficients)
        row = control, noise
        loops = scalar_kernel(
            self.traces, step, self.dt, state, row, coefficients, lambda leaf: id(leaf) in own_rows
        )
        if loops is not None:
            return loops
        if not self.compilations.count:
            require_compiler()
        return CompiledKernel(step, self.dt, self.compilations, _per_scenario(state, coefficients, own_rows))


def _of_the_same_kind(after: Tree, before: Tree) -> Tree:
    """What a step returned, in the order of what it was given; refused where its numbers are stored otherwise."""
    after = tree.ordered_like(after, before)
    kinds = [[leaf.dtype for leaf in tree.leaves(state)] for state in (before, after)]
    if kinds[0] != kinds[1]:
        raise UsageError(
            f"a compiled step returns numbers of the kind that it was given; it was given {tree.describe(before)} and "
            f"returned {tree.describe(after)}: convert the result back, or start with that precision."
        )
    return after


def require_compiler() -> None:
    """Refuse, in one sentence, where nothing can be compiled."""
    wanted = os.environ.get("CXX")
    if torch.cuda.is_available() or any(map(shutil.which, (wanted,) if wanted else COMPILERS)):
        return
    found = f"CXX={wanted} was not found" if wanted else f"none of {', '.join(COMPILERS)} was found"
    raise UsageError(
        f"compiling a step needs a C++ compiler, and {found}: install one, set CXX to it, or leave out compile=True."
    )


def _scenario_data(simulator: Simulator, coefficients: Any) -> set[int]:
    """The tensors of the coefficients that are known to have one row per scenario."""
    own = coefficients["scenario"] if isinstance(simulator, FunctionSimulator) else None
    return {id(leaf) for leaf in tree.leaves(own)}


def _per_scenario(state: Tree, coefficients: Any, known: set[int]) -> tuple[bool, ...] | None:
    """Which tensors of the coefficients have one row per scenario; ``None`` where their shapes do not tell."""
    count = len(tree.leaves(state)[0])
    tensors = tree.split_tensors(coefficients)[0]
    if any(leaf.ndim and len(leaf) == count and id(leaf) not in known for leaf in tensors):
        return None
    return tuple(id(leaf) in known for leaf in tensors)
