"""Trainings of ``wake_correction`` on equal numbers of simulated steps, examined in long rollouts.

    python tests/benchmarks/wake_correction.py                # all trainings that the record does not have yet
    python tests/benchmarks/wake_correction.py --seeds 5      # more seeds of each
    python tests/benchmarks/wake_correction.py --costs        # time the steps again, on a quiet machine
    python tests/benchmarks/wake_correction.py --picture      # draw again
    python tests/benchmarks/wake_correction.py --steps 240000 # longer trainings: their errors only, in the same record

The first call simulates the reference (about five CPU minutes), which the user's cache keeps. Trainings are kept under
``runs/wake_correction`` and go on where they were interrupted; the record has their CPU seconds (one thread). What they
lead to is rolled out on the five Reynolds numbers between those of the training, and on three beyond, beside other
solvers. Published for the semi-Lagrangian solver, at an unseen Reynolds number over 100 steps: 0.0312 / 0.1086 = 0.287.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import time
from pathlib import Path
from typing import Any

import torch
from dpcontrol.problems import wake_correction

import dpcontrol as dp
from dpcontrol.comparison.marks import equal_cost
from dpcontrol.engine.trajectory import parameter_values, stepper
from dpcontrol.problem import Problem, evaluate
from dpcontrol.problem.evaluating import setting
from dpcontrol.problem.hybrids import training_windows
from dpcontrol.run import Strategy
from dpcontrol.strategies import Noisy, Stopped, Supervised, Surrogate, Unrolled

HERE = Path(__file__).parent / "results"
RECORD, PICTURE = HERE / "wake_correction.json", HERE / "wake_correction.png"
RUNS = Path("runs") / "wake_correction"
LENGTHS = (1, 10, 20, 50, 100, 200, 500)
ALONG = [*range(1, 10), *range(10, 50, 5), *range(50, 501, 25)]
LOOKS = ["-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1))]
STEPS = 80_000
FIELDS: dict[str, Any] = {
    "batch": 8,
    "optimizer": "soap",
    "learning_rate": 2e-3,
    "validation": 4,
    "validate_every": 100,
    "rollout": 32,
}
TRAININGS: dict[str, Strategy] = {
    "unrolled": Unrolled(unroll=8, curriculum=1, **FIELDS),
    "unrolled_16": Unrolled(unroll=16, curriculum=1, **FIELDS),
    "supervised": Supervised(**FIELDS),
    "noisy": Noisy(**FIELDS),
    "stopped": Stopped(unroll=8, curriculum=1, **FIELDS),
    "surrogate": Surrogate(unroll=8, curriculum=1, **FIELDS),
}


def trained(problem: Problem, label: str, seed: int, steps: int) -> tuple[dp.Solution, float]:
    """A training, gone on with where it was interrupted, and its CPU seconds."""
    strategy = TRAININGS[label]
    folder = RUNS / f"{label}-{steps}-{seed}"
    if (folder / "solution.safetensors").exists():
        found = dp.Solution.load(folder, strategy.pose(problem))
        return found, json.loads((folder / "cpu.json").read_text())
    clock = folder / "cpu.json"
    folder.mkdir(parents=True, exist_ok=True)
    before = json.loads(clock.read_text()) if clock.exists() else 0.0
    began = time.process_time()

    def spent(progress: Any) -> None:
        # its iterations take a tenth of a second and more
        clock.write_text(json.dumps(before + time.process_time() - began))

    found = dp.solve(
        problem,
        strategy,
        budget=dp.Budget(simulated_steps=steps),
        seed=seed,
        folder=folder,
        resume=(folder / "run.json").exists(),
        callback=spent,
    )
    spent(None)
    return found, json.loads(clock.read_text())


def errors(problem: Problem, **who: Any) -> dict[str, Any]:
    """Relative errors, averaged over so many steps: of every trajectory, between and beyond those of the training."""
    found: dict[str, Any] = {}
    beyond = wake_correction.beyond("full", 0)
    for group, where in {"between": {"part": "test"}, "beyond": {"reference": beyond, "part": "all"}}.items():
        asked = {**who, **where}
        one = evaluate(problem, **asked)
        found[group] = {
            "mean": {str(n): round(one.error(n), 6) for n in LENGTHS},
            "each": {str(n): rounded(one.errors[1 : n + 1].mean(0)) for n in LENGTHS},
            "along": rounded(one.errors[ALONG].mean(1)),
        }
    return found


def solvers() -> dict[str, dict[str, Any]]:
    """The coarse solver, and what else could be bought, as ``evaluate`` is asked for them."""
    others = wake_correction.others("full")
    return {"coarse solver": {}, **{label: {"solver": each} for label, each in others.items()}}


def rounded(values: Any) -> list[float]:
    """Five digits."""
    return [float(f"{float(value):.5g}") for value in values]


def stable(problem: Problem, z: Any) -> float:
    """Share of rollouts of 1,000 steps on the test part that stay finite and of the usual size."""
    return float(evaluate(problem, z, steps=1000).stable[-1].double().mean())


def step_costs(problem: Problem, z: Any, rounds: int = 5, count: int = 10) -> dict[str, float]:
    """CPU milliseconds of a coarse step of one trajectory, five at a time: least of several rounds, one thread."""
    reference = training_windows(problem).reference.solver
    everybody = {**solvers(), "unrolled": {"z": z}, "reference's own": {"solver": reference}}
    found: dict[str, float] = {}
    for _ in range(rounds):
        for label, who in everybody.items():
            asked = setting(problem, who.get("z"), steps=count, solver=who.get("solver"))
            found[label] = min(found.get(label, math.inf), one_step(asked, count))
    return found


def one_step(asked: Any, count: int) -> float:
    """CPU milliseconds of a step of one trajectory."""
    with torch.no_grad():
        values = parameter_values(asked.simulator, asked.parameters, like=asked.initial)
        state = asked.simulator.start(asked.initial, values)
        coefficients = asked.simulator.prepare(values, asked.scenario)
        step = stepper(asked.simulator)
        state = step(state, (None, None), coefficients, 0)
        began = time.process_time()
        for k in range(count):
            state = step(state, (None, None), coefficients, k)
        return 1e3 * (time.process_time() - began) / (count * len(state["velocity_x"]))


def bought(record: dict[str, Any], group: str, steps: str, budget: int) -> dict[str, Any]:
    """What a solver of the error of ``unrolled`` costs.

    In the logarithms of both between those that were run; beyond the best of them that is a bound only. The estimate
    takes the central solver to be of second order against the reference, ``e(n) ~ 1/n^2 - 1/4^2`` with ``n`` times
    finer cells, and its cost for a power of ``n``.
    """
    costs = record["cpu_milliseconds_of_a_step"]
    points = sorted((costs[label], one[group]["mean"][steps]) for label, one in record["solvers"].items())
    runs = [one["errors"][group]["mean"][steps] for one in of(record, "unrolled", budget)]
    error = sum(runs) / len(runs)
    found = equal_cost(points, error)
    finer = "central, 2 x finer"
    finest, cost, wrong = (
        costs["reference's own"],
        costs[finer],
        record["solvers"][finer][group]["mean"][steps],
    )
    n = (1 / 16 + (1 / 4 - 1 / 16) * error / wrong) ** -0.5
    estimate = cost * (n / 2) ** math.log2(finest / cost)
    return {
        "error": round(error, 6),
        "speed-up over solvers that were run": f"{found.relation} {found.value / costs['unrolled']:.3g}",
        "estimated times finer central solver of that error": round(n, 2),
        "estimated speed-up": round(estimate / costs["unrolled"], 2),
        "speed-up over the reference's own": round(finest / costs["unrolled"], 2),
    }


def of(record: dict[str, Any], label: str, budget: int) -> list[dict[str, Any]]:
    """The trainings of one kind and budget."""
    return [one for one in record["trainings"] if (one["training"], one["budget"]) == (label, budget)]


def summary(record: dict[str, Any]) -> dict[str, Any]:
    """Error ratios, means over seeds: corrected over coarse, after so many steps."""
    coarse = record["solvers"]["coarse solver"]
    result: dict[str, Any] = {}
    budgets = sorted({one["budget"] for one in record["trainings"]})
    for label, budget in itertools.product(TRAININGS, budgets):
        runs = of(record, label, budget)
        if not runs:
            continue
        rows: dict[str, Any] = {
            "seeds": len(runs),
            "cpu_seconds": sum(r["cpu_seconds"] for r in runs) / len(runs),
        }
        for group in ("between", "beyond"):
            for n in map(str, LENGTHS):
                ratios = [one["errors"][group]["mean"][n] / coarse[group]["mean"][n] for one in runs]
                rows[f"{group}, {n} steps"] = {
                    "ratio": round(sum(ratios) / len(ratios), 4),
                    "worst seed": round(max(ratios), 4),
                }
        rows["stable for 1,000 steps"] = min(one["stable"] for one in runs)
        result[f"{label}, {budget} simulated steps"] = rows
    return result


def command(seeds: int, steps: int, only: list[str]) -> None:
    """Everything that the record lacks, seed by seed, written as it comes."""
    problem = wake_correction.problem()
    record = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    record.setdefault("command", "python tests/benchmarks/wake_correction.py")
    record.setdefault("torch", torch.__version__)
    record.setdefault("trainings", [])
    if "solvers" not in record:
        record["solvers"] = {label: errors(problem, **who) for label, who in solvers().items()}
        write(record)
    for seed, label in itertools.product(range(seeds), only):
        if not any(one["seed"] == seed for one in of(record, label, steps)):
            record["trainings"].append(one_training(problem, label, seed, steps))
            record["summary"] = summary(record)
            write(record)


def one_training(problem: Problem, label: str, seed: int, steps: int) -> dict[str, Any]:
    """What is known of a training."""
    found, cpu = trained(problem, label, seed, steps)
    return {
        "training": label,
        "configuration": found.configuration,
        "seed": seed,
        "budget": steps,
        "cpu_seconds": round(cpu, 1),
        "simulated_steps": found.counts.simulated_steps,
        "status": found.status.sentence,
        "validation": [list(found.history["simulated_steps"]), rounded(found.history["loss"])],
        "errors": errors(found.problem, z=found.value),
        "stable": stable(found.problem, found.value),
    }


def shedding(problem: Problem, who: dict[str, dict[str, Any]]) -> dict[str, list[float]]:
    """Strouhal numbers ``f D / U`` on the test part: of the speed across the stream 2.5 diameters behind the disc."""

    def peaks(speeds: torch.Tensor) -> list[float]:
        """The largest of a spectrum, ``(steps, trajectories)``, filled up with zeros to be read off between lines."""
        seen = (speeds - speeds.mean(0)) * torch.hann_window(len(speeds))[:, None]
        found = torch.fft.rfft(seen, n=2**14, dim=0).abs().argmax(0)
        return rounded(found * (2 * wake_correction.RADIUS["full"] / (wake_correction.DT * 2**14)))

    found = {}
    for label, asked in who.items():
        at = setting(problem, asked.get("z"), solver=asked.get("solver"))
        path = dp.rollout(
            at.simulator, at.initial, length=500, parameters=at.parameters, scenario=at.scenario
        )
        rows = [at.seen({name: leaf[k] for name, leaf in path.states.items()}) for k in range(501)]
        found[label] = peaks(torch.stack([row["velocity_y"][:, 32, 15] for row in rows]).detach())
        found["reference"] = peaks(at.truth["velocity_y"][:, :, 32, 15].T)
    return found


def costs(steps: int) -> None:
    """What steps cost, and what a solver of the error of ``unrolled`` would: best on a quiet machine."""
    problem, record = wake_correction.problem(), json.loads(RECORD.read_text())
    found, _ = trained(problem, "unrolled", 0, steps)
    costs = step_costs(problem, found.value)
    record["cpu_milliseconds_of_a_step"] = {label: float(f"{cost:.4g}") for label, cost in costs.items()}
    answers = {
        label: {"z": trained(problem, label, 0, steps)[0].value}
        for label in ("unrolled", "supervised")
        if of(record, label, steps)
    }
    record["Strouhal numbers"] = shedding(problem, {**solvers(), **answers})
    record["equal error"] = {
        f"{group}, {n} steps": bought(record, group, n, steps)
        for group in ("between", "beyond")
        for n in ("20", "100", "500")
    }
    write(record)


def write(record: dict[str, Any]) -> None:
    """Keep the record."""
    RECORD.write_text(json.dumps(record, indent=1) + "\n")


def picture(steps: int) -> None:
    """Errors along the rollouts, and the street of the reference, the coarse solver and the corrected one."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    record = json.loads(RECORD.read_text())
    figure = plt.figure(figsize=(12, 8), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=(3, 2))
    for axes, group in zip(upper.subplots(1, 2, sharey=True), ("between", "beyond"), strict=True):
        for (label, one), look in zip(record["solvers"].items(), LOOKS, strict=True):
            axes.plot(ALONG, one[group]["along"], color="0.45", linestyle=look, linewidth=1, label=label)
        for index, label in enumerate(TRAININGS):
            runs = [one["errors"][group]["along"] for one in of(record, label, steps)]
            for curve in runs:
                axes.plot(ALONG, curve, color=f"C{index}", label=label if curve is runs[0] else None)
        axes.set(
            xscale="log",
            yscale="log",
            xlabel="steps",
            title=f"Reynolds numbers {group} those of the training",
        )
        axes.set_ylim(2e-4, 2)
        axes.grid(alpha=0.3)
    upper.axes[0].set_ylabel("relative error")
    upper.legend(*upper.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize=8)
    streets(lower, steps)
    figure.savefig(PICTURE, dpi=90)


def streets(figure: Any, steps: int, when: int = 200) -> None:
    """Vorticity at the largest unseen Reynolds number after so many steps."""
    problem = wake_correction.problem()
    found, _ = trained(problem, "unrolled", 0, steps)
    solver = wake_correction.flow("full", 1)
    rows = {}
    for label, z in (("coarse solver", None), ("unrolled", found.value)):
        asked = setting(problem, z, steps=when)
        states = dp.rollout(
            asked.simulator, asked.initial, length=when, parameters=asked.parameters, scenario=asked.scenario
        ).states
        rows[label] = {name: states[name][-1, -1:] for name in wake_correction.VELOCITY}
    rows["reference"] = {name: leaf[-1:, -1] for name, leaf in asked.truth.items()}
    for axes, (label, state) in zip(figure.subplots(1, 3), rows.items(), strict=True):
        curl = solver.fields(state)["vorticity"].values[0].detach()
        axes.imshow(curl.T, origin="lower", extent=(0, 200, 0, 100), cmap="RdBu_r", vmin=-0.4, vmax=0.4)
        axes.set(title=f"{label}, {when} steps, Re 268", xticks=[], yticks=[])


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--seeds", type=int, default=3, help="of every training")
    asked.add_argument("--steps", type=int, default=STEPS, help="simulated steps of a training")
    asked.add_argument("--only", nargs="+", choices=list(TRAININGS), default=list(TRAININGS))
    asked.add_argument("--costs", action="store_true", help="time the steps only")
    asked.add_argument("--picture", action="store_true", help="draw only")
    options = asked.parse_args()
    torch.set_num_threads(1)
    if not (options.costs or options.picture):
        command(options.seeds, options.steps, options.only)
    if options.steps != STEPS:  # what is read off besides, and the picture, are of the usual trainings
        return
    if not options.picture:
        costs(options.steps)
    picture(options.steps)


if __name__ == "__main__":
    main()
