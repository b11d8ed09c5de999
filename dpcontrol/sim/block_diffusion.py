"""The steady diffusion equation with a coefficient that is constant in blocks: finite elements, a direct solve."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dpcontrol.kernels.fronts import Fronts, plan, reference
from dpcontrol.results import UsageError
from dpcontrol.sim.block_solve import BlockSystem
from dpcontrol.sim.function import Steady
from dpcontrol.sim.walls import WalledBox


def block_diffusion(
    blocks: tuple[int, int],
    *,
    cells: int | tuple[int, int] = 4,
    lengths: tuple[float, float] = (1.0, 1.0),
    coefficient: float | Tensor = 1.0,
    source: float | Tensor = 1.0,
) -> Steady:
    r"""Temperature (or pressure, or potential) at rest in a rectangle of blocks of different conductivity.

    .. math:: -\nabla \cdot (a \nabla u) = f, \qquad u = 0 \text{ on the boundary}, \quad a \text{ constant in blocks}

    ===========  ============  =================================================
    symbol       name          unit (SI for heat)
    ===========  ============  =================================================
    ``u``        state         temperature, K
    ``a``        coefficient   conductivity, W/(m K), positive
    ``f``        source        heating, W/m^3
    ===========  ============  =================================================

    **State**: ``(scenarios, nx + 1, ny + 1)``, values at the corners of the ``nx x ny`` cells, the first axis being x;
    those on the boundary are zero. **Parameters**: ``coefficient`` ``(*blocks)`` or a number; ``source`` a number, or
    in blocks or cells that divide each other evenly; each with a leading axis where scenarios differ.

    **Scheme**: bilinear finite elements on equal rectangles, integrals exact; second order in mean square where blocks
    are alike (measured 2.0). Where the coefficient jumps, corners of blocks cost some of it. The equations are solved
    directly: inside of the blocks once and for all, between them by nested dissection, several scenarios abreast; with
    8 x 8 blocks of 4 x 4 cells a solution with its gradient takes some tens of microseconds a scenario, six times less
    than a banded Cholesky factorisation. Derivatives of any order in both parameters are solves with the same factors.
    Scenarios with a coefficient that is not positive are NaN. For more than some ten thousand unknowns take
    :func:`~dpcontrol.sim.steady_diffusion.steady_diffusion`, whose cost grows only with their number.

    **Source**: D. Braess, "Finite Elements" (2007), sections II.5 and II.8 (bilinear elements, direct solution); A.
    George, "Nested dissection of a regular finite element mesh" (1973).

    **Good values**: ``block_diffusion((8, 8), cells=4, source=10.0)``, prior ``{"coefficient": LogNormal(0.0, 1.0)}``.

    Args:
        blocks: number of blocks along x and y.
        cells: of each block, along both axes or for each of them.
        lengths: of the sides.
        coefficient: default of the parameter; a number stands for one in every block.
        source: likewise.

    Raises:
        UsageError: for numbers out of range and parameters of other shapes.
    """
    each = (cells, cells) if isinstance(cells, int) else cells
    for name, pair in (("blocks", blocks), ("cells", each)):
        whole = isinstance(pair, tuple) and all(type(n) is int and n >= 1 for n in pair)
        if not whole or len(pair) != 2:
            raise UsageError(f"{name} are two whole numbers, along x and y, each at least 1; found {pair!r}.")
    if each[0] * blocks[0] < 2 or each[1] * blocks[1] < 2:
        raise UsageError(f"there is no node inside of {blocks} blocks of {each} cells: take more of either.")
    box = WalledBox.of((blocks[0] * each[0], blocks[1] * each[1]), lengths, None)
    block = reference(_stiffness(each, box.spacing), (each[0] + 1, each[1] + 1))
    even = torch.zeros(1, box.cells[0] + 1, box.cells[1] + 1, dtype=torch.float64)
    even[:, 1:-1, 1:-1] = math.prod(box.spacing)
    field = BlockField(BlockSystem(Fronts(plan(blocks, each, block), block)), box, blocks, even.flatten(1))
    given = torch.as_tensor(coefficient, dtype=torch.float64)
    given = given.expand(blocks) if given.ndim == 0 else given
    field.rows(given)
    field.load(torch.as_tensor(source, dtype=torch.float64))
    return Steady(field, {"coefficient": given, "source": source})


@dataclass(frozen=True, eq=False)
class BlockField:
    """The solve behind :func:`block_diffusion`, from a dict of parameters to ``u``.

    ``even`` is the load of the source 1, ``(1, nodes)``.
    """

    system: BlockSystem
    box: WalledBox
    blocks: tuple[int, int]
    even: Tensor

    def __call__(self, parameters: Mapping[str, Tensor]) -> Tensor:
        found = self.system.solve(self.rows(parameters["coefficient"]), self.load(parameters["source"]))
        return found.unflatten(1, tuple(n + 1 for n in self.box.cells))

    def rows(self, coefficient: Tensor) -> Tensor:
        """``(scenarios or 1, blocks)``."""
        if coefficient.ndim == 0:
            coefficient = coefficient.expand(self.blocks)
        if coefficient.ndim not in (2, 3) or tuple(coefficient.shape[-2:]) != self.blocks:
            raise UsageError(
                f"the coefficient is a number or has one value for each of the {self.blocks} blocks, with an axis of "
                f"scenarios in front where they differ; found the shape {tuple(coefficient.shape)}."
            )
        return coefficient.reshape(-1, math.prod(self.blocks))

    def load(self, source: Tensor) -> Tensor:
        """Integrals of the source, constant in cells, times each node's hat, ``(scenarios or 1, nodes)``."""
        if source.ndim == 0:
            return source * self.even.to(source)
        cells = 0.25 * math.prod(self.box.spacing) * self.box.field("source", source)
        pairs = torch.nn.functional.pad(cells, (1, 0)) + torch.nn.functional.pad(cells, (0, 1))
        nodes = torch.nn.functional.pad(pairs, (0, 0, 1, 0)) + torch.nn.functional.pad(pairs, (0, 0, 0, 1))
        return nodes.flatten(1)


def _stiffness(cells: tuple[int, int], spacing: tuple[float, ...]) -> np.ndarray:
    """Integrals of products of gradients of hats on a block of ``cells``, nodes numbered row by row."""
    slopes, masses = [], []
    for n, h in zip(cells, spacing, strict=True):
        slope, mass = np.zeros((n + 1, n + 1)), np.zeros((n + 1, n + 1))
        for i in range(n):
            slope[i : i + 2, i : i + 2] += np.array([[1.0, -1.0], [-1.0, 1.0]]) / h
            mass[i : i + 2, i : i + 2] += np.array([[2.0, 1.0], [1.0, 2.0]]) * h / 6
        slopes.append(slope)
        masses.append(mass)
    return np.kron(slopes[0], masses[1]) + np.kron(masses[0], slopes[1])
