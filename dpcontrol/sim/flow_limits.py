"""How long a step of a flow may be, asked once at the door."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from dpcontrol.results import UsageError
from dpcontrol.sim.base import Value
from dpcontrol.sim.checks import readable
from dpcontrol.sim.flow_sides import fastest, side_rules
from dpcontrol.sim.grid import Grid

ADVECTIVE_LIMIT = (
    1.7  # of dt times the sum of speeds in cells, for three stages: sqrt(3) on the imaginary axis
)
DIFFUSIVE_LIMIT = {1: 2.0, 3: 2.5127}  # of dt times the largest eigenvalue, on the negative real axis


def require_slow_friction(dt: float, viscosity: Tensor, grid: Grid, stages: int) -> None:
    """Refuse steps in which explicit friction of ``stages`` stages is unstable; candidates of a search pass.

    Raises:
        UsageError: with the largest stable ``dt``.
    """
    if not readable(viscosity):
        return
    stiffness, limit = (
        dt * float(viscosity.max()) * sum(4 / h**2 for h in grid.spacing),
        DIFFUSIVE_LIMIT[stages],
    )
    if stiffness > limit:
        raise UsageError(
            f"friction is explicit: dt * viscosity * sum(4 / h^2) must be below {limit:g}; found {stiffness:.3g}: take "
            f"dt below {dt * limit / stiffness:.3g}."
        )


def require_slow_advection(
    dt: float, velocity: Mapping[str, Tensor], factors: Mapping[str, Value], grid: Grid
) -> None:
    """Refuse steps in which central advection is unstable by the speeds that are known at the start.

    Those that grow in a run are not foreseen. Candidates of a search pass.

    Args:
        dt: time step.
        velocity: some of ``velocity_x`` ..., the others zero.
        factors: ``inflow`` and ``walls``, of the speeds that the sides name.
        grid: cells and sides.

    Raises:
        UsageError: with the largest stable ``dt``.
    """
    numbers = [value for value in factors.values() if isinstance(value, Tensor)]
    if not velocity or not readable(*numbers, *velocity.values()):
        return
    like = next(iter(velocity.values()))
    scales = {name: torch.as_tensor(value).to(like) for name, value in factors.items()}
    parts = tuple(
        velocity.get(f"velocity_{name}", like.new_zeros(len(like), *grid.faces(axis)))
        for axis, name in enumerate(grid.axes)
    )
    rate = float(fastest(parts, side_rules(grid, like.new_zeros(()), scales), grid))
    if dt * rate > ADVECTIVE_LIMIT:
        raise UsageError(
            f"central advection is explicit: dt * sum(|u| / h) must be below {ADVECTIVE_LIMIT:g}; found "
            f"{dt * rate:.3g} from the speeds at the start and on the sides: take dt below "
            f"{ADVECTIVE_LIMIT / rate:.3g}, and less where the flow speeds up."
        )
