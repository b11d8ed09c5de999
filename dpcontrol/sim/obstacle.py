r"""Bodies in a flow: their surfaces as points, where the fluid must move with the body.

The constraint and its forces are separable: the kernel that carries values between points and grid is a product of one
row for each axis, and so is its divergence in the eigenvectors of the pressure's Laplacian. The forces
that hold the fluid at all points *and* keep its divergence zero are then one small dense solve, whose matrix is
made once for a body at rest, and one pressure solve, the same that the flow needs anyway.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dpcontrol.linalg import Poisson
from dpcontrol.results import UsageError
from dpcontrol.sim.base import Value
from dpcontrol.sim.grid import Grid

# Half of the mean distance between two numbers that are drawn from the kernel, in cells; see :func:`surface`.
RETRACTION = 239 / 840
SPACING = 1.2  # of the points on a surface, in cells
AT_A_TIME = 2**22  # numbers in a block of the matrix while it is made


@dataclass(frozen=True)
class Disc:
    """A round body (in two dimensions).

    Args:
        centre: ``(x, y)``.
        radius: of it.
        rotation: its rate, anticlockwise, in radians over time.
        velocity: of its centre; a body whose velocity is not zero, or sought as a control, must say ``moves=True``.
        moves: its centre is part of the state, and changes.

    Raises:
        UsageError: for a radius that is not positive, or a velocity of a body that does not move.
    """

    centre: tuple[Value, Value]
    radius: Value
    rotation: Value = 0.0
    velocity: tuple[float, float] = (0.0, 0.0)
    moves: bool = False

    def __post_init__(self) -> None:
        if not float(torch.as_tensor(self.radius).detach().min()) > 0:
            raise UsageError(f"the radius of a disc must be positive; found {self.radius!r}.")
        if any(self.velocity) and not self.moves:
            raise UsageError(f"a disc with velocity={self.velocity!r} needs moves=True.")

    def points(self, grid: Grid) -> int:
        """How many points stand for its surface."""
        around = 2 * math.pi * float(torch.as_tensor(self.radius).detach().max())
        return max(8, round(around / (SPACING * max(grid.spacing))))


def surface(radius: Tensor, points: int, grid: Grid) -> tuple[Tensor, Tensor]:
    r"""The points that stand for a disc's surface, ``(batch, points)`` for each axis, relative to its centre.

    A force that is spread over the width of the kernel holds the fluid on average over that width. Where the fluid on
    one side of a wall is sheared and on the other moves with the body, the wall that the outer fluid sees stands half
    of the mean distance between two draws from the kernel further out than the points: by so much they are moved
    inwards, which makes the method second order. (W. P. Breugem, J. Comput. Phys. 231 (2012) 4469 found the same
    number, 0.3 cells, by experiment.)
    """
    angle = torch.arange(points, dtype=radius.dtype, device=radius.device) * (2 * math.pi / points)
    cosine, sine = angle.cos(), angle.sin()
    width = torch.hypot(cosine * grid.spacing[0], sine * grid.spacing[1])
    distance = radius[..., None] - RETRACTION * width
    return distance * cosine, distance * sine


def kernel(distance: Tensor) -> Tensor:
    """The quadratic B-spline, three cells wide: sums and first moments over a grid are exact; once differentiable."""
    away = distance.abs()
    return 0.5 * (1.5 - away).clamp(min=0).square() - 1.5 * (0.5 - away).clamp(min=0).square()


@dataclass(frozen=True)
class Surface:
    """Points in the fluid, ready to hold it: rows of kernels, plain and in the pressure's eigenvectors."""

    rows: tuple[tuple[Tensor, ...], ...]  # [component][axis], (batch, points, n)
    spectra: tuple[Tensor, Tensor]  # [axis], (batch, axes * points, n)
    inverse: Tensor  # (batch, axes * points, axes * points)

    def to(self, dtype: torch.dtype) -> Surface:
        """In another dtype."""
        rows = tuple(tuple(row.to(dtype) for row in part) for part in self.rows)
        across, along = self.spectra
        return Surface(rows, (across.to(dtype), along.to(dtype)), self.inverse.to(dtype))

    def at_points(self, velocity: Sequence[Tensor]) -> Tensor:
        """The velocity at the points, ``(scenarios, axes * points)``, x components first."""
        return torch.cat([_taken(part, *rows) for part, rows in zip(velocity, self.rows, strict=True)], 1)

    def pressed(self, spectrum: Tensor) -> Tensor:
        """What the gradient of a pressure, in eigenvectors, takes from the velocity at the points."""
        return _taken(spectrum, *self.spectra)

    def forces(self, missing: Tensor) -> Tensor:
        """The forces that, after projection, change the velocity at the points by ``missing``."""
        return (self.inverse @ missing[..., None])[..., 0]

    def spread(self, forces: Tensor) -> tuple[Tensor, ...]:
        """Forces of the points on the faces."""
        return tuple(
            _given(part, *rows) for part, rows in zip(forces.chunk(len(self.rows), 1), self.rows, strict=True)
        )

    def spread_divergence(self, forces: Tensor) -> Tensor:
        """The divergence of :meth:`spread`, in eigenvectors."""
        return _given(forces, *self.spectra)


def immersed(places: Sequence[Tensor], grid: Grid, solver: Poisson, fits: Tensor) -> Surface:
    r"""Make the matrix of :class:`Surface` for points at ``places``, ``(batch, points)`` for each axis.

    With ``H`` the kernel (forces to faces), ``H^T`` its interpolation, ``D`` the divergence and ``L`` the Laplacian,

    .. math:: S = H^T (1 + D^T L^{-1} D) H,

    symmetric and positive definite but for rounding: the smallest eigenvalues belong to forces that push
    inwards everywhere alike. ``1e-9`` of the mean of its diagonal is added, so that forces remain finite; the slip that
    this leaves is as small. Made in float64. Where ``fits``, ``(batch,)``, is false, or rounding makes the matrix
    indefinite, its inverse is NaN: a bad candidate has a bad loss, and its neighbours in the batch do not notice.

    **Source**: K. Taira, T. Colonius, J. Comput. Phys. 225 (2007) 2118 (forces as multipliers of a projection).
    """
    rows: list[tuple[Tensor, ...]] = []
    spectra: list[list[Tensor]] = []
    for component in range(len(grid.cells)):
        plain = tuple(_row(place, component, axis, grid) for axis, place in enumerate(places))
        rows.append(plain)
        slopes = (
            _differences(row, axis, grid) if axis == component else row for axis, row in enumerate(plain)
        )
        spectra.append(
            [transform.forward(row, -1) for row, transform in zip(slopes, solver.transforms, strict=True)]
        )
    across, along = (torch.cat([part[axis] for part in spectra], -2) for axis in range(2))
    matrix = _held(rows) - _pressed(across, along, solver)
    return Surface(tuple(rows), (across, along), _inverse(matrix, fits))


def _inverse(matrix: Tensor, fits: Tensor) -> Tensor:
    """The inverse of symmetric matrices ``(batch, n, n)``, NaN where not ``fits``; nothing is read by the host."""
    identity = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    size = matrix.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
    fits = fits[:, None, None]
    # the bad ones are replaced before they are factored, so that no NaN gets into derivatives of the others
    factor, info = torch.linalg.cholesky_ex(torch.where(fits, matrix + 1e-9 * size * identity, identity))
    good = fits & (info == 0)[:, None, None]
    inverse = torch.cholesky_inverse(torch.where(good, factor, identity))
    return torch.where(good, inverse, torch.full_like(inverse, torch.nan))


def _row(place: Tensor, component: int, axis: int, grid: Grid) -> Tensor:
    h, length = grid.spacing[axis], grid.extent[axis]
    away = grid.places(component, axis).to(place) - place[..., None]
    if grid.periodic(axis):
        away = torch.remainder(away + 0.5 * length, length) - 0.5 * length
    return kernel(away / h)


def _differences(row: Tensor, axis: int, grid: Grid) -> Tensor:
    """The divergence of a row on the free faces of its axis, in the cells."""
    if grid.periodic(axis):
        full = torch.cat((row, row[..., :1]), -1)
    else:
        first, behind = grid.free(axis)
        full = torch.constant_pad_nd(row, (first, grid.cells[axis] + 1 - behind))
    return full.diff(dim=-1) / grid.spacing[axis]


def _held(rows: Sequence[tuple[Tensor, ...]]) -> Tensor:
    """``H^T H``: the blocks of different components are zero."""
    blocks = []
    for component, plain in enumerate(rows):
        gram = torch.stack([row @ row.mT for row in plain]).prod(0)
        before, behind = component * gram.shape[-1], (len(rows) - 1 - component) * gram.shape[-1]
        blocks.append(torch.constant_pad_nd(gram, (before, behind)))
    return torch.cat(blocks, -2)


def _pressed(across: Tensor, along: Tensor, solver: Poisson) -> Tensor:
    """``-H^T D^T L^{-1} D H``, summed over blocks of eigenvectors."""
    weights = -solver.reciprocals
    count = across.shape[-2]
    block = max(1, AT_A_TIME // (count * weights.shape[1] * max(1, across[..., 0, 0].numel())))
    total: Tensor | None = None
    for start in range(0, len(weights), block):
        weight = weights[start : start + block]
        part = across[..., start : start + block, None] * along[..., None, :]
        flat = part.flatten(-2)
        product = (flat * weight.flatten()) @ flat.mT
        total = product if total is None else total + product
    assert total is not None
    return total


def _taken(field: Tensor, across: Tensor, along: Tensor) -> Tensor:
    """``sum_ij across_ki field_ij along_kj``, ``(scenarios, points)``."""
    return ((across @ field) * along).sum(-1)


def _given(values: Tensor, across: Tensor, along: Tensor) -> Tensor:
    """The adjoint of :func:`_taken` in its field, ``(scenarios, nx, ny)``."""
    return across.mT @ (values[..., None] * along)


__all__ = ["Disc", "Surface", "immersed", "kernel", "surface"]
