"""Linear interpolation in a row of cells by gathering, differentiable in forward and reverse mode, to any order."""

from __future__ import annotations

import torch
from torch import Tensor


def interpolate(field: Tensor, offset: Tensor, boundary: str) -> Tensor:
    r"""Values of a row of cells at ``i + offset_i``, linear between neighbouring cell centres.

    .. math:: v_i = (1 - w_i) f_{j_i} + w_i f_{j_i + 1}, \quad j_i = i + \lfloor s_i \rfloor,
              \quad w_i = s_i - \lfloor s_i \rfloor

    The result is continuous, and piecewise smooth, in ``s``: its derivative there is the slope of the interval that
    the point lies in (to the right of a cell centre, at a cell centre).

    Args:
        field: ``f``, ``(..., cells)``.
        offset: ``s``, ``(..., cells)``, in units of a cell. Distances are taken relative to the cell, and not from
            the end of the row, so that float32 loses no digits in long rows.
        boundary: ``"periodic"``, or ``"zero"``: beyond the outermost cell centres the field falls linearly to zero at
            the next (missing) cell centre, and is zero further out.

    Returns:
        ``v``, ``(..., cells)``. Where ``offset`` is not finite, NaN.
    """
    cells = field.shape[-1]
    whole = torch.floor(offset.detach())
    weight = offset - whole
    # Two ghost cells: an index that is clamped into the outermost interval finds zero at both of its ends. Indices
    # are clamped rather than positions because the index of a NaN is arbitrary, and must not leave the row either.
    if boundary == "zero":
        row = torch.constant_pad_nd(field, (2, 2))
        left = torch.arange(2, cells + 2, device=field.device).add(whole.long()).clamp(0, cells + 2)
    else:
        row = torch.cat((field, field[..., :1]), -1)
        left = torch.arange(cells, device=field.device).add(whole.long()).remainder(cells)
    return torch.lerp(row.gather(-1, left), row.gather(-1, left + 1), weight)
