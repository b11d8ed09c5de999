"""Where a run stopped being finite: in a state, a cost or an adjoint; at which step, in which field and scenario."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from dpcontrol import tree
from dpcontrol.engine.scan import unbound
from dpcontrol.problem.adjoint import adjoint
from dpcontrol.problem.base import Problem, View
from dpcontrol.problem.rolling import open_loop, roll
from dpcontrol.problem.slots import ControlSequence
from dpcontrol.problem.unknown import Slot
from dpcontrol.tree import Tree

SHORTER = "Take shorter steps, or bound what is sought."
CORNER = (
    "Look for a root, norm, logarithm or division at zero; dpcontrol.safe has them with finite gradients."
)


@dataclass(frozen=True)
class Place:
    """A first entry that is not finite: where in a tree, in which scenario."""

    path: str
    scenario: int


def diagnose(problem: Problem, z: Mapping[str, Tree], scenarios: Tensor | None = None) -> str | None:
    """One sentence on what is not finite first; ``None`` if everything is.

    A rollout is followed step by step through states and costs, then back through the adjoints. The sentence names
    the step, the field (its path in the state's tree), the scenario, and the largest value before.

    Args:
        z: the point; per-scenario parts have a row for each of ``scenarios``.
        scenarios: indices ``(m,)``; all by default.
    """
    where = _Names(scenarios)
    asked = _first(tree.map(lambda leaf: leaf[None], dict(z)))
    if asked is not None:
        return f"the point itself, z{asked.path}, is not finite."
    with torch.no_grad():
        found = _forward(problem, z, scenarios, where)
    if found is None and View.GRADIENT in problem.offers:
        found = _backward(problem, z, scenarios, where)
    return found


@dataclass(frozen=True)
class _Names:
    """The scenarios of a subset by their own numbers."""

    scenarios: Tensor | None

    def __call__(self, row: int) -> int:
        return row if self.scenarios is None else int(self.scenarios[row])


def _forward(problem: Problem, z: Mapping[str, Tree], scenarios: Tensor | None, where: _Names) -> str | None:
    _, loop, _ = open_loop(problem, z, scenarios)
    carry = loop.carry
    bad = _first(carry[0])
    if bad is not None:
        return f"state{bad.path} is not finite from step 0 in scenario {where(bad.scenario)}: it starts like that."
    for k, row in enumerate(unbound(loop.inputs, loop.steps)):
        after, _ = loop.body(carry, row, loop.constants, k)
        bad, costs = _first(after[0]), _first(after[2])
        if costs is not None:  # it is taken at the state that the step begins with
            before = float(carry[2][costs.scenario])
            return (
                f"the cost of step {k} is not finite in scenario {where(costs.scenario)}, where all states are until "
                f"then; the running loss before was {before:.3g}, the largest value in the state "
                f"{_largest(carry[0], costs.scenario):.3g}."
            )
        if bad is not None:
            return (
                f"state{bad.path} is not finite from step {k + 1} in scenario {where(bad.scenario)}; the largest "
                f"value one step before was {_largest(carry[0], bad.scenario):.3g}. {SHORTER}"
            )
        carry = after
    losses = roll(problem, z, scenarios).loss
    bad = _first(losses)
    if bad is not None:
        return (
            f"all states are finite, but the cost of the last state is not in scenario {where(bad.scenario)}; the "
            f"running loss before was {float(carry[2][bad.scenario]):.3g}, the largest value in the state "
            f"{_largest(carry[0], bad.scenario):.3g}."
        )
    if problem.prior is not None and not bool(torch.isfinite(problem.prior.log_density(z)).all()):
        return "the log-density of the prior is not finite: the point lies outside of its support."
    return None


def _backward(problem: Problem, z: Mapping[str, Tree], scenarios: Tensor | None, where: _Names) -> str | None:
    found = adjoint(problem, z, scenarios)
    last = len(tree.leaves(found.states)[0]) - 1
    for k in range(last, -1, -1):
        bad = _first(tree.map(lambda leaf, k=k: leaf[k], found.states))
        if bad is None:
            continue
        head = f"the adjoint of state{bad.path} is not finite at step {k} in scenario {where(bad.scenario)}"
        if k == last:
            return f"{head}, that of the last cost. {CORNER}"
        after = _largest(tree.map(lambda leaf, k=k: leaf[k + 1], found.states), bad.scenario)
        return f"{head}, coming from the end; the largest value at step {k + 1} was {after:.3g}. {CORNER}"
    for slot in problem.unknown.slots:
        gradient = found.unknown[slot.name]
        bad = _first(tree.map(lambda leaf, s=slot: leaf[None] if s.shared else leaf, gradient))
        if bad is not None:
            of = "" if slot.shared else f" in scenario {where(bad.scenario)}"
            at = _step(slot, dict(tree.named_leaves(gradient))[bad.path], bad)
            return (
                f"all adjoints of states are finite, the gradient in {slot.name}{bad.path}{at} is not{of}; the "
                f"largest value in an adjoint was {_over_all(found.states):.3g}. {CORNER}"
            )
    return None


def _step(slot: Slot, gradient: Tensor, bad: Place) -> str:
    """Controls say at which step."""
    if not isinstance(slot, ControlSequence):
        return ""
    rows = gradient if slot.shared else gradient[bad.scenario]
    return f" at step {int(torch.nonzero(~torch.isfinite(rows))[-1][0])}"


def _first(value: Tree) -> Place | None:
    """The first entry that is not finite, leaf by leaf, in leaves ``(scenarios, ...)``."""
    for path, leaf in tree.named_leaves(value):
        bad = ~torch.isfinite(leaf).reshape(len(leaf), -1).all(1)
        if bool(bad.any()):
            return Place(path, int(torch.nonzero(bad)[0]))
    return None


def _largest(state: Tree, scenario: int) -> float:
    return max(float(leaf[scenario].abs().max()) for leaf in tree.leaves(state))


def _over_all(states: Tree) -> float:
    return max(float(leaf.abs().max()) for leaf in tree.leaves(states))
