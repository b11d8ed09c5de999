"""``solve``: one verb at the door."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tqdm import tqdm

from dpcontrol.folder import RunFolder
from dpcontrol.meter import Budget, Progress
from dpcontrol.problem.base import Problem
from dpcontrol.results import UsageError
from dpcontrol.run import Strategy, mismatch, run
from dpcontrol.solution import STORED, Solution
from dpcontrol.store import read_json
from dpcontrol.strategies.names import name_of, named, resolve

TO_GO_ON = ("interrupted", "stopped", "failed")  # endings that a resumed run does not take for its own


def solve(
    problem: Problem,
    strategy: str | Strategy = "lbfgs",
    *,
    budget: Budget | None = None,
    seed: int = 0,
    callback: Callable[[Progress], Any] | None = None,
    progress: bool | None = None,
    folder: str | Path | None = None,
    resume: bool = False,
    **options: Any,
) -> Solution:
    """Answer a problem with a strategy.

    Args:
        problem: made by :func:`~dpcontrol.problem.control.control_problem` or a sibling.
        strategy: a name (``adjoint, lbfgs, newton_krylov, cmaes, cem, baseline, ...``) or a Strategy.
        budget: what the run may cost; the strategy's own limits also hold.
        seed: of everything random in the strategy.
        callback: called with a :class:`~dpcontrol.meter.Progress` after each evaluation; a true answer stops the run.
        progress: show a progress line; by default where the error stream is a terminal.
        folder: where the run and its solution are stored; an interrupted run can be resumed from there.
        resume: go on with the run in ``folder``: the result is that of an uninterrupted run, to the bit, unless a
            budget in seconds ends it, or the strategy says that it cannot (``ppo``, ``sac``). A run that came to its
            end under the same budget is handed back as it is.
        options: override fields of the strategy: ``solve(problem, "adjoint", learning_rate=0.1)``.

    Returns:
        A :class:`~dpcontrol.solution.Solution`. Ctrl-C and a failed search return one too: see its ``status``.

    Raises:
        UsageError: before any work, in one sentence.
    """
    if not isinstance(problem, Problem):
        raise UsageError(
            f"solve needs a Problem; found {type(problem).__name__}: pose one with control_problem(...)."
        )
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise UsageError(f"seed must be a whole number, 0 or larger; found {seed!r}.")
    if budget is not None and not isinstance(budget, Budget):
        raise UsageError(f"budget must be a Budget, such as Budget(seconds=60); found {budget!r}.")
    chosen = resolve(strategy, options)
    refuse_mismatch(problem, chosen)
    problem.metrics(problem.start())  # a metric that fails should do so before the work, not behind it
    limits = budget or Budget()
    opened = None
    if folder is not None:
        opened = RunFolder(folder, question(problem, chosen, options, limits, seed), resume=resume)
        finished = _finished(opened.path, problem, chosen, limits) if resume else None
        if finished is not None:
            return finished
    elif resume:
        raise UsageError("resume=True needs folder=..., the folder that the interrupted run wrote.")
    shown = sys.stderr.isatty() if progress is None else progress
    with _Line(f"{problem.name} by {name_of(chosen)}", shown, callback) as line:
        solution = run(
            problem,
            chosen,
            strategy_name=name_of(chosen),
            budget=limits,
            seed=seed,
            callback=line,
            folder=opened,
        )
    if folder is not None:
        solution = dataclasses.replace(solution, folder=str(folder), _stored=solution.trajectory())
        solution.save(folder)
    return solution


def _finished(path: Path, problem: Problem, strategy: Strategy, budget: Budget) -> Solution | None:
    """The stored solution of a run that there is nothing to add to; ``None`` where it goes on."""
    if not (path / STORED).is_file():
        return None
    stored = Solution.load(path, strategy.pose(problem))
    same = stored.budget == dataclasses.asdict(budget)
    return stored if same and stored.status.kind not in TO_GO_ON else None


def load(folder: str | Path, problem: Problem, strategy: str | Strategy | None = None) -> Solution:
    """A solution that :func:`solve` stored, to go on working with: on trial, on other scenes, in a plot.

    Args:
        folder: where it is.
        problem: what was solved, as it was given to ``solve``.
        strategy: that of the run; needed only where it was configured by something that cannot be stored as plain
            values (a network of one's own, say).

    Raises:
        UsageError: if the folder holds no solution, or the strategy cannot be told from what is stored.
    """
    path = Path(folder)
    if strategy is not None:
        chosen = resolve(strategy)
    else:
        if not (path / "run.json").is_file():
            raise UsageError(
                f"{path} holds no run: name a folder that solve wrote, or give the strategy as well."
            )
        chosen = _asked_again(path, read_json(path / "run.json"))
    return Solution.load(path, chosen.pose(problem))


def question(
    problem: Problem, strategy: Strategy, options: dict[str, Any], budget: Budget, seed: int
) -> dict[str, Any]:
    """Plain values that say what was asked: what ``run.json`` holds."""
    origin = problem.origin
    return {
        "problem": problem.name if origin is None else origin.reference,
        "size": None if origin is None else origin.size,
        "problem_seed": None if origin is None else origin.seed,
        "strategy": name_of(strategy),
        "configuration": repr(strategy),
        "options": {name: value if _plain(value) else repr(value) for name, value in options.items()},
        "budget": dataclasses.asdict(budget),
        "seed": seed,
    }


def refuse_mismatch(problem: Problem, strategy: Strategy) -> None:
    """Raise where a strategy does not fit a problem, naming those that do, or refuses it at a closer look."""
    reason = mismatch(problem, strategy)
    if reason is None:
        strategy.look_at(problem)
        return
    fitting = [name for name, default in named().items() if _fits(problem, default)]
    raise UsageError(
        f"{name_of(strategy)} {reason}; strategies that fit: {', '.join(sorted(fitting)) or 'none'}."
    )


def _fits(problem: Problem, strategy: Strategy) -> bool:
    try:
        return mismatch(problem, strategy) is None
    except UsageError:  # it has a sentence of its own about what it cannot do with this problem
        return False


def _asked_again(path: Path, asked: dict[str, Any]) -> Strategy:
    """The strategy of a stored run, from its name and plain options."""
    try:
        chosen = resolve(asked["strategy"], asked["options"])
    except UsageError as error:
        raise UsageError(f"{_lost(path, asked)} (from what is stored: {error})") from error
    if repr(chosen) != asked["configuration"]:
        raise UsageError(_lost(path, asked))
    return chosen


def _lost(path: Path, asked: dict[str, Any]) -> str:
    return (
        f"the run in {path} was configured by more than plain values, {asked['configuration']}: give "
        "load(folder, problem, strategy=...) the same strategy again."
    )


def _plain(value: Any) -> bool:
    return value is None or isinstance(value, (bool, int, float, str))


class _Line:
    """A progress line that costs nothing per step: tqdm decides when to draw."""

    def __init__(self, title: str, shown: bool, callback: Callable[[Progress], Any] | None) -> None:
        self._callback = callback
        shape = "{desc}: {percentage:3.0f}% |{bar}| {elapsed}{postfix}"
        self._bar = tqdm(total=1.0, desc=title, disable=not shown, bar_format=shape, leave=False)

    def __enter__(self) -> _Line:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def __call__(self, progress: Progress) -> Any:
        if not self._bar.disable:
            self._bar.set_postfix_str(
                f"loss {progress.loss:.6g}, {progress.counts.simulated_steps} steps", refresh=False
            )
            self._bar.update(max(0.0, progress.fraction - self._bar.n))
        return None if self._callback is None else self._callback(progress)
