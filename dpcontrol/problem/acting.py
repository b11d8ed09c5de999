"""Controllers that may remember, what goes wrong between them and the world, and the one loop that scores them all.

A controller is asked for a memory when an episode begins, and then at every step for a control. A feedback law, a
trained network, a plan that is replayed without looking, a receding horizon, a filter with a regulator behind it and a
policy of another library are all controllers; :func:`play` closes the loop around any of them, on the plant.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from dpcontrol import tree
from dpcontrol.problem.base import Problem, View
from dpcontrol.problem.unknown import Forgetful, Inputs, Law, Remembering
from dpcontrol.results import UsageError
from dpcontrol.tree import Tree


@dataclass(frozen=True)
class Outset:
    """What a controller may know before the first step.

    Attributes:
        state: the state at the start, leaves ``(scenarios, ...)``.
        scenario: the per-scenario data.
        steps: how many controls will be asked for.
        dt: the time between two of them.
        generator: for whatever is random in a controller or its sensors. Draw from it here, not while acting, so that
            the same outset gives the same episode.
    """

    state: Tree
    scenario: Mapping[str, Tree]
    steps: int
    dt: float
    generator: torch.Generator

    @property
    def count(self) -> int:
        """How many episodes run side by side."""
        return len(tree.leaves(self.state)[0])


@runtime_checkable
class Acting(Protocol):
    """A controller with a memory. Frozen: everything that changes during an episode is in the memory.

    The memory is any value that belongs to the controller (a tree of tensors, a solver's warm start, ``None``); it is
    never changed in place, so that a step can be taken again.
    """

    def init(self, outset: Outset) -> Any:
        """The memory before the first step."""
        ...

    def act(self, memory: Any, state: Tree, t: float, scenario: Mapping[str, Tree]) -> tuple[Tree, Any]:
        """The control ``(scenarios, *shape)`` at time ``t``, and the memory afterwards."""
        ...


@dataclass(frozen=True)
class Feedback:
    """A law of a problem, with its memory if it has one, as a controller."""

    law: Remembering

    def init(self, outset: Outset) -> Tree:
        """The law's memory."""
        return self.law.begin(outset.state, outset.scenario)

    def act(self, memory: Tree, state: Tree, t: float, scenario: Mapping[str, Tree]) -> tuple[Tree, Tree]:
        """What the law says."""
        return self.law.act(memory, state, t, scenario)


@dataclass(frozen=True)
class Replayed:
    """A plan, played step by step without looking at the state.

    Args:
        controls: leaves ``(scenarios, steps, *shape)``.
        scenario: the data of the scenarios that it was made for: in others it is refused.
    """

    controls: Tree
    scenario: Mapping[str, Tree]

    def init(self, outset: Outset) -> tuple[list[Tree], int]:
        """The rows of the plan, and which one is next.

        Raises:
            UsageError: for other scenarios than those it was made for, or more steps than it has.
        """
        if not _same_scenes(self.scenario, outset.scenario):
            raise UsageError(
                "this plan was made for other scenarios, and a plan does not look: solve it for these, or let a "
                "feedback controller act."
            )
        rows = tree.unbind(tree.map(lambda leaf: leaf.transpose(0, 1), self.controls))
        if len(rows) < outset.steps:
            raise UsageError(f"this plan has {len(rows)} controls, but the episode takes {outset.steps}.")
        return rows, 0

    def act(
        self, memory: tuple[list[Tree], int], state: Tree, t: float, scenario: Mapping[str, Tree]
    ) -> tuple[Tree, tuple[list[Tree], int]]:
        """The next row."""
        rows, k = memory
        return rows[k], (rows, k + 1)


@dataclass(frozen=True)
class Sensed:
    r"""A controller that sees the state through a noisy sensor.

    It is handed :math:`x_k + \sigma \xi_k` with standard normal :math:`\xi_k`, drawn anew for every entry and step.
    With probability ``dropout`` the measurement of a scenario is lost at a step, and the last one stays (the first
    one always arrives). Noise goes to every real or complex entry of the state, before the controller's own observation
    picks from it; an observation that is noisy in other units is best made a controller of one's own.

    Args:
        controller: who sees it.
        noise: :math:`\sigma`, in the state's unit: a number, or a tree of numbers or tensors that broadcast to the
            state. Zero leaves the state as it is, to the bit.
        dropout: probability of a lost measurement, in [0, 1).
    """

    controller: Acting
    noise: Any = 0.0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        require_acting("Sensed", self.controller)
        for leaf in tree.leaves(self.noise):
            level = torch.as_tensor(leaf)
            if not level.is_floating_point() or not bool((torch.isfinite(level) & (level >= 0)).all()):
                raise UsageError(f"Sensed(noise=...) is a standard deviation, 0.0 or larger; found {leaf!r}.")
        if not isinstance(self.dropout, (int, float)) or not 0 <= self.dropout < 1:
            raise UsageError(
                f"Sensed(dropout=...) is a probability of at least 0 and below 1; found {self.dropout!r}."
            )

    def init(self, outset: Outset) -> Any:
        """The controller's memory, the seed of the noise, the step and the last measurement."""
        seed = int(torch.randint(2**62, (), generator=outset.generator))
        return self.controller.init(outset), seed, 0, None

    def act(self, memory: Any, state: Tree, t: float, scenario: Mapping[str, Tree]) -> tuple[Tree, Any]:
        """What the controller does with a noisy state."""
        inner, seed, k, last = memory
        # a stream of its own for each step: the same memory gives the same noise, and nothing has to be kept
        generator = torch.Generator().manual_seed(seed + k)
        seen = _noisy(state, self.noise, generator)
        if self.dropout > 0 and last is not None:
            lost = torch.rand(len(tree.leaves(state)[0]), generator=generator) < self.dropout
            seen = tree.map(lambda new, old: _where(lost, old, new), seen, last)
        control, inner = self.controller.act(inner, seen, t, scenario)
        return control, (inner, seed, k + 1, seen if self.dropout > 0 else None)


@dataclass(frozen=True)
class Delayed:
    """A controller whose commands reach the actuator ``steps`` steps late.

    What it decides at step k is played at step k + ``steps``. Until the first command arrives the actuator plays
    ``before`` (zero by default), clipped to the bounds like every control; the last ``steps`` commands are never
    played.

    Args:
        controller: who commands. It does not know of the delay.
        steps: whole steps, 0 or more.
        before: the control before the first command, a tree of numbers or tensors that broadcast to it.
    """

    controller: Acting
    steps: int
    before: Any = 0.0

    def __post_init__(self) -> None:
        require_acting("Delayed", self.controller)
        if not isinstance(self.steps, int) or isinstance(self.steps, bool) or self.steps < 0:
            raise UsageError(f"Delayed(steps=...) must be a whole number, 0 or more; found {self.steps!r}.")

    def init(self, outset: Outset) -> Any:
        """The controller's memory, and no command under way."""
        return self.controller.init(outset), ()

    def act(self, memory: Any, state: Tree, t: float, scenario: Mapping[str, Tree]) -> tuple[Tree, Any]:
        """The command of ``steps`` steps ago."""
        inner, under_way = memory
        command, inner = self.controller.act(inner, state, t, scenario)
        if len(under_way) < self.steps:
            return _filled(command, self.before), (inner, (*under_way, command))
        queue = (*under_way, command)
        return queue[0], (inner, queue[1:])


def from_law(law: Law) -> Feedback:
    """A feedback law ``law(state, t, scenario) -> control`` as a controller.

    Raises:
        UsageError: if it cannot be called.
    """
    if not callable(law):
        raise UsageError(f"a law is a function law(state, t, scenario) -> control; found {law!r}.")
    return Feedback(Forgetful(law))


def from_value(problem: Problem, z: Mapping[str, Tree]) -> Acting:
    """The answer ``z`` of a problem as a controller.

    The network of a problem that seeks a policy, with the weights of ``z``; or the control sequence that was found,
    replayed step by step.

    Raises:
        UsageError: if the problem's unknown does not act step by step.
    """
    require_steps(problem)
    (slot,) = problem.unknown.slots
    with torch.no_grad():
        inputs = slot.place(tree.detach(z[slot.name]), Inputs(problem.scenarios.data["initial_state"]))
    if inputs.acting is not None:
        return Feedback(inputs.acting)
    return Replayed(inputs.controls, problem.scenarios.data)


class Answer(Protocol):
    """What :func:`from_solution` needs of a solution."""

    @property
    def problem(self) -> Problem | None: ...
    @property
    def value(self) -> Tree: ...


def from_solution(solution: Answer) -> Acting:
    """A solution as a controller, see :func:`from_value`.

    Raises:
        UsageError: if it was loaded without its problem, or does not act step by step.
    """
    if solution.problem is None:
        raise UsageError(
            "a solution without its problem cannot act: load it with Solution.load(folder, problem)."
        )
    return from_value(solution.problem, solution.value)


def require_acting(who: str, controller: Any) -> None:
    """Refuse what is no controller, in one sentence."""
    if not isinstance(controller, Acting) or isinstance(controller, type):
        raise UsageError(
            f"{who} needs a controller with init(outset) and act(memory, state, t, scenario); found {controller!r}: "
            "from_law(law), from_solution(solution) and from_value(problem, z) make one."
        )


def require_steps(problem: Problem) -> None:
    if View.ACTING not in problem.offers:
        raise UsageError(
            f"{problem.name} seeks {', '.join(problem.unknown.names)}, which does not act step by step: pose it with "
            "control=ControlSequence(...) or a Policy."
        )


def _same_scenes(first: Mapping[str, Tree], second: Mapping[str, Tree]) -> bool:
    """Whether two sets of scenario data are the same numbers; entries that only one has do not matter."""
    pairs = [
        (a, b)
        for name in first.keys() & second.keys()
        for a, b in zip(tree.leaves(first[name]), tree.leaves(second[name]), strict=True)
    ]
    return all(a is b or (a.shape == b.shape and bool(_alike(a, b))) for a, b in pairs)


def _alike(a: Tensor, b: Tensor) -> Tensor:
    return ((a == b) | (torch.isnan(a) & torch.isnan(b))).all()


def _noisy(state: Tree, noise: Any, generator: torch.Generator) -> Tree:
    """The state plus noise, entry by entry; levels may be one number, or a tree like the state."""
    levels = noise if tree.same_structure(noise, state) else tree.map(lambda _: noise, state)

    def one(leaf: Tensor, level: Any) -> Tensor:
        level = torch.as_tensor(level, dtype=torch.float64)
        if not (leaf.is_floating_point() or leaf.is_complex()) or not bool((level > 0).any()):
            return leaf
        kind = torch.complex128 if leaf.is_complex() else torch.float64
        drawn = torch.randn(leaf.shape, generator=generator, dtype=kind)
        return leaf + level.to(leaf) * drawn.to(leaf)

    return tree.map(one, state, levels)


def _where(chosen: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Rows of ``first`` where chosen, else of ``second``."""
    return torch.where(chosen.to(first.device).reshape(-1, *[1] * (first.ndim - 1)), first, second)


def _filled(like: Tree, value: Any) -> Tree:
    values = value if tree.same_structure(value, like) else tree.map(lambda _: value, like)
    return tree.map(
        lambda leaf, v: torch.as_tensor(v, dtype=leaf.dtype, device=leaf.device).expand(leaf.shape),
        like,
        values,
    )
