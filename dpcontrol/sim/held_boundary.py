"""What linear 1-D equations with a held boundary value share: many fine steps are one small matrix power."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dpcontrol.results import UsageError
from dpcontrol.sim.base import Simulator, Value, require_positive
from dpcontrol.tree import Tree, describe


class HeldBoundary(Simulator):
    r"""A linear scheme on points of [0, 1] whose boundary value ``U`` at x = 1 is held for ``held`` fine steps.

    A fine step is :math:`x \mapsto F x + g U`. With the control as one more entry of the state it is a square matrix,
    and ``held`` of them are its power:

    .. math:: \begin{pmatrix} A & B \\ 0 & 1 \end{pmatrix} = \begin{pmatrix} F & g \\ 0 & 1 \end{pmatrix}^{held},
              \qquad x_{k+1} = A x_k + B U_k.

    ``F`` and ``g`` are not written down a second time: they are what :meth:`fine_step` does to the unit vectors, so a
    step equals ``held`` fine ones to rounding, and its derivatives in the field are theirs. The power is taken in
    float64 whatever the dtype of the state.

    Concrete systems are frozen dataclasses with the fields ``points``, ``fine_dt`` and ``held``, and one parameter, a
    field over the points: a number, a tensor ``(points,)``, or one for each scenario, ``(scenarios, points)``.
    """

    if TYPE_CHECKING:

        @property
        def points(self) -> int: ...
        @property
        def fine_dt(self) -> float: ...
        @property
        def held(self) -> int: ...

    @property
    def dt(self) -> float:
        return self.fine_dt * self.held

    @property
    @abc.abstractmethod
    def dx(self) -> float:
        """Distance of the points."""

    @property
    @abc.abstractmethod
    def longest_dt(self) -> float:
        """The longest ``fine_dt`` for which the scheme is stable."""

    @abc.abstractmethod
    def fine_step(self, state: Tensor, control: Tensor, field: Tensor) -> Tensor:
        """The scheme: ``(..., points)``, ``(..., 1)`` and a field that broadcasts to the state -> ``(..., points)``."""

    def start(self, initial: Tree, parameters: Mapping[str, Tensor]) -> Tree:
        """``initial``, its shape checked."""
        if not isinstance(initial, Tensor) or initial.ndim != 2 or initial.shape[1] != self.points:
            raise UsageError(
                f"the state of {type(self).__name__} is (scenarios, {self.points}); found {describe(initial)}."
            )
        return initial

    def prepare(self, parameters: Mapping[str, Tensor], scenario: Mapping[str, Tree]) -> Any:
        """``A`` and ``B`` of the held step, ``([scenarios,] points, points)`` and ``([scenarios,] points, 1)``."""
        ((name, field),) = parameters.items()
        n = self.points
        _require_field(name, field, n)
        exact = field.double()
        units = torch.eye(n + 1, dtype=exact.dtype, device=exact.device)
        moved = self.fine_step(units[:, :n], units[:, n:], exact if field.ndim < 2 else exact[:, None])
        kept = units[:, n:].expand(*moved.shape[:-1], 1)
        fine = torch.cat((moved, kept), -1).mT
        power = torch.linalg.matrix_power(fine, self.held)[..., :n, :].to(field.dtype)
        return {"A": power[..., :n].contiguous(), "B": power[..., n:].contiguous()}

    def step(
        self, state: Tensor, control: Tensor | None, coefficients: Mapping[str, Tensor], noise: Tree, t: float
    ) -> Tensor:
        """``A x + B U``; without a control the boundary value is zero."""
        A, B = coefficients["A"], coefficients["B"]
        if control is not None and (control.ndim != 2 or control.shape[1] != 1):
            raise UsageError(
                f"the control of {type(self).__name__} is its boundary value (scenarios, 1); found {describe(control)}"
            )
        if A.ndim == 2:
            return state @ A.mT if control is None else torch.addmm(control @ B.mT, state, A.mT)
        moved = torch.einsum("sij,sj->si", A, state)
        return moved if control is None else moved + control * B[..., 0]


def check_held(simulator: HeldBoundary, name: str, field: Value | None) -> None:
    """Refuse sizes that make no scheme, an unstable fine step, and a field of another shape."""
    who = type(simulator).__name__
    for what, value, least in (("points", simulator.points, 3), ("held", simulator.held, 1)):
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise UsageError(f"{who}: {what} must be a whole number, at least {least}; found {value!r}.")
    require_positive("fine_dt", simulator.fine_dt)
    longest = simulator.longest_dt
    if simulator.fine_dt > longest * (1 + 1e-9):
        raise UsageError(
            f"{who} is stable up to fine_dt = {longest:.3g} on {simulator.points} points; found "
            f"{simulator.fine_dt:.3g}: take shorter steps or fewer points."
        )
    if isinstance(field, Tensor):
        _require_field(name, field, simulator.points)
        if not bool(torch.isfinite(field).all()):
            raise UsageError(f"{who}: {name} has entries that are not finite; give finite numbers.")


def _require_field(name: str, field: Tensor, points: int) -> None:
    if field.ndim > 2 or (field.ndim > 0 and field.shape[-1] != points):
        raise UsageError(
            f"{name} must be a number, ({points},) or (scenarios, {points}); found {describe(field)}: "
            "sample it on the points."
        )


def chebyshev(amplitude: float, order: float, points: int) -> Tensor:
    """``amplitude cos(order arccos x)`` on ``linspace(0, 1, points)``, float64: the benchmark's fields."""
    places = torch.linspace(0, 1, points, dtype=torch.float64)
    return amplitude * torch.cos(order * torch.arccos(places))
