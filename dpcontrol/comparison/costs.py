r"""What quality costs: to get near the best, to decide once more, and from how many scenes on learning pays.

- **To get there**: simulated steps and seconds until a run's mean loss is within ``WITHIN`` of the lowest mean loss of
  any run, :math:`L \le L^* + x |L^*|`. Medians over runs, those that never get there counted as infinite.
- **A course** is a run's mean loss, best so far, over what it had cost. Learned methods watch validation scenes while
  they train; only the end is judged on the problem's scenes. So a course is scaled (shifted, where signs differ) to end
  at the judged loss: exact for what is solved on the judged scenes, an estimate for what is learned.
- **Break-even**: a controller costs its whole training :math:`T` once, all its tuning trials among it, a solver
  :math:`c` for each scene until it is as good as the controller, and its own tuning trials :math:`U` once; from
  :math:`n = (T - U) / (c - d)` scenes on the controller has cost less, with :math:`d` the cost of its decisions in one
  scene (no simulated steps, some seconds). The solver with the smallest cost a scene counts. Where a simple law is as
  good as the controller, its training never pays.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dpcontrol.comparison.decisions import NETWORK, REPLANNED, SOLVED
from dpcontrol.comparison.records import NOT_RUN, REFUSED, Results, Run
from dpcontrol.comparison.summary import Summary

WITHIN = 0.10
STEPS, SECONDS = "simulated_steps", "seconds"


@dataclass(frozen=True)
class Reached:
    """What it costs to get near the best; ``None`` where at least half of the runs never do."""

    steps: float | None
    seconds: float | None
    runs: int
    asked: int


@dataclass(frozen=True)
class BreakEven:
    """From how many scenes on a controller has cost less than solving each.

    Attributes:
        controller, solver: their labels; the solver is ``None`` where none gets as good as the controller.
        steps, seconds: numbers of scenes, infinite where a decision costs more than a solve; ``None`` without a solver,
            seconds also where those of tuning trials were not kept.
        per_scene: simulated steps of the solver for each scene, until it is as good.
        gap: how far the controller's loss is above that of the best solver, relative; ``None`` without a solver.
        law: a simple law that is at least as good as the controller: it needs no training, so nothing breaks even.
    """

    controller: str
    solver: str | None
    steps: float | None
    seconds: float | None
    per_scene: float | None
    gap: float | None
    law: str | None = None

    @property
    def equal(self) -> bool:
        """Whether the controller is as good as what solving can give, within ``WITHIN``."""
        return self.gap is None or self.gap <= WITHIN + 1e-9


def threshold(results: Results) -> float | None:
    """The loss that counts as near the best: that of the best run, with a margin."""
    losses = [run.record["loss"] for run in results.runs if run.answered]
    return None if not losses else min(losses) + WITHIN * abs(min(losses))


def course(run: Run) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Simulated steps, seconds and mean losses ``(rows,)`` of a run, ending at its judged loss."""
    history = run.history
    loss = np.asarray(history.get("loss", []), float)
    steps, seconds = (np.asarray(history.get(name, []), float) for name in (STEPS, SECONDS))
    if not loss.size or not run.answered or not np.isfinite(loss[-1]):
        empty = np.zeros(0)
        return empty, empty, empty
    end, judged = loss[-1], float(run.record["loss"])
    scaled = loss * (judged / end) if end * judged > 0 else loss + (judged - end)
    return steps, seconds, scaled


def cost_to(run: Run, level: float) -> tuple[float, float]:
    """Simulated steps and seconds until a run's course is at ``level`` or below; infinite if it never is."""
    steps, seconds, loss = course(run)
    tolerance = 1e-12 * abs(level)
    if not run.answered or run.record["loss"] > level + tolerance:
        return math.inf, math.inf
    if (
        not loss.size or run.decision.get("kind") == REPLANNED
    ):  # an answer that is there at the end: all that it cost
        return float(run.record["counts"][STEPS]), float(run.record["seconds"])
    first = int(np.argmax(loss <= level + tolerance))
    return float(steps[first]), float(seconds[first])


def reached(results: Results, label: str) -> Reached:
    """What a strategy pays to get near the best, over all its runs that ran."""
    runs = [run for run in results.of(label) if run.status not in (REFUSED, NOT_RUN)]
    level = threshold(results)
    if level is None or not runs:
        return Reached(None, None, 0, len(runs))
    costs = np.array([cost_to(run, level) for run in runs])
    there = int(np.isfinite(costs[:, 0]).sum())
    steps, seconds = (_median(costs[:, column]) for column in (0, 1))
    return Reached(steps, seconds, there, len(runs))


def _median(values: np.ndarray) -> float | None:
    """The median with infinite entries; of an even number the upper one, so that half have really got there."""
    middle = float(np.sort(values)[len(values) // 2])
    return middle if math.isfinite(middle) else None


def kind_of(results: Results, label: str) -> str | None:
    """The kind of a strategy's decisions; ``None`` where no run says so."""
    return next((str(run.decision["kind"]) for run in results.of(label) if run.decision), None)


def decision_seconds(results: Results, label: str) -> float | None:
    """Seconds of one decision, the median over runs."""
    found = [run.decision["seconds"] for run in results.of(label) if run.decision]
    return float(np.median(found)) if found else None


def break_even(results: Results, summaries: Sequence[Summary]) -> list[BreakEven]:
    """One entry for each amortised controller, where something was solved scene by scene; in the summaries' order."""
    kinds = {summary.label: kind_of(results, summary.label) for summary in summaries}
    solvers = [summary for summary in summaries if kinds[summary.label] == SOLVED and summary.complete]
    controllers = [s for s in summaries if kinds[s.label] == NETWORK and s.complete]
    laws = [summary for summary in summaries if summary.law and summary.complete]
    return [_against(results, each, solvers, laws) for each in controllers] if solvers else []


def _against(
    results: Results, controller: Summary, solvers: Sequence[Summary], laws: Sequence[Summary]
) -> BreakEven:
    assert controller.loss is not None
    for law in laws:  # best first
        if law.loss is not None and law.loss.value <= controller.loss.value:
            return BreakEven(controller.label, None, None, None, None, None, law.label)
    quality, scenes = controller.loss.value, results.asked["scenarios"]
    best = min(summary.loss.value for summary in solvers if summary.loss is not None)
    costs = {}
    for solver in solvers:
        found = np.array([cost_to(run, quality) for run in results.of(solver.label)])
        steps, seconds = _median(found[:, 0]), _median(found[:, 1])
        if steps is not None and seconds is not None:
            costs[solver.label] = steps / scenes, seconds / scenes
    if not costs:
        return BreakEven(controller.label, None, None, None, None, None)
    cheapest = min(costs, key=lambda label: costs[label])
    per_scene, per_scene_seconds = costs[cheapest]
    trials, seconds_tried = tuning_cost(results, controller.label)
    others, others_seconds = tuning_cost(results, cheapest)
    once = controller.simulated_steps + trials - others
    known = seconds_tried is not None and others_seconds is not None
    once_seconds = controller.seconds + (seconds_tried or 0.0) - (others_seconds or 0.0)
    deciding = (decision_seconds(results, controller.label) or 0.0) * results.asked["horizon"]
    return BreakEven(
        controller.label,
        cheapest,
        scenes_until(once, per_scene),
        scenes_until(once_seconds, per_scene_seconds - deciding) if known else None,
        per_scene,
        (quality - best) / (abs(best) or 1.0),
    )


def tuning_cost(results: Results, label: str) -> tuple[float, float | None]:
    """Simulated steps and seconds of all tuning trials of a strategy; seconds are ``None`` where they were not kept."""
    tuned = next((run.record.get("tuned") for run in results.of(label)), None)
    if tuned is None:
        return 0.0, 0.0
    seconds = tuned.get("seconds")
    return float(tuned["simulated_steps"]), None if seconds is None else float(seconds)


def scenes_until(once: float, saved: float) -> float:
    """From how many scenes on, one or more, what was paid once is less than what each scene saves."""
    return max(1, math.ceil(once / saved - 1e-9)) if saved > 0 else math.inf
