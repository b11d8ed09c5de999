"""What a strategy is, and ``run``: the one loop that strategies are driven by."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from dpcontrol.folder import RunFolder
from dpcontrol.meter import Budget, BudgetSpent, Meter, Progress, Stopped, TargetReached
from dpcontrol.posterior import Draws, Posterior, judge, plain
from dpcontrol.problem.base import Demand, Problem, View
from dpcontrol.problem.diagnosis import diagnose
from dpcontrol.results import SimulationFailed, Status, UsageError
from dpcontrol.solution import Solution
from dpcontrol.tree import Tree

CUT_SHORT = ("budget spent", "iterations spent", "interrupted", "stopped")


@dataclass(frozen=True)
class Outcome:
    """What a strategy hands back where the best point that the meter saw is not the whole answer.

    Attributes:
        status: how it ended.
        value: the answer, where it is another than the best point that the meter saw.
        draws: of the posterior, where the strategy samples or approximates one.
    """

    status: Status
    value: Tree = None
    draws: Draws | None = None


class Strategy(abc.ABC):
    """A way to answer a problem: a frozen dataclass whose fields are its whole configuration.

    ``run`` asks the meter, and nothing else, about the problem; it may be ended at any question by the budget.
    """

    @property
    def needs(self) -> frozenset[View]:
        """The views that a problem must offer."""
        return frozenset({View.LOSS})

    @property
    def honours(self) -> frozenset[Demand]:
        """The demands of a problem that are kept; a problem with others is refused."""
        return frozenset()

    @property
    def stochastic(self) -> bool:
        """Whether the seed makes a difference."""
        return False

    @property
    def stores_state(self) -> bool:
        """Whether it offers its state to ``meter.keep``; otherwise it is resumed by replaying the meter's journal."""
        return False

    @property
    def replans(self) -> bool:
        """Whether it decides control by control while the episode runs: a decision then costs a share of the run."""
        return False

    def load(self) -> None:
        """Import heavy libraries that the search will need, so that the run's clock does not measure them."""
        return None

    def pose(self, problem: Problem) -> Problem:
        """The problem as this strategy asks it (with another unknown, say); the same by default."""
        return problem

    def look_at(self, problem: Problem) -> None:
        """Refuse at the door, once, what of a problem cannot work and costs some computing to find out.

        Raises:
            UsageError: in one sentence.
        """
        return None

    @abc.abstractmethod
    def run(self, meter: Meter, generator: torch.Generator) -> Status | Outcome:
        """Search until done, and say how it ended."""


def mismatch(problem: Problem, strategy: Strategy) -> str | None:
    """Why a strategy does not fit a problem, in words that complete "it ..."; ``None`` if it fits."""
    posed = strategy.pose(problem)
    lacking = sorted(view.value for view in strategy.needs - posed.offers)
    if lacking:
        return f"needs {' and '.join(lacking)}, which {problem.name} does not offer"
    broken = sorted(demand.value for demand in posed.demands - strategy.honours)
    if broken:
        return f"cannot honour the {' and '.join(broken)} of {problem.name}"
    return None


def run(
    problem: Problem,
    strategy: Strategy,
    *,
    strategy_name: str | None = None,
    budget: Budget | None = None,
    seed: int = 0,
    callback: Callable[[Progress], Any] | None = None,
    folder: RunFolder | None = None,
) -> Solution:
    """Drive a strategy on a problem until it is done, the budget is spent, or somebody interrupts.

    Ctrl-C ends the run like a spent budget: the best so far is returned, with the status ``interrupted``.

    Raises:
        UsageError: if the strategy does not fit the problem.
    """
    reason = mismatch(problem, strategy)
    if reason is not None:
        raise UsageError(f"{type(strategy).__name__} {reason}.")
    limits = budget or Budget()
    meter, outcome = search(problem, strategy, limits, seed=seed, callback=callback, folder=folder)
    posed, value = meter.problem, tree_of(outcome, meter)
    with torch.no_grad():
        losses, metrics, trajectory = posed.score(value)
    status = _with_failures(outcome.status, meter)
    diagnostics = {}
    if outcome.draws is not None:
        summary = Posterior(posed, outcome.draws).summary()
        status, diagnostics = judge(summary).on(status), plain(summary)
    return Solution(
        problem=posed,
        strategy=strategy_name or type(strategy).__name__,
        configuration=_configuration(strategy),
        seed=seed,
        budget=dataclasses.asdict(limits),
        value=value,
        status=status,
        loss=float(losses.mean()),
        losses=losses,
        metrics=metrics,
        history=meter.ledger.history.columns(),
        counts=meter.counts,
        seconds=meter.seconds,
        draws=outcome.draws,
        diagnostics=diagnostics,
        _stored=trajectory,
    )


def search(
    problem: Problem,
    strategy: Strategy,
    budget: Budget,
    *,
    seed: int = 0,
    callback: Callable[[Progress], Any] | None = None,
    folder: RunFolder | None = None,
) -> tuple[Meter, Outcome]:
    """What :func:`run` does before it judges the answer: nothing is simulated that the meter does not see."""
    strategy.load()
    generator = torch.Generator().manual_seed(seed)
    storing = folder.meter_options(strategy.stores_state, generator) if folder is not None else {}
    meter = Meter(strategy.pose(problem), budget, callback=callback, **storing)
    try:
        return meter, _driven(strategy, meter, generator, budget)
    finally:
        if folder is not None:
            folder.close()


def tree_of(outcome: Outcome, meter: Meter) -> Tree:
    """The value of an outcome: its own, or the best that the meter saw."""
    return meter.best_value() if outcome.value is None else outcome.value


def _driven(strategy: Strategy, meter: Meter, generator: torch.Generator, budget: Budget) -> Outcome:
    try:
        found = strategy.run(meter, generator)
    except BudgetSpent:
        found = Status(
            "budget spent", f"the budget was spent ({_words(budget)}); the best so far is returned."
        )
    except TargetReached:
        found = Status("target reached", f"the mean loss reached the target {budget.target_loss:g}.")
    except Stopped:
        found = Status("stopped", "the callback asked to stop; the best so far is returned.")
    except SimulationFailed as error:
        if not bool(torch.isfinite(meter.best).all()):
            raise  # there is nothing to return
        found = Status("failed", f"{error} The best so far is returned.")
    except KeyboardInterrupt:
        found = Status(
            "interrupted", "interrupted by the user; the best so far is returned and the run can be resumed."
        )
    outcome = found if isinstance(found, Outcome) else Outcome(found)
    said = [outcome.status.sentence, sentence_case(meter.ledger.remark)]
    if outcome.value is None and outcome.status.kind in CUT_SHORT and meter.ledger.improved == 1:
        said.append("Nothing better than the first evaluation was found: this is an answer to begin with.")
    status = Status(outcome.status.kind, " ".join(words for words in said if words))
    return dataclasses.replace(outcome, status=status)


def sentence_case(words: str) -> str:
    """The words with a capital at the beginning."""
    return words[:1].upper() + words[1:]


def _with_failures(status: Status, meter: Meter) -> Status:
    """Where something was not finite, the status says how often and where.

    Where an instance never had a finite loss there is no answer, whatever the strategy says; unless nothing was asked.
    """
    if not meter.ledger.history.loss:
        return status
    hopeless = torch.nonzero(~torch.isfinite(meter.best)).flatten()
    if len(hopeless):
        where = diagnose(meter.problem, meter.trees(meter.start()))
        wanted = "a finite loss with a finite gradient" if meter.counts.gradients else "a finite loss"
        at_start = ", although the start guess gives one." if where is None else f": {where}"
        return Status(
            "diverged", f"{len(hopeless)} of {meter.instances} searches never saw {wanted}{at_start}"
        )
    failure = meter.latest_failure()
    if failure is None:
        return status
    where = (
        f"the simulator raised {meter.ledger.crash}."
        if meter.ledger.crash
        else diagnose(meter.problem, *failure)
    )
    count = meter.counts.failures
    told = "1 evaluation was" if count == 1 else f"{count} evaluations were"
    back = "" if status.kind == "diverged" else " and taken back"
    if View.LOG_DENSITY in meter.problem.offers and meter.problem.joint:
        back = (
            " and counted as density zero"  # nothing is wrong with a sampler that learns where it may not go
        )
    latest = "." if where is None else f"; at the latest of them {where}"
    return Status(status.kind, f"{status.sentence.rstrip()} {told} not finite{back}{latest}")


def _words(budget: Budget) -> str:
    named = {name: value for name, value in dataclasses.asdict(budget).items() if value is not None}
    return ", ".join(f"{value:,.12g} {name.replace('_', ' ')}" for name, value in named.items())


def _configuration(strategy: Strategy) -> str:
    """The strategy with the fields that differ from their defaults."""
    shown = []
    for entry in dataclasses.fields(strategy):  # type: ignore[arg-type]
        value = getattr(strategy, entry.name)
        if entry.default is dataclasses.MISSING or value != entry.default:
            shown.append(f"{entry.name}={value!r}")
    return f"{type(strategy).__name__}({', '.join(shown)})"
