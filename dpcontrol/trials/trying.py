"""``robustness``: how controllers fare when the world is not the one that they were made for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch

from dpcontrol.meter import Budget
from dpcontrol.problem import Acting, Problem, from_law, from_solution, play
from dpcontrol.problem.acting import Replayed
from dpcontrol.problem.control import start_state
from dpcontrol.results import USERS_ERRORS, UsageError, first_line
from dpcontrol.run import Strategy
from dpcontrol.solution import Solution
from dpcontrol.solving import refuse_mismatch, solve
from dpcontrol.strategies.checks import nearest
from dpcontrol.strategies.names import resolve
from dpcontrol.trials.table import Robustness, Row
from dpcontrol.trials.worlds import Arrangement, Nominal, Trial


@runtime_checkable
class Deciding(Protocol):
    """A strategy that decides while the episode runs, a receding horizon say."""

    def controller(self, problem: Problem) -> Acting:
        """Who decides, planning on the problem's model."""
        ...


MEMBER_SEEDS = 7919  # between the streams of random numbers of two trained copies of a controller


def robustness(
    problem: Problem,
    controllers: Mapping[str, Any],
    trials: Sequence[Trial] = (Nominal(),),
    *,
    seeds: int = 3,
    budget: Budget | None = None,
    laws: bool = True,
) -> Robustness:
    """Play controllers on a problem's plant under every trial.

    Random numbers are the same for all controllers, and what is not random is played once.

    Args:
        problem: seeks a control or a policy.
        controllers: label -> a :class:`~dpcontrol.solution.Solution` (a policy acts, a plan is replayed without
            looking), a controller with memory (:class:`~dpcontrol.problem.Acting`), a law
            ``law(state, t, scenario) -> control``, a strategy or its name (``mpc`` decides as it is played; others are
            solved here first, once, and again in other scenes where the answer is a plan), or a list of some of these:
            the same method trained with several seeds, whose losses are put together.
        trials: see :mod:`dpcontrol.trials.worlds`.
        seeds: how often a random trial is played.
        budget: of each solve, for strategies.
        laws: play the problem's simple laws too.

    Returns:
        Losses and metrics of each controller in each trial, with intervals; ``print`` it, ``plot`` it, ``record`` it.

    Raises:
        UsageError: before any work for what is no controller or no trial, or for a trial that does not fit the problem.
    """
    if not isinstance(problem, Problem):
        raise UsageError(
            f"robustness needs a Problem; found {type(problem).__name__}: pose one with control_problem(...)."
        )
    if not isinstance(seeds, int) or isinstance(seeds, bool) or seeds < 1:
        raise UsageError(f"seeds must be how often a random trial is played, 1 or more; found {seeds!r}.")
    checked = _checked_trials(trials)
    entrants = _entrants(problem, controllers, laws)
    for trial in checked:
        _arranged(problem, from_law(lambda *_: None), trial, 0)
    solver = _Solver(problem, budget, {})
    rows = []
    for trial in checked:
        for label, members in entrants.items():
            rows.append(_row(problem, label, members, trial, seeds, solver))
    return Robustness(problem.name, tuple(rows))


@dataclass(frozen=True)
class _Solver:
    """Answers of strategies, each searched once for the problem's own scenes."""

    problem: Problem
    budget: Budget | None
    known: dict[int, Acting]

    def controller(self, strategy: Strategy, trial: Trial, arranged: Problem) -> Acting:
        key = id(strategy)
        if key not in self.known:
            self.known[key] = from_solution(solve(self.problem, strategy, budget=self.budget, progress=False))
        found = self.known[key]
        if isinstance(found, Replayed) and trial.other_scenes:
            # the plant that is tried belongs to the world: plans are made with the problem's own model
            return from_solution(
                solve(
                    self.problem.with_scenarios(arranged.scenarios),
                    strategy,
                    budget=self.budget,
                    progress=False,
                )
            )
        return found


def _row(
    problem: Problem, label: str, members: Sequence[Any], trial: Trial, seeds: int, solver: _Solver
) -> Row:
    losses, metrics, seconds, decisions = [], [], 0.0, 0
    for number, member in enumerate(members):
        for seed in range(seeds if trial.stochastic else 1):
            stream = seed + MEMBER_SEEDS * number
            scenes = _arranged(problem, from_law(lambda *_: None), trial, stream).problem
            acting = member if isinstance(member, Acting) else solver.controller(member, trial, scenes)
            if isinstance(acting, Replayed) and trial.other_scenes and isinstance(member, Acting):
                return Row(label, trial.label, trial.other_scenes, note="a plan for other scenes")
            arranged = _arranged(problem, acting, trial, stream)
            played = play(
                arranged.problem,
                arranged.controller,
                pushes=arranged.pushes,
                generator=torch.Generator().manual_seed(stream),
            )
            losses.append(played.losses.double().cpu().numpy())
            metrics.append(played.metrics)
            seconds += played.seconds
            decisions += arranged.problem.free_steps * arranged.problem.scenarios.count
    names = metrics[0]
    if all(np.array_equal(each, losses[0], equal_nan=True) for each in losses):
        losses = losses[:1]  # who does not look is not moved by what is only seen
    return Row(
        label,
        trial.label,
        trial.other_scenes,
        losses=np.stack(losses),
        metrics={name: float(np.mean([each[name] for each in metrics])) for name in names},
        seconds=seconds / max(decisions, 1),
    )


def _arranged(problem: Problem, controller: Acting, trial: Trial, seed: int) -> Arrangement:
    # one stream for the world and another one, in play, for sensors and controllers
    return trial.arrange(Arrangement(problem, controller), torch.Generator().manual_seed(seed + 2**32))


def _checked_trials(trials: Sequence[Trial]) -> tuple[Trial, ...]:
    wrong = (
        [each for each in trials if not isinstance(each, Trial)] if isinstance(trials, Sequence) else [trials]
    )
    if wrong or not trials:
        raise UsageError(
            f"trials must be a list of trials such as [Nominal(), SensorNoise(0.05)]; "
            f"found {wrong[0] if wrong else 'none'!r}."
        )
    labels = [each.label for each in trials]
    double = sorted({label for label in labels if labels.count(label) > 1})
    if double:
        raise UsageError(
            f"two trials are called {double[0]!r}: leave one out, or give it words=... of its own."
        )
    return tuple(trials)


def _entrants(problem: Problem, controllers: Mapping[str, Any], laws: bool) -> dict[str, list[Any]]:
    if not isinstance(controllers, Mapping):
        raise UsageError(
            f"controllers must be a dict, label -> solution, controller, law or strategy; found "
            f"{type(controllers).__name__}."
        )
    found: dict[str, list[Any]] = {}
    for label, given in controllers.items():
        members = list(given) if isinstance(given, (list, tuple)) else [given]
        if not members:
            raise UsageError(f"{label!r} is an empty list: give it at least one controller.")
        found[str(label)] = [_member(problem, str(label), each) for each in members]
    if laws:
        own = {f"law: {name}": law for name, law in problem.baselines.items() if name not in found}
        double = sorted(set(own) & set(found))
        if double:
            raise UsageError(
                f"{double[0]!r} is what the problem's own law is called here: name your controller otherwise, or leave "
                "the laws out (laws=False)."
            )
        found |= {label: [from_law(law)] for label, law in own.items()}
    if not found:
        raise UsageError(
            f"there is nobody to try: {problem.name} has no simple laws, and controllers is empty."
        )
    return found


def _ask(problem: Problem, label: str, law: Any) -> None:
    """Refuse a law that fails at the initial states."""
    state = start_state(problem.simulator, problem.parameters, problem.scenarios)
    try:
        with torch.no_grad():
            law(state, 0.0, problem.scenarios.data)
    except USERS_ERRORS as error:
        raise UsageError(
            f"{label!r}, called as law(state, t, scenario) at the initial states, failed with {first_line(error)}."
        ) from error


def _member(problem: Problem, label: str, given: Any) -> Acting | Strategy:
    """A controller, or the strategy that will find one."""
    if isinstance(given, Solution):
        return from_solution(given)
    if isinstance(given, str) and given in problem.baselines:
        return from_law(problem.baselines[given])
    if isinstance(given, (Strategy, str)):
        strategy = resolve(given)
        refuse_mismatch(problem, strategy)
        return strategy.controller(problem) if isinstance(strategy, Deciding) else strategy
    if isinstance(given, Acting) and not isinstance(given, type):
        return given
    if callable(given) and not isinstance(given, type):
        _ask(problem, label, given)
        return from_law(given)
    known = nearest(label, list(problem.baselines)) if problem.baselines else ""
    raise UsageError(
        f"{label!r} is no controller: give a solution, a controller with init and act, a law(state, t, scenario), or a "
        f"strategy; found {given!r}. {known}".rstrip()
    )
