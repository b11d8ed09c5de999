"""Semi-Lagrangian Burgers in one dimension: a run of many steps of every scenario, and its adjoint.

The scheme is that of :class:`~dpcontrol.sim.burgers_semi_lagrangian.SemiLagrangianBurgers`. A scenario is run from its
first step to its last before the next one: all that it needs stays in the innermost cache.

The diffused field ``d`` stands in a row with two ghost cells at either end, zero or those of the other end; cell ``i``
at ``i + 2``. Wherever a point comes from, NaN and infinity included, it is looked up inside of the row. Constants are
made in the dtype of the data: a plain literal would take float32 to float64. All functions stand in one file, because
Numba's cache on disk looks at the file of the outermost one only.
"""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import numpy as np

from dpcontrol.kernels.loops.compiling import compiled


@compiled
def run(state, controls, spread, numbers, periodic, count, states, chunk):
    """The states behind every step, of the scenarios from ``chunk[0]`` up to ``chunk[1]``.

    ``state`` and ``controls`` are pairs of flat memory and strides, for the axes (scenarios, cells) and (steps,
    scenarios, cells); ``spread`` is ``nu dt / h^2``, ``(scenarios,)``; ``numbers`` are ``dt`` and ``dt/h``; a step is
    ``count`` substeps of ``dt``, with the control held; ``states`` ``(steps, scenarios, cells)`` is written.
    """
    dt, courant = numbers
    steps, cells = len(states), states.shape[2]
    u, force, row = (
        np.zeros(cells, spread.dtype),
        np.zeros(cells, spread.dtype),
        np.zeros(cells + 4, spread.dtype),
    )
    weight, corner = np.zeros(cells, spread.dtype), np.zeros(cells, np.int64)
    one = spread.dtype.type(1.0)
    for s in range(chunk[0], chunk[1]):
        _load(state[0], s * state[1][0], state[1][1], one, u)
        for k in range(steps):
            _load(controls[0], k * controls[1][0] + s * controls[1][1], controls[1][2], dt, force)
            for _ in range(count):
                _diffuse(u, spread[s], periodic, row)
                _trace(row, courant, periodic, weight, corner)
                _look_up(row, weight, corner, force, u)
            out = states[k, s]
            for i in range(cells):
                out[i] = u[i]


@compiled
def pull(
    state, states, controls, spread, numbers, periodic, count, above, wanted, of_state, of_controls, of_spread, chunk
):  # fmt: skip
    """The vector-Jacobian product of :func:`run`: the states inside a step are computed again from its first one.

    ``above`` are the cotangents of ``states``, as flat memory and strides; ``wanted`` says whether gradients of the
    controls and of ``spread`` are asked for; ``of_state``, ``of_controls`` and ``of_spread`` are written.
    """
    dt, courant = numbers
    steps, cells = len(states), states.shape[2]
    kind, zero, one = spread.dtype, spread.dtype.type(0.0), spread.dtype.type(1.0)
    starts, force, carried = np.zeros((count, cells), kind), np.zeros(cells, kind), np.zeros(cells, kind)
    push, total, row, of_row = (
        np.zeros(cells, kind),
        zero,
        np.zeros(cells + 4, kind),
        np.zeros(cells + 4, kind),
    )
    weight, corner, u = np.zeros(cells, kind), np.zeros(cells, np.int64), np.zeros(cells, kind)
    for s in range(chunk[0], chunk[1]):
        carried[:], total = zero, zero
        for k in range(steps - 1, -1, -1):
            if k == 0:
                _load(state[0], s * state[1][0], state[1][1], one, u)
            else:
                _load(states[k - 1, s], 0, 1, one, u)
            starts[0] = u
            if count > 1:
                _load(controls[0], k * controls[1][0] + s * controls[1][1], controls[1][2], dt, force)
                for c in range(1, count):
                    _diffuse(u, spread[s], periodic, row)
                    _trace(row, courant, periodic, weight, corner)
                    _look_up(row, weight, corner, force, u)
                    starts[c] = u
            place, step = k * above[1][0] + s * above[1][1], above[1][2]
            _load(above[0], place, step, one, u)
            for i in range(cells):
                carried[i] += u[i]
            push[:] = zero
            for c in range(count - 1, -1, -1):
                for i in range(cells):
                    push[i] += carried[i]
                _diffuse(starts[c], spread[s], periodic, row)
                _trace(row, courant, periodic, weight, corner)
                _look_up_back(row, weight, corner, courant, periodic, carried, of_row)
                if wanted[1]:
                    total += _pull_spread(starts[c], of_row, periodic)
                _diffuse_back(of_row, spread[s], periodic, carried)
            if wanted[0]:
                out = of_controls[k, s]
                for i in range(cells):
                    out[i] = dt * push[i]
        of_state[s] = carried
        of_spread[s] = total


@compiled
def _load(flat, begin, step, factor, u):
    if step == 1:  # nearly always, and then a loop of vector instructions
        row = flat[begin : begin + len(u)]
        for i in range(len(u)):
            u[i] = factor * row[i]
    else:
        for i in range(len(u)):
            u[i] = factor * flat[begin + i * step]


@compiled
def _diffuse(u, spread, periodic, row):
    """``u_i + spread (u_{i-1} - 2 u_i + u_{i+1})`` into the row, and its ghost cells."""
    n = len(u)
    zero = u.dtype.type(0.0)
    for i in range(1, n - 1):
        row[i + 2] = u[i] + spread * ((u[i - 1] + u[i + 1]) - (u[i] + u[i]))
    before, behind = (u[n - 1], u[0]) if periodic else (zero, zero)
    row[2] = u[0] + spread * ((before + u[1]) - (u[0] + u[0]))
    row[n + 1] = u[n - 1] + spread * ((u[n - 2] + behind) - (u[n - 1] + u[n - 1]))
    if periodic:
        row[0], row[1], row[n + 2], row[n + 3] = row[n], row[n + 1], row[2], row[3]


@compiled
def _trace(row, courant, periodic, weight, corner):
    """Where the points were ``dt`` ago: the place in the row of the cell before, and how far behind it."""
    n = len(weight)
    zero, two, size = row.dtype.type(0.0), row.dtype.type(2.0), row.dtype.type(n)
    top = size + row.dtype.type(1.0 if periodic else 2.0)
    for i in range(n):
        distance = -courant * row[i + 2]
        whole = np.floor(distance)
        weight[i] = distance - whole
        at = row.dtype.type(i) + whole
        if periodic:
            at = at - size * np.floor(at / size)
            at = at - size if at >= size else at
        at = at + two
        at = at if at > zero else zero  # so does NaN
        corner[i] = np.int64(at if at < top else top)


@compiled
def _look_up(row, weight, corner, force, u):
    """The new state: the row at the traced points, and the push."""
    for i in range(len(u)):
        low, high = row[corner[i]], row[corner[i] + 1]
        u[i] = low + weight[i] * (high - low) + force[i]


@compiled
def _look_up_back(row, weight, corner, courant, periodic, above, of_row):
    """The cotangents of the row: from what was looked up in it, and from where."""
    n = len(weight)
    of_row[:] = 0
    for i in range(n):
        at, later = corner[i], weight[i] * above[i]
        of_row[at] += above[i] - later
        of_row[at + 1] += later
    if periodic:
        of_row[2] += of_row[n + 2]  # the only ghost cell that is looked up
    for i in range(n):
        of_row[i + 2] -= courant * (row[corner[i] + 1] - row[corner[i]]) * above[i]


@compiled
def _pull_spread(u, of_row, periodic):
    """The cotangent of ``spread``."""
    n, zero = len(u), u.dtype.type(0.0)
    total = zero
    for i in range(n):
        before = u[i - 1] if i > 0 else (u[n - 1] if periodic else zero)
        behind = u[i + 1] if i + 1 < n else (u[0] if periodic else zero)
        total += of_row[i + 2] * ((before + behind) - (u[i] + u[i]))
    return total


@compiled
def _diffuse_back(of_row, spread, periodic, of_u):
    """The diffusion is its own adjoint; the ghost cells of ``of_row`` are overwritten."""
    n = len(of_u)
    zero = of_u.dtype.type(0.0)
    of_row[1] = of_row[n + 1] if periodic else zero
    of_row[n + 2] = of_row[2] if periodic else zero
    for i in range(n):
        of_u[i] = of_row[i + 2] + spread * ((of_row[i + 1] + of_row[i + 3]) - (of_row[i + 2] + of_row[i + 2]))
