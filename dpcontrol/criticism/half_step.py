"""Is the time step small enough for a posterior? The same problem, and the same posterior, at half the step."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from dpcontrol.criticism.changes import Change, compared, log_densities, thinned, weighted
from dpcontrol.meter import Budget
from dpcontrol.posterior.weights import pareto_shape
from dpcontrol.posterior.words import counted, number, table
from dpcontrol.problem.base import Problem
from dpcontrol.results import UsageError
from dpcontrol.run import Strategy
from dpcontrol.sim.base import Simulator, Substeps, Wrapper
from dpcontrol.sim.external import BlackBox, JaxFunction, PhiFlowStep
from dpcontrol.sim.function import FunctionSimulator, Steady
from dpcontrol.sim.linear import DiscreteLinear
from dpcontrol.solution import Solution
from dpcontrol.solving import solve
from dpcontrol.strategies.names import name_of, resolve

FINITE = 0.5  # Pareto k below which weighted means have a finite variance
# steps that are what somebody made them: a smaller dt would change the clock and not the step
FIXED = (FunctionSimulator, DiscreteLinear, BlackBox, JaxFunction, PhiFlowStep)


def at_half_step(problem: Problem) -> Problem:
    """The same problem with half the time step: two steps of ``dt / 2`` in the place of each step of ``dt``.

    Controls, data and horizon are as they were.

    Raises:
        UsageError: where the simulator has no step of its own to halve, or where noise enters at every step.
    """
    stochastic = "noise" in problem.unknown.names or "noise" in problem.scenarios.data
    if stochastic:
        raise UsageError(
            f"{problem.name} is driven by noise at every step, and two half steps would need other noise: compare with "
            "a problem that is posed with half the dt."
        )
    return dataclasses.replace(problem, simulator=Substeps(_halved(problem.simulator), 2), origin=None)


def _halved(simulator: Any) -> Simulator:
    """The simulator with half its ``dt``."""
    if isinstance(simulator, Substeps):
        return Substeps(_halved(simulator.inner), simulator.count)
    names = (
        {entry.name for entry in dataclasses.fields(simulator) if entry.init}
        if _is_noun(simulator)
        else set()
    )
    if isinstance(simulator, Wrapper) and "inner" in names:
        return dataclasses.replace(simulator, inner=_halved(simulator.inner))  # type: ignore[type-var]
    step = next((name for name in ("dt", "fine_dt") if name in names), None)
    if step is not None and not isinstance(simulator, FIXED):
        return dataclasses.replace(simulator, **{step: getattr(simulator, step) / 2})
    reason = "has no time step" if isinstance(simulator, Steady) else "has no dt that its step depends on"
    raise UsageError(
        f"half a step cannot be taken of {type(simulator).__name__}, which {reason}: pose the problem again with a "
        "finer discretisation and compare the two posteriors."
    )


def _is_noun(simulator: Any) -> bool:
    return dataclasses.is_dataclass(simulator)


@dataclass(frozen=True)
class HalfStep:
    """A posterior beside that at half the time step; ``print`` it.

    Attributes:
        problem: its name.
        dt: the whole step.
        how: ``weights`` (the draws were weighted anew) or the name of the strategy that sampled again.
        pareto: Pareto k of the weights; below 0.5 they have a finite variance.
        draws: how many draws of the given posterior were used; ``failures``, how many of them failed at half the step.
        changes: of every quantity, the largest first.
    """

    problem: str
    dt: float
    how: str
    pareto: float
    draws: int
    failures: int
    changes: tuple[Change, ...]

    @property
    def passed(self) -> bool:
        """Whether the time step is known to be small enough."""
        return all(each.small for each in self.changes)

    @property
    def verdict(self) -> str:
        """One paragraph."""
        k = number(self.pareto, 2)
        told = (
            f"by weighting {counted(self.draws, 'draw')} anew, Pareto k {k}"
            if self.how == "weights"
            else f"by sampling again with {self.how}; Pareto k of weights {k}"
        )
        failed = f" {counted(self.failures, 'draw')} failed at half the step." if self.failures else ""
        worst = self.changes[0]
        figures = f"most: {_in_words(worst)}; {told}"
        dt = number(self.dt)
        order = "The whole error of the step is twice that for a scheme of first order, a third more for one of second."
        if any(each.large for each in self.changes):
            names = ", ".join(each.name for each in self.changes if each.large)
            return (
                f"the time step {dt} is TOO LARGE for this posterior: half of it changes {names} by more than a tenth "
                f"of the posterior sd ({figures}). {order} Halve dt.{failed}"
            )
        if self.passed:
            return (
                f"the time step {dt} is small enough: half of it changes every mean and sd by less than a tenth of the "
                f"posterior sd ({figures}). {order}{failed}"
            )
        return (
            f"no change at half the time step {dt} was found ({figures}), but the Monte Carlo error leaves room for "
            f"more than a tenth of a posterior sd: make more draws.{failed}"
        )

    def __str__(self) -> str:
        head = ["", "shift of mean / sd", "ratio of sds", ""]
        rows = [
            [
                each.name,
                _signed(each.shift, each.shift_error),
                _with_error(each.ratio, each.ratio_error),
                "too large" if each.large else "" if each.small else "not known well enough",
            ]
            for each in self.changes
        ]
        title = f"{self.problem} at half the time step"
        return "\n".join([title, table(head, rows), f"verdict: {self.verdict}"])


def posterior_at_half_step(
    problem: Problem,
    solution: Solution,
    *,
    draws: int = 1000,
    again: bool | None = None,
    strategy: str | Strategy | None = None,
    budget: Budget | None = None,
    seed: int = 0,
    **options: Any,
) -> HalfStep:
    r"""What becomes of a posterior at half the time step: shifts of means and ratios of standard deviations.

    First the draws :math:`z_i` that there are get weights :math:`w_i \propto \pi_{dt/2}(z_i) / \pi_{dt}(z_i)`: a
    rollout of each at both steps. Where these have a finite variance (Pareto k below 0.5) weighted moments answer, with
    the same draws in both, so that small changes are seen; else the posterior at half the step is sampled again.
    Monte Carlo errors are those of leaving out blocks of consecutive draws, one by one.

    Args:
        problem: the one that was solved.
        solution: with draws of its posterior.
        draws: how many of them are used, evenly spaced over each chain.
        again: sample again in any case (true) or in no case (false).
        strategy: that samples again; the solution's by default, with its default fields.
        budget, seed, options: of that run.

    Raises:
        UsageError: if there are no draws, or no half step (see :func:`at_half_step`).
    """
    if solution.draws is None:
        raise UsageError(
            f"{solution.strategy} gave no draws of a posterior: solve with a sampler, solve(problem, 'nuts') say."
        )
    half = dataclasses.replace(at_half_step(problem), joint=True)
    whole = dataclasses.replace(problem, joint=True)
    free = thinned(solution.draws.free, draws)
    log_weights = log_densities(half, free) - log_densities(whole, free)
    usable = np.isfinite(log_weights)
    failures = int((~usable).sum())
    if failures == usable.size:
        raise UsageError(
            f"every draw of the posterior fails at half the time step of {problem.name}: check the problem that "
            "at_half_step makes of it with stress_test."
        )
    pareto = pareto_shape(log_weights[usable])
    if again is False or (again is None and pareto < FINITE):
        how, changes = "weights", weighted(whole, free, np.where(usable, log_weights, -np.inf))
    else:
        chosen = resolve(solution.strategy if strategy is None else strategy, options)
        found = solve(half, chosen, budget=budget, seed=seed, progress=False)
        if found.draws is None:
            raise UsageError(f"at half the step {name_of(chosen)} gave no draws: {found.status.sentence}")
        how = name_of(chosen)
        changes = compared(whole, solution.draws.free, found.draws.free)
    changes.sort(key=lambda each: -max(abs(each.shift), abs(each.ratio - 1)))
    count = free.shape[0] * free.shape[1]
    return HalfStep(problem.name, problem.simulator.dt, how, pareto, count, failures, tuple(changes))


def _in_words(change: Change) -> str:
    if abs(change.shift) >= abs(change.ratio - 1):
        return f"{_signed(change.shift, change.shift_error)} sd in the mean of {change.name}"
    return f"{_with_error(change.ratio, change.ratio_error)} times the sd of {change.name}"


def _signed(value: float, error: float) -> str:
    return f"{'+' if value >= 0 else '-'}{_with_error(abs(value), error)}"


def _with_error(value: float, error: float) -> str:
    """As many decimals as the error has something to say of."""
    decimals = 3 if not 0 < error < math.inf else min(6, max(0, -math.floor(math.log10(error))))
    return f"{value:.{decimals}f} ± {error:.{decimals}f}"
