"""From the states of a fine grid to those of a coarser one."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from dpcontrol.results import UsageError
from dpcontrol.sim.grid import Grid
from dpcontrol.tree import Tree


@dataclass(frozen=True)
class Coarsen:
    r"""A state on a grid as a grid of ``factor`` times larger cells would have it, in the same box.

    A velocity is taken from the fine faces that lie on a coarse one, their mean: what flows through a face stays what
    it is, so the divergence of the result is the mean of the divergence in the fine cells, and zero where that is.
    Values at cell centres are the means of ``factor^d`` cells. Called with a dict of such fields,
    ``velocity_x, velocity_y, ...`` on free faces and all others at cell centres, each ``(scenarios, ...)``; or with one
    field at cell centres.

    Args:
        grid: the coarse one.
        factor: fine cells along the side of a coarse one.

    Raises:
        UsageError: for a factor that is no whole number; when called, for fields of another size.
    """

    grid: Grid
    factor: int

    def __post_init__(self) -> None:
        if not isinstance(self.factor, int) or isinstance(self.factor, bool) or self.factor < 1:
            raise UsageError(
                f"the factor between two grids must be a whole number, at least 1; found {self.factor!r}."
            )

    @property
    def fine(self) -> Grid:
        """The fine grid in the same box."""
        return replace(self.grid, cells=tuple(n * self.factor for n in self.grid.cells))

    def __call__(self, state: Tree) -> Tree:
        if isinstance(state, Tensor):
            return self._centres(state)
        faces = {f"velocity_{axis}": index for index, axis in enumerate(self.grid.axes)}
        return {
            name: self._faces(value, faces[name]) if name in faces else self._centres(value)
            for name, value in state.items()
        }

    def _centres(self, field: Tensor) -> Tensor:
        self._require(field, self.fine.cells)
        for axis in range(len(self.grid.cells)):
            field = self._means(field, axis)
        return field

    def _faces(self, field: Tensor, normal: int) -> Tensor:
        self._require(field, self.fine.faces(normal))
        first, behind = self.grid.free(normal)
        begin = self.fine.free(normal)[0]
        dim = field.ndim - len(self.grid.cells) + normal
        length = (behind - 1 - first) * self.factor + 1
        kept = field.narrow(dim, first * self.factor - begin, length)
        field = kept[(slice(None),) * dim + (slice(None, None, self.factor),)]
        for axis in range(len(self.grid.cells)):
            if axis != normal:
                field = self._means(field, axis)
        return field

    def _means(self, field: Tensor, axis: int) -> Tensor:
        dim = field.ndim - len(self.grid.cells) + axis
        return field.unflatten(dim, (self.grid.cells[axis], self.factor)).mean(dim + 1)

    def _require(self, field: Tensor, shape: tuple[int, ...]) -> None:
        if tuple(field.shape[field.ndim - len(shape) :]) != shape:
            raise UsageError(
                f"a field of the fine grid has the shape (scenarios, {', '.join(map(str, shape))}); found "
                f"{tuple(field.shape)}."
            )
