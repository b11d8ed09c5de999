"""The lid-driven cavity, compared with the published profiles; for tests and for the script that records them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from dpcontrol.sim import Grid, IncompressibleFlow, NoSlip
from dpcontrol.sim.flow_profiles import line

F64 = torch.float64
# O. Botella, R. Peyret, Computers & Fluids 27 (1998) 421: Chebyshev collocation, seven digits. At Reynolds number 1000
# the older table differs from it by up to 0.019 near the wall at x = 1 (v at x = 0.9453: -0.392, there -0.410).
SPECTRAL = {1000: {"least u": -0.3885698, "least v": -0.5270771, "largest v": 0.3769447}}
GHIA = json.loads((Path(__file__).parent / "data" / "lid_driven_cavity.json").read_text())


def against_ghia(reynolds: int, cells: int, time: float) -> dict[str, Any]:
    """Largest differences of both centre lines from the published ones, in units of the lid's speed.

    ``cells`` is even: then faces lie on the centre lines.
    """
    wall = NoSlip()
    grid = Grid((cells, cells), (1.0, 1.0), ((wall, wall), (wall, NoSlip(1.0))))
    dt = min(1.2 / cells, 2.4 * reynolds / (8 * cells**2))
    flow = IncompressibleFlow(grid, dt, viscosity=1 / reynolds)
    parameters = {name: torch.as_tensor(value, dtype=F64) for name, value in flow.parameters.items()}
    coefficients = flow.prepare(parameters, {})
    state = flow.start({"velocity_x": torch.zeros(1, *grid.faces(0), dtype=F64)}, parameters)
    before, steps = state, round(time / dt)
    for _ in range(steps):
        before, state = state, flow.step(state, None, coefficients, None, 0.0)
    change = max(float((state[name] - before[name]).abs().max()) for name in flow.names) / dt
    fine = torch.linspace(0, 1, 2001).tolist()
    middle = cells // 2 - 1
    ends = torch.tensor([0.0, 1.0], dtype=F64)
    places = torch.cat((ends[:1], grid.places(None, 0), ends[1:]))
    u = torch.cat((ends[:1], state["velocity_x"][0, middle], ends[1:]))
    v = torch.cat((ends[:1], state["velocity_y"][0, :, middle], ends[:1]))
    across = line(u, places, GHIA["y"]) - torch.tensor(GHIA["u_at_x_half"][str(reynolds)], dtype=F64)
    along = line(v, places, GHIA["x"]) - torch.tensor(GHIA["v_at_y_half"][str(reynolds)], dtype=F64)
    if reynolds == 400:
        along[GHIA["x"].index(0.9063)] = 0.0  # a misprint of the source
    return {
        "Reynolds number": reynolds,
        "cells": cells,
        "dt": dt,
        "steps": steps,
        "largest difference of u": float(across.abs().max()),
        "largest difference of v": float(along.abs().max()),
        "largest difference of v, x < 0.9": float(along[torch.tensor(GHIA["x"]) < 0.9].abs().max()),
        "extrema": {
            "least u": float(line(u, places, fine).min()),
            "least v": float(line(v, places, fine).min()),
            "largest v": float(line(v, places, fine).max()),
        },
        "largest change over time at the end": change,
    }
