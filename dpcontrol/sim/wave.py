"""The wave equation in a periodic box of one to three dimensions: exact in Fourier space."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dpcontrol.results import UsageError
from dpcontrol.sim.base import Simulator, Value, require_positive
from dpcontrol.sim.etdrk import cast
from dpcontrol.sim.spectral import PeriodicBox, spread
from dpcontrol.tree import Tree


@dataclass(frozen=True)
class Wave(Simulator):
    r"""The wave equation with damping and a distributed force.

    .. math:: q_t = p, \quad p_t = c^2 \Delta q - \gamma p + F

    ==========  ==========  ===========================================================
    symbol      name        unit (SI for a membrane)
    ==========  ==========  ===========================================================
    ``q``       state[0]    displacement, m
    ``p``       state[1]    its velocity, m/s
    ``F``       control     acceleration, m/s^2, held during the step
    ``c``       speed       of sound, m/s
    ``gamma``   damping     1/s; a wave's amplitude falls as ``exp(-gamma t / 2)``
    ==========  ==========  ===========================================================

    **State**: ``(scenarios, 2, *shape)``, displacement and velocity at ``x_i = i length / points`` along each axis; the
    control is ``(scenarios, *shape)`` or ``None``. One, two or three axes.

    **Boundary conditions**: periodic. A string with fixed ends is one half of an odd periodic one.

    **Scheme**: each mode is a damped oscillator; one 3 x 3 matrix exponential per mode, made once, steps it exactly
    together with a held force, whatever ``dt``, resonant and overdamped modes and the mean included. Errors are those
    of the grid (spectral) and of holding the force. Four transforms a step, five with a force. Without damping and
    force the energy, see :meth:`energy`, is kept to rounding.

    **Parameters**: ``speed``, ``damping``.

    **Source**: A. P. French, "Vibrations and Waves" (1971), chapters 3 and 6 (damped oscillators, normal modes);
    C. F. Van Loan, IEEE Trans. Automat. Control 23 (1978) (the held force in the matrix exponential).

    **Good values**: ``Wave(dt=0.02, shape=(64,))``: waves cross the unit interval in 50 steps.

    Args:
        dt: time step.
        shape: number of grid points of each axis.
        speed: ``c``; a number, or a tensor ``()`` or ``(scenarios,)``.
        damping: ``gamma``, zero allowed; likewise.
        lengths: of the sides; all 1 by default.

    Raises:
        UsageError: for numbers out of range; at the start of a rollout, for a state of another shape; in a step, for a
            control of another shape.
    """

    dt: float
    shape: tuple[int, ...] = (64,)
    speed: Value = 1.0
    damping: Value = 0.0
    lengths: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        require_positive("dt", self.dt)
        require_positive("speed", self.speed)
        require_positive("damping", self.damping, zero_allowed=True)
        _ = self.box

    @property
    def box(self) -> PeriodicBox:
        """The grid."""
        return PeriodicBox(self.shape, self.lengths or (1.0,) * len(self.shape))

    @property
    def parameters(self) -> Mapping[str, Value]:
        return {"speed": self.speed, "damping": self.damping}

    def start(self, initial: Tree, parameters: Mapping[str, Tensor]) -> Tree:
        """``initial``, its shape checked."""
        self.box.require(initial, 2)
        return initial

    def prepare(self, parameters: Mapping[str, Tensor], scenario: Mapping[str, Tree]) -> Any:
        """The matrices of the modes, differentiable in the parameters."""
        c, gamma, axes = parameters["speed"], parameters["damping"], len(self.shape)
        squares = self.box.squared_wavenumber(c.device)
        frequency2 = spread(c, axes) ** 2 * squares
        damping = spread(gamma, axes) * torch.ones_like(frequency2)
        return cast(oscillators(frequency2, damping, self.dt), c.dtype)

    def step(self, state: Tree, control: Tree, coefficients: Any, noise: Tree, t: float) -> Tree:
        """The exact step."""
        q, p = self.box.forward(state).unbind(1)
        after = []
        force = None
        if control is not None:
            if control.shape != state[:, 0].shape:
                raise UsageError(
                    f"the control of the wave equation is a force at every point, {tuple(state[:, 0].shape)}; found "
                    f"{tuple(control.shape)}."
                )
            force = self.box.forward(control)
        for name in "qp":
            value = torch.addcmul(q * coefficients[name + "q"], p, coefficients[name + "p"])
            after.append(value if force is None else torch.addcmul(value, force, coefficients[name + "f"]))
        return self.box.inverse(torch.stack(after, 1))

    def energy(self, state: Tensor, speed: Value | None = None) -> Tensor:
        r"""Mean of ``(p^2 + c^2 |grad q|^2) / 2`` over the box, ``(scenarios,)``."""
        c = self.speed if speed is None else speed
        spectrum = self.box.forward(state) / self.box.points
        k2 = self.box.squared_wavenumber(state.device).to(state.dtype)
        # modes of the half spectrum stand for two, but for the mean and the Nyquist mode
        last = self.box.modes(state.device)[-1]
        twice = 2 - (last == 0).to(state.dtype) - (2 * last == self.shape[-1]).to(state.dtype)
        power = (spectrum.real.square() + spectrum.imag.square()) * twice
        axes = tuple(range(-len(self.shape), 0))
        strain, motion = (power[:, 0] * k2).sum(axes), power[:, 1].sum(axes)
        return 0.5 * (motion + c**2 * strain)


def oscillators(frequency2: Tensor, damping: Tensor, dt: float) -> dict[str, Tensor]:
    """What one step makes of displacement, velocity and held force: ``q'' = -frequency2 q - damping q' + f``.

    For each pair of squared frequency and damping, of equal shape, the entries ``qq, qp, qf, pq, pp, pf``.
    """
    # displacements are measured in units that make the matrix nearly antisymmetric
    unit = (frequency2.detach() + 1 / dt**2).sqrt()
    unit = unit * torch.ones_like(damping)
    zero, one = torch.zeros_like(unit), torch.ones_like(unit)
    rows = ((zero, unit, zero), (-frequency2 / unit, -damping, one), (zero, zero, zero))
    generator = torch.stack([torch.stack(torch.broadcast_tensors(*row), -1) for row in rows], -2)
    found = torch.linalg.matrix_exp(generator * dt)
    return {
        "qq": found[..., 0, 0],
        "qp": found[..., 0, 1] / unit,
        "qf": found[..., 0, 2] / unit,
        "pq": found[..., 1, 0] * unit,
        "pp": found[..., 1, 1],
        "pf": found[..., 1, 2],
    }
