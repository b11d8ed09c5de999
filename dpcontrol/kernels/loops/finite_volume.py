"""Finite-volume Burgers in one dimension: a run of many steps of every scenario, and its adjoint.

The scheme is that of :class:`~dpcontrol.sim.burgers_finite_volume.FiniteVolumeBurgers`. A few scenarios at a time are
run from their first step to their last: all that they need stays in the innermost caches.

Layout of the work arrays: ``width`` scenarios are interleaved in flat memory, cell ``i`` of the ``v``-th of them stands
at ``(i + 2) width + v``, with two ghost cells at either end. Neighbours are ``width`` apart, so that a loop over all
cells of all of them is one long loop, whose loads and stores fall on whole, aligned vectors (worth a factor of two). A
face between two cells is stored where the cell to its right is.

Indices are unsigned in loops that shall become vector instructions: a signed one might count from an array's end.
Constants are made in the dtype of the data: a plain literal would take float32 to float64. All functions stand in one
file, because Numba's cache on disk looks at the file of the outermost one only.
"""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import numpy as np

from dpcontrol.kernels.loops.compiling import compiled


@compiled
def run(state, controls, sides, numbers, periodic, count, states, chunk):
    """The states behind every step of some scenarios.

    ``state`` and ``controls`` are pairs of flat memory and strides, for the axes (scenarios, cells) and (steps,
    scenarios, cells); ``sides`` the viscosity and the values at the left and right end, each ``(scenarios,)``;
    ``numbers`` are ``dt``, ``1/h`` and ``epsilon``; a step is ``count`` substeps of ``dt``, with the control held;
    ``states`` ``(steps, scenarios, cells)`` is written. ``chunk`` is the first scenario, the one behind the last, and
    an array that says how many are run together, see :func:`_width`.
    """
    dt, inverse_h, epsilon = numbers
    begin, end, lanes = chunk
    width = _width(lanes)
    steps, cells = len(states), states.shape[2]
    size, one = (cells + 4) * width, states.dtype.type(1.0)
    scheme = (dt * inverse_h, epsilon, periodic, lanes, cells)
    u, middle, force = _aligned(size, states), _aligned(size, states), _aligned(size, states)
    rising, falling, nu_h = _aligned(size, states), _aligned(size, states), _aligned(size, states)
    ends = np.zeros((2, width), states.dtype)
    for s in range(begin, end, width):
        _constants(sides, inverse_h, s, nu_h, ends)
        _load(state[0], s * state[1][0], state[1], one, cells, width, u)
        for k in range(steps):
            place = k * controls[1][0] + s * controls[1][1]
            _load(controls[0], place, controls[1][1:], dt, cells, width, force)
            for _ in range(count):
                _first(u, force, nu_h, ends, scheme, rising, falling, middle)
                _second(middle, force, nu_h, ends, scheme, rising, falling, u)
            _store(u, one, s, width, states[k])


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
    begin, end, lanes = chunk
    width = _width(lanes)
    steps, cells = len(states), states.shape[2]
    size, one = (cells + 4) * width, states.dtype.type(1.0)
    scheme = (dt * inverse_h, epsilon, periodic, lanes, cells)
    starts, middles = _aligned(count * size, states), _aligned(count * size, states)
    u, force, nu_h = _aligned(size, states), _aligned(size, states), _aligned(size, states)
    carried, between, push = _aligned(size, states), _aligned(size, states), _aligned(size, states)
    slope, share, face = _aligned(size, states), _aligned(size, states), _aligned(size, states)
    of_nu, ends, of_ends = (
        _aligned(size, states),
        np.zeros((2, width), u.dtype),
        np.zeros((2, width), u.dtype),
    )
    for s in range(begin, end, width):
        _constants(sides, inverse_h, s, nu_h, ends)
        carried[:], of_nu[:], of_ends[:] = 0, 0, 0
        for k in range(steps - 1, -1, -1):
            place = k * controls[1][0] + s * controls[1][1]
            _load(controls[0], place, controls[1][1:], dt, cells, width, force)
            if k == 0:
                _load(state[0], s * state[1][0], state[1], one, cells, width, u)
            else:
                _load(states[k - 1].ravel(), s * cells, (cells, 1), one, cells, width, u)
            for c in range(count):
                start, middle = starts[c * size : (c + 1) * size], middles[c * size : (c + 1) * size]
                _copy(u, start)
                _first(start, force, nu_h, ends, scheme, slope, share, middle)
                if c + 1 < count:
                    _second(middle, force, nu_h, ends, scheme, slope, share, u)
                else:
                    _ghosts(middle, ends, scheme)
            _add_loaded(above[0], k * above[1][0] + s * above[1][1], above[1][1:], cells, width, carried)
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
                _store(push, dt, s, width, of_controls[k])
        _store(carried, one, s, width, of_state)
        if wanted[1]:
            _store_sides(of_nu, of_ends, inverse_h, s, of_sides)


# -- the rate of change, and its adjoint -------------------------------------------------------------------------


@compiled
def _first(u, force, nu_h, ends, scheme, rising, falling, out):
    """Heun's first stage: ``out = u + dt rate(u)``. Writes the ghost cells of ``u``."""
    factor, _, _, lanes, cells = scheme
    width = _width(lanes)
    half, shift = u.dtype.type(0.5), np.uint64(width)
    _ghosts(u, ends, scheme)
    _upwind(u, ends, scheme, rising, falling)
    for p in range(np.uint64(2 * width), np.uint64((cells + 2) * width)):
        q = p + shift
        right = half * (rising[q] * rising[q] + falling[q] * falling[q]) - nu_h[p] * (u[q] - u[p])
        left = half * (rising[p] * rising[p] + falling[p] * falling[p]) - nu_h[p] * (u[p] - u[p - shift])
        out[p] = u[p] + (force[p] - factor * (right - left))


@compiled
def _second(u, force, nu_h, ends, scheme, rising, falling, start):
    """The mean of the start and of Heun's second stage ``u + dt rate(u)``, in place of the start."""
    factor, _, _, lanes, cells = scheme
    width = _width(lanes)
    half, shift = u.dtype.type(0.5), np.uint64(width)
    _ghosts(u, ends, scheme)
    _upwind(u, ends, scheme, rising, falling)
    for p in range(np.uint64(2 * width), np.uint64((cells + 2) * width)):
        q = p + shift
        right = half * (rising[q] * rising[q] + falling[q] * falling[q]) - nu_h[p] * (u[q] - u[p])
        left = half * (rising[p] * rising[p] + falling[p] * falling[p]) - nu_h[p] * (u[p] - u[p - shift])
        second = u[p] + (force[p] - factor * (right - left))
        start[p] += half * (second - start[p])


@compiled
def _ghosts(u, ends, scheme):
    """Ghost cells: those of the other end, or ``2 v - u``, which makes ``v`` the value at the end."""
    _, _, periodic, lanes, cells = scheme
    w = _width(lanes)
    low, high = 2 * w, (cells + 1) * w  # of the first and of the last cells
    for v in range(w):
        if periodic:
            u[v], u[w + v] = u[high - w + v], u[high + v]
            u[high + w + v], u[high + 2 * w + v] = u[low + v], u[low + w + v]
        else:
            u[w + v] = (ends[0, v] - u[low + v]) + ends[0, v]
            u[high + w + v] = (ends[1, v] - u[high + v]) + ends[1, v]
            u[v], u[high + 2 * w + v] = u[w + v], u[high + w + v]


@compiled
def _upwind(u, ends, scheme, rising, falling):
    """``max(l, 0)`` and ``max(-r, 0)`` of the states at the faces; NaN stays NaN."""
    _, epsilon, periodic, lanes, cells = scheme
    w = _width(lanes)
    half, zero, shift = u.dtype.type(0.5), u.dtype.type(0.0), np.uint64(w)
    low, high = 2 * w, (cells + 2) * w  # of the first and of the last faces
    for p in range(np.uint64(low), np.uint64(high)):
        a, b = u[p] - u[p - shift], u[p + shift] - u[p]
        slope = half * (a * b + epsilon) * (a + b) / (a * a + b * b + (epsilon + epsilon))
        r, f = u[p] + slope, slope - u[p]
        rising[p + shift] = zero if r < zero else r
        falling[p] = zero if f < zero else f
    for v in range(w):
        if periodic:
            rising[low + v], falling[high + v] = rising[high + v], falling[low + v]
        else:
            l, r = ends[0, v], ends[1, v]
            rising[low + v] = zero if l < zero else l
            falling[high + v] = zero if r > zero else -r


@compiled
def _pull_rate(u, above, nu_h, scheme, slope, share, face, out):
    """Add to ``out`` the cotangent of ``u`` that comes with ``above``, that of ``dt`` times the rate at ``u``.

    ``u`` has its ghost cells. Overwritten are the ghost cells of ``above``, ``slope`` with half the slopes, ``share``
    with the factor that their cotangents have in common, and ``face`` with the cotangents of the differences.
    """
    factor, epsilon, periodic, lanes, cells = scheme
    w = _width(lanes)
    zero, half, shift = u.dtype.type(0.0), u.dtype.type(0.5), np.uint64(w)
    low, high = 2 * w, (cells + 2) * w
    _wrap(above, scheme)
    for p in range(np.uint64(low), np.uint64(high)):
        a, b = u[p] - u[p - shift], u[p + shift] - u[p]
        inverse = half / (a * a + b * b + (epsilon + epsilon))
        h = (a * b + epsilon) * (a + b) * inverse
        r, f = u[p] + h, h - u[p]
        rising = (above[p + shift] - above[p]) * (zero if r < zero else r)
        falling = (above[p] - above[p - shift]) * (zero if f < zero else f)
        slope[p], share[p] = h, inverse * factor * (rising + falling)
    _wrap(slope, scheme)
    _wrap(share, scheme)
    for p in range(np.uint64(low), np.uint64(high + w)):
        a, b, c = u[p - shift] - u[p - shift - shift], u[p] - u[p - shift], u[p + shift] - u[p]
        x, y = slope[p - shift] + slope[p - shift], slope[p] + slope[p]
        left = a * (a + b) + a * b + epsilon - (x + x) * b
        right = c * (b + c) + b * c + epsilon - (y + y) * b
        flux = factor * (above[p] - above[p - shift])
        face[p] = share[p - shift] * left + share[p] * right - nu_h[p] * flux
    if not periodic:
        for v in range(w):  # there the difference is 2 (u - value)
            face[low + v] += face[low + v]
            face[high + v] += face[high + v]
    for p in range(np.uint64(low), np.uint64(high)):
        r, f = u[p] + slope[p], slope[p] - u[p]
        rising = (above[p + shift] - above[p]) * (zero if r < zero else r)
        falling = (above[p] - above[p - shift]) * (zero if f < zero else f)
        out[p] += face[p] - face[p + shift] + factor * (rising - falling)


@compiled
def _pull_sides(u, above, ends, scheme, face, of_nu, of_ends):
    """Add the cotangents of ``nu / h``, face by face, and of the values at the ends, behind :func:`_pull_rate`."""
    factor, _, periodic, lanes, cells = scheme
    w = _width(lanes)
    zero, shift = u.dtype.type(0.0), np.uint64(w)
    low, high = 2 * w, (cells + 2) * w
    for p in range(np.uint64(low), np.uint64(high)):
        of_nu[p] -= (u[p] - u[p - shift]) * (factor * (above[p] - above[p - shift]))
    if not periodic:
        for v in range(w):
            l, r, first, last = ends[0, v], ends[1, v], factor * above[low + v], factor * above[high - w + v]
            of_nu[high + v] += (u[high + v] - u[high - w + v]) * last
            of_ends[0, v] += first * (zero if l < zero else l) - face[low + v]
            of_ends[1, v] += last * (zero if r > zero else -r) + face[high + v]


@compiled
def _wrap(field, scheme):
    """One ghost cell at either end: that of the other end, or zero."""
    _, _, periodic, lanes, cells = scheme
    w = _width(lanes)
    zero, low, high = field.dtype.type(0.0), 2 * w, (cells + 1) * w
    for v in range(w):
        field[w + v] = field[high + v] if periodic else zero
        field[high + w + v] = field[low + v] if periodic else zero


# -- sums and copies -----------------------------------------------------------------------------------------------


@compiled
def _halve(carried, between, push):
    """The cotangents of Heun's second stage: half of what comes from above, also for the start and for the force."""
    half = carried.dtype.type(0.5)
    for p in range(np.uint64(len(carried))):
        carried[p] *= half
        between[p] = carried[p]
        push[p] += carried[p]


@compiled
def _add(between, carried, push):
    for p in range(np.uint64(len(between))):
        carried[p] += between[p]
        push[p] += between[p]


@compiled
def _copy(u, out):
    for p in range(np.uint64(len(u))):
        out[p] = u[p]


@compiled
def _constants(sides, inverse_h, s, nu_h, ends):
    viscosity, left, right = sides
    width = ends.shape[1]
    for v in range(width):
        ends[0, v], ends[1, v] = left[s + v], right[s + v]
        for p in range(v, len(nu_h), width):
            nu_h[p] = viscosity[s + v] * inverse_h


@compiled
def _store_sides(of_nu, of_ends, inverse_h, s, of_sides):
    width = of_ends.shape[1]
    for v in range(width):
        total = of_nu.dtype.type(0.0)
        for p in range(2 * width + v, len(of_nu) - width, width):
            total += of_nu[p]
        of_sides[s + v, 0] = total * inverse_h
        of_sides[s + v, 1], of_sides[s + v, 2] = of_ends[0, v], of_ends[1, v]


@compiled
def _load(flat, begin, strides, factor, cells, width, u):
    """Interleave rows of cells, times a factor; ``strides`` are those of (scenarios, cells)."""
    w, step = np.uint64(width), np.uint64(strides[1])
    for v in range(np.uint64(width)):
        place, row = np.uint64(begin + np.int64(v) * strides[0]), w + w + v
        for i in range(np.uint64(cells)):
            u[row + i * w] = factor * flat[place + i * step]


@compiled
def _add_loaded(flat, begin, strides, cells, width, u):
    """Add interleaved rows of cells."""
    w, step = np.uint64(width), np.uint64(strides[1])
    for v in range(np.uint64(width)):
        place, row = np.uint64(begin + np.int64(v) * strides[0]), w + w + v
        for i in range(np.uint64(cells)):
            u[row + i * w] += flat[place + i * step]


@compiled
def _store(u, factor, s, width, rows):
    """Rows of cells out of interleaved ones, times a factor."""
    w = np.uint64(width)
    for v in range(width):
        out, row = rows[s + v], w + w + np.uint64(v)
        for i in range(np.uint64(len(out))):
            out[i] = factor * u[row + i * w]


@compiled
def _width(lanes):
    """How many scenarios are interleaved: one if the array is a row, else its length.

    The number of axes belongs to the type, so that there are loops of their own for one scenario, with neighbours a
    constant 1 apart: they take half the time.
    """
    return 1 if lanes.ndim == 1 else len(lanes)


@compiled
def _aligned(size, like):
    """``size`` zeros that begin at a multiple of 64 bytes."""
    room = np.zeros(size + 16, like.dtype)
    begin = (-room.ctypes.data % 64) // room.itemsize
    return room[begin : begin + size]
