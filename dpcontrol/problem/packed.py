"""States as what networks work on: one tensor, in units of their typical size."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dpcontrol import tree
from dpcontrol.tree import Tree


@dataclass(frozen=True)
class Layout:
    """States as what networks work on: flat, ``(scenarios, numbers)``, or as fields, ``(scenarios, channels, *grid)``.

    Numbers are divided by the typical size of their leaf. Complex ones are pairs of real ones.

    Args:
        scales: typical sizes of the leaves of a state.
        fields: whether leaves are values on one grid, a channel each.
    """

    scales: tuple[float, ...]
    fields: bool

    def pack(self, state: Tree) -> Tensor:
        """The state of every scenario as one tensor."""
        scaled = [leaf / scale for leaf, scale in zip(tree.leaves(state), self.scales, strict=True)]
        if self.fields:
            return torch.stack(scaled, 1)
        real = [torch.view_as_real(leaf) if leaf.is_complex() else leaf for leaf in scaled]
        return torch.cat([leaf.reshape(len(leaf), -1) for leaf in real], 1)

    def unpack(self, packed: Tensor, like: Tree) -> Tree:
        """The inverse of :meth:`pack`, for states shaped like ``like``."""
        leaves, build = tree.split_tensors(like)
        if self.fields:
            return build([row * scale for row, scale in zip(packed.unbind(1), self.scales, strict=True)])
        numbers = [leaf[0].numel() * (2 if leaf.is_complex() else 1) for leaf in leaves]
        found = []
        for part, leaf, scale in zip(packed.split(numbers, 1), leaves, self.scales, strict=True):
            shape = (len(packed), *leaf.shape[1:])
            if leaf.is_complex():
                found.append(torch.view_as_complex(part.reshape(*shape, 2).contiguous()) * scale)
            else:
                found.append(part.reshape(shape) * scale)
        return build(found)


def sizes(value: Tree) -> tuple[float, ...]:
    """The root mean square of every leaf, 1 for zeros."""
    found = [float(leaf.detach().abs().double().square().mean().sqrt()) for leaf in tree.leaves(value)]
    return tuple(size if size > 0 else 1.0 for size in found)
