"""``baseline``: what the problem's own simple feedback laws achieve."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dpcontrol import tree
from dpcontrol.meter import Meter
from dpcontrol.problem import ControlSequence, Demand, Problem, View
from dpcontrol.problem.unknown import Law
from dpcontrol.results import Status, UsageError
from dpcontrol.run import Outcome, Strategy
from dpcontrol.strategies.checks import nearest


@dataclass(frozen=True)
class Baseline(Strategy):
    r"""Let a feedback law ``u_k = law(x_k, t_k)`` of the problem act on the plant, and score the control that it gave.

    The bar that an optimised control must clear. One rollout is charged for each law that is tried.

    Args:
        law: name of one of the problem's laws; the one with the lowest mean loss by default.
    """

    law: str | None = None

    def __post_init__(self) -> None:
        if self.law is not None and not isinstance(self.law, str):
            raise UsageError(f"Baseline(law=...) must be the name of a law, or None; found {self.law!r}.")

    @property
    def needs(self) -> frozenset[View]:
        return frozenset({View.LOSS, View.BASELINES})

    @property
    def honours(self) -> frozenset[Demand]:
        return frozenset({Demand.BOUNDS})

    def _check(self, problem: Problem) -> None:
        slots = problem.unknown.slots
        if len(slots) != 1 or not isinstance(slots[0], ControlSequence) or slots[0].shared:
            raise UsageError(
                f"Baseline records what a law does as one open-loop control per scenario, but {problem.name} seeks "
                f"{', '.join(slot.name for slot in slots)}{' (shared)' if slots[0].shared else ''}: "
                "ask it with problem.with_unknown(ControlSequence(...))."
            )
        if self.law is not None and self.law not in problem.baselines:
            raise UsageError(
                f"{problem.name} has no law called {self.law!r}; {nearest(self.law, list(problem.baselines))}"
            )

    def run(self, meter: Meter, generator: torch.Generator) -> Outcome:
        problem = meter.problem
        self._check(problem)
        names = [self.law] if self.law is not None else list(problem.baselines)
        tried = {name: _scored(problem, problem.baselines[name]) for name in names}
        means = {name: float(losses.mean()) for name, (_, losses) in tried.items()}
        best = min(means, key=lambda name: means[name] if means[name] == means[name] else float("inf"))
        x, losses = tried[best]
        losses = torch.where(torch.isfinite(losses), losses, torch.full_like(losses, float("inf")))
        meter.observe(x, losses, steps=len(names) * problem.scenarios.count * problem.horizon)
        listed = ", ".join(
            f"{name} {mean:.4g}" for name, mean in sorted(means.items(), key=lambda pair: pair[1])
        )
        return Outcome(
            Status("scored", f"the law {best} was scored (mean losses: {listed})."), meter.trees(x)
        )


def _scored(problem: Problem, law: Law) -> tuple[Tensor, Tensor]:
    """The law's controls as rows of free numbers, and their losses ``(scenarios,)`` on the plant."""
    with torch.no_grad():
        played = problem.run_law(law).controls
        # a closing control follows from the others, so it is not free
        free = tree.map(lambda u: u[: problem.free_steps].transpose(0, 1).contiguous(), played)
        z = {"control": free}
        return tree.ravel(problem.unknown.free(z), batch=1), problem.judge(z)
