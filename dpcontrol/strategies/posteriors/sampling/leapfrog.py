r"""One leapfrog step of all chains, in coordinates in which the mass is the identity."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dpcontrol.strategies.posteriors.sampling.asking import Array, Ask
from dpcontrol.strategies.posteriors.sampling.metric import Metric


@dataclass(slots=True)
class Phase:
    """Points with momenta; ``x, momentum, force (rows, dimension)``, ``gradient`` that of the log-density at ``x``.

    ``momentum`` and ``force`` are those of the metric's coordinates: ``force = L^T gradient``.
    """

    x: Array
    momentum: Array
    log_density: Array
    gradient: Array
    force: Array

    def take(self, rows: Array) -> Phase:
        """Some rows."""
        return Phase(
            self.x[rows], self.momentum[rows], self.log_density[rows], self.gradient[rows], self.force[rows]
        )

    def hamiltonian(self) -> Array:
        """Minus log-density plus kinetic energy, ``(rows,)``."""
        return 0.5 * np.vecdot(self.momentum, self.momentum) - self.log_density


def leapfrog(ask: Ask, metric: Metric, here: Phase, step: Array) -> Phase:
    r"""Half a kick, a drift, half a kick; ``step (rows, 1)`` is negative for a step back in time.

    .. math::
        p_{1/2} = p + \tfrac\epsilon2 L^T g(x), \quad x' = x + \epsilon L p_{1/2}, \quad
        p' = p_{1/2} + \tfrac\epsilon2 L^T g(x')

    Symplectic and reversible; the energy's error over a fixed time is of second order.
    """
    half = 0.5 * step
    middle = here.momentum + half * here.force
    x = here.x + metric.push(step * middle)
    value, gradient = ask(x)
    force = metric.pull(gradient)
    return Phase(x, middle + half * force, value, gradient, force)
