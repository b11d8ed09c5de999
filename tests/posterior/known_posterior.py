"""A problem whose posterior is known, and draws from it."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal

import dpcontrol as dp
from dpcontrol.posterior import Draws
from dpcontrol.problem import Problem, observe, replicate, with_measurements

TRUTH = {
    "slope": torch.tensor(0.3, dtype=torch.float64),
    "kick": torch.tensor([0.5, -0.2], dtype=torch.float64),
}
NOISE = 0.2


def ramp(state: Tensor, control: None, *, parameters: dict[str, Tensor]) -> Tensor:
    """Two numbers that both grow by the slope, from a kick at the beginning of each step: linear in all parameters."""
    return 0.8 * state + parameters["slope"] + parameters["kick"]


def line(seed: int = 0, noise: float = NOISE) -> Problem:
    """Slope ~ N(0, 1), kick ~ N(0, 4 I), six measurements with known Gaussian noise."""
    number = {"dtype": torch.float64}
    problem = dp.inference_problem(
        ramp,
        data=torch.ones(3, 1, 2, **number),
        observation=observe(noise=dp.Gaussian(noise), steps=[1, 2, 5]),
        initial_state=torch.zeros(1, 2, **number),
        horizon=5,
        prior={
            "slope": Normal(torch.tensor(0.0, **number), torch.tensor(1.0, **number)),
            "kick": MultivariateNormal(torch.zeros(2, **number), 4 * torch.eye(2, **number)),
        },
        truth=TRUTH,
        reference_posterior={"slope": (0.2, 0.5)},
        name="line",
    )
    z = {"parameters": TRUTH}
    measured = replicate(problem, z, torch.Generator().manual_seed(seed))
    return replace(with_measurements(problem, measured), joint=True)


def exact_posterior(problem: Problem) -> MultivariateNormal:
    """The posterior of slope and kick: means and covariance of a linear model with Gaussian prior and noise."""
    kicks = torch.tensor([sum(0.8**j for j in range(k)) for k in (1, 2, 5)], dtype=torch.float64)
    rows = torch.cat([torch.stack([kicks, kicks, 0 * kicks], 1), torch.stack([kicks, 0 * kicks, kicks], 1)])
    data = problem.scenarios.data[problem.objective.terms[0][1].data][0].T.reshape(-1)
    prior = torch.diag(torch.tensor([1.0, 0.25, 0.25], dtype=torch.float64))
    covariance = torch.linalg.inv(rows.T @ rows / NOISE**2 + prior)
    return MultivariateNormal(covariance @ rows.T @ data / NOISE**2, covariance)


def exact_draws(
    problem: Problem, chains: int = 4, count: int = 500, seed: int = 0, **fields: object
) -> Draws:
    """Independent draws from the posterior, as if they were chains."""
    generator = torch.Generator().manual_seed(seed)
    found = exact_posterior(problem)
    noise = torch.randn(chains, count, 3, dtype=torch.float64, generator=generator)
    natural = found.mean + noise @ found.scale_tril.T
    free = natural / torch.tensor([1.0, 2.0, 2.0], dtype=torch.float64)  # white: the prior's sds
    return Draws(free, found.log_prob(natural), **fields)
