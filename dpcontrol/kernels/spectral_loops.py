"""What compiled loops in Fourier space are handed: plans of their transforms, schemes, tables; and gradients back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dpcontrol.kernels.spectral_exponential import Stages, Tables

RADICES = (4, 2, 3, 5)
TABLES = ("decay", "held", "inner", "outer")


class Kept:
    """What was made of the last coefficients, by their identity: on the way back they are those of the way there."""

    def __init__(self) -> None:
        self._last: tuple[Any, Any] | None = None

    def of(self, coefficients: Tables, make: Callable[[Tables], Any]) -> Any:
        """``make(coefficients)``, or what it gave for this very object the last time."""
        last = self._last  # looked at once: another thread may put its own there meanwhile
        if last is None or last[0] is not coefficients:
            last = self._last = coefficients, make(coefficients)
        return last[1]


def factors(size: int) -> list[int]:
    """The radices of the passes of a transform; none if there is another prime factor, or nothing to transform."""
    found = []
    for r in RADICES:
        while size % r == 0:
            found.append(r)
            size //= r
    return found if size == 1 else []


def suits(points: int) -> bool:
    """Whether real transforms of so many points are among those of the loops."""
    return points % 2 == 0 and bool(factors(points // 2))


def plan(points: int, columns: int, dtype: Any) -> tuple[Any, ...]:
    """Sizes, radices, and roots of unity: of each pass, and of the step from half to full length."""
    radices, turn = factors(points // 2), np.exp(-2j * np.pi / points * np.arange(points))
    passes, left = [], points // 2
    for r in radices:
        passes.append(np.outer(np.arange(1, r), np.arange(left // r) * (points // left)).ravel())
        left //= r
    inside, halves = turn[np.concatenate(passes)], turn[: points // 2 + 1]
    tables = (inside.real, inside.imag, halves.real, halves.imag)
    return (points, columns), np.array(radices), tuple(table.astype(dtype) for table in tables)


def structure(stages: Stages, coefficients: Tables) -> tuple[Any, ...]:
    """For each stage but the first its node, where its sources begin, and all sources in a row."""
    keys = list(coefficients["scheme"]["decay"])
    starts = np.cumsum([0, *(len(row) for row in stages.sources)])
    sources = [j for row in stages.sources for j in row]
    return np.array([keys.index(key) for key in stages.keys]), starts, np.array(sources)


def listed(coefficients: Tables, name: str) -> list[Tensor]:
    """The tables of one name in a row; those of nodes end with the end of the step."""
    tables = coefficients["scheme"][name]
    if isinstance(tables, dict):
        return list(tables.values())
    return [table for row in tables for table in row] if name == "inner" else list(tables)


def shared(gradients: Tensor, name: str, coefficients: Tables) -> Any:
    """Gradients ``(rows, scenarios, ...)`` in the layout of the tables, summed over scenarios that share one."""
    of_name = coefficients["scheme"][name]
    flat = [
        part.sum_to_size(table.shape)
        for part, table in zip(gradients, listed(coefficients, name), strict=True)
    ]
    if isinstance(of_name, dict):
        return dict(zip(of_name, flat, strict=True))
    queue = iter(flat)
    return [[next(queue) for _ in row] for row in of_name] if name == "inner" else flat


def real(table: Tensor) -> Tensor:
    """The real part as memory of its own."""
    return torch.view_as_real(table.resolve_conj())[..., 0]


def imaginary(table: Tensor) -> Tensor:
    """The imaginary part."""
    return torch.view_as_real(table.resolve_conj())[..., 1]
