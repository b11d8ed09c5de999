"""How many scenes an iteration of ``policy`` should have, on the published Burgers scenes.

    python tests/benchmarks/burgers_batches.py     # about eight CPU minutes; goes on where it stopped

``policy`` with its defaults (no law to correct) but for the batch, and validations on 64 scenes as often as they cost a
twentieth of the budget; judged on the 100 held-out scenes. Nothing was chosen by these scenes but the default. Writes
``results/burgers_batches.json``. One thread; seconds are CPU seconds of this process, on a machine shared with other
work.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import torch
from dpcontrol.problems import burgers

from dpcontrol.meter import Budget
from dpcontrol.run import run
from dpcontrol.strategies import LearnedPolicy

RECORD = Path(__file__).parent / "results" / "burgers_batches.json"
BATCHES, SEEDS = (8, 16, 32, 64), {400_000: 3, 2_000_000: 2}
VALIDATION, SHARE = 64, 0.05


def trained(batch: int, steps: int, seed: int) -> dict[str, Any]:
    """One training."""
    every = round(VALIDATION / (2 * batch * SHARE))  # a gradient costs two steps for one
    strategy = LearnedPolicy(batch=batch, validation=VALIDATION, validate_every=every)
    began = time.process_time()
    found = run(burgers.problem(), strategy, budget=Budget(simulated_steps=steps), seed=seed)
    return {
        "batch": batch,
        "steps": steps,
        "seed": seed,
        "effort ratio": found.metrics["effort_ratio"],
        "cpu seconds": round(time.process_time() - began, 1),
        "status": found.status.kind,
    }


def main() -> None:
    torch.set_num_threads(1)
    runs = json.loads(RECORD.read_text())["runs"] if RECORD.exists() else []
    for steps, seeds in SEEDS.items():
        for seed in range(seeds):
            for batch in BATCHES:
                if any((one["batch"], one["steps"], one["seed"]) == (batch, steps, seed) for one in runs):
                    continue
                runs.append(trained(batch, steps, seed))
                print(json.dumps(runs[-1]), flush=True)
                record = {"command": "python tests/benchmarks/burgers_batches.py", "runs": runs}
                RECORD.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
