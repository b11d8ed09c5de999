"""``compare``: every strategy with every seed, on equal budgets, in worker processes."""

from __future__ import annotations

import dataclasses
import inspect
import platform
import sys
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from dpcontrol import store, sweep
from dpcontrol.comparison.comparison import Comparison
from dpcontrol.comparison.examining import marked, of_runs
from dpcontrol.comparison.figures import own_figures
from dpcontrol.comparison.marks import Marks
from dpcontrol.comparison.moments import given_reference
from dpcontrol.comparison.planning import Given, asked, checked_budgets, plan
from dpcontrol.comparison.records import NOT_RUN, Results, Run, Task, slug
from dpcontrol.comparison.references import reference_solutions
from dpcontrol.comparison.running import run_all, waiting_run
from dpcontrol.comparison.summary import summarise
from dpcontrol.comparison.words import counted
from dpcontrol.meter import Budget
from dpcontrol.problem.base import Problem, View
from dpcontrol.problem.evaluating import ErrorCurves
from dpcontrol.results import UsageError
from dpcontrol.strategies.baselines import Baseline


def compare(
    problem: Problem,
    strategies: Given,
    *,
    seeds: int | Sequence[int] = 3,
    budget: Budget | Sequence[Budget] | None = None,
    folder: str | Path | None = None,
    workers: int | None = None,
    progress: bool | None = None,
    resume: bool = False,
    about: str | None = None,
    examined: bool = True,
    laws: bool = True,
) -> Comparison:
    """Solve a problem with several strategies on equal budgets, and compare what they found.

    Strategies without chance run once, the others once for each seed, ``baseline`` once for each simple law of the
    problem. A strategy that does not fit the problem is listed as refused, a run that fails is listed with its error;
    neither stops the others. Ctrl-C ends the running ones with their best so far; the others are listed as not run.

    Args:
        problem: what is asked.
        strategies: names, Strategy objects, or what :func:`~dpcontrol.comparison.tune` gave; a mapping labels them.
        seeds: how many (0, 1, ...), or which.
        budget: of each run; without one every strategy goes on to its own end, which is no equal comparison. Of several
            (one in simulated steps and one in seconds, say) each is a comparison of its own, with its own runs and
            ranking, and the finding tells who won under which.
        folder: where runs and results are kept, so that the comparison can be resumed and reported again.
        workers: processes, each with one thread of torch; as many as there are cores by default; 0 runs in this one.
        progress: show progress on the error stream; true by default.
        resume: take finished runs from ``folder``, go on with interrupted ones, and run the rest.
        about: what the problem is, in words, for the report; by default the docstring of its file, or its simulator's.
        examined: whether answers of a correction problem are examined as its
            :class:`~dpcontrol.problem.Examination` says, behind the runs and outside of their budgets.
        laws: whether the problem's simple laws stand in the table though nobody named ``baseline``: a verdict without
            the bar that costs nothing can be the opposite of the one with it.

    Raises:
        UsageError: before any work, in one sentence.
    """
    if workers is not None and (not isinstance(workers, int) or isinstance(workers, bool) or workers < 0):
        raise UsageError(
            f"workers must be a number of processes, 0 for none but this one; found {workers!r}."
        )
    tasks = plan(problem, strategies, seeds, laws=laws)
    budgets = checked_budgets(budget)
    if progress is not False:  # nobody should wait for the others to learn that
        for sentence in dict.fromkeys(task.refused for task in tasks if task.refused is not None):
            print(f"refused: {sentence}", file=sys.stderr, flush=True)
    place = None if folder is None else Path(folder)
    comparing = _Comparing(
        problem,
        strategies,
        seeds,
        tasks,
        workers,
        progress is not False,
        about or problem.description or inspect.cleandoc(type(problem.simulator).__doc__ or ""),
        examined,
    )
    if len(budgets) == 1:
        if place is not None:
            _open(place, comparing.asked(budgets[0]), resume)
        return Comparison(comparing.under(budgets[0], place, resume=resume))
    names = round_names(budgets)
    if place is not None:
        question = comparing.asked(budgets[0]) | {"budgets": [dataclasses.asdict(each) for each in budgets]}
        _open(place, question, resume)
        store.write_json(place / "comparison.json", {"asked": question, "rounds": names})
    rounds: list[Results] = []
    for name, limits in zip(names, budgets, strict=True):
        own = None if place is None else place / name
        going_on = own is not None and resume and (own / "comparison.json").is_file()
        stopped = any(Comparison(each).interrupted for each in rounds)
        rounds.append(comparing.under(limits, own, resume=going_on, waiting=stopped))
    return Comparison(rounds[0], tuple(rounds[1:]))


def round_names(budgets: Sequence[Budget]) -> list[str]:
    """A folder for each of several budgets, named after what it limits: ``simulated-steps``, ``seconds``, ..."""
    names: list[str] = []
    for budget in budgets:
        limits = [field for field, value in dataclasses.asdict(budget).items() if value is not None]
        name = "-".join(limits).replace("_", "-") or "unlimited"
        earlier = sum(each == name or each.startswith(f"{name}.") for each in names)
        names.append(f"{name}.{earlier + 1}" if earlier else name)
    return names


@dataclasses.dataclass(frozen=True)
class _Comparing:
    """What all budgets of a comparison have in common."""

    problem: Problem
    strategies: Given
    seeds: int | Sequence[int]
    tasks: Sequence[Task]
    workers: int | None
    shown: bool
    about: str
    examined: bool = True

    def asked(self, budget: Budget) -> dict[str, Any]:
        return asked(self.problem, self.strategies, self.seeds, budget)

    def under(self, limits: Budget, place: Path | None, *, resume: bool, waiting: bool = False) -> Results:
        """All runs under one budget; none is begun where they are left ``waiting``."""
        problem, tasks = self.problem, self.tasks
        results = Results(
            name=problem.name,
            runs=tuple(waiting_run(task, problem.name) for task in tasks),
            laws=tuple(dict.fromkeys(task.label for task in tasks if isinstance(task.strategy, Baseline))),
            references=reference_solutions(problem),
            asked=self.asked(limits),
            about=self.about,
            environment=environment(),
            folder=place,
            reference_moments=given_reference(problem),
        )
        for name, solution in results.references.items():
            if place is not None:
                solution.save(place / "references" / slug(name))
        results.write()
        if waiting:
            return results
        runs = run_all(problem, tasks, limits, place, self.workers, self.shown, resume)
        results = dataclasses.replace(results, runs=tuple(runs))
        stopped = any(run.status in ("interrupted", NOT_RUN) for run in runs)  # resuming comes back here
        if self.examined and View.REFERENCE in problem.offers and not stopped:
            results = dataclasses.replace(results, marks=self._marks(runs, place))
            # the examination has the figure of long rollouts, and more of them
            kept = {name: draw for name, draw in problem.plots.items() if not isinstance(draw, ErrorCurves)}
            problem = dataclasses.replace(problem, plots=kept)
        results = dataclasses.replace(results, own_figures=own_figures(problem, results, summarise(results)))
        results.write()
        return results

    def _marks(self, runs: Sequence[Run], place: Path | None) -> Marks:
        """Learned corrections in long rollouts; how far it got is kept beside the runs."""
        subjects = of_runs(self.problem, self.tasks, runs)
        folder = None if place is None else place / "examination"
        if self.shown:
            print(
                f"examining {counted(len(subjects), 'answer')} in long rollouts", file=sys.stderr, flush=True
            )
        return marked(self.problem, subjects, folder, self.workers, self.shown)


def _open(folder: Path, question: dict[str, Any], resume: bool) -> None:
    """Refuse a folder that holds another comparison, or one that is not to be resumed."""
    if not (folder / "comparison.json").is_file():
        if resume:
            raise UsageError(
                f"{folder} holds no comparison to resume; name the folder that an earlier one wrote."
            )
        return
    if not resume:
        raise UsageError(
            f"{folder} holds a comparison already; resume it (resume=True), or name another folder."
        )
    before = store.read_json(folder / "comparison.json")["asked"]
    for key in ("problem", "size", "problem_seed", "scenarios", "horizon", "budget", "budgets"):
        if before.get(key) != question.get(key):
            raise UsageError(
                f"{folder} holds a comparison with {key} {before.get(key)!r}, not {question.get(key)!r}; "
                "resume it as it was, or name another folder."
            )


def environment() -> dict[str, str]:
    """Versions, machine and date: what a reader needs to trust or repeat the numbers."""
    found = {"python": platform.python_version()}
    for package in ("dpcontrol", "torch", "numpy", "scipy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed as a package"
    found["machine"] = f"{platform.system()} {platform.machine()}, {sweep.cores()} cores"
    found["date"] = time.strftime("%Y-%m-%d")
    return found
