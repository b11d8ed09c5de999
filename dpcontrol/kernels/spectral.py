"""Spectra of real periodic fields, without the columns that dealiasing drops, and sums for the gradients of tables."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

CHUNK = 2**18
"""Numbers of one field that are recomputed together on the way back: a few megabytes, which caches still hold."""


@dataclass(frozen=True)
class HalfSpectrum:
    r"""Spectra of real fields ``(..., *shape)``: all modes of the leading axes, the first ``columns`` of the last one.

    Modes of the last axis beyond them are taken for zero, so that no transform along the other axes sees them.

    The cotangent ``g`` of a field is kept as its own spectrum ``c``: then the adjoint of a product with a table is the
    product with its conjugate, and the adjoints of :meth:`forward` and :meth:`inverse` are each other. In the
    half-spectrum ``s`` itself (as torch counts it, ``dL/dRe s + i dL/dIm s``) the gradient is ``weights c``, where the
    weight is 2 for columns that stand for a conjugate one as well, else 1, over the number of points.
    """

    shape: tuple[int, ...]
    columns: int

    @property
    def other_axes(self) -> tuple[int, ...]:
        """The axes of space but the last, counted from the end."""
        return tuple(range(-len(self.shape), -1))

    def forward(self, field: Tensor) -> Tensor:
        """Real field to spectrum."""
        spectrum = torch.fft.rfft(field)[..., : self.columns]
        return torch.fft.fftn(spectrum, dim=self.other_axes) if self.other_axes else spectrum

    def inverse(self, spectrum: Tensor) -> Tensor:
        """Spectrum to real field."""
        if self.other_axes:
            spectrum = torch.fft.ifftn(spectrum, dim=self.other_axes)
        return torch.fft.irfft(spectrum, n=self.shape[-1])

    def cut(self, table: Tensor) -> Tensor:
        """The columns that there are of a table over a full spectrum; what is the same for all modes stays."""
        return table[..., : self.columns] if table.ndim else table

    def weights(self, like: Tensor) -> Tensor:
        """``(columns,)``, see above; real, in the precision and on the device of ``like``."""
        found = torch.full((self.columns,), 2.0, dtype=like.real.dtype, device=like.device)
        found[0] = 1.0
        if 2 * (self.columns - 1) == self.shape[-1]:
            found[-1] = 1.0
        return found / math.prod(self.shape)


def chunks(steps: int, field: Tensor) -> list[tuple[int, int]]:
    """Pairs (first, behind the last) of the steps that are recomputed together, the last of them first."""
    size = max(1, CHUNK // max(field.numel(), 1))
    return [(first, min(first + size, steps)) for first in range(0, steps, size)][::-1]


def product_sum(factor: Tensor, cotangent: Tensor, like: Tensor) -> Tensor:
    """``conj(factor) cotangent``, summed over the axes that a table ``like`` was shared by."""
    return (factor.conj() * cotangent).sum_to_size(like.shape)
