"""A linear-Gaussian problem whose posterior is known: ``x_{k+1} = 0.9 x_k + push`` from an unknown start."""

import torch
from torch.distributions import Normal

from dpcontrol import Gaussian, inference_problem, observe

F64 = torch.float64
STEPS, DECAY, SCALE = 5, 0.9, 0.3
MISSING = (2, 4)


def design():
    """``x_k = a_k start + b_k push``: ``(STEPS + 1, 2)``."""
    rows = [torch.tensor([1.0, 0.0], dtype=F64)]
    for _ in range(STEPS):
        rows.append(DECAY * rows[-1] + torch.tensor([0.0, 1.0], dtype=F64))
    return torch.stack(rows)


def line(missing=MISSING, seed=0, **changes):
    noise = torch.randn(STEPS + 1, generator=torch.Generator().manual_seed(seed), dtype=F64)
    data = design() @ torch.tensor([1.2, 0.3], dtype=F64) + SCALE * noise
    data[list(missing)] = float("nan")
    fields = {
        "data": data[:, None, None],
        "observation": observe(noise=Gaussian(SCALE)),
        "initial_state": torch.zeros(1, 1, dtype=F64),
        "horizon": STEPS,
        # single precision on purpose: everything is to be done in the precision of the state
        "prior": {"push": Normal(0.0, 0.5), "initial_state": Normal(1.0, 1.0)},
        "name": "line",
    }
    return inference_problem(step, **{**fields, **changes})


def step(x, u, *, parameters):
    return DECAY * x + parameters["push"]


def posterior(problem):
    """Exact mean and covariance of ``(start, push)``."""
    data = problem.scenarios.data["data"].reshape(-1)
    there = ~torch.isnan(data)
    A, y = design()[there], data[there]
    precision = torch.diag(torch.tensor([1.0, 0.5], dtype=F64) ** -2)
    covariance = torch.linalg.inv(precision + A.T @ A / SCALE**2)
    mean = covariance @ (precision @ torch.tensor([1.0, 0.0], dtype=F64) + A.T @ y / SCALE**2)
    return mean, covariance
