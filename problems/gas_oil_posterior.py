r"""How fast does gas oil crack into gasoline, and how sure can one be of it?

The equation, for the shares y1 of gas oil and y2 of gasoline:

    y1' = -(k1 + k3) y1^2,    y2' = k1 y1^2 - k2 y2

The question: which rates and which scatter of the measurements are plausible, given 20 pairs of measured shares?

==========  ================================================  ====================================================
symbol      prior                                             name and unit (times are space times of the reactor)
==========  ================================================  ====================================================
``y``       state, from (1, 0)                                shares of gas oil and gasoline, 1
``k1``      LogNormal(log 5, 1)                               ``to_gasoline``, 1 / (time, share)
``k2``      LogNormal(log 5, 1)                               ``gasoline_loss``, 1 / time
``k3``      LogNormal(log 1, 1)                               ``to_gases``, 1 / (time, share): past gasoline
``scale``   LogNormal(log 0.02, 1)                            scatter of both shares, 1
==========  ================================================  ====================================================

Solver, times and data are those of ``gas_oil``. The pair at t = 0 is the initial state, known exactly: it is left out,
since two measurements that cannot miss would make the others look more precise than they are.

Unknown: four numbers. Observation: 40 shares, each normal around its prediction with the unknown scale.

Objective: minus the log-density of data and unknown.

k1 and k2 become known to 3 %, k3 to 35 % only: the decay of gas oil tells k1 + k3, and gasoline alone tells them apart.
The model misses something: the first measured share of gas oil lies nearly five scales above the best fit, and all but
one from t = 0.15 on below it. The honest uncertainty is larger than that of independent normal errors.

Metric: ``root_mean_square``, as in ``gas_oil``.

Reference: as in ``gas_oil``, where the least-squares estimate is published: k = (11.847, 8.345, 1.001). No published
posterior; priors and noise model are ours.

There is one experiment: the seed changes nothing.
"""

from __future__ import annotations

import math

import torch
from dpcontrol.problems.gas_oil import HORIZON, SUBSTEPS, Shares, measured, reactor, root_mean_square
from torch.distributions import LogNormal

from dpcontrol.problem import Gaussian, Problem, inference_problem, observe, scene_generator

PRIOR = {
    "to_gasoline": (math.log(5.0), 1.0),
    "gasoline_loss": (math.log(5.0), 1.0),
    "to_gases": (0.0, 1.0),
    "scale": (math.log(0.02), 1.0),
}
DEFAULTS = {
    "full": {"strategy": "nuts", "strategies": ["lbfgs", "laplace", "nuts"], "gradients": 400_000},
    "small": {"strategy": "laplace", "strategies": ["lbfgs", "laplace"], "gradients": 5_000},
}


def problem(*, size: str = "full", seed: int = 0) -> Problem:
    """Cracking of gas oil, as a posterior.

    Args:
        size: ``"full"`` or ``"small"`` (a longer step of the solver; the data are the same).
        seed: a whole number; there is nothing to draw.

    Raises:
        UsageError: for another size or seed.
    """
    scene_generator("gas_oil_posterior", size, seed)
    times, shares = measured()
    return inference_problem(
        reactor(SUBSTEPS[size]),
        data=shares[1:],
        observation=observe(noise=Gaussian("scale"), times=times[1:]),
        initial_state=shares[:1],
        horizon=HORIZON,
        prior={
            name: LogNormal(*torch.tensor(numbers, dtype=torch.float64)) for name, numbers in PRIOR.items()
        },
        metrics={"root_mean_square": root_mean_square},
        plots={"shares": Shares()},
        name="gas_oil_posterior",
    )
