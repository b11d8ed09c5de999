"""What is sought: named slots, each a mapping from a part of the tree ``z`` to what a rollout takes in.

Layout of ``z``: a dict, slot name -> tree. Leaves of per-scenario slots have the leading axis ``(scenarios, ...)``;
leaves of shared slots do not.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor
from torch.distributions.transforms import Transform

from dpcontrol import tree
from dpcontrol.results import UsageError
from dpcontrol.tree import Tree

Law = Callable[[Tree, float, Mapping[str, Tree]], Tree]


class Remembering(Protocol):
    """A law with a memory, which rides in the carry of the rollout's loop (a plan that is under way, say)."""

    def begin(self, state: Tree, scenario: Mapping[str, Tree]) -> Tree:
        """The memory before the first step: a tree of tensors ``(scenarios, ...)`` of fixed structure and shapes."""
        ...

    def act(self, memory: Tree, state: Tree, t: float, scenario: Mapping[str, Tree]) -> tuple[Tree, Tree]:
        """The control ``(scenarios, *shape)`` at time ``t``, and the memory afterwards."""
        ...


@dataclass(frozen=True)
class Forgetful:
    """A law without memory, as one that has an empty one."""

    law: Law

    def begin(self, state: Tree, scenario: Mapping[str, Tree]) -> None:
        """Nothing."""
        return None

    def act(self, memory: Tree, state: Tree, t: float, scenario: Mapping[str, Tree]) -> tuple[Tree, Tree]:
        """What the law says."""
        return self.law(state, t, scenario), memory


@dataclass(frozen=True)
class Pose:
    """What a slot may know of its problem: sizes, the initial state ``(count, ...)`` and the parameters in force."""

    count: int
    horizon: int
    state: Tree
    parameters: Mapping[str, Tree]
    dtype: torch.dtype
    device: torch.device


@dataclass(frozen=True)
class Inputs:
    """What a rollout takes in. ``controls`` and ``noise`` are ``(scenarios, horizon, ...)``; a ``law``, or one that is
    ``remembering``, acts instead of controls, and ``noise=None`` leaves that of the scenarios."""

    initial_state: Tree
    parameters: Mapping[str, Tree] = field(default_factory=dict)
    controls: Tree = None
    noise: Tree = None
    law: Law | None = None
    remembering: Remembering | None = None

    @property
    def acting(self) -> Remembering | None:
        """Who acts step by step, whether it remembers or not; ``None`` where controls are given."""
        if self.remembering is not None or self.law is None:
            return self.remembering
        return Forgetful(self.law)


class Slot(abc.ABC):
    """A part of what is sought."""

    name: str
    shared: bool

    @abc.abstractmethod
    def guess(self, pose: Pose) -> Tree:
        """The default start guess, which fixes structure, shapes and dtypes."""

    @abc.abstractmethod
    def place(self, value: Tree, inputs: Inputs) -> Inputs:
        """Put a value of this slot where the rollout takes it in."""

    def limits(self, pose: Pose) -> tuple[Tree, Tree] | None:
        """Lower and upper bounds shaped like the start guess, or ``None``."""
        return None

    def magnitude(self, pose: Pose) -> Tree:
        """A typical magnitude of changes, shaped like the start guess: what searches and random starts begin with."""
        return tree.map(torch.ones_like, self.guess(pose))


@dataclass(frozen=True)
class Unknown:
    """Everything that is sought. ``transforms`` map free numbers to natural ones, ``slot.name`` -> transform."""

    slots: tuple[Slot, ...]
    transforms: Mapping[str, Transform] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = [slot.name for slot in self.slots]
        if not names or len(set(names)) != len(names):
            raise UsageError(
                f"a problem needs different unknown slots, at least one; found {names or 'none'}."
            )

    @property
    def names(self) -> tuple[str, ...]:
        """The keys of ``z``."""
        return tuple(slot.name for slot in self.slots)

    @property
    def separate(self) -> bool:
        """Whether every scenario is a problem of its own (no slot is shared)."""
        return not any(slot.shared for slot in self.slots)

    def guess(self, pose: Pose) -> dict[str, Tree]:
        """The start guess."""
        return {slot.name: slot.guess(pose) for slot in self.slots}

    def magnitude(self, pose: Pose) -> dict[str, Tree]:
        """Typical magnitudes of changes in *free* numbers, shaped like the start guess; 1 behind a transform."""
        natural = {slot.name: slot.magnitude(pose) for slot in self.slots}
        return self._apply(natural, lambda _, leaf: torch.ones_like(leaf))

    def limits(self, pose: Pose) -> tuple[dict[str, Tree], dict[str, Tree]] | None:
        """Lower and upper bounds shaped like the start guess (infinite where there are none), or ``None``."""
        found = {slot.name: slot.limits(pose) for slot in self.slots}
        if all(pair is None for pair in found.values()):
            return None
        filled = {
            slot.name: found[slot.name] or infinite_or(slot.guess(pose), None, None) for slot in self.slots
        }
        return {name: pair[0] for name, pair in filled.items()}, {
            name: pair[1] for name, pair in filled.items()
        }

    def place(self, z: Mapping[str, Tree], inputs: Inputs) -> Inputs:
        """Everything that is sought, put where the rollout takes it in."""
        for slot in self.slots:
            if slot.name not in z:
                raise UsageError(
                    f"these values have {', '.join(sorted(z)) or 'nothing'}, but the problem seeks "
                    f"{', '.join(self.names)}: ask the problem that they are an answer of, solution.problem."
                )
            inputs = slot.place(z[slot.name], inputs)
        return inputs

    def natural(self, free: Mapping[str, Tree]) -> dict[str, Tree]:
        """From free numbers (what unconstrained searches move) to natural ones."""
        return self._apply(free, lambda transform, leaf: transform(leaf))

    def free(self, natural: Mapping[str, Tree]) -> dict[str, Tree]:
        """The inverse of :meth:`natural`."""
        return self._apply(natural, lambda transform, leaf: transform.inv(leaf))

    def _apply(self, z: Mapping[str, Tree], use: Callable[[Transform, Tensor], Tensor]) -> dict[str, Tree]:
        if not self.transforms:
            return dict(z)
        result = {}
        for slot, value in z.items():
            if slot in self.transforms:
                transform = self.transforms[slot]
                value = tree.map(lambda leaf, transform=transform: use(transform, leaf), value)
            elif isinstance(value, dict):
                value = {
                    key: use(self.transforms[f"{slot}.{key}"], leaf)
                    if f"{slot}.{key}" in self.transforms
                    else leaf
                    for key, leaf in value.items()
                }
            result[slot] = value
        return result


def infinite_or(like: Tree, low: float | None, high: float | None) -> tuple[Tree, Tree]:
    """Bounds shaped like a tree, infinite where there are none."""
    lower, upper = (float("-inf") if low is None else low), (float("inf") if high is None else high)
    return (
        tree.map(lambda leaf: torch.full_like(leaf, lower), like),
        tree.map(lambda leaf: torch.full_like(leaf, upper), like),
    )
