"""The wave equation between walls: exact for a uniform medium, and step by step for one that varies."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dpcontrol import tree
from dpcontrol.results import UsageError
from dpcontrol.sim.base import Simulator, Value, require_positive
from dpcontrol.sim.checks import readable
from dpcontrol.sim.sides import FixedFlux, FixedValue
from dpcontrol.sim.spectral import spread
from dpcontrol.sim.walls import Modes, WalledBox
from dpcontrol.sim.wave import oscillators
from dpcontrol.tree import Tree

Sides = tuple[str | tuple[FixedValue | FixedFlux, FixedValue | FixedFlux], ...]


@dataclass(frozen=True)
class WalledWave(Simulator):
    r"""The wave equation in a box with walls, damped and forced, in a uniform medium.

    .. math::
        q_t = p, \quad p_t = c^2 \Delta q - \gamma p + F,
        \qquad q = 0 \text{ or } \partial_n q = 0 \text{ on each side}

    ==========  ==========  ===========================================================
    symbol      name        unit (SI for a membrane)
    ==========  ==========  ===========================================================
    ``q``       state[0]    displacement, m
    ``p``       state[1]    its velocity, m/s
    ``F``       control     acceleration, m/s^2, held during the step
    ``c``       speed       of sound, m/s
    ``gamma``   damping     1/s; a wave's amplitude falls as ``exp(-gamma t / 2)``
    ==========  ==========  ===========================================================

    **State**: ``(scenarios, 2, *cells)``, displacement and velocity in the cell centres ``(i + 1/2) h``; the control is
    ``(scenarios, *cells)`` or ``None``. One, two or three axes.

    **Boundary conditions**: each side held, ``FixedValue()``, or free, ``FixedFlux()``, or ``"periodic"``. Waves
    come back from the first upside down, from the second as they are.

    **Scheme**: each cosine or sine mode, with its true frequency, is an oscillator that is stepped exactly together
    with a held force, as in :class:`~dpcontrol.sim.Wave`, whatever ``dt``. Fields that meet the sides are resolved
    better than by any power of the cell size. Without damping and force the energy, :meth:`energy`, is kept to
    rounding.

    **Parameters**: ``speed``, ``damping``.

    **Source**: P. M. Morse, K. U. Ingard, "Theoretical Acoustics" (1968), section 9.2 (rooms); as for ``Wave``.

    **Good values**: ``WalledWave(dt=0.02, cells=(64, 64))``: waves cross the unit square in 50 steps.

    Args:
        dt: time step.
        cells: number of cells of each axis.
        speed: ``c``; a number, or a tensor ``()`` or ``(scenarios,)``.
        damping: ``gamma``, zero allowed; likewise.
        lengths: of the sides; all 1 by default.
        sides: for each axis ``"periodic"`` or a pair (left, right); by default all are held.

    Raises:
        UsageError: for numbers out of range, sides with values other than zero; at the start of a rollout, for a
            state of another shape; in a step, for a control of another shape.
    """

    dt: float
    cells: tuple[int, ...] = (64,)
    speed: Value = 1.0
    damping: Value = 0.0
    lengths: tuple[float, ...] | None = None
    sides: Sides | None = None

    def __post_init__(self) -> None:
        require_positive("dt", self.dt)
        require_positive("speed", self.speed)
        require_positive("damping", self.damping, zero_allowed=True)
        self.box.require_homogeneous()

    @property
    def box(self) -> WalledBox:
        """The grid and its sides."""
        return WalledBox.of(self.cells, self.lengths, self.sides)

    @property
    def parameters(self) -> Mapping[str, Value]:
        return {"speed": self.speed, "damping": self.damping}

    def start(self, initial: Tree, parameters: Mapping[str, Tensor]) -> Tree:
        """``initial``, its shape checked."""
        self.box.require(initial, 2)
        return initial

    def prepare(self, parameters: Mapping[str, Tensor], scenario: Mapping[str, Tree]) -> Any:
        """The matrices of the modes, differentiable in the parameters."""
        c, gamma, axes = parameters["speed"], parameters["damping"], len(self.cells)
        frequency2 = spread(c, axes) ** 2 * self.box.squares(c.device, differences=False)
        damping = spread(gamma, axes) * torch.ones_like(frequency2)
        entries = tree.to(oscillators(frequency2, damping, self.dt), dtype=c.dtype)
        return {**entries, "modes": self.box.modes(c.dtype, c.device)}

    def step(self, state: Tree, control: Tree, coefficients: Any, noise: Tree, t: float) -> Tree:
        """The exact step."""
        modes: Modes = coefficients["modes"]
        require_acceleration(control, state)
        q, p = modes.forward(state).unbind(1)
        force = None if control is None else modes.forward(control)
        after = []
        for name in "qp":
            value = torch.addcmul(q * coefficients[name + "q"], p, coefficients[name + "p"])
            after.append(value if force is None else torch.addcmul(value, force, coefficients[name + "f"]))
        return modes.inverse(torch.stack(after, 1))

    def energy(self, state: Tensor, speed: Value | None = None) -> Tensor:
        r"""Mean of ``(p^2 + c^2 |grad q|^2) / 2`` over the box, ``(scenarios,)``."""
        c = self.speed if speed is None else speed
        return _mean_energy(self.box, state, state[:, 1].square().flatten(1).mean(1), c)


@dataclass(frozen=True)
class WaveInMedium(Simulator):
    r"""Sound in a box whose medium varies from place to place, with losses and sources.

    .. math::
        q_t = p, \quad p_t = c(x)^2 \Delta q - \gamma(x) p + F,
        \qquad q = 0 \text{ or } \partial_n q = 0 \text{ on each side}

    ==========  ==========  ===========================================================
    symbol      name        unit (SI for sound)
    ==========  ==========  ===========================================================
    ``q``       state[0]    pressure, Pa
    ``p``       state[1]    its rate, Pa/s
    ``F``       control     source, Pa/s^2, held during the step
    ``c``       speed       of sound, m/s, a field or a number
    ``gamma``   damping     1/s, a field or a number; a layer of it along the sides swallows waves
    ==========  ==========  ===========================================================

    **State**: ``(scenarios, 2, *cells)``, values in the cell centres ``(i + 1/2) h``; the control is
    ``(scenarios, *cells)`` or ``None``. One, two or three axes.

    **Boundary conditions**: each side soft, ``FixedValue()``, or hard, ``FixedFlux()``, or ``"periodic"``.

    **Scheme**: the Laplacian by cosine and sine modes (for a smooth medium better than any power of the cell size),
    position Verlet in time (measured order 2), damping exact. Explicit: ``dt max c k_max < 2`` with
    ``k_max^2 = sum (pi / h)^2``, asked at the start; in the plane with square cells, ``c dt / h < 0.45``. Without
    losses and sources a step is reversible to rounding (change the sign of ``p``), and the energy, :meth:`energy`,
    is kept up to a bounded error of order 2. One Laplacian a step.

    **Parameters**: ``speed`` and ``damping``: numbers ``()`` or ``(scenarios,)``, fields ``(*cells)`` or blocks that
    divide them evenly, or ``(scenarios, *blocks)``.

    **Source**: E. Hairer, C. Lubich, G. Wanner, "Geometric Numerical Integration" (2006), section I.1.4 (Verlet); B.
    Fornberg, Geophysics 52 (1987) 483 (modes for waves in media that vary).

    **Good values**: ``WaveInMedium(dt=0.005, cells=(64, 64))`` for speeds up to 1.4 in the unit square.

    Args:
        dt: time step.
        cells: number of cells of each axis.
        speed: ``c``.
        damping: ``gamma``, zero allowed.
        lengths: of the sides; all 1 by default.
        sides: for each axis ``"periodic"`` or a pair (left, right); by default all are held at zero.

    Raises:
        UsageError: for numbers out of range, sides with values other than zero; at the start of a rollout, for a
            state or parameters of another shape and a step that is too long; in a step, for a control of another shape.
    """

    dt: float
    cells: tuple[int, ...] = (64,)
    speed: Value = 1.0
    damping: Value = 0.0
    lengths: tuple[float, ...] | None = None
    sides: Sides | None = None

    def __post_init__(self) -> None:
        require_positive("dt", self.dt)
        require_positive("speed", self.speed)
        require_positive("damping", self.damping, zero_allowed=True)
        self.box.require_homogeneous()
        for name, value in self.parameters.items():
            self.box.field(name, torch.as_tensor(value))

    @property
    def box(self) -> WalledBox:
        """The grid and its sides."""
        return WalledBox.of(self.cells, self.lengths, self.sides)

    @property
    def parameters(self) -> Mapping[str, Value]:
        return {"speed": self.speed, "damping": self.damping}

    def check(self, initial: Tree, parameters: Mapping[str, Tensor]) -> None:
        """Refuse a step that is too long for the fastest place."""
        c = parameters["speed"]
        if not readable(c):
            return
        fastest = math.sqrt(sum((math.pi / h) ** 2 for h in self.box.spacing)) * float(c.abs().max())
        if self.dt * fastest >= 2:
            raise UsageError(
                f"a step of {self.dt:g} is unstable for a speed of {float(c.abs().max()):g} on this grid: take dt "
                f"below {2 / fastest:.3g}, or fewer cells."
            )

    def start(self, initial: Tree, parameters: Mapping[str, Tensor]) -> Tree:
        """``initial``, its shape checked."""
        self.box.require(initial, 2)
        return initial

    def prepare(self, parameters: Mapping[str, Tensor], scenario: Mapping[str, Tree]) -> Any:
        """Fields that multiply in each step, differentiable in the parameters."""
        c, gamma = (self.box.field(name, parameters[name]) for name in ("speed", "damping"))
        symbol = -self.dt * self.box.squares(c.device, differences=False)
        return {
            "c2": c.square(),
            "fade": torch.exp(-0.5 * self.dt * gamma),
            "symbol": symbol.to(c.dtype),
            "modes": self.box.modes(c.dtype, c.device),
        }

    def step(self, state: Tree, control: Tree, coefficients: Any, noise: Tree, t: float) -> Tree:
        """Drift for half of the step, push, drift for the other half; the damping around the push."""
        modes: Modes = coefficients["modes"]
        require_acceleration(control, state)
        q, p = state.unbind(1)
        q = torch.add(q, p, alpha=0.5 * self.dt)
        p = p * coefficients["fade"]
        p = torch.addcmul(p, coefficients["c2"], modes.inverse(modes.forward(q) * coefficients["symbol"]))
        p = p if control is None else torch.add(p, control, alpha=self.dt)
        p = p * coefficients["fade"]
        return torch.stack((torch.add(q, p, alpha=0.5 * self.dt), p), 1)

    def energy(self, state: Tensor, speed: Value | None = None) -> Tensor:
        r"""Mean of ``(p^2 / c^2 + |grad q|^2) / 2`` over the box, ``(scenarios,)``."""
        c = self.box.field("speed", torch.as_tensor(self.speed if speed is None else speed).to(state))
        return _mean_energy(self.box, state, (state[:, 1] / c).square().flatten(1).mean(1), 1.0)


def require_acceleration(control: Tensor | None, state: Tensor) -> None:
    """Refuse a control that is no field of accelerations."""
    if control is not None and control.shape != state[:, 0].shape:
        raise UsageError(
            f"the control of the wave equation is a force at every point, {tuple(state[:, 0].shape)}; found "
            f"{tuple(control.shape)}."
        )


def _mean_energy(box: WalledBox, state: Tensor, motion: Tensor, speed: Value) -> Tensor:
    modes = box.modes(state.dtype, state.device).forward(state[:, 0])
    squares = box.squares(state.device, differences=False).to(state.dtype)
    return 0.5 * (motion + speed**2 * (modes.square() * squares).flatten(1).mean(1))
