"""A run of a kernel as a function of flat tensors: its states, its adjoint, and its eager definition.

A population of runs (what ``vmap`` adds: candidates, chains, particles) is one run of more scenarios.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from dpcontrol import tree
from dpcontrol.kernels import Kernel, Wanted
from dpcontrol.tree import Tree

Step = Callable[[Tree, Tree, Tree, int], Tree]
Tensors = tuple[Tensor, ...]


class Differentiable(Protocol):
    """What is needed of a run to make it a node of a graph; ``tensors`` are those of state, inputs, coefficients."""

    def raw(self, tensors: Tensors) -> Tensors:
        """The states by the kernel, without a graph."""

    def pull(
        self, tensors: Tensors, states: Tensors, above: Tensors, needed: Sequence[bool]
    ) -> list[Tensor | None]:
        """The gradients of all tensors by the kernel; ``above`` are the cotangents of ``states``."""

    def eager(self, tensors: Tensors) -> Tensors:
        """The states by the eager definition."""


@dataclass(frozen=True)
class Run:
    """A run of ``steps`` steps from step ``first``, and how to build its trees from flat tensors.

    ``step(state, (control, noise), coefficients, k)`` is the eager definition; ``counts`` are the numbers of tensors of
    the state and of the inputs.
    """

    kernel: Kernel
    step: Step
    steps: int
    first: int
    build: tuple[Callable[[Any], Tree], Callable[[Any], Tree], Callable[[Any], Tree]]
    counts: tuple[int, int]

    def trees(self, tensors: Tensors) -> tuple[Tree, Tree, Tree]:
        """State, inputs and coefficients."""
        a, b = self.counts
        parts = tensors[:a], tensors[a : a + b], tensors[a + b :]
        state, inputs, coefficients = (make(part) for make, part in zip(self.build, parts, strict=True))
        return state, inputs, coefficients

    def raw(self, tensors: Tensors) -> Tensors:
        state, inputs, coefficients = self.trees(tuple(leaf.detach() for leaf in tensors))
        return tuple(tree.leaves(self.kernel.run(state, inputs, coefficients, self.steps, self.first)))

    def pull(
        self, tensors: Tensors, states: Tensors, above: Tensors, needed: Sequence[bool]
    ) -> list[Tensor | None]:
        a, b = self.counts
        wanted = Wanted(any(needed[a : a + b]), any(needed[a + b :]))
        state, inputs, coefficients = self.trees(tuple(leaf.detach() for leaf in tensors))
        like_state = self.build[0]
        found = self.kernel.pull(
            state, like_state(states), inputs, coefficients, like_state(above), wanted, self.first
        )
        gradients = [*_leaves_like(found.state, state), *_leaves_like(found.inputs, inputs)]
        return (
            gradients if a + b == len(tensors) else gradients + _leaves_like(found.coefficients, coefficients)
        )

    def eager(self, tensors: Tensors) -> Tensors:
        state, inputs, coefficients = self.trees(tensors)
        states = []
        for k, row in enumerate(tree.rows(inputs, self.steps), self.first):
            state = self.step(state, row, coefficients, k)
            states.append(state)
        return tuple(tree.leaves(tree.stack(states)))


@dataclass(frozen=True)
class Place:
    """Where a tensor of a population has its axes.

    ``dim`` is that of the candidates, ``None`` where they share it; the scenarios' comes at ``axis`` of each, where
    ``missing`` axes of length 1 are put in if all scenarios share it.
    """

    dim: int | None
    axis: int
    missing: int = 0

    def lifted(self, leaf: Tensor) -> Tensor:
        """With an axis of candidates or 1 at ``axis``, and one of scenarios or 1 behind it."""
        found = leaf.unsqueeze(self.axis) if self.dim is None else leaf.movedim(self.dim, self.axis)
        behind = self.axis + 1
        return found.reshape(*found.shape[:behind], *[1] * self.missing, *found.shape[behind:])

    def folded(self, leaf: Tensor, sizes: tuple[int, int]) -> Tensor:
        """With one axis of candidates times scenarios."""
        lifted, behind = self.lifted(leaf), self.axis + 2
        shape = (*lifted.shape[: self.axis], *sizes, *lifted.shape[behind:])
        return lifted.expand(shape).flatten(self.axis, self.axis + 1)

    def unfolded(self, gradient: Tensor, leaf: Tensor, sizes: tuple[int, int]) -> Tensor:
        """The gradient of a tensor from that of its folded form."""
        found = gradient.unflatten(self.axis, sizes).sum_to_size(self.lifted(leaf).shape)
        if self.dim is None:
            return found.reshape(leaf.shape)
        return found.reshape(leaf.movedim(self.dim, self.axis).shape).movedim(self.axis, self.dim)


@dataclass(frozen=True)
class Population:
    """As many runs as candidates; ``sizes`` are the numbers of candidates and of scenarios.

    The kernel runs all scenarios of all candidates. Tensors have an axis ``dims`` of candidates or none; ``places`` are
    ``None`` for those that all share. The states have the axis of candidates behind that of the steps.
    """

    run: Run
    sizes: tuple[int, int]
    dims: tuple[int | None, ...]
    places: tuple[Place | None, ...] | None

    @classmethod
    def of(cls, run: Run, size: int, dims: tuple[int | None, ...], tensors: Tensors) -> Population:
        """The population of what a transform hands over."""
        one = tuple(
            leaf.detach() if dim is None else leaf.detach().select(dim, 0)
            for leaf, dim in zip(tensors, dims, strict=True)
        )
        scenarios = len(one[0]) if one[0].ndim else 0
        return cls(run, (size, scenarios), dims, _places(run, one, dims, scenarios))

    @property
    def foldable(self) -> bool:
        """Whether the kernel takes coefficients that differ between scenarios as they do between candidates."""
        return self.places is not None

    def raw(self, tensors: Tensors) -> Tensors:
        return tuple(leaf.unflatten(1, self.sizes) for leaf in self.run.raw(self._folded(tensors)))

    def pull(
        self, tensors: Tensors, states: Tensors, above: Tensors, needed: Sequence[bool]
    ) -> list[Tensor | None]:
        after, cotangents = (tuple(leaf.flatten(1, 2) for leaf in part) for part in (states, above))
        found = self.run.pull(self._folded(tensors), after, cotangents, needed)
        assert self.places is not None
        return [
            gradient if gradient is None or place is None else place.unfolded(gradient, leaf, self.sizes)
            for gradient, leaf, place in zip(found, tensors, self.places, strict=True)
        ]

    def eager(self, tensors: Tensors) -> Tensors:
        each: Any = torch.func.vmap(lambda *one: self.run.eager(one), self.dims, 1)
        found: Tensors = each(*tensors)
        return found

    def _folded(self, tensors: Tensors) -> Tensors:
        assert self.places is not None
        return tuple(
            leaf if place is None else place.folded(leaf, self.sizes)
            for leaf, place in zip(tensors, self.places, strict=True)
        )


def _places(
    run: Run, one: Tensors, dims: tuple[int | None, ...], scenarios: int
) -> tuple[Place | None, ...] | None:
    """The places of all tensors; ``None`` where the kernel cannot run the population. ``one`` are one candidate's."""
    state, _, coefficients = run.trees(one)
    a, b = run.counts
    rows = [leaf.shape[:1] for leaf in one[:a]] + [leaf.shape[1:2] for leaf in one[a : a + b]]
    if any(row != (scenarios,) for row in rows):
        return None
    counts = run.kernel.axes_per_scenario(state, coefficients)
    if counts is None:
        return None
    found: list[Place | None] = [Place(dim, int(i >= a)) for i, dim in enumerate(dims[: a + b])]
    for leaf, dim, count in zip(one[a + b :], dims[a + b :], counts, strict=True):
        shared = count is None or leaf.ndim < count or (leaf.ndim == count and len(leaf) == 1)
        if dim is None and shared:
            found.append(None)
        elif count is None or leaf.ndim > count or (leaf.ndim == count and len(leaf) not in (1, scenarios)):
            return None
        else:
            found.append(Place(dim, 0, count - leaf.ndim))
    return tuple(found)


def _leaves_like(found: Tree, reference: Tree) -> list[Tensor | None]:
    """The gradients that belong to the tensors of ``reference``, in their order."""
    if isinstance(reference, Tensor):
        return [found]
    if type(reference) is dict and type(found) is dict:
        return [leaf for name, like in reference.items() for leaf in _leaves_like(found[name], like)]
    if type(reference) in (tuple, list) and type(found) in (tuple, list):
        return [leaf for one, like in zip(found, reference, strict=True) for leaf in _leaves_like(one, like)]
    if reference is None:
        return []
    if found is None:
        return [None] * len(tree.split_tensors(reference)[0])
    pairs: list[Tensor | None] = []

    def note(like: Any, gradient: Any) -> Any:
        if isinstance(like, Tensor):
            pairs.append(gradient)
        return like

    tree.map(note, reference, found)
    return pairs
