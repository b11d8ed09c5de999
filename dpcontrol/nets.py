"""Small networks for controllers and corrections: plain modules, without any training.

All are smooth (SiLU), so that what is trained through a simulator has a gradient everywhere.
"""

from __future__ import annotations

import itertools

import torch
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


class ConvNet(nn.Module):
    """Residual convolutions on a grid: ``(batch, inputs, *grid)`` to ``(batch, outputs, *grid)``, the grid unchanged.

    A convolution to ``width`` channels, then ``depth`` residual blocks of two convolutions each, and a last one that
    looks at single cells and starts ``gain`` times as large as torch would have it. The blocks' dilation doubles from
    1, so that with kernels of five cells a depth of 3 sees 30 cells to each side.

    Args:
        dimensions: of the grid, 1 or 2.
        padding: what lies outside: ``"zeros"``, ``"circular"`` (periodic), ``"replicate"`` or ``"reflect"``.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        dimensions: int = 1,
        width: int = 32,
        depth: int = 3,
        kernel: int = 5,
        padding: str = "zeros",
        gain: float = 0.1,
    ) -> None:
        super().__init__()
        made = nn.Conv1d if dimensions == 1 else nn.Conv2d

        def convolution(before: int, after: int, size: int, dilation: int = 1) -> nn.Module:
            reach = dilation * (size // 2)
            return made(before, after, size, padding=reach, dilation=dilation, padding_mode=padding)

        self.lift = convolution(inputs, width, kernel)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.SiLU(),
                convolution(width, width, kernel, 2**level),
                nn.SiLU(),
                convolution(width, width, kernel, 2**level),
            )
            for level in range(depth)
        )
        self.last = convolution(width, outputs, 1)
        with torch.no_grad():
            for name, value in self.last.named_parameters():
                value.mul_(gain if name == "weight" else 0.0)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        x = self.lift(x)
        for block in self.blocks:
            x = x + block(x)
        found: Tensor = self.last(nn.functional.silu(x))
        return found
