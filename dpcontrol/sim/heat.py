"""Diffusion and advection-diffusion in a periodic box of one to three dimensions: exact in Fourier space."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dpcontrol.results import UsageError
from dpcontrol.sim.base import Simulator, Value, require_positive
from dpcontrol.sim.etdrk import cast, phi_functions
from dpcontrol.sim.spectral import PeriodicBox, require_force, spread
from dpcontrol.tree import Tree


@dataclass(frozen=True)
class AdvectionDiffusion(Simulator):
    r"""Diffusion of heat (or anything else) that a uniform stream carries along, with sources.

    .. math:: u_t + \mathbf c \cdot \nabla u = \kappa \Delta u + F

    ==========  ===========  ============================================
    symbol      name         unit (SI for heat)
    ==========  ===========  ============================================
    ``u``       state        temperature, K
    ``F``       control      heating rate, K/s, held during the step
    ``kappa``   diffusivity  m^2/s
    ``c``       velocity     m/s, one number per axis
    ==========  ===========  ============================================

    **State**: ``(scenarios, *shape)``, values at ``x_i = i length / points`` along each axis; the control has the same
    shape or is ``None``. One, two or three axes.

    **Boundary conditions**: periodic, and nothing else here. An insulated box is one half of a mirrored periodic box.

    **Scheme**: exact for the Fourier interpolant and a held source, whatever ``dt``: each mode is multiplied by
    ``exp(-(kappa k^2 + i c.k) dt)``. Errors are those of the grid (spectral) and of holding the source. Two transforms
    a step, three with a source. The total of ``u`` changes by the total of the source only. A Nyquist mode is not
    carried along (its translate is not on the grid).

    **Parameters**: ``diffusivity``, and ``velocity_0``, ``velocity_1``, ... where there is a stream.

    **Source**: H. S. Carslaw, J. C. Jaeger, "Conduction of Heat in Solids" (1959) (Fourier's solution);
    the weight of the held source is ``phi_1``, see ``etdrk.py``.

    **Good values**: ``AdvectionDiffusion(dt=0.01, shape=(64, 64), diffusivity=0.01)`` in the unit square.

    Args:
        dt: time step.
        shape: number of grid points of each axis.
        diffusivity: ``kappa``, zero allowed; a number, or a tensor ``()`` or ``(scenarios,)``.
        velocity: one of these for each axis, or ``None`` for plain diffusion.
        lengths: of the sides; all 1 by default.

    Raises:
        UsageError: for numbers out of range; at the start of a rollout, for a state of another shape; in a step, for a
            control of another shape.
    """

    dt: float
    shape: tuple[int, ...] = (64,)
    diffusivity: Value = 0.01
    velocity: tuple[Value, ...] | None = None
    lengths: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        require_positive("dt", self.dt)
        require_positive("diffusivity", self.diffusivity, zero_allowed=True)
        axes = len(self.box.shape)
        if self.velocity is not None and (not isinstance(self.velocity, tuple) or len(self.velocity) != axes):
            raise UsageError(
                f"velocity is a tuple of {axes} number(s), one per axis; found {self.velocity!r}."
            )

    @property
    def box(self) -> PeriodicBox:
        """The grid."""
        return PeriodicBox(self.shape, self.lengths or (1.0,) * len(self.shape))

    @property
    def parameters(self) -> Mapping[str, Value]:
        stream = {f"velocity_{axis}": value for axis, value in enumerate(self.velocity or ())}
        return {"diffusivity": self.diffusivity, **stream}

    def start(self, initial: Tree, parameters: Mapping[str, Tensor]) -> Tree:
        """``initial``, its shape checked."""
        self.box.require(initial)
        return initial

    def prepare(self, parameters: Mapping[str, Tensor], scenario: Mapping[str, Tree]) -> Any:
        """What multiplies the modes of state and source, differentiable in the parameters."""
        kappa, axes = parameters["diffusivity"], len(self.shape)
        device = kappa.device
        exponent = -spread(kappa, axes) * self.box.squared_wavenumber(device)
        if self.velocity is not None:
            for axis, k in enumerate(self.box.wavenumbers(device, odd=True)):
                exponent = exponent - 1j * k * spread(parameters[f"velocity_{axis}"], axes)
        decay, held, _, _ = phi_functions(exponent * self.dt)
        return cast({"decay": decay, "held": held * self.dt}, kappa.dtype)

    def step(self, state: Tree, control: Tree, coefficients: Any, noise: Tree, t: float) -> Tree:
        """The exact step."""
        after = self.box.forward(state) * coefficients["decay"]
        if control is not None:
            require_force(control, state)
            after = torch.addcmul(after, self.box.forward(control), coefficients["held"])
        return self.box.inverse(after)
