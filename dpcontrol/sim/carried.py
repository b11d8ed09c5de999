"""Advection and its adjoint as raw calls, without a graph: the lookups of a staggered grid as compiled loops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dpcontrol.sim.staggered import Beyond, extended

Parts = list[Tensor]


def carried(scheme: str, field: Tensor, travelled: Sequence[Tensor], beyond: Beyond) -> Tensor:
    """A field advected; ``SCHEMES[scheme]`` of :mod:`dpcontrol.sim.staggered` without a graph."""
    padded = extended(field, beyond)
    behind = _looked_up(padded, -1, travelled, beyond)
    if scheme == "semi_lagrangian":
        return behind
    corrected = _corrected(field, behind, travelled, beyond)
    _loop("clamp", field)(*_arrays(padded, travelled), _around(beyond), corrected.numpy())
    return corrected


def carried_back(
    scheme: str, field: Tensor, travelled: Sequence[Tensor], beyond: Beyond, above: Tensor
) -> tuple[Tensor, Parts]:
    """The adjoint of :func:`carried`: gradients in the field and in what was travelled."""
    padded = extended(field, beyond)
    row, around = _arrays(padded, travelled), _around(beyond)
    of_padded, paths = torch.zeros_like(padded), [torch.zeros_like(field) for _ in travelled]
    of_field = None
    if scheme == "mac_cormack":
        moved = _looked_up(padded, -1, travelled, beyond)
        value = _corrected(field, moved, travelled, beyond)
        of_value = torch.zeros_like(field)
        _loop("pull_clamp", field)(
            *row, around, value.numpy(), above.contiguous().numpy(), of_value.numpy(), _flat(of_padded)
        )
        of_field = 0.5 * of_value
        above = of_value + _looked_up_back(moved, 1, travelled, beyond, -of_field, paths)
    _pull_blend(row, -1, around, above, of_padded, paths)
    found = folded(of_padded, beyond)
    return found if of_field is None else found.add_(of_field), paths


def _corrected(field: Tensor, moved: Tensor, travelled: Sequence[Tensor], beyond: Beyond) -> Tensor:
    returned = _looked_up(extended(moved, beyond), 1, travelled, beyond)
    return torch.add(moved, field - returned, alpha=0.5)


def _looked_up(padded: Tensor, sign: int, travelled: Sequence[Tensor], beyond: Beyond) -> Tensor:
    out = torch.empty_like(travelled[0], memory_format=torch.contiguous_format)
    row, *paths = _arrays(padded, travelled)
    _loop("blend", out)(row, row.dtype.type(sign), *paths, _around(beyond), out.numpy())
    return out


def _looked_up_back(
    field: Tensor, sign: int, travelled: Sequence[Tensor], beyond: Beyond, above: Tensor, paths: Parts
) -> Tensor:
    padded = extended(field, beyond)
    of_padded = torch.zeros_like(padded)
    _pull_blend(_arrays(padded, travelled), sign, _around(beyond), above, of_padded, paths)
    return folded(of_padded, beyond)


def _pull_blend(
    row: list[Any], sign: int, around: Any, above: Tensor, of_padded: Tensor, paths: Parts
) -> None:
    field, *travelled = row
    _loop("pull_blend", above)(
        field,
        field.dtype.type(sign),
        *travelled,
        around,
        above.contiguous().numpy(),
        _flat(of_padded),
        *(path.numpy() for path in paths),
    )


def _loop(name: str, field: Tensor) -> Any:
    from dpcontrol.kernels.loops import lookups

    return getattr(lookups, f"{name}{field.ndim - 1}")


def _arrays(padded: Tensor, travelled: Sequence[Tensor]) -> list[Any]:
    return [_flat(padded), *(path.contiguous().numpy() for path in travelled)]


def _flat(padded: Tensor) -> Any:
    return padded.view(len(padded), -1).numpy()


def _around(beyond: Beyond) -> tuple[bool, ...]:
    return tuple(pair[0] == "periodic" for pair in beyond)


def folded(padded: Tensor, beyond: Beyond) -> Tensor:
    """The adjoint of :func:`~dpcontrol.sim.staggered.extended`."""
    for axis, pair in reversed(list(enumerate(beyond, start=1))):
        n = padded.shape[axis] - 4
        inner = padded.narrow(axis, 2, n).contiguous()
        for kind, ghosts, end, wrapped in ((pair[0], 0, 0, n - 2), (pair[1], n + 2, n - 1, 0)):
            outer = padded.narrow(axis, ghosts, 2)
            if kind == "periodic":
                inner.narrow(axis, wrapped, 2).add_(outer)
            elif kind == "edge":
                inner.narrow(axis, end, 1).add_(outer.sum(axis, keepdim=True))
        padded = inner
    return padded
