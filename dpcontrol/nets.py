"""Small networks for controllers and corrections: plain modules, without any training.

All are smooth (SiLU), so that what is trained through a simulator has a gradient everywhere.
"""

from __future__ import annotations

import itertools

from torch import Tensor, nn


class MLP(nn.Module):
    """Fully connected: ``inputs -> width -> ... -> width -> outputs`` with ``depth`` hidden layers.

    Maps ``(..., inputs)`` to ``(..., outputs)``. The last layer starts ``gain`` times as large as torch would have it,
    so that an untrained controller does little.
    """

    def __init__(
        self, inputs: int, outputs: int, *, width: int = 128, depth: int = 2, gain: float = 0.1
    ) -> None:
        super().__init__()
        sizes = [inputs, *[width] * depth]
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(sizes):
            layers += [nn.Linear(before, after), nn.SiLU()]
        last = nn.Linear(sizes[-1], outputs)
        last.weight.data.mul_(gain)
        last.bias.data.zero_()
        self.layers = nn.Sequential(*layers, last)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        result: Tensor = self.layers(x)
        return result
