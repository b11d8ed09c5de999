"""Who corrects a coarse solver best at equal cost, trained inside its loop or not? Error against length of rollouts.

    python tests/benchmarks/corrections.py vorticity_correction [--strategies unrolled supervised] [--seeds 0 1 2]

Every strategy gets the same number of simulated steps (a step of a backward sweep counts as one more), which is nearly
the same number of CPU seconds: the network is the cost. All have the same minibatches, optimizer, falling learning
rate and validation rollouts, those of ``PLANS``; nothing is tuned to one of them. Windows of several steps begin with
single ones (the strategies' default). Answers are rolled out over whole test trajectories and those of the problem's
examination, and 1,000 steps from the test states for stability.

Writes ``results/corrections_PROBLEM.json`` after every training and goes on where it stopped; ``--again`` begins anew.
``results/corrections_PROBLEM.png`` shows it. One thread; seconds are CPU seconds.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from dpcontrol import tree
from dpcontrol.engine import rollout
from dpcontrol.meter import Budget
from dpcontrol.problem import Evaluation, Problem, Reference, Resolution, evaluate
from dpcontrol.problem.evaluating import setting
from dpcontrol.problem.hybrids import training_windows
from dpcontrol.run import Strategy, run
from dpcontrol.sim import VorticityFlow
from dpcontrol.strategies import Noisy, Stopped, Supervised, Surrogate, Unrolled

RESULTS = Path(__file__).parent / "results"
STRATEGIES: dict[str, type[Strategy]] = {
    "unrolled": Unrolled,
    "stopped": Stopped,
    "noisy": Noisy,
    "supervised": Supervised,
    "surrogate": Surrogate,
}
COLOURS = dict(zip(STRATEGIES, ("C0", "C2", "C4", "C3", "C1"), strict=True))
OWN = {"noisy": {"noise": 1e-3}}  # of the size of the state: what a step of a good answer misses
AT = (1, 2, 5, 10, 20, 30, 50, 75, 100, 150, 200, 300, 500)


class Plan(NamedTuple):
    """What every training of a problem gets."""

    steps: int
    options: Mapping[str, Any]


ADAM = {"batch": 32, "optimizer": "adam", "learning_rate": 5e-3}
SOAP = {"batch": 8, "optimizer": "soap", "learning_rate": 5e-3}
PLANS = {
    "vorticity_correction": Plan(80_000, {**SOAP, "validate_every": 100, "validation": 8, "rollout": 48}),
    "burgers_correction": Plan(400_000, {**SOAP, "batch": 32, "validate_every": 100, "rollout": 64}),
    "advection_diffusion_correction": Plan(300_000, {**ADAM, "validate_every": 100}),
}


def main() -> None:
    """See the module's docstring."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("problems", nargs="*", default=list(PLANS))
    asked.add_argument("--strategies", nargs="+", default=list(STRATEGIES), choices=list(STRATEGIES))
    asked.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    asked.add_argument("--steps", type=int, help="of each training; in a record of its own")
    asked.add_argument("--again", action="store_true")
    given = asked.parse_args()
    torch.set_num_threads(1)
    for name in given.problems:
        plan = PLANS[name] if given.steps is None else PLANS[name]._replace(steps=given.steps)
        path = RESULTS / f"corrections_{name}{'' if given.steps is None else f'_{given.steps}'}.json"
        if given.again:
            path.unlink(missing_ok=True)
        problem: Problem = importlib.import_module(f"dpcontrol.problems.{name}").problem()
        groups = groups_of(problem)
        record = begun(path, name, plan, problem, groups)
        if name == "vorticity_correction" and "fine solver, begun blind" not in record:
            record["fine solver, begun blind"] = blind(problem, groups)
        for seed in given.seeds:
            for strategy in given.strategies:
                if f"{strategy}, seed {seed}" not in record["runs"]:
                    record["runs"][f"{strategy}, seed {seed}"] = trained(
                        problem, groups, plan, strategy, seed
                    )
                    write(path, record)
                    print(strategy, seed, json.dumps(record["runs"][f"{strategy}, seed {seed}"]), flush=True)
        record["summary"] = summary(record)
        record["cpu milliseconds of a step of a trajectory"] = timed(problem)
        write(path, record)
        drawn(record, path.with_suffix(".png"))


def groups_of(problem: Problem) -> dict[str, Callable[..., Evaluation]]:
    """Label -> what rolls something out on its trajectories."""
    found: dict[str, Callable[..., Evaluation]] = {"test": _on(problem, None, "test")}
    for label, make in training_windows(problem).examination.unseen.items():
        found[label] = _on(problem, make(), "all")
    return found


def _on(problem: Problem, reference: Reference | None, part: str) -> Callable[..., Evaluation]:
    def roll(z: Any = None, *, posed: Problem = problem, **more: Any) -> Evaluation:
        return evaluate(posed, z, reference=reference, part=part, **more)

    return roll


def begun(
    path: Path, name: str, plan: Plan, problem: Problem, groups: Mapping[str, Callable[..., Evaluation]]
) -> dict[str, Any]:
    """The record as it is, or one with what needs no training."""
    wanted = {"simulated steps": plan.steps, **plan.options}
    if path.exists():
        kept: dict[str, Any] = json.loads(path.read_text())
        if kept["each training"] != wanted:
            raise SystemExit(f"{path} is of another plan, {kept['each training']}; begin anew with --again.")
        return kept
    solvers = training_windows(problem).examination.resolutions
    other = "" if plan == PLANS[name] else f" --steps {plan.steps}"
    record = {
        "command": f"python tests/benchmarks/corrections.py {name}{other}",
        "each training": wanted,
        "error": "mean |x - r| / mean |r| after so many steps, mean over trajectories; null where a rollout has failed",
        "coarse solver": {label: marks(roll()) for label, roll in groups.items()},
        "other solvers": {
            label: {group: marks(roll(solver=solver)) for group, roll in _fitting(groups)}
            for label, solver in solvers.items()
        },
        "runs": {},
    }
    write(path, record)
    return record


def timed(problem: Problem, steps: int = 20, repetitions: int = 9) -> dict[str, float]:
    """Least CPU time of a few steps of the test trajectories, all solvers in turn."""
    at = {"coarse solver": setting(problem), "corrected": setting(problem, problem.start())}
    for label, solver in training_windows(problem).examination.resolutions.items():
        at[label] = setting(problem, solver=solver)
    least = dict.fromkeys(at, math.inf)
    with torch.no_grad():
        for _ in range(repetitions):
            for label, one in at.items():
                given = {"parameters": one.parameters, "scenario": one.scenario}
                began = time.process_time()
                rollout(one.simulator, one.initial, length=steps, **given)
                count = len(tree.leaves(one.initial)[0])
                least[label] = min(least[label], (time.process_time() - began) / (steps * count))
    return {label: float(f"{1e3 * seconds:.3g}") for label, seconds in least.items()}


def blind(problem: Problem, groups: Mapping[str, Callable[..., Evaluation]]) -> dict[str, Any]:
    """What coarse states cannot know: the fine solver, begun without waves too short for its grid."""
    from dpcontrol.problems import vorticity_correction as file

    cells = file.CELLS["full"]
    points, side = file.FINER * cells, cells * file.CELL
    solver = Resolution(
        VorticityFlow(file.DT / file.FINE_STEPS, (points, points), lengths=(side, side)),
        file.FINE_STEPS,
        lambda fine: file.resampled(file.resampled(fine, cells), points),
        partial(file.merged, cells=cells),
    )
    return {group: marks(roll(solver=solver)) for group, roll in _fitting(groups)}


def _fitting(groups: Mapping[str, Callable[..., Evaluation]]) -> list[tuple[str, Callable[..., Evaluation]]]:
    """The groups on the problem's own box."""
    return [(label, roll) for label, roll in groups.items() if label != "larger box"]


def trained(
    problem: Problem, groups: Mapping[str, Callable[..., Evaluation]], plan: Plan, strategy: str, seed: int
) -> dict[str, Any]:
    """One training, examined."""
    began = time.process_time()
    budget = Budget(simulated_steps=plan.steps)
    own = OWN.get(strategy, {})
    solution = run(problem, STRATEGIES[strategy](**plan.options, **own), budget=budget, seed=seed)
    seconds = time.process_time() - began
    long = groups["test"](solution.value, posed=solution.problem, steps=1000)
    return {
        **own,
        "cpu seconds": round(seconds, 1),
        "simulated steps": solution.counts.simulated_steps,
        "validation loss": float(f"{float(solution.loss):.4g}"),
        "stable for 1000 steps": round(float(long.stable[-1].double().mean()), 3),
        "groups": {
            label: marks(roll(solution.value, posed=solution.problem)) for label, roll in groups.items()
        },
    }


def marks(found: Evaluation) -> dict[str, Any]:
    """Errors after some steps, and the share of the rollouts that is stable to their end."""
    errors = found.errors.double().mean(1)
    after = {str(k): float(f"{float(errors[k]):.4g}") for k in AT if k < len(errors)}
    return {
        "error": {k: error if math.isfinite(error) else None for k, error in after.items()},
        "stable": round(float(found.stable[-1].double().mean()), 3),
        "milliseconds of a step": round(1e3 * found.seconds, 4),
    }


def summary(record: Mapping[str, Any]) -> dict[str, Any]:
    """Group -> strategy -> coarse error over its own after the last step: the least, the mean and the largest seed."""
    found: dict[str, Any] = {}
    for label, coarse in record["coarse solver"].items():
        last = list(coarse["error"])[-1]
        rows = {}
        for strategy in STRATEGIES:
            ends = [one["groups"][label]["error"][last] for one in of(record, strategy)]
            if ends:
                known = [coarse["error"][last] / end for end in ends if end is not None]
                rows[strategy] = {
                    "seeds": len(ends),
                    "failed": len(ends) - len(known),
                    "gain": [round(f(known), 2) for f in (min, statistics.fmean, max)] if known else None,
                }
        found[f"{label}, after {last} steps"] = rows
    return found


def of(record: Mapping[str, Any], strategy: str) -> list[dict[str, Any]]:
    """The runs of a strategy."""
    return [one for name, one in record["runs"].items() if name.startswith(f"{strategy}, ")]


def drawn(record: Mapping[str, Any], path: Path) -> None:
    """Error against length, one panel for each group: a line is the mean over seeds, a band goes from least to most."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib.figure import Figure

    groups = record["coarse solver"]
    figure = Figure(figsize=(3.3 * len(groups), 3.6), layout="constrained")
    panels = figure.subplots(1, len(groups), sharey=True, squeeze=False)[0]
    for axes, (label, coarse) in zip(panels, groups.items(), strict=True):
        _line(axes, [coarse["error"]], "coarse solver", color="0.4", linestyle="--")
        for name, style in zip(
            record["other solvers"], (":", "-.", (0, (1, 4)), (0, (5, 5)), "-"), strict=False
        ):
            if label in record["other solvers"][name]:
                errors = record["other solvers"][name][label]["error"]
                _line(axes, [errors], name, color="0.65", linestyle=style, linewidth=1)
        for strategy, colour in COLOURS.items():
            curves = [one["groups"][label]["error"] for one in of(record, strategy)]
            if curves:
                _line(axes, curves, strategy, color=colour)
        axes.set(xlabel="steps", title=label, xscale="log", yscale="log")
    panels[0].set(ylabel="relative error")
    panels[0].set_ylim(top=2.0)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=6, fontsize="small")
    figure.savefig(path, dpi=110)


def _line(axes: Any, curves: list[dict[str, float | None]], label: str, **style: Any) -> None:
    """Up to where the first seed fails."""
    steps = [k for k in curves[0] if all(curve[k] is not None for curve in curves)]
    at = [int(k) for k in steps]
    rows = [[curve[k] for k in steps] for curve in curves]
    axes.plot(at, [statistics.fmean(column) for column in zip(*rows, strict=True)], label=label, **style)
    if len(curves) > 1:
        low, high = ([f(column) for column in zip(*rows, strict=True)] for f in (min, max))
        axes.fill_between(at, low, high, color=style["color"], alpha=0.2, linewidth=0)


def write(path: Path, record: Mapping[str, Any]) -> None:
    """All at once."""
    path.with_suffix(".new").write_text(json.dumps(record, indent=1) + "\n")
    path.with_suffix(".new").replace(path)


if __name__ == "__main__":
    main()
