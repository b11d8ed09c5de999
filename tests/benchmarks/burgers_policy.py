"""``policy`` on the published Burgers scenes, against the optimum of each scene.

    python tests/benchmarks/burgers_policy.py                 # all runs that the record does not have yet
    python tests/benchmarks/burgers_policy.py --seeds 2       # fewer seeds
    python tests/benchmarks/burgers_policy.py --picture       # draw the learning curves of the record

Trained on fresh scenes only and judged on the 100 scenes of ``burgers`` (seed 0), which are held out, on 100 others
and on scenes from outside of the distribution; always beside ``lbfgs``, which solves every scene by itself. Budgets are
simulated steps; CPU seconds of the process (one thread) are recorded beside them. The record holds the tuning trials
that were made before, ``results/burgers_policy_tuning.json`` what they found.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from dpcontrol.problems import burgers

import dpcontrol as dp
from dpcontrol.meter import Budget
from dpcontrol.problem import Problem, Scenarios
from dpcontrol.run import run
from dpcontrol.strategies.learning.policy import LearnedPolicy

HERE = Path(__file__).parent / "results"
RECORD, PICTURE = HERE / "burgers_policy.json", HERE / "burgers_policy.png"
PUBLISHED = {"network trained through the physics, 2.4 h": 1.27, "PPO, 18 h": 1.31}  # force ratios
BATCHES = {"batch": 64, "validation": 128, "validate_every": 20}
POLICIES = {  # with simulated steps
    "policy, base straight line": (LearnedPolicy(base="straight line", **BATCHES), 3_000_000),
    "policy": (LearnedPolicy(**BATCHES), 8_000_000),
}


def scene_sets() -> dict[str, Problem]:
    """The scenes to be judged on: the problem's own, others, and three sets from outside of the distribution."""
    whole = burgers.problem()
    return {
        "held out": whole,
        "held out, others": burgers.problem(seed=1),
        "larger waves": with_scenes(whole, height=(3.0, 4.0)),
        "moved waves": with_scenes(whole, left=(0.05, 0.2), right=(0.8, 0.95)),
        "narrower waves": with_scenes(whole, width=(0.03, 0.05)),
    }


def with_scenes(
    problem: Problem,
    height: tuple[float, float] = (0.0, 3.0),
    left: tuple[float, float] = (0.2, 0.4),
    right: tuple[float, float] = (0.6, 0.8),
    width: tuple[float, float] = (0.05, 0.15),
) -> Problem:
    """The problem on 100 scenes whose initial waves come from other ranges; the forces are those of its scenes."""
    generator = torch.Generator().manual_seed(2026)
    x = (torch.arange(burgers.CELLS, dtype=torch.float64) + 0.5) / burgers.CELLS
    count = problem.scenarios.count

    def uniform(low: float, high: float) -> torch.Tensor:
        return low + (high - low) * torch.rand(count, 1, generator=generator, dtype=torch.float64)

    def wave(centre: tuple[float, float], sign: float) -> torch.Tensor:
        centres, heights, widths = uniform(*centre), uniform(*height), uniform(*width)
        return sign * heights * torch.exp(-((x - centres) ** 2) / (2 * widths**2))

    start, force = wave(left, 1.0) + wave(right, -1.0), problem.scenarios.data["force"]
    forces = force.expand(burgers.HORIZON, *force.shape)
    end = dp.rollout(burgers.SIMULATOR, start, forces).states[-1]
    return problem.with_scenarios(Scenarios({"initial_state": start, "target": end, "force": force}))


def per_scene(problem: Problem) -> dict[str, Any]:
    """``lbfgs`` on every scene, and what it takes: CPU seconds, gradients, and the way there."""
    began = time.process_time()
    found = dp.solve(problem, "lbfgs", iterations=150)
    seconds = time.process_time() - began
    count = problem.scenarios.count
    return {
        "effort": found.loss,
        "effort_ratio": found.metrics["effort_ratio"],
        "force_ratio": found.metrics["force_ratio"],
        "cpu_seconds_per_scene_together": seconds / count,
        "gradients_per_scene": found.counts.gradients / count,
        "way": [
            [g / count, loss]
            for g, loss in zip(found.history["gradients"], found.history["loss"], strict=True)
        ],
    }


def alone(problem: Problem, scenes: int = 5) -> float:
    """CPU seconds that ``lbfgs`` takes for a scene by itself, as when scenes come one after the other."""
    seconds = []
    for i in range(scenes):
        one = problem.with_scenarios(Scenarios(problem.scenarios.take(torch.tensor([i]))))
        began = time.process_time()
        dp.solve(one, "lbfgs", iterations=150)
        seconds.append(time.process_time() - began)
    return sum(seconds) / scenes


def trained(name: str, seed: int, judges: dict[str, Problem]) -> dict[str, Any]:
    """One training, judged on every set of scenes."""
    began = time.process_time()
    strategy, steps = POLICIES[name]
    found = run(judges["held out"], strategy, budget=Budget(simulated_steps=steps), seed=seed)
    record: dict[str, Any] = {
        "policy": name,
        "configuration": found.configuration,
        "seed": seed,
        "cpu_seconds": time.process_time() - began,
        "wall_seconds": found.seconds,
        "simulated_steps": found.counts.simulated_steps,
        "status": found.status.sentence,
        "validation": [list(found.history["simulated_steps"]), list(found.history["loss"])],
        "validation optimum": validation_optimum(judges["held out"], seed),
        "scenes": {},
    }
    for scenes, problem in judges.items():
        asked = replace(found.problem, scenarios=problem.scenarios)
        with torch.no_grad():
            losses, metrics, _ = asked.score(found.value)
        record["scenes"][scenes] = {"effort": float(losses.mean()), **metrics}
    record["decision"] = decision(found)
    return record


def validation_optimum(problem: Problem, seed: int, scenes: int = 128) -> float:
    """Mean effort of ``lbfgs`` on the scenes that a training from this seed validates on."""
    drawn = int(torch.randint(2**62, (), generator=torch.Generator().manual_seed(seed)))
    scenarios = problem.scenarios.draw(torch.Generator().manual_seed(drawn), scenes)
    return dp.solve(problem.with_scenarios(scenarios), "lbfgs", iterations=60).loss


def decision(found: Any) -> dict[str, float]:
    """CPU microseconds of one decision, for one scene and for 100 together; least of several repetitions."""
    network, scenario = found.problem.unknown.slots[0].network, found.problem.scenarios.data
    result = {}
    for count in (1, 100):
        some = {name: value[:count] for name, value in scenario.items()}
        state, least = some["initial_state"], float("inf")
        with torch.no_grad():
            for _ in range(20):
                began = time.process_time()
                for _ in range(50):
                    network(state, 0.3, some)
                least = min(least, (time.process_time() - began) / 50)
        result[f"microseconds, {count} scenes"] = 1e6 * least
    return result


def summary(record: dict[str, Any]) -> dict[str, Any]:
    """Means over seeds, with the worst: excess effort over the optimum of each scene, and from when training pays."""
    best, result = record["per scene"], {}
    for name in POLICIES:
        runs = [one for one in record["runs"] if one["policy"] == name]
        if not runs:
            continue
        rows: dict[str, Any] = {"seeds": len(runs)}
        for scenes, optimum in best.items():
            found = [one["scenes"][scenes] for one in runs]
            excess = [one["effort"] / optimum["effort"] for one in found]
            rows[scenes] = {
                "effort over optimum, mean": sum(excess) / len(excess),
                "effort over optimum, worst seed": max(excess),
                "effort_ratio, mean": sum(one["effort_ratio"] for one in found) / len(found),
                "force_ratio, mean": sum(one["force_ratio"] for one in found) / len(found),
                "gradients of lbfgs per scene for the same effort": gradients_for(
                    optimum["way"], sum(one["effort"] for one in found) / len(found)
                ),
            }
        training = sum(one["cpu_seconds"] for one in runs) / len(runs)
        acting = 32e-6 * sum(one["decision"]["microseconds, 1 scenes"] for one in runs) / len(runs)
        together = best["held out"]["cpu_seconds_per_scene_together"]
        rows["cpu_seconds"] = training
        rows["scenes from which training pays, solved one by one"] = training / (
            record["lbfgs_cpu_seconds_alone"] - acting
        )
        rows["scenes from which training pays, solved 100 together"] = training / together
        result[name] = rows
    return result


def gradients_for(way: list[list[float]], effort: float) -> float | None:
    """How many gradients per scene ``lbfgs`` had taken when its mean effort was as low."""
    return next((gradients for gradients, loss in way if loss <= effort), None)


def picture(record: dict[str, Any]) -> None:
    """Learning curves: mean effort on the validation scenes over that of their optima, against simulated steps."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    colours = dict(zip(POLICIES, ("tab:blue", "tab:orange"), strict=True))
    for one in record["runs"]:
        steps, losses = one["validation"]
        label = one["policy"] if one["seed"] == 0 else None
        over = [loss / one["validation optimum"] for loss in losses]
        axes.plot(steps, over, color=colours[one["policy"]], lw=1, alpha=0.8, label=label)
    axes.axhline(1.1, color="k", ls=":", lw=1, label="10 % above the optimum of each scene")
    axes.set(xscale="log", xlabel="simulated steps", ylabel="effort over optimum, validation scenes")
    axes.set(xlim=(1e5, None), ylim=(1.0, 2.0))
    axes.legend()
    figure.savefig(PICTURE, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--picture", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.picture:
        return picture(json.loads(RECORD.read_text()))
    judges = scene_sets()
    record: dict[str, Any] = {"command": "python tests/benchmarks/burgers_policy.py", "runs": []}
    if RECORD.exists():
        record = json.loads(RECORD.read_text())
    record |= {"torch": torch.__version__, "threads": 1, "published force ratios": PUBLISHED}
    if "per scene" not in record:
        record["per scene"] = {name: per_scene(problem) for name, problem in judges.items()}
        record["lbfgs_cpu_seconds_alone"] = alone(judges["held out"])
    for name in POLICIES:
        for seed in range(asked.seeds):
            if any((one["policy"], one["seed"]) == (name, seed) for one in record["runs"]):
                continue
            record["runs"].append(trained(name, seed, judges))
            record["summary"] = summary(record)
            RECORD.write_text(json.dumps(record, indent=1) + "\n")
            print(json.dumps(record["summary"][name], indent=1), flush=True)
    return None


if __name__ == "__main__":
    main()
