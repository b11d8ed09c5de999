"""Coefficients of parameters that are plain numbers: made once, not at every rollout."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor

from dpcontrol.kernels import Kernel
from dpcontrol.sim.checks import readable

K = TypeVar("K", bound=Kernel)


class Constants:
    """What a simulator has prepared last of plain numbers, and the kernels of that, which keep tables of their own.

    Numbers are scalars on the CPU that nobody differentiates and no transform looks at: coefficients of anything else
    are made anew. A simulator's other fields do not change, so that it has one of these for its life.
    """

    def __init__(self) -> None:
        self._kept: tuple[Hashable, Any, dict[type[Kernel], Kernel]] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return Constants, ()  # a copy, or one in another process, makes its own

    def prepared(self, parameters: Mapping[str, Tensor], make: Callable[[], Any]) -> Any:
        """``make()``, or what it gave for the same numbers the last time."""
        key = _numbers(parameters)
        if key is None:
            return make()
        kept = self._kept  # looked at once: another thread may put its own there meanwhile
        if kept is None or kept[0] != key:
            kept = self._kept = key, make(), {}
        return kept[1]

    def kernel(self, coefficients: Any, kind: type[K], make: Callable[[], K]) -> K:
        """``make()``, or for the coefficients that are kept the kernel of that kind that they had the last time."""
        kept = self._kept
        if kept is None or kept[1] is not coefficients:
            return make()
        kernels = kept[2]
        if kind not in kernels:
            kernels[kind] = make()
        found = kernels[kind]
        assert isinstance(found, kind)
        return found


def _numbers(parameters: Mapping[str, Tensor]) -> Hashable:
    """The parameters as numbers; ``None`` where one is more than that."""
    values = parameters.values()
    if any(type(value) is not Tensor or value.ndim or value.device.type != "cpu" for value in values):
        return None
    # where a transform is at work, tensors that are made belong to it and end with it
    at_work = torch._C._are_functorch_transforms_active() or torch.autograd.forward_ad._current_level >= 0
    if at_work or not readable(*values) or any(torch.is_complex(value) for value in values):
        return None
    inference = torch.is_inference_mode_enabled()  # its tensors can be in no graph
    return inference, *((name, value.dtype, value.item()) for name, value in parameters.items())
