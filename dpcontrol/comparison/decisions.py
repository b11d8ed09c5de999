"""What one decision costs once a run is over: a call of a network, a step of a replanning run, or a whole solve.

A decision is one control for one scene. Controllers are measured, one scene at a time, along the states of their own
run: the mean over an episode, of the quickest of several. What plans again at every step is measured in a run of one
scene alone, which may simulate what a scene of the batch did. What was solved scene by scene has no controller to call:
a new scene has to be solved like those before it, and costs the run's seconds over its scenes (all scenes ran as one
batch, so that a single scene would cost more).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from dpcontrol import tree
from dpcontrol.meter import Budget
from dpcontrol.problem import Problem
from dpcontrol.problem.unknown import Forgetful, Inputs, Remembering
from dpcontrol.run import Strategy, run
from dpcontrol.solution import Solution
from dpcontrol.strategies.baselines import Baseline

# Kinds of decisions.
NETWORK, LAW, REPLANNED, SOLVED, TOGETHER = "network", "law", "replanned", "solved", "together"
MOST, LONG_ENOUGH = 50, 0.1  # episodes that are timed, and seconds for them


@dataclass(frozen=True)
class Decision:
    """What the next decision costs: its kind, and seconds (for ``SOLVED``: of all decisions of one more scene).

    ``NETWORK`` and ``LAW`` were called, ``REPLANNED`` ran with one scene, deciding as it goes, ``SOLVED`` needs a solve
    for each new scene; ``TOGETHER`` is sought for all scenes at once, so that a new scene asks for nothing new.
    """

    kind: str
    seconds: float

    def record(self) -> dict[str, Any]:
        """Plain values."""
        return {"kind": self.kind, "seconds": self.seconds}


def decision_of(strategy: Strategy, problem: Problem, solution: Solution) -> Decision | None:
    """Measured after a run; ``None`` where nothing acts in time."""
    posed = solution.problem or problem
    if problem.free_steps == 0 or posed.prior is not None or solution.trajectory().controls is None:
        return None
    scenes = max(1, problem.scenarios.count)
    if strategy.replans:
        seconds = solution.seconds if scenes == 1 else _alone(strategy, problem, solution)
        return Decision(REPLANNED, seconds / problem.free_steps)
    if isinstance(strategy, Baseline):
        name = strategy.law or _best_law(solution, problem)
        return Decision(LAW, seconds_of(problem, Forgetful(problem.baselines[name]), solution))
    start = posed.scenarios.data["initial_state"]
    acting = posed.unknown.place(solution.value, Inputs(initial_state=start)).acting
    if acting is not None:
        return Decision(NETWORK, seconds_of(posed, acting, solution))
    return Decision(SOLVED if posed.unknown.separate else TOGETHER, solution.seconds / scenes)


def _alone(strategy: Strategy, problem: Problem, solution: Solution) -> float:
    """Seconds of a run of one scene, which may cost what a scene of the batch did."""
    scenes = problem.scenarios
    first = int(torch.isfinite(solution.losses).int().argmax())  # one that ended well
    spent = solution.counts
    share = Budget(
        simulated_steps=math.ceil(spent.simulated_steps / scenes.count),
        gradients=math.ceil(spent.gradients / scenes.count) or None,
    )
    alone = problem.with_scenarios(scenes.subset(torch.tensor([first])))
    found = run(alone, strategy, budget=share, seed=solution.seed)
    if found.status.kind == "interrupted":
        raise KeyboardInterrupt
    return found.seconds


def seconds_of(problem: Problem, acting: Remembering, solution: Solution) -> float:
    """Seconds of one decision in the first scene, mean over an episode: the least of several repetitions."""
    scene = problem.scenarios.take(torch.zeros(1, dtype=torch.long))
    path = tree.map(lambda leaf: leaf[:, :1], solution.trajectory().states)
    states = [tree.map(lambda leaf, k=k: leaf[k], path) for k in range(problem.free_steps)]

    def episode() -> None:
        memory = acting.begin(states[0], scene)
        for k, state in enumerate(states):
            _, memory = acting.act(memory, state, k * problem.simulator.dt, scene)

    with torch.no_grad():
        taken = [_timed(episode), _timed(episode)]
        # a first episode warms caches; a slow controller is not asked again and again
        while len(taken) < MOST and sum(taken) < LONG_ENOUGH:
            taken.append(_timed(episode))
    return min(taken[1:]) / problem.free_steps


def _timed(call: Callable[[], None]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _best_law(solution: Solution, problem: Problem) -> str:
    """Which law an unnamed baseline chose: its status names it."""
    said = solution.status.sentence
    return next(
        (name for name in problem.baselines if f"the law {name} " in said), next(iter(problem.baselines))
    )
