r"""A cylinder in a stream turns back and forth, so that the stream pulls less at it.

The equations, with lengths in diameters, speeds in those of the stream:

    u_t + div(u u) = -grad p + lap u / 100,   div u = 0,   u = Omega x (x - c) on the cylinder

The question: which rates of rotation Omega(t) lower the drag of the cylinder over the horizon, if turning costs as
well?

==============  ========================================================  ==========================================
symbol          value                                                     unit (diameter ``D``, speed of stream ``U``)
==============  ========================================================  ==========================================
``u``           velocity on faces, 10 cells a diameter (small: 8)         ``U``
box             14 x 8 (11 x 7), inflow 1, outflow, free-slip sides       ``D``
``c``           (4, 4) (small: (3, 3.5)), radius 1/2                      ``D``
``C_D``         coefficient of drag, 2 F_x, mean over a time step         1
``Omega``       control, rate of rotation, |Omega| <= 3, held for a step  ``U / D``; at the surface it makes Omega / 2
``dt``          0.05, held for 5 time steps (0.06, 4)                     ``D / U``
``N``           48 steps, 12 units of time (16, 3.8)                      1; the wake sheds every 5.3 units of time
==============  ========================================================  ==========================================

The Reynolds number is 100. Scenes (2; 1 in the small size) begin at random moments of the shedding: the flow around the
cylinder at rest, 40 (14) units of time after the stream has set in and the cylinder was turned once back and forth.

Unknown: the rates, bounded, one sequence for each scene, from zero. Observation: the whole state.

Objective: (1/N) (sum_k C_D(x_k), k = 1 .. N, + w sum_k Omega_k^2), w = ``price``, 0.0125: a fifth of the power that
friction would take from a cylinder that turns in fluid otherwise at rest.

Metrics: ``mean_drag``, mean over the steps; ``drag_ratio``, that over the one without rotation from the same start;
``mean_square_rate``, mean of Omega^2.

Baselines: ``no rotation``; ``constant rotation``, Omega = 2, which lowers the drag in the long run, but raises it
while it sets in; ``sinusoidal``, Omega = sin(2 pi t), five times as fast as the shedding; ``against the wake``, Omega =
2 v, where v is the speed across the stream 1.5 diameters behind the centre: it weakens the shedding.

How far ahead gradients make sense: a vortex street is periodic, not chaotic, so that its derivatives grow no faster
than linearly with time, by the shift of its phase. What a rotation does takes about 5 units of time to get
from the cylinder to the formation of the vortices and back into the drag; shorter horizons see little of it.

Reference: B. Protas, A. Styczek, "Optimal rotary control of the cylinder wake in the laminar regime", Phys. Fluids 14
(2002); J.-W. He et al., "Active control and drag optimization for flow past a circular cylinder", J. Fluid Mech. 411
(2000). No published number for this setup: their domains are larger, their objectives are powers.

Measured here, full size, seed 0:

====================  =========  ==========  ================  =========
law                   mean_drag  drag_ratio  mean_square_rate  objective
====================  =========  ==========  ================  =========
no rotation           1.452      1.000       0                 1.452
constant rotation     1.365      0.940       4.00              1.415
sinusoidal            1.458      1.004       0.50              1.464
against the wake      1.421      0.978       0.14              1.423
``lbfgs``             1.222      0.841       6.06              1.298
====================  =========  ==========  ================  =========

(``LBFGS(iterations=25)``, 30 gradients of each scene.) It turns up to the bound, in the sense that the moment of the
shedding suggests, and slows down before the end, where the drag has no time left to answer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from dpcontrol.engine import Checkpointed, Full, Trajectory, rollout
from dpcontrol.problem import (
    ControlSequence,
    Problem,
    Scenarios,
    UsageError,
    control_problem,
    cost,
    effort,
    scene_generator,
)
from dpcontrol.sim import Disc, Grid, IncompressibleFlow, Inflow, Outflow, Substeps

VISCOSITY, STRONGEST, PRICE = 0.01, 3.0, 0.0125
CELLS = {"full": 10, "small": 8}  # across the diameter
BOX = {"full": (14, 8), "small": (11, 7)}
CENTRE = {"full": (4.0, 4.0), "small": (3.0, 3.5)}
DT = {"full": 0.05, "small": 0.06}
HELD = {"full": 5, "small": 4}
STEPS = {"full": 48, "small": 16}
SCENES = {"full": 2, "small": 1}
SETTLED = {"full": 40.0, "small": 14.0}  # time after which the wake sheds regularly
PERIOD, KICK = 5.3, 4.0  # time of one period of it, and of what sets it off
DEFAULTS = {
    "full": {"strategies": ["baseline", "lbfgs"], "simulated_steps": 40 * 3 * 48 * 2},
    "small": {"strategies": ["baseline", "lbfgs"], "simulated_steps": 15 * 3 * 16},
}
Law = Callable[[Mapping[str, Tensor], float, Mapping[str, Any]], Tensor]


def problem(*, size: str = "full", seed: int = 0, price: float = PRICE) -> Problem:
    """Drag of a rotating cylinder.

    Args:
        size: ``"full"`` (10 cells a diameter, 48 steps, 2 scenes) or ``"small"`` (8, 16, 1).
        seed: draws the moments of the shedding at which the scenes begin.
        price: of the squared rate, zero or more.

    Raises:
        UsageError: for another size or seed, or a negative price.
    """
    generator = scene_generator("cylinder_drag", size, seed)
    if not 0 <= price < math.inf:
        raise UsageError(f"cylinder_drag takes price >= 0 and finite; found {price!r}.")
    simulator = Substeps(cylinder(size), HELD[size])
    steps = STEPS[size]

    def draw(generator: torch.Generator, count: int) -> dict[str, Any]:
        start = wakes(size, PERIOD * torch.rand(count, generator=generator, dtype=torch.float64))
        idle = rollout(simulator, start, length=steps)
        return {"initial_state": start, "idle_drag": drag(idle.states)[1:].mean(0)}

    scenes = draw(generator, SCENES[size])
    return control_problem(
        simulator,
        initial_state=scenes["initial_state"],
        horizon=steps,
        objective=(1 / steps) * (cost(stage=drag_now, terminal=drag) + price * effort()),
        control=ControlSequence(1, low=-STRONGEST, high=STRONGEST, scale=1.0),
        scenarios=Scenarios({"idle_drag": scenes["idle_drag"]}, sampler=draw),
        baselines={
            "no rotation": turning(lambda t: 0.0),
            "constant rotation": turning(lambda t: 2.0),
            "sinusoidal": turning(lambda t: math.sin(2 * math.pi * t)),
            "against the wake": against_the_wake(size),
        },
        metrics={
            "mean_drag": mean_drag,
            "drag_ratio": lambda trajectory, scenario: (
                mean_drag(trajectory, scenario),
                scenario["idle_drag"],
            ),
            "mean_square_rate": lambda trajectory, scenario: trajectory.controls.square().mean((0, 2)),
        },
        plots={"wake": Wake(size, scenes["initial_state"])},
        gradient=Checkpointed() if size == "full" else Full(),
        name="cylinder_drag",
    )


def cylinder(size: str) -> IncompressibleFlow:
    """The flow around it, one time step."""
    along, across = BOX[size]
    cells = CELLS[size]
    sides = ((Inflow(1.0), Outflow()), ("free_slip", "free_slip"))
    grid = Grid((along * cells, across * cells), (float(along), float(across)), sides)
    disc = Disc(CENTRE[size], 0.5)
    return IncompressibleFlow(grid, DT[size], VISCOSITY, bodies=(disc,), controlled="rotation")


def wakes(size: str, phases: Tensor) -> dict[str, Tensor]:
    """States of the regular wake at times ``SETTLED + phases`` after the stream sets in, ``(scenes, ...)``."""
    flow = cylinder(size)
    faces = flow.grid.faces(0)
    stream = {"velocity_x": torch.ones(1, *faces, dtype=torch.float64)}
    moments = torch.round((SETTLED[size] + phases) / flow.dt).long()
    kick = torch.zeros(int(moments.max()), 1, 1, dtype=torch.float64)
    pushes = round(KICK / flow.dt)
    kick[:pushes] = 2.0
    kick[pushes // 2 : pushes] = -2.0
    state = flow.start(stream, parameters_of(flow))
    coefficients = flow.prepare(parameters_of(flow), {})
    wanted: dict[int, dict[str, Tensor]] = {}
    for k in range(len(kick)):
        state = flow.step(state, kick[k], coefficients, None, 0.0)
        if bool((moments == k + 1).any()):
            wanted[k + 1] = state
    found = [wanted[k] for k in moments.tolist()]
    start = {name: torch.cat([one[name] for one in found]) for name in flow.names}
    return {**start, "force": torch.zeros(len(phases), 1, 2, dtype=torch.float64)}


def parameters_of(flow: IncompressibleFlow) -> dict[str, Tensor]:
    """The parameters as tensors."""
    return {name: torch.as_tensor(value, dtype=torch.float64) for name, value in flow.parameters.items()}


def drag(state: Mapping[str, Tensor]) -> Tensor:
    """The coefficient of drag, ``2 F_x / (U^2 D)``, ``(..., scenes)``."""
    return 2 * state["force"][..., 0, 0]


def drag_now(state: Mapping[str, Tensor], control: Tensor, t: float) -> Tensor:
    """The same as a cost of a step: the force over the step before; zero at the start."""
    return drag(state)


def mean_drag(trajectory: Trajectory, scenario: Mapping[str, Any]) -> Tensor:
    """Mean over the steps, ``(scenes,)``."""
    return drag(trajectory.states)[1:].mean(0)


def turning(rate: Callable[[float], float]) -> Law:
    """A law that knows the time only."""

    def law(state: Mapping[str, Tensor], t: float, scenario: Mapping[str, Any]) -> Tensor:
        return torch.full_like(state["force"][:, 0, :1], rate(t))

    return law


def against_the_wake(size: str, gain: float = 2.0, behind: float = 1.5) -> Law:
    """Turn in proportion to the speed across the stream that is seen ``behind`` diameters downstream."""
    cells = CELLS[size]
    column = round((CENTRE[size][0] + behind) * cells)
    middle = BOX[size][1] * cells // 2 - 1

    def law(state: Mapping[str, Tensor], t: float, scenario: Mapping[str, Any]) -> Tensor:
        return (gain * state["velocity_y"][:, column, middle, None]).clamp(-STRONGEST, STRONGEST)

    return law


class Wake:
    """The report's figure: vorticity at the end without and with control, drag and rate over time, first scene.

    Called with a matplotlib figure and a dict, label -> solution.
    """

    def __init__(self, size: str, start: Mapping[str, Tensor]) -> None:
        self.size, self.start = size, {name: part[:1].clone() for name, part in start.items()}

    def __call__(self, figure: Any, solutions: Mapping[str, Any]) -> None:
        shown = dict(list(solutions.items())[:2])
        idle = rollout(Substeps(cylinder(self.size), HELD[self.size]), self.start, length=STEPS[self.size])
        courses = {"no rotation": idle, **{label: one.trajectory() for label, one in shown.items()}}
        grid = figure.add_gridspec(2, 6)
        columns = 6 // len(courses)
        for index, (label, course) in enumerate(courses.items()):
            panel = figure.add_subplot(grid[0, index * columns : (index + 1) * columns])
            self._draw(panel, course, label)
        drags, rates = figure.add_subplot(grid[1, :3]), figure.add_subplot(grid[1, 3:])
        for label, course in courses.items():
            times = course.times.double().cpu().numpy()
            drags.plot(times[1:], drag(course.states)[1:, 0].cpu().numpy(), label=label)
            if course.controls is not None:
                rates.step(times[:-1], course.controls[:, 0, 0].cpu().numpy(), where="post", label=label)
        drags.set(xlabel="time", ylabel="coefficient of drag")
        rates.set(xlabel="time", ylabel="rate of rotation")
        drags.legend()

    def _draw(self, panel: Any, course: Trajectory, label: str) -> None:
        flow = cylinder(self.size)
        last = {name: course.states[name][-1, :1] for name in flow.names}
        field = flow.fields(last)["vorticity"].values[0].T.cpu().numpy()
        (length, height), centre = flow.grid.extent, CENTRE[self.size]
        panel.imshow(field, origin="lower", extent=(0, length, 0, height), cmap="RdBu_r", vmin=-4, vmax=4)
        angle = torch.linspace(0, 2 * math.pi, 60)
        panel.fill(centre[0] + 0.5 * angle.cos().numpy(), centre[1] + 0.5 * angle.sin().numpy(), color="0.3")
        panel.set(title=label, xticks=[], yticks=[])
