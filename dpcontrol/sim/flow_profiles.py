"""Figures that people quote of a flow: profiles along lines, values at points."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def line(values: Tensor, places: Tensor, wanted: Sequence[float]) -> Tensor:
    """Values of a row ``(scenarios, n)`` at other places than its own, cubic through the nearest four; fourth order."""
    x = torch.as_tensor(wanted, dtype=places.dtype, device=places.device)
    first = (torch.searchsorted(places, x) - 2).clamp(0, len(places) - 4)
    nodes = places[first[:, None] + torch.arange(4, device=places.device)]
    weights = []
    for k in range(4):
        rest = [j for j in range(4) if j != k]
        weights.append(((x[:, None] - nodes[:, rest]) / (nodes[:, k : k + 1] - nodes[:, rest])).prod(1))
    rows = values[..., first[:, None] + torch.arange(4, device=places.device)]
    return (rows * torch.stack(weights, 1).to(values)).sum(-1)
