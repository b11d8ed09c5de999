"""Measures the cylinder in a channel against the published forces, at several resolutions.

    python tests/benchmarks/channel_cylinder.py            # all: about 20 minutes
    python tests/benchmarks/channel_cylinder.py 20:10 100:20   # Reynolds number : cells across the cylinder

Adds to ``results/channel_cylinder.json``. One thread, float64; seconds are of the process.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
import cylinder

RECORD = Path(__file__).parent / "results" / "channel_cylinder.json"
CASES = ["20:10", "20:20", "20:40", "100:10", "100:20", "100:32", "100:40"]
END = {20: 6.0, 100: 9.0}


def measure(reynolds: int, cells: int) -> dict[str, Any]:
    """One run from rest."""
    before = time.process_time()
    flow = cylinder.channel(reynolds, cells)
    state, forces = cylinder.run(flow, reynolds, END[reynolds])
    row: dict[str, Any] = {
        "cells across": cells,
        "grid": list(flow.grid.cells),
        "dt": flow.dt,
        "steps": len(forces),
    }
    if reynolds == 20:
        row |= {"drag": float(forces[-1, 0]), "lift": float(forces[-1, 1])}
        row |= {"pressure difference": cylinder.pressure_difference(flow, state)}
        row |= {"drag over published": row["drag"] / cylinder.PUBLISHED["20"]["drag"]}
    else:
        row |= cylinder.shedding(forces, flow.dt, reynolds, 2.0)
        row |= {"largest drag over 3.23": row["largest drag"] / 3.23}
    return {**row, "seconds": round(time.process_time() - before)}


if __name__ == "__main__":
    torch.set_num_threads(1)
    record = json.loads(RECORD.read_text()) if RECORD.exists() else {"cases": {}}
    for case in sys.argv[1:] or CASES:
        reynolds, cells = (int(part) for part in case.split(":"))
        with torch.no_grad():
            record["cases"][case] = measure(reynolds, cells)
        print(case, json.dumps(record["cases"][case]), flush=True)
        kept = json.loads(RECORD.read_text())["cases"] if RECORD.exists() else {}
        cases = {**kept, case: record["cases"][case]}
        record = {
            "command": "python tests/benchmarks/channel_cylinder.py",
            "published": cylinder.PUBLISHED,
            "torch": torch.__version__,
            "cases": dict(sorted(cases.items(), key=lambda item: [int(part) for part in item[0].split(":")])),
        }
        RECORD.write_text(json.dumps(record, indent=1) + "\n")
