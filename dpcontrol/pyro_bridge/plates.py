"""A simulator inside anybody's own Pyro model: plates are scenarios."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Size, Tensor

from dpcontrol import tree
from dpcontrol.engine import rollout
from dpcontrol.kernels import Kernel
from dpcontrol.results import SimulationFailed, UsageError
from dpcontrol.sim.base import Simulator, Wrapper
from dpcontrol.sim.function import FunctionSimulator
from dpcontrol.tree import Tree

FILLING = 1.0  # stands in the place of numbers of a failed run: inside the support of every noise model


def pyro_simulate(
    simulator: Simulator | Callable[..., Tree],
    initial_state: Tensor,
    *,
    steps: int,
    axes: int,
    parameters: Mapping[str, Any] | None = None,
    controls: Tensor | None = None,
    site: str = "ran",
    impossible: float = -math.inf,
) -> Tensor:
    r"""States :math:`x_0 \dots x_N`, ``(*plates, steps + 1, ...)``, of a simulator inside a Pyro model.

    The axes of plates, also those that Pyro adds (``vectorize_particles=True``, ``Predictive(parallel=True)``), become
    the scenario axis: all of them step as one batch. Call it inside the plates that its arguments depend on.

    Where a run fails (a state is not finite, or somebody else's simulator crashes), the log-density of that entry of
    the plates is ``-inf``, by a ``pyro.factor`` at the site ``ran``; its states are filled with ones and have no
    gradient. Nothing is raised, so a chain lives.

    >>> import pyro, torch
    >>> from pyro.distributions import LogNormal, Normal
    >>> from dpcontrol import pyro_simulate
    >>> from dpcontrol.sim import ODE, FunctionSystem, align
    >>> def rate_of_change(x, u, *, parameters):
    ...     return -align(parameters["rate"], x) * x
    >>> decay = ODE(FunctionSystem(rate_of_change, {"rate": 1.0}), dt=0.1)
    >>> def model(data):  # (4 experiments, 11 times)
    ...     rate = pyro.sample("rate", LogNormal(0.0, 0.5))  # shared by all
    ...     with pyro.plate("experiments", 4):
    ...         start = pyro.sample("start", Normal(1.0, 0.2))
    ...         states = pyro_simulate(decay, start[..., None], steps=10, axes=1, parameters={"rate": rate})
    ...         return pyro.sample("y", Normal(states[..., 0], 0.1).to_event(1), obs=data)
    >>> model(None).shape
    torch.Size([4, 11])

    Args:
        simulator: a simulator, or a function ``step(state, control)``.
        initial_state: ``(*plates, ...)``, with ``axes`` axes of its own behind those of the plates.
        steps: how many; 0 for a steady system.
        axes: how many axes a state of one scenario has: 0 for a number, 1 for a vector, 2 for a field in the plane.
        parameters: scalars, ``(*plates)``; they and the state broadcast against each other. The simulator gets each as
            ``(scenarios,)``: a function of your own multiplies by :func:`~dpcontrol.sim.base.align` of it.
        controls: ``(*plates, steps, inputs)``, a vector at each step.
        site: name of the factor, different for each call of a model.
        impossible: log-density of a run that fails. Samplers want ``-inf``; a bound that is maximised (SVI) would be
            minus infinity too and wants a finite number, ``-1e4`` say, until the guide has learnt to stay away.

    Raises:
        UsageError: if shapes do not fit.
    """
    plates = _plates(initial_state, axes, parameters or {}, controls)
    own = initial_state.shape[initial_state.ndim - axes :]
    start = _scenarios(initial_state, plates, own, like=initial_state)
    values = {
        name: _scenarios(value, plates, Size(), like=initial_state)
        for name, value in (parameters or {}).items()
    }
    acting = None
    if controls is not None:
        acting = _scenarios(controls, plates, controls.shape[-2:], like=initial_state)
    system = simulator if isinstance(simulator, Simulator) else FunctionSimulator(simulator, defaults=values)
    try:
        found = rollout(
            Unchecked(system),
            start,
            None if acting is None else acting.transpose(0, 1),
            length=steps,
            parameters=values,
        ).states.transpose(0, 1)
    except SimulationFailed:
        found = start.new_full((len(start), steps + 1, *own), math.nan)
    failed = failures(found, found.ndim - 1)
    without_gradient([start, *values.values(), *([] if acting is None else [acting])], failed)
    states = found.reshape(plates + found.shape[1:])
    return impossible_where_failed(states, states.ndim - len(plates), site=site, impossible=impossible)


def impossible_where_failed(
    value: Tensor, axes: int, *, site: str = "ran", impossible: float = -math.inf
) -> Tensor:
    """Make failed runs impossible: ``value`` ``(*plates, ...)`` with ones in the place of entries that are not finite.

    Each entry of the plates with a number that is not finite among its last ``axes`` axes gets the log-density
    ``impossible`` by a ``pyro.factor`` at ``site``; the others get zero.
    """
    import pyro

    failed = failures(value, axes)
    pyro.factor(site, torch.where(failed, impossible, 0.0).to(value.dtype))
    return filled(value, failed)


def failures(value: Tensor, axes: int) -> Tensor:
    """Which entries of the axes in front of the last ``axes`` ones hold a number that is not finite."""
    flat = torch.isfinite(value).reshape(*value.shape[: value.ndim - axes], -1)
    return ~flat.all(-1)


def filled(value: Tensor, failed: Tensor) -> Tensor:
    """``value`` with ones where its run failed."""
    return torch.where(failed.reshape(failed.shape + (1,) * (value.ndim - failed.ndim)), FILLING, value)


def without_gradient(inputs: list[Tensor], failed: Tensor) -> None:
    """Take the gradients of failed rows out of inputs ``(rows, ...)``: backwards through them come NaNs."""
    for value in inputs:
        if value.requires_grad:
            mask = failed.reshape(-1, *[1] * (value.ndim - 1))
            value.register_hook(lambda gradient, mask=mask: torch.where(mask, 0.0, gradient))


def _plates(initial_state: Tensor, axes: int, parameters: Mapping[str, Any], controls: Tensor | None) -> Size:
    if not isinstance(initial_state, Tensor) or initial_state.ndim < axes:
        raise UsageError(
            f"the initial state must be a tensor (*plates, ...) with {axes} axes of its own; found "
            f"{tree.describe(initial_state)}: add them with x[..., None], or change axes=..."
        )
    if controls is not None and controls.ndim < 2:
        raise UsageError(
            f"controls are (*plates, steps, inputs), a vector at each step; found {tuple(controls.shape)}: add the "
            "last axis with u[..., None]."
        )
    shapes = {"initial_state": initial_state.shape[: initial_state.ndim - axes]}
    shapes |= {name: torch.as_tensor(value).shape for name, value in parameters.items()}
    if controls is not None:
        shapes["controls"] = controls.shape[:-2]
    try:
        return Size(torch.broadcast_shapes(*shapes.values()))
    except RuntimeError as error:
        told = ", ".join(f"{name} {tuple(shape)}" for name, shape in shapes.items())
        raise UsageError(
            f"the plates do not broadcast: {told}; take the axes of a state itself off by axes=..., and give "
            "parameters the shape of the plates alone."
        ) from error


def _scenarios(value: Any, plates: Size, own: Size, *, like: Tensor) -> Tensor:
    """``(*plates, *own)``, or what broadcasts to it, as ``(scenarios, *own)``; a tensor of its own."""
    tensor = torch.as_tensor(value).to(dtype=like.dtype, device=like.device)
    return tensor.expand(plates + own).reshape(math.prod(plates), *own).clone()


@dataclass(frozen=True)
class Unchecked(Wrapper):
    """``inner`` without its check at the door: what is drawn shall fail by its numbers, not by an exception."""

    inner: Simulator

    @property
    def dt(self) -> float:
        return self.inner.dt

    def check(self, initial: Tree, parameters: Mapping[str, Tensor]) -> None:
        return None

    def step(self, state: Tree, control: Tree, coefficients: Any, noise: Tree, t: float) -> Tree:
        return self.inner.step(state, control, coefficients, noise, t)

    def kernel(self, state: Tree, control: Tree, noise: Tree, coefficients: Any) -> Kernel | None:
        return self.inner.kernel(state, control, noise, coefficients)
