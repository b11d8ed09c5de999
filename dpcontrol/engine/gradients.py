"""How a rollout is differentiated, as a value. Exact modes equal :class:`Full` to rounding; biased ones say so."""

from __future__ import annotations

import abc
import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from dpcontrol import tree
from dpcontrol.engine.schedule import plan
from dpcontrol.results import UsageError
from dpcontrol.tree import Tree

UNITS = {"": 1, "B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


class GradientMode(abc.ABC):
    """How :func:`dpcontrol.engine.scan.scan` is differentiated."""

    exact: ClassVar[bool]

    def swept(self, steps: int) -> int:
        """How many of so many steps are differentiated: what a gradient is charged for beside its run."""
        return steps

    def again(self, steps: int, state: Tree) -> int:
        """How many steps are run again on the way back, by this mode's own plan: charged like the run itself."""
        return 0


@dataclass(frozen=True)
class Full(GradientMode):
    """Backpropagation through every step, all intermediate values kept: the fastest, memory linear in steps."""

    exact: ClassVar[bool] = True


@dataclass(frozen=True)
class Checkpointed(GradientMode):
    """The same gradient from stored states: each step is run again when its turn comes on the way back.

    Nothing of a step's inside is kept, so memory is that of the stored states and of one step. Where not all states
    fit, segments between them are reversed by a binomial schedule (see :mod:`dpcontrol.engine.schedule`). The losses
    of problems whose controls are known beforehand run a few steps together again instead, by a kernel many: of those
    only the first state is stored, and the inside of a few steps is there at a time.

    Args:
        memory: how much the stored states may take, in bytes or in words: ``"500MB"``, ``"2GB"``.
        snapshots: or, how many states may be stored at the same time.
        Neither of them: all states are stored.
    """

    memory: str | int | None = None
    snapshots: int | None = None
    exact: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.memory is not None and self.snapshots is not None:
            raise UsageError("Checkpointed takes memory=... or snapshots=..., not both: leave one out.")
        if self.snapshots is not None and (not isinstance(self.snapshots, int) or self.snapshots < 1):
            raise UsageError(
                f"Checkpointed(snapshots=...) must be a whole number, at least 1; found {self.snapshots!r}."
            )
        if self.memory is not None:
            in_bytes(self.memory)

    def states(self, state_bytes: int, steps: int) -> int:
        """How many states may be stored at the same time.

        Raises:
            UsageError: if not even one fits.
        """
        if self.snapshots is not None:
            return self.snapshots
        if self.memory is None:
            return steps
        count = in_bytes(self.memory) // max(state_bytes, 1)
        if count < 1:
            raise UsageError(f"memory {self.memory!r} holds no state of {state_bytes} bytes; allow more.")
        return int(count)

    def again(self, steps: int, state: Tree) -> int:
        size = 0 if self.memory is None else tree.nbytes(state)
        return _again(steps, self.states(size, steps))


@dataclass(frozen=True)
class Auto(GradientMode):
    """:class:`Full` where it fits, else :class:`Checkpointed` with as many states as fit: decided loop by loop.

    What ``Full`` would keep is measured on the loop's first steps, which are run once more for that. Inside of
    ``torch.func`` transforms it cannot be measured: states are stored there. Both modes give the same gradient to
    rounding, so where memory is scarce the last digits may depend on how much of it was free; with ``memory=...`` they
    do not.

    Args:
        memory: how much may be taken, in bytes or in words; by default a fraction of what is available at that moment.
        fraction: that fraction, above 0 and at most 1. It leaves room for what is not counted: an allocator that keeps
            holes between small tensors was measured to take 2.5 times of what they hold.
    """

    memory: str | int | None = None
    fraction: float = 0.3
    exact: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.memory is not None:
            in_bytes(self.memory)
        if not isinstance(self.fraction, (int, float)) or not 0 < self.fraction <= 1:
            raise UsageError(
                f"Auto(fraction=...) must be a number above 0 and at most 1; found {self.fraction!r}."
            )

    def room(self, available: Callable[[], int]) -> int:
        """How many bytes may be taken; ``available`` is asked only if that was not given."""
        return in_bytes(self.memory) if self.memory is not None else int(self.fraction * available())


@dataclass(frozen=True)
class TruncatedBPTT(GradientMode):
    """Biased: what a step hands on is held constant every ``window`` steps, so that gradients do not reach further.

    Tames exploding gradients of chaotic systems at the price of a wrong gradient. Source: R. Williams, J. Peng, Neural
    Computation 2 (1990).
    """

    window: int
    exact: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not isinstance(self.window, int) or self.window < 1:
            raise UsageError(
                f"TruncatedBPTT(window) must be a whole number of steps, at least 1; found {self.window!r}."
            )


@dataclass(frozen=True)
class Tail(GradientMode):
    """Biased: only the last ``steps`` steps are differentiated; the state that the others lead to is held constant.

    The gradient of what a controller does in the last part of an episode, whose end (terminal cost, closing condition)
    is the problem's own, from the states that its first part leads to. It keeps and costs as much as the tail alone.
    """

    steps: int
    exact: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not isinstance(self.steps, int) or isinstance(self.steps, bool) or self.steps < 1:
            raise UsageError(
                f"Tail(steps) must be a whole number of steps, at least 1; found {self.steps!r}."
            )

    def swept(self, steps: int) -> int:
        return min(self.steps, steps)


@dataclass(frozen=True)
class StopGradient(GradientMode):
    """Biased: the state that a step gets is held constant: interaction with the simulator without its gradient."""

    exact: ClassVar[bool] = False


@functools.lru_cache(maxsize=256)
def _again(steps: int, snapshots: int) -> int:
    return plan(steps, snapshots).recomputed


def in_bytes(memory: str | int) -> int:
    """A number of bytes from a number or words such as ``"2GB"``.

    Raises:
        UsageError: if it is neither.
    """
    if isinstance(memory, int) and not isinstance(memory, bool) and memory > 0:
        return memory
    found = re.fullmatch(r"\s*([0-9.]+)\s*([A-Za-z]*)\s*", memory) if isinstance(memory, str) else None
    units = {name.lower(): size for name, size in UNITS.items()}
    if found is None or found[2].lower() not in units or found[1].count(".") > 1 or float(found[1]) <= 0:
        raise UsageError(f"memory must be a number of bytes or words such as '2GB'; found {memory!r}.")
    return int(float(found[1]) * units[found[2].lower()])
