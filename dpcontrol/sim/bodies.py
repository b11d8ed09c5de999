"""The bodies of one flow: their parameters, where they are, and what holds the fluid on their surfaces."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dpcontrol.linalg import Poisson
from dpcontrol.results import UsageError
from dpcontrol.sim.base import Value
from dpcontrol.sim.bodies_room import has_room, require_room
from dpcontrol.sim.grid import Grid
from dpcontrol.sim.obstacle import Disc, Surface, immersed, surface


@dataclass(frozen=True)
class Held:
    """A surface, and the velocity of its points ``(scenarios or 1, 2 * points)``."""

    surface: Surface
    velocity: Tensor


@dataclass(frozen=True)
class Bodies:
    """Discs in a grid of two axes.

    Raises:
        UsageError: for bodies in another number of dimensions.
    """

    grid: Grid
    discs: tuple[Disc, ...]

    def __post_init__(self) -> None:
        if len(self.grid.cells) != 2:
            raise UsageError(f"bodies live in grids of two axes; found cells={self.grid.cells}.")

    def require_room(self, parameters: Mapping[str, Tensor], position: Tensor | None = None) -> None:
        """Refuse bodies without room, see :func:`dpcontrol.sim.bodies_room.rooms`; reads numbers.

        Args:
            parameters: with those of the bodies, by default their own values.
            position: centres of those that move, ``(scenarios, moving, 2)``; by default those of the parameters.

        Raises:
            UsageError: in one sentence.
        """
        known = {name: torch.as_tensor(value).detach() for name, value in self.parameters.items()}
        known |= {name: value.detach() for name, value in parameters.items() if name in known}
        centres = [_centre(known, tag).double() for tag in self.tags]
        if position is not None:
            for place, index in enumerate(self.moving):
                centres[index] = position[:, place].detach().double()
        require_room(self.grid, centres, [_batch(known[f"radius{tag}"]).double() for tag in self.tags])

    @property
    def tags(self) -> list[str]:
        """What the names of each body's parameters end with."""
        return ["" if index == 0 else f"_{index + 1}" for index in range(len(self.discs))]

    @property
    def moving(self) -> list[int]:
        """Which of them move."""
        return [index for index, disc in enumerate(self.discs) if disc.moves]

    @property
    def parameters(self) -> dict[str, Value]:
        """Place, size and rotation of each."""
        found: dict[str, Value] = {}
        for tag, disc in zip(self.tags, self.discs, strict=True):
            found |= {f"centre_x{tag}": disc.centre[0], f"centre_y{tag}": disc.centre[1]}
            found |= {f"radius{tag}": disc.radius, f"rotation{tag}": disc.rotation}
        return found

    def positions(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """Centres of those that move, ``(batch, moving, 2)``."""
        rows = [_centre(parameters, self.tags[index]) for index in self.moving]
        return torch.stack(torch.broadcast_tensors(*rows), 1)

    def prepare(
        self, parameters: Mapping[str, Tensor], solver: Poisson, dtype: torch.dtype
    ) -> dict[str, Any]:
        """Arms from the centres to the points, rates, and what holds the fluid where nothing moves.

        Where bodies have no room, all that they touch is NaN, for that scenario alone.

        ``solver`` is in float64, as all of this, which is turned to ``dtype`` at the end.
        """
        centres, arms, radii = [], [], []
        for tag, disc in zip(self.tags, self.discs, strict=True):
            centres.append(_centre(parameters, tag).double())
            radius = _batch(parameters[f"radius{tag}"]).double()
            radii.append(radius)
            arms.append(surface(radius, disc.points(self.grid), self.grid))
        found: dict[str, Any] = {
            "centres": centres,
            "arms": arms,
            "radii": radii,
            "rotation": [_batch(parameters[f"rotation{tag}"]) for tag in self.tags],
            "solver": solver,
        }
        if not self.moving:
            found["surface"] = self._immersed(centres, found, dtype)
        return found

    def held(
        self,
        position: Tensor | None,
        motion: tuple[Tensor | None, Tensor | None],
        coefficients: Mapping[str, Any],
        times: Sequence[float],
        like: Tensor,
    ) -> list[Held]:
        """Surfaces and their velocities at ``times`` after ``position``.

        Args:
            position: centres of those that move, ``(scenarios, moving, 2)``; ``None`` where nothing does.
            motion: velocities ``(scenarios, moving, 2)`` and rates of rotation ``(scenarios, bodies)``, or ``None``
                for those of the discs.
            coefficients: of :meth:`prepare`.
            times: from now.
            like: gives dtype and device.
        """
        speeds, rates = self.speeds(motion[0], like), motion[1]
        parts = []
        for index, arm in enumerate(coefficients["arms"]):
            rate = coefficients["rotation"][index] if rates is None else rates[:, index]
            across, along = -rate[:, None] * arm[1], rate[:, None] * arm[0]
            if index in self.moving:
                row = speeds[:, self.moving.index(index)]
                across, along = across + row[:, :1], along + row[:, 1:]
            parts.append((across, along))
        velocity = torch.cat([*_together(parts, 0), *_together(parts, 1)], 1).to(like)
        if position is None:
            return [Held(coefficients["surface"], velocity)] * len(times)
        surfaces = {}
        for time in set(times):
            centres = list(coefficients["centres"])
            for place, index in enumerate(self.moving):
                centres[index] = (position[:, place] + time * speeds[:, place]).double()
            surfaces[time] = self._immersed(centres, coefficients, like.dtype)
        return [Held(surfaces[time], velocity) for time in times]

    def speeds(self, given: Tensor | None, like: Tensor) -> Tensor:
        """Velocities of those that move, ``(scenarios or 1, moving, 2)``."""
        if given is not None:
            return given
        return like.new_tensor([self.discs[index].velocity for index in self.moving]).reshape(1, -1, 2)

    def each(self, forces: Tensor, coefficients: Mapping[str, Any]) -> Tensor:
        """Sums over the points of each body, ``(scenarios, bodies, 2)``."""
        counts = [arm[0].shape[-1] for arm in coefficients["arms"]]
        return torch.stack(
            [
                torch.stack([part.sum(-1) for part in component.split(counts, 1)], -1)
                for component in forces.chunk(2, 1)
            ],
            -1,
        )

    def _immersed(
        self, centres: Sequence[Tensor], coefficients: Mapping[str, Any], dtype: torch.dtype
    ) -> Surface:
        parts = [
            tuple(centre[:, axis, None] + arm[axis] for axis in range(2))
            for centre, arm in zip(centres, coefficients["arms"], strict=True)
        ]
        places = [torch.cat(list(_together(parts, axis)), 1) for axis in range(2)]
        fits = has_room(self.grid, centres, coefficients["radii"])
        return immersed(places, self.grid, coefficients["solver"], fits).to(dtype)


def _together(parts: Sequence[tuple[Tensor, ...]], which: int) -> tuple[Tensor, ...]:
    """One entry of every part, all with the same number of scenarios."""
    count = max(len(part[which]) for part in parts)
    return tuple(part[which].expand(count, -1) for part in parts)


def _centre(parameters: Mapping[str, Tensor], tag: str) -> Tensor:
    """``(batch, 2)``."""
    rows = torch.broadcast_tensors(*(_batch(parameters[f"centre_{axis}{tag}"]) for axis in "xy"))
    return torch.stack(rows, -1)


def _batch(parameter: Tensor) -> Tensor:
    return parameter.reshape(1) if parameter.ndim == 0 else parameter


def fraction(grid: Grid, centre: Tensor, radius: Tensor) -> Tensor:
    """The share of each cell that a disc fills, ``(batch, nx, ny)``, smooth over about one cell; for looking at.

    ``centre`` is ``(batch, 2)``, ``radius`` ``(batch,)``.
    """
    x, y = (row.to(radius) for row in grid.centres())
    away = torch.hypot(x - centre[:, 0, None, None], y - centre[:, 1, None, None])
    return torch.sigmoid((radius[:, None, None] - away) * (4 / math.sqrt(math.prod(grid.spacing))))
