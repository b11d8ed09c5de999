"""The numbers by which draws of many parameters are looked at: entries of small sites, summaries of fields."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dpcontrol import tree
from dpcontrol.posterior.summary import entry_labels
from dpcontrol.problem.base import Problem
from dpcontrol.problem.sites import sites

FEW = 6  # a site with more entries is looked at by three of them, its mean and its norm


def quantities(problem: Problem, free: Tensor) -> dict[str, np.ndarray]:
    """Named scalars ``(rows,)`` of free numbers ``(rows, dimension)``, in natural numbers.

    Of a site with few entries each one; of others the first, the middle and the last entry, the mean and the
    root mean square.
    """
    template = problem.unknown.free(problem.start())
    with torch.no_grad():
        like = tree.leaves(template)[0]
        z = problem.unknown.natural(tree.unravel(free.to(like), template))
    found: dict[str, np.ndarray] = {}
    for name, value in sites(z).items():
        rows = value.detach().to("cpu", torch.float64).numpy()
        flat = rows.reshape(len(rows), -1)
        labels = entry_labels(name, rows.shape[1:], problem.simulator.state_names)
        count = flat.shape[1]
        chosen = range(count) if count <= FEW else (0, count // 2, count - 1)
        found.update({labels[k]: flat[:, k] for k in chosen})
        if count > FEW:
            found[f"mean of {name}"] = flat.mean(1)
            found[f"rms of {name}"] = np.sqrt(np.square(flat).mean(1))
    return found


def free_rows(problem: Problem, draws: list[dict[str, tree.Tree]]) -> Tensor:
    """Natural ``z`` of several draws as free numbers ``(rows, dimension)``."""
    return torch.stack([tree.ravel(problem.unknown.free(z)) for z in draws])
