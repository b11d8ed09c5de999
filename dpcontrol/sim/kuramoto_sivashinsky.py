"""The Kuramoto-Sivashinsky equation: spatio-temporal chaos in one dimension."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from dpcontrol.sim.base import Value, require_positive
from dpcontrol.sim.quadratic_flux import QuadraticFlux


@dataclass(frozen=True)
class KuramotoSivashinsky(QuadraticFlux):
    r"""The Kuramoto-Sivashinsky equation with a distributed force, on a periodic interval.

    .. math:: u_t + u u_x + u_{xx} + \nu u_{xxxx} = F

    ==========  ===============  ================================================================
    symbol      name             unit (nondimensional: the most unstable wave has ``k = 1/sqrt(2)``)
    ==========  ===============  ================================================================
    ``u``       state            speed, about 3 at its largest
    ``F``       control          speed over time, held during the step
    ``nu``      viscosity        1 in the usual scaling; damps the short waves
    ``L``       length           the only number that matters if ``nu = 1``: chaos beyond about 18
    ==========  ===============  ================================================================

    **State**: ``(scenarios, cells)``, values at ``x_i = i length / cells``; the control has the same shape or is
    ``None``.

    **Boundary conditions**: periodic.

    **Scheme**: Fourier Galerkin in space (of spectral accuracy), the flux ``u^2/2`` formed on the grid, modes
    ``|n| >= dealiasing cells / 2`` dropped at the start and ever after, in force and state, so that with 2/3 no product
    is aliased. In time an exponential Runge-Kutta scheme, ``ETDRK4`` (measured order 3.6 at
    ``dt = 0.05`` to 3.9 at 0.01: full order 4, stiff order 3) or ``ETDRK2`` (2), with the
    linear part, unstable modes included, and a constant force exact. A step of a run costs 8 real transforms
    (4 with ``ETDRK2``), one more with a force. The mean of ``u`` changes by the mean of ``F`` only.

    **Parameters**: ``viscosity``.

    **Source**: A.-K. Kassam, L. N. Trefethen, SIAM J. Sci. Comput. 26 (2005) (their phi functions are
    contour integrals, ours a series near zero); the scheme is Krogstad's, see ``etdrk.py``.

    **Good values**: ``KuramotoSivashinsky(dt=0.1, cells=64, length=22.0)``, whose chaos forgets its start within about
    20 units of time per factor of e; ``dt=0.25, cells=128, length=32 pi`` is Kassam and Trefethen's.

    Args:
        dt: time step.
        cells: number of grid points.
        length: ``L``.
        viscosity: ``nu``; a number, or a tensor ``()`` or ``(scenarios,)``.
        scheme: ``ETDRK4`` or ``ETDRK2``.
        dealiasing: fraction of the modes that are kept, 1 for all.
        fused: whether whole runs and their gradients go through the hand-written kernel; the numbers are the same to
            rounding.

    Raises:
        UsageError: for numbers that are not positive, fewer than 4 cells; at the start of a rollout, for a state of
            another shape; in a step, for a control of another shape.
    """

    dt: float
    cells: int = 64
    length: float = 22.0
    viscosity: Value = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive("viscosity", self.viscosity)

    def symbol(self, viscosity: Value, k2: Tensor) -> Tensor:
        """``k^2 - nu k^4``."""
        return k2 - viscosity * k2.square()
