"""Linear systems, in continuous and in discrete time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dpcontrol.results import UsageError
from dpcontrol.sim.base import Simulator, Value, require_positive
from dpcontrol.sim.ode import System
from dpcontrol.tree import Tree, describe


@dataclass(frozen=True, eq=False)
class LinearSystem(System):
    r"""A linear system with constant coefficients, in continuous time.

    .. math:: \dot x = A x + B u

    **State**: ``x``, ``(scenarios, n)``; **control**: ``u``, ``(scenarios, m)`` or ``None``. Units are the user's.

    **Parameters**: ``A`` ``(n, n)`` and ``B`` ``(n, m)``, shared by all scenarios, or with a leading scenario axis.

    **Good values**: the double integrator ``LinearSystem(A=[[0, 1], [0, 0]], B=[[0], [1]])``.

    Args:
        A: nested lists, an array or a tensor; numbers that are not tensors become float64.
        B: the same.

    Raises:
        UsageError: if the matrices do not fit.
    """

    A: Tensor
    B: Tensor

    def __post_init__(self) -> None:
        _set_matrices(self, self.A, self.B)

    @property
    def components(self) -> tuple[str, ...]:
        return tuple(f"x{i}" for i in range(self.B.shape[-2]))

    @property
    def inputs(self) -> tuple[str, ...]:
        return tuple(f"u{i}" for i in range(self.B.shape[-1]))

    @property
    def parameters(self) -> Mapping[str, Value]:
        return {"A": self.A, "B": self.B}

    def rate(self, state: Tensor, control: Tensor | None, parameters: Mapping[str, Any], t: float) -> Tensor:
        return _affine(state, control, parameters)


@dataclass(frozen=True, eq=False)
class DiscreteLinear(Simulator):
    r"""A linear system in discrete time; with quadratic costs, the linear-quadratic regulator.

    .. math:: x_{k+1} = A x_k + B u_k

    **State**: ``x``, ``(scenarios, n)``; **control**: ``u``, ``(scenarios, m)`` or ``None``. Units are the user's.

    **Scheme**: none, the map is exact. **Parameters**: ``A`` and ``B``, as in :class:`LinearSystem`.

    **Good values**: the double integrator with held control, step 0.1:
    ``DiscreteLinear(A=[[1, 0.1], [0, 1]], B=[[0.005], [0.1]], dt=0.1)``.

    Raises:
        UsageError: if the matrices do not fit, or state or control do not fit them.
    """

    A: Tensor
    B: Tensor
    dt: float = 1.0

    def __post_init__(self) -> None:
        _set_matrices(self, self.A, self.B)
        require_positive("dt", self.dt)

    @property
    def parameters(self) -> Mapping[str, Value]:
        return {"A": self.A, "B": self.B}

    def start(self, initial: Tree, parameters: Mapping[str, Tensor]) -> Tree:
        """``initial``, its shape checked."""
        _require_columns("state", initial, self.A.shape[-1])
        return initial

    def step(
        self, state: Tensor, control: Tensor | None, coefficients: Mapping[str, Tensor], noise: Tree, t: float
    ) -> Tensor:
        """``A x + B u``."""
        if control is not None:
            _require_columns("control", control, self.B.shape[-1])
        return _affine(state, control, coefficients)


def _affine(state: Tensor, control: Tensor | None, parameters: Mapping[str, Any]) -> Tensor:
    moved = _apply(parameters["A"], state)
    return moved if control is None else moved + _apply(parameters["B"], control)


def _apply(matrix: Tensor, vectors: Tensor) -> Tensor:
    """One matrix for all rows of ``vectors``, or one for each."""
    return vectors @ matrix.mT if matrix.ndim == 2 else torch.einsum("sij,sj->si", matrix, vectors)


def _set_matrices(owner: object, a: Any, b: Any) -> None:
    """Put ``A`` and ``B`` into a frozen dataclass as tensors that fit each other."""
    matrices = []
    for name, value in (("A", a), ("B", b)):
        try:
            matrix = value if isinstance(value, Tensor) else torch.as_tensor(value, dtype=torch.float64)
        except (TypeError, ValueError) as error:
            raise UsageError(
                f"{name} must be a matrix of numbers, rows of equal length; found {value!r}."
            ) from error
        if matrix.ndim not in (2, 3) or not bool(torch.isfinite(matrix).all()):
            raise UsageError(f"{name} must be a matrix of finite numbers; found {describe(matrix)}.")
        matrices.append(matrix)
        object.__setattr__(owner, name, matrix)
    rows, columns = matrices[0].shape[-2:]
    if rows != columns or matrices[1].shape[-2] != rows:
        raise UsageError(
            f"A must be (n, n) and B (n, m); found A {tuple(matrices[0].shape)} and B {tuple(matrices[1].shape)}."
        )


def _require_columns(what: str, value: Tree, columns: int) -> None:
    if not (isinstance(value, Tensor) and value.ndim >= 1 and value.shape[-1] == columns):
        raise UsageError(
            f"the {what} of this linear system is (scenarios, {columns}); found {describe(value)}."
        )
