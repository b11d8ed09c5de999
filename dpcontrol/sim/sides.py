"""What the sides of a box are, as values: walls, openings, and what a scalar does there."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from dpcontrol.results import UsageError

Profile = Callable[..., Tensor]


@dataclass(frozen=True)
class Periodic:
    """Both ends of the axis are the same place."""


@dataclass(frozen=True)
class NoSlip:
    """A wall that the fluid sticks to.

    Args:
        velocity: of the wall, along itself: a number in two dimensions, in three one number for each of the other two
            axes in their order; 0 at rest.

    Raises:
        UsageError: for a velocity that is not finite.
    """

    velocity: float | tuple[float, ...] = 0.0

    def __post_init__(self) -> None:
        parts = self.velocity if isinstance(self.velocity, tuple) else (self.velocity,)
        if not all(isinstance(part, int | float) and math.isfinite(part) for part in parts):
            raise UsageError(f"the velocity of a wall is a finite number; found {self.velocity!r}.")

    @property
    def moves(self) -> bool:
        """Whether the wall moves along itself."""
        return any(self.velocity) if isinstance(self.velocity, tuple) else self.velocity != 0


@dataclass(frozen=True)
class FreeSlip:
    """A wall without friction, or a plane of symmetry: no flow through it, no shear along it."""


@dataclass(frozen=True)
class Inflow:
    """Fluid enters at a given speed, straight in.

    Args:
        speed: into the box; a number, or a function of the coordinates along the side (one tensor in two dimensions,
            two in three) that returns the speeds there.
    """

    speed: float | Profile = 1.0

    def __post_init__(self) -> None:
        number = isinstance(self.speed, int | float) and math.isfinite(self.speed)
        if not number and not callable(self.speed):
            raise UsageError(
                f"the speed of an inflow is a finite number or a function of the place; found {self.speed!r}."
            )


@dataclass(frozen=True)
class Outflow:
    """An opening: pressure zero, and no velocity component changes across it."""


@dataclass(frozen=True)
class FixedValue:
    """For scalars: the value on the side."""

    value: float = 0.0


@dataclass(frozen=True)
class FixedFlux:
    """For scalars: the derivative along the outer normal; 0 for an insulated side."""

    slope: float = 0.0


Side = Periodic | NoSlip | FreeSlip | Inflow | Outflow | FixedValue | FixedFlux
Named = Side | str

SHORTHANDS: Mapping[str, Side] = {
    "no_slip": NoSlip(),
    "free_slip": FreeSlip(),
    "inflow": Inflow(),
    "outflow": Outflow(),
}
WALLS = (NoSlip, FreeSlip)
OPENINGS = (Inflow, Outflow)


def named(given: object) -> Periodic | tuple[Side, Side]:
    """The sides of one axis from what was given for it: values, or their shorthands.

    Raises:
        UsageError: for anything else.
    """
    if given == "periodic" or isinstance(given, Periodic):
        return Periodic()
    if isinstance(given, tuple) and len(given) == 2:
        left, right = (SHORTHANDS.get(side) if isinstance(side, str) else side for side in given)
        if isinstance(left, Side) and isinstance(right, Side) and Periodic() not in (left, right):
            return left, right
    raise UsageError(
        f'the sides of an axis are "periodic" or a pair of {" and ".join(list(SHORTHANDS)[:2])}; found {given!r}. '
        "Further sides, in pairs: NoSlip(velocity), Inflow(speed), Outflow(); FixedValue, FixedFlux for scalars."
    )
