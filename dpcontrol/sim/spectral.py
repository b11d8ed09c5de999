"""Periodic boxes in Fourier space: wavenumbers, transforms, which modes are kept, and how states are checked."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from dpcontrol.kernels import HalfSpectrum
from dpcontrol.results import UsageError
from dpcontrol.sim.base import Value
from dpcontrol.tree import Tree, describe


@dataclass(frozen=True)
class PeriodicBox:
    """A periodic box with ``shape`` grid points and side lengths ``lengths``; points at ``x_i = i length / points``.

    Fields are real, ``(..., *shape)``; spectra are those of ``rfftn``: all modes of the leading axes, the non-negative
    half of the last one.

    Raises:
        UsageError: for another number of axes than 1 to 3, fewer than 4 points, lengths that are not positive.
    """

    shape: tuple[int, ...]
    lengths: tuple[float, ...]

    def __post_init__(self) -> None:
        shape, lengths = self.shape, self.lengths
        counts = isinstance(shape, tuple) and all(type(n) is int and n >= 4 for n in shape)
        if not counts or not 1 <= len(shape) <= 3:
            raise UsageError(
                f"the shape of a periodic box is one to three whole numbers of points, each at least 4; "
                f"found {shape!r}."
            )
        sizes = isinstance(lengths, tuple) and all(
            isinstance(size, int | float) and math.isfinite(size) and size > 0 for size in lengths
        )
        if not sizes or len(lengths) != len(shape):
            raise UsageError(
                f"a periodic box of shape {shape} needs {len(shape)} positive length(s); found {lengths!r}."
            )

    @property
    def axes(self) -> tuple[int, ...]:
        """The field's axes of space, counted from the end."""
        return tuple(range(-len(self.shape), 0))

    @property
    def points(self) -> int:
        """Number of grid points."""
        return math.prod(self.shape)

    def grid(self, like: Tensor | None = None) -> tuple[Tensor, ...]:
        """Coordinates of the points, one field of the box's shape per axis; float64 or like a tensor."""
        dtype, device = (torch.float64, None) if like is None else (like.dtype, like.device)
        rows = [
            torch.arange(n, dtype=dtype, device=device) * (length / n)
            for n, length in zip(self.shape, self.lengths, strict=True)
        ]
        return torch.meshgrid(*rows, indexing="ij")

    def modes(self, device: torch.device | None = None) -> tuple[Tensor, ...]:
        """Whole mode numbers, one tensor per axis that broadcasts to a spectrum; float64."""
        found = []
        for axis, n in enumerate(self.shape):
            frequencies = torch.fft.rfftfreq if axis == len(self.shape) - 1 else torch.fft.fftfreq
            row = frequencies(n, 1 / n, dtype=torch.float64, device=device)
            found.append(row.reshape(-1, *[1] * (len(self.shape) - 1 - axis)))
        return tuple(found)

    def wavenumbers(self, device: torch.device | None = None, *, odd: bool = False) -> tuple[Tensor, ...]:
        """``k = 2 pi n / length`` per axis; with ``odd``, zero at the Nyquist mode, for derivatives of odd order.

        The Nyquist mode of an even number of points is a cosine whose derivative vanishes on the grid.
        """
        found = []
        for n, length, mode in zip(self.shape, self.lengths, self.modes(device), strict=True):
            kept = torch.where(2 * mode.abs() == n, 0.0, mode) if odd else mode
            found.append(kept * (2 * math.pi / length))
        return tuple(found)

    def squared_wavenumber(self, device: torch.device | None = None) -> Tensor:
        """``|k|^2``, the symbol of minus the Laplacian, in the shape of a spectrum."""
        total: Tensor = sum(k.square() for k in self.wavenumbers(device))  # type: ignore[assignment]
        return total

    def kept(self, fraction: float, device: torch.device | None = None) -> Tensor:
        """One for the modes ``|n| < fraction N / 2`` of every axis, zero for the others; all ones for fraction 1.

        Products of two fields of such modes alias into none of them for ``fraction = 2/3``, of three for ``1/2``.
        """
        mask = torch.ones((), dtype=torch.float64, device=device)
        if fraction < 1:
            for n, mode in zip(self.shape, self.modes(device), strict=True):
                mask = mask * (mode.abs() < fraction * n / 2 - 1e-9)
        return mask

    def forward(self, field: Tensor) -> Tensor:
        """Real field to spectrum."""
        return torch.fft.rfftn(field, dim=self.axes)

    def inverse(self, spectrum: Tensor) -> Tensor:
        """Spectrum to real field."""
        return torch.fft.irfftn(spectrum, s=self.shape, dim=self.axes)

    def transforms(self, fraction: float) -> HalfSpectrum:
        """Transforms that leave out the columns of the spectrum that :meth:`kept` drops."""
        last = self.shape[-1]
        columns = min(math.ceil(fraction * last / 2 - 1e-9), last // 2 + 1) if fraction < 1 else last // 2 + 1
        return HalfSpectrum(self.shape, columns)

    def project(self, field: Tensor, fraction: float) -> Tensor:
        """The part of a field that lies in the kept modes."""
        if fraction == 1:
            return field
        mask = self.kept(fraction, field.device).to(field.dtype)
        return self.inverse(self.forward(field) * mask)

    def require(self, state: Tree, *components: int) -> None:
        """Refuse a state that is not a floating tensor ``(scenarios, *components, *shape)``."""
        wanted = (*components, *self.shape)
        fine = isinstance(state, Tensor) and state.is_floating_point() and tuple(state.shape[1:]) == wanted
        if not fine:
            raise UsageError(
                f"the state of this simulator is one floating tensor (scenarios, {', '.join(map(str, wanted))}); "
                f"found {describe(state)}: for one scenario pass state[None], for another grid build it with its size."
            )


def require_dealiasing(fraction: float) -> None:
    """Refuse a fraction of kept modes outside (0, 1]."""
    if not isinstance(fraction, int | float) or not 0 < fraction <= 1:
        raise UsageError(
            f"dealiasing is the fraction of modes that are kept, in (0, 1], 2/3 for quadratic terms; "
            f"found {fraction!r}."
        )


def require_force(control: Tensor, state: Tensor) -> None:
    """Refuse a control that does not act point by point."""
    if control.shape != state.shape:
        raise UsageError(
            f"the control acts at every point, so that its shape is the state's, {tuple(state.shape)}; "
            f"found {tuple(control.shape)}."
        )


def alike(state: Tree, control: Tree) -> bool:
    """Whether a kernel for tensors of one precision takes both; refuses a control that does not act point by point."""
    if control is not None:
        require_force(control, state)
    return control is None or control.dtype == state.dtype


def fit_scenarios(tables: list[Tensor], state: Tensor) -> bool:
    """Whether tables are shared by all scenarios of a state, or there is one for each."""
    return all(table.ndim < state.ndim or len(table) in (1, len(state)) for table in tables)


def spread(parameter: Value, axes: int) -> Value:
    """A parameter ``()`` or ``(scenarios,)`` in double precision, followed by ``axes`` axes of length 1.

    Coefficients are made in double precision whatever the state's: they are small, made once, and divide small numbers.
    """
    if not isinstance(parameter, Tensor):
        return parameter
    return parameter.double().reshape(*parameter.shape, *[1] * axes)
