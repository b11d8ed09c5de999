"""Viscous Burgers' equation in the plane: Fourier Galerkin in a periodic box."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dpcontrol.results import UsageError
from dpcontrol.sim.base import Simulator, Value, require_positive
from dpcontrol.sim.etdrk import ETDRK4, ExponentialScheme, cast
from dpcontrol.sim.spectral import PeriodicBox, require_dealiasing, require_force, spread
from dpcontrol.sim.stability import require_stable
from dpcontrol.tree import Tree


@dataclass(frozen=True)
class PlaneBurgers(Simulator):
    r"""Viscous Burgers' equation for a velocity in the plane, with a distributed force, in a periodic box.

    .. math:: \mathbf u_t + (\mathbf u \cdot \nabla) \mathbf u = \nu \Delta \mathbf u + \mathbf F

    ==========  ==========  =====================================================
    symbol      name        unit (nondimensional: ``L`` = 1, ``U`` = 1)
    ==========  ==========  =====================================================
    ``u``       state       speed ``U``, two components
    ``F``       control     acceleration ``U^2 / L``, held during the step
    ``nu``      viscosity   ``U L``; the Reynolds number is ``U L / nu``
    ==========  ==========  =====================================================

    **State**: ``(scenarios, 2, nx, ny)``, values at ``(i lengths[0] / nx, j lengths[1] / ny)``; the control has the
    same shape or is ``None``. What depends on one coordinate only is Burgers' equation of that coordinate.

    **Boundary conditions**: periodic in both directions.

    **Scheme**: Fourier Galerkin (of spectral accuracy once the thinnest layer, ``nu / U`` wide, is resolved), modes
    ``|n| >= dealiasing N / 2`` of either axis dropped at the start and ever after, so that with 2/3 no product is
    aliased. The transport is formed from the energy and the vorticity ``omega = v_x - u_y``,

    .. math:: (\mathbf u \cdot \nabla) \mathbf u = \nabla \tfrac12 |\mathbf u|^2 + \omega\, (-v, u),

    six transforms a stage where ``u u_x + v u_y`` and its partner need eight. In time ``ETDRK4`` (measured order 4; 27
    transforms a step) or ``ETDRK2`` (2; 15), two more with a force: diffusion sets no limit to ``dt``, the flow
    does, at about ``dt max|u| k_max < 2.5``; the start is checked against it. A velocity without vorticity keeps
    none (the Cole-Hopf transform solves it in closed form). Neither mean velocity nor energy is conserved in general.

    **Parameters**: ``viscosity``.

    **Source**: J. M. Burgers, "The Nonlinear Diffusion Equation" (1974); the scheme is Krogstad's, see ``etdrk.py``;
    closed forms from J. D. Cole, Quart. Appl. Math. 9 (1951) 225.

    **Good values**: ``PlaneBurgers(dt=0.01, shape=(64, 64), viscosity=0.02)`` for ``|u| <= 1``, sides 1.

    Args:
        dt: time step.
        shape: grid points in x and y.
        viscosity: ``nu``, zero allowed; a number, or a tensor ``()`` or ``(scenarios,)``.
        lengths: sides of the box.
        scheme: ``ETDRK4`` or ``ETDRK2``.
        dealiasing: fraction of the modes that are kept, 1 for all.

    Raises:
        UsageError: for numbers out of range; at the start of a rollout, for a state of another shape and a step that is
            too long for it; in a step, for a control of another shape.
    """

    dt: float
    shape: tuple[int, int] = (64, 64)
    viscosity: Value = 0.02
    lengths: tuple[float, float] = (1.0, 1.0)
    scheme: ExponentialScheme = ETDRK4
    dealiasing: float = 2 / 3

    def __post_init__(self) -> None:
        require_positive("dt", self.dt)
        require_positive("viscosity", self.viscosity, zero_allowed=True)
        require_dealiasing(self.dealiasing)
        if len(self.box.shape) != 2:
            raise UsageError(
                f"Burgers' equation in the plane has a shape of two numbers; found {self.shape!r}."
            )

    @property
    def box(self) -> PeriodicBox:
        """The grid."""
        return PeriodicBox(self.shape, self.lengths)

    @property
    def parameters(self) -> Mapping[str, Value]:
        return {"viscosity": self.viscosity}

    def check(self, initial: Tree, parameters: Mapping[str, Tensor]) -> None:
        """Refuse a step that is too long for the initial velocity."""
        self.box.require(initial, 2)
        nu, box = parameters["viscosity"], self.box
        squares = box.squared_wavenumber(nu.device)
        wavenumber = squares.sqrt() * box.kept(self.dealiasing, nu.device)
        speed = torch.linalg.vector_norm(initial, dim=1)
        require_stable(self.scheme, self.dt, -spread(nu, 2) * squares, wavenumber, speed)

    def start(self, initial: Tree, parameters: Mapping[str, Tensor]) -> Tree:
        """``initial``, its shape checked, without the modes that are not kept."""
        self.box.require(initial, 2)
        return self.box.project(initial, self.dealiasing)

    def prepare(self, parameters: Mapping[str, Tensor], scenario: Mapping[str, Tree]) -> Any:
        """The coefficients of the scheme, differentiable in the viscosity."""
        nu, box = parameters["viscosity"], self.box
        linear = -spread(nu, 3) * box.squared_wavenumber(nu.device)
        kx, ky = torch.broadcast_tensors(*box.wavenumbers(nu.device, odd=True))
        coefficients = {
            "scheme": self.scheme.coefficients(linear, self.dt, kept=box.kept(self.dealiasing, nu.device)),
            "slopes": 1j * torch.stack((kx, ky)),
        }
        return cast(coefficients, nu.dtype)

    def step(self, state: Tree, control: Tree, coefficients: Any, noise: Tree, t: float) -> Tree:
        """One step of the scheme."""
        box, (along_x, along_y) = self.box, coefficients["slopes"]
        force = None
        if control is not None:
            require_force(control, state)
            force = box.forward(control)

        def transport(spectrum: Tensor) -> Tensor:
            vorticity = along_x * spectrum[:, 1] - along_y * spectrum[:, 0]
            u, v, omega = box.inverse(torch.cat((spectrum, vorticity[:, None]), 1)).unbind(1)
            products = torch.stack((0.5 * (u * u + v * v), omega * v, omega * u), 1)
            energy, turned_u, turned_v = box.forward(products).unbind(1)
            return torch.stack((turned_u - along_x * energy, -turned_v - along_y * energy), 1)

        spectrum = box.forward(state)
        after = self.scheme.advance(spectrum, transport, transport(spectrum), coefficients["scheme"], force)
        return box.inverse(after)
