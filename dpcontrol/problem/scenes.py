"""What the face of a problem file shares: ``problem(*, size="full", seed=0)``."""

from __future__ import annotations

from typing import Any

import torch

from dpcontrol.results import UsageError


def scene_generator(
    name: str, size: Any, seed: Any, *, sizes: tuple[str, ...] = ("full", "small")
) -> torch.Generator:
    """The generator that draws the scenes of a problem file, after a look at its arguments.

    Args:
        name: of the problem file, for the sentence.
        size: one of ``sizes``.
        seed: a whole number, 0 or more.

    Raises:
        UsageError: if size or seed is anything else.
    """
    if size not in sizes:
        raise UsageError(
            f"{name} comes in the sizes {', '.join(map(repr, sizes))}; found size={size!r}: take one of them."
        )
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**63:
        raise UsageError(f"the seed of {name} must be a whole number, 0 or more; found seed={seed!r}.")
    return torch.Generator().manual_seed(seed)
