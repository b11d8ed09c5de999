"""Measures solves of div(c grad u) = f: iterations and time, beside a sparse direct solver and the fast transform.

    python tests/benchmarks/variable_poisson.py

Writes ``results/variable_poisson.json``. One thread; CPU seconds, least of several repetitions, competitors in turn.
The sparse solver is SuperLU of SciPy (factorisation and solve); the transform solves the constant coefficient only.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
import scipy.sparse.linalg
import torch
from torch import Tensor

from dpcontrol.linalg import Box, on_faces, poisson, variable_poisson

RESULT = Path(__file__).parent / "results" / "variable_poisson.json"
WALLS, OPEN = ("neumann", "neumann"), ("dirichlet", "dirichlet")
F64 = torch.float64
REPETITIONS = 3


def box_of(n: int, axes: int) -> Box:
    """The unit square or cube, open along x, closed otherwise."""
    return Box((n,) * axes, (1 / n,) * axes, (OPEN, *[WALLS] * (axes - 1)))


def coefficients(box: Box, kind: str) -> tuple[Tensor, ...]:
    """On the faces: smooth over a factor 55, open fractions around a disc, or blocks over six powers of ten."""
    rows = [(torch.arange(n, dtype=F64) + 0.5) * h for n, h in zip(box.cells, box.spacing, strict=True)]
    x = torch.meshgrid(*rows, indexing="ij")
    if kind == "smooth":
        return on_faces(torch.exp(2 * torch.sin(2 * math.pi * x[0]) * torch.cos(4 * math.pi * x[1])), box)
    if kind == "blocks":
        generator = torch.Generator().manual_seed(1)
        field = torch.exp(3 * torch.randn((8,) * len(box.cells), generator=generator, dtype=F64))
        for axis, n in enumerate(box.cells):
            field = field.repeat_interleave(n // 8, axis)
        return on_faces(field, box)
    found = []
    for axis in range(len(box.cells)):
        rows = [
            (torch.arange(box.faces(axis)[other], dtype=F64) + (0.0 if other == axis else 0.5)) * h
            for other, h in enumerate(box.spacing)
        ]
        y = torch.meshgrid(*rows, indexing="ij")
        away = ((y[0] - 0.41) ** 2 + (y[1] - 0.53) ** 2).sqrt() - 0.17
        found.append((away / box.spacing[axis] + 0.5).clamp(0, 1))
    return tuple(found)


def sparse(box: Box, faces: tuple[Tensor, ...]) -> scipy.sparse.csc_matrix:
    """The same operator for SciPy, from differences along each axis; rows of closed cells get a one."""
    parts = []
    for axis, link in enumerate(box.links(faces)):
        n = box.cells[axis]
        along = scipy.sparse.diags([np.ones(n), -np.ones(n)], [0, -1], (n + 1, n))
        factors = [along if other == axis else scipy.sparse.identity(m) for other, m in enumerate(box.cells)]
        gradient = factors[0]
        for factor in factors[1:]:
            gradient = scipy.sparse.kron(gradient, factor)
        parts.append(gradient.T @ scipy.sparse.diags(link.flatten().numpy()) @ gradient)
    matrix = sum(parts)
    empty = np.asarray(matrix.diagonal() == 0, dtype=float)
    return scipy.sparse.csc_matrix(matrix + scipy.sparse.diags(empty))


def least(calls: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """Least CPU milliseconds of each, in turn."""
    found = dict.fromkeys(calls, math.inf)
    for _ in range(REPETITIONS):
        for name, call in calls.items():
            begin = time.process_time()
            call()
            found[name] = min(found[name], 1e3 * (time.process_time() - begin))
    return {name: round(value, 3) for name, value in found.items()}


def measure(n: int, axes: int, kind: str) -> dict[str, Any]:
    """One row of the record."""
    box = box_of(n, axes)
    faces = coefficients(box, kind)
    f = torch.randn(box.cells, generator=torch.Generator().manual_seed(3), dtype=F64)
    solver, direct = (
        variable_poisson(box.cells, box.spacing, box.sides),
        poisson(box.cells, box.spacing, box.sides),
    )
    sought = [part.clone().requires_grad_() for part in faces]
    matrix = sparse(box, faces) if n**axes <= 70_000 else None

    def gradient() -> None:
        torch.autograd.grad(solver.solve(sought, f).square().sum(), sought)

    calls: dict[str, Callable[[], Any]] = {
        "solve": lambda: solver.solve(faces, f),
        "value and gradient": gradient,
        "transform, constant coefficient": lambda: direct.solve(f),
    }
    if matrix is not None:
        calls["SuperLU"] = lambda: scipy.sparse.linalg.spsolve(matrix, f.numpy().ravel())
    solved = solver.solved(faces, f)
    row = {"cells": n**axes, "axes": axes, "coefficient": kind, "iterations": int(solved.iterations)}
    if matrix is not None:
        exact = -scipy.sparse.linalg.spsolve(matrix, f.numpy().ravel()).reshape(box.cells)
        alive = torch.as_tensor(np.asarray(sparse_alive(box, faces)))
        off = (solved.solution - torch.from_numpy(exact))[alive].abs().max()
        row["relative difference from SuperLU"] = float(off / torch.from_numpy(exact)[alive].abs().max())
    return {**row, "milliseconds": least(calls)}


def sparse_alive(box: Box, faces: tuple[Tensor, ...]) -> Tensor:
    """Cells that are linked to a neighbour."""
    total = torch.zeros(box.cells, dtype=F64)
    for axis, link in enumerate(box.links(faces)):
        n = box.cells[axis]
        total = total + link.narrow(axis, 0, n) + link.narrow(axis, 1, n)
    return total > 0


if __name__ == "__main__":
    torch.set_num_threads(1)
    rows = []
    for axes, sizes in ((2, (32, 64, 128, 256, 512)), (3, (16, 32, 64))):
        for kind in ("smooth", "disc", "blocks"):
            for size in sizes:
                rows.append(measure(size, axes, kind))
                print(json.dumps(rows[-1]), flush=True)
    record = {
        "command": "python tests/benchmarks/variable_poisson.py",
        "torch": torch.__version__,
        "threads": 1,
        "tolerance": "1e-10 of the right-hand side, which is noise",
        "rows": rows,
    }
    RESULT.write_text(json.dumps(record, indent=1) + "\n")
