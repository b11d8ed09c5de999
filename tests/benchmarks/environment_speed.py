"""Scenario-steps per second of the batched ``VecEnv`` on forced Burgers, against ``DummyVecEnv`` over single ones.

    python tests/benchmarks/environment_speed.py

Both step the same 32-cell problem through the same Stable-Baselines3 interface (numpy in, numpy out, resets included)
with the same random actions; the learner is left out. Rounds of all contenders take turns, the least CPU time counts.
One thread. Writes ``results/environment_speed.json``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from dpcontrol.problems import burgers

from dpcontrol.environments import gymnasium_env, vec_env

RECORD = Path(__file__).parent / "results" / "environment_speed.json"
BATCHES, SINGLES = (1, 8, 64, 256, 1024, 4096), (1, 8, 64)
ROUNDS, LEAST_SECONDS = 5, 0.3


def contenders() -> dict[tuple[str, int], Any]:
    """Name and number of environments -> the vectorised environment."""
    from stable_baselines3.common.vec_env import DummyVecEnv

    problem = burgers.problem()
    found: dict[tuple[str, int], Any] = {("batched", count): vec_env(problem, count) for count in BATCHES}
    for count in SINGLES:
        makers: list[Callable[[], Any]] = [
            lambda seed=seed: gymnasium_env(problem, seed=seed) for seed in range(count)
        ]
        found["DummyVecEnv", count] = DummyVecEnv(makers)
    return found


def rate(env: Any, actions: np.ndarray) -> float:
    """Scenario-steps per CPU second, whole episodes."""
    env.reset()
    steps, began = 0, time.process_time()
    while time.process_time() - began < LEAST_SECONDS:
        for _ in range(burgers.HORIZON - 1):
            env.step(actions)
        steps += (burgers.HORIZON - 1) * len(actions)
    return steps / (time.process_time() - began)


def main() -> None:
    torch.set_num_threads(1)
    envs = contenders()
    random = np.random.default_rng(0)
    actions = {key: random.uniform(-0.1, 0.1, (key[1], burgers.CELLS)).astype(np.float32) for key in envs}
    best = dict.fromkeys(envs, 0.0)
    for _ in range(ROUNDS):
        for key, env in envs.items():
            best[key] = max(best[key], rate(env, actions[key]))
    table = [
        {"environment": name, "episodes at once": count, "scenario-steps per cpu second": round(value)}
        for (name, count), value in best.items()
    ]
    fastest = max(value for (name, _), value in best.items() if name == "batched")
    peer = max(value for (name, _), value in best.items() if name != "batched")
    record = {
        "command": "python tests/benchmarks/environment_speed.py",
        "threads": 1,
        "cells": burgers.CELLS,
        "table": table,
        "fastest batched over fastest DummyVecEnv": round(fastest / peer, 1),
    }
    RECORD.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
