"""``examine``: answers of a correction problem in long rollouts, on unseen trajectories, beside finer solvers."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from dpcontrol import store, sweep, tree
from dpcontrol.comparison.examined import Examined
from dpcontrol.comparison.marks import (
    ANSWER,
    COARSE,
    FINER,
    INTERRUPTED,
    REFERENCE,
    SEEN,
    Examinee,
    Group,
    Marks,
    Rolled,
    Timing,
)
from dpcontrol.comparison.racing import race
from dpcontrol.comparison.records import Run, Task, slug
from dpcontrol.problem.base import Problem
from dpcontrol.problem.evaluating import evaluate, setting
from dpcontrol.problem.examination import Examination
from dpcontrol.problem.hybrids import training_windows
from dpcontrol.problem.reference import Reference
from dpcontrol.problem.resolution import Resolution
from dpcontrol.results import UsageError
from dpcontrol.solution import Solution
from dpcontrol.tree import Tree

Answer = Solution | Mapping[str, Tree]
COARSE_LABEL, REFERENCE_LABEL = "coarse solver", "reference's own solver"
MOST_AT_A_TIME = 16  # trajectories in a timed step


def examine(
    problem: Problem,
    answers: Mapping[str, Answer | Sequence[Answer]],
    *,
    folder: str | Path | None = None,
    workers: int | None = 0,
    progress: bool | None = None,
) -> Examined:
    """Examine answers of a correction problem as its :class:`~dpcontrol.problem.Examination` says.

    Errors against the length of rollouts on the test trajectories and on unseen ones, the share of rollouts that stay
    stable, spectra, and what a step costs beside solvers on other grids. ``print`` it, or look at ``markdown()``,
    ``figures()``, ``record()``.

    Args:
        problem: made by :func:`~dpcontrol.problem.correction_problem`.
        answers: label -> an answer, or one for each seed: solutions, or trees ``z``.
        folder: where results are kept as they come; what is there already is not computed again.
        workers: processes; 0 for none but this one, ``None`` for one for each core. Timings are always taken here.
        progress: show progress on the error stream; by default where that is a terminal.

    Raises:
        UsageError: for another problem, for answers that are none, or what went wrong in a rollout, in one sentence.
        KeyboardInterrupt: after Ctrl-C; what is in the folder stays there.
    """
    shown = sys.stderr.isatty() if progress is None else progress
    found = marked(problem, subjects_of(problem, answers), folder, workers, shown)
    if found.failure == INTERRUPTED:
        raise KeyboardInterrupt
    if found.failure:
        raise UsageError(found.failure)
    return Examined(found)


@dataclass(frozen=True)
class Subject:
    """Somebody to be examined: an answer ``z`` of a (posed) problem, a solver on another grid, or the coarse solver."""

    label: str
    kind: str
    problem: Problem
    seed: int = 0
    z: Mapping[str, Tree] | None = None
    solver: Resolution | None = None

    @property
    def file(self) -> str:
        return f"{self.kind}-{slug(self.label)}-{self.seed}.json"

    def key(self) -> str:
        """Changes with what is examined, so that nothing outdated is taken from a folder."""
        asked = training_windows(self.problem).examination
        said = hashlib.blake2b(digest_size=16)
        said.update(repr([self.label, self.kind, asked.stable, sorted(asked.unseen)]).encode())
        said.update(
            repr(
                None
                if self.solver is None
                else (self.solver.simulator, self.solver.every, self.solver.groups)
            ).encode()
        )
        if self.z is not None:
            said.update(tree.ravel(self.z).detach().cpu().double().numpy().tobytes())
        return said.hexdigest()


def subjects_of(problem: Problem, answers: Mapping[str, Answer | Sequence[Answer]]) -> list[Subject]:
    """One for each answer."""
    training_windows(problem)
    found = []
    for label, given in answers.items():
        several = list(given) if isinstance(given, (list, tuple)) else [given]
        if not several:
            raise UsageError(f"there is no answer under {label!r}; give one, or one for each seed.")
        for seed, answer in enumerate(several):
            z = answer.value if isinstance(answer, Solution) else answer
            posed = (answer.problem if isinstance(answer, Solution) else None) or problem
            if not isinstance(z, Mapping) or "correction" not in z.get("parameters", {}):
                raise UsageError(
                    f"an answer of a correction problem is a solution or a tree z['parameters']['correction']; found "
                    f"{type(answer).__name__} under {label!r}."
                )
            found.append(Subject(label, ANSWER, posed, seed, z))
    return found


def of_runs(problem: Problem, tasks: Sequence[Task], runs: Sequence[Run]) -> list[Subject]:
    """One for each run that has an answer."""
    found = []
    for task, run in zip(tasks, runs, strict=True):
        solution = run.solution() if run.answered else None
        if solution is not None:
            posed = task.strategy.pose(problem)
            found.append(Subject(task.label, ANSWER, posed, run.seed, solution.value))
    return found


def marked(
    problem: Problem,
    answers: Sequence[Subject],
    folder: str | Path | None,
    workers: int | None,
    shown: bool,
) -> Marks:
    """The marks of some answers and of the solvers beside them; what is missing is said in ``failure``."""
    cut = training_windows(problem)
    asked = cut.examination
    subjects = [*answers, *_solvers(problem, asked)]
    own = _reference(problem, cut.reference)
    rolled: dict[tuple[str, int], dict[str, Any]] = {}
    timing, failure = None, ""
    with tqdm(total=len(subjects), desc="examination", disable=None if shown else True, leave=False) as bar:
        try:
            for label, make in asked.unseen.items():
                bar.set_postfix_str(f"trajectories: {label}")
                make()  # here, and only once: workers find them in the cache
            rolled, failure = _all_rolled(subjects, folder, workers, bar, shown)
            if not failure:
                timing = _timed([*subjects, *own], bar)
        except KeyboardInterrupt:
            failure = INTERRUPTED
        except UsageError as error:
            failure = f"The examination failed: {error}"
    groups = _groups(rolled)
    longest = max((group.steps for group in groups.values()), default=problem.horizon)
    return Marks(
        name=problem.name,
        lengths=tuple(length for length in asked.lengths if length <= longest) or (longest,),
        judged=problem.horizon,
        stable=asked.stable,
        groups=groups,
        examinees=_examinees([*subjects, *own], rolled),
        timing=timing,
        failure=failure,
    )


def _solvers(problem: Problem, asked: Examination) -> list[Subject]:
    finer = [Subject(label, FINER, problem, solver=each) for label, each in asked.resolutions.items()]
    return [Subject(COARSE_LABEL, COARSE, problem), *finer]


def _reference(problem: Problem, reference: Reference) -> list[Subject]:
    """The solver that made the reference: its error is none by definition, its cost is of interest."""
    if reference.solver is None or reference.origin is None:
        return []
    return [Subject(REFERENCE_LABEL, REFERENCE, problem, solver=reference.solver)]


# -- rollouts ----------------------------------------------------------------------------------------------------------


def _all_rolled(
    subjects: Sequence[Subject], folder: str | Path | None, workers: int | None, bar: Any, shown: bool
) -> tuple[dict[tuple[str, int], dict[str, Any]], str]:
    """What every subject's rollouts came to, and a sentence where some are missing."""
    place = None if folder is None else Path(folder)
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for each in subjects:
        kept = _kept(each, place)
        if kept is not None:
            found[each.label, each.seed] = kept
    todo = [each for each in subjects if (each.label, each.seed) not in found]
    jobs = [sweep.Job(each.file, roll, {"subject": each, "place": place}) for each in todo]
    bar.update(len(subjects) - len(todo))

    def listen(index: int, event: dict[str, Any]) -> None:
        if "group" in event:
            bar.set_postfix_str(f"{todo[index].label}: {event['group']}")
        if event.get("state") == "ended":
            bar.update(1)
            if shown and bar.disable:  # no terminal: a line for each
                one = todo[index]
                print(f"{one.label}, seed {one.seed}: examined", file=sys.stderr, flush=True)

    processes = min(sweep.cores() if workers is None else workers, len(jobs))
    outcomes = sweep.run_jobs(jobs, workers=processes, on_event=listen) if jobs else []
    failure = ""
    for each, outcome in zip(todo, outcomes, strict=True):
        if outcome.value is not None:
            found[each.label, each.seed] = outcome.value
        elif outcome.interrupted:
            failure = failure or INTERRUPTED
        else:
            said = (
                (outcome.error or "").strip().splitlines()[-1].removeprefix("dpcontrol.results.UsageError: ")
            )
            failure = f"The examination of {each.label} failed: {said}"
    return found, failure


def _kept(subject: Subject, place: Path | None) -> dict[str, Any] | None:
    if place is None or not (place / subject.file).is_file():
        return None
    found: dict[str, Any] = store.read_json(place / subject.file)
    return found if found.get("key") == subject.key() else None


def roll(*, subject: Subject, place: Path | None, report: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """All rollouts of one subject, perhaps in a worker process; kept in the folder as soon as they are there."""
    asked = training_windows(subject.problem).examination
    made: dict[str, Callable[[], Reference | None]] = {SEEN: lambda: None, **asked.unseen}
    groups: dict[str, Any] = {}
    for label, make in made.items():
        if subject.solver is not None and label not in _groups_of(subject.solver, made):
            continue
        report({"group": label})
        known = make()
        if subject.solver is not None and known is not None and known.origin is None:
            continue  # nothing to start from on another grid
        groups[label] = _rolled(subject, known, "test" if label == SEEN else "all", asked.stable)
    found = {"key": subject.key(), "groups": groups}
    if place is not None:
        store.write_json(place / subject.file, found)
    report({"state": "ended"})
    return found


def _groups_of(solver: Resolution, made: Mapping[str, Any]) -> set[str]:
    """The groups that a solver is rolled out on."""
    return set(made) if solver.groups is None else {SEEN, *solver.groups}


def _rolled(subject: Subject, known: Reference | None, part: str, stable: int) -> dict[str, Any]:
    """Errors, stability (not of finer solvers: long rollouts of theirs are what nobody wants to pay) and spectra."""
    steps = (known or training_windows(subject.problem).reference).steps
    looked = subject.solver is None
    run = evaluate(
        subject.problem,
        subject.z,
        reference=known,
        part=part,
        steps=max(steps, stable) if looked else steps,
        solver=subject.solver,
    )
    return {
        "errors": run.errors.double().mean(1).tolist(),
        "stable": (run.stable[: stable + 1].sum(0) - 1).tolist() if looked else [],
        "spectrum": run.spectrum.tolist(),
        "reference_spectrum": run.reference_spectrum.tolist(),
        "trajectories": run.errors.shape[1],
    }


def _groups(rolled: Mapping[tuple[str, int], Mapping[str, Any]]) -> dict[str, Group]:
    found: dict[str, Group] = {}
    for one in rolled.values():
        for label, group in one["groups"].items():
            spectrum = tuple(group["reference_spectrum"])
            found.setdefault(label, Group(group["trajectories"], len(group["errors"]) - 1, spectrum))
    return {label: found[label] for label in sorted(found, key=lambda name: name != SEEN)}


def _examinees(
    subjects: Sequence[Subject], rolled: Mapping[tuple[str, int], Mapping[str, Any]]
) -> tuple[Examinee, ...]:
    """Seeds together; those of whom nothing is known are left out, the reference itself is not."""
    found: dict[str, Examinee] = {}
    for each in sorted(subjects, key=lambda subject: (COARSE, ANSWER, FINER, REFERENCE).index(subject.kind)):
        groups = rolled.get((each.label, each.seed), {}).get("groups", {})
        if not groups and each.kind != REFERENCE:
            continue
        known = found.get(each.label, Examinee(each.label, each.kind, {})).rolled
        own = {
            group: (
                *known.get(group, ()),
                Rolled(tuple(one["errors"]), tuple(one["stable"]), tuple(one["spectrum"])),
            )
            for group, one in groups.items()
        }
        found[each.label] = Examinee(each.label, each.kind, own)
    return tuple(found.values())


# -- costs -------------------------------------------------------------------------------------------------------------


def _timed(subjects: Sequence[Subject], bar: Any) -> Timing:
    """Everybody once: answers with the same network cost the same, whatever their weights are."""
    test = len(training_windows(subjects[0].problem).reference.split["test"])
    firsts: dict[int, str] = {}
    same: dict[str, str] = {}
    settings = {}
    for each in subjects:
        if each.label in same:
            continue
        other = (
            firsts.setdefault(id(each.problem.simulator), each.label) if each.kind == ANSWER else each.label
        )
        same[each.label] = other
        if other == each.label:
            settings[each.label] = setting(each.problem, each.z, solver=each.solver, steps=1)
    batches = tuple(dict.fromkeys((1, min(test, MOST_AT_A_TIME))))
    found = race(settings, batches, bar.set_postfix_str)
    seconds = {label: found.seconds[other] for label, other in same.items()}
    return Timing(found.batches, seconds, found.rounds, found.noise, found.clock)
