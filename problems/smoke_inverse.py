r"""How must the air have moved at the start, so that smoke from here ends up as smoke from there would have?

The equations, in a closed box 32 x 40:

    s_t + u . grad s = q,   u_t + u . grad u = -grad p + s e_y,   div u = 0

The question: four plumes rise from discs at different places. Which initial velocities make the first three look,
after 20 steps, like the fourth, which starts from rest?

=====================  =====================================================  =====================================
symbol                 value                                                  unit
=====================  =====================================================  =====================================
``s``                  marker, 32 x 40 cells of size 1, clean at the start    amount of marker
``u``                  velocity on the free faces, 31 x 40 and 32 x 39        cells per step
``q``                  1/3 in cells with centres within 3 of the source       per step
sources                (12, 4), (13, 6), (14, 5), (16, 5)                     cells
buoyancy               1                                                      cells per step^2 and amount
``dt``, ``N``          1, 20 steps
=====================  =====================================================  =====================================

Unknown: the initial velocity of each plume, 2,488 numbers each, unbounded, from rest. It need not be free of
divergence: the first step advects with it as it is, and projects then. float64.

Objective of each plume: 0.5 sum over cells of (s_20 - s_20 of the fourth plume from rest)^2. The fourth plume is its
own target: its loss and gradient are zero.

Metrics: ``published_loss``, the sum of the objective over the four plumes, as it is published (``Solution.loss`` is
their mean); ``remaining``, that sum divided by the one of the plumes from rest.

What flowed in last has had no time to move: it stands at the wrong place whatever the velocity, so that the published
loss cannot fall below 3. The loss has kinks (interpolation) and jumps (values that MacCormack's scheme clamps change
with the cell that their traced point lies in), and published curves are reproduced to their digits for the first steps
only.

Reference: N. Thuerey, P. Holl, et al., "Physics-based Deep Learning", chapter "Differentiable fluid simulations".

Published: gradient descent, rate 1e-3: 298.286 (step 0), 291.454 (1), 276.058 (2), 233.7 (9), 178.2 (29), 169.4 (49),
169.9 (79). Reproduced here: 298.2864, 291.4547, 276.0724.
Measured here, 80 gradients of each plume: ``adjoint`` 36 (34 to 39 over rounding and rates between half and twice the
one that the ``scale`` of 2 makes the default); ``lbfgs`` 159, its line searches caught by the jumps. 1,000 gradients:
``adjoint`` 20 to 22 at a constant rate and with ``schedule="cosine"``, 18.6 after 4,000; ``lbfgs`` 140, where it stands
still. More of them, losers too, in ``tests/benchmarks/README.md``.

There is one scene: both sizes are the same, and the seed changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dpcontrol.engine import Trajectory, rollout
from dpcontrol.problem import InitialState, Problem, control_problem, reach, scene_generator
from dpcontrol.sim import Grid, Smoke

GRID, HORIZON = Grid((32, 40)), 20
SOURCES, RADIUS, RATE = ((12, 4), (13, 6), (14, 5), (16, 5)), 3, 1 / 3
SIMULATOR = Smoke(GRID, dt=1.0, buoyancy=1.0)
DEFAULTS = {
    size: {"strategies": ["adjoint", "lbfgs"], "simulated_steps": 80 * 2 * HORIZON * len(SOURCES)}
    for size in ("full", "small")
}


def problem(*, size: str = "full", seed: int = 0) -> Problem:
    """The published plumes.

    Args:
        size: ``"full"`` or ``"small"``; they are the same.
        seed: a whole number; there is nothing to draw.

    Raises:
        UsageError: for another size or seed.
    """
    scene_generator("smoke_inverse", size, seed)
    sources = inflows()
    rest = {name: torch.zeros(len(sources), *SIMULATOR.shapes[name]).double() for name in SIMULATOR.names}
    last = {name: part[-1:] for name, part in rest.items()}
    wanted = marker(rollout(SIMULATOR, last, length=HORIZON, parameters={"inflow": sources[-1:]}).states)[-1]
    return control_problem(
        SIMULATOR,
        initial_state=rest,
        horizon=HORIZON,
        objective=0.5 * reach(wanted[0], of=marker),
        unknown=InitialState(scale=2.0),
        scenarios={"inflow": sources},
        metrics={
            "published_loss": lambda trajectory, scenario: len(SOURCES) * misfit(trajectory, wanted),
            "remaining": lambda trajectory, scenario: (
                misfit(trajectory, wanted),
                misfit(rollout(SIMULATOR, rest, length=HORIZON, parameters={"inflow": sources}), wanted),
            ),
        },
        plots={"plumes": Plumes(wanted[0])},
        name="smoke_inverse",
    )


def inflows() -> Tensor:
    """Marker that flows in per step, ``(plumes, 32, 40)``."""
    x, y = GRID.centres()
    discs = [(x - a) ** 2 + (y - b) ** 2 <= RADIUS**2 for a, b in SOURCES]
    return torch.stack(discs).double() * RATE


def marker(state: Mapping[str, Tensor]) -> Tensor:
    """The part of the state that is compared."""
    return state["marker"]


def misfit(trajectory: Trajectory, wanted: Tensor) -> Tensor:
    """``0.5 sum (s_20 - target)^2``, ``(plumes,)``."""
    return 0.5 * (marker(trajectory.states)[-1] - wanted).square().sum((1, 2))


class Plumes:
    """The report's figure: the first plume over time, as each strategy steered it, beside the target.

    Called with a matplotlib figure and a dict, label -> solution.
    """

    def __init__(self, target: Tensor, plume: int = 0) -> None:
        self.target, self.plume = target.clone(), plume

    def __call__(self, figure: Any, solutions: Mapping[str, Any]) -> None:
        start = {name: torch.zeros(1, *SIMULATOR.shapes[name]).double() for name in SIMULATOR.names}
        source = inflows()[self.plume : self.plume + 1]
        idle = rollout(SIMULATOR, start, length=HORIZON, parameters={"inflow": source})
        rows = {"from rest": marker(idle.states)[:, 0]}
        for label, solution in solutions.items():
            rows[label] = marker(solution.trajectory().states)[:, self.plume]
        times = range(4, HORIZON + 1, 4)
        figure.set_size_inches(11.5, 0.6 + 2.3 * len(rows))
        figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.0, hspace=0.0)
        axes = figure.subplots(len(rows), len(times) + 1, squeeze=False, sharex=True, sharey=True)
        highest = float(self.target.max())
        for row, (label, states) in zip(axes, rows.items(), strict=True):
            for panel, k in zip(row, times, strict=False):
                show(panel, states[k], highest)
            show(row[-1], self.target, highest)
            for panel in row[-2:]:  # where they are compared
                outline = self.target.T.cpu().numpy()
                panel.contour(outline, [0.15 * highest], colors="#56B4E9", linewidths=1.0)
            row[0].set_ylabel(label)
        for panel, title in zip(axes[0], [*(f"step {k}" for k in times), "target"], strict=True):
            panel.set_title(title, fontsize=10, fontweight="normal", loc="center")


def show(panel: Any, field: Tensor, highest: float) -> None:
    """One marker field, ``x`` to the right and ``y`` upwards."""
    panel.imshow(
        field.T.cpu().numpy(), origin="lower", cmap="magma", vmin=0, vmax=highest, interpolation="bilinear"
    )
    panel.set(xticks=[], yticks=[])
    for spine in panel.spines.values():
        spine.set_visible(False)
