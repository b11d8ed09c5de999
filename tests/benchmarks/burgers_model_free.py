"""``ppo``, ``sac``, ``evolved_policy`` on forced Burgers: counted tuning trials, then as many steps as time allows.

    python tests/benchmarks/burgers_model_free.py tune      # eight trials each: results/burgers_model_free_tuning.json
    python tests/benchmarks/burgers_model_free.py curves    # the best of each: results/burgers_model_free.json

A trial is one run with one seed, and is chosen by its loss on validation scenes drawn from the distribution; the 100
scenes of the problem are held out. Same network, observation, laws and validation as ``policy``, whose trials (sixteen,
of thirty CPU seconds each) are in ``results/burgers_policy_tuning.json``. Curves have the mean effort over validation
scenes and, at the end, the ratio of efforts on the held-out scenes. Both go on where they stopped. One thread; seconds
are CPU seconds of this process.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from dpcontrol.problems import burgers

from dpcontrol.meter import Budget
from dpcontrol.run import run
from dpcontrol.strategies.evolving.evolved_policy import EvolvedPolicy
from dpcontrol.strategies.learning.ppo_sac import PPO, SAC

RESULTS = Path(__file__).parent / "results"
POLICY = RESULTS / "burgers_policy.json"
TUNING, CURVES = RESULTS / "burgers_model_free_tuning.json", RESULTS / "burgers_model_free.json"
CLASSES: dict[str, type[Any]] = {"ppo": PPO, "sac": SAC, "evolved_policy": EvolvedPolicy}
# ten to forty CPU seconds each; validation is paid for like everything else (a third of PPO's, a half of SAC's trials)
TRIAL_STEPS = {"ppo": 300_000, "sac": 40_000, "evolved_policy": 1_000_000}
# what curves are made of: the best of the trials with some options changed, and the simulated steps that it gets
LARGE = {"environments": 1024, "epochs": 10, "minibatches": 32}
LONG: dict[str, tuple[str, dict[str, Any], int]] = {
    "ppo": ("ppo", {}, 5_000_000),
    "ppo, large batches": ("ppo", LARGE, 30_000_000),
    "sac, an update every 20 steps": ("sac", {"environments": 20, "updates": 0.05}, 3_000_000),
    "evolved_policy": ("evolved_policy", {}, 50_000_000),
}
SEEDS = 3
LAW, LINE = {"base": "look ahead", "reach": 1.0}, {"base": "straight line", "reach": 1.0}
PPO_OWN = {
    "environments": 128, "rollout": 31, "minibatches": 16, "learning_rate": 1e-3, "schedule": "cosine", "discount": 1.0,
}  # fmt: skip
SAC_OWN = {
    "environments": 32, "updates": 0.5, "warmup": 2000, "learning_rate": 1e-3, "schedule": "cosine", "discount": 1.0,
}  # fmt: skip
TRIALS: dict[str, list[dict[str, Any]]] = {
    "ppo": [
        {},
        {**PPO_OWN, **LAW},
        {**PPO_OWN, **LAW, "spread": -1.6},
        {**PPO_OWN, **LINE},
        {**PPO_OWN, **LINE, "reach": 2.0},
        {**PPO_OWN, **LINE, "state_noise": 31},
        {**PPO_OWN, **LINE, "learning_rate": 3e-4, "environments": 64},
        {**PPO_OWN, "reach": 2.0},
    ],
    "sac": [
        {},
        {**SAC_OWN, **LAW, "entropy": -2.5},
        {**SAC_OWN, **LINE},
        {**SAC_OWN, **LINE, "entropy": -2.5},
        {**SAC_OWN, **LINE, "entropy": -2.5, "reach": 2.0},
        {**SAC_OWN, **LINE, "entropy": -2.5, "discount": 0.97},
        {**SAC_OWN, **LINE, "entropy": -2.5, "learning_rate": 3e-4},
        {**SAC_OWN, "entropy": -2.0, "reach": 2.0},
    ],
    "evolved_policy": [
        {},
        {"base": "look ahead"},
        {"base": "straight line"},
        {"base": "straight line", "sigma": 0.02, "learning_rate": 0.005},
        {"base": "straight line", "sigma": 0.1},
        {"base": "straight line", "population": 128, "batch": 8},
        {"base": "straight line", "search": "separable", "sigma": 0.02},
        {"base": "look ahead", "sigma": 0.02, "learning_rate": 0.005},
    ],
}


def learned(name: str, options: dict[str, Any], steps: int, seed: int) -> dict[str, Any]:
    """One run: what it came to, and its curve."""
    # environment steps, or generations
    every = {"ppo": steps // 25, "sac": steps // 20, "evolved_policy": max(10, steps // 500_000)}[name]
    strategy = CLASSES[name](**options, validate_every=every)
    began = time.process_time()
    solution = run(burgers.problem(), strategy, seed=seed, budget=Budget(simulated_steps=steps))
    history = solution.history
    rows = zip(history["simulated_steps"], history["latest"], strict=True)
    return {
        "strategy": name,
        "options": options,
        "seed": seed,
        "simulated steps": solution.counts.simulated_steps,
        "validation loss": history["loss"][-1],
        "effort ratio": solution.metrics["effort_ratio"],
        "status": solution.status.kind,
        "failures": solution.counts.failures,
        "cpu seconds": round(time.process_time() - began, 1),
        "curve": [[steps, round(loss, 2)] for steps, loss in rows],
    }


def steps_of_policy(ratio: float) -> float | None:
    """Simulated steps after which ``policy`` was at an effort ratio, the mean of its recorded seeds.

    Its curve is that of its validation scenes, scaled to end at the ratio of the held-out ones. ``None`` without a
    record, or where it never was there.
    """
    if not POLICY.exists():
        return None
    found = []
    for entry in json.loads(POLICY.read_text())["runs"]:
        if entry["policy"] == "policy, base straight line":
            steps, losses = entry["validation"]
            end = entry["scenes"]["held out"]["effort_ratio"]
            found += [k for k, loss in zip(steps, losses, strict=True) if loss / losses[-1] * end <= ratio][
                :1
            ]
    return sum(found) / len(found) if found else None


def caught_up(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of every run: what it reached, after how many steps, and how many ``policy`` took to be there."""
    rows = []
    for entry in runs:
        steps, theirs = entry["simulated steps"], steps_of_policy(entry["effort ratio"])
        rows.append(
            {
                "strategy": entry["strategy"],
                "effort ratio": round(entry["effort ratio"], 4),
                "simulated steps": steps,
                "policy was there after": theirs,
                "factor": None if theirs is None else round(steps / theirs, 1),
            }
        )
    return rows


def read(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text())["runs"] if path.exists() else []


def tune(names: list[str]) -> None:
    """Every trial that the log does not have yet."""
    runs = read(TUNING)
    for name in names:
        for options in TRIALS[name]:
            if any(entry["strategy"] == name and entry["options"] == options for entry in runs):
                continue
            runs.append(learned(name, options, TRIAL_STEPS[name], seed=100))
            print(json.dumps({key: runs[-1][key] for key in runs[-1] if key != "curve"}), flush=True)
            write(TUNING, "tune", runs, {"trials": {key: len(value) for key, value in TRIALS.items()}})


def chosen(name: str) -> dict[str, Any]:
    """The options of the best trial."""
    own = [entry for entry in read(TUNING) if entry["strategy"] == name]
    best: dict[str, Any] = min(own, key=lambda entry: entry["validation loss"])["options"]
    return best


def curves(names: list[str]) -> None:
    """Long runs with the options that tuning chose, or some of them changed for patience."""
    runs = read(CURVES)
    for seed in range(SEEDS):
        for label, (name, changed, steps) in LONG.items():
            if label not in names or any(
                entry["strategy"] == label and entry["seed"] == seed for entry in runs
            ):
                continue
            runs.append({**learned(name, chosen(name) | changed, steps, seed), "strategy": label})
            print(json.dumps({key: runs[-1][key] for key in runs[-1] if key != "curve"}), flush=True)
            write(CURVES, "curves", runs, {})


def write(path: Path, what: str, runs: list[dict[str, Any]], more: dict[str, Any]) -> None:
    """The record, with the factor of steps at which ``policy`` was as good."""
    command = f"python tests/benchmarks/burgers_model_free.py {what}"
    path.write_text(
        json.dumps({"command": command, **more, "beside policy": caught_up(runs), "runs": runs}, indent=1)
        + "\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["tune", "curves"])
    parser.add_argument("--only", nargs="*", metavar="NAME", help="some strategies, or curves, of all")
    given = parser.parse_args()
    torch.set_num_threads(1)
    work, known = {"tune": (tune, list(CLASSES)), "curves": (curves, list(LONG))}[given.what]
    names = given.only or known
    if not set(names) <= set(known):
        parser.error(
            f"--only must name some of {', '.join(map(repr, known))}; found {', '.join(map(repr, names))}"
        )
    work(names)


if __name__ == "__main__":
    main()
