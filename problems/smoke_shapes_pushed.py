r"""Smoke in one shape is to become smoke in another shape, by pushing the air that carries it, in 16 steps.

The equations, in a closed box 64 x 64, at rest at the start:

    s_t + u . grad s = 0,   u_t + u . grad u = -grad p + F,   div u = 0

The question: which forces F, one field for each step, drive the fluid so that it carries the start shape into the
target shape? This is ``smoke_shapes`` with ``dynamic=True``: the same pairs of shapes, but the velocity is no longer
chosen anew in every step; what was set in motion goes on moving.

=====================  =========================================================  ==============================
symbol                 value                                                      unit
=====================  =========================================================  ==============================
``s``                  marker, 64 x 64 cells of size 1; 1 inside of a shape       1
``u``                  velocity on the free faces, 63 x 64 and 64 x 63            cells per step
``F``                  control, 64 x 64 cell centres, two components              cells per step^2
``dt``, ``N``          1, 16 steps                                                step
=====================  =========================================================  ==============================

Unknown: the force of every step, 16 x 8,192 numbers for each pair, unbounded; it starts from the forces that would make
the flow of ``smoke_shapes.carrying``. float32.

Objective of each pair: sum over cells of (s_16 - target)^2 + 0.01 E with the effort E = 0.5 sum F^2, mean over the
steps.

Metrics: those of ``smoke_shapes``; ``floor`` is the lowest ``relative_error`` at conserved mass.

Reference: P. Holl, V. Koltun, N. Thuerey, "Learning to control PDEs with differentiable physics", ICLR 2020, where the
velocity is chosen freely; published there: relative error 0.0545, by a trained network.
"""

from __future__ import annotations

from dpcontrol.problems import smoke_shapes

from dpcontrol.problem import Problem

DEFAULTS = smoke_shapes.DEFAULTS


def problem(*, size: str = "full", seed: int = 0) -> Problem:
    """Shape transitions by forces.

    Args:
        size: ``"full"`` (20 pairs) or ``"small"`` (4).
        seed: draws shapes and places.

    Raises:
        UsageError: for another size or seed.
    """
    return smoke_shapes.problem(size=size, seed=seed, dynamic=True)
