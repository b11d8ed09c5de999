"""Systems of ordinary differential equations, and the simulator that steps them."""

from __future__ import annotations

import abc
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from dpcontrol.kernels import Kernel
from dpcontrol.kernels.scalar import Traces, scalar_kernel
from dpcontrol.results import UsageError
from dpcontrol.sim.base import Simulator, Value, require_positive
from dpcontrol.sim.schemes import RK4, Partitioned, Tableau
from dpcontrol.tree import Tree, describe


class System(abc.ABC):
    """``dx/dt = rate(x, u, parameters, t)``. Concrete systems are frozen dataclasses whose fields are the parameters.

    The state is a tensor ``(scenarios, components)``, the control ``(scenarios, inputs)`` or ``None``, which means
    zero. Parameters are ``()`` or ``(scenarios,)``.
    """

    @property
    @abc.abstractmethod
    def components(self) -> tuple[str, ...]:
        """What the entries of the state's last axis are; empty if unknown, then shapes are not checked."""

    @property
    @abc.abstractmethod
    def inputs(self) -> tuple[str, ...]:
        """What the entries of the control's last axis are; empty if unknown, then shapes are not checked."""

    @property
    @abc.abstractmethod
    def parameters(self) -> Mapping[str, Value]:
        """Default values of the physical parameters, by their names in the field's own words."""

    @abc.abstractmethod
    def rate(self, state: Tree, control: Tree, parameters: Mapping[str, Any], t: float) -> Tree:
        """``dx/dt``, of the structure and shape of ``state``."""


class SeparableSystem(System):
    """A system of positions and momenta (or velocities): ``q' = velocity(p)``, ``p' = force(q, p, u, t)``.

    The first half of the state's last axis are the positions, the second half the momenta, in the same order. It is
    Hamiltonian where the force depends on positions only.
    """

    @abc.abstractmethod
    def velocity(self, momentum: Tensor, parameters: Mapping[str, Any]) -> Tensor:
        """``dq/dt``, ``(scenarios, positions)``."""

    @abc.abstractmethod
    def force(
        self,
        position: Tensor,
        momentum: Tensor,
        control: Tensor | None,
        parameters: Mapping[str, Any],
        t: float,
    ) -> Tensor:
        """``dp/dt``, ``(scenarios, positions)``; a dependence on ``momentum`` is damping."""

    def rate(self, state: Tensor, control: Tensor | None, parameters: Mapping[str, Any], t: float) -> Tensor:
        position, momentum = state.chunk(2, -1)
        return torch.cat(
            (self.velocity(momentum, parameters), self.force(position, momentum, control, parameters, t)), -1
        )


@dataclass(frozen=True)
class FunctionSystem(System):
    """``dx/dt = function(x, u)`` for any batched, pure, differentiable function.

    ``function(state, control)`` may also take ``parameters`` (dict of tensors) and ``t`` (a float) by keyword; the
    state may be any tree.

    Raises:
        UsageError: if the signature asks for anything else.
    """

    function: Callable[..., Tree]
    defaults: Mapping[str, Value] = field(default_factory=dict)
    keywords: tuple[str, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "keywords", _keywords(self.function))

    @property
    def components(self) -> tuple[str, ...]:
        return ()

    @property
    def inputs(self) -> tuple[str, ...]:
        return ()

    @property
    def parameters(self) -> Mapping[str, Value]:
        return self.defaults

    def rate(self, state: Tree, control: Tree, parameters: Mapping[str, Any], t: float) -> Tree:
        offered = {"parameters": parameters, "t": t}
        return self.function(state, control, **{name: offered[name] for name in self.keywords})


@dataclass(frozen=True)
class ODE(Simulator):
    """One step of a system of ordinary differential equations, the control held during the step.

    **State**: what the system says, ``(scenarios, components)``; control ``(scenarios, inputs)`` or ``None`` (zero).

    **Scheme**: a :class:`~dpcontrol.sim.schemes.Tableau` (``EULER``, ``HEUN``, ``MIDPOINT``, ``RK4``; orders 1, 2,
    2, 4) or, for a :class:`SeparableSystem`, a :class:`~dpcontrol.sim.schemes.Partitioned` one (``SYMPLECTIC_EULER``,
    ``VERLET``; orders 1, 2). All are explicit: ``dt`` times the largest eigenvalue of the linearised system must stay
    below about 2.8 for RK4 and 2 for the others; undamped oscillations grow slowly under
    EULER, HEUN and MIDPOINT for any ``dt``.

    **Parameters**: the system's.

    **Good values**: ``ODE(Pendulum(), dt=0.05)``; wrapped in ``Substeps`` where the control is held longer than a step.

    Args:
        system: a :class:`System`, or a function ``rate(state, control)`` that may also take ``parameters`` and ``t`` by
            keyword (with default values of parameters: ``FunctionSystem(rate, {"stiffness": 1.0})``).
        dt: time step.
        scheme: the table of the scheme.
        fused: whole runs of a :class:`System` on the CPU may go through a loop made from its step
            (:mod:`dpcontrol.kernels.scalar`, needs Numba, a second or two at the first run and at the first gradient);
            ``False`` for the eager step always. The numbers are the same to rounding. Plain numbers that a system of
            your own looks up are taken once: make what changes a parameter. For a function as the system it is switched
            on by ``compile=True``, see :class:`~dpcontrol.sim.compiled.Compiled`.

    Raises:
        UsageError: if ``dt`` is not positive, a symplectic scheme is asked to step a system that is not separable, or,
            at the start of a rollout or in a step, state or control have another number of components than the system.
    """

    system: System | Callable[..., Tree]
    dt: float
    scheme: Tableau | Partitioned = RK4
    fused: bool = True
    traces: Traces = field(default_factory=Traces, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        require_positive("dt", self.dt)
        if not isinstance(self.scheme, Tableau | Partitioned):
            raise UsageError(
                f"scheme is a Tableau such as RK4, or a Partitioned such as VERLET; found {self.scheme!r}."
            )
        if not isinstance(self.system, System):
            object.__setattr__(self, "system", FunctionSystem(self.system))
        if isinstance(self.scheme, Partitioned) and not isinstance(self.system, SeparableSystem):
            raise UsageError(
                f"{self.scheme.name} steps positions and momenta in turn, which {type(self.system).__name__} does not "
                "have; take a Runge-Kutta scheme such as RK4, or write the system as a SeparableSystem."
            )

    @property
    def parameters(self) -> Mapping[str, Value]:
        return self._system.parameters

    @property
    def state_names(self) -> tuple[str, ...]:
        return self._system.components

    @property
    def control_names(self) -> tuple[str, ...]:
        return self._system.inputs

    def start(self, initial: Tree, parameters: Mapping[str, Tensor]) -> Tree:
        """``initial``, its shape checked."""
        _require_last_axis("state", initial, self._system.components)
        return initial

    def step(self, state: Tree, control: Tree, coefficients: Any, noise: Tree, t: float) -> Tree:
        """One step of the scheme."""
        system = self._system
        if control is not None:
            _require_last_axis("control", control, system.inputs)
        if isinstance(self.scheme, Tableau):
            return self.scheme.advance(
                lambda x, time: system.rate(x, control, coefficients, time), state, t, self.dt
            )
        assert isinstance(system, SeparableSystem)  # refused in __post_init__ otherwise
        position, momentum = state.chunk(2, -1)
        moved = self.scheme.advance(
            lambda p: system.velocity(p, coefficients),
            lambda q, p, time: system.force(q, p, control, coefficients, time),
            position,
            momentum,
            t,
            self.dt,
        )
        return torch.cat(moved, -1)

    def kernel(self, state: Tree, control: Tree, noise: Tree, coefficients: Any) -> Kernel | None:
        """A loop of scalar arithmetic, traced once for each set of shapes, unless ``fused`` is off."""
        if not self.fused or isinstance(self.system, FunctionSystem):
            return None

        def step(x: Tree, row: Tree, constants: Any, t: Any) -> Tree:
            return self.step(x, row[0], constants, row[1], t)

        return scalar_kernel(self.traces, step, self.dt, state, (control, noise), coefficients)

    @property
    def _system(self) -> System:
        assert isinstance(self.system, System)  # functions are wrapped in __post_init__
        return self.system


def _require_last_axis(what: str, value: Tree, names: tuple[str, ...]) -> None:
    if names and not (isinstance(value, Tensor) and value.ndim >= 1 and value.shape[-1] == len(names)):
        raise UsageError(
            f"the {what} of this system is a tensor whose last axis holds ({', '.join(names)}), shape (scenarios, "
            f"{len(names)}); found {describe(value)}."
        )


def _keywords(function: object) -> tuple[str, ...]:
    """Which of ``parameters`` and ``t`` a rate function takes."""
    if not callable(function):
        raise UsageError(
            f"a system is a System or a function rate(state, control) -> d state/dt; found {type(function).__name__}."
        )
    entries = list(inspect.signature(function).parameters.values())
    positional = [e for e in entries if e.kind in (e.POSITIONAL_ONLY, e.POSITIONAL_OR_KEYWORD)]
    further = positional[2:] + [e for e in entries if e.kind is e.KEYWORD_ONLY]
    wanted = [e.name for e in further if e.default is e.empty or e.name in ("parameters", "t")]
    if len(positional) < 2 or not set(wanted) <= {"parameters", "t"}:
        raise UsageError(
            "rate functions take (state, control) and optionally parameters, t by keyword; found "
            f"({', '.join(e.name for e in entries)}): bind other arguments beforehand, with functools.partial say."
        )
    return tuple(wanted)
