"""What a rollout is scored by: a fold over its steps, built from terms that add and scale.

A term sees each stage ``(x_k, u_k)``, ``k < horizon``, and then the last state; each time it may return a cost per
scenario. Terms that are sums of squares say so by returning residuals, which Gauss-Newton methods ask for.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dpcontrol import tree
from dpcontrol.problem.path import Moment, Path
from dpcontrol.results import UsageError
from dpcontrol.tree import Tree


class Frame(NamedTuple):
    """What does not change during a rollout: the per-scenario data, and what is sought."""

    scenario: Mapping[str, Tree]
    z: Mapping[str, Tree]


class Setting(NamedTuple):
    """What a term may know when it is bound to a problem: sizes, and the initial state ``(scenarios, ...)``.

    ``names`` are the entries of the scenarios, ``parameters`` those of the simulator, which an entry would replace.
    """

    scenarios: int
    horizon: int
    state: Tree
    names: tuple[str, ...]
    parameters: tuple[str, ...] = ()


class Lifted(NamedTuple):
    """Data that a term moved: leaves ``(scenarios, ...)``, and whether they are the same for every scenario."""

    value: Tree
    shared: bool


Data = dict[str, Lifted]


class Objective(abc.ABC):
    """Anything that can be added and scaled: a term, or a weighted sum of terms."""

    @property
    @abc.abstractmethod
    def terms(self) -> tuple[tuple[float, Term], ...]:
        """Weights and terms."""

    def __add__(self, other: Objective) -> Objective:
        if not isinstance(other, Objective):
            return NotImplemented
        return Sum(self.terms + other.terms)

    def __mul__(self, factor: float) -> Objective:
        if not isinstance(factor, (int, float)) or not math.isfinite(factor):
            raise UsageError(f"objectives are scaled by finite numbers; found {factor!r}.")
        return Sum(tuple((float(factor) * weight, term) for weight, term in self.terms))

    __rmul__ = __mul__


class Term(Objective):
    """One term. ``memory`` is its running tree (``None`` for most), handed from step to step."""

    @property
    def terms(self) -> tuple[tuple[float, Term], ...]:
        return ((1.0, self),)

    def bind(self, setting: Setting) -> tuple[Term, Data]:
        """The term with its tensors moved into per-scenario data, so that minibatches and windows can index them."""
        return self, {}

    def init(self, moment: Moment, frame: Frame) -> Tree:
        """The memory before the first step."""
        return None

    @abc.abstractmethod
    def stage(self, memory: Tree, moment: Moment, frame: Frame) -> tuple[Tree, Tensor | None]:
        """Memory and cost ``(scenarios,)`` (``None`` for nothing) at ``(x_k, u_k)``."""

    @abc.abstractmethod
    def finish(self, memory: Tree, moment: Moment, frame: Frame) -> Tensor | None:
        """Cost ``(scenarios,)`` at the last state."""

    def along(self, memory: Tree, path: Path, frame: Frame) -> tuple[Tree, Tensor | None]:
        """Memory and cost ``(scenarios,)`` of all stages of a path: what :meth:`stage` gives one after the other.

        Terms that can be evaluated over all steps together do so; for any other this default is right.
        """
        return self._one_by_one(memory, path, frame)

    def settled(self, paths: Sequence[Path], frame: Frame) -> Term:
        """The term, knowing whether its user functions may see all steps together; asked once, with paths to try."""
        return self

    def _one_by_one(self, memory: Tree, path: Path, frame: Frame) -> tuple[Tree, Tensor | None]:
        costs = []
        for moment in path.moments():
            memory, cost = self.stage(memory, moment, frame)
            if cost is not None:
                costs.append(cost)
        return memory, torch.stack(costs).sum(0) if costs else None


class Squares(Term):
    """A term that is the plain sum of squares of residuals."""

    @abc.abstractmethod
    def residuals(self, moment: Moment, frame: Frame, *, last: bool) -> Tree:
        """A tree of residuals ``(scenarios, ...)``, or ``None``, at a stage or at the last state."""

    def residuals_along(self, path: Path, frame: Frame) -> Tree:
        """The residuals of all stages of a path, leaves ``(steps, scenarios, ...)``, or ``None``."""
        found = [self.residuals(moment, frame, last=False) for moment in path.moments()]
        there = [residuals for residuals in found if tree.leaves(residuals)]
        return tree.stack(there) if there else None

    def along(self, memory: Tree, path: Path, frame: Frame) -> tuple[Tree, Tensor | None]:
        return memory, _sum_squares_along(self.residuals_along(path, frame))

    def stage(self, memory: Tree, moment: Moment, frame: Frame) -> tuple[Tree, Tensor | None]:
        return memory, sum_squares(self.residuals(moment, frame, last=False))

    def finish(self, memory: Tree, moment: Moment, frame: Frame) -> Tensor | None:
        return sum_squares(self.residuals(moment, frame, last=True))


@dataclass(frozen=True)
class Sum(Objective):
    """A weighted sum of terms."""

    weighted: tuple[tuple[float, Term], ...]

    @property
    def terms(self) -> tuple[tuple[float, Term], ...]:
        return self.weighted


def sum_squares(residuals: Tree) -> Tensor | None:
    """Sum of squares per scenario, ``(scenarios,)``."""
    leaves = tree.leaves(residuals)
    if not leaves:
        return None
    parts = [leaf.square().reshape(len(leaf), -1).sum(1) for leaf in leaves]
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def _sum_squares_along(residuals: Tree) -> Tensor | None:
    """Sum of squares per scenario of leaves ``(steps, scenarios, ...)``."""
    parts = [leaf.square().sum([i for i in range(leaf.ndim) if i != 1]) for leaf in tree.leaves(residuals)]
    return torch.stack(parts).sum(0) if len(parts) > 1 else parts[0] if parts else None


def bind(objective: Objective, setting: Setting) -> tuple[Sum, Data]:
    """Bind every term of an objective; the second value is what they moved into the per-scenario data."""
    data: Data = {}
    bound = []
    for weight, term in objective.terms:
        names = (*setting.names, *data)
        term, extra = term.bind(setting._replace(names=names))
        data.update(extra)
        bound.append((weight, term))
    return Sum(tuple(bound)), data


def begin(objective: Objective, moment: Moment, frame: Frame) -> tuple[Tree, ...]:
    """Memories of all terms before the first step."""
    return tuple(term.init(moment, frame) for _, term in objective.terms)


def advance(
    objective: Objective, memories: tuple[Tree, ...], moment: Moment, frame: Frame
) -> tuple[tuple[Tree, ...], Tensor | None]:
    """Memories and weighted cost ``(scenarios,)`` of one stage."""
    total: Tensor | None = None
    after = []
    for (weight, term), memory in zip(objective.terms, memories, strict=True):
        memory, cost = term.stage(memory, moment, frame)
        after.append(memory)
        total = _plus(total, weight, cost)
    return tuple(after), total


def along(
    objective: Objective, memories: tuple[Tree, ...], path: Path, frame: Frame
) -> tuple[tuple[Tree, ...], Tensor | None]:
    """Memories and weighted cost ``(scenarios,)`` of all stages of a path."""
    total: Tensor | None = None
    after = []
    for (weight, term), memory in zip(objective.terms, memories, strict=True):
        memory, cost = term.along(memory, path, frame)
        after.append(memory)
        total = _plus(total, weight, cost)
    return tuple(after), total


def settled(objective: Objective, paths: Sequence[Path], frame: Frame) -> Sum:
    """The objective with every term settled on how it is evaluated along a path."""
    return Sum(tuple((weight, term.settled(paths, frame)) for weight, term in objective.terms))


def complete(objective: Objective, memories: tuple[Tree, ...], moment: Moment, frame: Frame) -> Tensor | None:
    """Weighted cost ``(scenarios,)`` at the last state."""
    total: Tensor | None = None
    for (weight, term), memory in zip(objective.terms, memories, strict=True):
        total = _plus(total, weight, term.finish(memory, moment, frame))
    return total


def is_sum_of_squares(objective: Objective) -> bool:
    """Whether the residual view exists."""
    return all(isinstance(term, (Squares, Closing)) and weight >= 0 for weight, term in objective.terms)


def residual_rows(objective: Objective, moment: Moment, frame: Frame, *, last: bool) -> list[Tensor]:
    """Residuals of one moment, scaled by the roots of the weights, each ``(scenarios, entries)``."""
    rows = []
    for weight, term in objective.terms:
        if isinstance(term, Squares):
            found = tree.leaves(term.residuals(moment, frame, last=last))
            rows += [math.sqrt(weight) * leaf.reshape(len(leaf), -1) for leaf in found]
    return rows


def residuals_along(objective: Objective, path: Path, frame: Frame) -> list[Tensor]:
    """Residuals of all stages of a path, scaled by the roots of the weights, each ``(scenarios, entries)``."""
    rows = []
    for weight, term in objective.terms:
        if isinstance(term, Squares):
            found = tree.leaves(term.residuals_along(path, frame))
            rows += [math.sqrt(weight) * leaf.transpose(0, 1).flatten(1) for leaf in found]
    return rows


def closing_term(objective: Objective) -> Closing | None:
    """The closing condition of an objective, if it has one.

    Raises:
        UsageError: if it has several.
    """
    found = [term for _, term in objective.terms if isinstance(term, Closing)]
    if len(found) > 1:
        raise UsageError(f"an objective can close one gap; found {len(found)} closing() terms: keep one.")
    return found[0] if found else None


def _plus(total: Tensor | None, weight: float, cost: Tensor | None) -> Tensor | None:
    if cost is None:
        return total
    scaled = cost if weight == 1.0 else weight * cost
    return scaled if total is None else total + scaled


def _identity(value: Any) -> Any:
    return value


def lift(
    setting: Setting,
    value: Any,
    template: Tree,
    wanted: str,
    *,
    rows: int | None = None,
    missing: bool = False,
) -> tuple[str, Data]:
    """Move a term's tensors into per-scenario data under a free name.

    Args:
        value: the name of an existing entry, or a tree like ``template``, with or without its scenario axis; with
            ``rows``, in a trajectory's layout ``(rows, [scenarios,] ...)``.
        template: what it will be compared with, leaves ``(scenarios, ...)``.
        wanted: the name to use if it is free.
        missing: whether an entry may be NaN: it was not measured.
    """
    if isinstance(value, str):
        if value not in setting.names:
            raise UsageError(
                f"{wanted} {value!r} is no entry of the scenarios, which have {sorted(setting.names) or 'none'}: "
                "name one of these, or pass a tensor."
            )
        return value, {}
    first = tree.leaves(template)[0]
    tensors = tree.to(value, dtype=first.dtype, device=first.device)
    if not tree.same_structure(tensors, template):
        raise UsageError(
            f"{wanted} must have the structure of what it is compared with, {tree.describe(template)}; "
            f"found {tree.describe(tensors)}: select the part that counts with of=..."
        )
    lead = 0 if rows is None else 1
    shared = all(leaf.ndim <= like.ndim - 1 + lead for leaf, like in _pairs(tensors, template))
    lifted = tree.map(lambda leaf, like: _with_scenarios(leaf, like, wanted, rows), tensors, template)
    for leaf in tree.leaves(lifted):
        if not bool((torch.isfinite(leaf) | (torch.isnan(leaf) & missing)).all()):
            raise UsageError(
                f"{wanted} has entries that are not finite: clean the data, or leave out those steps (with a noise "
                "model NaN marks what was not measured)."
            )
    name = wanted
    while name in setting.names or name in setting.parameters:
        name += "_"
    return name, {name: Lifted(lifted, shared)}


def _pairs(first: Tree, second: Tree) -> list[tuple[Tensor, Tensor]]:
    return list(zip(tree.leaves(first), tree.leaves(second), strict=True))


def _with_scenarios(leaf: Tensor, like: Tensor, wanted: str, rows: int | None) -> Tensor:
    count, shape = len(like), tuple(like.shape[1:])
    lead = () if rows is None else (rows,)
    if tuple(leaf.shape) == (*lead, count, *shape):
        return leaf if rows is None else leaf.transpose(0, 1).contiguous()
    if tuple(leaf.shape) == (*lead, 1, *shape):
        leaf = leaf.squeeze(len(lead))
    if tuple(leaf.shape) == (*lead, *shape):
        return leaf.expand(count, *lead, *shape)
    axes = "" if rows is None else f"{rows} steps, "
    raise UsageError(
        f"{wanted} has shape {tuple(leaf.shape)}, expected {(*lead, count, *shape)} ({axes}{count} scenarios) "
        f"or {(*lead, *shape)} for all scenarios alike."
    )


@dataclass(frozen=True)
class Closing(Term):
    """See :func:`dpcontrol.problem.terms.closing`. It costs nothing itself: the closing control counts as effort."""

    target: Any
    gain: float | None

    def bind(self, setting: Setting) -> tuple[Term, Data]:
        name, data = lift(setting, self.target, setting.state, "target")
        return Closing(name, self.gain), data

    def stage(self, memory: Tree, moment: Moment, frame: Frame) -> tuple[Tree, Tensor | None]:
        return memory, None

    def along(self, memory: Tree, path: Path, frame: Frame) -> tuple[Tree, Tensor | None]:
        return memory, None

    def finish(self, memory: Tree, moment: Moment, frame: Frame) -> Tensor | None:
        return None

    def control(self, uncontrolled: Tree, dt: float, frame: Frame) -> Tree:
        """The control that closes the gap between the uncontrolled next state and the target."""
        gain = dt if self.gain is None else self.gain
        return tree.map(lambda end, free: (end - free) / gain, frame.scenario[self.target], uncontrolled)


Selector = Callable[[Tree], Tree]
