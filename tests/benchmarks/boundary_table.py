"""The full table of transport_boundary and reaction_diffusion_boundary: laws, plans and learned controllers on trial.

    python tests/benchmarks/boundary_table.py train     # every learned controller, several seeds; resumable
    python tests/benchmarks/boundary_table.py           # the trials; writes results/boundary_table.json, two pictures

Training keeps its runs in ``runs/boundary_table``; what is finished is not trained again. One thread; CPU seconds are
of this process, on a machine shared with other work.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from dpcontrol.problems.transport_boundary import STRONGEST, constants, held_matrices, lqr
from torch import nn

from dpcontrol.meter import Budget
from dpcontrol.nets import MLP
from dpcontrol.problem import KalmanLQR, Problem
from dpcontrol.run import Strategy
from dpcontrol.solution import Solution
from dpcontrol.solving import solve
from dpcontrol.strategies import LBFGS, MPC, PPO, SAC, ActorCritic, EvolvedPolicy, LearnedPolicy
from dpcontrol.trials import (
    ActuatorDelay,
    Disturbance,
    Mismatch,
    Nominal,
    SensorNoise,
    Shifted,
    robustness,
)
from dpcontrol.trials.worlds import state_size

HERE = Path(__file__).parent
RUNS = HERE.parents[1] / "runs" / "boundary_table"
RESULTS = HERE / "results"
RECORD = RESULTS / "boundary_table.json"
LAW = "LQR feedback"
SCENES = 32
SEEDS = {"transport_boundary": 3, "reaction_diffusion_boundary": 2}  # of a random trial
TRANSPORT, REACTION = "transport_boundary", "reaction_diffusion_boundary"
PLANNER = LBFGS(iterations=100, memory=100)
WINDOWS = {  # one unit of time ahead, which a command takes to arrive; what matters is over after 0.1 of it
    TRANSPORT: MPC(horizon=15, iterations=5),
    REACTION: MPC(horizon=100, hold=25, iterations=3),
}
OPTIMUM = {
    TRANSPORT: [[82.3228, 82.3267], [823.247, 823.267]],
    REACTION: [[623.874, 624.209], [7410.62, 7413.93]],
}


class Entrant(NamedTuple):
    """A learned method: how it is trained, and on what budget."""

    label: str
    problem: str
    strategy: Strategy
    steps: int


class Homogeneous(nn.Module):
    """``U = |u| network(u / |u|, time to go)``, clipped: twice the state, twice the control, as the optimum has it.

    The score is homogeneous and the equation linear, so that this holds as long as no bound is met.
    """

    def __init__(self, points: int, horizon: float) -> None:
        super().__init__()
        self.body = MLP(points + 1, 1).double()
        self.horizon = horizon

    def forward(self, state: torch.Tensor, t: float, scenario: Any) -> torch.Tensor:
        size = torch.sqrt(state.square().mean(-1, keepdim=True) + 1e-16)
        left = torch.full_like(size, 1 - t / self.horizon)
        control: torch.Tensor = size * self.body(torch.cat((state / size, left), 1))
        return control.clamp(-STRONGEST, STRONGEST)


# Networks of two hidden layers of 128 for all; two seeds. As many simulated steps for all on a problem: more on the
# second, where a gradient of 16 scenes is 32,000. SAC makes an update every 20 steps, and on the second problem gets
# less, or it would take more seconds than all others together.
torch.manual_seed(0)  # a module starts with the weights it has
TRAINED = {"batch": 32, "validation": 32, "validate_every": 50}
EVOLVED = {"population": 16, "batch": 8}
LONGER = {"batch": 16, "validation": 16, "validate_every": 25}
ENTRANTS = (
    Entrant("policy", TRANSPORT, LearnedPolicy(**TRAINED), 1_300_000),
    Entrant("policy + LQR", TRANSPORT, LearnedPolicy(base=LAW, **TRAINED), 1_300_000),
    Entrant(
        "policy, homogeneous", TRANSPORT, LearnedPolicy(network=Homogeneous(100, 5.0), **TRAINED), 1_300_000
    ),
    Entrant("shac", TRANSPORT, ActorCritic(**TRAINED), 1_300_000),
    Entrant("ppo", TRANSPORT, PPO(validation=32, validate_every=50_000), 1_300_000),
    Entrant("sac", TRANSPORT, SAC(updates=0.05, validation=32, validate_every=50_000), 1_300_000),
    Entrant("evolved_policy", TRANSPORT, EvolvedPolicy(**EVOLVED, validation=32), 1_300_000),
    Entrant("policy", REACTION, LearnedPolicy(**LONGER), 3_300_000),
    Entrant("policy + LQR", REACTION, LearnedPolicy(base=LAW, **LONGER), 3_300_000),
    Entrant("shac", REACTION, ActorCritic(window=100, batch=16, validation=16, validate_every=50), 3_300_000),
    Entrant("ppo", REACTION, PPO(validation=16, validate_every=200_000), 3_300_000),
    Entrant("sac", REACTION, SAC(updates=0.05, validation=16, validate_every=100_000), 1_300_000),
    Entrant("evolved_policy", REACTION, EvolvedPolicy(**EVOLVED, validation=16), 3_300_000),
)
TRAININGS = 2  # seeds of each


def posed(name: str) -> Problem:
    """The published problem."""
    found: Problem = importlib.import_module(f"dpcontrol.problems.{name}").problem()
    return found


def folder(entrant: Entrant, seed: int) -> Path:
    """Where a training is kept."""
    return RUNS / f"{entrant.problem}-{entrant.label.replace(' + ', '-').replace(', ', '-')}-{seed}"


def train(only: str) -> None:
    """Every entrant's missing runs, the first seeds first; only those whose folders begin so."""
    wanted = [(seed, entrant) for entrant in ENTRANTS for seed in range(TRAININGS)]
    for seed, entrant in sorted(wanted, key=lambda pair: pair[0]):
        where = folder(entrant, seed)
        if (where / "solution.safetensors").is_file() or not where.name.startswith(only):
            continue
        began = time.process_time()
        begun = (where / "run.json").is_file()
        solution = solve(
            posed(entrant.problem),
            entrant.strategy,
            budget=Budget(simulated_steps=entrant.steps),
            seed=seed,
            folder=where,
            resume=begun,
            progress=False,
        )
        spent = time.process_time() - began
        (where / "cost.json").write_text(json.dumps({"cpu_seconds": spent, "whole": not begun}) + "\n")
        print(f"{where.name}: {solution.losses.tolist()} {spent:.0f} s {solution.status}", flush=True)


def kalman(problem: Problem) -> KalmanLQR:
    """The gain of ``LQR feedback`` behind a Kalman filter that knows the size of the noise and where starts come from.

    Its errors of measurement are those of 5 % noise; the plant is taken to err by 0.1 % of the state in each step.
    Starts are constants from U(1, 10): mean 5.5, variance 6.75.
    """
    A, B = held_matrices(problem.simulator)
    identity = torch.eye(len(A), dtype=A.dtype)
    one = torch.ones(len(A), dtype=A.dtype)
    size = float(state_size(problem))
    return KalmanLQR(
        A,
        B,
        identity,
        lqr(problem.simulator)[None],
        (1e-3 * size) ** 2 * identity,
        (0.05 * size) ** 2 * identity,
        5.5 * one,
        6.75 * torch.outer(one, one) + 1e-6 * identity,
        (-STRONGEST, STRONGEST),
    )


def trained(name: str) -> dict[str, list[Solution]]:
    """Label -> the trainings that are finished, one for each seed."""
    found: dict[str, list[Solution]] = {}
    for entrant in ENTRANTS:
        for seed in range(TRAININGS):
            where = folder(entrant, seed)
            if entrant.problem == name and (where / "solution.safetensors").is_file():
                asked = entrant.strategy.pose(posed(name))
                found.setdefault(entrant.label, []).append(Solution.load(where, asked))
    return found


def costs(name: str) -> list[dict[str, Any]]:
    """What every training has cost, and what came out of it from the two published starts."""
    rows = []
    for entrant in ENTRANTS:
        for seed in range(TRAININGS):
            where = folder(entrant, seed)
            if entrant.problem == name and (where / "solution.safetensors").is_file():
                solution = Solution.load(where)
                spent = json.loads((where / "cost.json").read_text())
                rows.append(
                    {
                        "label": entrant.label,
                        "configuration": solution.configuration,
                        "seed": seed,
                        "scores": solution.losses.tolist(),
                        "simulated steps": solution.counts.simulated_steps,
                        "cpu seconds": spent["cpu_seconds"] if spent["whole"] else None,
                        "status": solution.status.sentence,
                    }
                )
    return rows


def measure(name: str) -> dict[str, Any]:
    """Published starts first; then every trial from the same random starts."""
    problem = posed(name)
    drawn = problem.scenarios.draw(torch.Generator().manual_seed(20_001), SCENES)
    anywhere = problem.with_scenarios(drawn)
    (parameter,) = problem.simulator.parameters
    module = importlib.import_module(f"dpcontrol.problems.{name}")
    entrants: dict[str, Any] = {"lbfgs (plan)": PLANNER, "mpc": WINDOWS[name], **trained(name)}
    began = time.process_time()
    published = robustness(problem, {**entrants, "Kalman filter + LQR": kalman(problem)}, [Nominal()])
    print(published, flush=True)
    trials = [
        Nominal(),
        SensorNoise(0.05),
        SensorNoise(0.0, dropout=0.1),
        ActuatorDelay(1),
        Disturbance(0.1),
        Mismatch(**{parameter: 0.9}),
        Mismatch(**{parameter: 1.1}),
        Shifted(sampler=beyond(problem), count=SCENES, words="starts from U(12, 15)"),
    ]
    found = robustness(
        anywhere, {**entrants, "Kalman filter + LQR": kalman(anywhere)}, trials, seeds=SEEDS[name]
    )
    found = replace(found, problem=name.replace("_", " "))
    print(found, flush=True)
    found.plot(RESULTS / f"boundary_table_{name}.png")
    record = found.record()
    for row in record["rows"]:
        del (
            row["losses"],
            row["metrics"],
        )  # (runs, scenes) numbers, and scores of starts that are not among these
    return {
        "published scores (starts 1, 10)": {label: list(pair) for label, pair in module.PUBLISHED.items()},
        "proven optimum (starts 1, 10)": OPTIMUM[name],
        "scores (starts 1, 10)": {
            row.controller: None if row.losses is None else row.losses.tolist() for row in published.rows
        },
        "trainings": costs(name),
        "random starts": SCENES,
        "seeds of a random trial": SEEDS[name],
        "trials": record["rows"],
        "cpu seconds of the trials": time.process_time() - began,
    }


def beyond(problem: Problem) -> Any:
    """Constant starts from U(12, 15), which nobody was trained on."""

    def draw(generator: torch.Generator, count: int) -> dict[str, torch.Tensor]:
        unit = torch.rand(count, generator=generator, dtype=torch.float64)
        return {"initial_state": constants(12 + 3 * unit, problem.simulator.points)}

    return draw


def main(names: list[str]) -> None:
    """Measure some of the problems, or all; the record of the others stays."""
    record = json.loads(RECORD.read_text()) if RECORD.is_file() else {}
    record |= {"command": "python tests/benchmarks/boundary_table.py", "torch": torch.__version__}
    for name in names or [TRANSPORT, REACTION]:
        record[name] = measure(name)
        RECORD.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1:2] == ["train"]:
        train("".join(sys.argv[2:3]))
    else:
        main(sys.argv[1:])
