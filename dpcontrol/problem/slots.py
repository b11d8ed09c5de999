"""The slots that a problem may seek: controls, initial states, parameters, noise scales, policies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from dpcontrol import tree
from dpcontrol.problem.unknown import Inputs, Pose, Slot, infinite_or
from dpcontrol.results import UsageError
from dpcontrol.tree import Tree


@dataclass(frozen=True)
class ControlSequence(Slot):
    """A control ``u_0 .. u_{N-1}``, ``z["control"]``: ``(scenarios, N, *shape)``, or ``(N, *shape)`` if shared.

    Args:
        shape: shape of the control of one step of one scenario; ``()`` or a whole number work.
        low, high: bounds, numbers or tensors that broadcast to ``shape``.
        start: start guess, a number or a tensor that broadcasts to the layout above.
        scale: typical magnitude; a quarter of the distance between the bounds, or 1, by default.
        shared: one control for all scenarios (a pulse for a hundred detunings) instead of one each.
    """

    shape: tuple[int, ...] | int = ()
    low: Any = None
    high: Any = None
    _: KW_ONLY
    start: Any = 0.0
    scale: Any = None
    shared: bool = False
    name: str = field(default="control", init=False)

    def __post_init__(self) -> None:
        if any(not isinstance(size, int) or isinstance(size, bool) or size < 1 for size in self.sizes):
            raise UsageError(
                f"the shape of a control must be positive whole numbers, such as (32,); found {self.shape!r}."
            )
        _check_bounds("ControlSequence", self.low, self.high)
        for side, value in (("low", self.low), ("high", self.high)):
            if value is not None:
                _broadcast(f"{side} of the control", torch.as_tensor(value), self.sizes)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Shape of the control of one step of one scenario."""
        return tuple(self.shape) if isinstance(self.shape, (tuple, list)) else (self.shape,)

    def clip(self, control: Tensor) -> Tensor:
        """A control ``(scenarios, *shape)`` moved inside the bounds."""
        for side, use in ((self.low, torch.maximum), (self.high, torch.minimum)):
            if side is not None:
                control = use(control, torch.as_tensor(side, dtype=control.dtype, device=control.device))
        return control

    @property
    def boxed(self) -> bool:
        """Whether there are two finite bounds for every entry."""
        sides = [side for side in (self.low, self.high) if side is not None]
        return len(sides) == 2 and all(bool(torch.isfinite(torch.as_tensor(side)).all()) for side in sides)

    def ranged(self, raw: Tensor) -> Tensor:
        """Numbers of a network ``(scenarios, *shape)`` as a control: between two finite bounds they are squashed by
        ``tanh``, elsewhere multiplied by the scale and clipped at a bound that has no partner."""
        if not self.boxed:
            return self.clip(raw * self.step_scale(raw))
        low, high = (torch.as_tensor(side).to(raw) for side in (self.low, self.high))
        return (high + low) / 2 + (high - low) / 2 * torch.tanh(raw)

    def step_scale(self, like: Tensor) -> Tensor:
        """The typical magnitude of one step's control, ``(*shape)`` or less: the largest where steps differ."""
        given = torch.as_tensor(
            1.0 if self.scale is None else self.scale, dtype=like.dtype, device=like.device
        )
        several = given.ndim - len(self.sizes)
        return given if several <= 0 else given.flatten(0, several - 1).amax(0)

    def _full(self, pose: Pose) -> tuple[int, ...]:
        steps = (pose.horizon, *self.sizes)
        return steps if self.shared else (pose.count, *steps)

    def guess(self, pose: Pose) -> Tree:
        guess = _expand("the start of the control", self.start, self._full(pose), pose)
        return _inside(guess, self.limits(pose))

    def limits(self, pose: Pose) -> tuple[Tree, Tree] | None:
        return _bounds("the control", self.low, self.high, self._full(pose), pose)

    def magnitude(self, pose: Pose) -> Tree:
        return _scale(self.scale, self.low, self.high, self._full(pose), pose)

    def place(self, value: Tree, inputs: Inputs) -> Inputs:
        if self.shared:
            count = len(tree.leaves(inputs.initial_state)[0])
            value = tree.map(lambda leaf: leaf.expand(count, *leaf.shape), value)
        return replace(inputs, controls=value)


@dataclass(frozen=True)
class InitialState(Slot):
    """The state to start from, ``z["initial_state"]``: like the problem's initial state, which is the start guess.

    Args:
        low, high: bounds, numbers, the same for every entry.
        scale: typical magnitude; a quarter of the distance between the bounds, or 1, by default.
        shared: one initial state for all scenarios instead of one each.
        parts: of a state that is a dict, the entries that are sought; the others stay as they were given.
    """

    low: float | None = None
    high: float | None = None
    _: KW_ONLY
    scale: float | None = None
    shared: bool = False
    parts: tuple[str, ...] = ()
    name: str = field(default="initial_state", init=False)

    def __post_init__(self) -> None:
        _check_bounds("InitialState", self.low, self.high)

    def _template(self, pose: Pose) -> Tree:
        state = pose.state
        if self.parts:
            missing = sorted(set(self.parts) - set(state if isinstance(state, Mapping) else ()))
            if missing:
                raise UsageError(
                    f"the state has no part {', '.join(missing)}; it is {tree.describe(state)}: name entries of a "
                    "state that is a dict."
                )
            state = {part: state[part] for part in self.parts}
        return tree.map(lambda leaf: leaf[0], state) if self.shared else state

    def guess(self, pose: Pose) -> Tree:
        return tree.map(
            lambda leaf: leaf.clamp(self.low, self.high) if (self.low, self.high) != (None, None) else leaf,
            self._template(pose),
        )

    def limits(self, pose: Pose) -> tuple[Tree, Tree] | None:
        if self.low is None and self.high is None:
            return None
        return infinite_or(self._template(pose), self.low, self.high)

    def magnitude(self, pose: Pose) -> Tree:
        return tree.map(
            lambda leaf: _scale(self.scale, self.low, self.high, tuple(leaf.shape), pose),
            self._template(pose),
        )

    def place(self, value: Tree, inputs: Inputs) -> Inputs:
        if self.shared:
            count = len(tree.leaves(inputs.initial_state)[0])
            value = tree.map(lambda leaf: leaf.expand(count, *leaf.shape), value)
        return replace(inputs, initial_state={**inputs.initial_state, **value} if self.parts else value)


@dataclass(frozen=True)
class Parameters(Slot):
    """Some of the simulator's parameters, ``z["parameters"]``: a dict, name -> value.

    Args:
        names: which ones. Values may be trees (the weights of a learned correction, say).
        low, high: bounds: a number for all, or a dict name -> number.
        start: dict name -> start guess; the values in force by default.
        scale: dict name -> typical magnitude; by default a quarter of the distance between the bounds, or the size of
            the start guess.
        shared: one value for all scenarios (default), or one each: leaves ``(scenarios, ...)``.
        name: the slot's own, where a problem seeks some parameters that are shared and some that are not.
    """

    names: tuple[str, ...]
    low: Any = None
    high: Any = None
    start: Mapping[str, Any] = field(default_factory=dict)
    scale: Mapping[str, Any] = field(default_factory=dict)
    shared: bool = True
    name: str = field(default="parameters", init=False)

    def __init__(self, *names: str, **fields: Any) -> None:
        object.__setattr__(self, "names", names)
        defaults: dict[str, Any] = {
            "low": None, "high": None, "start": {}, "scale": {}, "shared": True, "name": "parameters"
        }  # fmt: skip
        unknown = sorted(set(fields) - set(defaults))
        if unknown:
            raise UsageError(f"Parameters takes names and {sorted(defaults)}; found {unknown}.")
        for key, value in {**defaults, **fields}.items():
            object.__setattr__(self, key, value)
        if not names or not all(isinstance(name, str) for name in names):
            raise UsageError(
                f"Parameters needs names of parameters, such as Parameters('viscosity'); found {names!r}."
            )
        for name in names:
            _check_bounds(f"Parameters({name!r})", _of(self.low, name), _of(self.high, name))

    def guess(self, pose: Pose) -> Tree:
        unknown = sorted(set(self.names) - set(pose.parameters))
        if unknown:
            raise UsageError(
                f"no parameter is called {', '.join(unknown)}; the simulator has {sorted(pose.parameters)}: "
                "use one of these names, or give it a value in parameters=..."
            )
        return {name: self._start_of(name, pose) for name in self.names}

    def _start_of(self, name: str, pose: Pose) -> Tree:
        value = tree.to(self.start.get(name, pose.parameters[name]), dtype=pose.dtype, device=pose.device)
        if not self.shared:
            value = tree.map(
                lambda leaf: leaf.expand(pose.count, *leaf.shape) if leaf.ndim == 0 else leaf, value
            )
        low, high = _of(self.low, name), _of(self.high, name)
        if low is None and high is None:
            return value
        return tree.map(lambda leaf: leaf.clamp(low, high), value)

    def limits(self, pose: Pose) -> tuple[Tree, Tree] | None:
        if self.low is None and self.high is None:
            return None
        start = self.guess(pose)
        pairs = {
            name: infinite_or(start[name], _of(self.low, name), _of(self.high, name)) for name in self.names
        }
        return {name: low for name, (low, _) in pairs.items()}, {
            name: high for name, (_, high) in pairs.items()
        }

    def magnitude(self, pose: Pose) -> Tree:
        start = self.guess(pose)

        def typical(name: str) -> Tree:
            low, high, given = _of(self.low, name), _of(self.high, name), self.scale.get(name)
            if given is None and (low is None or high is None):
                return tree.map(own_size, start[name])
            return tree.map(lambda leaf: _scale(given, low, high, tuple(leaf.shape), pose), start[name])

        return {name: typical(name) for name in self.names}

    def place(self, value: Tree, inputs: Inputs) -> Inputs:
        return replace(inputs, parameters={**inputs.parameters, **value})


@dataclass(frozen=True)
class ProcessNoise(Slot):
    """The noise that drives a stochastic system, ``z["noise"]``: ``(scenarios, horizon, *shape)``; weak constraint.

    Args:
        shape: shape of the noise of one step of one scenario.
        scale: typical magnitude.
    """

    shape: tuple[int, ...]
    _: KW_ONLY
    scale: float = 1.0
    shared: bool = field(default=False, init=False)
    name: str = field(default="noise", init=False)

    def guess(self, pose: Pose) -> Tree:
        return torch.zeros(pose.count, pose.horizon, *self.shape, dtype=pose.dtype, device=pose.device)

    def magnitude(self, pose: Pose) -> Tree:
        return torch.full_like(self.guess(pose), self.scale)

    def place(self, value: Tree, inputs: Inputs) -> Inputs:
        return replace(inputs, noise=value)


@dataclass(frozen=True)
class ObservationScale(Slot):
    """Unknown scales of the measurement noise, ``z["observation"]``: a dict, name -> positive tensor.

    Args:
        start: dict name -> start guess, numbers or tensors (``(measurements,)`` for one scale each).
        shared: one value for all scenarios (default), or one each: leaves ``(scenarios, 1)`` or
            ``(scenarios, measurements)``.
        name: the slot's own, where some scales are shared and some are not.
    """

    start: Mapping[str, Any]
    shared: bool = True
    name: str = "observation"

    def guess(self, pose: Pose) -> Tree:
        # a list is one tensor here, not a tree of numbers
        return {
            key: torch.as_tensor(value, dtype=pose.dtype, device=pose.device)
            for key, value in self.start.items()
        }

    def place(self, value: Tree, inputs: Inputs) -> Inputs:
        return inputs


def _of(values: Any, name: str) -> Any:
    return values.get(name) if isinstance(values, Mapping) else values


def _check_bounds(who: str, low: Any, high: Any) -> None:
    pair = []
    for name, value in (("low", low), ("high", high)):
        if value is not None and bool(torch.isnan(torch.as_tensor(value)).any()):
            raise UsageError(f"{who}: {name} is not a number; give a number or leave it out.")
        pair.append(None if value is None else torch.as_tensor(value))
    if pair[0] is not None and pair[1] is not None and not bool((pair[0] <= pair[1]).all()):
        raise UsageError(f"{who}: low {low} lies above high {high}; exchange them.")


def _expand(who: str, value: Any, shape: tuple[int, ...], pose: Pose) -> Tensor:
    return _broadcast(who, torch.as_tensor(value, dtype=pose.dtype, device=pose.device), shape)


def _broadcast(who: str, tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    try:
        return tensor.expand(shape)
    except RuntimeError as error:
        raise UsageError(
            f"{who} has shape {tuple(tensor.shape)}, which does not broadcast to {shape}."
        ) from error


def _bounds(
    who: str, low: Any, high: Any, shape: tuple[int, ...], pose: Pose
) -> tuple[Tensor, Tensor] | None:
    if low is None and high is None:
        return None
    lower = _expand(f"low of {who}", float("-inf") if low is None else low, shape, pose)
    upper = _expand(f"high of {who}", float("inf") if high is None else high, shape, pose)
    return lower, upper


def _inside(guess: Tensor, bounds: tuple[Tensor, Tensor] | None) -> Tensor:
    return guess if bounds is None else guess.clamp(*bounds)


def own_size(leaf: Tensor) -> Tensor:
    """The root mean square of a start guess, where it is not zero, else 1: the size of changes that make sense."""
    size = leaf.detach().square().mean().sqrt()
    return torch.where(size > 0, size, torch.ones_like(size)).expand(leaf.shape)


def _scale(given: Any, low: Any, high: Any, shape: tuple[int, ...], pose: Pose) -> Tensor:
    if given is None and low is not None and high is not None:
        width = torch.as_tensor(high, dtype=pose.dtype) - torch.as_tensor(low, dtype=pose.dtype)
        given = torch.where(torch.isfinite(width), width / 4, torch.ones_like(width))
    return _expand("scale", 1.0 if given is None else given, shape, pose)
