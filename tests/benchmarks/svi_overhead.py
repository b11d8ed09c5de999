"""What an iteration of variational inference costs beyond the gradients of the log-density, here and in Pyro.

The same posterior (normal, 20 unknowns), the same number of particles as one batch, the same kind of guide. Both hand
over the log-density as a function of a batch; ours goes through the meter, which counts and keeps the best. CPU time
per iteration, least of several repetitions, interleaved.

    python tests/benchmarks/svi_overhead.py
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.distributions import Normal

from dpcontrol.meter import Meter
from dpcontrol.problem import Gaussian, inference_problem, observe
from dpcontrol.strategies.posteriors.guides import first_guide
from dpcontrol.strategies.posteriors.svi import SVI, Fit

RESULT = Path(__file__).parent / "results" / "svi_overhead.json"
SIZE, PARTICLES, ITERATIONS, REPETITIONS = 20, 16, 50, 7
F64 = torch.float64
GUIDES = {
    "mean_field": "AutoDiagonalNormal",
    "low_rank": "AutoLowRankMultivariateNormal",
    "full": "AutoMultivariateNormal",
}


def problem():
    """A posterior of as little simulation as possible: one step, which adds the unknown."""
    return inference_problem(
        lambda state, control, *, parameters: state + parameters["theta"],
        data=torch.ones(1, 1, SIZE, dtype=F64),
        observation=observe(noise=Gaussian(0.5), steps=[1]),
        initial_state=torch.zeros(1, SIZE, dtype=F64),
        horizon=1,
        prior={"theta": Normal(torch.zeros(SIZE, dtype=F64), 1.0)},
    )


def ours(kind: str) -> tuple[Callable[[], None], Callable[[], None]]:
    """An iteration, and its question alone."""
    strategy = SVI(guide=kind, particles=PARTICLES)
    meter = Meter(strategy.pose(problem()))
    generator = torch.Generator().manual_seed(0)
    first = first_guide(kind, torch.zeros(SIZE, dtype=F64), torch.full((SIZE,), 0.4, dtype=F64), 5)
    fit = Fit(first, 0.1)
    x = torch.randn(PARTICLES, SIZE, generator=generator, dtype=F64)
    return lambda: strategy._improve(
        fit, meter, generator
    ), lambda: meter.log_densities_and_gradients(x) and None


def pyros(kind: str) -> tuple[Callable[[], None], Callable[[], None]]:
    """The same in Pyro, with the log-density as a factor of a model with vectorised particles."""
    import pyro
    import pyro.distributions as dist
    from pyro.infer import SVI as PyroSVI
    from pyro.infer import Trace_ELBO, autoguide

    pyro.clear_param_store()

    def log_density(x):
        return -0.5 * x.square().sum(-1) - 0.5 * ((1.0 - x) / 0.5).square().sum(-1)

    def model():
        x = pyro.sample("x", dist.Normal(torch.zeros(SIZE, dtype=F64), 1.0).to_event(1))
        pyro.factor("data", -0.5 * ((1.0 - x) / 0.5).square().sum(-1))

    guide = getattr(autoguide, GUIDES[kind])(model)
    elbo = Trace_ELBO(num_particles=PARTICLES, vectorize_particles=True, max_plate_nesting=0)
    svi = PyroSVI(model, guide, pyro.optim.Adam({"lr": 0.01}), elbo)
    x = torch.randn(PARTICLES, SIZE, dtype=F64)

    def question():
        point = x.detach().requires_grad_()
        torch.autograd.grad(log_density(point).sum(), point)

    return lambda: svi.step() and None, question


def least(call: Callable[[], None]) -> float:
    """Milliseconds of CPU time per call."""
    begin = time.process_time()
    for _ in range(ITERATIONS):
        call()
    return 1e3 * (time.process_time() - begin) / ITERATIONS


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows = {}
    for kind in GUIDES:
        calls = {"ours": ours(kind), "pyro": pyros(kind)}
        times: dict[str, list[float]] = {}
        for _ in range(REPETITIONS):
            for who, (iteration, question) in calls.items():
                times.setdefault(f"{who}_iteration_ms", []).append(least(iteration))
                times.setdefault(f"{who}_question_ms", []).append(least(question))
        row = {name: min(found) for name, found in times.items()}
        for who in calls:
            row[f"{who}_overhead_ms"] = row[f"{who}_iteration_ms"] - row[f"{who}_question_ms"]
        rows[kind] = {name: round(value, 3) for name, value in row.items()}
        print(kind, rows[kind], flush=True)
    record = {
        "command": "python tests/benchmarks/svi_overhead.py",
        "unknowns": SIZE,
        "particles": PARTICLES,
        "torch": torch.__version__,
        "rows": rows,
    }
    RESULT.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
