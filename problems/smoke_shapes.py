r"""Smoke in one shape is to become smoke in another shape, elsewhere, in 16 steps of stirring.

The equations, in a closed box 64 x 64:

    s_t + u . grad s = 0,   u = (d psi / dy, -d psi / dx)

The question: which potentials psi, one for each step, carry a marker from the start shape into the target shape?

=====================  =========================================================  ==============================
symbol                 value                                                      unit
=====================  =========================================================  ==============================
``s``                  marker, 64 x 64 cells of size 1; 1 inside of a shape       1
``psi``                control, 63 x 63 inner corners, zero on the walls          cells^2 per step
``u``                  velocity on the free faces, its curl                       cells per step
``f``                  force, u_k - advected(u_{k-1}); at rest before             cells per step^2
``dt``, ``N``          1, 16 steps                                                step
shapes                 ten 32 x 32 masks, ``data/smoke_shapes.json``              1
place                  first corner of the mask, whole, U{1, ..., 30} each axis   cells
=====================  =========================================================  ==============================

Unknown: the potential of every step, 16 x 3,969 numbers for each pair, unbounded. It starts from ``carrying``: a
flow that moves the start as a whole to the target's centre, as a solid body would; from rest, shapes that do not
overlap would feel nothing of each other. float32.

Objective of each pair: sum over cells of (s_16 - target)^2 + w E, with the published effort E = 0.5 sum f^2, mean over
the steps, and w = ``effort_weight``, 0.01 by default: enough that the effort falls below that of carrying alone. With
``mass_weight = m > 0`` in addition m (sum s_16 - sum s_0)^2.

With ``dynamic=True`` the marker moves as the fluid does, and the control is a force on the fluid instead:

    u_t + u . grad u = -grad p + F,   div u = 0

in the same box, at rest at the start; F on 64 x 64 cell centres, two components, cells per step^2; E = 0.5 sum F^2,
mean over the steps. It starts from the forces that ``carrying`` asks for.

Metrics, means over the pairs: ``relative_error``, |s_16 - target|_1 / |s_0 - target|_1, the published figure;
``effort``, E; ``mass_change``, |sum s_16 - sum s_0| / sum s_0; ``floor``, |sum s_0 - sum target| / |s_0 - target|_1:
no flow that conserves the marker gets a lower ``relative_error``, because the masks differ in area. The published step
does not conserve it (semi-Lagrangian interpolation), and a search makes use of that: read an error below the floor as
a statement about the scheme.

Reference: P. Holl, V. Koltun, N. Thuerey, "Learning to control PDEs with differentiable physics", ICLR 2020;
N. Thuerey et al., "Physics-based Deep Learning", chapter "Solving inverse problems with neural networks".

Published: relative error 0.0545, mean over 100 test pairs, by a network trained on 800 pairs (which answers a new
pair at once; the figures here are of a search for each pair). Measured here, 20 pairs (seed 0), 200 gradients each:

=========================================  ==============  ======  ===========  ======
search                                     relative_error  effort  mass_change  floor
=========================================  ==============  ======  ===========  ======
start guess, carrying                      0.507           106     0.004        0.0154
``adjoint``                                0.0115          60      0.027        0.0154
``lbfgs``                                  0.0241          139     0.042        0.0154
``adjoint``, ``mass_weight=0.01``          0.0189          65      0.009        0.0154
``adjoint``, ``mass_weight=0.1``           0.0279          129     0.002        0.0154
``adjoint``, ``effort_weight=0``           0.0004          2639    0.025        0.0154
``adjoint``, ``dynamic=True``              0.0198          103     0.027        0.0154
=========================================  ==============  ======  ===========  ======

With 400 gradients at twice the rate ``dynamic=True`` comes to 0.0168. Intervals, single pairs and losers are in
``tests/benchmarks/README.md``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dpcontrol.engine import Trajectory
from dpcontrol.problem import (
    ControlSequence,
    Problem,
    UsageError,
    control_problem,
    cost,
    reach,
    scene_generator,
)
from dpcontrol.sim import Grid, Smoke, Stirring
from dpcontrol.sim.staggered import to_centres

CELLS, HORIZON, MASK = 64, 16, 32
GRID = Grid((CELLS, CELLS))
SIMULATOR = Stirring(GRID, dt=1.0)
FLUID = Smoke(GRID, dt=1.0, buoyancy=0.0, marker_scheme="semi_lagrangian")
DATA = Path(__file__).parent / "data" / "smoke_shapes.json"
PAIRS = {"full": 20, "small": 4}
EFFORT_WEIGHT = 1e-2
DEFAULTS = {
    "full": {"strategies": ["adjoint", "lbfgs"], "simulated_steps": 200 * 2 * HORIZON * PAIRS["full"]},
    "small": {"strategies": ["adjoint", "lbfgs"], "simulated_steps": 100 * 2 * HORIZON * PAIRS["small"]},
}


def problem(
    *,
    size: str = "full",
    seed: int = 0,
    dynamic: bool = False,
    effort_weight: float = EFFORT_WEIGHT,
    mass_weight: float = 0.0,
) -> Problem:
    """Shape transitions.

    Args:
        size: ``"full"`` (20 pairs) or ``"small"`` (4).
        seed: draws shapes and places.
        dynamic: push the fluid instead of choosing its velocity.
        effort_weight: weight of the effort, zero or more.
        mass_weight: weight of the change of mass, zero or more.

    Raises:
        UsageError: for another size or seed, or a negative weight.
    """
    generator = scene_generator("smoke_shapes", size, seed)
    for name, weight in (("effort_weight", effort_weight), ("mass_weight", mass_weight)):
        if not 0 <= weight < float("inf"):
            raise UsageError(f"smoke_shapes takes {name} >= 0 and finite; found {weight!r}.")
    start, target = draw(generator, PAIRS[size]), draw(generator, PAIRS[size])
    system = FLUID if dynamic else SIMULATOR
    stage = push_squared if dynamic else force_squared
    control = ControlSequence(SIMULATOR.corners, start=carrying(start, target), scale=4.0)
    if dynamic:
        control = ControlSequence((2, *GRID.cells), start=pushing(start, target))
    objective = reach("target", of=marker)
    if effort_weight:
        objective = objective + (effort_weight / HORIZON) * cost(stage=stage)
    if mass_weight:
        objective = objective + mass_weight * cost(terminal=mass_gained)
    return control_problem(
        system,
        initial_state={"marker": start},
        horizon=HORIZON,
        objective=objective,
        control=control,
        scenarios={"target": target},
        metrics={
            "relative_error": relative_error,
            "effort": Effort(stage),
            "mass_change": mass_change,
            "floor": floor,
        },
        plots={"transition": Transition(target)},
        name="smoke_shapes_pushed" if dynamic else "smoke_shapes",
    )


def draw(generator: torch.Generator, count: int) -> Tensor:
    """``count`` shapes at random places, ``(count, 64, 64)``."""
    masks = torch.tensor(json.loads(DATA.read_text())["shapes"], dtype=torch.float32)
    kinds = torch.randint(len(masks), (count,), generator=generator)
    corners = torch.randint(1, CELLS - MASK - 1, (count, 2), generator=generator)
    fields = torch.zeros(count, CELLS, CELLS)
    for field, kind, (x, y) in zip(fields, kinds.tolist(), corners.tolist(), strict=True):
        field[x : x + MASK, y : y + MASK] = masks[kind]
    return fields


def carrying(start: Tensor, target: Tensor, reach: float = 18.0, layer: float = 4.0) -> Tensor:
    """Potentials ``(pairs, 16, 63, 63)`` that carry the start to the target's centre at constant speed.

    Around the moving centre ``c`` the potential is that of a uniform flow, ``v_x (y - c_y) - v_y (x - c_x)``; it fades
    beyond ``reach`` cells and in a ``layer`` along the walls.
    """
    inner = torch.arange(1, CELLS, dtype=start.dtype)
    x, y = inner[:, None], inner
    here, there = centre(start), centre(target)
    speed = (there - here) / HORIZON
    fading = -torch.expm1(-((torch.minimum(inner, CELLS - inner) / layer) ** 2))
    steps = []
    for k in range(HORIZON):
        cx, cy = (here + (k + 0.5) * speed)[:, :, None, None].unbind(1)
        vx, vy = speed[:, :, None, None].unbind(1)
        near = torch.exp(-((((x - cx) ** 2 + (y - cy) ** 2) / (2 * reach**2)) ** 2))
        steps.append(near * fading[:, None] * fading * (vx * (y - cy) - vy * (x - cx)))
    return torch.stack(steps, 1)


def centre(field: Tensor) -> Tensor:
    """Centre of mass, ``(pairs, 2)``."""
    places = torch.stack(GRID.centres(field.dtype))
    return torch.einsum("pxy,axy->pa", field, places) / field.sum((1, 2))[:, None]


def marker(state: Mapping[str, Tensor]) -> Tensor:
    """The part of the state that has a target."""
    return state["marker"]


def pushing(start: Tensor, target: Tensor) -> Tensor:
    """Forces in the cell centres that make the flow of :func:`carrying`, ``(pairs, 16, 2, 64, 64)``."""
    potentials = carrying(start, target)
    state = SIMULATOR.start({"marker": start}, {})
    steps = []
    for psi in potentials.unbind(1):
        steps.append(torch.stack(to_centres(SIMULATOR.force(state, psi), GRID), 1))
        state = SIMULATOR.step(state, psi, None, None, 0.0)
    return torch.stack(steps, 1)


def force_squared(state: dict[str, Tensor], control: Tensor, t: float) -> Tensor:
    """``0.5 sum f^2`` over all faces, ``(pairs,)``, of a potential."""
    across, along = SIMULATOR.force(state, control)
    return 0.5 * (across.square().sum((1, 2)) + along.square().sum((1, 2)))


def push_squared(state: dict[str, Tensor], control: Tensor, t: float) -> Tensor:
    """``0.5 sum F^2`` over all cells, ``(pairs,)``, of a force."""
    return 0.5 * control.square().sum((1, 2, 3))


def mass_gained(state: dict[str, Tensor], *, scenario: Mapping[str, Any]) -> Tensor:
    """``(sum s_16 - sum s_0)^2``, ``(pairs,)``."""
    return (marker(state) - marker(scenario["initial_state"])).sum((1, 2)).square()


class Effort:
    """The metric: mean over the steps of ``stage(state, control, t)``, ``(pairs,)``."""

    def __init__(self, stage: Callable[[dict[str, Tensor], Tensor, float], Tensor]) -> None:
        self.stage = stage

    def __call__(self, trajectory: Trajectory, scenario: Mapping[str, Any]) -> Tensor:
        costs = []
        for k in range(HORIZON):
            state = {name: part[k] for name, part in trajectory.states.items()}
            costs.append(self.stage(state, trajectory.controls[k], float(k)))
        return torch.stack(costs).mean(0)


def relative_error(trajectory: Trajectory, scenario: Mapping[str, Any]) -> Tensor:
    """``|s_16 - target|_1 / |s_0 - target|_1``, ``(pairs,)``."""
    states = marker(trajectory.states)
    return distance(states[-1], scenario["target"]) / distance(states[0], scenario["target"])


def mass_change(trajectory: Trajectory, scenario: Mapping[str, Any]) -> Tensor:
    """``|sum s_16 - sum s_0| / sum s_0``, ``(pairs,)``."""
    mass = marker(trajectory.states).sum((2, 3))
    return (mass[-1] - mass[0]).abs() / mass[0]


def floor(trajectory: Trajectory, scenario: Mapping[str, Any]) -> Tensor:
    """The lowest relative error at conserved mass, ``(pairs,)``."""
    start, target = marker(trajectory.states)[0], scenario["target"]
    return (start - target).sum((1, 2)).abs() / distance(start, target)


def distance(first: Tensor, second: Tensor) -> Tensor:
    """Sum of absolute differences, ``(pairs,)``."""
    return (first - second).abs().sum((1, 2))


class Transition:
    """The report's figure: a strip of seven moments for each of a few pairs, close up.

    The thin line is the outline of the target, arrows are the velocity, and the last panel of a row says how far off
    the target it is. Called with a matplotlib figure and a dict, label -> solution.
    """

    def __init__(self, target: Tensor, pairs: int = 4) -> None:
        self.target, self.pairs = target.clone(), min(pairs, len(target))

    def __call__(self, figure: Any, solutions: Mapping[str, Any]) -> None:
        moments = [0, 3, 6, 9, 12, 14, HORIZON]
        each = max(1, self.pairs // len(solutions))
        figure.set_size_inches(11.5, 0.8 + 1.62 * each * len(solutions))
        figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.0, hspace=0.0)
        axes = figure.subplots(each * len(solutions), len(moments), squeeze=False)
        rows = iter(axes)
        for label, solution in solutions.items():
            trajectory = solution.trajectory()
            states = {name: part.cpu() for name, part in trajectory.states.items()}
            errors = relative_error(trajectory, {"target": self.target.to(trajectory.states["marker"])})
            for pair in range(each):
                here = {name: part[:, pair] for name, part in states.items()}
                row = next(rows)
                strip(row, moments, here, self.target[pair].cpu())
                row[0].set_ylabel(label if len(solutions) > 1 else f"pair {pair + 1}")
                row[-1].text(
                    0.96, 0.05, f"{100 * float(errors[pair]):.1f} % off", color="white", fontsize=9,
                    ha="right", transform=row[-1].transAxes,
                )  # fmt: skip
        figure.supxlabel(
            "orange: outline of the target · arrows: velocity · % off: distance to the target over that at the start",
            fontsize=9, color="#6b7485",
        )  # fmt: skip
        for panel, k in zip(axes[0], moments, strict=True):
            panel.set_title(
                "start" if k == 0 else f"step {k}", fontsize=10, fontweight="normal", loc="center"
            )


def strip(row: Any, moments: list[int], states: Mapping[str, Tensor], target: Tensor) -> None:
    """One pair at a few moments: smoke, the target's outline and the velocity, ``x`` to the right, ``y`` upwards."""
    low, high = window(states["marker"][0], target)
    speeds = [at_centres(states, k) for k in moments]
    fastest = max(float(flow.norm(dim=0).max()) for flow in speeds)
    spots = torch.arange(2, CELLS, 4)
    for panel, k, flow in zip(row, moments, speeds, strict=True):
        panel.imshow(
            states["marker"][k].T.numpy(),
            origin="lower",
            cmap="bone",
            vmin=0,
            vmax=1,
            interpolation="bilinear",
        )
        panel.contour(target.T.numpy(), [0.5], colors="#ffb454", linewidths=0.9)
        if fastest > 0:
            u, v = flow[:, spots][:, :, spots].transpose(1, 2).numpy()
            panel.quiver(
                spots.numpy(), spots.numpy(), u, v, color="#8fd3ff", alpha=0.45, pivot="mid", width=0.007,
                angles="xy", scale_units="xy", scale=fastest / 7, minlength=0.4,
            )  # fmt: skip
        panel.set(xticks=[], yticks=[], xlim=(low[0], high[0]), ylim=(low[1], high[1]))
        for spine in panel.spines.values():
            spine.set_visible(False)


def at_centres(states: Mapping[str, Tensor], k: int) -> Tensor:
    """The velocity of the state behind step ``k`` in the cell centres, ``(2, 64, 64)``."""
    faces = tuple(states[name][k][None] for name in ("velocity_x", "velocity_y"))
    return torch.cat(to_centres(faces, GRID))


def window(start: Tensor, target: Tensor, margin: float = 6.0) -> tuple[list[float], list[float]]:
    """Opposite corners of the square that holds both shapes, inside of the box."""
    places = torch.nonzero((start > 0.5) | (target > 0.5)).to(torch.float64)
    first, last = places.amin(0) - margin, places.amax(0) + margin
    width = min(float((last - first).max()), CELLS - 1.0)
    low = [min(max(0.0, float(middle) - width / 2), CELLS - 1.0 - width) for middle in (first + last) / 2]
    return low, [corner + width for corner in low]
