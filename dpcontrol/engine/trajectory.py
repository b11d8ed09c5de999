"""A trajectory, and the plain rollout that makes one. A rollout knows a simulator only as something that steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from dpcontrol import tree
from dpcontrol.engine.fused import Step, is_plain, run_fused, run_fused_step
from dpcontrol.engine.gradients import Full, GradientMode
from dpcontrol.engine.memory import keeps_all_states
from dpcontrol.engine.scan import scan
from dpcontrol.kernels import Kernel
from dpcontrol.results import UsageError
from dpcontrol.tree import Tree


class Steps(Protocol):
    """The part of a simulator that the engine sees (see :class:`dpcontrol.sim.base.Simulator`)."""

    @property
    def dt(self) -> float: ...
    @property
    def parameters(self) -> Mapping[str, float | Tensor]: ...
    def check(self, initial: Tree, parameters: Mapping[str, Tensor]) -> None: ...
    def start(self, initial: Tree, parameters: Mapping[str, Tensor]) -> Tree: ...
    def prepare(self, parameters: Mapping[str, Tensor], scenario: Mapping[str, Tree]) -> Any: ...
    def step(self, state: Tree, control: Tree, coefficients: Any, noise: Tree, t: float) -> Tree: ...
    def kernel(self, state: Tree, control: Tree, noise: Tree, coefficients: Any) -> Kernel | None: ...


@tree.register
@dataclass(frozen=True)
class Trajectory:
    """What a rollout went through.

    ``states``: leaves ``(horizon + 1, scenarios, ...)``; ``controls``: leaves ``(horizon, scenarios, ...)``, or
    ``None``; ``times``: ``(horizon + 1,)``, in the simulator's unit of time.
    """

    states: Tree
    controls: Tree
    times: Tensor

    def __repr__(self) -> str:
        sizes = f"states {tree.describe(self.states)}, controls {tree.describe(self.controls)}"
        return f"Trajectory({self.horizon} steps: {sizes})"

    @property
    def horizon(self) -> int:
        """Number of steps."""
        return len(self.times) - 1


def rollout(
    simulator: Steps,
    state: Tree,
    controls: Tree = None,
    *,
    length: int | None = None,
    parameters: Mapping[str, Any] | None = None,
    scenario: Mapping[str, Tree] | None = None,
    noise: Tree = None,
    gradient: GradientMode | None = None,
) -> Trajectory:
    """Roll a simulator out: ``x_{k+1} = step(x_k, u_k)``, from ``x_0 = state``.

    Args:
        simulator: anything that steps.
        state: initial state, leaves ``(scenarios, ...)``.
        controls: leaves ``(horizon, scenarios, ...)``, or ``None`` for an uncontrolled run of ``length`` steps.
        length: number of steps; needed only without controls and noise.
        parameters: replaces some of the simulator's defaults; tensors are differentiated through.
        scenario: per-scenario data that a wrapped function may look at.
        noise: leaves ``(horizon, scenarios, ...)``.
        gradient: how the loop is differentiated.

    Raises:
        UsageError: if the number of steps is not determined or contradictory, or if the simulator has no such
            parameter.
    """
    if gradient is not None and not isinstance(gradient, GradientMode):
        raise UsageError(
            f"gradient is how the loop is differentiated, a mode such as Full() or Checkpointed(); found {gradient!r}."
        )
    if length is not None and (not isinstance(length, int) or length < 0):
        raise UsageError(f"length is a whole number of steps, zero or more; found {length!r}.")
    horizons = {len(leaf) for leaf in tree.leaves((controls, noise))} | (
        set() if length is None else {length}
    )
    if len(horizons) != 1:
        raise UsageError(
            f"a rollout needs one number of steps; controls, noise and length say {sorted(horizons) or 'nothing'}: "
            "pass controls with a leading axis of steps, or length=..."
        )
    steps = horizons.pop()
    _known_parameters(simulator, parameters or {})
    values = parameter_values(simulator, parameters or {}, like=state)
    coefficients = simulator.prepare(values, scenario or {})

    step = stepper(simulator)

    def body(carry: Tree, row: Tree, constants: Tree, k: int) -> tuple[Tree, Tree]:
        carry = step(carry, row if row is not None else (None, None), constants, k)
        return carry, carry

    start = simulator.start(state, values)
    simulator.check(state, values)
    kernel = whole_run_kernel(simulator, start, (controls, noise), coefficients, steps, gradient)
    if kernel is not None:
        rest = run_fused(kernel, eager_step(simulator), start, (controls, noise), coefficients, steps)
    else:
        _, rest = scan(body, start, (controls, noise), steps, constants=coefficients, gradient=gradient)
    states = prepend(start, rest)
    return Trajectory(states, controls, times(steps, simulator.dt, like=start))


def _known_parameters(simulator: Steps, given: Mapping[str, Any]) -> None:
    """Refuse names that the simulator does not know; one without any defaults may be a function that takes them all."""
    known = sorted(simulator.parameters)
    unknown = sorted(set(given) - set(known))
    if known and unknown:
        raise UsageError(
            f"{type(simulator).__name__} has no parameter {', '.join(unknown)}; it has {', '.join(known)}: use one of "
            "these names."
        )


def eager_step(simulator: Steps) -> Step:
    """The simulator's step as a loop calls it: ``step(state, (control, noise), coefficients, k)``."""

    def step(state: Tree, row: Tree, coefficients: Tree, k: int) -> Tree:
        control, noise = row
        after = simulator.step(state, control, coefficients, noise, k * simulator.dt)
        return tree.ordered_like(after, state)

    return step


def stepper(simulator: Steps) -> Step:
    """The step by the simulator's kernel where it has one, else the eager one: for loops that stop at each step."""
    eager = eager_step(simulator)

    def step(state: Tree, row: Tree, coefficients: Tree, k: int) -> Tree:
        control, noise = row
        kernel = simulator.kernel(state, control, noise, coefficients)
        if kernel is None or not kernel.single_steps:
            return eager(state, row, coefficients, k)
        return run_fused_step(kernel, eager, state, row, coefficients, k)

    return step


def whole_run_kernel(
    simulator: Steps, start: Tree, inputs: Tree, coefficients: Tree, steps: int, mode: GradientMode | None
) -> Kernel | None:
    """The kernel for a run of which all states are kept: if there is one, and if the mode allows it.

    Transforms go through the eager definition, which under stored states has a loop of its own.
    """
    mode = Full() if mode is None else mode
    if steps == 0 or not keeps_all_states(mode, start, steps):
        return None
    if not isinstance(mode, Full) and not is_plain(_tensors((start, inputs, coefficients))):
        return None
    control, noise = tree.map(lambda leaf: leaf[0], inputs)
    return simulator.kernel(start, control, noise, coefficients)


def _tensors(value: Tree) -> list[Tensor]:
    return tree.split_tensors(value)[0]


def prepend(first: Tree, rest: Tree) -> Tree:
    """One sequence of the first entry and those behind it (``None`` for none)."""
    if rest is None:
        return tree.map(lambda leaf: leaf[None], first)
    return tree.map(lambda head, tail: torch.cat([head[None], tail]), first, rest)


def times(steps: int, dt: float, *, like: Tree) -> Tensor:
    """``t_k = k dt``, ``(steps + 1,)``, on the device of ``like``."""
    leaf = tree.leaves(like)[0]
    dtype = leaf.dtype if leaf.is_floating_point() else torch.get_default_dtype()
    return torch.arange(steps + 1, dtype=dtype, device=leaf.device) * dt


def parameter_values(simulator: Steps, given: Mapping[str, Any], *, like: Tree) -> dict[str, Tensor]:
    """The simulator's defaults, replaced by what is given, as tensors of the state's dtype and device."""
    leaves = [leaf for leaf in tree.leaves(like) if leaf.is_floating_point()]
    dtype, device = (leaves[0].dtype, leaves[0].device) if leaves else (None, None)
    merged = {**simulator.parameters, **given}
    return {name: tree.to(value, dtype=dtype, device=device) for name, value in merged.items()}
