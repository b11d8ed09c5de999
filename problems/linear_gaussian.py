r"""Where was a shaken oscillator, when only its position was measured, and not well?

The equation, an oscillator driven by white noise w:

    x'' + 2 zeta omega x' + omega^2 x = q w(t)

The question: which paths of position and speed, and which shocks on the way, are plausible, given noisy measurements of
the position at every second step?

============  ================================================  =======================================
symbol        value                                             unit
============  ================================================  =======================================
``x, x'``     state                                             m, m/s
``omega``     1, natural frequency                              1/s
``zeta``      0.1, damping                                      1
``q``         0.5, strength of the noise                        m/s^(3/2)
``dt``        0.25                                              s
``N``         40 steps (12 in the small size)                   1
``x_0``       N(m_0, P_0), m_0 = (1, 0), P_0 = diag(0.5^2)      m, m/s
``w_k``       N(0, 1), two numbers for each step                1
``y_k``       N(x_k, 0.2), k = 2, 4, .., N                      m
============  ================================================  =======================================

In discrete time it is exactly x_{k+1} = A x_k + L w_k with A = exp(F dt) and L the Cholesky factor of
Q = int_0^dt exp(F s) (0, q)^T (0, q) exp(F s)^T ds, both from one matrix exponential.

Unknown: the initial state and all shocks, 2 + 2 N numbers. Observation: the position at the even steps. The data are
drawn from the model; ``truth`` has what they were drawn from.

Objective: minus the log-density of data and unknown, a quadratic function.

The posterior is normal and known: with y = c + M z + noise of covariance R for z = (x_0 - m_0, w), its covariance is
(P^-1 + M^T R^-1 M)^-1. Means and standard deviations of that dense form are ``problem().reference_posterior``; the
tests find the same by a smoother that goes forwards and backwards in time.

Metric: ``position_error``, root mean square distance of the path from the true one, in metres.

Reference: H. Rauch, F. Tung, C. Striebel, "Maximum likelihood estimates of linear dynamic systems", AIAA Journal 3
(1965); S. Sarkka, "Bayesian Filtering and Smoothing" (2013), section 8.2; the matrix exponential: C. Van Loan, IEEE
Trans. Automatic Control 23 (1978). No published number for these values: the closed form is the reference.

The seed draws truth and data.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import Normal

from dpcontrol.engine import Trajectory, rollout
from dpcontrol.problem import Gaussian, Problem, inference_problem, observe, scene_generator
from dpcontrol.sim import FunctionSimulator

FREQUENCY, DAMPING, DRIVE, DT, SCALE = 1.0, 0.1, 0.5, 0.25, 0.2
MEAN, SPREAD = (1.0, 0.0), 0.5
STEPS = {"full": 40, "small": 12}
DEFAULTS = {
    "full": {"strategy": "nuts", "strategies": ["lbfgs", "laplace", "nuts"], "gradients": 400_000},
    "small": {"strategy": "laplace", "strategies": ["lbfgs", "laplace"], "gradients": 5_000},
}


class Model(NamedTuple):
    """``x_{k+1} = A x_k + L w_k``, both ``(2, 2)``."""

    A: Tensor
    L: Tensor


def problem(*, size: str = "full", seed: int = 0) -> Problem:
    """A linear-Gaussian smoothing problem.

    Args:
        size: ``"full"`` (40 steps) or ``"small"`` (12).
        seed: draws truth and data.

    Raises:
        UsageError: for another size or seed.
    """
    generator = scene_generator("linear_gaussian", size, seed)
    steps = STEPS[size]
    truth = {
        "initial_state": torch.tensor([MEAN], dtype=torch.float64) + SPREAD * draw(generator, 1, 2),
        "noise": draw(generator, 1, steps, 2),
    }
    seen = range(2, steps + 1, 2)
    simulator = oscillator()
    path = rollout(simulator, truth["initial_state"], noise=truth["noise"].transpose(0, 1)).states
    data = path[list(seen)][..., :1] + SCALE * draw(generator, len(seen), 1, 1)
    return inference_problem(
        simulator,
        data=data,
        observation=observe(position, noise=Gaussian(SCALE), steps=seen),
        initial_state=torch.zeros(1, 2, dtype=torch.float64),
        horizon=steps,
        scenarios={"true_path": path.transpose(0, 1)},
        prior={
            "initial_state": Normal(torch.tensor(MEAN, dtype=torch.float64), SPREAD),
            "noise": Normal(*torch.tensor([0.0, 1.0], dtype=torch.float64)),
        },
        truth=truth,
        reference_posterior=closed_form(data[:, 0, 0], steps),
        metrics={"position_error": position_error},
        plots={"paths": Paths()},
        name="linear_gaussian",
    )


def oscillator() -> FunctionSimulator:
    """The system with its noise as an input of each step."""
    model = discrete()

    def step(state: Tensor, control: None, *, noise: Tensor) -> Tensor:
        return state @ model.A.T.to(state) + noise @ model.L.T.to(noise)

    return FunctionSimulator(step, dt=DT)


def discrete() -> Model:
    """The exact discrete model, by the exponential of a matrix of twice the size."""
    F = torch.tensor([[0.0, 1.0], [-(FREQUENCY**2), -2 * DAMPING * FREQUENCY]], dtype=torch.float64)
    G = torch.tensor([[0.0, 0.0], [0.0, DRIVE**2]], dtype=torch.float64)
    both = torch.cat((torch.cat((-F, G), 1), torch.cat((torch.zeros_like(F), F.T), 1)))
    found = torch.linalg.matrix_exp(both * DT)
    A = found[2:, 2:].T
    return Model(A, torch.linalg.cholesky(A @ found[:2, 2:]))


def position(state: Tensor) -> Tensor:
    """What is measured, ``(scenarios, 1)``."""
    return state[:, :1]


def draw(generator: torch.Generator, *shape: int) -> Tensor:
    """Standard normal numbers."""
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def influence(steps: int) -> Tensor:
    """How states depend on ``(x_0, w_0, .., w_{N-1})``: ``(steps + 1, 2, 2 + 2 steps)``."""
    model = discrete()
    rows = [torch.cat((torch.eye(2, dtype=torch.float64), torch.zeros(2, 2 * steps).double()), 1)]
    for k in range(steps):
        new = torch.zeros(2, 2 + 2 * steps, dtype=torch.float64)
        new[:, 2 + 2 * k : 4 + 2 * k] = model.L
        rows.append(model.A @ rows[-1] + new)
    return torch.stack(rows)


def dense_posterior(data: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Mean ``(2 + 2 steps,)`` and covariance of ``(x_0, w)`` given positions ``(steps // 2,)``."""
    M = influence(steps)[2::2, 0]
    prior_mean = torch.cat((torch.tensor(MEAN, dtype=torch.float64), torch.zeros(2 * steps).double()))
    precision = torch.ones(2 + 2 * steps, dtype=torch.float64)
    precision[:2] = SPREAD**-2
    covariance = torch.linalg.inv(torch.diag(precision) + M.T @ M / SCALE**2)
    return prior_mean + covariance @ M.T @ (data - M @ prior_mean) / SCALE**2, covariance


def closed_form(data: Tensor, steps: int) -> dict[str, tuple[Tensor, Tensor]]:
    """Posterior means and standard deviations by site, in the layout of what is sought."""
    mean, covariance = dense_posterior(data, steps)
    sd = covariance.diagonal().sqrt()
    return {
        "initial_state": (mean[None, :2], sd[None, :2]),
        "noise": (mean[2:].reshape(1, steps, 2), sd[2:].reshape(1, steps, 2)),
    }


def position_error(trajectory: Trajectory, scenario: Mapping[str, Any]) -> Tensor:
    """Root mean square distance from the true positions, ``(scenarios,)``."""
    away = trajectory.states[..., 0] - scenario["true_path"].transpose(0, 1)[..., 0]
    return away.square().mean(0).sqrt()


class Paths:
    """The figure: positions and speeds, the truth, the exact band of two standard deviations, and each solution."""

    def __call__(self, figure: Any, solutions: Mapping[str, Any]) -> None:
        first = next(iter(solutions.values())).trajectory()
        problem = next(iter(solutions.values())).problem
        figure.set_size_inches(11.0, 5.6)
        panels = figure.subplots(2, 1, sharex=True)
        if problem is not None:
            self._known(panels, problem)
        for label, solution in solutions.items():
            path = solution.trajectory().states[:, 0].cpu()
            for part, axes in enumerate(panels):
                axes.plot(first.times, path[:, part], lw=1.4, label=label)
        panels[0].set_ylabel("position, m")
        panels[1].set(ylabel="speed, m/s", xlabel="time, s")
        panels[0].legend(ncols=4, fontsize=9)

    def _known(self, panels: Any, problem: Problem) -> None:
        data = problem.scenarios.data
        measured = next(value for name, value in data.items() if name.startswith("data"))[0, :, 0].cpu()
        mean, covariance = dense_posterior(measured, problem.horizon)
        reach = influence(problem.horizon)
        middle = reach @ mean
        spread = torch.einsum("kia,ab,kib->ki", reach, covariance, reach).sqrt()
        times = DT * torch.arange(problem.horizon + 1)
        for part, axes in enumerate(panels):
            low, high = middle[:, part] - 2 * spread[:, part], middle[:, part] + 2 * spread[:, part]
            axes.fill_between(times, low, high, color="0.85", label="exact posterior, 2 sd")
            axes.plot(times, data["true_path"][0, :, part].cpu(), color="black", lw=1.0, label="truth")
        panels[0].plot(times[2::2], measured, "o", ms=4, color="0.4", label="measured")
