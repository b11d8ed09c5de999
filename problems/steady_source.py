r"""A plate of metal and insulators, heated so that at rest it has a given temperature.

The equation, on the unit square, with u = 0 on its sides:

    -div(a grad u) = f

The question: which distribution of heating f, with a price on its square, brings the temperature at rest near a given
one, although insulating and highly conducting discs deform the flow of heat?

============  ===============================================================  ==============================
symbol        value                                                            unit (nondimensional)
============  ===============================================================  ==============================
``u``         state, 64 x 64 cells (16 x 16 in the small size)                 temperature
``f``         unknown, in the cells                                            heating
``a``         1; in two discs of each scene 0.02, in one 50                    conductivity
``r``         0.12, radius of a disc, centres U(0.2, 0.8)                      length
``target``    sin(pi x) sin(pi y) / (2 pi^2)                                   temperature
``alpha``     1e-4, price of heating                                           temperature^2 / heating^2
============  ===============================================================  ==============================

With ``discs=False`` the plate is uniform, and the optimum has a closed form: f = sin(pi x) sin(pi y) / (1 + 4 alpha
pi^4), J* = alpha / (8 (1 + 4 alpha pi^4)) = 1.2031e-5. In every case the problem is linear with a convex quadratic
objective: its optimum is unique and can be had from a dense least-squares solver, which is what the tests do.

Unknown: the heating in every cell, one field for each scene (3; 2 in the small size), from zero. No time, no bounds.

Objective: (h^2 / 2) sum (u - target)^2 + (alpha h^2 / 2) sum f^2, h the size of a cell.

Metrics: ``relative_error``, |u - target|^2 / |target|^2; ``heating``, h^2 sum f^2; ``loss_ratio``, loss over that of
f = 0.

Reference: F. Troeltzsch, "Optimal Control of Partial Differential Equations" (2010), section 2.8 (elliptic problems
with distributed control). The closed form is that of the uniform plate; no published number with discs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dpcontrol.engine import Trajectory
from dpcontrol.problem import Parameters, Problem, control_problem, cost, scene_generator
from dpcontrol.sim import Steady, steady_diffusion

ALPHA, RADIUS, INSULATOR, METAL = 1e-4, 0.12, 0.02, 50.0
CELLS = {"full": 64, "small": 16}
SCENES = {"full": 3, "small": 2}
DEFAULTS = {
    "full": {"strategies": ["adjoint", "lbfgs"], "gradients": 1_500},
    "small": {"strategies": ["adjoint", "lbfgs"], "gradients": 400, "seconds": 40.0},
}


def problem(*, size: str = "full", seed: int = 0, discs: bool = True) -> Problem:
    """Steady heating of a plate.

    Args:
        size: ``"full"`` (64 x 64 cells, 3 scenes) or ``"small"`` (16 x 16, 2).
        seed: draws the places of the discs.
        discs: whether there are any.

    Raises:
        UsageError: for another size or seed.
    """
    generator = scene_generator("steady_source", size, seed)
    cells, scenes = CELLS[size], SCENES[size]
    drawn = plates(generator, scenes, cells)
    logarithm = drawn if discs else torch.zeros_like(drawn)
    plate = steady_diffusion((cells, cells))
    zero = torch.zeros(scenes, cells, cells, dtype=torch.float64)

    def solve(parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"temperature": plate.solve(parameters), "heating": parameters["source"]}

    return control_problem(
        Steady(solve, {"source": zero, "log_coefficient": logarithm}),
        initial_state={"temperature": zero, "heating": zero},
        horizon=0,
        objective=cost(terminal=price),
        unknown=Parameters("source", shared=False),
        scenarios={"log_coefficient": logarithm, "target": wanted(cells).expand_as(zero)},
        metrics={
            "relative_error": relative_error,
            "heating": lambda trajectory, scenario: mean_square(trajectory.states["heating"][-1]),
            "loss_ratio": lambda trajectory, scenario: (
                price(_last(trajectory), scenario=scenario),
                0.5 * mean_square(scenario["target"]),
            ),
        },
        plots={"plates": Picture(logarithm)},
        name="steady_source",
    )


def centres(cells: int) -> tuple[Tensor, Tensor]:
    """Coordinates of the cells, ``(cells, cells)`` each."""
    row = (torch.arange(cells, dtype=torch.float64) + 0.5) / cells
    x, y = torch.meshgrid(row, row, indexing="ij")
    return x, y


def wanted(cells: int) -> Tensor:
    """The target."""
    x, y = centres(cells)
    return torch.sin(math.pi * x) * torch.sin(math.pi * y) / (2 * math.pi**2)


def plates(generator: torch.Generator, count: int, cells: int) -> Tensor:
    """``ln a`` of ``count`` plates, ``(count, cells, cells)``; a later disc lies on top of an earlier one."""
    x, y = centres(cells)
    places = 0.2 + 0.6 * torch.rand(count, 3, 2, generator=generator, dtype=torch.float64)
    found = torch.zeros(count, cells, cells, dtype=torch.float64)
    for disc, value in enumerate((INSULATOR, METAL, INSULATOR)):
        place = places[:, disc, :, None, None]
        inside = (x - place[:, 0]).square() + (y - place[:, 1]).square() < RADIUS**2
        found = torch.where(inside, math.log(value), found)
    return found


def mean_square(field: Tensor) -> Tensor:
    """``h^2 sum u^2``, ``(scenes,)``."""
    return field.square().mean((-2, -1))


def price(state: Mapping[str, Tensor], *, scenario: Mapping[str, Any]) -> Tensor:
    """The objective of a state at rest."""
    away = state["temperature"] - scenario["target"]
    return 0.5 * mean_square(away) + 0.5 * ALPHA * mean_square(state["heating"])


def relative_error(trajectory: Trajectory, scenario: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Squared distance from the target, and the target's squared size, each ``(scenes,)``."""
    target = scenario["target"]
    return mean_square(_last(trajectory)["temperature"] - target), mean_square(target)


def _last(trajectory: Trajectory) -> dict[str, Tensor]:
    return {name: leaf[-1] for name, leaf in trajectory.states.items()}


class Picture:
    """The figure: of the first scene the plate, what heats it, and the temperature with the target's levels."""

    def __init__(self, logarithm: Tensor) -> None:
        self.logarithm = logarithm

    def __call__(self, figure: Any, solutions: Mapping[str, Any]) -> None:
        figure.set_size_inches(9.5, 0.3 + 3.0 * len(solutions))
        around = (0, 1, 0, 1)
        plate = self.logarithm[0].T.cpu().numpy()
        target = wanted(len(plate)).T.numpy()
        levels = [float(target.max()) * part for part in (0.25, 0.5, 0.75)]
        for row, (label, solution) in zip(
            figure.subplots(len(solutions), 3, squeeze=False), solutions.items(), strict=True
        ):
            last = {name: leaf[0].T.cpu().numpy() for name, leaf in _last(solution.trajectory()).items()}
            shown = (
                ("conductivity, ln a", plate, "BrBG"),
                ("heating f", last["heating"], "magma"),
                ("temperature u, levels of the target", last["temperature"], "inferno"),
            )
            for panel, (title, field, colours) in zip(row, shown, strict=True):
                image = panel.imshow(field, origin="lower", extent=around, cmap=colours)
                figure.colorbar(image, ax=panel, shrink=0.8)
                panel.set_title(title, fontsize=9, loc="left")
                panel.set_xticks([])
                panel.set_yticks([])
                if abs(plate).max() > 0:
                    panel.contour(plate, [-1.0, 1.0], extent=around, colors="white", linewidths=0.8)
            row[-1].contour(target, levels, extent=around, colors="#7fd4ff", linewidths=0.8)
            row[0].set_ylabel(label)
