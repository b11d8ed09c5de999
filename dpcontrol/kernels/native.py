"""What kernels of compiled loops have in common: whether they can run, tensors as flat memory, scenarios in threads."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dpcontrol.tree import Tree, leaves

# Below this many updates of a cell (about a millisecond) a second thread costs more than it saves.
WORTH_A_THREAD = 500_000

Rows = tuple[Any, tuple[int, ...]]


def can_run(*data: Tree) -> bool:
    """Whether compiled loops can take such data: Numba is installed; real tensors of one precision on the CPU."""
    tensors = [leaf for leaf in leaves(data) if isinstance(leaf, Tensor)]
    kinds = {(leaf.dtype, leaf.device.type) for leaf in tensors}
    fitting = kinds in ({(torch.float64, "cpu")}, {(torch.float32, "cpu")})
    # looking for a package that has been imported already costs more than all of the above
    return fitting and (sys.modules.get("numba") is not None or importlib.util.find_spec("numba") is not None)


def rows(tensor: Tensor) -> Rows:
    """A tensor of any layout, not copied, as its flat memory (a NumPy array) and its strides.

    Loops are compiled for one type of array then, and read transposed and expanded tensors in place.
    """
    tensor = plain(tensor)
    if tensor.is_contiguous():
        flat = tensor.numpy().reshape(-1)
        return (flat if len(flat) else np.zeros(1, flat.dtype)), tensor.stride()
    extent = 1 + sum((n - 1) * stride for n, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.as_strided((extent,), (1,)).numpy(), tensor.stride()


def plain(tensor: Tensor) -> Tensor:
    """The same numbers as memory holds them: an imaginary part of a conjugate is negated only when it is read."""
    return tensor.detach().resolve_neg() if tensor.requires_grad or tensor.is_neg() else tensor


def held(control: Tensor | None, steps: int, state: Tensor) -> Rows:
    """Controls ``(steps, scenarios, cells)`` as flat memory and strides; ``None`` is zero."""
    return rows(control if control is not None else state.new_zeros(1).expand(steps, *state.shape))


def per_scenario(coefficient: Tensor, scenarios: int) -> Any:
    """A coefficient ``()`` or ``(scenarios, 1)`` as an array ``(scenarios,)``."""
    found = np.empty(scenarios, plain(coefficient).numpy().dtype)
    found[:] = plain(coefficient).numpy().reshape(-1)
    return found


def gradient_like(per_scenario: Tensor, coefficient: Tensor) -> Tensor:
    """The inverse way: gradients ``(scenarios,)`` summed over what was shared."""
    return per_scenario[:, None].sum_to_size(coefficient.shape) if coefficient.ndim else per_scenario.sum()


def chunks(begin: int, end: int, width: int) -> list[tuple[int, int, int]]:
    """``(begin, end, width)`` of scenarios that run interleaved: whole groups first, then a smaller one."""
    width = max(1, min(end - begin, width))
    middle = end - (end - begin) % width
    parts = [(begin, middle, width), (middle, end, end - middle)]
    return [part for part in parts if part[0] < part[1]]


def in_threads(call: Callable[[int, int], None], scenarios: int, group: int, updates: int) -> None:
    """``call(begin, end)`` for all scenarios, in as many threads as torch may use where that is worth while.

    The loops release the interpreter's lock. Scenarios do not see each other: the numbers are the same to the bit.

    Args:
        call: runs the scenarios from ``begin`` up to ``end``.
        scenarios: how many there are.
        group: parts are multiples of it.
        updates: updates of a cell in all scenarios.
    """
    threads = min(torch.get_num_threads(), 1 + updates // WORTH_A_THREAD)
    each = -(-scenarios // (threads * group)) * group if scenarios else 1
    parts = [(begin, min(begin + each, scenarios)) for begin in range(0, scenarios, each)]
    if len(parts) == 1:
        call(*parts[0])
    elif parts:
        with ThreadPoolExecutor(len(parts) - 1) as pool:
            others = [pool.submit(call, *part) for part in parts[1:]]
            call(*parts[0])
            for other in others:
                other.result()
