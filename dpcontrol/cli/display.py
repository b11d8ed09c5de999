"""How solutions and comparisons are shown: as words, as JSON, and as pictures in their folder."""

from __future__ import annotations

import json
import re
import sys
import textwrap
from pathlib import Path
from typing import Any

FAILED, INTERRUPTED = 1, 130


def show(solution: Any, folder: Path, *, as_json: bool) -> int:
    """A solution, with its pictures drawn into the folder; the exit code."""
    pictures = _draw(solution, folder)
    if as_json:
        print(json.dumps(strict(solution.record()), indent=1))
    else:
        ended, _, figures = str(solution).partition("\n")
        print(ended)
        if solution.diagnostics:
            _show_posterior(solution)
        print(figures)
        print(f"  {'stored in':<22}{folder}")
        print(f"  {'pictures':<22}{', '.join(pictures)}")
    return _exit_code(solution.status.kind, solution.status.failed)


def _show_posterior(solution: Any) -> None:
    """The table, what the draws have cost, and the verdict with its warnings."""
    from dpcontrol.posterior import judge

    summary = solution.posterior.summary()
    print(f"\n{textwrap.indent(str(summary), '  ')}\n")
    for line in str(judge(summary)).splitlines():
        print(f"  {line}")
    print()
    effective, steps = solution.diagnostics["ess_bulk"], solution.counts.simulated_steps
    if effective == effective and steps:
        per_step = f"{1000 * effective / steps:.3g} per 1,000 simulated steps"
        print(
            f"  {'effective draws':<22}{effective:,.0f} at worst, {per_step}, {effective / solution.seconds:.3g} per s"
        )


def _draw(solution: Any, folder: Path) -> list[str]:
    """Draw ``solution.png`` and the problem's own figures; the names of the files."""
    from dpcontrol.plot import write

    try:
        figures = {"solution": solution.plot(), **solution.own_figures()}
        names = []
        for name, figure in figures.items():
            names.append(f"{re.sub(r'[^0-9A-Za-z]+', '_', name).strip('_')}.png")
            write(figure, folder / names[-1])
        return names
    except Exception as error:
        # the numbers are stored; a picture of extreme ones is not worth losing the exit code
        print(
            f"dpcontrol: the picture could not be drawn ({type(error).__name__}: {error}).", file=sys.stderr
        )
        return ["none"]


def _exit_code(kind: str, failed: bool) -> int:
    return INTERRUPTED if kind == "interrupted" else FAILED if failed else 0


def show_comparison(comparison: Any, folder: Path, *, as_json: bool) -> int:
    """A comparison, with its report written into the folder; the exit code."""
    report = write_reports(comparison, folder)
    if as_json:
        print(json.dumps(strict(comparison.records), indent=1))
    else:
        print(comparison.table())
        print(f"\nreport: {report}")
    return INTERRUPTED if comparison.interrupted else 0


def write_reports(comparison: Any, folder: Path) -> Path:
    """The report; beside it, where corrections were examined, the tables of that as Markdown."""
    if comparison.examination is not None:
        (folder / "examination.md").write_text(comparison.examination.markdown(), encoding="utf-8")
    report: Path = comparison.report(folder / "report.html")
    return report


def show_calibration(calibration: Any, folder: Path, *, as_json: bool) -> int:
    """A calibration, with its pictures drawn into the folder; the exit code."""
    from dpcontrol.plot import write

    pictures = []
    if calibration.quantities:
        for name, figure in calibration.figures().items():
            pictures.append(f"{name.replace(' ', '_')}.png")
            write(figure, folder / pictures[-1])
    if as_json:
        print(json.dumps(strict(calibration.record()), indent=1))
    else:
        print(calibration)
        print(f"\nstored in {folder}{': ' if pictures else ''}{', '.join(pictures)}")
    if not calibration.complete:
        return INTERRUPTED
    return 0 if calibration.passed else FAILED


def strict(value: Any) -> Any:
    """Numbers that JSON cannot say become null."""
    if isinstance(value, float) and value - value != 0:
        return None
    if isinstance(value, dict):
        return {key: strict(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [strict(entry) for entry in value]
    return value
