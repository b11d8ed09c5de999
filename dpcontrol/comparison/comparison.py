"""What ``compare`` hands back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpcontrol import store
from dpcontrol.comparison import examined_words, figures, finding, overview, posteriors, pricing, summary
from dpcontrol.comparison.examined import Examined
from dpcontrol.comparison.marks import INTERRUPTED
from dpcontrol.comparison.records import NOT_RUN, Results
from dpcontrol.comparison.report import write_report
from dpcontrol.comparison.verdict import verdict
from dpcontrol.results import UsageError


@dataclass(frozen=True)
class Comparison:
    """Runs of several strategies on one problem, and what they say together. Made by :func:`compare`.

    Attributes:
        results: the runs under the (first) budget.
        further: those under further budgets, one each.
    """

    results: Results
    further: tuple[Results, ...] = ()

    def __repr__(self) -> str:
        asked = ", ".join(self.results.labels)
        return f"Comparison of {asked} on {self.results.name}: {self.finding().headline}"

    def __str__(self) -> str:
        return self.table()

    @property
    def rounds(self) -> list[Comparison]:
        """One comparison for each budget."""
        return [Comparison(results) for results in (self.results, *self.further)]

    @property
    def folder(self) -> Path | None:
        """Where it is kept."""
        folder = self.results.folder
        return folder.parent if self.further and folder is not None else folder

    @property
    def records(self) -> list[dict[str, Any]]:
        """One dict for each run, with the keys of :meth:`Solution.record`; refused and failed runs are among them.

        Runs without an answer have the loss ``None`` and no losses and metrics; their status is ``refused``,
        ``not run`` or ``failed``. Besides there are ``family``, ``tuned`` (how the options were found, or ``None``) and
        ``decision`` (``kind`` and ``seconds`` of one decision afterwards).
        """
        return [
            {**run.record, "budget": dict(results.asked["budget"]), "decision": dict(run.decision) or None}
            for results in (self.results, *self.further)
            for run in results.runs
        ]

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C left runs unfinished."""
        return any(
            run.status in ("interrupted", NOT_RUN)
            for results in (self.results, *self.further)
            for run in results.runs
        ) or any(
            results.marks is not None and results.marks.failure == INTERRUPTED
            for results in (self.results, *self.further)
        )

    def summaries(self) -> list[summary.Summary]:
        """One line for each strategy, best first, with intervals; under the first budget."""
        return summary.summarise(self.results)

    def overview(self) -> list[dict[str, Any]]:
        """The tables as plain values: one dict for each strategy under each budget, best first."""
        return [
            {"budget": dict(each.results.limits), **row}
            for each in self.rounds
            for row in overview.overview(each.results, each.summaries())
        ]

    @property
    def examination(self) -> Examined | None:
        """What long rollouts, unseen trajectories and finer solvers say of learned corrections, under the first budget.

        ``None`` for other problems.
        """
        marks = self.results.marks
        return None if marks is None else Examined(marks)

    def finding(self) -> finding.Finding:
        """Who won, in words; of several budgets who won under which."""
        return verdict([(each.results, each.summaries()) for each in self.rounds])

    def table(self) -> str:
        """Tables for the terminal, what their numbers are, and the finding in words; under each budget."""
        if not self.further:
            table, captions = self._tables()
            budget = finding.budget_words(self.results)
            return "\n".join([f"{table}\n\n{self.finding()}", f"{budget} {captions[0]}", *captions[1:]])
        parts = [
            f"== {each.results.budget or 'no budget'} ==\n\n{each._tables()[0]}\n\n{each.finding()}"
            for each in self.rounds
        ]
        notes = "\n".join(self._tables()[1])
        return "\n\n".join([*parts, f"== all budgets ==\n\n{self.finding()}\n{notes}"])

    def _tables(self) -> tuple[str, list[str]]:
        """Under the first budget: the tables, and what their numbers are."""
        lines = self.summaries()
        table = summary.text_table(self.results, lines)
        zero = [name for name in summary.metric_names(lines) if summary.vanishes(lines, name)]
        if zero:
            table += f"\nbelow {summary.ROUNDING:g} everywhere: {', '.join(zero)}"
        if self.results.marks is not None:
            table += f"\n\n{examined_words.text(self.results.marks, said=False)}"
        drawn = posteriors.sampled(self.results)
        captions = [finding.caption(self.results, lines)]
        if drawn:
            table += f"\n\n{posteriors.text_table(drawn)}"
            captions.append(posteriors.caption(self.results))
        elif not posteriors.sought(self.results) and any(line.loss is not None for line in lines):
            table += f"\n\n{pricing.text_table(self.results, lines)}"
            captions.append(" ".join(pricing.notes(self.results, lines)))
        return table, captions

    def plot(self, path: str | Path | None = None) -> Any:
        """Losses against costs (of the first budget) as a figure; written to ``path`` (PNG, PDF, SVG) if given."""
        figure = figures.courses(self.results, self.summaries())
        if path is not None:
            figure.savefig(path, dpi=150)
        return figure

    def report(self, path: str | Path | None = None) -> Path:
        """Write the report, one HTML file that needs nothing else, and return its path.

        Args:
            path: ``report.html`` in the comparison's folder by default.

        Raises:
            UsageError: if no path is known, or it cannot be written.
        """
        if path is None and self.folder is None:
            raise UsageError(
                "the comparison was not kept in a folder, so report() needs a path: report('report.html')."
            )
        target = Path(path) if path is not None else self.folder / "report.html"  # type: ignore[operator]
        return write_report([(each.results, each.summaries()) for each in self.rounds], target)

    # -- kept in a folder --------------------------------------------------------------------------------------------

    @staticmethod
    def stored_in(folder: str | Path) -> bool:
        """Whether a folder holds a comparison."""
        return (Path(folder) / "comparison.json").is_file()

    @staticmethod
    def question(folder: str | Path) -> dict[str, Any]:
        """What the comparison in a folder was asked: problem, size, problem_seed, strategies, seeds, budget(s)."""
        return dict(store.read_json(Path(folder) / "comparison.json")["asked"])

    @classmethod
    def load(cls, folder: str | Path) -> Comparison:
        """The comparison that was kept in a folder, finished or not.

        Raises:
            UsageError: if there is none.
        """
        if not cls.stored_in(folder):
            raise UsageError(
                f"{folder} holds no comparison; name a folder that compare(..., folder=...) wrote."
            )
        place = Path(folder)
        names = store.read_json(place / "comparison.json").get("rounds")
        if names is None:
            return cls(Results.read(place))
        rounds = [Results.read(place / name) for name in names if cls.stored_in(place / name)]
        if not rounds:
            raise UsageError(f"the comparison in {folder} had not begun; make it again with resume=True.")
        return cls(rounds[0], tuple(rounds[1:]))
