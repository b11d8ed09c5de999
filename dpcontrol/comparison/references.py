"""What is shown beside the solutions and does not compete: the uncontrolled system, and known courses."""

from __future__ import annotations

from typing import Any

import torch

from dpcontrol import tree
from dpcontrol.engine import Trajectory, rollout
from dpcontrol.problem.base import Problem
from dpcontrol.results import Counts, Status
from dpcontrol.solution import Solution

UNCONTROLLED = "uncontrolled"


def reference_solutions(problem: Problem) -> dict[str, Solution]:
    """Label -> solution: ``uncontrolled`` where there is a control, then the problem's references."""
    with torch.no_grad():
        start = problem.simulate(problem.start())
        found: dict[str, Trajectory] = {}
        if start.controls is not None and problem.horizon > 0:
            found[UNCONTROLLED] = _uncontrolled(problem, start)
        for name, law in problem.references.items():
            found[name] = problem.run_law(law)
    return {name: _as_solution(problem, name, trajectory) for name, trajectory in found.items()}


def _uncontrolled(problem: Problem, like: Trajectory) -> Trajectory:
    system = problem.plant or problem.simulator
    data = problem.scenarios.data
    noise: Any = data.get("noise")
    return rollout(
        system,
        tree.map(lambda leaf: leaf[0], like.states),
        tree.map(torch.zeros_like, like.controls),
        parameters={**problem.parameters, **{name: data[name] for name in system.parameters if name in data}},
        scenario=data,
        noise=None if noise is None else tree.map(lambda leaf: leaf.transpose(0, 1), noise),
    )


def _as_solution(problem: Problem, name: str, trajectory: Trajectory) -> Solution:
    """A trajectory in the form that figures take; it has no loss, since nobody looked for it."""
    samples = {} if name == UNCONTROLLED else problem.metric_samples(trajectory)
    return Solution(
        problem=None,
        strategy=name,
        configuration="",
        seed=0,
        budget={},
        value={},
        status=Status("scored", "shown for reference; it does not compete."),
        loss=float("nan"),
        losses=torch.full((problem.scenarios.count,), float("nan")),
        metrics={key: float(top.mean() / bottom.mean()) for key, (top, bottom) in samples.items()},
        history={},
        counts=Counts(),
        seconds=0.0,
        _stored=trajectory,
    )
