r"""Decaying turbulence on a coarse grid, corrected by a network that was trained inside the solver's loop.

The equation, on a periodic box of side 2 pi:

    omega_t + u . grad omega = nu (omega_xx + omega_yy),    u = (psi_y, -psi_x),    -(psi_xx + psi_yy) = omega

The question: which network, added after every step of a coarse solver, makes it follow a four times finer one, for
flows, viscosities and spectra that it has not seen, and in a larger box?

===============  ==================================================  ===========================
symbol           value                                               unit (nondimensional)
===============  ==================================================  ===========================
``omega``        state, 32 x 32 cells (16 x 16 in the small size)    ``U/L``
``h``            2 pi / 32, side of a cell in both sizes             ``L``
``nu``           log-uniform in (0.0015, 0.004), one per trajectory  ``U L``
``dt``           0.05 (a quarter of it for the fine solver)          ``L/U``
``N``            100 steps to be judged on (20 in the small size)    1
``omega(0)``     random phases, energy around wavenumber 4, root     ``U/L``
                 mean square 1, after 2 units of time
===============  ==================================================  ===========================

The coarse solver is of second order and central, see :class:`FiniteVolumeVorticity`: it keeps the enstrophy, and what
it does wrong is a smooth function of the state. The reference are means over 4 x 4 points of a Fourier Galerkin
solution on 128 x 128. 200 steps are ten units of time, about eight turnovers of the vortices, and within the
predictable: the fine solver, begun without the waves that are too short for the coarse grid, is 0.6 % off after 200
steps. So the coarse error is the solver's, not that of what a coarse state cannot know. It is no silly solver: on the
same grid a third-order upwind scheme and Fourier Galerkin err half as much after 200 steps.

Unknown: the weights of a network of convolutions (:class:`SeesVelocity`) that finds weights of stencils from vorticity,
velocity and viscosity; the correction is the difference of fluxes. Observation: none. Data: 64 trajectories of 200
steps (12 of 40 in the small size), split by trajectories; training draws windows of 8 steps (4).

Objective: ``|omega - r| / |r|`` (root mean squares), summed over the steps.

Metrics: ``relative_error``, mean |omega - r| / mean |r| over all steps; ``error_ratio``, the difference over that of
the coarse solver. Examined besides: other flows like those of the training (interpolation), viscosities of 0.0008 to
0.0012, spectra around wavenumber 6, a box of twice the side with 64 x 64 cells; the same solver on two and four times
finer grids, of third order on the same grid, and Fourier Galerkin.

Strategies: ``unrolled``, ``stopped``, ``noisy``, ``supervised``, ``surrogate`` (no solver).

Measured, relative error after so many steps of the test trajectories, and after 200 steps of the others, means over
trajectories and over three seeds, or the share of rollouts that stay finite to the end; 80,000 simulated steps, 100 to
124 CPU seconds each (``tests/benchmarks/corrections.py``, SOAP, batches of 8):

========================  ========  ======  ======  ===========  ========  ===========
                          10 steps  50      200     viscosities  spectrum  larger box
========================  ========  ======  ======  ===========  ========  ===========
coarse solver             0.071     0.270   0.482   0.759        0.519     0.505
2 x finer                 0.021     0.079   0.151   0.302        0.147
4 x finer                 0.0052    0.0194  0.037   0.087        0.035
third order, same grid    0.046     0.133   0.244   0.417        0.264
spectral, same grid       0.103     0.181   0.259   0.580        0.302
spectral, 2 x finer       0.0076    0.0136  0.0126  0.074        0.0130
fine solver, begun blind  0.0135    0.0056  0.0059  0.0167       0.0102
``unrolled``              0.0107    0.0273  0.056   0.154        0.060     0.061
``stopped``               0.0109    0.0286  0.057   0.162        0.060     0.063
``noisy``                 0.0106    0.0282  0.058   0.183        0.059     0.062
``supervised``            0.0105    0.0283  0.055   stable 96 %  0.059     0.062
``surrogate``             0.0243    0.0951  93 %    38 %         96 %      83 %
========================  ========  ======  ======  ===========  ========  ===========

So the error after 200 steps is 8.6 times (7.8 to 9.2) below the coarse solver's with ``unrolled``, 8.7 (8.5 to 8.9)
with ``supervised``, and as much on other flows, another spectrum and in the larger box: single steps teach there what
the loop does. Interaction tells where the viscosity is below all of the training's: 4.9 times (4.8 to 5.1) with
``unrolled``, 4.7 with ``stopped``, 4.2 with ``noisy``, and 4.1 to 4.2 with two seeds of ``supervised``, of whose third
seed one rollout in eight blows up. None of ``unrolled``, ``stopped`` or ``noisy`` does, nor any of a corrected solver
in 1,000 steps from test states.

Trained three times as long (240,000 steps, 330 CPU seconds, seed 0) ``unrolled`` comes to 10.5 times on test
trajectories, 9.3 to 9.6 on other flows, spectrum and box, and 5.1 at lower viscosities, all stable. ``supervised``
falls back to 6.1 on test trajectories, and a quarter of its rollouts blows up at lower viscosities and in the larger
box: single steps learned better are no remedy for what only the loop can see.

What decided was the size of the network: one of half the width with stencils of four cells (10,076 weights instead of
39,100) ended at 5.0 times, on the training trajectories too, and with single steps was unstable in two groups. The
larger one was chosen by the validation trajectories and by low viscosities of another seed.

A corrected step costs 0.74 ms of one core, one of the coarse solver 0.03, of the two times finer one 0.14, of the four
times finer one 1.03, whose error is two thirds of the corrected one's: at equal error there is no gain over a finer
grid of the same scheme (about 0.6 ms, between the two), and Fourier Galerkin with twice the points, 0.16 ms, is both
better and cheaper in a periodic box.

Reference: K. Um et al., "Solver-in-the-loop", NeurIPS 2020 (the method). D. Kochkov et al., "Machine
learning-accelerated computational fluid dynamics", PNAS 118 (2021) (decaying turbulence, learned interpolation, larger
boxes). No published number for this setup.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from dpcontrol.nets import FluxNet
from dpcontrol.problem import (
    Examination,
    Problem,
    Reference,
    Resolution,
    UsageError,
    correction_problem,
    relative_norm,
    scene_generator,
    simulated_reference,
)
from dpcontrol.sim import Simulator, VorticityFlow, align
from dpcontrol.tree import Tree

CELL, FINER, DT, FINE_STEPS = 2 * math.pi / 32, 4, 0.05, 4
CELLS = {"full": 32, "small": 16}
VISCOSITIES, OUTSIDE = (1.5e-3, 4e-3), (8e-4, 1.2e-3)
PEAK, OTHER_PEAK = 4.0, 6.0
TRAJECTORIES = {"full": 64, "small": 12}
STEPS = {"full": 200, "small": 40}
HORIZON = {"full": 100, "small": 20}
SPIN_UP = {"full": 40, "small": 10}
UNROLL = {"full": 8, "small": 4}
NETWORK = {"full": {"width": 32, "reach": 3}, "small": {"width": 8}}
UNSEEN = {"full": 8, "small": 4}
STRATEGIES = ["unrolled", "stopped", "noisy", "supervised", "surrogate"]
DEFAULTS = {
    "full": {"strategy": "unrolled", "strategies": STRATEGIES, "simulated_steps": 150_000},
    "small": {"strategy": "unrolled", "strategies": STRATEGIES, "simulated_steps": 8_000},
}


@dataclass(frozen=True)
class FiniteVolumeVorticity(Simulator):
    r"""Two-dimensional incompressible flow in vorticity form by finite volumes, on a periodic grid of square cells.

    .. math:: \omega_t + \nabla \cdot (\mathbf u \omega) = \nu \Delta \omega, \quad
        \mathbf u = (\psi_y, -\psi_x), \quad -\Delta \psi = \omega

    The stream function is found in Fourier space at the corners of the cells; its differences are the speeds through
    their faces, without divergence. ``omega`` at a face is the mean of the two cells (``order`` 2: it keeps the
    enstrophy but for viscosity and time steps, and has no dissipation of its own), or comes from a parabola through
    three cells, two of them upwind (3; products of means leave the whole at second order, with a smaller error).
    Heun's method advances it. Stable for about ``dt (|u| + |v|) / h <= 1`` and ``4 nu dt / h^2 <= 1``.

    **State**: ``(scenarios, nx, ny)``, means over cells; the size of the box is that of the state. **Parameter**:
    ``viscosity``, ``()`` or ``(scenarios,)``. The control, if any, is a source of the state's shape.

    Args:
        dt: time step.
        cell: side ``h`` of a cell.
        viscosity: ``nu``.
        order: of the values at faces, 2 or 3.
    """

    dt: float
    cell: float = CELL
    viscosity: float = VISCOSITIES[0]
    order: int = 2

    @property
    def parameters(self) -> Mapping[str, Any]:
        return {"viscosity": self.viscosity}

    def check(self, initial: Tree, parameters: Mapping[str, Tensor]) -> None:
        if not isinstance(initial, Tensor) or initial.ndim != 3:
            raise UsageError("a vorticity is a tensor (scenarios, nx, ny).")
        u, v = face_speeds(initial.detach(), corners_of(initial, self.cell), self.cell)
        crossed = float((u.abs() + v.abs()).max()) * self.dt / self.cell
        spread = 4 * float(parameters["viscosity"].detach().max()) * self.dt / self.cell**2
        if not max(crossed, spread) <= 1:
            raise UsageError(
                f"dt = {self.dt:g} is too long for cells of {self.cell:.3g}: in a step the flow crosses {crossed:.3g} "
                f"of them and diffusion {spread:.3g}, where at most 1 is stable; reduce dt."
            )

    def step(self, state: Tree, control: Tree, coefficients: Any, noise: Tree, t: float) -> Tree:
        nu, corners = align(coefficients["viscosity"], state), corners_of(state, self.cell)
        first = torch.add(state, self._rate(state, control, nu, corners), alpha=self.dt)
        second = torch.add(first, self._rate(first, control, nu, corners), alpha=self.dt)
        return torch.lerp(state, second, 0.5)

    def _rate(self, state: Tensor, control: Tree, nu: Any, corners: Tensor) -> Tensor:
        rate = torch.zeros_like(state) if control is None else control
        for axis, speed in zip((1, 2), face_speeds(state, corners, self.cell), strict=True):
            jump = state.roll(-1, axis) - state
            flux = speed * (state + 0.5 * jump) - (nu / self.cell) * jump
            if self.order == 3:
                before, behind = jump.roll(1, axis), jump.roll(-1, axis)
                flux = flux + (torch.relu(speed) * (before - jump) + torch.relu(-speed) * (behind - jump)) / 6
            rate = rate - (flux - flux.roll(1, axis)) / self.cell
        return rate


class SeesVelocity(nn.Module):
    """:class:`~dpcontrol.nets.FluxNet` that is shown the velocity of the flow beside its vorticity.

    What a scheme does wrong as it carries vorticity along goes with the speed through each face, and that depends on
    vorticity all over the box, which no small stencil sees. So it is computed, in Fourier space. The first channel is
    the vorticity, in any unit; the velocity is that of cells of unit side.
    """

    def __init__(self, inputs: int, outputs: int, *, width: int, reach: int = 1) -> None:
        super().__init__()
        sizes = {"width": width, "reach": reach, "depth": 2, "kernel": 3}
        self.fluxes = FluxNet(inputs + 2, outputs, dimensions=2, carried=True, **sizes)

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, inputs, nx, ny)`` to ``(batch, outputs, nx, ny)``."""
        vorticity = x[:, 0]
        speeds = face_speeds(vorticity, corners_of(vorticity, 1.0), 1.0)
        found: Tensor = self.fluxes(torch.cat([x, torch.stack(speeds, 1)], 1))
        return found


def face_speeds(vorticity: Tensor, corners: Tensor, cell: float) -> tuple[Tensor, Tensor]:
    """Through the upper face of every cell in x and in y, without divergence."""
    psi = torch.fft.irfft2(torch.fft.rfft2(vorticity) * corners, s=vorticity.shape[1:])
    return (psi - psi.roll(1, 2)) / cell, (psi.roll(1, 1) - psi) / cell


def corners_of(state: Tensor, cell: float) -> Tensor:
    """From the spectrum of ``omega`` in the cells to that of ``psi`` half a cell further in x and y."""
    nx, ny = state.shape[1:]
    kx = 2 * math.pi * torch.fft.fftfreq(nx, dtype=torch.float64, device=state.device)[:, None]
    ky = 2 * math.pi * torch.fft.rfftfreq(ny, dtype=torch.float64, device=state.device)
    squared = kx.square() + ky.square()
    squared[0, 0] = math.inf  # the mean has no stream function
    table = torch.polar(cell**2 / squared, 0.5 * (kx + ky))
    return table.to(torch.complex64 if state.dtype == torch.float32 else torch.complex128)


def problem(*, size: str = "full", seed: int = 0) -> Problem:
    """The correction of coarse finite volumes, in single precision.

    Args:
        size: ``"full"`` (32^2 cells, 64 trajectories, judged over 100 steps) or ``"small"`` (16^2, 12, 20 steps).
        seed: draws the trajectories.

    Raises:
        UsageError: for another size or seed.
    """
    generator = scene_generator("vorticity_correction", size, seed)
    return correction_problem(
        FiniteVolumeVorticity(DT),
        reference=spectral(generator, TRAJECTORIES[size], size),
        network=partial(SeesVelocity, **NETWORK[size]),
        unroll=UNROLL[size],
        horizon=HORIZON[size],
        inputs=("viscosity",),
        loss=relative_norm,
        examination=examination(seed + 1, size),
        name="vorticity_correction",
    )


def examination(seed: int, size: str) -> Examination:
    """Other flows, viscosities, initial spectra and a larger box; the same scheme and a better one on other grids."""
    cells, make = CELLS[size], partial(unseen, seed, size)
    groups = {
        "interpolation": make,
        "other viscosities": partial(make, viscosities=OUTSIDE),
        "other spectrum": partial(make, peak=OTHER_PEAK),
        "larger box": partial(make, cells=2 * cells),
    }
    volumes = {
        label: Resolution(
            FiniteVolumeVorticity(DT / factor, CELL / factor, order=order),
            factor,
            partial(averaged, factor=FINER // factor),
            partial(averaged, factor=factor),
        )
        for label, factor, order in (
            ("2 x finer", 2, 2),
            ("4 x finer", 4, 2),
            ("third order, same grid", 1, 3),
        )
    }
    series = {
        label: Resolution(
            VorticityFlow(DT / 2, (points, points), lengths=(cells * CELL, cells * CELL)),
            2,
            partial(resampled, points=points),
            partial(seen, cells=cells),
            groups=tuple(name for name in groups if name != "larger box"),
        )
        for label, points in (("spectral, same grid", cells), ("spectral, 2 x finer", 2 * cells))
    }
    return Examination(lengths=(10, 20, 50, 100, 200), unseen=groups, resolutions={**volumes, **series})


def unseen(
    seed: int,
    size: str,
    *,
    viscosities: tuple[float, float] = VISCOSITIES,
    peak: float = PEAK,
    cells: int | None = None,
) -> Reference:
    """Trajectories of their own seed."""
    generator = torch.Generator().manual_seed(seed)
    return spectral(generator, UNSEEN[size], size, viscosities=viscosities, peak=peak, cells=cells)


def spectral(
    generator: torch.Generator,
    count: int,
    size: str,
    *,
    viscosities: tuple[float, float] = VISCOSITIES,
    peak: float = PEAK,
    cells: int | None = None,
) -> Reference:
    """Trajectories ``(steps + 1, count, cells, cells)`` of the fine solver, with their viscosities."""
    across = CELLS[size] if cells is None else cells
    low, high = (math.log(value) for value in viscosities)
    drawn = torch.rand(count, generator=generator, dtype=torch.float64)
    points, side = FINER * across, across * CELL
    return simulated_reference(
        VorticityFlow(DT / FINE_STEPS, (points, points), lengths=(side, side)),
        initial_state=vortices(generator, count, points, side, peak),
        steps=STEPS[size],
        every=FINE_STEPS,
        downsample=partial(merged, cells=across),
        parameters={"viscosity": torch.exp(low + (high - low) * drawn).float()},
        spin_up=SPIN_UP[size],
        name="vorticity_correction",
    )


def vortices(generator: torch.Generator, count: int, points: int, side: float, peak: float) -> Tensor:
    """Random vorticity of root mean square 1 with energy around a wavenumber, ``(count, points, points)``."""
    white = torch.randn(count, points, points, generator=generator, dtype=torch.float64)
    unit = 2 * math.pi * points / side
    k = torch.hypot(
        unit * torch.fft.fftfreq(points, dtype=torch.float64)[:, None],
        unit * torch.fft.rfftfreq(points, dtype=torch.float64),
    )
    field = torch.fft.irfft2(
        torch.fft.rfft2(white) * k**1.5 * torch.exp(-((k / peak) ** 2)), s=(points, points)
    )
    return (field / field.square().mean((1, 2), keepdim=True).sqrt()).float()


def merged(fine: Tensor, cells: int) -> Tensor:
    """Means over square blocks, ``(count, n, n)`` to ``(count, cells, cells)``."""
    return fine.unflatten(2, (cells, -1)).mean(3).unflatten(1, (cells, -1)).mean(2)


def averaged(fine: Tensor, factor: int) -> Tensor:
    """Means over square blocks of so many cells along a side, in a box of any size."""
    return merged(fine, fine.shape[1] // factor)


def resampled(field: Tensor, points: int) -> Tensor:
    """The same Fourier series on more or fewer points, ``(count, n, n)`` to ``(count, points, points)``."""
    before = field.shape[1]
    kept = (min(before, points) + 1) // 2  # without the wave that alternates from point to point
    spectrum = torch.fft.rfft2(field)
    found = spectrum.new_zeros(len(field), points, points // 2 + 1)
    found[:, :kept, :kept] = spectrum[:, :kept, :kept]
    found[:, points - kept + 1 :, :kept] = spectrum[:, before - kept + 1 :, :kept]
    return torch.fft.irfft2(found, s=(points, points)) * (points / before) ** 2


def seen(field: Tensor, cells: int) -> Tensor:
    """The means over cells that a Fourier series has."""
    return merged(resampled(field, FINER * cells), cells)
