"""Plumes steered by their initial velocity: what gets furthest on a loss that jumps, for 80 and for 1000 gradients.

    python tests/benchmarks/smoke_inverse.py                # about twelve CPU minutes
    python tests/benchmarks/smoke_inverse.py 80 "1000 lbfgs"    # only searches whose name begins so

Writes ``results/smoke_inverse.json``. One thread. Each number is one deterministic search of all four plumes; rounding
decorrelates searches on this loss, so that differences of a few per cent mean nothing: the first search is repeated
from starts that differ by 1e-12.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from dpcontrol.problems import smoke_inverse
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts, LRScheduler

from dpcontrol import tree
from dpcontrol.meter import Budget
from dpcontrol.problem import Problem
from dpcontrol.run import Strategy, run
from dpcontrol.strategies.minimising.first_order import Adjoint
from dpcontrol.strategies.minimising.multistart import MultiStart
from dpcontrol.strategies.minimising.quasi_newton import LBFGS

RESULT = Path(__file__).parent / "results" / "smoke_inverse.json"
PLUMES = len(smoke_inverse.SOURCES)
Found = tuple[list[float], dict[str, Any]]  # the loss of each plume; what was found


def at(problem: Problem, value: dict[str, Any]) -> Problem:
    """The problem with another start guess."""
    data = {**problem.scenarios.data, "initial_state": value["initial_state"]}
    return replace(problem, scenarios=replace(problem.scenarios, data=data))


def by(strategy: Strategy, gradients: int, problem: Problem | None = None) -> Found:
    """One search."""
    solution = run(problem or smoke_inverse.problem(), strategy, budget=Budget(gradients=gradients * PLUMES))
    return [float(loss) for loss in solution.losses], dict(solution.value)


def shifted(seed: int) -> Found:
    """The first search from a start at the level of rounding."""
    problem, generator = smoke_inverse.problem(), torch.Generator().manual_seed(seed)
    start = tree.map(
        lambda leaf: 1e-12 * torch.randn(leaf.shape, generator=generator, dtype=leaf.dtype), problem.start()
    )
    return by(Adjoint(), 80, at(problem, start))


def polished(gradients: int) -> Found:
    """Three quarters by Adam, the rest by L-BFGS from there."""
    problem = smoke_inverse.problem()
    _, value = by(Adjoint(schedule="cosine"), 3 * gradients // 4, problem)
    return by(LBFGS(), gradients // 4, at(problem, value))


def softly(gradients: int) -> Found:
    """A third on the smooth problem without MacCormack's correction, the rest on the true one from there."""
    problem = smoke_inverse.problem()
    soft = replace(problem, simulator=replace(smoke_inverse.SIMULATOR, marker_scheme="semi_lagrangian"))
    _, value = by(Adjoint(schedule="cosine"), gradients // 3, soft)
    return by(Adjoint(schedule="cosine", learning_rate=0.025), gradients - gradients // 3, at(problem, value))


def averaged(gradients: int, copies: int, spread: float) -> Found:
    """Adam with gradients averaged over random shifts of the velocity by ``spread``: each copy costs one."""
    problem, generator = smoke_inverse.problem(), torch.Generator().manual_seed(0)
    everyone = torch.arange(PLUMES).repeat(copies)

    def slope(air: dict[str, Tensor]) -> dict[str, Tensor]:
        moved = {
            name: part.repeat(copies, 1, 1)
            + spread * torch.randn(copies * PLUMES, *part.shape[1:], generator=generator, dtype=part.dtype)
            for name, part in air.items()
        }
        sought = {name: part.requires_grad_() for name, part in moved.items()}
        loss = problem.loss({"initial_state": sought}, everyone).sum() / copies
        parts = torch.autograd.grad(loss, list(sought.values()))
        return {
            name: part.view(copies, *air[name].shape).sum(0) for name, part in zip(air, parts, strict=True)
        }

    return _adam(problem, gradients // (copies + 1), slope)


def blurred(gradients: int, width: float) -> Found:
    """Adam on a velocity that is a Gaussian blur of what is sought: rough parts move slowly."""
    problem = smoke_inverse.problem()
    reach = torch.arange(-6, 7, dtype=torch.float64)
    weights = torch.exp(-(reach**2) / (2 * width**2))
    weights = weights / weights.sum()

    def blur(part: Tensor) -> Tensor:
        wide = torch.nn.functional.conv2d(part[:, None], weights.view(1, 1, -1, 1), padding=(6, 0))
        return torch.nn.functional.conv2d(wide, weights.view(1, 1, 1, -1), padding=(0, 6))[:, 0]

    def slope(rough: dict[str, Tensor]) -> dict[str, Tensor]:
        sought = {name: part.clone().requires_grad_() for name, part in rough.items()}
        loss = problem.loss({"initial_state": {name: blur(part) for name, part in sought.items()}}).sum()
        return dict(zip(rough, torch.autograd.grad(loss, list(sought.values())), strict=True))

    return _adam(problem, gradients // 2, slope, shown=blur)


def _adam(
    problem: Problem,
    iterations: int,
    slope: Callable[[dict[str, Tensor]], dict[str, Tensor]],
    shown: Callable[[Tensor], Tensor] = lambda part: part,
) -> Found:
    """Adam with a cosine schedule on gradients from ``slope``; the best values that were met at ``shown(unknown)``."""
    air = {name: torch.nn.Parameter(part.clone()) for name, part in problem.start()["initial_state"].items()}
    optimizer = torch.optim.Adam(air.values(), lr=0.1)  # 0.05 of the magnitude, which is 2
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, iterations)
    best = torch.full((PLUMES,), torch.inf, dtype=torch.float64)
    for _ in range(iterations):
        for name, part in slope({name: part.detach() for name, part in air.items()}).items():
            air[name].grad = part
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            best = torch.minimum(
                best, problem.loss({"initial_state": {name: shown(part) for name, part in air.items()}})
            )
    return [float(loss) for loss in best], {}


def restarts(optimizer: Optimizer) -> LRScheduler:
    """Rates that fall to zero four times."""
    return CosineAnnealingWarmRestarts(optimizer, 250)


SEARCHES: dict[str, Callable[[], Found]] = {
    "80 adjoint": lambda: by(Adjoint(), 80),
    "80 adjoint, start shifted by rounding, 1": lambda: shifted(1),
    "80 adjoint, start shifted by rounding, 2": lambda: shifted(2),
    "80 adjoint, rate 0.025": lambda: by(Adjoint(learning_rate=0.025), 80),
    "80 adjoint, rate 0.1": lambda: by(Adjoint(learning_rate=0.1), 80),
    "80 adjoint, cosine": lambda: by(Adjoint(schedule="cosine"), 80),
    "80 adjoint, sgd, rate 1e-3 (published)": lambda: by(Adjoint(optimizer="sgd", learning_rate=1e-3), 80),
    "80 lbfgs": lambda: by(LBFGS(), 80),
    "1000 adjoint": lambda: by(Adjoint(), 1000),
    "1000 adjoint, cosine": lambda: by(Adjoint(schedule="cosine"), 1000),
    "1000 adjoint, rate 0.025, cosine": lambda: by(Adjoint(learning_rate=0.025, schedule="cosine"), 1000),
    "1000 adjoint, rate 0.1, cosine": lambda: by(Adjoint(learning_rate=0.1, schedule="cosine"), 1000),
    "1000 adjoint, cosine, four times": lambda: by(Adjoint(schedule=restarts), 1000),
    "1000 adjoint, sgd, momentum 0.9": lambda: by(
        Adjoint(optimizer="sgd", learning_rate=2e-3, momentum=0.9, schedule="cosine"), 1000
    ),
    "1000 lbfgs": lambda: by(LBFGS(), 1000),
    "1000 lbfgs after adjoint": lambda: polished(1000),
    "1000 adjoint, without correction at first": lambda: softly(1000),
    "1000 adjoint from 4 starts": lambda: by(
        MultiStart(Adjoint(iterations=250, schedule="cosine"), starts=4, spread=0.2), 1000
    ),
    "1000 adjoint, gradients averaged over 3 shifts by 0.02": lambda: averaged(1000, 3, 0.02),
    "1000 adjoint, blurred by 1 cell": lambda: blurred(1000, 1.0),
    "4000 adjoint, cosine": lambda: by(Adjoint(schedule="cosine"), 4000),
}


def main(prefixes: list[str]) -> None:
    record = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    record["command"] = "python tests/benchmarks/smoke_inverse.py"
    record["torch"] = torch.__version__
    record["published"] = {"gradient descent, 80": 169.9, "start": 298.286}
    found = record.setdefault("searches", {})
    for name, search in SEARCHES.items():
        if prefixes and not any(name.startswith(prefix) for prefix in prefixes):
            continue
        begun = time.process_time()
        losses, _ = search()
        found[name] = {
            "published loss": round(sum(losses), 2),
            "plumes": [round(loss, 3) for loss in losses],
            "cpu seconds": round(time.process_time() - begun, 1),
        }
        print(name, json.dumps(found[name]), flush=True)
        record["searches"] = {key: found[key] for key in SEARCHES if key in found}
        RESULT.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1:])
