"""Time-stepping schemes as tables of numbers: explicit Runge-Kutta tableaux, and partitioned symplectic schemes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from dpcontrol import tree
from dpcontrol.results import UsageError
from dpcontrol.tree import Tree


@dataclass(frozen=True)
class Tableau:
    r"""An explicit Runge-Kutta scheme (Butcher tableau).

    .. math:: k_i = f(t + c_i \Delta t, \, x + \Delta t \sum_{j<i} a_{ij} k_j), \quad
              x^{new} = x + \Delta t \sum_i b_i k_i

    ``a`` has one row for each stage, of the entries left of the diagonal: ``((), (1/2,))`` for two stages.
    Source: E. Hairer, S. P. Nørsett, G. Wanner, "Solving Ordinary Differential Equations I", section II.1, eq. 1.8.

    Raises:
        UsageError: if the table is not explicit and consistent (rows of ``a`` sum to ``c``, ``b`` sums to one).
    """

    name: str
    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]
    c: tuple[float, ...]
    order: int

    def __post_init__(self) -> None:
        stages = len(self.b)
        if (
            len(self.a) != stages
            or len(self.c) != stages
            or any(len(row) != i for i, row in enumerate(self.a))
        ):
            raise UsageError(
                f"the tableau {self.name!r} has {stages} weights b, {len(self.c)} nodes c and rows of a of lengths "
                f"{[len(row) for row in self.a]}; an explicit scheme has as many nodes, and rows of lengths 0, 1, 2 ..."
            )
        sums = [(sum(row), node) for row, node in zip(self.a, self.c, strict=True)] + [(sum(self.b), 1.0)]
        if not all(math.isclose(found, wanted, abs_tol=1e-12) for found, wanted in sums):
            raise UsageError(
                f"the tableau {self.name!r} is inconsistent: rows of a must sum to c, and b to one."
            )

    def advance(self, rate: Callable[[Tree, float], Tree], state: Tree, t: float, dt: float) -> Tree:
        """One step of ``dx/dt = rate(x, t)``; the state may be any tree."""
        rates: list[Tree] = []
        for row, node in zip(self.a, self.c, strict=True):
            rates.append(rate(_moved(state, row, rates, dt), t + node * dt))
        return _moved(state, self.b, rates, dt)


@dataclass(frozen=True)
class Partitioned:
    r"""An explicit symplectic scheme for ``q' = v(p)``, ``p' = f(q)``: drifts and kicks in turn.

    .. math:: q \leftarrow q + c_i \Delta t \, v(p), \quad p \leftarrow p + d_i \Delta t \, f(q), \quad i = 1, 2, \dots

    It conserves a nearby energy over exponentially long times where the system is Hamiltonian: no control, no
    damping. With either it remains a consistent scheme; the order is kept for forces of position and time only, and is
    1 for ``VERLET`` with damping.
    Source: E. Hairer, C. Lubich, G. Wanner, "Geometric Numerical Integration", sections I.1.2, I.1.4 and VI.3.

    Raises:
        UsageError: if ``c`` and ``d`` differ in length or do not each sum to one.
    """

    name: str
    c: tuple[float, ...]
    d: tuple[float, ...]
    order: int

    def __post_init__(self) -> None:
        if len(self.c) != len(self.d) or not (
            math.isclose(sum(self.c), 1.0) and math.isclose(sum(self.d), 1.0)
        ):
            raise UsageError(
                f"the scheme {self.name!r} needs as many drifts c as kicks d, each summing to one; "
                f"found {self.c}, {self.d}."
            )

    def advance(
        self,
        velocity: Callable[[Tensor], Tensor],
        force: Callable[[Tensor, Tensor, float], Tensor],
        position: Tensor,
        momentum: Tensor,
        t: float,
        dt: float,
    ) -> tuple[Tensor, Tensor]:
        """One step of ``q' = velocity(p)``, ``p' = force(q, p, t)``."""
        reached = t
        for drift, kick in zip(self.c, self.d, strict=True):
            if drift:
                position = position + velocity(momentum) * (drift * dt)
                reached += drift * dt
            if kick:
                momentum = momentum + force(position, momentum, reached) * (kick * dt)
        return position, momentum


EULER = Tableau("Euler", a=((),), b=(1.0,), c=(0.0,), order=1)
HEUN = Tableau("Heun", a=((), (1.0,)), b=(0.5, 0.5), c=(0.0, 1.0), order=2)
MIDPOINT = Tableau("midpoint", a=((), (0.5,)), b=(0.0, 1.0), c=(0.0, 0.5), order=2)
RK4 = Tableau(
    "RK4",
    a=((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0)),
    b=(1 / 6, 1 / 3, 1 / 3, 1 / 6),
    c=(0.0, 0.5, 0.5, 1.0),
    order=4,
)
SYMPLECTIC_EULER = Partitioned("symplectic Euler", c=(1.0,), d=(1.0,), order=1)
VERLET = Partitioned("Verlet", c=(0.5, 0.5), d=(1.0, 0.0), order=2)


def _moved(state: Tree, weights: Sequence[float], rates: list[Tree], dt: float) -> Tree:
    """``state + dt * sum of weights * rates``, without the terms of weight zero."""
    terms = [(weight * dt, rate) for weight, rate in zip(weights, rates, strict=True) if weight]
    for weight, rate in terms:
        if isinstance(state, Tensor):  # spares the walk through a tree, which costs more than the sum
            state = state.add(rate, alpha=weight)
        else:
            state = tree.map(lambda leaf, slope, weight=weight: leaf.add(slope, alpha=weight), state, rate)
    return state
