r"""A smearing upwind scheme for advection and diffusion, sharpened by a network that was trained inside its loop.

The equation, on a periodic interval of length 1:

    u_t + c u_x = kappa u_xx

The question: which small network, added after every step of a first-order upwind scheme, makes it as good as the exact
solution, for speeds and initial states that it has not seen?

===============  ==================================================  =======================
symbol           value                                               unit (nondimensional)
===============  ==================================================  =======================
``u``            state, 32 cells of size h                           concentration
``c``            speed, U(0.5, 1) for each trajectory                length over time
``kappa``        2e-4                                                length^2 over time
``dt``           0.015, so that ``c dt / h`` is 0.24 to 0.48         time
``N``            60 steps to be judged on (20 in the small size)     1
``u(0)``         sum of 5 waves, amplitudes N(0, 1)/j, any phase     concentration
===============  ==================================================  =======================

The coarse solver takes the flux ``c u_i`` from the cell upwind and steps by Euler's method. To second order it solves
another equation, with the diffusivity ``kappa + c (h - c dt) / 2``: thirty to forty times too much. The reference is
the exact solution of a Fourier series on 128 points, means of four points.

Unknown: the weights of :class:`~dpcontrol.nets.FluxNet`, whose convolutions find weights of stencils from the state
behind the step and the speed: the correction is the difference of fluxes, so the sum is kept. Observation: none. Data:
48 trajectories of 120 steps (24 of 60 in the small size), split by trajectories into train, validation and test; the
scenarios are windows of the test ones, training draws windows of 4 steps of the training ones.

Objective: ``|u - r| / |r|`` (root mean squares), summed over the steps.

Metrics: ``relative_error``, mean |u - r| / mean |r| over all steps; ``error_ratio``, the difference over that of the
coarse solver. ``faster()`` are trajectories with speeds of 1 to 1.3, outside of what training sees. Examined besides:
other waves with speeds inside (interpolation) and outside (extrapolation) of the training's range, and the upwind
scheme on two and four times finer grids.

Strategies: ``unrolled`` (the network meets its own consequences), ``stopped`` (without their gradient), ``noisy`` and
``supervised`` (single steps), ``surrogate`` (no solver: the same network makes the whole step).

Here ``unrolled`` has nothing to win over ``supervised``: five waves on 32 cells are fully resolved, so a coarse state
determines the next one, one network is right for all of them, and single steps teach it at a quarter of the price. The
error of a rollout is the sum of those of its steps, and grows in proportion to its length whoever trained it. Where
they differ is how far the optimizer came.

Reference: K. Um et al., "Solver-in-the-loop: learning from differentiable physics to interact with iterative PDE
solvers", NeurIPS 2020 (the method). R. F. Warming, B. J. Hyett, J. Comput. Phys. 14 (1974) 159 (the modified equation).
No published number for this setup.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

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
from dpcontrol.sim import AdvectionDiffusion, Simulator, align
from dpcontrol.tree import Tree

CELLS, FINER, DT, DIFFUSIVITY = 32, 4, 0.015, 2e-4
SPEEDS, FASTER = (0.5, 1.0), (1.0, 1.3)
UNSEEN = 12  # trajectories of each group that training has not seen
TRAJECTORIES = {"full": 48, "small": 24}
STEPS = {"full": 120, "small": 60}
HORIZON = {"full": 60, "small": 20}
STRATEGIES = ["unrolled", "stopped", "noisy", "supervised", "surrogate"]
DEFAULTS = {
    "full": {"strategy": "unrolled", "strategies": STRATEGIES, "simulated_steps": 1_000_000},
    "small": {"strategy": "unrolled", "strategies": STRATEGIES, "simulated_steps": 60_000},
}


@dataclass(frozen=True)
class Upwind(Simulator):
    r"""``u_i <- u_i - c dt/h (u_i - u_{i-1}) + kappa dt/h^2 (u_{i+1} - 2 u_i + u_{i-1})`` on a periodic interval.

    First order in space and time; stable for ``c dt / h + 2 kappa dt / h^2 <= 1``; ``c`` is positive. The state is
    ``(scenarios, cells)``, the control a source of the same shape or ``None``.
    """

    dt: float
    velocity: float = 1.0
    diffusivity: float = DIFFUSIVITY

    @property
    def parameters(self) -> Mapping[str, Any]:
        return {"velocity_0": self.velocity, "diffusivity": self.diffusivity}

    def check(self, initial: Tree, parameters: Mapping[str, Tensor]) -> None:
        h = 1 / initial.shape[1]
        c, kappa = parameters["velocity_0"].detach(), parameters["diffusivity"].detach()
        number = float((c * self.dt / h + 2 * kappa * self.dt / h**2).max())
        if number > 1 or float(c.min()) < 0:
            raise UsageError(
                f"the upwind scheme needs c >= 0 and c dt/h below 1; found {number:.3g}: reduce dt."
            )

    def step(self, state: Tree, control: Tree, coefficients: Any, noise: Tree, t: float) -> Tree:
        h = 1 / state.shape[1]
        c, kappa = (align(coefficients[name], state) for name in ("velocity_0", "diffusivity"))
        below, above = state.roll(1, 1), state.roll(-1, 1)
        after = (
            state
            - c * (self.dt / h) * (state - below)
            + kappa * (self.dt / h**2) * (above - 2 * state + below)
        )
        return after if control is None else after + self.dt * control


def problem(*, size: str = "full", seed: int = 0) -> Problem:
    """The correction of the upwind scheme.

    Args:
        size: ``"full"`` (48 trajectories, judged over 60 steps) or ``"small"`` (24, 20 steps).
        seed: draws the trajectories.

    Raises:
        UsageError: for another size or seed.
    """
    generator = scene_generator("advection_diffusion_correction", size, seed)
    return correction_problem(
        Upwind(DT),
        reference=exact(generator, TRAJECTORIES[size], STEPS[size], SPEEDS),
        network=partial(FluxNet, width=12, depth=1, kernel=5),
        unroll=4,
        horizon=HORIZON[size],
        inputs=("velocity_0",),
        loss=relative_norm,
        examination=examination(seed + 1, STEPS[size]),
        name="advection_diffusion_correction",
    )


def examination(seed: int, steps: int) -> Examination:
    """Other waves with speeds inside and outside of the training's range; the same scheme on finer grids."""
    groups = {"interpolation": SPEEDS, "extrapolation": FASTER}
    return Examination(
        unseen={name: partial(unseen, seed, UNSEEN, steps, speeds) for name, speeds in groups.items()},
        resolutions={
            f"{factor} x finer": Resolution(
                Upwind(DT / factor),
                factor,
                partial(merged, cells=factor * CELLS),
                partial(merged, cells=CELLS),
            )
            for factor in (2, 4)
        },
    )


def unseen(seed: int, count: int, steps: int, speeds: tuple[float, float]) -> Reference:
    """Trajectories of their own seed."""
    return exact(torch.Generator().manual_seed(seed), count, steps, speeds)


def faster(generator: torch.Generator, count: int, steps: int) -> Reference:
    """Trajectories with speeds that training does not see."""
    return exact(generator, count, steps, FASTER)


def exact(generator: torch.Generator, count: int, steps: int, speeds: tuple[float, float]) -> Reference:
    """Exact trajectories ``(steps + 1, count, 32)`` with their speeds."""
    low, high = speeds
    points = CELLS * FINER
    return simulated_reference(
        AdvectionDiffusion(DT, (points,), DIFFUSIVITY, velocity=(1.0,)),
        initial_state=waves(generator, count, points),
        steps=steps,
        downsample=partial(merged, cells=CELLS),
        parameters={
            "velocity_0": low + (high - low) * torch.rand(count, generator=generator, dtype=torch.float64)
        },
        name="advection_diffusion_correction",
    )


def waves(generator: torch.Generator, count: int, points: int) -> Tensor:
    """Sums of the first five waves, ``(count, points)``."""
    x = torch.arange(points, dtype=torch.float64) / points
    j = torch.arange(1, 6, dtype=torch.float64)[:, None]
    height = torch.randn(count, 5, 1, generator=generator, dtype=torch.float64) / j
    phase = torch.rand(count, 5, 1, generator=generator, dtype=torch.float64)
    return (height * torch.sin(2 * math.pi * (j * x + phase))).sum(1)


def merged(fine: Tensor, cells: int) -> Tensor:
    """Means of neighbours, ``(count, more cells)`` to ``(count, cells)``."""
    return fine.unflatten(1, (cells, -1)).mean(-1)
