"""What a kernel is: a simulator's step and its adjoint as raw calls, without a graph, for many steps at a time."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from dpcontrol import tree
from dpcontrol.tree import Tree


class Wanted(NamedTuple):
    """Which gradients are asked for; those of the state are always needed on the way back."""

    inputs: bool
    coefficients: bool


class Pulled(NamedTuple):
    """Gradients, in the layout of what they belong to; ``None`` for zero or not wanted, also for single leaves."""

    state: Tree
    inputs: Tree
    coefficients: Tree


class Kernel(abc.ABC):
    """The raw twin of a step ``x_{k+1} = f(x_k, u_k; c)``: same numbers to rounding, no autograd.

    Tensors come in without a graph and go out without one. ``inputs`` is the pair ``(controls, noise)``, leaves
    ``(steps, scenarios, ...)`` or ``None``; ``coefficients`` are what ``Simulator.prepare`` returned; ``first`` is the
    number of the first step, for systems that depend on time.
    """

    @abc.abstractmethod
    def run(self, state: Tree, inputs: Tree, coefficients: Tree, steps: int, first: int) -> Tree:
        """The states ``x_1 .. x_steps``, leaves ``(steps, scenarios, ...)``, from ``state = x_0``."""

    @abc.abstractmethod
    def pull(
        self,
        state: Tree,
        states: Tree,
        inputs: Tree,
        coefficients: Tree,
        cotangents: Tree,
        wanted: Wanted,
        first: int,
    ) -> Pulled:
        """The vector-Jacobian product of :meth:`run`.

        ``states`` is what ``run`` returned, ``cotangents`` are leaves like ``states``. The gradient of ``inputs`` has
        the layout of ``inputs``, that of ``coefficients`` the layout of ``coefficients``.
        """

    @property
    def single_steps(self) -> bool:
        """Whether it is worth while for a single step; else loops that stop at every step take the eager one."""
        return True

    def axes_per_scenario(self, state: Tree, coefficients: Tree) -> list[int | None] | None:
        """How many axes each tensor of the coefficients has where it differs between scenarios, whose axis comes first.

        In the order of :func:`dpcontrol.tree.split_tensors`. Those with fewer axes, or with a single row, are shared by
        all scenarios; ``None`` for one that must be. With it, candidates that differ in a coefficient can be run as
        scenarios that do. ``None`` instead of the list where nobody knows: then they go through the eager definition.
        """
        return None

    def repeated(self, count: int) -> Kernel:
        """The kernel of ``count`` of these steps with the inputs held, as one step."""
        return Repeated(self, count)


class StepKernel(Kernel):
    """A kernel of single steps: a raw step and its vector-Jacobian product, which are called in a loop."""

    @abc.abstractmethod
    def step(self, state: Tree, row: Tree, coefficients: Tree, k: int) -> Tree:
        """``x_{k+1}``; ``row`` is the pair ``(control, noise)`` of this step."""

    @abc.abstractmethod
    def vjp(
        self, state: Tree, row: Tree, coefficients: Tree, k: int, cotangent: Tree, wanted: Wanted
    ) -> Pulled:
        """Gradients of ``cotangent . x_{k+1}`` in ``x_k``, in the row and in the coefficients."""

    def run(self, state: Tree, inputs: Tree, coefficients: Tree, steps: int, first: int) -> Tree:
        states = []
        for k, row in enumerate(tree.rows(inputs, steps)):
            state = self.step(state, row, coefficients, first + k)
            states.append(state)
        return tree.stack(states)

    def pull(
        self,
        state: Tree,
        states: Tree,
        inputs: Tree,
        coefficients: Tree,
        cotangents: Tree,
        wanted: Wanted,
        first: int,
    ) -> Pulled:
        above = tree.unbind(cotangents)
        before = [state, *tree.unbind(states)[:-1]]
        rows = tree.rows(inputs, len(before))
        carried: Tree = None
        of_rows: list[Tree] = [None] * len(before)
        of_coefficients: Tree = None
        for k in reversed(range(len(before))):
            carried = above[k] if carried is None else tree.map(torch.add, above[k], carried)
            found = self.vjp(before[k], rows[k], coefficients, first + k, carried, wanted)
            carried, of_rows[k] = found.state, found.inputs
            if wanted.coefficients:
                of_coefficients = _sum(of_coefficients, found.coefficients)
        return Pulled(carried, tree.stack(of_rows) if wanted.inputs else None, of_coefficients)


@dataclass(frozen=True)
class Repeated(StepKernel):
    """``count`` steps of a kernel with the inputs held, as one step: kept are the states of whole steps only."""

    inner: Kernel
    count: int

    def axes_per_scenario(self, state: Tree, coefficients: Tree) -> list[int | None] | None:
        return self.inner.axes_per_scenario(state, coefficients)

    def step(self, state: Tree, row: Tree, coefficients: Tree, k: int) -> Tree:
        return tree.map(lambda leaf: leaf[-1], self._inside(state, row, coefficients, k))

    def vjp(
        self, state: Tree, row: Tree, coefficients: Tree, k: int, cotangent: Tree, wanted: Wanted
    ) -> Pulled:
        inside = self._inside(state, row, coefficients, k)
        only_last = tree.map(torch.zeros_like, inside)
        tree.map(lambda leaf, end: leaf[-1].copy_(end), only_last, cotangent)
        held, first = self._held(row), k * self.count
        found = self.inner.pull(state, inside, held, coefficients, only_last, wanted, first)
        return found._replace(inputs=tree.map(lambda leaf: leaf.sum(0), found.inputs))

    def _inside(self, state: Tree, row: Tree, coefficients: Tree, k: int) -> Tree:
        return self.inner.run(state, self._held(row), coefficients, self.count, k * self.count)

    def _held(self, row: Tree) -> Tree:
        return tree.map(lambda leaf: leaf.expand(self.count, *leaf.shape), row)


def _sum(total: Tree, more: Tree) -> Tree:
    if total is None or more is None:
        return more if total is None else total
    return tree.map(_plus, total, more)


def _plus(a: Any, b: Any) -> Any:
    """The sum of two gradients, either of which may be ``None`` for zero; what is no tensor has none and stays."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return a + b
    return a if b is None else b
