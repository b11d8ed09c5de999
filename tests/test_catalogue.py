"""The catalogue: what it finds, that every file keeps its face, and what others may add."""

import importlib.metadata
import subprocess
import sys

import pytest

import dpcontrol as dp
from dpcontrol import catalogue, tree
from dpcontrol.run import mismatch
from dpcontrol.strategies.names import resolve

NAMES = sorted(catalogue.names())


def build(entry, **options):
    """The problem; one that needs a package which is not installed here says so, and is skipped."""
    try:
        return entry.build(**options)
    except dp.UsageError as error:
        if "is not installed here: pip install" not in str(error):
            raise
        pytest.skip(str(error))


@pytest.mark.parametrize("name", NAMES)
def test_every_problem_builds_small_and_says_what_it_is(name):
    entry = catalogue.find(name)
    problem = build(entry, size="small", seed=1)
    assert (problem.origin.reference, problem.origin.size, problem.origin.seed) == (name, "small", 1)
    assert problem.name.startswith(name) and problem.description == entry.docstring
    assert entry.headline.endswith((".", "?")) and len(entry.headline) < 120
    for word in ("Unknown", "Objective", "Reference"):
        assert word in entry.docstring, f"the docstring of {name} has no paragraph {word!r}"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", catalogue.SIZES)
def test_suggested_comparisons_can_run(name, size):
    entry = catalogue.find(name)
    problem = build(entry, size="small")
    defaults = entry.defaults(size)
    assert set(defaults) <= {"strategy", "strategies", "simulated_steps", "gradients", "seconds"}
    for strategy in (defaults.get("strategy", "lbfgs"), *defaults.get("strategies", [])):
        assert mismatch(problem, resolve(strategy)) is None


@pytest.mark.parametrize("name", NAMES)
def test_the_seed_draws_the_scenes_and_wrong_sizes_are_refused(name):
    entry = catalogue.find(name)
    with pytest.raises(dp.UsageError, match="size must be"):
        entry.build(size="huge")
    with pytest.raises(dp.UsageError, match="seed must be"):
        entry.build(seed=-1)
    first, again = build(entry, size="small", seed=4), build(entry, size="small", seed=4)
    one, other = first.scenarios.data["initial_state"], again.scenarios.data["initial_state"]
    assert [a.tolist() for a in tree.leaves(one)] == [b.tolist() for b in tree.leaves(other)]


def test_a_file_may_import_what_lies_beside_it(tmp_path):
    (tmp_path / "beside_it.py").write_text("def step(x, u):\n    return x + 0.1 * u\n")
    path = tmp_path / "mine.py"
    path.write_text(
        '"""Mine?"""\n'
        "import torch\n"
        "import dpcontrol as dp\n"
        "from beside_it import step\n"
        "def problem(*, size='full', seed=0):\n"
        "    return dp.control_problem(step, initial_state=torch.ones(2, 1).double(), horizon=2,\n"
        "        objective=dp.reach(torch.zeros(1)) + dp.effort(), control=dp.ControlSequence(1), name='mine')\n"
    )
    asked = ["compare", str(path), "--strategies", "lbfgs,adjoint", "--simulated-steps", "400", "--quiet"]
    command = [sys.executable, "-m", "dpcontrol", *asked, "--output", str(tmp_path / "out"), "--workers", "1"]
    found = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path / "..")
    assert found.returncode == 0 and "converged" in found.stdout, found.stderr


def test_installed_packages_may_add_problems(monkeypatch, tmp_path):
    (tmp_path / "a_package_of_others.py").write_text(
        '"""A problem of others?"""\n'
        "from dpcontrol.problems.linear_quadratic import problem as ours\n"
        "def problem(*, size='full', seed=0):\n"
        "    return ours(size=size, seed=seed)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    point = importlib.metadata.EntryPoint("theirs", "a_package_of_others", catalogue.GROUP)
    real = importlib.metadata.entry_points
    monkeypatch.setattr(
        importlib.metadata,
        "entry_points",
        lambda **k: [point] if k == {"group": catalogue.GROUP} else real(**k),
    )
    assert "theirs" in catalogue.names()
    assert catalogue.find("theirs").build(size="small").origin.reference == "theirs"
