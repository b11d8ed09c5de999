"""Exponential Runge-Kutta schemes: the stiff linear part exactly, the rest explicitly."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dpcontrol.kernels import Stages

SERIES_TERMS = 18  # 1/(18 + 3)! is below the rounding of doubles

Weights = tuple[tuple[int, float], ...]
"""Pairs ``(k, w)``: the function ``sum w phi_k``."""


def phi_functions(z: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    r"""``phi_0 .. phi_3`` of a real or complex tensor, to rounding everywhere, and smooth to every order.

    .. math:: \varphi_0 = e^z, \quad \varphi_{k+1}(z) = \frac{\varphi_k(z) - 1/k!}{z}, \quad \varphi_k(0) = 1/k!

    The recurrence loses digits near zero; there ``phi_3`` is its Taylor series and the recurrence runs downwards.
    """
    near = z.detach().abs() < 1
    # both branches see arguments at which they and their derivatives are finite
    small, large = torch.where(near, z, torch.zeros_like(z)), torch.where(near, torch.ones_like(z), z)
    terms = [1 / math.factorial(power + 3) for power in range(SERIES_TERMS + 1)]
    *others, series = torch.tensor(terms, dtype=z.dtype, device=z.device).unbind()
    for term in reversed(others):
        series = torch.addcmul(term, series, small)
    second = small * series + 0.5
    first = small * second + 1
    zeroth = torch.exp(z)
    far1 = (torch.exp(large) - 1) / large
    far2 = (far1 - 1) / large
    far3 = (far2 - 0.5) / large
    return (
        zeroth,
        torch.where(near, first, far1),
        torch.where(near, second, far2),
        torch.where(near, series, far3),
    )


@dataclass(frozen=True)
class ExponentialScheme:
    r"""A scheme for ``u' = L u + N(u) + f`` with a diagonal linear part ``L`` and a force ``f`` that is held.

    .. math::
        U_i = \varphi_0(c_i h L) u + h \sum_{j<i} a_{ij}(h L) (N(U_j) + f), \quad
        u^+ = \varphi_0(h L) u + h \sum_i b_i(h L) (N(U_i) + f)

    ``a_ij`` and ``b_i`` are sums of ``phi_k(c_i h L)`` and ``phi_k(h L)``. A linear equation with a held force is
    solved exactly, whatever ``h``.

    Args:
        name: what it is called.
        order: for smooth, non-stiff problems.
        nodes: ``c_i``, one per stage, the first zero.
        inner: for each stage after the first, pairs ``(j, weights)``.
        outer: for each stage, the weights of ``b_i``.
    """

    name: str
    order: int
    nodes: tuple[float, ...]
    inner: tuple[tuple[tuple[int, Weights], ...], ...]
    outer: tuple[Weights, ...]

    @property
    def stages(self) -> Stages:
        """What a kernel needs to know of the scheme beside its coefficients."""
        sources = tuple(tuple(j for j, _ in row) for row in self.inner)
        return Stages(tuple(_key(node) for node in self.nodes[1:]), sources)

    def coefficients(
        self, linear: Tensor, dt: float, *, factor: Tensor | float = 1.0, kept: Tensor | float = 1.0
    ) -> dict[str, Any]:
        """Everything that depends on ``L`` and ``dt``, in double precision; a tree of tensors.

        ``factor`` multiplies ``N`` (the ``-ik/2`` of a flux, say, so that no step has to); ``kept`` is zero for modes
        that are to be dropped.
        """
        tables = {node: phi_functions(linear * (node * dt)) for node in {*self.nodes[1:], 1.0}}

        def total(node: float, weights: Weights) -> Tensor:
            functions = tables[node]
            return sum((functions[k] * w for k, w in weights), torch.zeros_like(linear)) * (dt * kept)

        ends = sorted(tables)
        return {
            "decay": {_key(node): tables[node][0] * kept for node in ends},
            "held": {_key(node): tables[node][1] * (node * dt * kept) for node in ends},
            "inner": [
                [total(node, weights) * factor for _, weights in row]
                for node, row in zip(self.nodes[1:], self.inner, strict=True)
            ],
            "outer": [total(1.0, weights) * factor for weights in self.outer],
        }

    def advance(
        self,
        spectrum: Tensor,
        rate: Callable[[Tensor], Tensor],
        first: Tensor,
        coefficients: Mapping[str, Any],
        force: Tensor | None = None,
    ) -> Tensor:
        """One step.

        Args:
            spectrum: ``u``.
            rate: ``N``, from a spectrum to a spectrum, without the ``factor``.
            first: ``N(u)``, which is often cheaper to have from the grid values of ``u``.
            coefficients: see :meth:`coefficients`, cast to the spectrum's precision.
            force: spectrum of ``f``.
        """
        bases = {}
        for key, decay in coefficients["decay"].items():
            base = spectrum * decay
            bases[key] = base if force is None else torch.addcmul(base, force, coefficients["held"][key])
        rates = [first]
        for node, row, factors in zip(self.nodes[1:], self.inner, coefficients["inner"], strict=True):
            stage = bases[_key(node)]
            for (j, _), weight in zip(row, factors, strict=True):
                stage = torch.addcmul(stage, rates[j], weight)
            rates.append(rate(stage))
        result = bases[_key(1.0)]
        for value, weight in zip(rates, coefficients["outer"], strict=True):
            result = torch.addcmul(result, value, weight)
        return result


def _key(node: float) -> str:
    return f"{node:g}"


def cast(coefficients: Any, dtype: torch.dtype) -> Any:
    """Coefficients as complex numbers of the precision of the real ``dtype``: mixing kinds costs a copy per use."""
    wanted = torch.complex64 if dtype == torch.float32 else torch.complex128
    if isinstance(coefficients, dict):
        return {name: cast(value, dtype) for name, value in coefficients.items()}
    if isinstance(coefficients, list):
        return [cast(value, dtype) for value in coefficients]
    return coefficients.to(wanted)


ETDRK2 = ExponentialScheme(
    "ETDRK2", 2, (0.0, 1.0), (((0, ((1, 1.0),)),),), (((1, 1.0), (2, -1.0)), ((2, 1.0),))
)
"""Two stages: S. M. Cox, P. C. Matthews, J. Comput. Phys. 176 (2002)."""

ETDRK4 = ExponentialScheme(
    "ETDRK4",
    4,
    (0.0, 0.5, 0.5, 1.0),
    (
        ((0, ((1, 0.5),)),),
        ((0, ((1, 0.5), (2, -1.0))), (1, ((2, 1.0),))),
        ((0, ((1, 1.0), (2, -2.0))), (2, ((2, 2.0),))),
    ),
    (
        ((1, 1.0), (2, -3.0), (3, 4.0)),
        ((2, 2.0), (3, -4.0)),
        ((2, 2.0), (3, -4.0)),
        ((2, -1.0), (3, 4.0)),
    ),
)
"""Four stages, smaller errors in stiff problems than Cox and Matthews': S. Krogstad, J. Comput. Phys. 203 (2005)."""
