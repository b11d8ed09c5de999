"""The mode of a log-density, near which chains are started."""

from __future__ import annotations

import numpy as np
import scipy.optimize

from dpcontrol.strategies.posteriors.sampling.asking import Array, Ask

STEEP = 10.0  # of the parabola that stands in for what is not finite, relative to the value


def find_mode(ask: Ask, start: Array, iterations: int) -> Array:
    """A point ``(dimension,)`` of about the highest log-density, by L-BFGS from ``start (dimension,)``.

    About: chains are started around it, so it is good enough when an iteration gains less than a thousandth. Where the
    density is zero a steep parabola around the best point so far turns the line search back; a start of density zero
    is returned as it is.
    """
    value, _ = ask(start[None])
    if not np.isfinite(value[0]):
        return start
    best, where = float(value[0]), start

    def cost(x: Array) -> tuple[float, Array]:
        nonlocal best, where
        found, gradient = ask(x[None])
        if not np.isfinite(found[0]):
            way = x - where
            height = STEEP * max(abs(best), 1.0)
            return height - best, 2.0 * height * way / max(float(way @ way), np.finfo(float).tiny)
        if found[0] > best:
            best, where = float(found[0]), x.copy()
        return -float(found[0]), -gradient[0]

    small = 1e-3 / max(abs(best), 1.0)
    options = {"maxiter": iterations, "maxcor": 20, "ftol": small, "gtol": 1e-3}
    scipy.optimize.minimize(cost, start, jac=True, method="L-BFGS-B", options=options)
    return where
