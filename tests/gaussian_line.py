"""A linear-Gaussian problem whose posterior is known: ``x_{k+1} = 0.9 x_k + push`` from an unknown start."""

from dataclasses import dataclass, replace

import torch
from torch.distributions import Normal

from dpcontrol import Gaussian, inference_problem, observe
from dpcontrol.posterior import Draws
from dpcontrol.results import Status
from dpcontrol.run import Outcome, Strategy

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


def posterior(problem, scale=SCALE):
    """Exact mean and covariance of ``(start, push)``."""
    data = problem.scenarios.data["data"].reshape(-1)
    there = ~torch.isnan(data)
    A, y = design()[there], data[there]
    precision = torch.diag(torch.tensor([1.0, 0.5], dtype=F64) ** -2)
    covariance = torch.linalg.inv(precision + A.T @ A / scale**2)
    mean = covariance @ (precision @ torch.tensor([1.0, 0.0], dtype=F64) + A.T @ y / scale**2)
    return mean, covariance


@dataclass(frozen=True)
class Exact(Strategy):
    """Draws from the closed form; or, to be found out, with a wrong noise scale, shifted ones, or from the prior alone.

    Args:
        draws: how many, in two chains.
        noise: factor of the noise's scale that is believed in.
        shift: of the means, in standard deviations.
        prior: draw from the prior, as if there were no data.
        failing: share of runs that give no draws.
    """

    draws: int = 64
    noise: float = 1.0
    shift: float = 0.0
    prior: bool = False
    failing: float = 0.0

    @property
    def stochastic(self):
        return True

    def pose(self, problem):
        return replace(problem, joint=True)

    def run(self, meter, generator):
        mean, covariance = posterior(meter.problem, SCALE * self.noise)
        if self.prior:
            mean = torch.tensor([1.0, 0.0], dtype=F64)
            covariance = torch.diag(torch.tensor([1.0, 0.25], dtype=F64))
        if float(torch.rand((), generator=generator)) < self.failing:
            return Status("failed", "the coin fell on the other side.")
        noise = torch.randn(self.draws, 2, generator=generator, dtype=F64)
        sd = covariance.diagonal().sqrt()
        found = mean + self.shift * sd + noise @ torch.linalg.cholesky(covariance).T
        free = torch.stack([found[:, 1] / 0.5, found[:, 0] - 1.0], 1)  # white: the push comes first
        density = meter.log_densities(free)
        chains = free.reshape(2, -1, 2)
        return Outcome(
            Status("converged", "drawn."), draws=Draws(chains, density.reshape(2, -1), kind="mcmc")
        )
