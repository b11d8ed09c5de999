"""Every notebook runs from top to bottom in a fresh kernel, and is stored as it should be.

What a notebook claims is asserted in its own cells (Taylor rates, losses), so running it checks the claims.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

FOLDER = Path(__file__).parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
FIRST = FOLDER / "00_dpcontrol_in_150_lines.ipynb"
LONG = ("30_a_solver_that_learns", "40_dp_versus_model_free")  # minutes: `pytest -m slow` runs them
by_name = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
runs_by_name = pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=[pytest.mark.slow] if path.stem in LONG else []) for path in NOTEBOOKS],
    ids=lambda path: path.stem,
)


def read(path: Path) -> Any:
    """The notebook, valid and of the current format."""
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    return notebook


def executed(notebook: Any, folder: Path, patience: int) -> Any:
    """The notebook after its cells have run, each within ``patience`` seconds, in a new process of this interpreter."""
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient

    # No registered kernel is looked for: without folders "python3" is this interpreter's own ipykernel.
    manager = AsyncKernelManager(kernel_name="python3", kernel_spec_manager=KernelSpecManager(kernel_dirs=[]))
    client = NotebookClient(
        notebook,
        km=manager,
        timeout=patience,
        record_timing=False,
        resources={"metadata": {"path": str(folder)}},
    )
    # as in anybody's notebook: with a backend set for scripts, figures would not reach the cells
    environment = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
    return client.execute(
        cleanup_kc=True, env=environment
    )  # a manager handed in is shut down only on request


def code(notebook: Any) -> list[Any]:
    """Its code cells."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def printed(notebook: Any, stream: str) -> str:
    """All that its cells wrote to ``stdout`` or ``stderr``."""
    outputs = [output for cell in code(notebook) for output in cell.outputs]
    return "".join(
        output.text for output in outputs if output.output_type == "stream" and output.name == stream
    )


def figures(notebook: Any) -> list[int]:
    """The number of images of each code cell."""
    return [sum("image/png" in output.get("data", {}) for output in cell.outputs) for cell in code(notebook)]


def test_there_are_notebooks() -> None:
    assert FIRST in NOTEBOOKS


@runs_by_name
def test_it_runs(path: Path, tmp_path: Path) -> None:
    """No cell fails, nothing is written to the error stream, and there are as many figures as stored."""
    stored = read(path)
    fresh = executed(read(path), tmp_path, patience=1200 if path.stem in LONG else 240)
    assert printed(fresh, "stderr") == ""
    assert figures(fresh) == figures(stored)


@by_name
def test_it_is_stored_clean(path: Path) -> None:
    """Executed in order, without errors and warnings, small, with nothing of the machine that wrote it."""
    notebook = read(path)
    assert [cell.execution_count for cell in code(notebook)] == list(range(1, len(code(notebook)) + 1))
    assert printed(notebook, "stderr") == ""
    assert not any(output.output_type == "error" for cell in code(notebook) for output in cell.outputs)
    assert notebook.metadata.kernelspec == {
        "display_name": "Python 3",
        "language": "python",
        "name": "python3",
    }
    assert path.stat().st_size < 700_000
    bare = json.loads(path.read_text(encoding="utf-8"))
    for cell in bare["cells"]:
        for output in cell.get("outputs", []):
            output.get("data", {}).pop("image/png", None)
    text = json.dumps(bare)
    assert str(FOLDER.parent) not in text
    assert not re.search(r"/home/|/Users/|/root/|/tmp/|/usr/|[A-Z]:\\\\|site-packages", text)


def test_the_first_one_keeps_its_title() -> None:
    """Everything before the package is imported, figures included, is at most 150 lines of plain torch."""
    lines: list[str] = []
    for cell in code(read(FIRST)):
        if "dpcontrol" in cell.source:
            break
        lines += [line for line in cell.source.splitlines() if line.strip()]
    assert 60 < len(lines) <= 150
