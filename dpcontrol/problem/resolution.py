"""A solver of the same kind on another grid."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dpcontrol.results import UsageError
from dpcontrol.sim.base import Simulator, Substeps
from dpcontrol.tree import Tree


@dataclass(frozen=True)
class Resolution:
    """The same kind of solver on another grid: what its accuracy costs is what a correction has to beat.

    Args:
        simulator: on that grid; it takes those parameters of the reference's trajectories whose names it knows.
        every: its steps in one step of the coarse solver.
        start: from states of the fine simulator, as :attr:`Reference.origin` has them, to states of this one; batched
            over trajectories.
        downsample: from its states to those of the coarse solver.
        groups: labels of those unseen trajectories that it can start from beside the problem's own (those in a box of
            its size, say); all of them by default.

    Raises:
        UsageError: for something else.
    """

    simulator: Simulator
    every: int
    start: Callable[[Tree], Tree]
    downsample: Callable[[Tree], Tree]
    groups: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.simulator, Simulator):
            raise UsageError(
                f"a resolution is examined with a Simulator; found {type(self.simulator).__name__}: wrap a step "
                "function in FunctionSimulator(step)."
            )
        require_whole("every", self.every)
        for name in ("start", "downsample"):
            if not callable(getattr(self, name)):
                raise UsageError(
                    f"{name} of a resolution is a function of states; found {getattr(self, name)!r}."
                )

    @property
    def steps(self) -> Simulator:
        """The simulator with steps as long as the coarse solver's."""
        return self.simulator if self.every == 1 else Substeps(self.simulator, self.every)


def require_whole(name: str, value: object) -> None:
    """Refuse what is no whole number from 1 on."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UsageError(f"{name} must be a whole number, at least 1; found {value!r}.")
