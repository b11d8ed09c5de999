"""Finite-volume Burgers in one dimension, one scenario after the other: a run of many steps, and its adjoint.

The scheme is that of :class:`~dpcontrol.sim.burgers_finite_volume.FiniteVolumeBurgers`. A scenario is run from its
first step to its last: all that it needs stays in the innermost caches. The loops over cells become vector
instructions; :mod:`dpcontrol.kernels.loops.finite_volume_abreast` is for many scenarios, and takes less than half the
time for each.

Layout of the work arrays: cell ``i`` stands at ``i + 2``, with two ghost cells at either end. A face between two cells
is stored where the cell to its right is.

Indices are unsigned in loops that shall become vector instructions: a signed one might count from an array's end.
Constants are made in the dtype of the data: a plain literal would take float32 to float64. All functions stand in one
file, because Numba's cache on disk looks at the file of the outermost one only.
"""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import numpy as np

from dpcontrol.kernels.loops.compiling import compiled, inner


@compiled
def run(state, controls, sides, numbers, periodic, count, states, chunk):
    """The states behind every step of some scenarios.

    ``state`` and ``controls`` are pairs of flat memory and strides, for the axes (scenarios, cells) and (steps,
    scenarios, cells); ``sides`` the viscosity and the values at the left and right end, each ``(scenarios,)``;
    ``numbers`` are ``dt``, ``1/h`` and ``epsilon``; a step is ``count`` substeps of ``dt``, with the control held;
    ``states`` ``(steps, scenarios, cells)`` is written. ``chunk`` is the first scenario and the one behind the last.
    """
    dt, inverse_h, epsilon = numbers
    begin, end = chunk
    steps, cells = len(states), states.shape[2]
    size, one = cells + 4, states.dtype.type(1.0)
    scheme = (dt * inverse_h, epsilon, periodic)
    u, middle, force = _aligned(size, states), _aligned(size, states), _aligned(size, states)
    rising, falling = _aligned(size, states), _aligned(size, states)
    for s in range(begin, end):
        nu_h, ends = sides[0][s] * inverse_h, (sides[1][s], sides[2][s])
        _load(state[0], s * state[1][0], state[1][1], one, u)
        for k in range(steps):
            place = k * controls[1][0] + s * controls[1][1]
            _load(controls[0], place, controls[1][2], dt, force)
            for _ in range(count):
                _first(u, force, nu_h, ends, scheme, rising, falling, middle)
                _second(middle, force, nu_h, ends, scheme, rising, falling, u)
            _store(u, one, states[k, s])


@compiled
def pull(
    state, states, controls, sides, numbers, periodic, count, above, wanted, of_state, of_controls, of_sides, chunk
):  # fmt: skip
    """The vector-Jacobian product of :func:`run`: the states inside a step are computed again from its first one.

    ``above`` are the cotangents of ``states``, as flat memory and strides; ``wanted`` says whether gradients of the
    controls and of the sides are asked for; ``of_state``, ``of_controls`` and ``of_sides``, ``(scenarios, 3)``, are
    written.
    """
    dt, inverse_h, epsilon = numbers
    begin, end = chunk
    steps, cells = len(states), states.shape[2]
    size, one = cells + 4, states.dtype.type(1.0)
    scheme = (dt * inverse_h, epsilon, periodic)
    starts, middles = _aligned(count * size, states), _aligned(count * size, states)
    u, force, of_nu = _aligned(size, states), _aligned(size, states), _aligned(size, states)
    carried, between, push = _aligned(size, states), _aligned(size, states), _aligned(size, states)
    slope, share, face = _aligned(size, states), _aligned(size, states), _aligned(size, states)
    of_ends = np.zeros(2, states.dtype)
    for s in range(begin, end):
        nu_h, ends = sides[0][s] * inverse_h, (sides[1][s], sides[2][s])
        carried[:], of_nu[:], of_ends[:] = 0, 0, 0
        for k in range(steps - 1, -1, -1):
            place = k * controls[1][0] + s * controls[1][1]
            _load(controls[0], place, controls[1][2], dt, force)
            if k == 0:
                _load(state[0], s * state[1][0], state[1][1], one, u)
            else:
                _load(states[k - 1].ravel(), s * cells, 1, one, u)
            for c in range(count):
                start, middle = starts[c * size : (c + 1) * size], middles[c * size : (c + 1) * size]
                _copy(u, start)
                _first(start, force, nu_h, ends, scheme, slope, share, middle)
                if c + 1 < count:
                    _second(middle, force, nu_h, ends, scheme, slope, share, u)
                else:
                    _ghosts(middle, ends, scheme)
            _add_loaded(above[0], k * above[1][0] + s * above[1][1], above[1][2], carried)
            push[:] = 0
            for c in range(count - 1, -1, -1):
                start, middle = starts[c * size : (c + 1) * size], middles[c * size : (c + 1) * size]
                _halve(carried, between, push)
                _pull_rate(middle, carried, nu_h, scheme, slope, share, face, between)
                if wanted[1]:
                    _pull_sides(middle, carried, ends, scheme, face, of_nu, of_ends)
                _add(between, carried, push)
                _pull_rate(start, between, nu_h, scheme, slope, share, face, carried)
                if wanted[1]:
                    _pull_sides(start, between, ends, scheme, face, of_nu, of_ends)
            if wanted[0]:
                _store(push, dt, of_controls[k, s])
        _store(carried, one, of_state[s])
        if wanted[1]:
            _store_sides(of_nu, of_ends, inverse_h, of_sides[s])


# -- the rate of change, and its adjoint -------------------------------------------------------------------------


@inner
def _first(u, force, nu_h, ends, scheme, rising, falling, out):
    """Heun's first stage: ``out = u + dt rate(u)``. Writes the ghost cells of ``u``."""
    factor, half = scheme[0], u.dtype.type(0.5)
    _ghosts(u, ends, scheme)
    _upwind(u, ends, scheme, rising, falling)
    for p in range(np.uint64(2), np.uint64(len(u) - 2)):
        q = p + np.uint64(1)
        right = half * (rising[q] * rising[q] + falling[q] * falling[q]) - nu_h * (u[q] - u[p])
        left = half * (rising[p] * rising[p] + falling[p] * falling[p]) - nu_h * (u[p] - u[p - np.uint64(1)])
        out[p] = u[p] + (force[p] - factor * (right - left))


@inner
def _second(u, force, nu_h, ends, scheme, rising, falling, start):
    """The mean of the start and of Heun's second stage ``u + dt rate(u)``, in place of the start."""
    factor, half = scheme[0], u.dtype.type(0.5)
    _ghosts(u, ends, scheme)
    _upwind(u, ends, scheme, rising, falling)
    for p in range(np.uint64(2), np.uint64(len(u) - 2)):
        q = p + np.uint64(1)
        right = half * (rising[q] * rising[q] + falling[q] * falling[q]) - nu_h * (u[q] - u[p])
        left = half * (rising[p] * rising[p] + falling[p] * falling[p]) - nu_h * (u[p] - u[p - np.uint64(1)])
        second = u[p] + (force[p] - factor * (right - left))
        start[p] += half * (second - start[p])


@inner
def _ghosts(u, ends, scheme):
    """Ghost cells: those of the other end, or ``2 v - u``, which makes ``v`` the value at the end."""
    low, high = 2, len(u) - 3  # the first and the last cell
    if scheme[2]:
        u[0], u[1] = u[high - 1], u[high]
        u[high + 1], u[high + 2] = u[low], u[low + 1]
    else:
        u[1] = (ends[0] - u[low]) + ends[0]
        u[high + 1] = (ends[1] - u[high]) + ends[1]
        u[0], u[high + 2] = u[1], u[high + 1]


@inner
def _upwind(u, ends, scheme, rising, falling):
    """``max(l, 0)`` and ``max(-r, 0)`` of the states at the faces; NaN stays NaN."""
    _, epsilon, periodic = scheme
    half, zero, one = u.dtype.type(0.5), u.dtype.type(0.0), np.uint64(1)
    low, high = 2, len(u) - 2  # the first and the last face
    for p in range(np.uint64(low), np.uint64(high)):
        a, b = u[p] - u[p - one], u[p + one] - u[p]
        slope = half * (a * b + epsilon) * (a + b) / (a * a + b * b + (epsilon + epsilon))
        r, f = u[p] + slope, slope - u[p]
        rising[p + one] = zero if r < zero else r
        falling[p] = zero if f < zero else f
    if periodic:
        rising[low], falling[high] = rising[high], falling[low]
    else:
        l, r = ends
        rising[low] = zero if l < zero else l
        falling[high] = zero if r > zero else -r


@inner
def _pull_rate(u, above, nu_h, scheme, slope, share, face, out):
    """Add to ``out`` the cotangent of ``u`` that comes with ``above``, that of ``dt`` times the rate at ``u``.

    ``u`` has its ghost cells. Overwritten are the ghost cells of ``above``, ``slope`` with half the slopes, ``share``
    with the factor that their cotangents have in common, and ``face`` with the cotangents of the differences.
    """
    factor, epsilon, periodic = scheme
    zero, half, one = u.dtype.type(0.0), u.dtype.type(0.5), np.uint64(1)
    low, high = 2, len(u) - 2
    _wrap(above, scheme)
    for p in range(np.uint64(low), np.uint64(high)):
        a, b = u[p] - u[p - one], u[p + one] - u[p]
        inverse = half / (a * a + b * b + (epsilon + epsilon))
        h = (a * b + epsilon) * (a + b) * inverse
        r, f = u[p] + h, h - u[p]
        rising = (above[p + one] - above[p]) * (zero if r < zero else r)
        falling = (above[p] - above[p - one]) * (zero if f < zero else f)
        slope[p], share[p] = h, inverse * factor * (rising + falling)
    _wrap(slope, scheme)
    _wrap(share, scheme)
    for p in range(np.uint64(low), np.uint64(high + 1)):
        a, b, c = u[p - one] - u[p - one - one], u[p] - u[p - one], u[p + one] - u[p]
        x, y = slope[p - one] + slope[p - one], slope[p] + slope[p]
        left = a * (a + b) + a * b + epsilon - (x + x) * b
        right = c * (b + c) + b * c + epsilon - (y + y) * b
        flux = factor * (above[p] - above[p - one])
        face[p] = share[p - one] * left + share[p] * right - nu_h * flux
    if not periodic:  # there the difference is 2 (u - value)
        face[low] += face[low]
        face[high] += face[high]
    for p in range(np.uint64(low), np.uint64(high)):
        r, f = u[p] + slope[p], slope[p] - u[p]
        rising = (above[p + one] - above[p]) * (zero if r < zero else r)
        falling = (above[p] - above[p - one]) * (zero if f < zero else f)
        out[p] += face[p] - face[p + one] + factor * (rising - falling)


@inner
def _pull_sides(u, above, ends, scheme, face, of_nu, of_ends):
    """Add the cotangents of ``nu / h``, face by face, and of the values at the ends, behind :func:`_pull_rate`."""
    factor, _, periodic = scheme
    zero, one = u.dtype.type(0.0), np.uint64(1)
    low, high = 2, len(u) - 2
    for p in range(np.uint64(low), np.uint64(high)):
        of_nu[p] -= (u[p] - u[p - one]) * (factor * (above[p] - above[p - one]))
    if not periodic:
        l, r = ends
        first, last = factor * above[low], factor * above[high - 1]
        of_nu[high] += (u[high] - u[high - 1]) * last
        of_ends[0] += first * (zero if l < zero else l) - face[low]
        of_ends[1] += last * (zero if r > zero else -r) + face[high]


@inner
def _wrap(field, scheme):
    """One ghost cell at either end: that of the other end, or zero."""
    zero, low, high = field.dtype.type(0.0), 2, len(field) - 3
    field[low - 1] = field[high] if scheme[2] else zero
    field[high + 1] = field[low] if scheme[2] else zero


# -- sums and copies -----------------------------------------------------------------------------------------------


@inner
def _halve(carried, between, push):
    """The cotangents of Heun's second stage: half of what comes from above, also for the start and for the force."""
    half = carried.dtype.type(0.5)
    for p in range(np.uint64(len(carried))):
        carried[p] *= half
        between[p] = carried[p]
        push[p] += carried[p]


@inner
def _add(between, carried, push):
    for p in range(np.uint64(len(between))):
        carried[p] += between[p]
        push[p] += between[p]


@inner
def _copy(u, out):
    for p in range(np.uint64(len(u))):
        out[p] = u[p]


@inner
def _store_sides(of_nu, of_ends, inverse_h, out):
    total = of_nu.dtype.type(0.0)
    for p in range(2, len(of_nu) - 1):
        total += of_nu[p]
    out[0], out[1], out[2] = total * inverse_h, of_ends[0], of_ends[1]


@inner
def _load(flat, begin, stride, factor, u):
    """A row of cells, times a factor."""
    place, step = np.uint64(begin), np.uint64(stride)
    for i in range(np.uint64(len(u) - 4)):
        u[i + np.uint64(2)] = factor * flat[place + i * step]


@inner
def _add_loaded(flat, begin, stride, u):
    place, step = np.uint64(begin), np.uint64(stride)
    for i in range(np.uint64(len(u) - 4)):
        u[i + np.uint64(2)] += flat[place + i * step]


@inner
def _store(u, factor, row):
    for i in range(np.uint64(len(row))):
        row[i] = factor * u[i + np.uint64(2)]


@compiled
def _aligned(size, like):
    """``size`` zeros that begin at a multiple of 64 bytes."""
    room = np.zeros(size + 16, like.dtype)
    begin = (-room.ctypes.data % 64) // room.itemsize
    return room[begin : begin + size]
