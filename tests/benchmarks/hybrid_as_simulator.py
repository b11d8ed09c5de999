"""A corrected Burgers solver at work: are controls and parameters found through it better than the coarse one's?

    python tests/benchmarks/hybrid_as_simulator.py          (about ten minutes; the record in results/)
    python tests/benchmarks/hybrid_as_simulator.py small    (a short training; prints, keeps nothing)

The hybrid corrects the coarse solver of ``burgers_correction`` by learned fluxes, trained by ``unrolled`` on freely
decaying states: nothing pushed them, and nobody told it what it would be used for. Two seeds.

Control: four bumps of force in the left part of the box, each with a strength for each of 40 coarse steps, steer twelve
unseen states to where other (smooth, hidden) strengths led the fine solver: so the targets can be reached. ``lbfgs``
finds the strengths through the coarse solver, through the hybrid, and through the fine solver; all are replayed in the
fine solver. ``missed`` is the distance from the target there over the distance without any control, both on the coarse
grid, means over the scenes; ``believed`` is the same in the model that the control was found in.

Inference: the viscosity of each of sixteen unseen trajectories from eight gauges at every tenth of 80 steps, noise
0.01, found through the coarse solver, the hybrid and the fine one. ``bias`` is the mean of log(found / true) as a
factor, ``spread`` the standard deviation of that logarithm.
"""

from __future__ import annotations

import json
import math
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from dpcontrol.problems import burgers_correction as burgers
from torch import Tensor

import dpcontrol as dp
from dpcontrol.nets import FluxNet
from dpcontrol.problem import relative_norm
from dpcontrol.sim import Actuated, FiniteVolumeBurgers, Simulator

RECORD = Path(__file__).parent / "results" / "hybrid_as_simulator.json"
SEEDS, SCENES, EXPERIMENTS = (0, 1), 12, 16
ACTUATORS, STEPS, WEIGHT = 4, 40, 1e-6
BUDGET = {"full": 400_000, "small": 30_000}
TRAINING: dict[str, Any] = {"optimizer": "soap", "learning_rate": 5e-3, "batch": 32, "curriculum": 1}
GAUGES, LENGTH, BETWEEN, NOISE = 8, 80, 10, 0.01
FINE_CELLS = burgers.CELLS * burgers.FINER


def posed(size: str) -> dp.Problem:
    """The correction: 64 trajectories of 100 steps of the reference, viscosities as in the problem file."""
    steps, count = (100, 64) if size == "full" else (60, 24)
    return dp.correction_problem(
        coarse_solver(),
        reference=burgers.finer(torch.Generator().manual_seed(0), count, steps, burgers.VISCOSITIES),
        network=partial(FluxNet, **burgers.NETWORK[size]),
        unroll=8,
        horizon=50,
        inputs=("viscosity",),
        loss=relative_norm,
        name="burgers, learned fluxes",
    )


def fine_solver() -> Simulator:
    """What made the reference: cells four times smaller, an eighth of the step."""
    return FiniteVolumeBurgers(burgers.DT / burgers.FINE_STEPS, burgers.VISCOSITIES[0])


def coarse_solver() -> Simulator:
    return FiniteVolumeBurgers(burgers.DT, burgers.VISCOSITIES[0])


def on_coarse(fine: Tensor) -> Tensor:
    """Means of the fine cells in a coarse one; leading axes stay."""
    return fine.unflatten(-1, (burgers.CELLS, -1)).mean(-1)


def drawn(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Fine initial states and viscosities, as the training's are drawn."""
    generator = torch.Generator().manual_seed(1000 + seed)
    low, high = (math.log(value) for value in burgers.VISCOSITIES)
    share = torch.rand(count, generator=generator, dtype=torch.float64)
    return burgers.waves(generator, count, FINE_CELLS).double(), torch.exp(low + (high - low) * share)


def in_double(hybrid: Any) -> Any:
    """Line searches want more digits than the training had."""
    return dp.HybridSimulator(hybrid.coarse, hybrid.network.double(), hybrid.where, hybrid.layout)


# -- control -----------------------------------------------------------------------------------------------------------


def shapes(cells: int) -> Tensor:
    """Bumps of force between 0 and 0.45, ``(ACTUATORS, cells)``: means over the cells of the finest grid used."""
    x = (torch.arange(FINE_CELLS, dtype=torch.float64) + 0.5) / FINE_CELLS
    centres = 0.05 + 0.4 * torch.arange(ACTUATORS, dtype=torch.float64)[:, None] / (ACTUATORS - 1)
    bumps = torch.exp(-(((x - centres) / 0.06) ** 2))
    return bumps.unflatten(1, (cells, -1)).mean(-1)


def pushed(solver: Simulator, cells: int, every: int) -> Simulator:
    """With actuators that hold their strengths during a coarse step."""
    moved = Actuated(solver, shapes(cells))
    return moved if every == 1 else dp.Substeps(moved, every)


def hidden(seed: int) -> Tensor:
    """Smooth strengths ``(STEPS, SCENES, ACTUATORS)`` that lead to the targets."""
    generator = torch.Generator().manual_seed(2000 + seed)
    t = torch.arange(STEPS, dtype=torch.float64)[:, None, None] / STEPS
    size = torch.randn(3, SCENES, ACTUATORS, generator=generator, dtype=torch.float64)
    return 3.0 * (size[0] + size[1] * torch.sin(math.pi * t) + size[2] * torch.cos(math.pi * t))


def control(models: dict[str, tuple[Simulator, int, int]], seed: int) -> dict[str, Any]:
    """Strengths found through each model, replayed in the fine solver."""
    start, viscosity = drawn(SCENES, seed)
    given = {"viscosity": viscosity}
    plant = pushed(fine_solver(), FINE_CELLS, burgers.FINE_STEPS)

    def end(strengths: Tensor) -> Tensor:
        return on_coarse(dp.rollout(plant, start, strengths, parameters=given).states[-1])

    target = end(hidden(seed))
    apart = (end(torch.zeros_like(hidden(seed))) - target).norm(dim=1).mean()
    found = {}
    for label, (solver, cells, every) in models.items():
        problem = dp.control_problem(
            pushed(solver, cells, every),
            initial_state=start.unflatten(1, (cells, -1)).mean(-1),
            horizon=STEPS,
            objective=dp.reach(target, of=on_coarse) + WEIGHT * dp.effort(),
            control=dp.ControlSequence(ACTUATORS),
            scenarios=given,
            name=label,
        )
        began = time.process_time()
        solution = dp.solve(problem, "lbfgs", iterations=150, progress=False)
        seconds = time.process_time() - began
        strengths = solution.trajectory().controls
        believed = (on_coarse(solution.trajectory().states[-1]) - target).norm(dim=1).mean()
        found[label] = {
            "missed": float((end(strengths) - target).norm(dim=1).mean() / apart),
            "believed": float(believed / apart),
            "effort": float(strengths.square().sum((0, 2)).mean()),
            "gradients": solution.counts.gradients,
            "cpu_seconds": round(seconds, 1),
        }
    return found


# -- inference ---------------------------------------------------------------------------------------------------------


def inference(models: dict[str, tuple[Simulator, int, int]], seed: int) -> dict[str, Any]:
    """Viscosities found through each model from the same noisy gauges in the fine solver's states."""
    start, viscosity = drawn(EXPERIMENTS, 50 + seed)
    plant = dp.Substeps(fine_solver(), burgers.FINE_STEPS)
    truth = dp.rollout(plant, start, length=LENGTH, parameters={"viscosity": viscosity}).states
    moments = range(BETWEEN, LENGTH + 1, BETWEEN)

    def gauges(state: Tensor) -> Tensor:
        return on_coarse(state)[..., :: burgers.CELLS // GAUGES]

    clean = gauges(truth[BETWEEN::BETWEEN])
    generator = torch.Generator().manual_seed(3000 + seed)
    data = clean + NOISE * torch.randn(clean.shape, generator=generator, dtype=torch.float64)
    found = {}
    for label, (solver, cells, every) in models.items():
        problem = dp.control_problem(
            solver if every == 1 else dp.Substeps(solver, every),
            initial_state=start.unflatten(1, (cells, -1)).mean(-1),
            horizon=LENGTH,
            objective=dp.track(data, steps=moments, of=gauges),
            unknown=dp.Parameters("viscosity", low=1e-5, high=2e-2, start={"viscosity": 2e-3}, shared=False),
            name=label,
        )
        solution = dp.solve(problem, "lbfgs", iterations=60, progress=False)
        wrong = torch.log(solution.value["parameters"]["viscosity"] / viscosity)
        found[label] = {
            "bias": float(wrong.mean().exp()),
            "spread": float(wrong.std()),
            "misfit": float(solution.loss / (data[:, 0].numel() * NOISE**2)),
        }
    return found


# -- everything --------------------------------------------------------------------------------------------------------


def main(size: str) -> None:
    torch.set_num_threads(1)
    problem, budget = posed(size), dp.Budget(simulated_steps=BUDGET[size])
    coarse = {"coarse": (coarse_solver(), burgers.CELLS, 1)}
    fine = {"fine": (fine_solver(), FINE_CELLS, burgers.FINE_STEPS)}
    record: dict[str, Any] = {
        "command": "python tests/benchmarks/hybrid_as_simulator.py",
        "budget": budget.simulated_steps,
        "seeds": [],
    }
    for seed in SEEDS:
        began = time.process_time()
        solution = dp.solve(problem, "unrolled", seed=seed, budget=budget, progress=False, **TRAINING)
        trained = time.process_time() - began
        hybrid = {"hybrid": (in_double(dp.corrected(problem, solution.value)), burgers.CELLS, 1)}
        one = {
            "seed": seed,
            "training_cpu_seconds": round(trained),
            "error_ratio": solution.metrics["error_ratio"],
            "control": control({**coarse, **hybrid, **fine}, seed),
            "inference": inference({**coarse, **hybrid, **fine}, seed),
        }
        record["seeds"].append(one)
        print(json.dumps(one, indent=1), flush=True)
    if size == "full":
        RECORD.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "full")
