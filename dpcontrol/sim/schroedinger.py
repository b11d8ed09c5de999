"""The Schroedinger equation in one dimension, linear or cubic, with a controlled potential."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dpcontrol.kernels import Kernel, SplitStepKernel
from dpcontrol.kernels.spectral_split import density, turn
from dpcontrol.results import UsageError
from dpcontrol.sim.base import Simulator, Value, require_positive
from dpcontrol.sim.spectral import PeriodicBox, spread
from dpcontrol.tree import Tree

_LONG = 1 / (2 - 2 ** (1 / 3))
WEIGHTS = {2: (1.0,), 4: (_LONG, 1 - 2 * _LONG, _LONG)}
"""Lengths of the symmetric substeps, by order."""


@dataclass(frozen=True)
class Schroedinger(Simulator):
    r"""The Schroedinger equation in one dimension, with a cubic term and a controlled potential.

    .. math:: i \psi_t = -\frac{1}{2 m} \psi_{xx} + \left( s V(x) + \sum_j u_j W_j(x) + g |\psi|^2 \right) \psi

    ==========  ==================  ==================================================================
    symbol      name                unit (``hbar`` = 1; length ``a``, mass ``M``; energy ``1 / (M a^2)``)
    ==========  ==================  ==================================================================
    ``psi``     state               ``a^(-1/2)``; real and imaginary part
    ``u``       control             energy times that of ``1 / W``, held during the step
    ``m``       mass                ``M``
    ``s``       potential_strength  1; one number for each of many slightly different traps, say
    ``V``       potential           energy
    ``W_j``     dipoles             such as ``x`` for a uniform field
    ``g``       interaction         energy times length; positive repels
    ==========  ==================  ==================================================================

    **State**: ``(scenarios, cells, 2)``, real and imaginary part of ``psi`` at ``x_i = origin + i length / cells``;
    see :meth:`grid` and :func:`as_complex`. Control: ``(scenarios, inputs)``, one number for each dipole; without
    dipoles the potential itself at every point, ``(scenarios, cells)``; or ``None``.

    **Boundary conditions**: periodic; for a trapped particle the box is to be so long that nothing arrives at its ends.

    **Scheme**: split step, ``exp(-i P dt/2) exp(-i K dt) exp(-i P dt/2)``, the kinetic part ``K`` exact in Fourier
    space, the potential part exact on the grid (it keeps ``|psi|``, so that the cubic term is constant meanwhile):
    measured order 2, two complex transforms a step. ``order=4`` composes three such steps (Yoshida): measured order 4,
    six transforms.
    Norm is kept to rounding for any ``dt``; running backwards returns to the start. ``dt`` must resolve the fastest
    phase: ``dt k_max^2 / 2m < pi`` avoids resonances in the cubic equation.

    **Parameters**: ``mass``, ``potential_strength``, and ``interaction`` where there is one.

    **Source**: M. D. Feit, J. A. Fleck, A. Steiger, J. Comput. Phys. 47 (1982); H. Yoshida, Phys. Lett. A 150 (1990)
    (order 4); T. R. Taha, M. J. Ablowitz, J. Comput. Phys. 55 (1984) (cubic).

    **Good values**: a harmonic trap with a uniform field,
    ``Schroedinger(dt=0.01, cells=64, length=16.0, potential=0.5 * x**2, dipoles=x[None])``.

    Args:
        dt: time step.
        cells: number of grid points.
        length: of the box.
        origin: first grid point; ``-length / 2`` by default.
        potential: ``V`` at the points, ``(cells,)``; none by default.
        dipoles: ``W`` at the points, ``(inputs, cells)``.
        mass: ``m``; like the following a number, or a tensor ``()`` or ``(scenarios,)``.
        potential_strength: ``s``.
        interaction: ``g``; ``None`` for the linear equation.
        order: 2 or 4.
        fused: whether runs and their gradients go through the hand-written kernel; the same numbers to rounding.

    Raises:
        UsageError: for numbers out of range or fields of another shape; at the start of a rollout, for a state of
            another shape; in a step, for a control of another shape.
    """

    dt: float
    cells: int = 64
    length: float = 16.0
    origin: float | None = None
    potential: Tensor | None = None
    dipoles: Tensor | None = None
    mass: Value = 1.0
    potential_strength: Value = 1.0
    interaction: Value | None = None
    order: int = 2
    fused: bool = True

    def __post_init__(self) -> None:
        require_positive("dt", self.dt)
        require_positive("mass", self.mass)
        if self.order not in WEIGHTS:
            raise UsageError(f"a split step has order 2 or 4; found {self.order!r}.")
        cells = self.box.shape
        if self.potential is not None and tuple(self.potential.shape) != cells:
            raise UsageError(
                f"potential holds a number for each point, {cells}; found {tuple(self.potential.shape)}."
            )
        if self.dipoles is not None and (self.dipoles.ndim != 2 or self.dipoles.shape[1:] != cells):
            raise UsageError(
                f"dipoles hold a row of {self.cells} numbers for each input; found {tuple(self.dipoles.shape)}."
            )

    @property
    def box(self) -> PeriodicBox:
        """The grid, up to its origin."""
        return PeriodicBox((self.cells,), (self.length,))

    @property
    def parameters(self) -> Mapping[str, Value]:
        linear: dict[str, Value] = {"mass": self.mass, "potential_strength": self.potential_strength}
        return linear if self.interaction is None else {**linear, "interaction": self.interaction}

    def grid(self) -> Tensor:
        """The points, ``(cells,)``, float64."""
        return grid(self.cells, self.length, self.origin)

    def start(self, initial: Tree, parameters: Mapping[str, Tensor]) -> Tree:
        """``initial``, its shape checked."""
        fine = isinstance(initial, Tensor) and initial.is_floating_point()
        if not fine or initial.ndim != 3 or tuple(initial.shape[1:]) != (self.cells, 2):
            found = tuple(initial.shape) if isinstance(initial, Tensor) else type(initial).__name__
            raise UsageError(
                f"the state of Schroedinger's equation is one real tensor (scenarios, {self.cells}, 2), real and "
                f"imaginary part; found {found}: use as_real(psi)."
            )
        return initial

    def prepare(self, parameters: Mapping[str, Tensor], scenario: Mapping[str, Tree]) -> Any:
        """Kinetic phases, potential, dipoles and interaction, differentiable in the parameters."""
        mass, strength = parameters["mass"], parameters["potential_strength"]
        dtype, device = mass.dtype, mass.device
        k = (
            2
            * math.pi
            * torch.fft.fftfreq(self.cells, self.length / self.cells, dtype=torch.float64, device=device)
        )
        energy = k.square() / (2 * spread(mass, 1))
        wide = torch.complex64 if dtype == torch.float32 else torch.complex128
        phases = [torch.exp(-1j * energy * (w * self.dt)).to(wide) for w in WEIGHTS[self.order]]
        if self.potential is None:
            potential = torch.zeros(1, dtype=dtype, device=device)
        else:
            values = self.potential.to(device=device, dtype=torch.float64)
            potential = (spread(strength, 1) * values).to(dtype)
        dipoles = None if self.dipoles is None else self.dipoles.to(device=device, dtype=dtype)
        found = {"kinetic": phases, "potential": potential, "dipoles": dipoles}
        if self.interaction is not None:
            g = parameters["interaction"]
            found["interaction"] = g.reshape(*g.shape, 1)
        return found

    def step(self, state: Tree, control: Tree, coefficients: Any, noise: Tree, t: float) -> Tree:
        """One step of the scheme."""
        field = coefficients["potential"]
        if control is not None:
            field = field + self._controlled(state, control, coefficients["dipoles"])
        psi = torch.view_as_complex(state.contiguous())
        kept: dict[float, Tensor] = {}
        for share, phase in itertools.zip_longest(self.shares, coefficients["kinetic"]):
            if self.interaction is not None:
                turned = turn(field + coefficients["interaction"] * density(psi), -share)
            else:  # the same at every half step
                turned = kept[share] if share in kept else turn(field, -share)
                kept[share] = turned
            psi = psi * turned
            if phase is not None:
                psi = torch.fft.ifft(torch.fft.fft(psi) * phase)
        return torch.view_as_real(psi)

    def kernel(self, state: Tree, control: Tree, noise: Tree, coefficients: Any) -> Kernel | None:
        """Whole runs with a hand-written adjoint, unless ``fused`` is off."""
        if control is not None:
            self._require_control(state, control)
        if not self.fused or (control is not None and control.dtype != state.dtype):
            return None
        return SplitStepKernel(self.shares)

    @property
    def shares(self) -> tuple[float, ...]:
        """How long the potential acts before, between and behind the kinetic substeps: two half steps are one."""
        lengths = (0.0, *WEIGHTS[self.order], 0.0)
        return tuple((a + b) / 2 * self.dt for a, b in itertools.pairwise(lengths))

    def _controlled(self, state: Tensor, control: Tensor, dipoles: Tensor | None) -> Tensor:
        self._require_control(state, control)
        return control if dipoles is None else control @ dipoles

    def _require_control(self, state: Tensor, control: Tensor) -> None:
        inputs = self.cells if self.dipoles is None else len(self.dipoles)
        if tuple(control.shape) != (len(state), inputs):
            raise UsageError(
                f"the control of this simulator is (scenarios, {inputs}), here {(len(state), inputs)}; found "
                f"{tuple(control.shape)}."
            )


def grid(cells: int, length: float, origin: float | None = None) -> Tensor:
    """Points of a box that is centred on zero, unless its first point is given, ``(cells,)``, float64."""
    first = -length / 2 if origin is None else origin
    return first + torch.arange(cells, dtype=torch.float64) * (length / cells)


def as_complex(state: Tensor) -> Tensor:
    """``psi``, ``(..., cells)``, of a state."""
    return torch.complex(state[..., 0], state[..., 1])


def as_real(psi: Tensor) -> Tensor:
    """The state, ``(..., cells, 2)``, of a real or complex ``psi``."""
    return torch.stack((psi.real, psi.imag if psi.is_complex() else torch.zeros_like(psi)), -1)


def eigenstates(potential: Tensor, length: float, count: int, *, mass: float = 1.0) -> tuple[Tensor, Tensor]:
    """The lowest energies ``(count,)`` and states ``(count, cells)``, real, of norm 1.

    They are eigenstates of the same Fourier discretisation that the simulator steps, on points centred on zero; the
    sign of state ``j`` is such that its moment of ``x^j`` is positive.
    """
    cells = len(potential)
    k = 2 * math.pi * torch.fft.fftfreq(cells, length / cells, dtype=torch.float64)
    kinetic = torch.fft.ifft(
        torch.fft.fft(torch.eye(cells, dtype=torch.complex128)) * (k.square() / (2 * mass))
    ).real
    energies, vectors = torch.linalg.eigh(kinetic + torch.diag(potential.double()))
    states = vectors.T[:count] / math.sqrt(length / cells)
    powers = grid(cells, length) ** torch.arange(count, dtype=torch.float64)[:, None]
    moments = (states * powers).sum(1, keepdim=True)
    return energies[:count], states * torch.where(moments < 0, -1.0, 1.0)
