"""Boxes, coefficients and dense matrices, for tests of linear solves."""

import math

import torch

from dpcontrol.linalg import Box, on_faces
from dpcontrol.linalg.diffusion import applied

F64 = torch.float64
WALLS, OPEN, MIXED = ("neumann", "neumann"), ("dirichlet", "dirichlet"), ("dirichlet", "neumann")


def random(*shape, seed=0, dtype=F64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64).to(dtype)


def unit_box(n, sides):
    """``n`` cells along each axis of the unit square or cube."""
    return Box((n,) * len(sides), (1 / n,) * len(sides), tuple(sides))


def centres(box):
    rows = [(torch.arange(n, dtype=F64) + 0.5) * h for n, h in zip(box.cells, box.spacing, strict=True)]
    return torch.meshgrid(*rows, indexing="ij")


def smooth(box):
    """A coefficient between ``exp(-2)`` and ``exp(2)``, on the faces."""
    x = centres(box)
    return on_faces(torch.exp(2 * torch.sin(2 * math.pi * x[0]) * torch.cos(4 * math.pi * x[-1])), box)


def blocks(box, sigma=3.0):
    """Eight blocks along each axis, each with a coefficient of its own, over some six powers of ten; on the faces."""
    field = torch.exp(sigma * random(*(8 for _ in box.cells), seed=1))
    for axis, n in enumerate(box.cells):
        field = field.repeat_interleave(-(-n // 8), axis).narrow(axis, 0, n)
    return on_faces(field, box)


def disc(box, sharp=False):
    """Open fractions of faces around a disc (in 3-D a cylinder): partly closed at its rim, or all or nothing."""
    found = []
    for axis in range(len(box.cells)):
        rows = [
            (torch.arange(box.faces(axis)[other], dtype=F64) + (0.0 if other == axis else 0.5)) * h
            for other, h in enumerate(box.spacing)
        ]
        x = torch.meshgrid(*rows, indexing="ij")
        distance = ((x[0] - 0.41) ** 2 + (x[1] - 0.53) ** 2).sqrt() - 0.17
        found.append((distance > 0).double() if sharp else (distance / min(box.spacing) + 0.5).clamp(0, 1))
    return tuple(found)


def matrix(box, coefficients, reaction=None):
    """``-div c grad + s`` as a dense matrix."""
    wraps = [box.periodic(axis) for axis in range(len(box.cells))]
    size = math.prod(box.cells)
    units = torch.eye(size, dtype=F64).reshape(size, *box.cells)
    return applied(box.links(coefficients), reaction, units, wraps).reshape(size, size)
