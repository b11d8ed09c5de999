"""The README does what it says: its code runs, its commands are there word for word."""

import re
from pathlib import Path

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text()
COMMANDS = (
    'pip install -c constraints.txt -e ".[all]" && dpcontrol compare burgers',
    'pip install -c constraints.txt -e ".[all,dev]" && pytest',
)


def test_the_two_commands_are_there():
    for command in COMMANDS:
        assert f"\n    {command}\n" in README


def test_every_python_block_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(blocks) >= 2
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    shown = capsys.readouterr().out
    assert "converged" in shown and "the gradient is right" in shown and "cmaes" in shown
    assert (tmp_path / "duffing.png").stat().st_size > 10_000
    assert names["trajectory"].states.shape == (61, 2, 2)  # type: ignore[attr-defined]


def test_the_users_example_is_short():
    first = re.search(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert first is not None
    body = first[1].split("def step")[1]
    step, rest = body.split("\n\n", 1)
    assert len(step.strip().splitlines()) <= 10 and len(rest.strip().splitlines()) <= 15


@pytest.mark.parametrize("link", re.findall(r"\]\((?!http)([^)#]+)\)", README))
def test_links_lead_somewhere(link):
    assert (Path(__file__).parents[1] / link).exists()
