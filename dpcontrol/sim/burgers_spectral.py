"""Viscous Burgers' equation: Fourier Galerkin on a periodic interval."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from dpcontrol.sim.base import Value
from dpcontrol.sim.quadratic_flux import QuadraticFlux


@dataclass(frozen=True)
class SpectralBurgers(QuadraticFlux):
    r"""Viscous Burgers' equation with a distributed force, on a periodic interval, without numerical viscosity.

    .. math:: u_t + u u_x = \nu u_{xx} + F

    ==========  ==========  =====================================================
    symbol      name        unit (nondimensional: ``L`` = 1, ``U`` = 1)
    ==========  ==========  =====================================================
    ``u``       state       speed ``U``
    ``F``       control     acceleration ``U^2 / L``, held during the step
    ``nu``      viscosity   ``U L``; the Reynolds number is ``U L / nu``
    ==========  ==========  =====================================================

    **State**: ``(scenarios, cells)``, values at ``x_i = i length / cells``; the control has the same shape or is
    ``None``.

    **Boundary conditions**: periodic.

    **Scheme**: Fourier Galerkin in space (errors fall faster than any power once the thinnest layer, ``nu / U`` wide,
    is resolved), the flux ``u^2/2`` formed on the grid, modes ``|n| >= dealiasing cells / 2`` dropped at the start and
    ever after, in force and state, so that with 2/3 no product is aliased. In time an exponential Runge-Kutta scheme,
    ``ETDRK4`` (measured order 4) or ``ETDRK2`` (2): diffusion sets no limit to ``dt``, the flow does, at about
    ``dt max|u| k_max < 2.5`` (``k_max = dealiasing pi cells / length``). A step of a run costs 8 real transforms
    (4 with ``ETDRK2``), one more with a force. The mean of ``u`` changes by the mean of ``F`` only; the nonlinear term
    keeps the energy. Shocks thinner than the grid ring: take :class:`~dpcontrol.sim.FiniteVolumeBurgers` for those.

    **Parameters**: ``viscosity``.

    **Source**: C. Canuto et al., "Spectral Methods: Fundamentals in Single Domains" (2006), chapter 3 (Galerkin and
    dealiasing); the scheme is Krogstad's, see ``etdrk.py``.

    **Good values**: ``SpectralBurgers(dt=0.005, cells=128, viscosity=0.01)`` for ``|u| <= 1``, length 1.

    Args:
        dt: time step.
        cells: number of grid points.
        length: ``L``.
        viscosity: ``nu``, zero allowed; a number, or a tensor ``()`` or ``(scenarios,)``.
        scheme: ``ETDRK4`` or ``ETDRK2``.
        dealiasing: fraction of the modes that are kept, 1 for all.
        fused: whether whole runs and their gradients go through the hand-written kernel; the numbers are the same to
            rounding.

    Raises:
        UsageError: for numbers that are not positive, fewer than 4 cells; at the start of a rollout, for a state of
            another shape; in a step, for a control of another shape.
    """

    dt: float
    cells: int = 128
    length: float = 1.0
    viscosity: Value = 0.01

    def symbol(self, viscosity: Value, k2: Tensor) -> Tensor:
        """``-nu k^2``."""
        return -viscosity * k2
