"""The runs of a comparison: what is asked, what came out, and how both are kept in a folder."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from dpcontrol import store
from dpcontrol.comparison.decisions import NETWORK, decision_of
from dpcontrol.comparison.marks import Marks
from dpcontrol.comparison.moments import Moments, moments_of
from dpcontrol.comparison.tuning import Tuned
from dpcontrol.comparison.words import amount, number
from dpcontrol.problem.base import Problem, View
from dpcontrol.results import FAILED, UsageError
from dpcontrol.run import Strategy
from dpcontrol.solution import STORED, Solution
from dpcontrol.strategies.baselines import Baseline

# Kinds that a run may have besides those of a Status.
REFUSED, NOT_RUN = "refused", "not run"
# The kind of a Status that is listed as a failure although it leaves an answer.
STALLED = "stalled"
EXAMINATION = "examination.json"
# Families of strategies.
WITH_GRADIENTS, WITHOUT_GRADIENTS, LAW = "gradients", "no gradients", "law"
Samples = Mapping[str, tuple[Sequence[float], Sequence[float]]]


@dataclass(frozen=True)
class Task:
    """One run that is asked for.

    ``refused`` is the sentence of a strategy that does not fit the problem; such a task is listed but not run.
    ``tuned`` says how its options were found, ``None`` for the defaults or for options that were given.
    """

    label: str
    strategy: Strategy
    seed: int
    refused: str | None = None
    tuned: Tuned | None = None

    @property
    def family(self) -> str:
        """Whether it follows gradients through the simulator, goes without, or is a simple law."""
        if isinstance(self.strategy, Baseline):
            return LAW
        asked = {View.GRADIENT, View.EXACT_GRADIENT, View.RESIDUALS, View.CURVATURE}
        return WITH_GRADIENTS if asked & self.strategy.needs else WITHOUT_GRADIENTS

    @property
    def said(self) -> dict[str, Any]:
        """What its records say of it besides what came out."""
        return {
            "strategy": self.label,
            "family": self.family,
            "stochastic": self.strategy.stochastic,
            "tuned": None if self.tuned is None else self.tuned.record(),
        }

    @property
    def folder_name(self) -> str:
        """Name of its folder: the label in letters that every file system takes, and the seed."""
        return f"{slug(self.label)}-{self.seed}"


@dataclass(frozen=True)
class Run:
    """One run and what came out of it.

    Attributes:
        label: what the strategy is called in this comparison.
        seed: of everything random in it.
        record: plain values, with the keys of :meth:`Solution.record`.
        samples: metric -> numerators and denominators, one of each for every scenario.
        history: the columns of :attr:`Solution.history`.
        detail: the traceback of a run that raised.
        moments: means and standard deviations of its posterior by site, of a run that gave one.
        decision: what one decision costs afterwards: ``kind`` and ``seconds`` (see
            :mod:`~dpcontrol.comparison.decisions`); empty where nothing acts in time.
    """

    label: str
    seed: int
    record: Mapping[str, Any]
    samples: Samples = field(default_factory=dict)
    history: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    detail: str | None = None
    moments: Moments = field(default_factory=dict)
    decision: Mapping[str, Any] = field(default_factory=dict)
    kept: Solution | None = field(default=None, repr=False)

    @property
    def status(self) -> str:
        """Kind of the status, or ``refused`` or ``not run``."""
        return str(self.record["status"])

    @property
    def family(self) -> str:
        """Whether its strategy follows gradients through the simulator, goes without, or is a simple law."""
        counted = WITH_GRADIENTS if self.record["counts"]["gradients"] else WITHOUT_GRADIENTS
        return str(self.record.get("family", counted))  # earlier versions did not write it

    @property
    def stochastic(self) -> bool:
        """Whether another seed would give another answer."""
        learned = self.decision.get("kind") == NETWORK  # earlier versions wrote nothing of chance
        return bool(self.record.get("stochastic", learned))

    @property
    def unplayed(self) -> bool:
        """Whether it is a law that the budget could not pay a rollout for: its loss is that of where all start."""
        law = self.record.get("family") == LAW
        return law and self.status == "budget spent" and self.record["counts"]["simulated_steps"] == 0

    @property
    def answered(self) -> bool:
        """Whether there is a finite loss, and its own."""
        loss = self.record["loss"]
        return loss is not None and loss - loss == 0 and not self.unplayed

    @property
    def failed(self) -> bool:
        """Whether something went wrong in it (being refused, or a spent budget, is not).

        A search that stalled has an answer, often the optimum to rounding: its loss competes as any other.
        """
        return self.status in FAILED and not (self.status == STALLED and self.answered)

    def solution(self) -> Solution | None:
        """The whole solution, with its trajectory; ``None`` for a run without one."""
        if self.kept is not None or self.record["folder"] is None or not solved(Path(self.record["folder"])):
            return self.kept
        return Solution.load(self.record["folder"])

    def store(self, folder: Path) -> None:
        """Keep everything but the solution, which ``solve`` stores itself."""
        content = {
            "label": self.label,
            "seed": self.seed,
            "record": {**self.record, "folder": None},
            "samples": {name: [list(top), list(bottom)] for name, (top, bottom) in self.samples.items()},
            "history": {name: list(column) for name, column in self.history.items()},
            "detail": self.detail,
            "moments": {name: [list(mean), list(sd)] for name, (mean, sd) in self.moments.items()},
            "decision": dict(self.decision),
        }
        store.write_json(folder / "record.json", content)

    @classmethod
    def load(cls, folder: Path) -> Run:
        """What :meth:`store` has written.

        Raises:
            UsageError: if there is nothing, or something else.
        """
        content = store.read_json(folder / "record.json")
        try:
            samples = {name: (top, bottom) for name, (top, bottom) in content["samples"].items()}
            record = {**content["record"], "folder": str(folder) if solved(folder) else None}
            moments = {name: (mean, sd) for name, (mean, sd) in content.get("moments", {}).items()}
            return cls(
                content["label"],
                content["seed"],
                record,
                samples,
                content["history"],
                content["detail"],
                moments,
                content.get("decision", {}),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise UsageError(
                f"{folder / 'record.json'} is not a record of a run; delete it and resume."
            ) from error


def from_solution(task: Task, problem: Problem, solution: Solution, *, keep: bool) -> Run:
    """The run of a solution; ``keep`` holds on to the solution, without its problem."""
    trajectory = solution.trajectory()
    with torch.no_grad():
        pairs = problem.metric_samples(trajectory)
    samples = {name: (top.tolist(), bottom.expand_as(top).tolist()) for name, (top, bottom) in pairs.items()}
    seeks = View.LOG_DENSITY in task.strategy.needs
    record = {**solution.record(), "problem": problem.name, **task.said, "seeks_posterior": seeks}
    decision = decision_of(task.strategy, problem, solution)
    kept = dataclasses.replace(solution, problem=None, _stored=trajectory) if keep else None
    moments = moments_of(solution, problem)
    return Run(
        task.label,
        task.seed,
        record,
        samples,
        solution.history,
        moments=moments,
        decision={} if decision is None else decision.record(),
        kept=kept,
    )


def without_solution(
    label: str,
    seed: int,
    problem: str,
    kind: str,
    sentence: str,
    *,
    seconds: float = 0.0,
    detail: str | None = None,
    said: Mapping[str, Any] | None = None,
) -> Run:
    """A run that has no solution: refused, not run, or failed with an error; ``said`` as :attr:`Task.said`."""
    record = {
        "problem": problem,
        "strategy": label,
        "configuration": "",
        "seed": seed,
        "loss": None,
        "losses": [],
        "status": kind,
        "sentence": sentence,
        "seconds": seconds,
        "counts": {"simulated_steps": 0, "gradients": 0},
        "failures": 0,
        "budget": {},
        "reproducible": False,
        "metrics": {},
        "posterior": None,
        "folder": None,
        **(said or {}),
    }
    return Run(label, seed, record, detail=detail)


@dataclass(frozen=True)
class Results:
    """A comparison as plain data: everything that tables, figures and reports are made of.

    Attributes:
        name: of the problem.
        runs: one for each strategy and seed, in the order asked for.
        laws: labels of the simple laws, the bar that strategies are measured by.
        references: label -> solution that is shown and does not compete (uncontrolled, ground truth).
        asked: what :func:`compare` was asked, as plain values.
        about: what the problem is, in words.
        environment: versions, machine and date.
        own_figures: name -> SVG of the figures that the problem brings.
        folder: where it is kept.
        reference_moments: of a posterior that the problem knows otherwise.
        marks: of the examination of learned corrections; ``None`` for other problems, and before it.
    """

    name: str
    runs: tuple[Run, ...]
    laws: tuple[str, ...]
    references: Mapping[str, Solution] = field(repr=False)  # which have no loss to show
    asked: Mapping[str, Any]
    about: str
    environment: Mapping[str, str]
    own_figures: Mapping[str, bytes] = field(default_factory=dict)
    folder: Path | None = None
    reference_moments: Moments = field(default_factory=dict)
    marks: Marks | None = None

    @property
    def labels(self) -> list[str]:
        """Strategies in the order asked for, laws among them."""
        return list(dict.fromkeys(run.label for run in self.runs))

    def of(self, label: str) -> list[Run]:
        """All runs of one strategy."""
        return [run for run in self.runs if run.label == label]

    def representative(self, label: str) -> Run | None:
        """The run whose loss is the median of its strategy's (the lower one of two): what is drawn of it."""
        answered = sorted((run for run in self.of(label) if run.answered), key=lambda run: run.record["loss"])
        return answered[(len(answered) - 1) // 2] if answered else None

    @property
    def budget(self) -> str:
        """The budget of every run in words."""
        units = {"simulated_steps": "simulated step", "gradients": "gradient", "seconds": "second"}
        counts = ("simulated_steps", "gradients")
        return " or ".join(
            f"{number(value, 6)} as target loss"
            if name == "target_loss"
            else f"{amount(value) if name in counts else number(value, 6)} {units[name]}{'' if value == 1 else 's'}"
            for name, value in self.limits.items()
        )

    @property
    def limits(self) -> dict[str, float]:
        """The limits that the budget of every run sets."""
        return {name: value for name, value in self.asked["budget"].items() if value is not None}

    def write(self) -> None:
        """Keep in the folder what is not kept with the runs."""
        if self.folder is None:
            return
        content = {
            "name": self.name,
            "asked": dict(self.asked),
            "runs": [
                {
                    "label": run.label,
                    "seed": run.seed,
                    "folder": f"{slug(run.label)}-{run.seed}",
                    "said": _said(run),
                }
                for run in self.runs
            ],
            "laws": list(self.laws),
            "references": list(self.references),
            "about": self.about,
            "environment": dict(self.environment),
            "own_figures": list(self.own_figures),
            "reference_moments": {
                k: [list(mean), list(sd)] for k, (mean, sd) in self.reference_moments.items()
            },
        }
        store.write_json(self.folder / "comparison.json", content)
        if self.marks is not None:
            store.write_json(self.folder / EXAMINATION, self.marks.record())
        for name, svg in self.own_figures.items():
            (self.folder / f"figure-{slug(name)}.svg").write_bytes(svg)

    @classmethod
    def read(cls, folder: Path) -> Results:
        """What :meth:`write` and the runs have written; a run that left no record counts as not run.

        Raises:
            UsageError: if the folder holds no comparison.
        """
        content = store.read_json(folder / "comparison.json")
        runs = []
        for entry in content["runs"]:
            place = folder / "runs" / entry["folder"]
            if (place / "record.json").is_file():
                runs.append(Run.load(place))
            else:
                sentence = "it was not finished; dpcontrol resume goes on with it."
                runs.append(
                    without_solution(
                        entry["label"],
                        entry["seed"],
                        content["name"],
                        NOT_RUN,
                        sentence,
                        said=entry.get("said"),
                    )
                )
        marked = folder / EXAMINATION
        figures = {name: folder / f"figure-{slug(name)}.svg" for name in content["own_figures"]}
        return cls(
            name=content["name"],
            runs=tuple(runs),
            laws=tuple(content["laws"]),
            references={
                name: Solution.load(folder / "references" / slug(name)) for name in content["references"]
            },
            asked=content["asked"],
            about=content["about"],
            environment=content["environment"],
            own_figures={name: path.read_bytes() for name, path in figures.items()},
            folder=folder,
            reference_moments={
                name: (mean, sd) for name, (mean, sd) in content.get("reference_moments", {}).items()
            },
            marks=Marks.from_record(store.read_json(marked)) if marked.is_file() else None,
        )


def _said(run: Run) -> dict[str, Any]:
    return {
        "strategy": run.label,
        "family": run.family,
        "stochastic": run.stochastic,
        "tuned": run.record.get("tuned"),
    }


def solved(folder: Path) -> bool:
    """Whether a run has stored its solution there."""
    return (folder / STORED).is_file()


def slug(label: str) -> str:
    """A label as a file name."""
    return re.sub(r"[^A-Za-z0-9_.]+", "-", label).strip("-.") or "run"
