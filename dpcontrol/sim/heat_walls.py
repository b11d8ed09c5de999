"""Diffusion and advection-diffusion in a box with walls of given temperature or flux."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dpcontrol import tree
from dpcontrol.results import UsageError
from dpcontrol.sim.base import Simulator, Value, require_positive
from dpcontrol.sim.checks import readable
from dpcontrol.sim.etdrk import ETDRK4, ExponentialScheme, phi_functions
from dpcontrol.sim.sides import FixedFlux, FixedValue
from dpcontrol.sim.spectral import require_force, spread
from dpcontrol.sim.walls import WalledBox
from dpcontrol.tree import Tree

LIMITS = {"ETDRK2": 0.5, "ETDRK4": 2.8}


@dataclass(frozen=True)
class WalledHeat(Simulator):
    r"""Diffusion of heat in a box with walls, perhaps in a uniform stream, with sources.

    .. math::
        u_t + \nabla \cdot (\mathbf c u) = \kappa \Delta u + F,
        \qquad u = g \text{ or } \partial_n u = g \text{ on each side}

    ==========  ===========  =========================================================
    symbol      name         unit (SI for heat)
    ==========  ===========  =========================================================
    ``u``       state        temperature, K
    ``F``       control      heating rate, K/s, held during the step
    ``kappa``   diffusivity  m^2/s
    ``c``       velocity     m/s, one number per axis, uniform
    ``g``       sides        K (``FixedValue``) or K/m (``FixedFlux``, along the outer normal)
    ==========  ===========  =========================================================

    **State**: ``(scenarios, *cells)``, values in the cell centres ``(i + 1/2) h``; the control has the same shape or is
    ``None``. One, two or three axes.

    **Boundary conditions**: each side ``FixedValue(value)`` or ``FixedFlux(slope)``, 0 for insulation, or
    ``"periodic"``. A stream enters and leaves through the sides it meets: give it a value where it enters.

    **Scheme**: fluxes between cells, second order (measured 2.0). Without a stream, exact in time for the equation
    in the cells, whatever ``dt``: in cosine or sine modes each is multiplied by ``exp(-kappa k^2 dt)``, sources and
    sides by ``phi_1``; without sources no new extrema arise. With a stream, central fluxes by an exponential
    Runge-Kutta scheme, diffusion exact: ``ETDRK4`` (measured order 4) or ``ETDRK2`` (2), limited by the stream to
    ``dt sum |c_a| / h_a < 2.8`` (0.5 with ``ETDRK2``), which is asked at the start; layers thinner than two cells,
    ``kappa / |c| < h / 2``, ring. The total of ``u`` changes by sources and by fluxes through sides only.

    **Parameters**: ``diffusivity``, and ``velocity_0``, ``velocity_1``, ... where there is a stream.

    **Source**: H. S. Carslaw, J. C. Jaeger, "Conduction of Heat in Solids" (1959), chapter 3 (slabs); G. Strang,
    SIAM Review 41 (1999) 135 (the modes); ``etdrk.py``.

    **Good values**: ``WalledHeat(dt=0.01, cells=(64, 64), diffusivity=0.01)`` in the unit square.

    Args:
        dt: time step.
        cells: number of cells of each axis.
        diffusivity: ``kappa``; a number, or a tensor ``()`` or ``(scenarios,)``.
        velocity: one of these for each axis, or ``None`` for plain diffusion.
        lengths: of the sides; all 1 by default.
        sides: for each axis ``"periodic"`` or a pair (left, right); by default ``FixedValue(0)`` on all.
        scheme: for the stream.

    Raises:
        UsageError: for numbers out of range, unknown sides; at the start of a rollout, for a state of another shape
            and a step that the stream does not allow; in a step, for a control of another shape.
    """

    dt: float
    cells: tuple[int, ...] = (64,)
    diffusivity: Value = 0.01
    velocity: tuple[Value, ...] | None = None
    lengths: tuple[float, ...] | None = None
    sides: tuple[str | tuple[FixedValue | FixedFlux, FixedValue | FixedFlux], ...] | None = None
    scheme: ExponentialScheme = ETDRK4

    def __post_init__(self) -> None:
        require_positive("dt", self.dt)
        require_positive("diffusivity", self.diffusivity)
        axes = len(self.box.cells)
        if self.velocity is not None and (not isinstance(self.velocity, tuple) or len(self.velocity) != axes):
            raise UsageError(
                f"velocity is a tuple of {axes} number(s), one per axis; found {self.velocity!r}."
            )

    @property
    def box(self) -> WalledBox:
        """The grid and its sides."""
        return WalledBox.of(self.cells, self.lengths, self.sides)

    @property
    def parameters(self) -> Mapping[str, Value]:
        stream = {f"velocity_{axis}": value for axis, value in enumerate(self.velocity or ())}
        return {"diffusivity": self.diffusivity, **stream}

    def check(self, initial: Tree, parameters: Mapping[str, Tensor]) -> None:
        """Refuse a step that the stream does not allow."""
        if self.velocity is None:
            return
        speeds = [parameters[f"velocity_{axis}"] for axis in range(len(self.cells))]
        if not readable(*speeds):
            return
        passed = 0.0
        for c, h in zip(speeds, self.box.spacing, strict=True):
            passed += self.dt * float(c.abs().max()) / h
        limit = LIMITS.get(self.scheme.name, 0.5)
        if passed > limit:
            raise UsageError(
                f"the stream passes {passed:.2g} cells in a step of {self.dt:g}, and {self.scheme.name} allows "
                f"{limit:g}: take dt below {self.dt * limit / passed:.2g}, or fewer cells."
            )

    def start(self, initial: Tree, parameters: Mapping[str, Tensor]) -> Tree:
        """``initial``, its shape checked."""
        self.box.require(initial)
        return initial

    def prepare(self, parameters: Mapping[str, Tensor], scenario: Mapping[str, Tree]) -> Any:
        """What multiplies the modes, differentiable in the parameters."""
        box, kappa = self.box, parameters["diffusivity"]
        axes, dtype, device = len(box.cells), kappa.dtype, kappa.device
        linear = -spread(kappa, axes) * box.squares(device, differences=True)
        double = box.modes(torch.float64, device)
        entries: dict[str, Any] = {"sides": spread(kappa, axes) * double.forward(box.inflow(device))}
        if self.velocity is None:
            decay, held, _, _ = phi_functions(linear * self.dt)
            entries |= {"decay": decay, "held": held * self.dt}
        else:
            entries["scheme"] = self.scheme.coefficients(linear, self.dt)
            entries["stream"] = [spread(parameters[f"velocity_{axis}"], axes) for axis in range(axes)]
        return {**tree.to(entries, dtype=dtype), "modes": box.modes(dtype, device)}

    def step(self, state: Tree, control: Tree, coefficients: Any, noise: Tree, t: float) -> Tree:
        """One step, exact without a stream."""
        modes, force = coefficients["modes"], coefficients["sides"]
        if control is not None:
            require_force(control, state)
            force = force + modes.forward(control)
        spectrum = modes.forward(state)
        if self.velocity is None:
            return modes.inverse(torch.addcmul(force * coefficients["held"], spectrum, coefficients["decay"]))

        def carried(field: Tensor) -> Tensor:
            return modes.forward(self._carried(field, coefficients["stream"]))

        after = self.scheme.advance(
            spectrum,
            lambda stage: carried(modes.inverse(stage)),
            carried(state),
            coefficients["scheme"],
            force.expand_as(spectrum),
        )
        return modes.inverse(after)

    def _carried(self, field: Tensor, stream: list[Tensor]) -> Tensor:
        """``-div(c u)``, by the means on the faces."""
        box, total = self.box, torch.zeros_like(field)
        for axis, h, c in zip(box.axes, box.spacing, stream, strict=True):
            total = total - c / h * box.on_faces(field, axis).diff(dim=axis)
        return total
