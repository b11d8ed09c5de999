"""What ``compare`` hands back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpcontrol import store
from dpcontrol.comparison import figures, finding, posteriors, summary
from dpcontrol.comparison.records import NOT_RUN, Results
from dpcontrol.comparison.report import write_report
from dpcontrol.results import UsageError


@dataclass(frozen=True)
class Comparison:
    """Runs of several strategies on one problem, and what they say together. Made by :func:`compare`."""

    results: Results

    @property
    def records(self) -> list[dict[str, Any]]:
        """One dict for each run, with the keys of :meth:`Solution.record`; refused and failed runs are among them.

        Runs without an answer have the loss ``None`` and no losses and metrics; their status is ``refused``,
        ``not run`` or ``failed``.
        """
        return [dict(run.record) for run in self.results.runs]

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C left runs unfinished."""
        return any(run.status in ("interrupted", NOT_RUN) for run in self.results.runs)

    def summaries(self) -> list[summary.Summary]:
        """One line for each strategy, best first, with intervals."""
        return summary.summarise(self.results)

    def finding(self) -> finding.Finding:
        """Who won, in words."""
        return finding.finding(self.results, self.summaries())

    def table(self) -> str:
        """A table for the terminal, what its numbers are, and the finding in words."""
        lines = self.summaries()
        table = summary.text_table(self.results, lines)
        zero = [name for name in summary.metric_names(lines) if summary.vanishes(lines, name)]
        if zero:
            table += f"\nbelow {summary.ROUNDING:g} everywhere: {', '.join(zero)}"
        drawn = posteriors.sampled(self.results)
        if drawn:
            table += f"\n\n{posteriors.text_table(drawn)}"
        captions = [finding.caption(self.results, lines)] + [posteriors.caption(self.results)] * bool(drawn)
        return f"{table}\n\n{finding.finding(self.results, lines)}\n" + "\n".join(captions)

    def plot(self, path: str | Path | None = None) -> Any:
        """A figure of losses against costs; written to ``path`` (PNG, PDF, SVG) if one is given."""
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
        if path is None and self.results.folder is None:
            raise UsageError(
                "the comparison was not kept in a folder, so report() needs a path: report('report.html')."
            )
        target = Path(path) if path is not None else self.results.folder / "report.html"  # type: ignore[operator]
        return write_report(self.results, self.summaries(), target)

    # -- kept in a folder --------------------------------------------------------------------------------------------

    @staticmethod
    def stored_in(folder: str | Path) -> bool:
        """Whether a folder holds a comparison."""
        return (Path(folder) / "comparison.json").is_file()

    @staticmethod
    def question(folder: str | Path) -> dict[str, Any]:
        """What the comparison in a folder was asked: problem, size, problem_seed, strategies, seeds, budget."""
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
        return cls(Results.read(Path(folder)))
