"""Small networks for controllers and corrections: plain modules, without any training.

All are smooth (SiLU), so that what is trained through a simulator has a gradient everywhere.
"""

from __future__ import annotations

import itertools
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

Padding = Literal["zeros", "circular", "replicate", "reflect"]


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
        dimensions: of the grid, 1 to 3.
        padding: what lies outside: ``"zeros"``, ``"circular"`` (periodic), ``"replicate"`` or ``"reflect"``; or one of
            these for each axis of the grid.
        growth: factor between the dilations of two blocks; 1 for plain residual blocks.
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
        padding: Padding | tuple[Padding, ...] = "zeros",
        gain: float = 0.1,
        growth: int = 2,
    ) -> None:
        super().__init__()
        convolution = partial(_convolution, dimensions, padding)
        self.lift = convolution(inputs, width, kernel)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.SiLU(),
                convolution(width, width, kernel, growth**level),
                nn.SiLU(),
                convolution(width, width, kernel, growth**level),
            )
            for level in range(depth)
        )
        self.last = convolution(width, outputs, 1)
        _quieten(self.last, gain)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        x = self.lift(x)
        for block in self.blocks:
            x = x + block(x)
        found: Tensor = self.last(nn.functional.silu(x))
        return found


class FluxNet(nn.Module):
    r"""A correction in conservation form on a periodic grid: the difference of learned fluxes through the faces.

    .. math:: y_i = f_{i+1/2} - f_{i-1/2}, \quad
        f_{i+1/2} = \sum_{k=-r}^{r} g_{i,k} (x_{i+k+1} - x_{i+k})

    along each axis, with weights ``g`` from a :class:`ConvNet` that sees all channels: a stencil that is learned. So
    the sum over the grid is zero for whatever weights, and a constant state is left alone: what a flow that decays, or
    is carried for hundreds of steps, does not forgive. ``(batch, inputs, *grid)`` to ``(batch, outputs, *grid)``; the
    first ``outputs`` channels are the state ``x`` that the differences are taken of.

    Args:
        dimensions: of the grid, 1 to 3.
        reach: ``r``.
        carried: the last channels, as many as the grid has axes, are the speeds ``c`` through the upper faces of the
            cells; weights are then ``g + c h`` with a second set ``h`` from the same network, since what a scheme does
            wrong in carrying something along goes with the speed.
        width, depth, kernel, gain, growth: see :class:`ConvNet`.

    Source: Y. Bar-Sinai, S. Hoyer, J. Hickey, M. Brenner, "Learning data-driven discretizations for partial
    differential equations", PNAS 116 (2019) (learned weights of a stencil, in conservation form).
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        dimensions: int = 1,
        reach: int = 1,
        carried: bool = False,
        width: int = 16,
        depth: int = 2,
        kernel: int = 5,
        gain: float = 0.1,
        growth: int = 1,
    ) -> None:
        super().__init__()
        self.outputs, self.dimensions, self.reach, self.carried = outputs, dimensions, reach, carried
        self.weights = ConvNet(
            inputs,
            outputs * dimensions * (2 * reach + 1) * (2 if carried else 1),
            dimensions=dimensions,
            width=width,
            depth=depth,
            kernel=kernel,
            padding="circular",
            gain=gain,
            growth=growth,
        )

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        weights = self.weights(x).unflatten(1, (-1, self.outputs, self.dimensions, 2 * self.reach + 1))
        if self.carried:
            speeds = x[:, None, x.shape[1] - self.dimensions :, None]
            weights = weights[:, 0] + weights[:, 1] * speeds
        else:
            weights = weights[:, 0]
        state = x[:, : self.outputs]
        found = torch.zeros_like(state)
        for axis in range(self.dimensions):
            along = 2 + axis
            jump = state.roll(-1, along) - state
            flux = torch.zeros_like(state)
            for place in range(2 * self.reach + 1):
                flux = flux + weights[:, :, axis, place] * jump.roll(self.reach - place, along)
            found = found + (flux - flux.roll(1, along))
        return found


class UNet(nn.Module):
    """A U-Net on a grid: ``(batch, inputs, *grid)`` to ``(batch, outputs, *grid)``, the grid unchanged.

    ``levels`` times the grid is halved (means of two cells along each axis), with twice the channels on each coarser
    one; on the way back the finer grid's channels are put beside the coarse values, which are repeated. Each level has
    two convolutions on either way. It sees far at little cost, and commutes with shifts of ``2**levels`` cells only. A
    grid with odd numbers of cells loses its last cells on the coarser levels and has them again behind.

    Args:
        dimensions: of the grid, 1 to 3.
        width: channels on the finest grid.
        levels: how often the grid is halved.
        padding: as for :class:`ConvNet`.
        gain: the last layer starts so many times as large as torch would have it.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        dimensions: int = 1,
        width: int = 16,
        levels: int = 2,
        kernel: int = 3,
        padding: Padding | tuple[Padding, ...] = "zeros",
        gain: float = 0.1,
    ) -> None:
        super().__init__()
        convolution = partial(_convolution, dimensions, padding)

        def pair(before: int, after: int) -> nn.Module:
            return nn.Sequential(
                convolution(before, after, kernel), nn.SiLU(), convolution(after, after, kernel), nn.SiLU()
            )

        widths = [width * 2**level for level in range(levels + 1)]
        self.down = nn.ModuleList(
            pair(before, after) for before, after in itertools.pairwise([inputs, *widths])
        )
        self.up = nn.ModuleList(
            pair(coarse + fine, fine) for fine, coarse in reversed(list(itertools.pairwise(widths)))
        )
        self.halve = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)[dimensions - 1](2)
        self.last = convolution(width, outputs, 1)
        _quieten(self.last, gain)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        kept = []
        for index, block in enumerate(self.down):
            x = block(self.halve(x) if index else x)
            kept.append(x)
        kept.pop()
        for block in self.up:
            fine = kept.pop()
            x = block(torch.cat([fine, nn.functional.interpolate(x, size=fine.shape[2:])], 1))
        found: Tensor = self.last(x)
        return found


def parameter_count(network: nn.Module) -> int:
    """How many numbers are trained."""
    return sum(value.numel() for value in network.parameters())


class Pad(nn.Module):
    """Cells around a grid, for each axis as many and of the kind that it asks for.

    Args:
        padding: for each axis ``"zeros"``, ``"circular"``, ``"replicate"`` or ``"reflect"``.
        reach: cells on either side.
    """

    def __init__(self, padding: tuple[Padding, ...], reach: int) -> None:
        super().__init__()
        self.padding, self.reach = padding, reach

    def forward(self, x: Tensor) -> Tensor:
        """From ``(batch, channels, *grid)`` to a larger grid."""
        axes = len(self.padding)
        for axis, kind in enumerate(self.padding):
            around = [0] * (2 * axes)
            # torch counts axes from the last one
            around[2 * (axes - 1 - axis) : 2 * (axes - axis)] = [self.reach, self.reach]
            x = nn.functional.pad(x, around, "constant" if kind == "zeros" else kind)
        return x


def _convolution(
    dimensions: int,
    padding: Padding | tuple[Padding, ...] | tuple[Padding, ...],
    before: int,
    after: int,
    size: int,
    dilation: int = 1,
) -> nn.Module:
    """A convolution that keeps the grid."""
    made = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dimensions - 1]
    reach = dilation * (size // 2)
    if isinstance(padding, str):
        return made(before, after, size, padding=reach, dilation=dilation, padding_mode=padding)
    if len(padding) != dimensions:
        raise ValueError(f"padding has one entry for each of the {dimensions} axes; found {padding!r}")
    return nn.Sequential(Pad(tuple(padding), reach), made(before, after, size, dilation=dilation))


def _quieten(last: nn.Module, gain: float) -> None:
    """Let an untrained network say little."""
    with torch.no_grad():
        for name, value in last.named_parameters():
            value.mul_(gain if name.endswith("weight") else 0.0)
