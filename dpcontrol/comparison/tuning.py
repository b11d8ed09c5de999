"""``tune``: a strategy's options, searched for with a counted number of trials on scenes that nobody is judged on.

On equal terms: every strategy gets the same number of trials, the same seeds, budget and tuning scenes; the first trial
is its default options, the others a scrambled Sobol sequence over its space. Every run is kept, good or bad.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from dpcontrol import store
from dpcontrol.comparison.trying import Trial, read_trials, run_trials
from dpcontrol.comparison.tunable import points, space_for
from dpcontrol.comparison.words import amount, counted, number
from dpcontrol.meter import Budget
from dpcontrol.problem.base import Problem, View
from dpcontrol.results import UsageError
from dpcontrol.run import Strategy
from dpcontrol.solving import refuse_mismatch
from dpcontrol.strategies.names import resolve

SCENES = 2_718_281  # seed of the tuning scenes
POINTS = 0  # seed of the trials
FILE = "tuning.json"


@dataclass(frozen=True)
class Tuned:
    """A strategy with the options that its trials found best; ``compare`` takes it in place of a name.

    Attributes:
        strategy: its name.
        options: the best trial's.
        trials: how many sets of options were tried, the defaults among them.
        seeds: runs of each trial.
        simulated_steps: that all of them spent; they are not part of any comparison's budget.
        drawn: whether the tuning scenes were drawn, so that they are not the judged ones.
        losses: of the best trial and of the defaults, on the tuning scenes.
        folder: where all runs are kept.
        seconds: that all of them spent; ``None`` in records of earlier versions, which did not keep it.
        tried: the trials themselves; empty in one that was read from a comparison's folder.
    """

    strategy: str
    options: Mapping[str, Any]
    trials: int
    seeds: int
    simulated_steps: int
    drawn: bool
    losses: tuple[float, float]
    folder: str | None = None
    seconds: float | None = None
    tried: tuple[Trial, ...] = field(default=(), repr=False)

    def resolved(self) -> Strategy:
        """The strategy with its options."""
        return resolve(self.strategy, dict(self.options))

    def record(self) -> dict[str, Any]:
        """Plain values, without the trials."""
        entries = {entry.name: getattr(self, entry.name) for entry in dataclasses.fields(self)}
        del entries["tried"]
        return {**entries, "options": dict(self.options), "losses": list(self.losses)}

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Tuned:
        """What :meth:`record` described."""
        return cls(**{**record, "losses": tuple(record["losses"])})

    @classmethod
    def load(cls, folder: str | Path) -> Tuned:
        """The tuning that was kept in a folder, with as many trials as are finished.

        Raises:
            UsageError: if there is none, or no trial in it gave an answer.
        """
        place = Path(folder)
        if not tuned_in(place):
            raise UsageError(f"{folder} holds no tuning; name a folder that tune(..., folder=...) wrote.")
        content = store.read_json(place / FILE)
        return _best(
            content["asked"], read_trials(place, content["trials"], content["asked"]["seeds"]), folder
        )

    def __str__(self) -> str:
        chosen = ", ".join(f"{name}={value!r}" for name, value in self.options.items()) or "its defaults"
        best, default = self.losses
        gain = (
            f"loss {number(best, 4)} on the tuning scenes; the defaults gave {number(default, 4)}"
            if best < default
            else f"loss {number(best, 4)} on the tuning scenes, which no trial lowered"
        )
        judged = "" if self.drawn else " The tuning scenes are the judged ones: there are no others to draw."
        return (
            f"{self.strategy}: {chosen} ({gain}). {counted(self.trials, 'trial')} of "
            f"{counted(self.seeds, 'seed')}, {amount(self.simulated_steps)} simulated steps.{judged}"
        )


def tune(
    problem: Problem,
    strategy: str,
    *,
    space: Mapping[str, Any] | None = None,
    trials: int = 16,
    seeds: int = 1,
    budget: Budget | None = None,
    folder: str | Path | None = None,
    workers: int | None = None,
    progress: bool = True,
    **fixed: Any,
) -> Tuned:
    """Search for a strategy's options on tuning scenes, by a counted number of trials.

    The tuning scenes are as many as the problem has, drawn from its distribution with a seed of their own: nobody is
    judged on them. A problem with fixed scenes has only those; the result says so.

    Args:
        problem: what is asked.
        strategy: its name.
        space: field -> ``(low, high)``, a list of values, a :class:`Range` or :class:`Choice`; by default the ranges of
            :data:`~dpcontrol.comparison.tunable.TUNABLE`, without those that are fixed.
        trials: sets of options to try, the defaults first.
        seeds: runs of each; what counts is the interquartile mean of their losses.
        budget: of each run.
        folder: where every run is kept as JSON; one that holds the beginning of this very tuning is gone on with.
        workers: processes, each with one thread of torch; as many as there are cores by default; 0 runs in this one.
        progress: show progress on the error stream.
        fixed: fields of the strategy that all trials have in common.

    Raises:
        UsageError: before any work, in one sentence; afterwards, if no trial gave an answer.
    """
    for name, value in (("trials", trials), ("seeds", seeds)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise UsageError(f"{name} must be a whole number, 1 or more; found {value!r}.")
    if not isinstance(problem, Problem) or not isinstance(strategy, str):
        wrong = strategy if isinstance(problem, Problem) else problem
        raise UsageError(f"tune needs a Problem and the name of a strategy; found {type(wrong).__name__}.")
    if budget is None:
        raise UsageError(
            "tune needs a budget for each run, such as budget=Budget(simulated_steps=100_000): trials are compared."
        )
    base = resolve(strategy, fixed)
    refuse_mismatch(problem, base)
    seeds = seeds if base.stochastic else 1  # without chance one run says it all
    where = space_for(strategy, base, space)
    both = sorted(set(fixed) & set(space or {}))
    if both:
        raise UsageError(
            f"{both[0]} is fixed, {both[0]}={fixed[both[0]]!r}, and searched in the space of one tuning: leave one out."
        )
    where = {name: entry for name, entry in where.items() if name not in fixed}
    if not where:
        raise UsageError(
            f"all that is tuned of {strategy} is fixed, {', '.join(sorted(fixed))}: nothing is searched."
        )
    options = [dict(fixed)] + [{**fixed, **point} for point in points(where, trials - 1, POINTS)]
    for each in options:
        resolve(strategy, each)  # options that cannot be are found out before the work
    asked = _asked(problem, strategy, {name: str(entry) for name, entry in where.items()}, seeds, budget)
    place = None if folder is None else Path(folder)
    if place is not None:
        _open(place, asked, options)
    records = run_trials(_on_tuning_scenes(problem), asked, options, place, workers, progress)
    return _best(asked, [Trial(each, tuple(own)) for each, own in zip(options, records, strict=True)], folder)


def tuned_in(folder: str | Path) -> bool:
    """Whether a folder holds a tuning."""
    return (Path(folder) / FILE).is_file()


def _asked(
    problem: Problem, strategy: str, space: dict[str, str], seeds: int, budget: Budget
) -> dict[str, Any]:
    origin = problem.origin
    return {
        "problem": problem.name if origin is None else origin.reference,
        "size": None if origin is None else origin.size,
        "problem_seed": None if origin is None else origin.seed,
        "strategy": strategy,
        "space": space,
        "seeds": seeds,
        "budget": dataclasses.asdict(budget),
        "drawn": View.DISTRIBUTION in problem.offers,
    }


def _on_tuning_scenes(problem: Problem) -> Problem:
    if View.DISTRIBUTION not in problem.offers:
        return problem
    drawn = problem.scenarios.draw(torch.Generator().manual_seed(SCENES), problem.scenarios.count)
    return dataclasses.replace(problem.with_scenarios(drawn), origin=None, plots={})


def _open(folder: Path, asked: dict[str, Any], options: list[dict[str, Any]]) -> None:
    if tuned_in(folder):
        before = store.read_json(folder / FILE)["asked"]
        other = next((key for key in asked if before.get(key) != asked[key]), None)
        if other is not None:
            raise UsageError(
                f"{folder} holds a tuning with {other} {before.get(other)!r}, not {asked[other]!r}; "
                "ask it as it was, or name another folder."
            )
    store.write_json(folder / FILE, {"asked": asked, "trials": options})


def _best(asked: Mapping[str, Any], tried: list[Trial], folder: str | Path | None) -> Tuned:
    if not tried or min(trial.loss for trial in tried) == float("inf"):
        said = next((record["sentence"] for trial in tried for record in trial.records), "none is finished")
        raise UsageError(f"no trial of {asked['strategy']} gave an answer: {said}")
    best = min(tried, key=lambda trial: trial.loss)  # of equal ones the first
    steps = sum(record["counts"]["simulated_steps"] for trial in tried for record in trial.records)
    # earlier versions did not keep the seconds of runs that raised
    seconds = sum(float(record.get("seconds", 0.0)) for trial in tried for record in trial.records)
    return Tuned(
        strategy=asked["strategy"],
        options=best.options,
        trials=len(tried),
        seeds=asked["seeds"],
        simulated_steps=steps,
        drawn=asked["drawn"],
        losses=(best.loss, tried[0].loss),
        folder=None if folder is None else str(folder),
        seconds=seconds,
        tried=tuple(tried),
    )
