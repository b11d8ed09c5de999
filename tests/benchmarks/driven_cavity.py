"""Measures the lid-driven cavity against the published profiles, at several resolutions.

    python tests/benchmarks/driven_cavity.py

Writes ``results/driven_cavity.json`` (about five minutes). One thread; seconds are of the process.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from cavity import GHIA, SPECTRAL, against_ghia

RESULTS = Path(__file__).parent / "results"
CASES = [(100, 32, 20.0), (100, 64, 20.0), (400, 32, 40.0), (400, 64, 40.0), (400, 128, 40.0)]
CASES += [(1000, 64, 80.0), (1000, 128, 80.0), (1000, 192, 80.0)]

if __name__ == "__main__":
    torch.set_num_threads(1)
    rows = []
    for case in CASES:
        before = time.process_time()
        rows.append({**against_ghia(*case), "seconds": round(time.process_time() - before, 1)})
        print(json.dumps(rows[-1]), flush=True)
    record = {
        "command": "python tests/benchmarks/driven_cavity.py",
        "source": GHIA["source"],
        "unit": "speed of the lid; the published values at Reynolds number 100 are themselves off by up to 0.008",
        "spectral extrema (Botella, Peyret 1998)": SPECTRAL[1000],
        "torch": torch.__version__,
        "cases": rows,
    }
    (RESULTS / "driven_cavity.json").write_text(json.dumps(record, indent=1) + "\n")
