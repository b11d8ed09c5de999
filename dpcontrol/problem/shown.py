"""A problem in words: what its ``repr`` and its ``str`` say."""

from __future__ import annotations

import re
import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dpcontrol.problem.base import Problem

WIDTH = 110
FUNCTION = re.compile(r"<(?:function|bound method) (\S+)[^<>]* at 0x[0-9a-f]+>")
OBJECT = re.compile(r"<(?:[\w<>]+\.)*(\w+) object at 0x[0-9a-f]+>")


def in_a_line(problem: Problem) -> str:
    """Its name and its sizes."""
    scenarios = _counted(problem.scenarios.count, "scenario")
    steps = f"{_counted(problem.horizon, 'step')} of {problem.simulator.dt:g}"
    return f"Problem {problem.name}: {scenarios}, {steps}, seeks {', '.join(problem.unknown.names)}"


def in_full(problem: Problem) -> str:
    """The same with a line for each of its parts, cut where it gets long."""
    parts = {
        "simulator": problem.simulator,
        "judged on": problem.plant,
        "data": problem.scenarios,
        **{slot.name: slot for slot in problem.unknown.slots},
        "objective": " + ".join(f"{weight:g} {term}" for weight, term in problem.objective.terms),
        "laws": ", ".join(problem.baselines),
        "figures": ", ".join(problem.metric_functions),
    }
    lines = [f"  {name:<22}{_cut(str(part))}" for name, part in parts.items() if part]
    return "\n".join([in_a_line(problem), *lines])


def _cut(text: str) -> str:
    named = OBJECT.sub(r"\1", FUNCTION.sub(lambda found: found[1].rpartition(".")[2], text))
    return textwrap.shorten(named, WIDTH, placeholder=" ...")


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
