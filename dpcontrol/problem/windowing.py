r"""``window``: the same problem, shorter, from here.

For a sum over steps the loss of a problem is that of its first part plus that of the rest,

.. math::  J_{0:N}(x_0, u) = J_{0:m}(x_0, u_{0:m}) + J_{m:N}(x_m, u_{m:N}),

so the tail of an optimum is the optimum of the window that begins in its state (R. Bellman, "Dynamic Programming",
1957). It is what a receding horizon solves at each decision.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from dpcontrol import tree
from dpcontrol.problem.base import Problem
from dpcontrol.problem.course import Opening
from dpcontrol.problem.objective import Closing, Frame, Squares, Sum, Term
from dpcontrol.problem.path import Moment, Path
from dpcontrol.problem.policy_slot import MemoryNetwork, Policy
from dpcontrol.problem.scenarios import Scenarios
from dpcontrol.problem.slots import ControlSequence
from dpcontrol.problem.terms import Cost, Effort, Fold, Misfit, Penalty, Reach, Track
from dpcontrol.problem.unknown import Slot, Unknown
from dpcontrol.results import UsageError
from dpcontrol.tree import Tree

Terminal = str | Callable[..., Tensor]
TREATMENTS = ("none", "own")


def window(
    problem: Problem,
    state: Tree,
    first: int,
    steps: int | None = None,
    *,
    terminal: Terminal = "none",
    memories: Tree = None,
) -> Problem:
    r"""The steps ``first .. first + steps - 1`` of a problem as a problem of its own, which begins in ``state``.

    Time goes on: laws, step functions, tracked rows, noise and trajectories see the step and the time that they would
    see in the whole. Scenario data are those of the whole, so that user functions find what they know; the control's
    start guess is its part of the whole's.

    A window that reaches the end of the problem has its terminal costs and its closing condition. One that ends before
    has, at its last state,

    - ``terminal="none"``: no cost (that state is the first of the next window, which pays for it), and no closing;
    - ``terminal="own"``: the problem's own: ``reach``, terminal costs, the tracked row of that step, the closing
      condition, as if the problem ended here: what a receding horizon commonly does;
    - a function ``terminal(state) -> (scenarios,)``, which may take ``scenario`` by keyword: a cost-to-go of your own,
      instead of the problem's.

    A ``penalty(...)`` on what is sought counts in every window; one that ties neighbouring steps together sees none of
    those outside.

    Args:
        state: like a state of a trajectory, leaves ``(scenarios, ...)``: schemes of several steps have their history
            in it, and it is not started again.
        first: the step of the whole problem that is the window's first.
        steps: how many steps; to the end by default.
        terminal: see above.
        memories: what the objective's terms remember of the steps before (``episode.position.memories``), one for each
            term. A :func:`~dpcontrol.problem.terms.fold` without it begins anew; with it the window that reaches the
            end has the fold of the whole as its cost.

    Raises:
        UsageError: for a problem with a prior, steps that the problem does not have, a state of another shape, no free
            step for a control, a controller with a memory, or another ``terminal``.
    """
    last = problem.first + problem.horizon
    end = _checked_end(problem, first, steps)
    for slot in problem.unknown.slots:
        if first > problem.first and isinstance(slot, Policy) and isinstance(slot.network, MemoryNetwork):
            raise UsageError(
                f"{problem.name} seeks the weights of a controller with a memory, which is not known at step {first}: "
                "take the window of the open-loop problem, and let the controller begin there."
            )
    if terminal not in TREATMENTS and not callable(terminal):
        raise UsageError(
            f"a window's terminal must be 'none', 'own' or a function terminal(state); found {terminal!r}."
        )
    kept, remembered = problem.objective.terms, _checked_memories(problem, memories)
    if end < last and terminal != "own":
        pairs = [
            (weight, _without_end(term, end), memory)
            for (weight, term), memory in zip(kept, remembered, strict=True)
        ]
        there = [(weight, term, memory) for weight, term, memory in pairs if term is not None]
        kept = tuple((weight, term) for weight, term, _ in there)
        remembered = tuple(memory for _, _, memory in there)
        if callable(terminal):
            kept, remembered = (*kept, (1.0, Cost(None, terminal))), (*remembered, None)
    objective = Sum(kept)
    data, opening = _opened(problem, state, first, remembered if memories is not None else None)
    shorter = replace(
        problem,
        scenarios=Scenarios(data, shared=problem.scenarios.shared),
        horizon=end - first,
        objective=objective,
        opening=opening,
    )
    if shorter.free_steps < 1 and "control" in problem.unknown.names:
        raise UsageError(
            f"the window of {problem.name} from step {first} to {end} has no step whose control is free, as a closing "
            "condition takes the last one: begin earlier, or end later."
        )
    slots = tuple(
        _part(slot, problem, first - problem.first, shorter.free_steps) for slot in problem.unknown.slots
    )
    return replace(shorter, unknown=Unknown(slots, problem.unknown.transforms))


def _checked_end(problem: Problem, first: int, steps: int | None) -> int:
    """The step behind the window's last one, after a look at everything that is asked."""
    if problem.prior is not None:
        raise UsageError(
            f"{problem.name} has a prior, and a posterior has no windows: pose its control with control_problem(...)."
        )
    begin, last = problem.first, problem.first + problem.horizon
    for name, value in (("first", first), ("steps", steps)):
        if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
            raise UsageError(f"a window's {name} must be a whole number; found {value!r}.")
    end = last if steps is None else first + steps
    if not begin <= first < last or not first < end <= last:
        raise UsageError(
            f"{problem.name} has the steps {begin} to {last - 1}; a window from step {first} of "
            f"{end - first} steps is not inside: choose first and steps within them."
        )
    return end


def _checked_memories(problem: Problem, memories: Tree) -> tuple[Tree, ...]:
    terms = problem.objective.terms
    if memories is None:
        return (None,) * len(terms)
    if not isinstance(memories, (tuple, list)) or len(memories) != len(terms):
        raise UsageError(
            f"memories must be a tuple with one entry for each of the {len(terms)} terms of the objective; found "
            f"{tree.describe(memories)}: take those of an episode, episode.position.memories."
        )
    return tuple(memories)


def _opened(
    problem: Problem, state: Tree, first: int, memories: tuple[Tree, ...] | None
) -> tuple[dict[str, Tree], Opening]:
    """The scenario data with what a window begins with."""
    count, before = problem.scenarios.count, problem.opening
    if not tree.leaves(state) or any(
        not isinstance(leaf, Tensor) or leaf.ndim < 1 or len(leaf) != count for leaf in tree.leaves(state)
    ):
        raise UsageError(
            f"a window of {problem.name} begins in a state with leaves ({count}, ...), one row for each scenario; "
            f"found {tree.describe(state)}."
        )
    data = dict(problem.scenarios.data)
    if before is not None:  # a window of a window: its own beginning is of no use any more
        data.pop(before.state)
        if before.memories is not None:
            data.pop(before.memories)
    named = _free("window_state", data)
    data[named] = state
    if memories is None or not tree.leaves(memories):
        return data, Opening(first, named)
    remembering = _free("window_memories", data)
    data[remembering] = tree.map(lambda leaf: leaf.expand(count) if leaf.ndim == 0 else leaf, memories)
    return data, Opening(first, named, remembering)


def _free(name: str, data: Mapping[str, Tree]) -> str:
    while name in data:
        name += "_"
    return name


def _part(slot: Slot, problem: Problem, offset: int, free: int) -> Slot:
    """A slot of the window: a control's start guess and scale are their parts of the whole's."""
    if not isinstance(slot, ControlSequence):
        return slot
    pose = problem.pose()

    def cut(leaf: Tensor) -> Tensor:
        return leaf.narrow(0 if slot.shared else 1, offset, free)

    start, scale = slot.start, slot.scale
    if isinstance(start, Tensor) and start.ndim > len(slot.sizes):
        start = cut(slot.guess(pose))
    if isinstance(scale, Tensor) and scale.ndim > len(slot.sizes):
        scale = cut(slot.magnitude(pose))
    return replace(slot, start=start, scale=scale)


def _without_end(term: Term, end: int) -> Term | None:
    """A term without its cost at the last state, which is that of step ``end``; ``None`` if nothing is left."""
    if isinstance(term, Reach | Closing | Fold):
        return None
    if isinstance(term, Effort | Penalty):
        return term
    if isinstance(term, Track | Misfit):
        # places in the tuple name rows of the data, so a step that does not count becomes one that never comes
        named = range(end) if term.steps is None else term.steps
        return replace(term, steps=tuple(k if k < end else -1 for k in named))
    if isinstance(term, Cost):
        return None if term.stage_cost is None else replace(term, terminal_cost=None)
    return StageSquares(term) if isinstance(term, Squares) else Stages(term)


@dataclass(frozen=True)
class Stages(Term):
    """The stages of a term, without its cost at the last state."""

    inner: Term

    def init(self, moment: Moment, frame: Frame) -> Tree:
        return self.inner.init(moment, frame)

    def stage(self, memory: Tree, moment: Moment, frame: Frame) -> tuple[Tree, Tensor | None]:
        return self.inner.stage(memory, moment, frame)

    def finish(self, memory: Tree, moment: Moment, frame: Frame) -> Tensor | None:
        return None

    def along(self, memory: Tree, path: Path, frame: Frame) -> tuple[Tree, Tensor | None]:
        return self.inner.along(memory, path, frame)

    def settled(self, paths: Sequence[Path], frame: Frame) -> Term:
        return replace(self, inner=self.inner.settled(paths, frame))


@dataclass(frozen=True)
class StageSquares(Squares):
    """The stages of a sum of squares, without its residuals at the last state."""

    inner: Squares

    def residuals(self, moment: Moment, frame: Frame, *, last: bool) -> Tree:
        return None if last else self.inner.residuals(moment, frame, last=False)

    def residuals_along(self, path: Path, frame: Frame) -> Tree:
        return self.inner.residuals_along(path, frame)


__all__ = ["window"]
