"""What a simulator is: one step of a physical system, batched over scenarios, out of place, differentiable."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from dpcontrol.kernels import Kernel
from dpcontrol.results import UsageError
from dpcontrol.tree import Tree

Value = float | Tensor


class Simulator(abc.ABC):
    """One step of a physical system. Concrete simulators are frozen dataclasses.

    The leading axis of every state leaf is the scenario axis. ``step`` is pure: it changes nothing in place, keeps
    nothing, and draws no random numbers (noise is drawn beforehand and enters as an input).

    A parameter is a scalar, shared by all scenarios, or a tensor ``(scenarios,)`` (see :func:`align`).
    """

    if TYPE_CHECKING:  # only declared: at run time it would become the default of a dataclass's field

        @property
        def dt(self) -> float:
            """Time that one step advances (1 for plain functions)."""

    @property
    def parameters(self) -> Mapping[str, Value]:
        """Default values of the physical parameters, by their names in the field's own words."""
        return {}

    @property
    def differentiable(self) -> bool:
        """Whether a gradient may be asked of it; a black box says no, and gradient-free strategies fit."""
        return True

    @property
    def state_names(self) -> tuple[str, ...]:
        """What the entries of the state's last axis are, for pictures; empty where the state is a field."""
        return ()

    @property
    def control_names(self) -> tuple[str, ...]:
        """The same for the control."""
        return ()

    def check(self, initial: Tree, parameters: Mapping[str, Tensor]) -> None:
        """Refuse, in one sentence, data that the scheme cannot work with (an unstable ``dt``, say).

        Called once at the door, with the given initial states, and never during a search: a bad candidate shall have
        a bad loss rather than end the search.
        """
        return None

    def start(self, initial: Tree, parameters: Mapping[str, Tensor]) -> Tree:
        """The state to start from. Multistep schemes add their history here; most return ``initial``."""
        return initial

    def prepare(self, parameters: Mapping[str, Tensor], scenario: Mapping[str, Tree]) -> Any:
        """What ``step`` needs of the parameters, computed once per rollout and differentiable in them.

        ``scenario`` is the per-scenario data of the problem; only wrapped user functions look at it.
        """
        return parameters

    @abc.abstractmethod
    def step(self, state: Tree, control: Tree, coefficients: Any, noise: Tree, t: float) -> Tree:
        """The state one ``dt`` later.

        ``control`` is ``None`` where nothing acts, ``noise`` is ``None`` for deterministic runs, ``t`` is the time
        at the beginning of the step.
        """

    def kernel(self, state: Tree, control: Tree, noise: Tree, coefficients: Any) -> Kernel | None:
        """The raw twin of :meth:`step` for data like these (one step's), or ``None``: then the eager step is run.

        Asked once for an open loop, and at every step of loops that stop there: it must cost next to nothing. A kernel
        equals the eager step to rounding, and is tested against it.
        """
        return None


class Wrapper(Simulator):
    """A simulator around another one, ``inner``, to which it leaves everything but ``dt`` and ``step``.

    Concrete wrappers are frozen dataclasses with a field ``inner``.
    """

    if TYPE_CHECKING:

        @property
        def inner(self) -> Simulator:
            """What is wrapped."""

    @property
    def added(self) -> Mapping[str, Any]:
        """Defaults of the wrapper's own parameters, which ``inner`` never sees; none in most."""
        return {}

    @property
    def parameters(self) -> Mapping[str, Any]:
        return {**self.inner.parameters, **self.added}

    @property
    def differentiable(self) -> bool:
        return self.inner.differentiable

    @property
    def state_names(self) -> tuple[str, ...]:
        return self.inner.state_names

    @property
    def control_names(self) -> tuple[str, ...]:
        return self.inner.control_names

    def check(self, initial: Tree, parameters: Mapping[str, Tensor]) -> None:
        self.inner.check(initial, self._without_added(parameters))

    def start(self, initial: Tree, parameters: Mapping[str, Tensor]) -> Tree:
        return self.inner.start(initial, self._without_added(parameters))

    def prepare(self, parameters: Mapping[str, Tensor], scenario: Mapping[str, Tree]) -> Any:
        return self.inner.prepare(self._without_added(parameters), scenario)

    def _without_added(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        own = self.added
        return {name: value for name, value in parameters.items() if name not in own}


@dataclass(frozen=True)
class Substeps(Wrapper):
    """``count`` steps of ``inner`` with the control held, as one step of length ``count * inner.dt``.

    The stability limits of ``inner`` apply to its own, smaller ``dt``. The noise of the long step, if any, is shared
    by its substeps.
    """

    inner: Simulator
    count: int

    def __post_init__(self) -> None:
        if not isinstance(self.count, int) or self.count < 1:
            raise UsageError(f"Substeps needs a whole number of substeps, at least 1; found {self.count!r}.")

    @property
    def dt(self) -> float:
        return self.inner.dt * self.count

    def step(self, state: Tree, control: Tree, coefficients: Any, noise: Tree, t: float) -> Tree:
        for index in range(self.count):
            state = self.inner.step(state, control, coefficients, noise, t + index * self.inner.dt)
        return state

    def kernel(self, state: Tree, control: Tree, noise: Tree, coefficients: Any) -> Kernel | None:
        """That of ``inner``, run ``count`` times in every step."""
        inner = self.inner.kernel(state, control, noise, coefficients)
        return None if inner is None else inner.repeated(self.count)


def align(parameter: Value, field: Tensor) -> Value:
    """A parameter ``()`` or ``(scenarios,)`` shaped so that it multiplies a field ``(scenarios, ...)``."""
    if isinstance(parameter, Tensor) and parameter.ndim == 1:
        return parameter.reshape(-1, *[1] * (field.ndim - 1))
    return parameter


def require_positive(name: str, value: Value, *, zero_allowed: bool = False) -> None:
    """Refuse a physical constant that is not a positive (or non-negative) finite number."""
    smallest = float(value.min()) if isinstance(value, Tensor) else float(value)
    largest = float(value.max()) if isinstance(value, Tensor) else float(value)
    fine = smallest >= 0 if zero_allowed else smallest > 0
    if not fine or largest == float("inf"):
        wanted = "zero or positive" if zero_allowed else "positive"
        raise UsageError(f"{name} must be {wanted} and finite; found {value}.")
