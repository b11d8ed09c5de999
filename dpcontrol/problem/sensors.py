"""Sensors: what of a state is measured, as differentiable functions to ``(scenarios, measurements)``."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from dpcontrol import tree
from dpcontrol.results import UsageError
from dpcontrol.sim.grid import Grid
from dpcontrol.tree import Tree

Which = int | str | Callable[[Tree], Tree] | None
PLACES = ("centres", "nodes")
WALLS = ("flat", "zero", "linear")
KINDS = ("fourier", "cosine", "sine")


@dataclass(frozen=True, eq=False)
class Points:
    r"""A field at given places, linear along each axis between the places of its values.

    .. math:: y_m = \sum_{b \in \{0, 1\}^d} \prod_a \big(b_a w_a + (1 - b_a)(1 - w_a)\big) u_{i + b}, \qquad
              s_a = \frac{x_{m,a} - o_a}{h_a} - \tfrac12, \quad i_a = \lfloor s_a \rfloor, \quad w_a = s_a - i_a

    (without the half for nodes). Second order in ``h``.

    Args:
        positions: ``x``, ``(measurements,)`` for a field over one axis, ``(measurements, axes)`` otherwise; in the unit
            of the lengths.
        lengths: ``L`` of the box along each axis, a number for one axis, or a :class:`~dpcontrol.sim.grid.Grid`, which
            knows what is periodic as well.
        periodic: for all axes, or one entry for each. Places beyond the ends are those one period further on.
        at: where the values live: ``"centres"`` ``(i + 1/2) h`` of cells ``h = L / n``, or ``"nodes"`` ``i h``, which
            is ``h = L / n`` for periodic axes, and ``h = L / (n - 1)``, both ends included, for others. (The periodic
            simulators of this package, spectral ones among them, say which in their docstrings.)
        origin: ``o``, coordinate of the left end of the box, a number or one for each axis.
        wall: what holds between the outermost cell centres and a wall: ``"flat"``, the value of the cell (no slope);
            ``"zero"``, linear to zero on the wall; ``"linear"``, the line through the two outermost cells goes on.
            Only ``"flat"`` falls back to first order there, unless the field has no slope at the wall.
        of: the part of the state that is the field, see :class:`Component`; the whole state by default.

    Raises:
        UsageError: for positions outside the box or not finite, lengths that are not positive; when called, for a
            state that is no such field.
    """

    positions: Any
    lengths: Any
    periodic: bool | Sequence[bool] = False
    at: str = "centres"
    origin: float | Sequence[float] = 0.0
    wall: str = "flat"
    of: Which = None
    _relative: Tensor = field(init=False, repr=False)  # in units of the box
    _periodic: tuple[bool, ...] = field(init=False, repr=False)
    _cells: tuple[int, ...] | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        grid = self.lengths if isinstance(self.lengths, Grid) else None
        extent = grid.extent if grid else self.lengths
        lengths = tuple(float(v) for v in ([extent] if isinstance(extent, int | float) else extent))
        axes = len(lengths)
        if not 1 <= axes <= 3 or not all(math.isfinite(length) and length > 0 for length in lengths):
            raise UsageError(
                f"lengths of the box must be one to three positive numbers; found {self.lengths!r}."
            )
        periodic = [grid.periodic(axis) for axis in range(axes)] if grid else self.periodic
        _require_among("at", self.at, PLACES)
        _require_among("wall", self.wall, WALLS)
        wraps = tuple(map(bool, _spread(periodic, axes, "periodic")))
        origin = tuple(map(float, _spread(self.origin, axes, "origin")))
        positions = torch.as_tensor(self.positions, dtype=torch.float64)
        positions = positions[:, None] if positions.dim() == 1 and axes == 1 else positions
        if positions.dim() != 2 or positions.shape[1] != axes or not len(positions):
            raise UsageError(
                f"positions in a box with {axes} axes are a tensor (measurements, {axes}); found "
                f"{tuple(positions.shape)}."
            )
        relative = (positions - positions.new_tensor(origin)) / positions.new_tensor(lengths)
        inside = (relative >= -1e-6) & (relative <= 1 + 1e-6)  # what float32 coordinates may be off
        outside = ~(inside | (torch.tensor(wraps) & torch.isfinite(relative))).all(1)
        if bool(outside.any()):
            ends = [(o, o + length) for o, length in zip(origin, lengths, strict=True)]
            raise UsageError(
                f"a sensor at {positions[outside][0].tolist()} is outside the box {ends}: move it inside, give "
                "origin=... or periodic=True."
            )
        object.__setattr__(self, "positions", positions)
        object.__setattr__(self, "_relative", relative)
        object.__setattr__(self, "_periodic", wraps)
        object.__setattr__(self, "_cells", grid.cells if grid else None)

    def __call__(self, state: Tree) -> Tensor:
        """``(scenarios, measurements)``."""
        values = selected(state, self.of)
        _require_field(values, self._relative.shape[1], self._cells, "Points(...)")
        index, weight = self._along(values.shape[1], 0)
        for axis, n in enumerate(values.shape[2:], 1):
            pair, share = self._along(n, axis)
            index = (index[..., None] * n + pair[:, None]).flatten(1)
            weight = (weight[..., None] * share[:, None]).flatten(1)
        corners = values.flatten(1)[:, index.to(values.device)]
        return (corners * weight.to(corners)).sum(-1)

    def _along(self, n: int, axis: int) -> tuple[Tensor, Tensor]:
        """The two neighbours along an axis, ``(measurements, 2)``, and their weights."""
        periodic, first = self._periodic[axis], 0.5 if self.at == "centres" else 0.0
        s = self._relative[:, axis] * (n if periodic or first else n - 1) - first
        inner = s if periodic else s.clamp(0, n - 1)
        left = torch.floor(inner) if periodic else torch.floor(inner).clamp(0, max(n - 2, 0))
        w = (s if self.wall == "linear" and n > 1 else inner) - left
        weights = torch.stack((1 - w, w), -1)
        if self.wall == "zero" and not periodic:  # the wall is half a cell from the outermost centre
            weights = weights * (1 - 2 * (s - inner).abs())[:, None]
        pair = torch.stack((left, left + 1), -1).long()
        return pair.remainder(n) if periodic else pair.clamp(max=n - 1), weights


@dataclass(frozen=True, eq=False)
class Modes:
    r"""Amplitudes of waves in a field on a uniform grid.

    =============  ===================================================================================
    kind           amplitudes of ``u(x)``, ``x`` in units of the box
    =============  ===================================================================================
    ``"fourier"``  ``a_k, b_k`` of ``a_k cos(2 pi k x) + b_k sin(2 pi k x)``, of a periodic field
    ``"cosine"``   ``a_k`` of ``a_k cos(pi k x)``, of a field without slope at the walls
    ``"sine"``     ``a_k`` of ``a_k sin(pi k x)``, ``k >= 1``, of a field that is zero on the walls
    =============  ===================================================================================

    By the fast Fourier transform. Over several axes ``k x`` is a scalar product for ``"fourier"``, and the cosines and
    sines are products over the axes.

    Args:
        wavenumbers: whole numbers ``k``, ``(waves,)`` for a field over one axis, ``(waves, axes)`` otherwise; below
            half of the number of cells for ``"fourier"``, and below the number of cells for the others.
        kind: see the table.
        at: where the values live: ``"nodes"`` ``i / n`` or ``"centres"`` ``(i + 1/2) / n``; ``"nodes"`` by default for
            ``"fourier"``; the others are for cell centres.
        of: the part of the state that is the field, see :class:`Component`; the whole state by default.

    Returns:
        When called: ``(scenarios, measurements)`` in the order of the wave numbers; ``a_k`` and ``b_k`` stand side by
        side, save for ``k = 0``, which has only ``a_0``, the mean.

    Raises:
        UsageError: for numbers that are no wave numbers; when called, for a state that is no such field.
    """

    wavenumbers: Any
    kind: str = "fourier"
    at: str | None = None
    of: Which = None
    _k: Tensor = field(init=False, repr=False)  # (waves, axes)
    _kept: Tensor = field(init=False, repr=False)
    _highest: tuple[int, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        _require_among("kind", self.kind, KINDS)
        object.__setattr__(self, "at", self.at or ("nodes" if self.kind == "fourier" else "centres"))
        _require_among("at", str(self.at), PLACES if self.kind == "fourier" else ("centres",))
        waves = torch.as_tensor(self.wavenumbers)
        whole = waves.round().long() if waves.is_floating_point() else waves.long()
        waves, k = (v[:, None] if v.dim() == 1 else v for v in (waves, whole))
        if k.dim() != 2 or not 1 <= k.shape[-1] <= 3 or not len(k) or not bool((k == waves).all()):
            raise UsageError(
                f"wavenumbers are whole numbers, (waves,) or (waves, axes); found {self.wavenumbers!r}."
            )
        lowest = {"fourier": None, "cosine": 0, "sine": 1}[self.kind]
        if lowest is not None and bool((k < lowest).any()):
            raise UsageError(f"wave numbers of {self.kind}s begin at {lowest}; found {k.tolist()}.")
        object.__setattr__(self, "_k", k)
        object.__setattr__(self, "_highest", tuple(k.abs().amax(0).tolist()))
        # a cosine without sine for the mean
        both = torch.stack((torch.ones(len(k), dtype=torch.bool), (k != 0).any(1)), 1).flatten()
        object.__setattr__(self, "_kept", torch.nonzero(both)[:, 0])

    def __call__(self, state: Tree) -> Tensor:
        """``(scenarios, measurements)``."""
        values, k = selected(state, self.of), self._k
        _require_field(values, k.shape[1], None, "Modes(...)")
        if values.is_complex():
            raise UsageError(
                "Modes(...) looks at real fields; found a complex one: pass of=torch.abs, or a part of your own."
            )
        for axis, (n, found) in enumerate(zip(values.shape[1:], self._highest, strict=True)):
            resolved = (n - 1) // 2 if self.kind == "fourier" else n - 1
            if found > resolved:
                raise UsageError(
                    f"{n} cells along axis {axis} resolve {self.kind} wave numbers up to {resolved}; found {found}."
                )
        k = k.to(values.device)
        return self._fourier(values, k) if self.kind == "fourier" else self._standing(values, k)

    def _fourier(self, values: Tensor, k: Tensor) -> Tensor:
        sizes = values.shape[1:]
        spectrum = torch.fft.fftn(values, dim=tuple(range(1, values.dim())), norm="forward")
        found = spectrum.flatten(1)[:, _flat(k.remainder(k.new_tensor(sizes)), sizes)]
        if self.at == "centres":
            shift = (k * (math.pi / k.new_tensor(sizes))).to(values.dtype).sum(1)
            found = found * torch.polar(torch.ones_like(shift), -shift)
        size = 2.0 - (k == 0).all(1).to(values.dtype)
        both = torch.stack((size * found.real, -size * found.imag), -1)
        return both.flatten(1)[:, self._kept.to(values.device)]

    def _standing(self, values: Tensor, k: Tensor) -> Tensor:
        sizes, even = values.shape[1:], self.kind == "cosine"
        for axis, n in enumerate(sizes, 1):
            row = values.movedim(axis, -1)
            mirror = row.flip(-1)
            spectrum = torch.fft.fft(torch.cat((row, mirror if even else -mirror), -1), norm="forward")[
                ..., :n
            ]
            angle = torch.arange(n, device=row.device, dtype=row.dtype) * (-math.pi / (2 * n))
            turned = spectrum * torch.polar(torch.ones_like(angle), angle)
            values = (turned.real if even else -turned.imag).movedim(-1, axis)
        size = (2.0 - (k == 0).to(values.dtype)).prod(1)
        return size * values.flatten(1)[:, _flat(k, sizes)]


@dataclass(frozen=True, eq=False)
class Mask:
    """Some entries of a field, in the order of their indices.

    Args:
        where: a boolean tensor of the field's shape without scenarios, or indices: ``(measurements,)`` into a field
            over one axis, ``(measurements, axes)`` into others.
        of: the part of the state that is the field, see :class:`Component`; the whole state by default.

    Raises:
        UsageError: for an empty mask or something that is neither; when called, for a field of another shape.
    """

    where: Any
    of: Which = None
    _sizes: tuple[int, ...] | None = field(init=False, repr=False)
    _index: Tensor = field(init=False, repr=False)  # (measurements, axes)
    _highest: tuple[int, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        where = torch.as_tensor(self.where)
        boolean = where.dtype == torch.bool
        if where.is_floating_point() or where.is_complex() or not where.dim() or not where.numel():
            raise UsageError(
                f"a mask is a boolean tensor or whole-numbered indices; found {tree.describe(where)}."
            )
        index = torch.nonzero(where) if boolean else where.long()
        index = index[:, None] if index.dim() == 1 else index
        if not len(index) or index.dim() != 2 or bool((index < 0).any()):
            raise UsageError(
                "a mask needs at least one entry that is measured, and indices (measurements, axes) from 0 on; found "
                f"{tree.describe(where)}."
            )
        object.__setattr__(self, "_sizes", tuple(where.shape) if boolean else None)
        object.__setattr__(self, "_index", index)
        object.__setattr__(self, "_highest", tuple(index.amax(0).tolist()))

    def __call__(self, state: Tree) -> Tensor:
        """``(scenarios, measurements)``."""
        values = selected(state, self.of)
        _require_field(values, self._index.shape[1], self._sizes, "Mask(...)")
        sizes = values.shape[1:]
        if any(found >= n for found, n in zip(self._highest, sizes, strict=True)):
            raise UsageError(
                f"indices of the mask go up to {self._highest}, beyond the field of shape {tuple(sizes)}."
            )
        return values.flatten(1)[:, _flat(self._index, sizes).to(values.device)]


@dataclass(frozen=True)
class Component:
    """A part of a state: an entry of a dict or tuple, or an entry along the first axis behind the scenarios.

    ``Component("marker")`` of a dict, ``Component(0)`` of a tuple, or of a tensor ``(scenarios, components, ...)``. Its
    layout stays: a field stays a field; of a vector ``(scenarios, components)`` it is ``(scenarios, 1)``.

    Args:
        which: the name or index; or a function of the state.

    Raises:
        UsageError: when called, for a state that has no such part.
    """

    which: int | str | Callable[[Tree], Tree]

    def __call__(self, state: Tree) -> Tree:
        """The part."""
        found = selected(state, self.which)
        return found[:, None] if isinstance(found, Tensor) and found.dim() == 1 else found


def selected(state: Tree, which: Which) -> Any:
    """The part of a state that ``of=`` names, see :class:`Component`.

    Raises:
        UsageError: if there is none of this name or index.
    """
    if which is None:
        return state
    if callable(which):
        return which(state)
    if isinstance(state, dict) and which in state:
        return state[which]
    if isinstance(which, int):
        if isinstance(state, tuple | list) and -len(state) <= which < len(state):
            return state[which]
        if isinstance(state, Tensor) and state.dim() > 1 and -state.shape[1] <= which < state.shape[1]:
            return state[:, which]
    raise UsageError(
        f"the state has no part {which!r}; found {tree.describe(state)}: name a key of a dict, or an index of a tuple "
        "or of the first axis behind the scenarios."
    )


def _require_field(values: Any, axes: int, sizes: tuple[int, ...] | None, name: str) -> None:
    fits = isinstance(values, Tensor) and values.dim() == axes + 1
    if not fits or (sizes and tuple(values.shape[1:]) != sizes):
        wanted = ", ".join(map(str, sizes)) if sizes else ", ".join(["cells"] * axes)
        raise UsageError(
            f"{name} looks at a field (scenarios, {wanted}); found {tree.describe(values)}: select one with of=..."
        )


def _require_among(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise UsageError(f"{name} must be one of {', '.join(known)}; found {value!r}.")


def _spread(value: Any, axes: int, name: str) -> tuple[Any, ...]:
    """One entry for each axis."""
    if isinstance(value, bool | int | float):
        return (value,) * axes
    if len(value) != axes:
        raise UsageError(f"{name} needs one entry for each of the {axes} axes; found {value!r}.")
    return tuple(value)


def _flat(index: Tensor, sizes: Sequence[int]) -> Tensor:
    """Rows of indices, one for each axis, as indices into a flattened field."""
    strides = [math.prod(sizes[axis + 1 :]) for axis in range(len(sizes))]
    return (index * index.new_tensor(strides)).sum(1)
