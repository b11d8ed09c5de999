"""Reference trajectories that a correction learns from, split by trajectories."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from dpcontrol import tree
from dpcontrol.engine.trajectory import parameter_values, stepper
from dpcontrol.problem.given import checked_state, solver_of
from dpcontrol.problem.resolution import Resolution, require_whole
from dpcontrol.results import UsageError
from dpcontrol.sim.base import Simulator
from dpcontrol.store import cached_rows, identity
from dpcontrol.tree import Tree

PARTS = ("train", "validation", "test")
SHARES = (0.7, 0.15, 0.15)
Split = Mapping[str, Any]


@dataclass(frozen=True)
class Reference:
    """Trajectories in the layout of the states of a coarse solver, and which of them are for what.

    Args:
        states: leaves ``(steps + 1, trajectories, ...)``, tensors or arrays, in memory or mapped files.
        parameters: what differs between the trajectories besides: name -> ``(trajectories,)``.
        split: ``{"train": indices, "validation": indices, "test": indices}`` of trajectories, none of them in two
            parts; by default shares of 70, 15 and 15 % of a shuffled order that is the same for the same number of
            trajectories.
        origin: states of the fine simulator at which its trajectories begin, leaves ``(trajectories, ...)``, where they
            are known: other resolutions of a solver start from them.
        solver: the fine solver that made them, where it is known: what it costs is told beside the others.

    Raises:
        UsageError: for leaves or parameters of different lengths, fewer than three trajectories, numbers that are not
            finite, parts that are empty, overlap or name trajectories that are not there.
    """

    states: Tree
    parameters: Mapping[str, Tensor] = field(default_factory=dict)
    split: Split = field(default_factory=dict)
    origin: Tree | None = None
    solver: Resolution | None = None

    def __post_init__(self) -> None:
        if any(isinstance(leaf, np.ndarray) for leaf in tree.leaves(self.states)):
            object.__setattr__(self, "states", tree.map(torch.as_tensor, self.states))
        sizes = {
            tuple(leaf.shape[:2])
            for leaf in tree.leaves(self.states)
            if isinstance(leaf, Tensor) and leaf.ndim > 1
        }
        if len(sizes) != 1 or len(tree.leaves(self.states)) == 0 or min(next(iter(sizes))) < 2:
            raise UsageError(
                "reference trajectories are tensors (steps + 1, trajectories, ...) with the same two leading axes, of "
                f"two or more; found {tree.describe(self.states)}."
            )
        if self.solver is None:  # what was simulated has been looked at
            _require_finite(self.states)
        object.__setattr__(self, "parameters", _checked_parameters(self.parameters, self.count))
        object.__setattr__(self, "split", _checked_split(self.split, self.count))
        if self.origin is not None and {len(leaf) for leaf in tree.leaves(self.origin)} != {self.count}:
            raise UsageError(
                f"the origin of a reference is a fine state with a leading axis of its {self.count} trajectories; "
                f"found {tree.describe(self.origin)}."
            )

    @property
    def steps(self) -> int:
        """Steps of each trajectory."""
        return len(tree.leaves(self.states)[0]) - 1

    @property
    def count(self) -> int:
        """Number of trajectories."""
        return int(tree.leaves(self.states)[0].shape[1])

    def known_origin(self) -> Tree:
        """``origin``, for who cannot do without.

        Raises:
            UsageError: where it is not known.
        """
        if self.origin is None:
            raise UsageError(
                "other solvers start from the fine states at which the reference begins, which are not known: give "
                "Reference(..., origin=...), or make it with simulated_reference(...)."
            )
        return self.origin

    def rows(self, part: str) -> Tensor:
        """The trajectories of a part, or of all of them for ``"all"``.

        Raises:
            UsageError: for another part.
        """
        if part == "all":
            return torch.arange(self.count)
        if part not in PARTS:
            raise UsageError(f"a part of a reference is one of {', '.join(PARTS)}, or all; found {part!r}.")
        return torch.tensor(self.split[part])

    def windows(self, trajectories: Tensor, firsts: Tensor, steps: int) -> dict[str, Tree]:
        """Cut ``steps`` steps out of some trajectories: ``initial_state``, ``reference`` ``(windows, steps + 1, ...)``
        and the parameters of each."""
        pairs = list(zip(trajectories.tolist(), firsts.tolist(), strict=True))
        rows = tree.map(
            lambda leaf: torch.stack([leaf[first : first + steps + 1, index] for index, first in pairs]),
            self.states,
        )
        own = {name: value[trajectories] for name, value in self.parameters.items()}
        return {"initial_state": tree.map(lambda leaf: leaf[:, 0], rows), "reference": rows, **own}


def simulated_reference(
    fine: Simulator | Callable[..., Tree],
    *,
    initial_state: Tree,
    steps: int,
    every: int = 1,
    downsample: Callable[[Tree], Tree] | None = None,
    parameters: Mapping[str, Tensor] | None = None,
    spin_up: int = 0,
    split: Split | None = None,
    name: str = "reference",
    batch: int = 16,
) -> Reference:
    """Trajectories of a fine simulator as a coarse one would have them; made once, and kept in the user's cache.

    Beside them the fine states are kept at which they begin (:attr:`Reference.origin`).

    They are stored under what made them: sizes, initial states, parameters, the fine simulator and the map with all
    that they hold and, where they are the user's own, with the code that they come to (an edit of a function that a
    step calls makes them anew; see :func:`~dpcontrol.store.identity.identity`), and what these make of two of them in
    one step (so that another version of a scheme makes its own). A batch of trajectories is simulated at a time, and
    its states are written to files that are mapped into memory later.

    Args:
        fine: the simulator (or a function ``step(state, control)``) whose states are taken for the truth.
        initial_state: its initial states, leaves ``(trajectories, ...)``.
        steps: steps of the coarse solver.
        every: steps of the fine simulator in each of them.
        downsample: from a fine state to a coarse one, batched over trajectories; the identity by default.
        parameters: name -> ``(trajectories,)``. Those that the fine simulator has replace its own.
        spin_up: coarse steps that are simulated first and not kept.
        split: see :class:`Reference`.
        name: what it is called while it is made.
        batch: trajectories that are simulated together.

    Raises:
        UsageError: for sizes that are no whole numbers, trajectories that become infinite, or a cache that cannot be
            written to.
    """
    for word, value in (("steps", steps), ("batch", batch)):
        require_whole(f"{word} of a reference", value)
    if not isinstance(spin_up, int) or isinstance(spin_up, bool) or spin_up < 0:
        raise UsageError(f"spin_up of a reference must be a whole number, at least 0; found {spin_up!r}.")
    initial_state = checked_state(initial_state)
    count = len(tree.leaves(initial_state)[0])
    own = _checked_parameters(parameters or {}, count)
    fine = solver_of(fine, {name: value[0] for name, value in own.items()})
    solver = Resolution(fine, every, _same, downsample or _same)
    making = _Making(solver.steps, solver.downsample, initial_state, own)
    key = {
        "name": name,
        "kept": ["states", "origin"],
        "numbers": [steps, every, spin_up, count, fine.dt],
        "made": making.fingerprint(),
        "by": identity([fine, downsample]),
    }

    def parts() -> Iterator[Tree]:
        with tqdm(
            total=count * (steps + spin_up), desc=f"{name}: fine steps", disable=None, leave=False
        ) as bar:
            for first in range(0, count, batch):
                rows = torch.arange(first, min(first + batch, count))
                states, origin = making.trajectories(rows, spin_up, steps, bar.update)
                yield {"states": states, "origin": origin}

    stored = cached_rows(key, count, parts)
    states = tree.map(lambda leaf: leaf.transpose(0, 1), stored["states"])
    return Reference(states, own, split or {}, stored["origin"], solver)


@dataclass(frozen=True)
class _Making:
    """Fine trajectories in the making."""

    fine: Simulator
    downsample: Callable[[Tree], Tree]
    initial: Tree
    parameters: Mapping[str, Tensor]

    def trajectories(
        self, rows: Tensor, spin_up: int, steps: int, tell: Callable[[int], Any]
    ) -> tuple[Tree, Tree]:
        """Coarse states of some trajectories, leaves ``(rows, steps + 1, ...)``, and the fine ones they begin at."""
        kept, origin = [], None
        with torch.no_grad():
            initial = tree.take(self.initial, rows)
            own = {k: v[rows] for k, v in self.parameters.items() if k in self.fine.parameters}
            values = parameter_values(self.fine, own, like=initial)
            self.fine.check(initial, values)
            coefficients, state = self.fine.prepare(values, {}), self.fine.start(initial, values)
            step = stepper(self.fine)
            for k in range(spin_up + steps + 1):
                if k == spin_up:
                    origin = tree.map(lambda leaf: leaf.detach().cpu().clone(), state)
                if k >= spin_up:
                    kept.append(self._coarse(state))
                if k < spin_up + steps:
                    state = step(state, (None, None), coefficients, k)
                    tell(len(rows))
        found = tree.map(lambda leaf: leaf.detach().cpu(), tree.stack(kept, 1))
        finite = tree.all_finite(found, batch=1)
        if not bool(finite.all()):
            bad = int(rows[int(torch.nonzero(~finite)[0])])
            raise UsageError(
                f"trajectory {bad} of the fine simulator becomes infinite; shorten its dt or start elsewhere."
            )
        return found, origin

    def _coarse(self, state: Tree) -> Tree:
        found = self.downsample(state)
        count = len(tree.leaves(state)[0])
        leaves = tree.leaves(found)
        if not leaves or any(
            not isinstance(leaf, Tensor) or leaf.ndim < 1 or len(leaf) != count for leaf in leaves
        ):
            raise UsageError(
                f"downsample must map {tree.describe(state)} to coarse states with the same leading axis of {count}; "
                f"found {tree.describe(found)}."
            )
        return found

    def fingerprint(self) -> list[float]:
        """Some numbers that depend on everything but the lengths."""
        count = len(tree.leaves(self.initial)[0])
        found, _ = self.trajectories(torch.tensor([0, count - 1]), 0, 1, lambda _: None)
        return [
            _digits(float((leaf.double() * torch.cos(torch.arange(leaf.numel())).reshape(leaf.shape)).sum()))
            for leaf in [*tree.leaves(found), *tree.leaves(self.initial), *self.parameters.values()]
        ]


def _digits(number: float) -> float:
    """Five digits: sums round differently with the number of threads."""
    return float(f"{number:.4e}")


def _same(state: Tree) -> Tree:
    return state


def _require_finite(states: Tree) -> None:
    for leaf in tree.leaves(states):
        for index, path in enumerate(leaf.unbind(1)):
            finite = torch.isfinite(path).reshape(len(path), -1).all(1)
            if not bool(finite.all()):
                first = int(torch.nonzero(~finite)[0])
                raise UsageError(
                    f"trajectory {index} of a reference is not finite at step {first}: leave it out, or end before."
                )


def _checked_parameters(parameters: Mapping[str, Any], count: int) -> dict[str, Tensor]:
    found = {name: torch.as_tensor(value) for name, value in parameters.items()}
    for name, value in found.items():
        if tuple(value.shape) != (count,) or not bool(torch.isfinite(value).all()):
            raise UsageError(
                f"parameter {name} of a reference is one finite number for each of its {count} trajectories; found "
                f"{tree.describe(value)}."
            )
    return found


def _checked_split(split: Split, count: int) -> dict[str, tuple[int, ...]]:
    if count < 3:
        raise UsageError(
            f"a reference needs three trajectories or more, to train, validate and test on; found {count}: simulate "
            "more, or cut a long one into pieces."
        )
    if not split:
        order = torch.randperm(count, generator=torch.Generator().manual_seed(0)).tolist()
        held = [max(1, round(share * count)) for share in SHARES[1:]]
        sizes = (count - sum(held), *held)
        pieces = torch.tensor(order).split(list(sizes))
        return {part: tuple(sorted(piece.tolist())) for part, piece in zip(PARTS, pieces, strict=True)}
    if set(split) != set(PARTS):
        raise UsageError(f"a split names {', '.join(PARTS)}; found {sorted(split)}.")
    found = {part: tuple(int(index) for index in split[part]) for part in PARTS}
    every = [index for part in PARTS for index in found[part]]
    if not all(found.values()) or len(set(every)) != len(every) or not set(every) <= set(range(count)):
        raise UsageError(
            f"the parts of a split are not empty, do not overlap and name trajectories 0 to {count - 1}; found "
            f"{ {part: list(found[part]) for part in PARTS} }."
        )
    return found
