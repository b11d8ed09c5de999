"""What a trained correction is asked beside the windows of its own problem."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from dpcontrol.problem.reference import Reference
from dpcontrol.problem.resolution import Resolution, require_whole
from dpcontrol.results import UsageError

LENGTHS = (10, 20, 50, 100, 200, 500)


@dataclass(frozen=True)
class Examination:
    """How far, on what else, and beside which solvers the answers of a correction problem are examined.

    ``dpcontrol compare`` answers it for all strategies, :func:`dpcontrol.comparison.examine` for answers of your own.

    Args:
        lengths: steps of the rollouts over which errors are averaged; those that the reference has are used.
        unseen: label (``"extrapolation"``) -> function without arguments that makes (or finds in the cache)
            trajectories that training has not seen; all of them are used. Functions of a module, or partials of them:
            they may go to other processes.
        resolutions: label (``"2 x finer"``) -> the same kind of solver on another grid; they need a reference that
            knows where its trajectories begin on the fine grid (:attr:`Reference.origin`).
        stable: steps of the rollouts in which it is seen whether they stay finite.

    Raises:
        UsageError: for lengths or steps that are no whole numbers, or entries of another kind.
    """

    lengths: Sequence[int] = LENGTHS
    unseen: Mapping[str, Callable[[], Reference]] = field(default_factory=dict)
    resolutions: Mapping[str, Resolution] = field(default_factory=dict)
    stable: int = 1000

    def __post_init__(self) -> None:
        lengths = tuple(self.lengths)
        if not lengths:
            raise UsageError(
                "an examination needs at least one length of rollouts, such as lengths=(10, 100)."
            )
        for length in lengths:
            require_whole("every length of an examination's rollouts", length)
        object.__setattr__(self, "lengths", tuple(sorted(set(lengths))))
        require_whole("stable", self.stable)
        for label, make in self.unseen.items():
            if not callable(make):
                raise UsageError(
                    f"unseen trajectories are made by a function without arguments; found {type(make).__name__} "
                    f"under {label!r}."
                )
        for label, resolution in self.resolutions.items():
            if not isinstance(resolution, Resolution):
                raise UsageError(
                    f"resolutions are Resolution(simulator, every, start, downsample); found "
                    f"{type(resolution).__name__} under {label!r}."
                )
            strange = sorted(set(resolution.groups or ()) - set(self.unseen))
            if strange:
                raise UsageError(
                    f"{label} is meant for {', '.join(strange)}, which is not among the unseen trajectories; there are "
                    f"{', '.join(self.unseen) or 'none'}."
                )
