"""A function of one candidate, asked of several: as one batch where its steps allow that, else one after another."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dpcontrol.results import SimulationFailed

Candidate = Callable[[Tensor], Tensor]
# what a simulator may raise for numbers that it cannot work with; not what a mistake in its code raises
CRASHES = (SimulationFailed, ArithmeticError, ValueError, RuntimeError, AssertionError)
TOGETHER = 64  # candidates of one batch: more are hardly faster, and take memory


def vectorises(function: Candidate, pair: Tensor) -> bool:
    """Whether a function of one row gives the same for two rows ``(2, ...)`` under ``torch.func.vmap``.

    A step that looks at its numbers (``.item()``, ``if x > 0``), or that is a black box, does not.
    """
    with torch.no_grad():
        try:
            expected = torch.stack([function(row) for row in pair])
            found = torch.func.vmap(function)(pair)
        except (RuntimeError, TypeError, NotImplementedError, ValueError, AssertionError):
            return False
    return torch.allclose(found, expected, rtol=1e-4, atol=1e-8, equal_nan=True)


def each(
    function: Candidate,
    rows: Tensor,
    *,
    batched: bool,
    failed: Callable[[Tensor, Exception], Tensor] | None = None,
) -> Tensor:
    """The function of every row.

    Args:
        function: of one row.
        rows: ``(count, ...)``.
        batched: whether it vectorises.
        failed: ``(row, error) -> answer`` where the simulator raised something; without it that is raised.
    """
    if batched and len(rows) > 1:
        return torch.func.vmap(function, chunk_size=TOGETHER)(rows)
    return torch.stack([_tried(function, row, failed) for row in rows])


def _tried(function: Candidate, row: Tensor, failed: Callable[[Tensor, Exception], Tensor] | None) -> Tensor:
    if failed is None:
        return function(row)
    try:
        return function(row)
    except CRASHES as error:
        return failed(row, error)
