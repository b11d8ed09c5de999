"""Transport towards a wall whose value feeds back everywhere: unstable, and steered from the other end only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from dpcontrol.sim.base import Value
from dpcontrol.sim.held_boundary import HeldBoundary, chebyshev, check_held


@dataclass(frozen=True, eq=False)
class BoundaryTransport(HeldBoundary):
    r"""Transport with recirculation, controlled at the boundary where it comes in.

    .. math:: u_t = u_x + \beta(x)\, u(0, t), \qquad 0 < x < 1, \qquad u(1, t) = U(t)

    What comes in at x = 1 arrives at x = 0 after one unit of time, and its value there acts as a source everywhere:
    for large :math:`\beta` the uncontrolled equation (``U = 0``) grows.

    **State**: ``u`` on ``points`` points, the left boundary among them, ``(scenarios, points)``; the last one carries
    the boundary value. **Control**: ``U``, ``(scenarios, 1)``, held during ``dt = fine_dt * held``; ``None`` is
    ``U = 0``. Length and speed are one; ``u`` has the user's unit.

    **Scheme**: forward Euler and upwind differences, of first order in time and space:
    ``u_i <- u_i + fine_dt ((u_{i+1} - u_i)/dx + beta_i u_0)`` for all points but the last, which becomes ``U``, so
    that a new boundary value enters the interior one fine step later. ``held`` such steps are one matrix product, see
    :class:`~dpcontrol.sim.held_boundary.HeldBoundary`. Stable for ``fine_dt <= dx``; the scheme's own diffusivity is
    ``(dx - fine_dt)/2``. The distance of the points is ``1/points``, as published.

    **Parameters**: ``recirculation``, :math:`\beta` on the points: a number, ``(points,)``, or ``(scenarios, points)``.

    **Source**: M. Krstic, A. Smyshlyaev, Syst. Control Lett. 57 (2008) (the equation and its backstepping control);
    L. Bhan et al., "PDE control gym", L4DC 2024 (this discretisation).

    **Good values**: ``BoundaryTransport()`` is the published benchmark: ``beta = 5 cos(7.35 arccos x)``, 100 points,
    ``fine_dt`` 1e-4, a control held for 1,000 fine steps.

    Args:
        recirculation: :math:`\beta`; ``None`` for the published one.
        points: number of points.
        fine_dt: time step of the scheme.
        held: fine steps for which a control is held.

    Raises:
        UsageError: for numbers out of range, an unstable ``fine_dt``, or a field, state or control of another shape.
    """

    recirculation: Value | None = None
    points: int = 100
    fine_dt: float = 1e-4
    held: int = 1000

    def __post_init__(self) -> None:
        check_held(self, "recirculation", self.recirculation)

    @property
    def dx(self) -> float:
        return 1 / self.points

    @property
    def longest_dt(self) -> float:
        return self.dx

    @property
    def parameters(self) -> Mapping[str, Value]:
        given = self.recirculation
        return {"recirculation": chebyshev(5.0, 7.35, self.points) if given is None else given}

    def fine_step(self, state: Tensor, control: Tensor, field: Tensor) -> Tensor:
        """One fine step."""
        beta = field[..., :-1] if field.ndim else field
        slope = (state[..., 1:] - state[..., :-1]) / self.dx
        inner = state[..., :-1] + self.fine_dt * (slope + beta * state[..., :1])
        return torch.cat((inner, control.expand(*inner.shape[:-1], 1)), -1)
