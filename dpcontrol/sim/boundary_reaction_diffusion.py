"""A rod whose own reaction heats it faster than diffusion cools it, held at one end and steered from the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from dpcontrol.sim.base import Value
from dpcontrol.sim.held_boundary import HeldBoundary, chebyshev, check_held


@dataclass(frozen=True, eq=False)
class BoundaryReactionDiffusion(HeldBoundary):
    r"""Diffusion with a linear reaction, controlled at the boundary.

    .. math:: u_t = u_{xx} + \lambda(x)\, u, \qquad 0 < x < 1, \qquad u(0, t) = 0, \quad u(1, t) = U(t)

    For constant :math:`\lambda` the modes ``sin(k pi x)`` grow where :math:`\lambda > k^2 \pi^2`.

    **State**: ``u`` on ``points`` points, both boundaries among them, ``(scenarios, points)``. **Control**: ``U``,
    ``(scenarios, 1)``, held during ``dt = fine_dt * held``; ``None`` is ``U = 0``. Length and diffusivity are one, the
    unit of ``u`` is the user's.

    **Scheme**: forward Euler, of first order in time, and central differences, of second order in space:
    ``u_i <- u_i + fine_dt ((u_{i-1} - 2 u_i + u_{i+1})/dx^2 + lambda_i u_i)`` inside; then ``u_0 = 0`` and the last
    point becomes ``U``. ``held`` such steps are one matrix product, see
    :class:`~dpcontrol.sim.held_boundary.HeldBoundary`. Stable for ``fine_dt <= dx^2/2`` (a little less where
    :math:`\lambda` is large and negative). The distance of the points is ``1/(points - 1)``.

    **Parameters**: ``reaction``, :math:`\lambda` on the points: a number, ``(points,)``, or ``(scenarios, points)``.

    **Source**: A. Smyshlyaev, M. Krstic, IEEE Trans. Automat. Control 49 (2004) (the equation and its backstepping
    control); L. Bhan et al., "PDE control gym", L4DC 2024 (this discretisation).

    **Good values**: ``BoundaryReactionDiffusion()`` is the published benchmark: ``lambda = 50 cos(8 arccos x)``, 201
    points, ``fine_dt`` 1e-5, a control held for 100 fine steps.

    Args:
        reaction: :math:`\lambda`; ``None`` for the published one.
        points: number of points.
        fine_dt: time step of the scheme.
        held: fine steps for which a control is held.

    Raises:
        UsageError: for numbers out of range, an unstable ``fine_dt``, or a field, state or control of another shape.
    """

    reaction: Value | None = None
    points: int = 201
    fine_dt: float = 1e-5
    held: int = 100

    def __post_init__(self) -> None:
        check_held(self, "reaction", self.reaction)

    @property
    def dx(self) -> float:
        return 1 / (self.points - 1)

    @property
    def longest_dt(self) -> float:
        return self.dx**2 / 2

    @property
    def parameters(self) -> Mapping[str, Value]:
        given = self.reaction
        return {"reaction": chebyshev(50.0, 8.0, self.points) if given is None else given}

    def fine_step(self, state: Tensor, control: Tensor, field: Tensor) -> Tensor:
        """One fine step."""
        reaction = field[..., 1:-1] if field.ndim else field
        inside = state[..., 1:-1]
        bend = (state[..., :-2] - 2 * inside + state[..., 2:]) / self.dx**2
        inner = inside + self.fine_dt * (bend + reaction * inside)
        ends = inner.shape[:-1]
        return torch.cat((torch.zeros_like(inner[..., :1]), inner, control.expand(*ends, 1)), -1)
