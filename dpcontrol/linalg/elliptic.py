r"""``div(c grad u) - s u = f`` in a box with coefficients that vary: CG with multigrid or transforms inside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dpcontrol.linalg.diffusion import Box, Links, applied, diagonal
from dpcontrol.linalg.implicit import LinearSolver
from dpcontrol.linalg.krylov import Operator, Solved, Stopping
from dpcontrol.linalg.multigrid import multigrid
from dpcontrol.linalg.poisson import Poisson, Sides
from dpcontrol.results import UsageError

Theta = tuple[Links, Tensor | None]


@dataclass(frozen=True)
class VariablePoisson:
    r"""A solver of ``div(c grad u) - s u = f`` on the cells of a box; made by :func:`variable_poisson`.

    .. math:: \sum_a \frac{c_{i+1/2} (u_{i+e_a} - u_i) - c_{i-1/2} (u_i - u_{i-e_a})}{h_a^2} - s_i u_i = f_i

    with the ghosts of :class:`~dpcontrol.linalg.poisson.Poisson` beyond the sides: with ``c = 1`` and ``s = 0`` it is
    the same equation with the same sign. Differentiable in ``f``, ``c`` and ``s`` to any order (see
    :class:`~dpcontrol.linalg.implicit.LinearSolver`), batched over leading axes.

    ``c`` may be zero on faces: nothing flows through them. Cells whose faces are all closed have no equation; ``u`` is
    zero there and ``f`` ignored. Where no side is ``"dirichlet"`` and there is no ``s``, a constant is undetermined:
    the mean of ``f`` over the other cells is ignored and that of ``u`` is zero. (If closed faces cut the open cells
    into parts, ``f`` must have mean zero in each, as a divergence has; else the solve is told as not converged.)
    """

    box: Box
    solver: LinearSolver

    def solve(
        self,
        coefficients: Sequence[Tensor],
        right: Tensor,
        *,
        reaction: Tensor | None = None,
        guess: Tensor | None = None,
    ) -> Tensor:
        """``u``, ``(..., *cells)``.

        Args:
            coefficients: ``c`` on the faces normal to each axis: ``n + 1`` along that axis from the left side to the
                right one, or ``n`` where it is periodic, the first being at its left end; further leading axes
                broadcast against those of ``f``. Non-negative. Those on a ``"neumann"`` side play no part.
            right: ``f``, ``(..., *cells)``, with all leading axes.
            reaction: ``s``, in the cells, non-negative.
            guess: where to start, an earlier ``u`` say.

        Raises:
            UsageError: for tensors that do not live on this box.
            NotConverged: with ``on_failure="raise"``.
        """
        theta = self._theta(coefficients, right, reaction)
        return self.solver.solve(theta, -right, guess)

    def solved(
        self,
        coefficients: Sequence[Tensor],
        right: Tensor,
        *,
        reaction: Tensor | None = None,
        guess: Tensor | None = None,
    ) -> Solved:
        """How the solve went (iterations, residuals), and its solution; not differentiable."""
        return self.solver.solved(self._theta(coefficients, right, reaction), -right, guess)

    def _theta(self, coefficients: Sequence[Tensor], right: Tensor, reaction: Tensor | None) -> Theta:
        self.box.require(coefficients, right, reaction)
        return self.box.links(coefficients), reaction


def variable_poisson(
    cells: Sequence[int],
    spacing: Sequence[float],
    sides: Sequence[Sides],
    *,
    preconditioner: str | Poisson = "multigrid",
    stop: Stopping = Stopping(),  # noqa: B008 - a frozen value
    on_failure: str = "raise",
) -> VariablePoisson:
    """A solver for coefficients that vary; make it once.

    Args:
        cells, spacing, sides: as in :func:`~dpcontrol.linalg.poisson.poisson`.
        preconditioner: ``"multigrid"`` (a dozen iterations whatever the grid and the obstacles), ``"none"``, or a
            direct solver ``poisson(cells, spacing, sides, dtype=...)``, scaled by the coefficient in the cells on both
            sides (P. Concus, G. H. Golub, SIAM J. Numer. Anal. 10 (1973)): cheapest where ``c`` varies
            little or smoothly, and slow for obstacles.
        stop: tolerance and number of iterations.
        on_failure: ``"raise"``, or ``"nan"`` for NaN in the scenarios that did not converge, for use in searches.

    Raises:
        UsageError: for a wrong box, preconditioner or way to fail.
    """
    box = Box(tuple(cells), tuple(spacing), tuple(sides))
    wraps = tuple(box.periodic(axis) for axis in box.axes)

    def apply(theta: Theta, field: Tensor) -> Tensor:
        return applied(*theta, field, wraps)

    def project(theta: Theta, field: Tensor) -> Tensor:
        alive = diagonal(*theta) > 0
        field = torch.where(alive, field, 0.0)
        if not box.closed or theta[1] is not None:
            return field
        axes = tuple(box.axes)
        count = alive.sum(axes, keepdim=True).clamp(min=1)
        return torch.where(alive, field - field.sum(axes, keepdim=True) / count, 0.0)

    def by_multigrid(theta: Theta) -> Operator:
        return multigrid(box, *theta)

    def by_transforms(theta: Theta) -> Operator:
        assert isinstance(preconditioner, Poisson)
        assert isinstance(preconditioner, Poisson)
        here = diagonal(theta[0], None)
        units = [torch.ones(box.faces(axis), dtype=here.dtype, device=here.device) for axis in box.axes]
        plain = diagonal(box.links(units), None)
        scale = torch.where(here > 0, plain / torch.where(here > 0, here, 1.0), 0.0).sqrt()
        return lambda rest: -scale * preconditioner.solve(scale * rest)

    makers = {"multigrid": by_multigrid, "none": None}
    if not isinstance(preconditioner, Poisson) and preconditioner not in makers:
        raise UsageError(
            f'the preconditioner is "multigrid", "none" or poisson(...); found {preconditioner!r}.'
        )
    make = by_transforms if isinstance(preconditioner, Poisson) else makers[preconditioner]
    solver = LinearSolver(
        apply, len(cells), preconditioner=make, project=project, stop=stop, on_failure=on_failure
    )
    return VariablePoisson(box, solver)
