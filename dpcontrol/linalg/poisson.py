"""Direct Poisson solves in boxes: cosine, sine and Hartley transforms of a batch of fields on cell centres."""

from __future__ import annotations

import cmath
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Sides = str | tuple[str, str]

KINDS = ("neumann", "dirichlet")
DENSE_UP_TO = 128  # cells along an axis; beyond it the fast transform wins (one thread, batch 8, both dtypes)


@dataclass(frozen=True)
class Transform:
    r"""The orthogonal matrix ``Q`` whose rows are the eigenvectors of the second difference along one axis.

    ======================  =========================================  =============================
    sides (left, right)     eigenvector ``k``, entry ``j``             eigenvalue times ``h^2``
    ======================  =========================================  =============================
    periodic                ``cos a + sin a``, ``a = 2 pi k j / n``    ``-4 sin^2(pi k / n)``
    neumann, neumann        ``cos(pi k (j + 1/2) / n)``                ``-4 sin^2(pi k / 2n)``
    dirichlet, dirichlet    the same, ``k -> n - k``, up to signs      ``-4 cos^2(pi k / 2n)``
    neumann, dirichlet      ``cos(pi (k + 1/2) (j + 1/2) / n)``        ``-4 sin^2(pi (k + 1/2) / 2n)``
    dirichlet, neumann      the same, ``k -> n - 1 - k``, up to signs  ``-4 cos^2(pi (k + 1/2) / 2n)``
    ======================  =========================================  =============================

    The boundary is half a cell from the outermost centres. The sine vectors of a Dirichlet left side are, in reversed
    order, the cosine vectors with alternating signs: ``sin(pi (n - k) (j + 1/2) / n) = (-1)^j cos(pi k (j + 1/2)
    / n)``.

    Short axes keep ``matrix`` and multiply by it; long ones keep ``twiddle`` and use an FFT.
    """

    family: str  # "hartley", "cosine" (DCT-II) or "staggered" (DCT-IV)
    cells: int
    eigenvalues: Tensor
    matrix: Tensor | None
    twiddle: Tensor | None
    signs: Tensor | None

    def forward(self, field: Tensor, axis: int) -> Tensor:
        """``Q`` along an axis of ``field``."""
        if self.matrix is not None:
            return _multiplied(self.matrix, field, axis)
        row = field.movedim(axis, -1)
        row = row if self.signs is None else row * self.signs
        return self._fast(row).movedim(-1, axis)

    def inverse(self, field: Tensor, axis: int) -> Tensor:
        """``Q^T`` along an axis of ``field``."""
        if self.matrix is not None:
            return _multiplied(self.matrix.T, field, axis)
        row = field.movedim(axis, -1)
        row = (
            self._fast_inverse(row) if self.family == "cosine" else self._fast(row)
        )  # the others are symmetric
        row = row if self.signs is None else row * self.signs
        return row.movedim(-1, axis)

    def _fast(self, row: Tensor) -> Tensor:
        assert self.twiddle is not None
        if self.family == "hartley":
            spectrum = torch.fft.fft(row)
            return (spectrum.real - spectrum.imag) / math.sqrt(self.cells)
        if self.family == "staggered":
            spectrum = torch.fft.fft(row * self.twiddle, n=2 * self.cells)[..., : self.cells]
            return (spectrum * (self.twiddle * _quarter(self.cells))).real
        folded = torch.cat((row[..., ::2], row[..., 1::2].flip(-1)), -1)
        return (torch.fft.fft(folded) * self.twiddle).real

    def _fast_inverse(self, row: Tensor) -> Tensor:
        assert self.twiddle is not None
        # the adjoint of the orthogonal map above, kernel by kernel, is its inverse
        folded = torch.fft.fft(row * self.twiddle).real
        half = (self.cells + 1) // 2
        even, odd = folded[..., :half], folded[..., half:].flip(-1)
        short = half - odd.shape[-1]
        odd = torch.constant_pad_nd(odd, (0, short)) if short else odd
        return torch.stack((even, odd), -1).reshape(*row.shape[:-1], 2 * half)[..., : self.cells]


@dataclass(frozen=True)
class Poisson:
    r"""A direct solver of ``div grad u = f`` in a box, for any mix of sides.

    .. math:: \sum_a \frac{u_{i+e_a} - 2 u_i + u_{i-e_a}}{h_a^2} = f_i

    in cells, with the ghost beyond a side equal to ``u_i`` (``"neumann"``: no flux through the side), to ``-u_i``
    (``"dirichlet"``: zero on the side), or the cell at the other end (``"periodic"``). Second order in ``h``. It is the
    divergence of the gradient on a staggered grid, so that it projects velocities exactly: ``"neumann"`` where the
    normal velocity is given (walls), ``"dirichlet"`` where the pressure is (open sides).

    The solve is ``u = Q^T diag(1 / lambda) Q f``, symmetric, so that its derivative is the same solve again: gradients
    of any order, forward mode and ``vmap`` work. Where no side is ``"dirichlet"`` a constant is
    undetermined: the mean of ``f`` is ignored and the mean of ``u`` is zero (the pseudo-inverse, symmetric as well).

    Made by :func:`poisson`. **Source**: G. Strang, "The discrete cosine transform", SIAM Review 41 (1999) 135; FFTs of
    half-sample cosines: J. Makhoul, IEEE Trans. Acoust. Speech Signal Process. 28 (1980) 27.
    """

    transforms: tuple[Transform, ...]
    reciprocals: Tensor  # 1 / lambda, zero where lambda is

    def solve(self, right_hand_side: Tensor) -> Tensor:
        """``u``, shape ``(..., *cells)``, for ``f`` of the same shape, dtype and device.

        Raises:
            ValueError: for fields of another shape or dtype.
        """
        shape, dtype = tuple(self.reciprocals.shape), self.reciprocals.dtype
        if tuple(right_hand_side.shape[-len(shape) :]) != shape or right_hand_side.dtype != dtype:
            raise ValueError(
                f"this Poisson solver was made for fields (..., {', '.join(map(str, shape))}) of {dtype}; found "
                f"{tuple(right_hand_side.shape)} of {right_hand_side.dtype}: make one with poisson(...)."
            )
        if all(transform.matrix is not None for transform in self.transforms):
            return self._solved(
                right_hand_side
            )  # as fast by plain autograd, which needs no Function around it
        return _SelfAdjoint.apply(right_hand_side, self)

    def _solved(self, field: Tensor) -> Tensor:
        axes = range(-len(self.transforms), 0)
        for axis, transform in zip(axes, self.transforms, strict=True):
            field = transform.forward(field, axis)
        field = field * self.reciprocals
        for axis, transform in zip(axes, self.transforms, strict=True):
            field = transform.inverse(field, axis)
        return field


class _SelfAdjoint(torch.autograd.Function):
    """A symmetric solve: the derivative in both directions is the solve."""

    generate_vmap_rule = True

    @staticmethod
    def forward(field: Tensor, solver: Poisson) -> Tensor:
        return solver._solved(field)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Poisson], output: Tensor) -> None:
        ctx.solver = inputs[1]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _SelfAdjoint.apply(gradients[0], ctx.solver), None

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        return _SelfAdjoint.apply(tangents[0], ctx.solver)


def poisson(
    cells: Sequence[int],
    spacing: Sequence[float],
    sides: Sequence[Sides],
    *,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str | None = None,
    dense_up_to: int = DENSE_UP_TO,
) -> Poisson:
    """Tables for direct solves; make them once (in a simulator's ``prepare``) and use them in every step.

    Args:
        cells: number of cells along each axis.
        spacing: size of a cell along each axis.
        sides: for each axis ``"periodic"``, or a pair of ``"neumann"`` and ``"dirichlet"``: left and right side.
        dtype, device: of the fields.
        dense_up_to: axes up to so many cells multiply by a matrix, longer ones use an FFT.

    Raises:
        ValueError: for another number of sides or spacings than axes, an unknown side, a size that is not positive.
    """
    if not len(cells) == len(spacing) == len(sides) or not cells:
        raise ValueError(
            f"cells, spacing and sides need one entry for each axis; found {len(cells)}, {len(spacing)}, {len(sides)}."
        )
    if min(cells) < 1 or min(spacing) <= 0:
        raise ValueError(f"cells and spacing must be positive; found {tuple(cells)} and {tuple(spacing)}.")
    transforms = tuple(
        _transform(n, pair, n <= dense_up_to, dtype, device) for n, pair in zip(cells, sides, strict=True)
    )
    total = torch.zeros((), dtype=torch.float64)
    for transform, h in zip(transforms, spacing, strict=True):
        total = total[..., None] + transform.eigenvalues / h**2
    # only the constant has no eigenvalue of its own; it is exactly zero then, as every axis has sin(0) = 0
    reciprocals = torch.where(total == 0, 0.0, 1 / torch.where(total == 0, 1.0, total))
    return Poisson(transforms, reciprocals.to(dtype=dtype, device=device))


def _transform(
    n: int, sides: Sides, dense: bool, dtype: torch.dtype, device: torch.device | str | None
) -> Transform:
    fine = sides == "periodic" or (isinstance(sides, tuple) and len(sides) == 2 and set(sides) <= set(KINDS))
    if not fine:
        raise ValueError(
            f'the sides of an axis are "periodic" or a pair of "neumann" and "dirichlet"; found {sides!r}.'
        )
    k = torch.arange(n, dtype=torch.float64)
    j, rows, signs, twiddle = k + 0.5, None, None, k + 0j  # rows, n^2 entries, are for short axes only
    if isinstance(sides, str):
        family = "hartley"
        rows = _hartley(k, n) if dense else None
        eigenvalues = -4 * torch.sin(math.pi * k / n) ** 2
    else:
        left, right = sides
        family = "cosine" if left == right else "staggered"
        order = k if left == right else k + 0.5
        size = torch.full((n,), math.sqrt(2 / n), dtype=torch.float64)
        if left == right:
            size[0] *= math.sqrt(0.5)
            twiddle = torch.polar(size, -math.pi * k / (2 * n))
        else:
            twiddle = torch.polar(size.sqrt(), -math.pi * k / (2 * n))
        wave = torch.sin if left == "neumann" else torch.cos
        eigenvalues = -4 * wave(math.pi * order / (2 * n)) ** 2
        signs = 1 - 2 * (k % 2) if left == "dirichlet" else None
        if dense:
            rows = torch.cos(math.pi * order[:, None] * j / n) * size[:, None]
            rows = rows if signs is None else rows * signs
    complex_dtype = torch.complex64 if dtype == torch.float32 else torch.complex128
    return Transform(
        family,
        n,
        eigenvalues,
        matrix=None if rows is None else rows.to(dtype=dtype, device=device),
        twiddle=None if dense else twiddle.to(dtype=complex_dtype, device=device),
        signs=None if dense or signs is None else signs.to(dtype=dtype, device=device),
    )


def _hartley(k: Tensor, n: int) -> Tensor:
    angle = 2 * math.pi * torch.remainder(k[:, None] * k, n) / n
    return (torch.cos(angle) + torch.sin(angle)) / math.sqrt(n)


def _quarter(n: int) -> complex:
    """The phase of ``(1/2) (1/2)`` in ``(k + 1/2) (j + 1/2)``."""
    return cmath.exp(-0.25j * math.pi / n)


def _multiplied(matrix: Tensor, field: Tensor, axis: int) -> Tensor:
    """``matrix`` along an axis of ``field``, by one matrix product."""
    if axis == -1:
        return field @ matrix.T
    if axis == -2:
        return matrix @ field
    return (matrix @ field.flatten(axis + 1)).unflatten(-1, field.shape[axis + 1 :])
