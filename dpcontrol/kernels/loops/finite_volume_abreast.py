"""Finite-volume Burgers in one dimension, several scenarios abreast: a run of many steps, and its adjoint.

The scheme and the arguments are those of :mod:`dpcontrol.kernels.loops.finite_volume`. A register holds the same cell
of as many scenarios as it has lanes (see :mod:`dpcontrol.kernels.loops.abreast`), and a stage is one sweep from left to
right: what the next cell needs of this one, difference, slope and flux, is carried in registers. Nothing is computed
twice; through memory go states only. With ``h`` for half of the slope in a cell, ``a`` and
``b`` for the differences to its left and to its right,

    h = (a b + e) (a + b) q,    q = 1/2 / (a^2 + b^2 + 2 e),
    dh/da = (b^2 + e + 2 a (b - 2 h)) q,    dh/db = (a^2 + e + 2 b (a - 2 h)) q.

On the way back ``q`` and ``h`` are kept from where the stages of a step are computed again: no stage divides twice.

Layout of the work arrays: cell ``i`` of the ``v``-th scenario stands at ``(i + 1) width + v``, with a ghost cell at
either end. A sweep knows a cell's right face when it comes to the next cell: what it leaves first goes to the left
ghost cell, and is nothing. The last group reaches back to scenarios that were run before, to fill all lanes; if there
are fewer scenarios than lanes, the last one fills the rest.

All functions stand in one file, because Numba's cache on disk looks at the file of the outermost one only.
"""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import numpy as np

from dpcontrol.kernels.loops.abreast import less, load, plus, positive, soon, spread, store, turn
from dpcontrol.kernels.loops.compiling import compiled, inner


@compiled
def run(state, controls, sides, numbers, periodic, count, states, chunk):
    """The states behind every step, see :func:`dpcontrol.kernels.loops.finite_volume.run`.

    ``chunk`` is the first scenario, the one behind the last, and a tuple with as many entries as registers have lanes.
    """
    dt, inverse_h, epsilon = numbers
    begin, end, lanes = chunk
    width, cells, one = len(lanes), states.shape[2], states.dtype.type(1.0)
    size, row = (cells + 2) * width, (cells, 1)
    scheme = (dt * inverse_h, epsilon, periodic, lanes)
    u, middle, mean = _aligned(size, states), _aligned(size, states), _aligned(size, states)
    force, walls = _aligned(size, states), _aligned(3 * width, states)
    for group in range(begin, end, width):
        s = max(begin, min(group, end - width))
        there = min(width, end - s)
        _set_walls(sides, inverse_h, s, there, walls)
        _load(state[0], s * state[1][0], state[1], one, there, u, lanes)
        for k in range(len(states)):
            place = k * controls[1][0] + s * controls[1][1]
            _load(controls[0], place, controls[1][1:], dt, there, force, lanes)
            for c in range(count):
                part = (c, count, there, cells)
                if k + 1 < len(states):
                    _bring(controls[0], place + controls[1][0], controls[1][1:], part, False)
                _bring(states[k], s * cells, row, part, True)
                _advance(u, force, True, walls, scheme, None, middle, mean)
                _advance(middle, mean, False, walls, scheme, None, u, force)
            _store(u, one, s, there, states[k], lanes)


@compiled
def pull(
    state, states, controls, sides, numbers, periodic, count, above, wanted, of_state, of_controls, of_sides, chunk
):  # fmt: skip
    """The vector-Jacobian product of :func:`run`, see :func:`dpcontrol.kernels.loops.finite_volume.pull`."""
    dt, inverse_h, epsilon = numbers
    begin, end, lanes = chunk
    width, cells, kind = len(lanes), states.shape[2], states.dtype
    size, row, half, one = (cells + 2) * width, (cells, 1), kind.type(0.5), kind.type(1.0)
    scheme = (dt * inverse_h, epsilon, periodic, lanes)
    # the states in which stages start; each cell's q and h there, side by side
    path = _aligned(2 * count * size, states).reshape(2 * count, size)
    kept = _aligned(4 * count * size, states).reshape(2 * count, 2 * size)
    force, given, push = _aligned(size, states), _aligned(size, states), _aligned(size, states)
    # carried is half of the state's cotangents
    carried, between = _aligned(size, states), _aligned(size, states)
    walls, totals = _aligned(3 * width, states), _aligned(3 * width, states)
    for group in range(begin, end, width):
        s = max(begin, min(group, end - width))
        there = min(width, end - s)
        _set_walls(sides, inverse_h, s, there, walls)
        carried[:], totals[:] = 0, 0
        for k in range(len(states) - 1, -1, -1):
            place, arriving = k * controls[1][0] + s * controls[1][1], k * above[1][0] + s * above[1][1]
            _load(controls[0], place, controls[1][1:], dt, there, force, lanes)
            if k == 0:
                _load(state[0], s * state[1][0], state[1], one, there, path[0], lanes)
            else:
                _load(states[k - 1].ravel(), s * cells, row, one, there, path[0], lanes)
            for c in range(count):
                part = (c, count, there, cells)
                _bring(above[0], arriving, above[1][1:], part, False)
                if wanted[0]:
                    _bring(of_controls[k], s * cells, row, part, True)
                start, middle = path[2 * c], path[2 * c + 1]
                first, second = kept[2 * c], kept[2 * c + 1]
                _advance(start, force, True, walls, scheme, first, middle, push)
                if c + 1 < count:
                    _advance(middle, push, False, walls, scheme, second, path[2 * c + 2], force)
                else:
                    _keep(middle, walls, scheme, second)
            _load(above[0], arriving, above[1][1:], half, there, given, lanes)
            _join(given, carried, push, lanes)
            for c in range(count - 1, -1, -1):
                part = (c, count, there, cells)
                if k > 0:
                    _bring(controls[0], place - controls[1][0], controls[1][1:], part, False)
                if k > 1:
                    _bring(states[k - 2], s * cells, row, part, False)
                start, middle = path[2 * c], path[2 * c + 1]
                first, second = kept[2 * c], kept[2 * c + 1]
                _pull_stage(middle, second, carried, walls, scheme, totals, False, between, push)
                _pull_stage(start, first, between, walls, scheme, totals, True, carried, push)
            if wanted[0]:
                _store(push, dt, s, there, of_controls[k], lanes)
        _store(carried, one + one, s, there, of_state, lanes)
        if wanted[1]:
            _store_sides(totals, scheme[0], inverse_h, s, there, of_sides)


# -- the stages ----------------------------------------------------------------------------------------------------


@inner
def _advance(u, given, first, walls, scheme, kept, out, mean):
    """A stage of Heun's. Writes the ghost cells of ``u``, and ``q`` and ``h`` to ``kept``, unless that is ``None``.

    The first one is given the force times ``dt`` and leaves ``u + dt rate(u)`` in ``out``, and in ``mean`` the end of
    the substep but for the fluxes of the second stage. The second one is given that and leaves the end in ``out``.
    """
    factor, e, periodic, lanes = scheme
    w, last = len(lanes), len(u) - 2 * len(lanes)
    half, epsilon = spread(u.dtype.type(0.5), lanes), spread(e, lanes)
    # fluxes are taken twice, to save a product
    rate, viscosity = spread(factor * u.dtype.type(0.5 if first else 0.25), lanes), load(walls, 0, lanes)
    viscosity = viscosity + viscosity
    _ghosts(u, walls, periodic, lanes)
    if periodic:
        rising = positive(load(u, last, lanes) + _half_slope(u, last, epsilon, lanes))
        falling = positive(_half_slope(u, w, epsilon, lanes) - load(u, w, lanes))
    else:
        rising, falling = positive(load(walls, w, lanes)), positive(load(walls, 2 * w, lanes))
    before, x = load(u, 0, lanes), load(u, w, lanes)
    b = x - before
    flux, bb = b, plus(epsilon, b, b)
    for p in range(w, last + w, w):
        right = load(u, p + w, lanes)
        a, aa, b = b, bb, right - x
        bb = plus(epsilon, b, b)
        q = half / (aa + bb)
        h = plus(epsilon, a, b) * (a + b) * q
        if kept is not None:
            store(kept, 2 * p, q)
            store(kept, 2 * p + w, h)
        lower, upper = positive(h - x), positive(x + h)
        left, flux = flux, less(plus(rising * rising, lower, lower), viscosity, a)
        _leave(p - w, before, flux - left, rate, given, first, out, mean, lanes)
        rising, before, x = upper, x, right
    left, flux = flux, less(plus(rising * rising, falling, falling), viscosity, b)
    _leave(last, before, flux - left, rate, given, first, out, mean, lanes)


@inner
def _leave(p, u, change, rate, given, first, out, mean, lanes):
    base = load(given, p, lanes)
    if first:
        base = u + base
        store(mean, p, less(base, rate * spread(out.dtype.type(0.5), lanes), change))
    store(out, p, less(base, rate, change))


@inner
def _keep(u, walls, scheme, kept):
    """What :func:`_advance` keeps, alone. Writes the ghost cells of ``u``."""
    _, e, periodic, lanes = scheme
    w, half, epsilon = len(lanes), spread(u.dtype.type(0.5), lanes), spread(e, lanes)
    _ghosts(u, walls, periodic, lanes)
    x = load(u, w, lanes)
    b = x - load(u, 0, lanes)
    bb = plus(epsilon, b, b)
    for p in range(w, len(u) - w, w):
        right = load(u, p + w, lanes)
        a, aa, b = b, bb, right - x
        bb = plus(epsilon, b, b)
        q = half / (aa + bb)
        store(kept, 2 * p, q)
        store(kept, 2 * p + w, plus(epsilon, a, b) * (a + b) * q)
        x = right


@inner
def _half_slope(u, p, epsilon, lanes):
    x = load(u, p, lanes)
    a, b = x - load(u, p - len(lanes), lanes), load(u, p + len(lanes), lanes) - x
    q = spread(u.dtype.type(0.5), lanes) / (plus(epsilon, a, a) + plus(epsilon, b, b))
    return plus(epsilon, a, b) * (a + b) * q


@inner
def _ghosts(u, walls, periodic, lanes):
    """Ghost cells: those of the other end, or ``2 v - u``, which makes ``v`` the value at the end."""
    w, last = len(lanes), len(u) - 2 * len(lanes)
    first, end = load(u, w, lanes), load(u, last, lanes)
    if periodic:
        store(u, 0, end)
        store(u, last + w, first)
    else:
        left, minus_right = load(walls, w, lanes), load(walls, 2 * w, lanes)
        store(u, 0, (left - first) + left)
        store(u, last + w, spread(u.dtype.type(0.0), lanes) - ((minus_right + end) + minus_right))


# -- their adjoint -------------------------------------------------------------------------------------------------


@inner
def _pull_stage(u, kept, above, walls, scheme, totals, first, out, push):
    """The cotangent of ``u`` from ``above``, that of ``u + dt rate(u)``.

    In the second stage it is written to ``out``. In the first one ``out`` holds what comes to the start as one half of
    the mean; it is added, once more halved for the substep before, and what has come to the force is added to ``push``.
    To ``totals`` are added the cotangents of ``nu / h`` (negated) and of the values at both ends, over ``dt / h``.
    """
    factor, e, periodic, lanes = scheme
    w, last = len(lanes), len(u) - 2 * len(lanes)
    rate, epsilon, viscosity = spread(factor, lanes), spread(e, lanes), load(walls, 0, lanes)
    _wrap(above, periodic, lanes)
    x, before, y = load(u, w, lanes), load(above, 0, lanes), load(above, w, lanes)
    b, m = x - load(u, 0, lanes), y - before
    entering = _pull_cell(u, kept, above, w, True, epsilon, lanes)
    leaving = _pull_cell(u, kept, above, last, False, epsilon, lanes)
    if periodic:
        entering, leaving = leaving, entering
    else:  # differences at the ends are 2 (u - value)
        entering, end = less(entering, viscosity, m), load(above, last, lanes)
        leaving = plus(leaving, viscosity, end)
        of_left = plus(load(totals, w, lanes), y, positive(load(walls, w, lanes)))
        of_right = plus(load(totals, 2 * w, lanes), end, positive(load(walls, 2 * w, lanes)))
        store(totals, w, of_left - (entering + entering))
        store(totals, 2 * w, of_right + (leaving + leaving))
        step = load(u, last + w, lanes) - load(u, last, lanes)
        store(totals, 0, less(load(totals, 0, lanes), step, end))
    of_viscosity, bb, b2 = load(totals, 0, lanes), plus(epsilon, b, b), b + b
    own, face, share = b, b, entering
    for p in range(w, last + w, w):
        right, after = load(u, p + w, lanes), load(above, p + w, lanes)
        q, h = load(kept, 2 * p, lanes), load(kept, 2 * p + w, lanes)
        a, aa, a2, l = b, bb, b2, m
        b, m = right - x, after - y
        bb, b2 = plus(epsilon, b, b), b + b
        rising, falling = positive(x + h) * m, positive(h - x)
        g, h2 = plus(rising, falling, l) * q, h + h
        left, face = face, less(plus(share, g, plus(bb, a2, b - h2)), viscosity, l)
        _leave_pulled(p - w, before, (left - face) + own, rate, first, out, push, lanes)
        of_viscosity = plus(of_viscosity, a, l)
        own, share = less(rising, falling, l), g * plus(aa, b2, a - h2)
        x, before, y = right, y, after
    store(totals, 0, of_viscosity)
    left, face = face, less(share + leaving, viscosity, m)
    _leave_pulled(last, before, (left - face) + own, rate, first, out, push, lanes)


@inner
def _leave_pulled(p, above, found, rate, first, out, push, lanes):
    if first:
        above = above + load(out, p, lanes)
        store(push, p, load(push, p, lanes) + above)
        store(out, p, plus(above, rate, found) * spread(out.dtype.type(0.5), lanes))
    else:
        store(out, p, plus(above, rate, found))


@inner
def _pull_cell(u, kept, above, p, to_left, epsilon, lanes):
    """What comes, by a cell's slope, to the difference to its left or to its right."""
    w, x, y = len(lanes), load(u, p, lanes), load(above, p, lanes)
    q, h = load(kept, 2 * p, lanes), load(kept, 2 * p + w, lanes)
    a, b = x - load(u, p - w, lanes), load(u, p + w, lanes) - x
    l, m = y - load(above, p - w, lanes), load(above, p + w, lanes) - y
    g = plus(positive(x + h) * m, positive(h - x), l) * q
    near, far = (a, b) if to_left else (b, a)
    return g * plus(plus(epsilon, far, far), near + near, far - (h + h))


@inner
def _wrap(field, periodic, lanes):
    """Ghost cells: those of the other end, or zero."""
    w, last = len(lanes), len(field) - 2 * len(lanes)
    zero = spread(field.dtype.type(0.0), lanes)
    store(field, 0, load(field, last, lanes) if periodic else zero)
    store(field, last + w, load(field, w, lanes) if periodic else zero)


@inner
def _join(given, carried, push, lanes):
    """Add what comes to the state behind a step; nothing has come to its force yet."""
    for p in range(0, len(given), len(lanes)):
        store(carried, p, load(carried, p, lanes) + load(given, p, lanes))
        store(push, p, spread(push.dtype.type(0.0), lanes))


# -- between memory and the work arrays ----------------------------------------------------------------------------


@inner
def _load(flat, begin, strides, factor, there, u, lanes):
    """Interleave rows of cells, times a factor; ``strides`` are those of (scenarios, cells)."""
    w, cells = len(lanes), len(u) // len(lanes) - 2
    squares = cells // w if strides[1] == 1 else 0
    for i in range(0, squares * w, w):
        turn(flat, begin + i, strides[0], there, u, (1 + i) * w, w, factor, lanes)
    for v in range(w):
        place = begin + min(v, there - 1) * strides[0]
        for i in range(squares * w, cells):
            u[(1 + i) * w + v] = factor * flat[place + i * strides[1]]


@inner
def _store(u, factor, s, there, rows, lanes):
    """Rows of cells out of interleaved ones, times a factor."""
    w, cells = len(lanes), rows.shape[1]
    squares = cells // w if there == w else 0
    for i in range(0, squares * w, w):
        turn(u, (1 + i) * w, w, w, rows, s * cells + i, cells, factor, lanes)
    for v in range(there):
        for i in range(squares * w, cells):
            rows[s + v, i] = factor * u[(1 + i) * w + v]


@inner
def _bring(flat, begin, strides, part, written):
    """Ask for a part of some rows of cells, while there is other work to do: worth an eighth of the time."""
    c, count, there, cells = part
    line = 64 // flat.itemsize
    lines = (cells + line - 1) // line
    for i in range(c * lines // count, (c + 1) * lines // count):
        for v in range(there):
            soon(flat, begin + v * strides[0] + i * line * strides[1], written)


@inner
def _set_walls(sides, inverse_h, s, there, walls):
    """``nu / h``, the value at the left end, and minus that at the right end, for all lanes."""
    width = len(walls) // 3
    for v in range(width):
        row = s + min(v, there - 1)
        walls[v] = sides[0][row] * inverse_h
        walls[width + v], walls[2 * width + v] = sides[1][row], -sides[2][row]


@inner
def _store_sides(totals, factor, inverse_h, s, there, of_sides):
    width = len(totals) // 3
    for v in range(there):
        of_sides[s + v, 0] = -factor * inverse_h * totals[v]
        of_sides[s + v, 1] = factor * totals[width + v]
        of_sides[s + v, 2] = factor * totals[2 * width + v]


@compiled
def _aligned(size, like):
    """``size`` zeros that begin at a multiple of 64 bytes."""
    room = np.zeros(size + 16, like.dtype)
    begin = (-room.ctypes.data % 64) // room.itemsize
    return room[begin : begin + size]
