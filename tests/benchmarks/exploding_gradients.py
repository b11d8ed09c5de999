"""Controllers trained through a simulator whose gradients explode: the whole horizon, windows, a curriculum, a value.

    python tests/benchmarks/exploding_gradients.py

The kicked rotor (``tests/strategies/kicked_rotor.py``): 60 kicks, each of which multiplies a gradient by 1.8. All
methods have the same network, the same batch and the same number of simulated steps, gradients charged.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "strategies"))

from kicked_rotor import kicked_rotor

from dpcontrol.meter import Budget
from dpcontrol.problem import gradient_growth
from dpcontrol.run import Strategy, run
from dpcontrol.strategies.learning.actor_critic import ActorCritic
from dpcontrol.strategies.learning.policy import LearnedPolicy

RECORD = Path(__file__).parent / "results" / "exploding_gradients.json"
STEPS, SEEDS = 2_000_000, 3
BATCHES: dict[str, Any] = {"batch": 64, "validation": 128, "validate_every": 20}
METHODS: dict[str, Strategy] = {
    "policy": LearnedPolicy(**BATCHES, width=64),
    "policy, window 5": LearnedPolicy(**BATCHES, width=64, window=5),
    "policy, curriculum from 5": LearnedPolicy(**BATCHES, width=64, curriculum=5),
    "shac, window 5": ActorCritic(**BATCHES, width=64, window=5),
}


def main() -> None:
    torch.set_num_threads(1)
    problem = kicked_rotor()
    record = {
        "command": "python tests/benchmarks/exploding_gradients.py",
        "torch": torch.__version__,
        "simulated_steps": STEPS,
        "gradients": str(gradient_growth(problem)),
        "uncontrolled": float(problem.loss(problem.start()).mean()),
        "runs": [],
        "summary": {},
    }
    if RECORD.exists():
        record = json.loads(RECORD.read_text())
    for seed in range(SEEDS):
        for name, strategy in METHODS.items():
            if any((one["method"], one["seed"]) == (name, seed) for one in record["runs"]):
                continue
            began = time.process_time()
            found = run(problem, strategy, budget=Budget(simulated_steps=STEPS), seed=seed)
            record["runs"].append(
                {
                    "method": name,
                    "seed": seed,
                    "loss": found.loss,
                    "cpu_seconds": time.process_time() - began,
                    "configuration": found.configuration,
                    "status": found.status.sentence,
                    "validation": [list(found.history["simulated_steps"]), list(found.history["loss"])],
                }
            )
            losses = [one["loss"] for one in record["runs"] if one["method"] == name]
            record["summary"][name] = {"losses": losses, "mean": sum(losses) / len(losses)}
            RECORD.write_text(json.dumps(record, indent=1) + "\n")
            print(seed, name, round(found.loss, 2), flush=True)


if __name__ == "__main__":
    main()
