r"""Planned control: a network that predicts where to be half-way, again and again, and one that gets to the next state.

The observation predictor (OP) is asked for the state in the middle of a span of steps, of which it knows both ends; the
control-force estimator (CFE) for the control that leads from one state to the next. Both work in units of the state's
typical size; what the OP predicts is added to the straight line between the ends.

=============  =====================================================================================================
scheme         what the CFE is asked for at step k
=============  =====================================================================================================
``chain``      the control towards the target itself, ``N - k`` steps away; there is no plan
``staggered``  the control towards the planned ``x_{k+1}``. Every span is halved once, when the run enters it, from the
               state reached by then and the planned state at its far end
``refined``    the control towards ``x_{k+1}`` planned anew: from the state reached, what remains is halved until one
               step is left
=============  =====================================================================================================

The plan that is under way is the controller's memory. Spans need not be powers of two: the first half is the longer.

Source: P. Holl, V. Koltun, N. Thuerey, "Learning to control PDEs with differentiable physics", ICLR 2020, sections 4
and 5.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dpcontrol import tree
from dpcontrol.problem.base import Problem
from dpcontrol.problem.packed import Layout, sizes
from dpcontrol.problem.policy_slot import BoundedNetwork, MemoryNetwork
from dpcontrol.problem.slots import ControlSequence
from dpcontrol.problem.terms import target_state
from dpcontrol.results import UsageError
from dpcontrol.tree import Tree

SCHEMES = ("chain", "staggered", "refined")
Body = Callable[[int, int], nn.Module]
Span = tuple[int, int]


def middle(first: int, last: int) -> int:
    """The step where a span is halved; the first half is the longer."""
    return first + (last - first + 1) // 2


def enclosing(k: int, horizon: int) -> list[Span]:
    """The spans that hold step ``k`` when ``(0, horizon)`` is halved again and again, the longest first."""
    first, last = 0, horizon
    found = [(first, last)]
    while last - first > 1:
        centre = middle(first, last)
        first, last = (first, centre) if k < centre else (centre, last)
        found.append((first, last))
    return found


@dataclass(frozen=True)
class Task:
    """What a planning controller knows of its problem.

    Attributes:
        target: the entry of the scenarios that holds the state to be at after ``horizon`` steps.
        varying: entries of the scenarios that the physics depends on, with their typical sizes.
        first: the step that it begins with, 0 but for windows.
        dt: time of a step.
        control: the slot whose control is played.
    """

    target: str
    varying: Mapping[str, tuple[float, ...]]
    layout: Layout
    horizon: int
    first: int
    dt: float
    control: ControlSequence

    def numbers(self, scenario: Mapping[str, Tree], like: Tensor) -> Tensor | None:
        """What differs between scenarios, ``(scenarios, numbers)``, or as constant channels like a packed state."""
        rows = [
            leaf.reshape(len(leaf), -1) / scale
            for name, scales in self.varying.items()
            for leaf, scale in zip(tree.leaves(scenario[name]), scales, strict=True)
        ]
        if not rows:
            return None
        flat = torch.cat(rows, 1)
        grid = like.shape[2:]
        return flat.reshape(*flat.shape, *(1 for _ in grid)).expand(*flat.shape, *grid)


class PlannedController(MemoryNetwork, BoundedNetwork):
    """See the module's docstring. Made by :func:`planned_controller`.

    Args:
        task: what it knows of its problem.
        scheme: ``"chain"``, ``"staggered"`` or ``"refined"``.
        estimator: the CFE's network.
        predictors: the OP's networks: one for all spans, or one for each power of two; none for a chain.
    """

    def __init__(self, task: Task, scheme: str, estimator: nn.Module, predictors: list[nn.Module]) -> None:
        super().__init__()
        self.task, self.scheme, self.control = task, scheme, task.control
        self.estimator = estimator
        self.predictors = nn.ModuleList(predictors)

    def begin(self, state: Tree, scenario: Mapping[str, Tree]) -> tuple[Tensor, ...]:
        """Room for the planned state at the end of every enclosing span but the longest; nothing is planned yet."""
        if self.scheme != "staggered":
            return ()
        packed = self.task.layout.pack(scenario[self.task.target])
        return tuple(torch.zeros_like(packed) for _ in range(levels(self.task.horizon)))

    def forward(
        self, memory: tuple[Tensor, ...], state: Tree, t: float, scenario: Mapping[str, Tree]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The control ``(scenarios, *shape)``, and the plan that is under way."""
        k, horizon = round(t / self.task.dt) - self.task.first, self.task.horizon
        here = self.task.layout.pack(state)
        target = self.task.layout.pack(scenario[self.task.target]).expand_as(here)
        numbers = self.task.numbers(scenario, here)
        if self.scheme == "chain":
            return self.estimate(here, target, horizon - k, numbers), memory
        if self.scheme == "refined":
            goal = self._halved(here, target, horizon - k, numbers)
        else:
            goal, memory = self._staggered(memory, here, target, k, numbers)
        return self.estimate(here, goal, 1, numbers), memory

    def predict(self, start: Tensor, end: Tensor, span: int, numbers: Tensor | None) -> Tensor:
        """The OP: where to be at the middle of a span of steps, from packed states."""
        share = middle(0, span) / span
        line = start + share * (end - start)
        length = span / self.task.horizon
        predictor = self.predictors[min(levels(span), len(self.predictors)) - 1]
        bent: Tensor = predictor(self._seen(start, end - start, length, numbers))
        return line + length * bent.reshape(line.shape)

    def estimate(self, start: Tensor, end: Tensor, span: int, numbers: Tensor | None) -> Tensor:
        """The CFE: the control ``(scenarios, *shape)`` of the first of ``span`` steps towards ``end``."""
        length = span / self.task.horizon
        raw: Tensor = self.estimator(self._seen(start, (end - start) / length, length, numbers))
        control = self.task.control
        return control.ranged(raw.reshape(len(start), *control.sizes))

    def plan(self, state: Tree, scenario: Mapping[str, Tree]) -> Tree:
        """The whole plan from a state at the start, leaves ``(horizon + 1, scenarios, ...)``; for pictures of it."""
        layout = self.task.layout
        start = layout.pack(state)
        rows = {0: start, self.task.horizon: layout.pack(scenario[self.task.target]).expand_as(start)}
        numbers = self.task.numbers(scenario, start)

        def halve(first: int, last: int) -> None:
            if last - first > 1:
                centre = middle(first, last)
                rows[centre] = self.predict(rows[first], rows[last], last - first, numbers)
                halve(first, centre)
                halve(centre, last)

        halve(0, self.task.horizon)
        return tree.stack([layout.unpack(rows[k], state) for k in sorted(rows)])

    def _seen(self, start: Tensor, way: Tensor, length: float, numbers: Tensor | None) -> Tensor:
        given = [start, way, torch.full_like(start[:, :1], length)]
        return torch.cat(given if numbers is None else [*given, numbers], 1)

    def _halved(self, here: Tensor, goal: Tensor, span: int, numbers: Tensor | None) -> Tensor:
        while span > 1:
            goal = self.predict(here, goal, span, numbers)
            span = middle(0, span)
        return goal

    def _staggered(
        self, memory: tuple[Tensor, ...], here: Tensor, target: Tensor, k: int, numbers: Tensor | None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The planned next state; spans that begin here are halved now, from the state that was reached."""
        spans = enclosing(k, self.task.horizon)
        goals = [target]
        for level, (outer, inner) in enumerate(itertools.pairwise(spans)):
            if inner[1] == outer[1]:
                goals.append(goals[-1])
            elif outer[0] == k:
                goals.append(self.predict(here, goals[-1], outer[1] - outer[0], numbers))
            else:
                goals.append(memory[level])
        return goals[-1], (*goals[1:], *memory[len(goals) - 1 :])


def levels(span: int) -> int:
    """How often a span has to be halved until one step is left."""
    return max(1, math.ceil(math.log2(span)))


def planned_controller(
    problem: Problem,
    scheme: str,
    body: Body,
    *,
    executor: Body | None = None,
    shared: bool = True,
    fields: bool = False,
) -> PlannedController:
    """A planning controller for an open-loop problem.

    Args:
        problem: seeks one control sequence and has a target that is a state.
        scheme: one of ``SCHEMES``.
        body: makes a network, ``body(inputs, outputs)``; with ``fields`` from channels to channels on the grid.
        executor: makes the CFE's network, where it is to be another.
        shared: one OP for all spans, or one for each power of two.
        fields: whether networks work on the grid of the state.

    Raises:
        UsageError: for a problem without such a target, one that shows only an observation of its state, or where
            ``fields`` does not fit state or control.
    """
    control = control_of(problem)
    target = target_state(problem.objective)
    if target is None:
        raise UsageError(
            f"{problem.name} has no target that is a state, so there is nothing to plan towards: pose it with "
            "reach(target) of the whole state, or closing(target)."
        )
    if problem.observation is not None:
        raise UsageError(
            f"a plan is made of whole states, but {problem.name} shows a controller only an observation of them: "
            "use policy, or leave observation= out."
        )
    data = problem.scenarios.data
    end, start = data[target], data["initial_state"]
    both = [end, start] if tree.same_structure(end, start) else [end]
    layout = Layout(tuple(map(max, *(sizes(state) for state in both), sizes(end))), fields)
    own = [name for name in problem.simulator.parameters if name in data]
    varying = {name: sizes(data[name]) for name in own if name not in problem.scenarios.shared}
    dt = problem.simulator.dt
    task = Task(target, varying, layout, problem.horizon, problem.first, dt, control)
    channels, acted = _channels(problem, task, end) if fields else _counts(task, end)
    with torch.no_grad():
        packed = layout.pack(end)
        numbers = task.numbers(data, packed)
    inputs = 2 * packed.shape[1] + 1 + (0 if numbers is None else numbers.shape[1])
    count = 0 if scheme == "chain" else 1 if shared else levels(problem.horizon)
    made = [(executor or body)(inputs, acted), *(body(inputs, channels) for _ in range(count))]
    for network in made:
        if not isinstance(network, nn.Module):
            raise UsageError(
                f"the function that makes a planner's networks, (inputs, outputs) -> nn.Module, made a "
                f"{type(network).__name__}: return a module."
            )
        network.to(packed.dtype)
    return PlannedController(task, scheme, made[0], made[1:])


def control_of(problem: Problem) -> ControlSequence:
    """The one control sequence that a problem seeks.

    Raises:
        UsageError: if it seeks something else.
    """
    slots = problem.unknown.slots
    if len(slots) != 1 or not isinstance(slots[0], ControlSequence):
        raise UsageError(
            f"a controller plays a control step by step, but {problem.name} seeks {', '.join(problem.unknown.names)}: "
            "pose it with control=ControlSequence(...)."
        )
    return slots[0]


def _counts(task: Task, state: Tree) -> tuple[int, int]:
    return task.layout.pack(state).shape[1], math.prod(task.control.sizes)


def _channels(problem: Problem, task: Task, state: Tree) -> tuple[int, int]:
    leaves = tree.leaves(state)
    grids = {tuple(leaf.shape[1:]) for leaf in leaves}
    grid, acted = grids.pop(), task.control.sizes
    plain = not grids and not any(leaf.is_complex() for leaf in leaves) and len(grid) in (1, 2)
    if not plain or acted[len(acted) - len(grid) :] != grid or len(acted) > len(grid) + 1:
        raise UsageError(
            f"convolutions need a real state on one grid in one or two dimensions and a control on the same grid; "
            f"{problem.name} has the state {tree.describe(state)} and a control {acted}: use network='mlp'."
        )
    return len(leaves), math.prod(acted[: len(acted) - len(grid)])
