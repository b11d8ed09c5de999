"""The schemes of planned control on the published Burgers scenes: control network alone, staggered, refined, iterative.

    python tests/benchmarks/burgers_planning.py tune      the tuning trials, the same for every scheme
    python tests/benchmarks/burgers_planning.py           every scheme, three seeds, one in both set-ups; the picture
    python tests/benchmarks/burgers_planning.py picture   the picture alone

Every learned scheme has as many weights as the others (within 4%), the same simulated steps (``STEPS``, runs that
teach by watching included), the same training and the same tuning trials. What is there already in
``results/burgers_planning.json`` is not run again: an interrupted benchmark goes on.

Set-ups: ``exact`` is the problem file's, the last force closes the gap; ``soft`` is the reference's, the gap at the end
costs ``0.5 |gap/dt|^2`` (there: 0.5 |gap|^2 beside 0.5 |dt F|^2). That is what closing it by one more force would
cost, so the soft set-up is the exact one with one more step that no physics takes part in; its controllers are judged
in the exact one too. ``placed`` is how the authors' code for these scenes executes a plan: the planned state is put
into place, by the force that cancels the physics (one simulated step more for each decision, charged: half as many
are simulated), to which the control network adds what it has learnt. Forces are over those of the ground truth, means
over 100 held-out scenes.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from dpcontrol.problems import burgers
from torch import nn

from dpcontrol import (
    LBFGS,
    Budget,
    ControlSequence,
    LearnedPolicy,
    Problem,
    Scenarios,
    control_problem,
    effort,
    reach,
    solve,
)
from dpcontrol.nets import MLP
from dpcontrol.problem import reset
from dpcontrol.problem.acting import from_solution
from dpcontrol.problem.playing import play
from dpcontrol.run import Strategy
from dpcontrol.solution import Solution
from dpcontrol.strategies.learning.planned.planner import PlannedPolicy

RECORD = Path(__file__).parent / "results" / "burgers_planning.json"
STEPS, TUNING_STEPS, SEEDS = 1_000_000, 300_000, (0, 1, 2)
PRETRAINING = 50
WIDE, NARROW = 192, 128  # one network, or two
PUBLISHED = {"PPO, published": 1.31, "network, published": 1.27}

BATCHES: dict[str, Any] = {"batch": 64, "validation": 128, "validate_every": 20}

Maker = Callable[[float, int], Strategy]


def _planned(scheme: str, width: int) -> Maker:
    def make(rate: float, watching: int) -> Strategy:
        training = LearnedPolicy(**BATCHES, optimizer="soap", learning_rate=rate)
        return PlannedPolicy(scheme, width=width, pretraining=watching, training=training)

    return make


SCHEMES: dict[str, Maker] = {
    "control network, told state, target, time": lambda rate, _: LearnedPolicy(
        **BATCHES, width=WIDE, learning_rate=rate
    ),
    "control network, told the way to go": _planned("chain", WIDE),
    "staggered": _planned("staggered", NARROW),
    "refined": _planned("refined", NARROW),
}
TRIALS = [(rate, watching) for rate in (0.003, 0.01) for watching in (0, PRETRAINING)]


class Placing(nn.Module):
    """The force that puts the planned state into place, plus that of a network."""

    def __init__(self, inputs: int, outputs: int, *, width: int) -> None:
        super().__init__()
        self.network = MLP(inputs, outputs, width=width)
        exact = burgers.problem()
        data = exact.scenarios.data
        self.scale = max(float(data[name].square().mean().sqrt()) for name in ("target", "initial_state"))
        self.coefficients = reset(exact).course.coefficients

    def forward(self, seen: torch.Tensor) -> torch.Tensor:
        """The force ``(scenarios, cells)``."""
        state, way = (self.scale * seen[:, part : part + burgers.CELLS] for part in (0, burgers.CELLS))
        free = burgers.SIMULATOR.step(state, torch.zeros_like(state), self.coefficients, None, 0.0)
        found: torch.Tensor = self.network(seen) + (state + way / burgers.HORIZON - free) / burgers.DT
        return found


def placed(scheme: str, width: int) -> Strategy:
    """A scheme whose plans are put into place."""
    return PlannedPolicy(
        scheme,
        width=width,
        executor=partial(Placing, width=width),
        training=LearnedPolicy(**BATCHES, optimizer="soap", learning_rate=0.01),
    )


PLACED = {"chain": WIDE, "staggered": NARROW, "refined": NARROW}


def setups() -> dict[str, Problem]:
    """The two ways to pose the question, on the same scenes."""
    exact = burgers.problem()
    data = exact.scenarios.data
    soft = control_problem(
        burgers.SIMULATOR,
        initial_state=data["initial_state"],
        horizon=burgers.HORIZON,
        objective=0.5 / burgers.DT**2 * reach("target") + 0.5 * effort(),
        control=ControlSequence(burgers.CELLS),
        scenarios=Scenarios(
            {name: data[name] for name in ("target", "force")}, sampler=exact.scenarios.sampler
        ),
        metrics={"effort_ratio": burgers.effort_ratio, "force_ratio": burgers.force_ratio},
        name="burgers, soft",
    )
    return {"exact": exact, "soft": soft}


def answered(
    problem: Problem, strategy: Strategy, steps: int | None, seed: int
) -> tuple[Solution, dict[str, Any]]:
    """A solution, and what is recorded of it."""
    began = time.process_time()
    budget = None if steps is None else Budget(simulated_steps=steps)
    solution = solve(problem, strategy, budget=budget, seed=seed)
    weights = sum(leaf.numel() for leaf in solution.value.get("policy", {}).values())
    found = {
        "loss": solution.loss,
        "validation": min(solution.history["loss"]),
        **{name: solution.metrics[name] for name in ("effort_ratio", "force_ratio")},
        "simulated_steps": solution.counts.simulated_steps,
        "cpu_seconds": time.process_time() - began,
        "weights": weights,
        "status": solution.status.kind,
        "curve": list(zip(solution.history["simulated_steps"], solution.history["loss"], strict=True)),
    }
    return solution, found


class Record:
    """The JSON file, written after every run."""

    def __init__(self) -> None:
        fresh = {"command": "python tests/benchmarks/burgers_planning.py", "tuning": [], "runs": []}
        self.content = json.loads(RECORD.read_text()) if RECORD.exists() else fresh

    def has(self, kind: str, **key: Any) -> bool:
        """Whether a run is there."""
        return any(all(run[name] == value for name, value in key.items()) for run in self.content[kind])

    def add(self, kind: str, key: dict[str, Any], found: dict[str, Any]) -> None:
        """Keep and write a run."""
        self.content[kind].append({**key, **found})
        RECORD.write_text(json.dumps(self.content, indent=1) + "\n")
        shown = {name: value for name, value in found.items() if name != "curve"}
        print(kind, key, shown, flush=True)


def tune() -> None:
    """The same trials for every scheme, with fewer steps, on seed 0."""
    record, problem = Record(), burgers.problem()
    for scheme, make in SCHEMES.items():
        tried = set()
        for rate, watching in TRIALS:
            strategy = make(rate, watching)
            key = {"scheme": scheme, "rate": rate, "watching": watching}
            if repr(strategy) in tried or record.has("tuning", **key):
                continue
            tried.add(repr(strategy))
            found = answered(problem, strategy, TUNING_STEPS, 0)[1]
            record.add("tuning", key, {name: value for name, value in found.items() if name != "curve"})


def chosen(record: Record, scheme: str) -> tuple[float, int]:
    """The best trial of a scheme by its validation, not by the scenes that it is judged on."""
    trials = [run for run in record.content["tuning"] if run["scheme"] == scheme]
    if not trials:
        raise SystemExit("tune first: python tests/benchmarks/burgers_planning.py tune")
    best = min(trials, key=lambda run: run["validation"])
    return best["rate"], best["watching"]


def run() -> None:
    """Every scheme in both set-ups."""
    record, problems = Record(), setups()
    for setup, problem in problems.items():
        for seed in SEEDS if setup == "exact" else SEEDS[:1]:
            for scheme, make in SCHEMES.items():
                key = {"setup": setup, "scheme": scheme, "seed": seed}
                if record.has("runs", **key):
                    continue
                solution, found = answered(problem, make(*chosen(record, scheme)), STEPS, seed)
                if setup == "soft":
                    found.update(judged_exactly(problems["exact"], solution))
                record.add("runs", key, found)
    for seed in SEEDS:
        for scheme, width in PLACED.items():
            key = {"setup": "placed", "scheme": scheme, "seed": seed}
            if not record.has("runs", **key):
                record.add(
                    "runs", key, answered(problems["exact"], placed(scheme, width), STEPS // 2, seed)[1]
                )
    for iterations in (5, 20, 100):
        key = {"setup": "exact", "scheme": f"iterative, {iterations} iterations", "seed": 0}
        if not record.has("runs", **key):
            record.add("runs", key, answered(problems["exact"], LBFGS(iterations=iterations), None, 0)[1])
    picture()


def judged_exactly(exact: Problem, solution: Solution) -> dict[str, float]:
    """A softly trained controller where the last force closes the gap; and the gap that it leaves by itself."""
    played = play(exact, from_solution(solution))
    gap = solution.trajectory().states[-1] - exact.scenarios.data["target"]
    return {
        "exact_effort_ratio": played.metrics["effort_ratio"],
        "exact_force_ratio": played.metrics["force_ratio"],
        "gap": float(gap.square().mean().sqrt()),
    }


def named(run: dict[str, Any]) -> dict[str, Any]:
    """The run under the name that it has in the picture."""
    return {**run, "scheme": f"{run['scheme']}, put into place"} if run["setup"] == "placed" else run


def picture() -> None:
    """``results/burgers_planning.png``: learning curves and final figures."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    runs = [named(run) for run in Record().content["runs"] if run["setup"] != "soft"]
    runs.sort(key=lambda run: (run["scheme"].startswith("iterative"), run["setup"] == "placed"))
    truth = next(run["loss"] / run["effort_ratio"] for run in runs)
    figure, (curves, bars) = plt.subplots(1, 2, figsize=(12, 4.5), constrained_layout=True)
    labels = list(dict.fromkeys(run["scheme"] for run in runs))
    for place, label in enumerate(labels):
        same = [run for run in runs if run["scheme"] == label]
        colour = f"C{place}"
        if label in SCHEMES:
            for entry in same:
                steps, losses = zip(*entry["curve"], strict=True)
                name = label if entry is same[0] else None
                curves.plot(steps, [loss / truth for loss in losses], color=colour, label=name)
        for name, marker in (("effort_ratio", "o"), ("force_ratio", "s")):
            values = [entry[name] for entry in same]
            bars.plot(
                values, [place] * len(values), marker, color=colour, mfc=colour if marker == "o" else "none"
            )
    best = min(run["effort_ratio"] for run in runs)
    curves.axhline(best, color="k", ls=":", label="iterative, converged")
    curves.set(
        xlabel="simulated steps", ylabel="effort of the validation scenes / ground truth", yscale="log"
    )
    curves.legend(fontsize=8)
    for place, (name, value) in enumerate(PUBLISHED.items(), len(labels)):
        bars.plot([value], [place], "s", color="k", mfc="none")
        labels.append(name)
    bars.set_xscale("log")
    ticks = (0.7, 1, 1.3, 2, 3, 5, 8)
    bars.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    bars.minorticks_off()
    bars.grid(axis="x", alpha=0.3)
    bars.set_yticks(range(len(labels)), labels)
    bars.invert_yaxis()
    bars.set_xlabel("effort (dots), total force (squares) / ground truth")
    figure.savefig(RECORD.with_suffix(".png"), dpi=110)


if __name__ == "__main__":
    torch.set_num_threads(1)
    {"tune": tune, "run": run, "picture": picture}[sys.argv[1] if len(sys.argv) > 1 else "run"]()
