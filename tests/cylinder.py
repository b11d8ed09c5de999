"""The cylinder in a channel of Schaefer and Turek; for tests and for the script that records it."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from dpcontrol.sim import Disc, Grid, IncompressibleFlow, Inflow, NoSlip, Outflow
from dpcontrol.sim.flow_profiles import line

F64 = torch.float64
HEIGHT, DIAMETER, NU = 0.41, 0.1, 1e-3
PEAK = {20: 0.3, 100: 1.5}  # of the inflow, at each Reynolds number
FASTEST = {20: 0.45, 100: 2.2}  # speed in the flow, for the time step
PUBLISHED = {
    "source": "M. Schaefer, S. Turek, Benchmark computations of laminar flow around a cylinder (1996)",
    "20": {"drag": 5.5795, "lift": 0.010619, "pressure difference": 0.11752},
    "100": {"largest drag": [3.22, 3.24], "Strouhal number": [0.295, 0.305]},
}


def channel(reynolds: int, cells: int, courant: float = 0.8) -> IncompressibleFlow:
    """The channel with ``cells`` cells across the cylinder."""
    h, peak = DIAMETER / cells, PEAK[reynolds]
    across = round(HEIGHT / h)
    along = round(2.2 / h)

    def parabola(y: Tensor) -> Tensor:
        return 4 * peak * y * (HEIGHT - y) / HEIGHT**2

    sides = ((Inflow(parabola), Outflow()), (NoSlip(), NoSlip()))
    dt = min(courant * h / FASTEST[reynolds], 2.4 * h**2 / (8 * NU))
    disc = Disc((0.2, 0.2), DIAMETER / 2)
    return IncompressibleFlow(
        Grid((along, across), (along * h, HEIGHT), sides), dt, viscosity=NU, bodies=(disc,)
    )


def coefficients_of(flow: IncompressibleFlow) -> dict[str, Any]:
    values = {name: torch.as_tensor(value, dtype=F64) for name, value in flow.parameters.items()}
    return flow.prepare(values, {})


def rest(flow: IncompressibleFlow) -> dict[str, Tensor]:
    values = {name: torch.as_tensor(value, dtype=F64) for name, value in flow.parameters.items()}
    return flow.start({"velocity_x": torch.zeros(1, *flow.grid.faces(0), dtype=F64)}, values)


def run(flow: IncompressibleFlow, reynolds: int, time: float) -> tuple[dict[str, Tensor], Tensor]:
    """The last state, and the coefficients of drag and lift after each step, ``(steps, 2)``."""
    coefficients, state = coefficients_of(flow), rest(flow)
    mean = 2 / 3 * PEAK[reynolds]
    found = []
    for _ in range(round(time / flow.dt)):
        state = flow.step(state, None, coefficients, None, 0.0)
        found.append(state["force"][0, 0] * (2 / (mean**2 * DIAMETER)))
    return state, torch.stack(found)


def pressure_difference(flow: IncompressibleFlow, state: dict[str, Tensor]) -> float:
    """Between the front and the back of the cylinder, each extrapolated from two to five cells off the surface."""
    pressure, _ = flow.pressure(state, None, coefficients_of(flow))
    grid = flow.grid
    x, y = (grid.places(None, axis) for axis in (0, 1))
    row = line(pressure[0], y, [0.2])[:, 0]
    ends = []
    for place, side in ((0.15, -1), (0.25, 1)):
        near = torch.tensor([place + side * k * grid.spacing[0] for k in (2, 3, 4, 5)], dtype=F64)
        values = line(row[None], x, near.tolist())[0]
        order = torch.argsort(near)
        nodes, values = near[order], values[order]
        ends.append(float(line(values[None], nodes, [place])))
    return ends[0] - ends[1]


def shedding(forces: Tensor, dt: float, reynolds: int, time: float) -> dict[str, float]:
    """Figures over the last ``time``: largest drag, largest lift, Strouhal number from upward crossings of the lift."""
    tail = forces[-round(time / dt) :]
    lift = tail[:, 1] - tail[:, 1].mean()
    up = torch.nonzero((lift[:-1] < 0) & (lift[1:] >= 0))[:, 0]
    moments = (up + lift[up] / (lift[up] - lift[up + 1])) * dt
    period = float((moments[-1] - moments[0]) / (len(moments) - 1)) if len(moments) > 1 else math.nan
    mean = 2 / 3 * PEAK[reynolds]
    return {
        "largest drag": float(tail[:, 0].max()),
        "smallest drag": float(tail[:, 0].min()),
        "largest lift": float(tail[:, 1].max()),
        "Strouhal number": DIAMETER / (period * mean),
        "periods": len(moments) - 1,
    }
