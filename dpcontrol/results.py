"""What a run says about itself: a ``Status`` (a sentence with a remedy) and ``Counts``; and ``UsageError``.

A wrong call is an exception, at once (:class:`UsageError`); a failed run is data (a :class:`Status`).
"""

from __future__ import annotations

from dataclasses import dataclass


class UsageError(ValueError):
    """A call that cannot work. Its one sentence says what was found, what was expected and what to do."""


class NoInfluence(UsageError):
    """The loss does not depend on what is sought."""


class SimulationFailed(UsageError):
    """Somebody else's simulator crashed, hung or answered nonsense: at the door an exception, in a search a status."""


# what somebody else's code may raise: its sys.exit() must not end this program
USERS_ERRORS = (Exception, SystemExit)


def first_line(error: BaseException) -> str:
    """Kind and first line of an error in somebody's code, without a full stop: part of a sentence."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:160].rstrip('.')}" if lines else type(error).__name__


GOOD = ("converged", "target reached")
ENDED = ("budget spent", "iterations spent", "interrupted", "stopped", "scored")
FAILED = ("diverged", "stalled", "failed")


@dataclass(frozen=True)
class Status:
    """How a run ended.

    ``kind`` is one of ``converged``, ``target reached`` (it found what it looked for); ``budget spent``, ``iterations
    spent``, ``interrupted``, ``stopped``, ``scored`` (it was ended, the best so far is kept); ``diverged``,
    ``stalled``, ``failed`` (something went wrong, the best so far is kept).
    ``sentence`` says more, with a remedy where there is one.
    """

    kind: str
    sentence: str

    def __post_init__(self) -> None:
        if self.kind not in GOOD + ENDED + FAILED:
            raise ValueError(f"unknown kind of status {self.kind!r}")

    @property
    def failed(self) -> bool:
        """Whether something went wrong (a spent budget is not a failure)."""
        return self.kind in FAILED

    def __str__(self) -> str:
        return self.kind


@dataclass(frozen=True)
class Counts:
    """What a run has cost, in units that do not depend on the machine.

    ``simulated_steps`` are scenario-steps: one step of one scenario is one, and one step of a vector-Jacobian
    product (VJP) sweep of one scenario is charged as one more, so that a gradient costs twice its forward run. What a
    problem's gradient mode runs again on the way back, such as ``Checkpointed()``, is charged as well; what ``Auto``
    chooses by the memory of a machine is not.
    ``gradients`` counts VJP sweeps of one scenario; a Hessian product costs two. ``failures`` counts evaluations
    of one scenario that gave no finite loss.
    """

    simulated_steps: int = 0
    gradients: int = 0
    failures: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.simulated_steps + other.simulated_steps,
            self.gradients + other.gradients,
            self.failures + other.failures,
        )
