"""Two-dimensional incompressible flow in vorticity form: Fourier Galerkin on a periodic box."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from dpcontrol.kernels import Advection, ExponentialKernel, HalfSpectrum, Kernel
from dpcontrol.kernels.native import can_run
from dpcontrol.kernels.spectral_flow import FlowKernel
from dpcontrol.results import UsageError
from dpcontrol.sim.base import Simulator, Value, require_positive
from dpcontrol.sim.constants import Constants
from dpcontrol.sim.etdrk import ETDRK2, ExponentialScheme, cast
from dpcontrol.sim.spectral import (
    PeriodicBox,
    alike,
    fit_scenarios,
    require_dealiasing,
    require_force,
    spread,
)
from dpcontrol.sim.stability import require_stable
from dpcontrol.tree import Tree


@dataclass(frozen=True)
class VorticityFlow(Simulator):
    r"""Two-dimensional incompressible Navier-Stokes in vorticity form, with drag, Kolmogorov's force and a control.

    .. math::
        \omega_t + \mathbf u \cdot \nabla \omega = \nu \Delta \omega - \mu \omega - \chi k \cos(k y) + F,
        \quad \mathbf u = (\psi_y, -\psi_x), \quad -\Delta \psi = \omega

    ==========  ==================  ================================================================
    symbol      name                unit (nondimensional: length ``L``, speed ``U``)
    ==========  ==================  ================================================================
    ``omega``   state               ``U / L``, anticlockwise positive
    ``F``       control             ``U^2 / L^2``, the curl of a force per mass, held during the step
    ``nu``      viscosity           ``U L``; the Reynolds number is ``U L / nu``
    ``mu``      drag                ``U / L``, friction at the bottom of a thin layer
    ``chi``     stirring            ``U^2 / L``, amplitude of the force ``chi sin(k y)`` in x direction
    ``k``       ``2 pi stirring_mode / lengths[1]``
    ==========  ==================  ================================================================

    **State**: ``(scenarios, nx, ny)``, values at ``(i lengths[0] / nx, j lengths[1] / ny)``; the control has the same
    shape or is ``None``. The mean of ``omega``, zero for a periodic velocity, plays no part; the mean
    velocity is zero. :meth:`velocity` gives ``u``.

    **Boundary conditions**: periodic in both directions.

    **Scheme**: Fourier Galerkin (of spectral accuracy), modes ``|n| >= dealiasing N / 2`` of either axis dropped at the
    start and ever after, so that with 2/3 no product is aliased. The advection is formed from ``uv`` and ``v^2 - u^2``,

    .. math:: -\mathbf u \cdot \nabla \omega = -(\partial_{xx} - \partial_{yy}) uv - \partial_{xy} (v^2 - u^2),

    four transforms a stage where ``u omega, v omega`` need five. In time ``ETDRK2`` (measured order 2; 9 transforms a
    step of a run) or ``ETDRK4`` (4; 17), one more with a control; viscosity, drag and a constant force are exact. The
    flow limits ``dt`` to about ``dt max|u| k_max < 0.5`` with ``ETDRK2``, which has no damping of its own, and 2.5 with
    ``ETDRK4``. Without viscosity, drag and force the Galerkin equations keep energy and enstrophy, the scheme does so
    up to its order.

    **Parameters**: ``viscosity``, ``drag``, ``stirring``.

    **Source**: C. Basdevant, J. Comput. Phys. 50 (1983) (the advection term); the schemes are Cox and Matthews' and
    Krogstad's, see ``etdrk.py``; Kolmogorov flow as in G. J. Chandler, R. R. Kerswell, J. Fluid Mech. 722 (2013).

    **Good values**: ``VorticityFlow(dt=0.01, shape=(64, 64), viscosity=1e-3)`` on the box of side 2 pi, ``|u| <= 1``;
    Kolmogorov flow at Reynolds number 40: ``viscosity=1/40, stirring=1, stirring_mode=4``.

    Args:
        dt: time step.
        shape: grid points in x and y.
        viscosity, drag, stirring: zero allowed; numbers, or tensors ``()`` or ``(scenarios,)``.
        stirring_mode: how many waves the stirring force has in y.
        lengths: sides of the box.
        scheme: ``ETDRK2`` or ``ETDRK4``.
        dealiasing: fraction of the modes that are kept, 1 for all.
        fused: whether runs and their gradients go through the hand-written kernel; the same numbers to rounding.

    Raises:
        UsageError: for numbers out of range; at the start of a rollout, for a state of another shape; in a step, for a
            control of another shape.
    """

    dt: float
    shape: tuple[int, int] = (64, 64)
    viscosity: Value = 1e-3
    drag: Value = 0.0
    stirring: Value = 0.0
    stirring_mode: int = 4
    lengths: tuple[float, float] = (2 * math.pi, 2 * math.pi)
    scheme: ExponentialScheme = ETDRK2
    dealiasing: float = 2 / 3
    fused: bool = True

    def __post_init__(self) -> None:
        require_positive("dt", self.dt)
        require_positive("viscosity", self.viscosity, zero_allowed=True)
        require_positive("drag", self.drag, zero_allowed=True)
        require_positive("stirring", self.stirring, zero_allowed=True)
        require_dealiasing(self.dealiasing)
        if len(self.box.shape) != 2:
            raise UsageError(f"a flow in vorticity form has a shape of two numbers; found {self.shape!r}.")
        if not isinstance(self.stirring_mode, int) or not 1 <= 2 * self.stirring_mode < self.shape[1]:
            raise UsageError(
                f"stirring_mode is a whole number of waves that the grid resolves, below {self.shape[1] / 2:g}; found "
                f"{self.stirring_mode!r}."
            )

    @cached_property
    def box(self) -> PeriodicBox:
        """The grid."""
        return PeriodicBox(self.shape, self.lengths)

    @cached_property
    def _constants(self) -> Constants:
        return Constants()

    @cached_property
    def transforms(self) -> HalfSpectrum:
        """Between the grid and the modes that are kept."""
        return self.box.transforms(self.dealiasing)

    @property
    def parameters(self) -> Mapping[str, Value]:
        return {"viscosity": self.viscosity, "drag": self.drag, "stirring": self.stirring}

    def check(self, initial: Tree, parameters: Mapping[str, Tensor]) -> None:
        """Refuse a step that is too long for the initial speed."""
        self.box.require(initial)
        nu, mu = parameters["viscosity"], parameters["drag"]
        squares = self.box.squared_wavenumber(nu.device)
        wavenumber = squares.sqrt() * self.box.kept(self.dealiasing, nu.device)
        speed = torch.linalg.vector_norm(self.velocity(initial), dim=1)
        require_stable(self.scheme, self.dt, -spread(nu, 2) * squares - spread(mu, 2), wavenumber, speed)

    def start(self, initial: Tree, parameters: Mapping[str, Tensor]) -> Tree:
        """``initial``, its shape checked, without the modes that are not kept."""
        self.box.require(initial)
        return self.box.project(initial, self.dealiasing)

    def prepare(self, parameters: Mapping[str, Tensor], scenario: Mapping[str, Tree]) -> Any:
        """The coefficients of the scheme, differentiable in viscosity, drag and stirring."""
        return self._constants.prepared(parameters, lambda: self._coefficients(parameters))

    def _coefficients(self, parameters: Mapping[str, Tensor]) -> Any:
        nu, mu, chi = (parameters[name] for name in ("viscosity", "drag", "stirring"))
        box, device, cut = self.box, nu.device, self.transforms.cut
        linear = -spread(nu, 2) * cut(box.squared_wavenumber(device)) - spread(mu, 2)
        wave = 2 * math.pi * self.stirring_mode / self.lengths[1]
        one_wave = torch.zeros(self.shape[0], self.shape[1] // 2 + 1, dtype=torch.float64, device=device)
        one_wave[0, self.stirring_mode] = -wave * box.points / 2
        coefficients = {
            "scheme": self.scheme.coefficients(linear, self.dt, kept=cut(box.kept(self.dealiasing, device))),
            "force": spread(chi, 2) * cut(one_wave),
        }
        return {**cast(coefficients, nu.dtype), "term": self._advection(nu.dtype, device)}

    def _advection(self, dtype: torch.dtype, device: torch.device) -> Advection:
        """The nonlinear term, constants of the grid: a transform that is at work must not take its tensors for its own.

        They ride along in the coefficients as no leaves of theirs, so that they outlive the transform.
        """
        cut = self.transforms.cut
        with torch._C._DisableFuncTorch():
            kx, ky = (cut(k) for k in self.box.wavenumbers(device, odd=True))
            to_velocity = cut(self._to_velocity(device)).contiguous()
            of_products = torch.stack((kx.square() - ky.square(), kx * ky))
            return Advection(self.transforms, cast(to_velocity, dtype), cast(of_products, dtype))

    def step(self, state: Tree, control: Tree, coefficients: Any, noise: Tree, t: float) -> Tree:
        """One step of the scheme."""
        transforms = self.transforms
        force = coefficients["force"]
        if control is not None:
            require_force(control, state)
            force = transforms.forward(control) + force
        else:
            force = force.expand(len(state), *force.shape[-2:])

        term: Advection = coefficients["term"]

        def advection(spectrum: Tensor) -> Tensor:
            u, v = transforms.inverse(spectrum[:, None] * term.to_velocity).unbind(1)
            products = transforms.forward(torch.stack((u * v, (v - u) * (v + u)), 1))
            return (products * term.of_products).sum(1)

        spectrum = transforms.forward(state)
        after = self.scheme.advance(spectrum, advection, advection(spectrum), coefficients["scheme"], force)
        return transforms.inverse(after)

    def kernel(self, state: Tree, control: Tree, noise: Tree, coefficients: Any) -> Kernel | None:
        """Whole runs in Fourier space with a hand-written adjoint, unless ``fused`` is off.

        Compiled loops on the CPU where numba is installed and the shape suits them, else torch's transforms.
        """
        if not self.fused or not alike(state, control):
            return None
        fitting = fit_scenarios([*coefficients["scheme"]["outer"], coefficients["force"]], state)
        if FlowKernel.fits(self.shape) and fitting and can_run(state, control):
            return self._constants.kernel(
                coefficients, FlowKernel, lambda: FlowKernel(coefficients["term"], self.scheme.stages)
            )
        return ExponentialKernel(self.transforms, coefficients["term"], self.scheme.stages)

    def velocity(self, state: Tensor) -> Tensor:
        """``(u, v)`` at the points, ``(scenarios, 2, nx, ny)``."""
        factors = cast(self._to_velocity(state.device), state.dtype)
        return self.box.inverse(self.box.forward(state)[:, None] * factors)

    def _to_velocity(self, device: torch.device | None) -> Tensor:
        """``i (k_y, -k_x) / |k|^2``, zero for the mean."""
        kx, ky = self.box.wavenumbers(device, odd=True)
        k2 = self.box.squared_wavenumber(device)
        inverse = torch.where(k2 > 0, 1 / torch.where(k2 > 0, k2, 1.0), 0.0)
        return 1j * torch.stack((ky * inverse, -kx * inverse))
