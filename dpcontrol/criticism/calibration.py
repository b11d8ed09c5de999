"""``sbc``: does a strategy give the posterior? Simulation-based calibration."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from dpcontrol import store, sweep
from dpcontrol.criticism.findings import Calibration
from dpcontrol.criticism.simulations import Simulation, place_of, simulate
from dpcontrol.meter import Budget
from dpcontrol.problem.base import Problem
from dpcontrol.results import UsageError
from dpcontrol.run import Strategy
from dpcontrol.solving import refuse_mismatch
from dpcontrol.strategies.names import name_of, resolve

PLAIN = (bool, int, float, str, type(None))
# what chains are cut to where a strategy is named without options: ranks need few draws, but many posteriors
SHORT = {"chains": 2, "draws": 250, "warmup": 200}


def sbc(
    problem: Problem,
    strategy: str | Strategy = "nuts",
    *,
    simulations: int = 100,
    ranked: int = 63,
    seed: int = 0,
    budget: Budget | None = None,
    folder: str | Path | None = None,
    resume: bool = False,
    workers: int | None = None,
    progress: bool | None = None,
    **options: Any,
) -> Calibration:
    r"""Simulation-based calibration: is what a strategy returns the posterior of this problem?

    Each simulation draws :math:`\tilde z` from the prior, data from :math:`p(y \mid \tilde z)` where the problem has
    data, runs the strategy, and ranks :math:`q(\tilde z)` among ``ranked`` draws of the posterior for several scalars
    ``q``: entries of what is sought, means and norms of fields, and the log-likelihood of the data. If the draws are
    those of the posterior, every rank is uniform on ``0 .. ranked``, whatever the problem; ranks that are not say that
    prior, simulator, noise and strategy do not fit together. The verdict is by two tests for each quantity, chi-square
    of binned ranks and the band of the empirical distribution function, at one false-alarm rate for all of them
    together (Holm).

    Draws of the prior that make the simulator fail are drawn again (and counted): they have likelihood zero. Runs that
    give no draws are counted and shown; they have no ranks.

    Draws are taken evenly spaced over all chains. Where they are fewer effective draws than ranks, ranks pile up at
    the ends by that alone; the verdict says so.

    Args:
        problem: posed with a prior; its data only say what was measured where.
        strategy: a name or a Strategy. Chains named without options are short ones (two chains of 250 draws after 200
            of warm-up).
        simulations: how many. In ranks of normal posteriors with ten tests, a hundred find a width that is wrong by a
            factor of two and a mean that is off by 0.7 sd nearly always, two hundred a mean off by half a sd.
        ranked: draws of each posterior that are ranked; ``ranked + 1`` should have many divisors.
        seed: of everything.
        budget: of each run.
        folder: where simulations are kept, one file each, so that a calibration can be resumed, and extended by asking
            for more simulations.
        resume: take the simulations that ``folder`` holds, and run the others.
        workers: processes, each with one thread; as many as there are cores by default; 0 runs in this one.
        progress: show progress on the error stream; by default where that is a terminal.
        options: override fields of the strategy.

    Returns:
        A :class:`Calibration`: ``print`` it, ``plot`` it. Ctrl-C returns one of the simulations that have ended.

    Raises:
        UsageError: before any work, in one sentence.

    Sources: S. Talts, M. Betancourt, D. Simpson, A. Vehtari, A. Gelman, "Validating Bayesian inference algorithms with
    simulation-based calibration", arXiv:1804.06788; M. Modrák, A. Moon, S. Kim, P. Bürkner, N. Huurre, K. Faltejsková,
    A. Gelman, A. Vehtari, "Simulation-based calibration checking for Bayesian computation: the choice of test
    quantities shapes sensitivity", Bayesian Analysis 20 (2025), for the log-likelihood among them.
    """
    options = _options(strategy, options)
    chosen = _checked(problem, resolve(strategy, options), simulations, ranked, workers)
    limits = budget or Budget()
    place = None if folder is None else Path(folder)
    plain = {name: value if isinstance(value, PLAIN) else repr(value) for name, value in options.items()}
    asked = {**_asked(problem, chosen, ranked, seed, limits), "options": plain}
    finished = _opened(place, asked, simulations, resume)
    todo = [index for index in range(simulations) if index not in finished]
    jobs = [
        sweep.Job(
            f"simulation {index}",
            simulate,
            {
                "problem": problem,
                "strategy": chosen,
                "seed": seed,
                "index": index,
                "ranked": ranked,
                "budget": limits,
                "folder": place,
            },
        )
        for index in todo
    ]
    shown = sys.stderr.isatty() if progress is None else progress
    outcomes = _run(jobs, todo, _processes(workers), shown, f"calibration of {problem.name}")
    finished |= outcomes
    found = tuple(finished[index] for index in sorted(finished))
    return Calibration(problem.name, name_of(chosen), repr(chosen), ranked, simulations, found)


def load(folder: str | Path) -> Calibration:
    """The calibration that was kept in a folder, finished or not.

    Raises:
        UsageError: if there is none.
    """
    place = Path(folder)
    if not stored_in(place):
        raise UsageError(f"{folder} holds no calibration; name a folder that sbc(..., folder=...) wrote.")
    content = store.read_json(place / "calibration.json")
    asked, wanted = content["asked"], content["simulations"]
    found = tuple(_kept(place, wanted).values())
    return Calibration(
        asked["name"], asked["strategy"], asked["configuration"], asked["ranked"], wanted, found
    )


def stored_in(folder: str | Path) -> bool:
    """Whether a folder holds a calibration."""
    return (Path(folder) / "calibration.json").is_file()


def question(folder: str | Path) -> tuple[dict[str, Any], int]:
    """What the calibration in a folder was asked, plain values, and how many simulations."""
    content = store.read_json(Path(folder) / "calibration.json")
    return content["asked"], content["simulations"]


# -- asked and kept ----------------------------------------------------------------------------------------------------


def _options(strategy: str | Strategy, options: dict[str, Any]) -> dict[str, Any]:
    """The options, or those of short chains where a sampler is named without any."""
    if not isinstance(strategy, str) or options:
        return options
    fields = {entry.name for entry in dataclasses.fields(resolve(strategy))}  # type: ignore[arg-type]
    return dict(SHORT) if set(SHORT) <= fields else {}


def _checked(
    problem: Problem, chosen: Strategy, simulations: int, ranked: int, workers: int | None
) -> Strategy:
    if not isinstance(problem, Problem):
        raise UsageError(f"sbc needs a Problem; found {type(problem).__name__}: pose one first.")
    _ = problem.belief
    for name, value, least in (("simulations", simulations, 1), ("ranked", ranked, 1)):
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise UsageError(f"{name} must be a whole number, {least} or more; found {value!r}.")
    if workers is not None and (not isinstance(workers, int) or isinstance(workers, bool) or workers < 0):
        raise UsageError(
            f"workers must be a number of processes, 0 for none but this one; found {workers!r}."
        )
    refuse_mismatch(problem, chosen)
    return chosen


def _asked(problem: Problem, strategy: Strategy, ranked: int, seed: int, budget: Budget) -> dict[str, Any]:
    origin = problem.origin
    return {
        "name": problem.name,
        "problem": problem.name if origin is None else origin.reference,
        "size": None if origin is None else origin.size,
        "problem_seed": None if origin is None else origin.seed,
        "strategy": name_of(strategy),
        "configuration": repr(strategy),
        "ranked": ranked,
        "seed": seed,
        "budget": dataclasses.asdict(budget),
    }


def _opened(
    folder: Path | None, asked: dict[str, Any], simulations: int, resume: bool
) -> dict[int, Simulation]:
    """The simulations that a folder holds already; it is marked as that of this calibration."""
    if folder is None:
        if resume:
            raise UsageError(
                "resume=True needs folder=..., the folder that the interrupted calibration wrote."
            )
        return {}
    if stored_in(folder):
        if not resume:
            raise UsageError(
                f"{folder} holds a calibration already; resume it (resume=True), or name another folder."
            )
        before = store.read_json(folder / "calibration.json")["asked"]
        for key, value in asked.items():
            if key != "options" and before[key] != value:  # the configuration says it all
                raise UsageError(
                    f"{folder} holds a calibration with {key} {before[key]!r}, not {value!r}; resume it as it was, or "
                    "name another folder."
                )
    elif resume:
        raise UsageError(
            f"{folder} holds no calibration to resume; name the folder that an earlier one wrote."
        )
    store.write_json(folder / "calibration.json", {"asked": asked, "simulations": simulations})
    return _kept(folder, simulations)


def _kept(folder: Path, simulations: int) -> dict[int, Simulation]:
    return {
        index: Simulation.load(folder, index)
        for index in range(simulations)
        if place_of(folder, index).is_file()
    }


# -- running -----------------------------------------------------------------------------------------------------------


def _processes(workers: int | None) -> int:
    return sweep.cores() if workers is None else workers


def _run(
    jobs: Sequence[sweep.Job], indices: Sequence[int], workers: int, shown: bool, title: str
) -> dict[int, Simulation]:
    """The simulations that ended; those that an interrupt cut short are left out."""
    if not jobs:
        return {}
    with tqdm(total=len(jobs), desc=title, disable=not shown, leave=False) as bar:

        def listen(_: int, event: dict[str, Any]) -> None:
            bar.update(1 if event.get("state") == "ended" or "died" in event else 0)

        outcomes = sweep.run_jobs(jobs, workers=min(workers, len(jobs)), on_event=listen)
    found = {}
    for index, outcome in zip(indices, outcomes, strict=True):
        if outcome.value is not None:
            found[index] = outcome.value
        elif not outcome.interrupted:
            text = (outcome.error or "").strip() or "no reason was given"
            found[index] = Simulation(index, {}, failure=text.splitlines()[-1], seconds=outcome.seconds)
    return found
