"""Measures the direct solves of ``block_diffusion``: value and gradient, beside other factorisations of the matrix.

    python tests/benchmarks/block_solves.py

Writes ``results/block_solves.json``. The equation is that of ``poisson_inversion``: 8 x 8 blocks on 32 x 32 squares,
961 unknowns. One thread; CPU microseconds per row of a batch, least of several repetitions, competitors in turn:

``fronts``
    ours: one factorisation front by front, two solves, the gradient in the 64 coefficients; compiled loops.
``function``
    the same through ``simulator.solve`` and autograd, with a sum of squares at the end: what a user calls.
``banded``
    SciPy (LAPACK ``pbtrf`` and ``pbtrs``) of the 961 unknowns row by row, half-bandwidth 32, two solves, without the
    assembly of the matrix and without the gradient.
``dense``
    ``torch.linalg.cholesky`` and two ``cholesky_solve`` of the 385 unknowns between the blocks, batched, likewise; that
    is what runs where Numba is missing.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.linalg
import torch
from torch import Tensor

from dpcontrol.sim import block_diffusion

RESULT = Path(__file__).parent / "results" / "block_solves.json"
COMMAND = "python tests/benchmarks/block_solves.py"
F64 = torch.float64
REPETITIONS, CALLS = 30, 10
BLOCKS, CELLS = (8, 8), 4


def least(calls: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """Least CPU microseconds of each, in turn."""
    found = dict.fromkeys(calls, math.inf)
    for _ in range(REPETITIONS):
        for name, call in calls.items():
            begin = time.process_time()
            for _ in range(CALLS):
                call()
            found[name] = min(found[name], 1e6 * (time.process_time() - begin) / CALLS)
    return found


def banded(field: Any, theta: Tensor) -> list[np.ndarray]:
    """The matrices of all rows as LAPACK keeps them, ``(33, 961)``."""
    nodes = field.box.cells[0] + 1
    system = field.system
    inside = np.arange(nodes * nodes).reshape(nodes, nodes)[1:-1, 1:-1].reshape(-1)
    units = torch.eye(nodes * nodes, dtype=F64)
    matrices = []
    for row in theta:
        full = system.apply(row.expand(len(units), -1), units).numpy()[np.ix_(inside, inside)]
        band = np.zeros((nodes, len(inside)))
        for k in range(nodes):
            band[k, : len(inside) - k] = np.diag(full, -k)
        matrices.append(band)
    return matrices


def measure(rows: int) -> dict[str, Any]:
    """One row of the record."""
    generator = torch.Generator().manual_seed(rows)
    simulator = block_diffusion(BLOCKS, cells=CELLS, source=10.0)
    field = simulator.solve
    fronts, source = field.system.fronts, torch.tensor(10.0, dtype=F64)
    theta = torch.randn(rows, 64, generator=generator, dtype=F64).exp()
    load = field.load(source).expand(rows, -1).contiguous()
    cotangent = torch.randn(load.shape, generator=generator, dtype=F64)
    bands = banded(field, theta)
    right = np.ones(961)
    size = len(fronts.plan.spots)
    rings = torch.from_numpy(fronts.plan.rings)
    where = (rings[:, :, None] * (size + 1) + rings[:, None, :]).reshape(-1)
    parts = theta[:, :, None, None] * torch.from_numpy(fronts.block.schur)
    matrix = torch.zeros(rows, (size + 1) ** 2, dtype=F64).index_add(1, where, parts.flatten(1))
    matrix = matrix.unflatten(1, (size + 1, size + 1))[:, :size, :size].contiguous()
    ones = torch.ones(rows, size, 1, dtype=F64)

    def by_fronts() -> Tensor:
        factors = fronts.factor(theta)
        u = fronts.solve(theta, factors, load)
        return fronts.energies(fronts.solve(theta, factors, cotangent), u)

    def by_function() -> Tensor:
        leaf = theta.view(rows, *BLOCKS).detach().requires_grad_()
        u = field({"coefficient": leaf, "source": source})
        return torch.autograd.grad(u.square().sum(), leaf)[0]

    def by_bands() -> None:
        for band in bands:
            factor = scipy.linalg.cholesky_banded(band, lower=True, check_finite=False)
            for _ in range(2):
                scipy.linalg.cho_solve_banded((factor, True), right, check_finite=False)

    def by_dense() -> None:
        factor = torch.linalg.cholesky(matrix)
        for _ in range(2):
            torch.cholesky_solve(ones, factor)

    factors = fronts.factor(theta)
    calls: dict[str, Callable[[], Any]] = {
        "fronts": by_fronts,
        "function": by_function,
        "banded": by_bands,
        "dense": by_dense,
        "factor": lambda: fronts.factor(theta),
        "solve": lambda: fronts.solve(theta, factors, load),
        "energies": lambda: fronts.energies(load, cotangent),
    }
    for call in calls.values():
        call()
    took = {name: round(value / rows, 1) for name, value in least(calls).items()}
    ratios = {
        f"{name}_over_fronts": round(took[name] / took["fronts"], 2)
        for name in ("banded", "dense", "function")
    }
    return {"rows": rows, "microseconds_per_row": took, **ratios}


def main() -> None:
    torch.set_num_threads(1)
    plan = block_diffusion(BLOCKS, cells=CELLS).solve.system.fronts.plan
    record = {
        "command": COMMAND,
        "unknowns": 961,
        "between_blocks": len(plan.spots),
        "factor_entries": plan.entries,
        "factor_products": plan.updates,
        "banded_products": 961 * 32 * 33 // 2,
        "rows": [measure(rows) for rows in (1, 2, 4, 6, 8, 16)],
    }
    RESULT.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
