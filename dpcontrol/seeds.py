"""Seeds for streams of random numbers that must not meet."""

from __future__ import annotations

import numpy as np


def mixed(*numbers: int) -> int:
    """A seed below ``2**63`` of some whole numbers: far from them, and from those of other numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)
