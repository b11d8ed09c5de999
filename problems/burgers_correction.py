r"""Decaying Burgers turbulence on a coarse grid, corrected by a network that was trained inside the solver's loop.

The equation, on a periodic interval of length 1:

    u_t + (u^2/2)_x = nu u_xx

The question: which network, added after every step of a coarse solver, makes it follow one of four times finer cells,
for initial states and viscosities that it has not seen, over many more steps than it was trained on?

===============  ==================================================  ===========================
symbol           value                                               unit (nondimensional)
===============  ==================================================  ===========================
``u``            state, 32 cells                                     speed ``U``
``nu``           log-uniform in (0.001, 0.004), one per trajectory   ``U L``
``dt``           0.01 (an eighth of it for the fine solver)          time ``L/U``
``N``            100 steps to be judged on (20 in the small size)    1
``u(0)``         sum of 4 waves, amplitudes N(0, 1/4)/j, any phase   ``U``
===============  ==================================================  ===========================

Coarse and fine solver are the same finite volumes of second order (van Albada's limiter, Heun's method); the coarse one
cannot resolve the layers of width ``nu / |u|`` that steepen within half a unit of time. The reference are means of four
fine cells.

Unknown: the weights of :class:`~dpcontrol.nets.FluxNet`, whose convolutions find weights of stencils from the state
behind the step and the viscosity: the correction is the difference of fluxes, so momentum is kept. Observation: none.
Data: 128 trajectories of 200 steps (48 of 60 in the small size), split by trajectories; the scenarios are windows of
the test ones, training draws windows of 8 steps of the training ones (4 in the small size).

Objective: ``|u - r| / |r|`` (root mean squares), summed over the steps.

Metrics: ``relative_error``, mean |u - r| / mean |r| over all steps; ``error_ratio``, the difference over that of the
coarse solver. ``outside()`` are trajectories with half the least viscosity that training sees. Examined besides: other
waves with viscosities inside (interpolation) and outside (extrapolation) of the training's range, and the same scheme
on a grid of half the cell size.

Strategies: ``unrolled``, ``stopped``, ``noisy``, ``supervised``, ``surrogate`` (no solver).

Measured, relative error after so many steps, means over the test trajectories, or those of lower viscosities; of
three seeds the least and the largest; 400,000 simulated steps, 36 to 52 CPU seconds each
(``tests/benchmarks/corrections.py``, SOAP, batches of 32; ``noisy`` with noise of 0.001; a dash where rollouts of a
seed become infinite):

==============  =============  =============  =============  =============  =============  =============
                10 steps       50             100            200            extrapol. 50   200
==============  =============  =============  =============  =============  =============  =============
coarse solver   0.0272         0.0288         0.0197         0.0149         0.0358         0.0191
2 x finer       0.0061         0.0073         0.0056         0.0044         0.0083         0.0055
``supervised``  0.0013-0.0016  0.0015-0.0016  0.0011-0.0013  0.0009-0.0011  0.0035-0.0040  0.0022-0.0028
``unrolled``    0.0019         0.0017-0.0021  0.0015-0.0016  0.0012-0.0017  0.0040-0.0045  0.0030-0.0033
``stopped``     0.0020-0.0022  0.0021-0.0025  0.0015-0.0022  0.0015-0.0022  0.0049-0.0051  0.0028-0.0042
``noisy``       0.0036-0.0039  0.0061-0.0077  0.0100-0.0111  0.0144-0.0163  0.0067-0.0077  0.0152-0.0188
``surrogate``   0.0190-0.0202  0.0500-0.0523  0.0704-0.0857  0.1001-0.1308  0.0724-        0.2208-
==============  =============  =============  =============  =============  =============  =============

After 200 steps the error is 13 to 17 (``supervised``) and 9 to 12 times (``unrolled``) below the coarse solver's, and
6.8 to 8.7 and 5.8 to 6.3 times at viscosities below those of the training. In trainings of this length the loop loses
to single steps, up to 200 steps and outside of the training's range: on test trajectories the worst seed of
``supervised`` is better than the best of ``unrolled`` at every length. Two likely reasons: in the same number of
simulated steps it has several times as many iterations, and nothing is unstable here (every rollout of every corrected
solver stays finite for 1,000 steps, probably since the solver dissipates and the correction conserves), so the loop has
nothing to prevent. Without the gradient through the solver (``stopped``) errors are a tenth to a fifth larger in the
mean, and seeds overlap. ``noisy`` drifts off: after 200 steps on test trajectories it is no better than the coarse
solver. Without a solver rollouts from other states become infinite with every seed.

Trained four times as long (1,600,000 steps, 160 to 220 CPU seconds, three seeds) both come to the same place, where the
range of the training is left the loop is ahead, and single steps gain nothing there after the first quarter. Coarse
error over theirs after 200 steps, least, mean and largest seed:

==============  ====================  ====================  ====================
                test                  interpolation         extrapolation
==============  ====================  ====================  ====================
``supervised``  16.6, 19.3, 21.4      18.5, 19.8, 21.6      7.2, 7.9, 8.9
``unrolled``    15.2, 18.8, 20.6      18.8, 19.6, 20.4      8.9, 9.2, 9.8
==============  ====================  ====================  ====================

What decided was the size of the network: one of half the width, two blocks and stencils of four cells (5,411 weights
instead of 31,429), trained by Adam for as many steps, came to 5.0 to 6.2 (``supervised``) and 3.6 to 4.9 times
(``unrolled``), and missed the training trajectories as much as the others. The larger one was chosen by the validation
trajectories. In first looks (one seed, 8 to 30 CPU seconds, not on record) what counted was conservation (a network
that adds to the state lets the mean drift, and was worse than no correction after 200 steps), a stencil with learned
weights, and a loss that is not squared (smooth late states have small errors, which squares do not see).

A corrected step costs 64 microseconds of CPU time for each trajectory (all test ones at a time), one of the compiled
coarse solver 0.5, the same time on twice as many cells 1.1: the network takes 60 times as long as the finer grid, whose
error behind the first ten steps is four times that of ``supervised``. In one dimension a network does not pay.

Reference: K. Um et al., "Solver-in-the-loop: learning from differentiable physics to interact with iterative PDE
solvers", NeurIPS 2020 (the method, and a Burgers case in two dimensions). No published number for this setup.
"""

from __future__ import annotations

import math
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
    correction_problem,
    relative_norm,
    scene_generator,
    simulated_reference,
)
from dpcontrol.sim import FiniteVolumeBurgers

CELLS, FINER, DT, FINE_STEPS = 32, 4, 0.01, 8
VISCOSITIES, OUTSIDE = (1e-3, 4e-3), (5e-4, 1e-3)
UNSEEN = 16  # trajectories of each group that training has not seen
TRAJECTORIES = {"full": 128, "small": 48}
STEPS = {"full": 200, "small": 60}
HORIZON = {"full": 100, "small": 20}
UNROLL = {"full": 8, "small": 4}
NETWORK: dict[str, dict[str, Any]] = {
    "full": {"width": 32, "depth": 3, "kernel": 5, "reach": 2},
    "small": {"width": 16, "depth": 2, "kernel": 5},
}
STRATEGIES = ["unrolled", "stopped", "noisy", "supervised", "surrogate"]
DEFAULTS = {
    "full": {"strategy": "unrolled", "strategies": STRATEGIES, "simulated_steps": 4_000_000},
    "small": {"strategy": "unrolled", "strategies": STRATEGIES, "simulated_steps": 60_000},
}


def problem(*, size: str = "full", seed: int = 0) -> Problem:
    """The correction of coarse finite volumes, in single precision.

    Args:
        size: ``"full"`` (128 trajectories, judged over 100 steps) or ``"small"`` (48, 20 steps).
        seed: draws the trajectories.

    Raises:
        UsageError: for another size or seed.
    """
    generator = scene_generator("burgers_correction", size, seed)
    return correction_problem(
        FiniteVolumeBurgers(DT, VISCOSITIES[0]),
        reference=finer(generator, TRAJECTORIES[size], STEPS[size], VISCOSITIES),
        network=partial(FluxNet, **NETWORK[size]),
        unroll=UNROLL[size],
        horizon=HORIZON[size],
        inputs=("viscosity",),
        loss=relative_norm,
        examination=examination(seed + 1, STEPS[size]),
        name="burgers_correction",
    )


def examination(seed: int, steps: int) -> Examination:
    """Other waves with viscosities inside and outside of the training's range; the same scheme on a finer grid."""
    groups = {"interpolation": VISCOSITIES, "extrapolation": OUTSIDE}
    return Examination(
        unseen={name: partial(unseen, seed, UNSEEN, steps, range_) for name, range_ in groups.items()},
        resolutions={
            "2 x finer": Resolution(
                FiniteVolumeBurgers(DT / 2, VISCOSITIES[0]),
                2,
                partial(merged, cells=2 * CELLS),
                partial(merged, cells=CELLS),
            )
        },
    )


def unseen(seed: int, count: int, steps: int, viscosities: tuple[float, float]) -> Reference:
    """Trajectories of their own seed."""
    return finer(torch.Generator().manual_seed(seed), count, steps, viscosities)


def outside(generator: torch.Generator, count: int, steps: int) -> Reference:
    """Trajectories with viscosities that training does not see."""
    return finer(generator, count, steps, OUTSIDE)


def finer(generator: torch.Generator, count: int, steps: int, viscosities: tuple[float, float]) -> Reference:
    """Trajectories ``(steps + 1, count, 32)`` of the fine solver, with their viscosities."""
    low, high = (math.log(value) for value in viscosities)
    drawn = torch.rand(count, generator=generator, dtype=torch.float64)
    return simulated_reference(
        FiniteVolumeBurgers(DT / FINE_STEPS, viscosities[0]),
        initial_state=waves(generator, count, CELLS * FINER).float(),
        steps=steps,
        every=FINE_STEPS,
        downsample=partial(merged, cells=CELLS),
        parameters={"viscosity": torch.exp(low + (high - low) * drawn).float()},
        name="burgers_correction",
    )


def waves(generator: torch.Generator, count: int, cells: int) -> Tensor:
    """Sums of the first four waves, ``(count, cells)``."""
    x = (torch.arange(cells, dtype=torch.float64) + 0.5) / cells
    j = torch.arange(1, 5, dtype=torch.float64)[:, None]
    height = 0.5 * torch.randn(count, 4, 1, generator=generator, dtype=torch.float64) / j
    phase = torch.rand(count, 4, 1, generator=generator, dtype=torch.float64)
    return (height * torch.sin(2 * math.pi * (j * x + phase))).sum(1)


def merged(fine: Tensor, cells: int) -> Tensor:
    """Means of neighbours, ``(count, more cells)`` to ``(count, cells)``."""
    return fine.unflatten(1, (cells, -1)).mean(-1)
