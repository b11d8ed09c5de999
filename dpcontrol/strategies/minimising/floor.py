"""Whether a search that finds no lower loss has reached what the rounding of the loss allows."""

from __future__ import annotations

import numpy as np

REACHED = "the loss is as low as its rounding allows"


class Floor:
    """Follows the trials of one search. At the floor, either of two holds.

    The step that was tried first from the lowest point promised, to first order, less than ``100 eps |loss|``; or the
    projected gradient at the lowest point is below ``1000 eps`` of what it was at the start (norms of its feasible
    part; for losses that go to zero, whose own rounding is not seen in their value).

    Args:
        eps: the relative precision of the loss.
        low, high: bounds of the unknown in the units of the trials.
    """

    def __init__(
        self, eps: float, low: np.ndarray | float = -np.inf, high: np.ndarray | float = np.inf
    ) -> None:
        self._eps, self._low, self._high = eps, low, high
        self._lowest = np.inf
        self._where: np.ndarray | None = None
        self._gradient: np.ndarray | None = None
        self._first: float | None = None
        self._promise = np.inf

    def note(self, y: np.ndarray, loss: float, gradient: np.ndarray) -> None:
        """Take note of a trial, finite or not."""
        if np.isfinite(loss) and loss < self._lowest:
            self._lowest, self._where, self._gradient, self._promise = loss, y.copy(), gradient.copy(), np.inf
            if self._first is None:
                self._first = self._size()
        elif self._where is not None and self._gradient is not None and not np.isfinite(self._promise):
            # later trials are shorter and promise less, at a kink too
            self._promise = abs(float(self._gradient @ (y - self._where)))

    def reached(self) -> bool:
        """Whether the lowest point is as good as rounding allows."""
        if self._first is None:
            return False
        small = self._size() <= 1000 * self._eps * self._first
        return small or self._promise <= 100 * self._eps * abs(self._lowest)

    def _size(self) -> float:
        assert self._where is not None and self._gradient is not None
        inside = np.clip(self._where - self._gradient, self._low, self._high)
        return float(np.linalg.norm(self._where - inside))
