"""Gradients that lbfgs needs for an initial temperature on finer and finer meshes, in white and in plain numbers.

    python tests/benchmarks/field_refinement.py

The problem is ``tests/refined_heat.py``: 144 readings of 24 thermometers, the same for all meshes; a prior of Matern
kind with a tenth of the box as length scale. Counted until minus the log-density is within 0.01 of the lowest that was
found; ``null`` where 4,000 gradients were not enough. Writes ``results/field_refinement.json`` (about five minutes).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from refined_heat import gradients_needed, inferred, initial_temperature

RESULTS = Path(__file__).parent / "results"

if __name__ == "__main__":
    torch.set_num_threads(1)
    rows = []
    for smoothness in (0.5, 1.5, 2.5):
        for cells in (32, 64, 128, 256, 512):
            white, plain = (
                inferred(initial_temperature(cells, white=white, smoothness=smoothness))
                for white in (True, False)
            )
            lowest = min(white.loss, plain.loss)
            rows.append(
                {
                    "smoothness": smoothness,
                    "cells": cells,
                    "white": gradients_needed(white, lowest),
                    "plain": gradients_needed(plain, lowest),
                }
            )
            print(json.dumps(rows[-1]), flush=True)
    record = {
        "command": "python tests/benchmarks/field_refinement.py",
        "unit": "gradients until minus the log-density is within 0.01 of the lowest found; null: not in 4,000",
        "torch": torch.__version__,
        "cases": rows,
    }
    (RESULTS / "field_refinement.json").write_text(json.dumps(record, indent=1) + "\n")
