"""Advection and its adjoint by compiled loops: as raw calls without a graph, and as one node of a graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dpcontrol.kernels.native import can_run
from dpcontrol.sim.staggered import SCHEMES, Beyond, extended

Parts = list[Tensor]


def advected(scheme: str, field: Tensor, travelled: Sequence[Tensor], beyond: Beyond) -> Tensor:
    """``SCHEMES[scheme]`` of :mod:`dpcontrol.sim.staggered`, by compiled loops where they can run.

    What ``vmap`` adds are more scenarios. Second derivatives, forward mode and the other transforms of ``torch.func``
    go through the eager definition.
    """
    tensors = (field, *travelled)
    if not can_run(tensors) or not _are_plain(tensors):
        return SCHEMES[scheme](field, travelled, beyond)
    found: Tensor = _Advected.apply(scheme, beyond, *tensors)
    return found


class _Advected(torch.autograd.Function):
    @staticmethod
    def forward(scheme: str, beyond: Beyond, field: Tensor, *travelled: Tensor) -> Tensor:
        return carried(scheme, field.detach(), [path.detach() for path in travelled], beyond)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.scheme, ctx.beyond, *tensors = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def vmap(
        info: Any, dims: tuple[int | None, ...], scheme: str, beyond: Beyond, *tensors: Tensor
    ) -> tuple[Tensor, int]:
        flat = [
            (leaf.expand(info.batch_size, *leaf.shape) if dim is None else leaf.movedim(dim, 0)).flatten(0, 1)
            for leaf, dim in zip(tensors, dims[2:], strict=True)
        ]
        found: Tensor = _Advected.apply(scheme, beyond, *flat)
        return found.unflatten(0, (info.batch_size, -1)), 0

    @staticmethod
    def backward(ctx: Any, *above: Tensor) -> tuple[Tensor | None, ...]:
        tensors = ctx.saved_tensors
        if not torch.is_grad_enabled() and _are_plain((*tensors, *above)):
            field, *travelled = (leaf.detach() for leaf in tensors)
            of_field, paths = carried_back(ctx.scheme, field, travelled, ctx.beyond, above[0].detach())
            return None, None, of_field, *paths
        with torch.enable_grad():
            field, *travelled = copies = [leaf.view_as(leaf) for leaf in tensors]
            again = SCHEMES[ctx.scheme](field, travelled, ctx.beyond)
            wanted = [copy for copy in copies if copy.requires_grad]
            found = iter(torch.autograd.grad(again, wanted, above[0], create_graph=True))
        return None, None, *(next(found) if copy.requires_grad else None for copy in copies)


def _are_plain(tensors: Sequence[Tensor]) -> bool:
    """Whether no forward mode and no transform but ``vmap`` looks at these tensors."""
    for leaf in tensors:
        while torch._C._functorch.is_batchedtensor(leaf):
            leaf = torch._C._functorch.get_unwrapped(leaf)
        if torch._C._functorch.is_functorch_wrapped_tensor(leaf):
            return False
        if torch.autograd.forward_ad._current_level >= 0:
            if torch.autograd.forward_ad.unpack_dual(leaf).tangent is not None:
                return False
    return True


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
