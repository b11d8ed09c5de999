"""Cholesky factors of sums ``sum_k theta_k P_k^T S P_k`` front by front, and solves with them, several rows abreast.

Every array has the rows ("lanes") as its last axis, so that a register holds the same number of different systems (see
:mod:`dpcontrol.kernels.loops.abreast`; ``lanes`` is a tuple of which only the length counts). Arrays are flat, and
places in them are products of the number of an entry and the number of rows. Lower triangles are packed: entry ``(i,
j)`` is number ``i (i + 1) / 2 + j``. Columns are eliminated by fours: each entry below is loaded and stored once for
four products.

The plan of the elimination is that of :class:`dpcontrol.kernels.fronts.Plan`. All functions stand in one file, because
Numba's cache on disk looks at the file of the outermost one only.
"""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import numpy as np

from dpcontrol.kernels.loops.abreast import less, load, plus, root, spread, store
from dpcontrol.kernels.loops.compiling import compiled


@compiled
def factor(theta, schur, plan, lanes, first, factors):
    """The Cholesky factors of the rows from ``first`` on.

    ``theta`` is ``(blocks, rows)``; ``schur`` the packed ``S``; ``factors`` ``(entries, rows)`` is written: for each
    front and each column its lower part, whose first entry is the inverse of the diagonal one. Rows with a ``theta``
    that is not positive become NaN.
    """
    fronts, children, target, source, sizes = plan
    width, kind = len(lanes), schur.dtype
    rows, weights = theta.shape[1], np.empty(theta.shape[0] * width, kind)
    for k in range(theta.shape[0]):
        for w in range(width):
            value = theta[k, first + w]
            weights[k * width + w] = value if value > 0 else np.nan
    front, panel = np.empty(sizes[0] * width, kind), np.zeros(4 * sizes[1] * width, kind)
    stack, place, flat = np.empty(sizes[2] * width, kind), 0, factors.reshape(-1)[first:]
    for t in range(len(fronts)):
        n, pivots = fronts[t, 0], fronts[t, 1]
        front[: n * (n + 1) // 2 * width] = kind.type(0.0)
        for c in range(2):
            block, begin, end = children[t, c, 0], children[t, c, 1], children[t, c, 2]
            if block >= 0:
                weight = weights[block * width : (block + 1) * width]
                _add_block(front, target[begin:end], source[begin:end], schur, weight, lanes)
            else:
                _add_front(front, target[begin:end], stack[children[t, c, 3] * width :], lanes)
        for q in range(0, pivots, 4):
            count = min(4, pivots - q)
            place = _eliminate(front, panel, q, count, n, flat, rows, place, lanes)
            for i in range(q + count, n):
                _update(front[i * (i + 1) // 2 * width :], panel, sizes[1], q + count, i, lanes)
        _leave(stack[fronts[t, 3] * width :], front, pivots, n, lanes)


@compiled
def _add_block(front, target, source, schur, weight, lanes):
    """A block's matrix, times its coefficient."""
    factor_of_it = load(weight, 0, lanes)
    for e in range(len(target)):
        at = target[e] * len(lanes)
        store(front, at, plus(load(front, at, lanes), factor_of_it, spread(schur[source[e]], lanes)))


@compiled
def _add_front(front, target, below, lanes):
    """What an earlier front left over."""
    for e in range(len(target)):
        at = target[e] * len(lanes)
        store(front, at, load(front, at, lanes) + load(below, e * len(lanes), lanes))


@compiled
def _leave(stack, front, pivots, n, lanes):
    """Keep what is left of a front for the one above."""
    at = 0
    for i in range(pivots, n):
        begin = i * (i + 1) // 2
        for j in range(pivots, i + 1):
            store(stack, at * len(lanes), load(front, (begin + j) * len(lanes), lanes))
            at += 1


@compiled
def _eliminate(front, panel, q, count, n, factors, rows, place, lanes):
    """Up to four columns of the factor from ``q`` on, into ``panel`` ``(4, size)`` and ``factors``.

    Columns that are missing are zero in the panel. Returns the place in ``factors`` behind the last one.
    """
    width = len(lanes)
    size = len(panel) // (4 * width)
    one, zero = spread(front.dtype.type(1.0), lanes), spread(front.dtype.type(0.0), lanes)
    at0, at1, at2, at3 = (
        place - q,
        place - q + n - q - 1,
        place - q + 2 * (n - q) - 3,
        place - q + 3 * (n - q) - 6,
    )
    d0 = d1 = d2 = d3 = l10 = l20 = l21 = l30 = l31 = l32 = zero
    for i in range(q, n):
        begin = (i * (i + 1) // 2 + q) * width
        x1 = x2 = x3 = zero
        x0 = load(front, begin, lanes)
        x0 = x0 * d0 if i > q else one / root(x0)
        store(factors, (at0 + i) * rows, x0)
        if count > 1 and i > q:
            x1 = less(load(front, begin + width, lanes), x0, l10 if i > q + 1 else x0)
            x1 = x1 * d1 if i > q + 1 else one / root(x1)
            store(factors, (at1 + i) * rows, x1)
        if count > 2 and i > q + 1:
            x2 = less(load(front, begin + 2 * width, lanes), x0, l20 if i > q + 2 else x0)
            x2 = less(x2, x1, l21 if i > q + 2 else x1)
            x2 = x2 * d2 if i > q + 2 else one / root(x2)
            store(factors, (at2 + i) * rows, x2)
        if count > 3 and i > q + 2:
            x3 = less(load(front, begin + 3 * width, lanes), x0, l30 if i > q + 3 else x0)
            x3 = less(x3, x1, l31 if i > q + 3 else x1)
            x3 = less(x3, x2, l32 if i > q + 3 else x2)
            x3 = x3 * d3 if i > q + 3 else one / root(x3)
            store(factors, (at3 + i) * rows, x3)
        if i == q:
            d0 = x0
        elif i == q + 1:
            l10, d1 = x0, x1
        elif i == q + 2:
            l20, l21, d2 = x0, x1, x2
        elif i == q + 3:
            l30, l31, l32, d3 = x0, x1, x2, x3
        store(panel, i * width, x0)
        store(panel, (size + i) * width, x1)
        store(panel, (2 * size + i) * width, x2)
        store(panel, (3 * size + i) * width, x3)
    return place + count * (n - q) - count * (count - 1) // 2


@compiled
def _update(row, panel, size, begin, i, lanes):
    """Row ``i`` of the front less the products of the panel: where most of the time goes."""
    width = len(lanes)
    p0, p1, p2, p3 = panel, panel[size * width :], panel[2 * size * width :], panel[3 * size * width :]
    b0, b1 = load(p0, i * width, lanes), load(p1, i * width, lanes)
    b2, b3 = load(p2, i * width, lanes), load(p3, i * width, lanes)
    for j in range(begin, i + 1):
        at = j * width
        value = less(load(row, at, lanes), b0, load(p0, at, lanes))
        value = less(value, b1, load(p1, at, lanes))
        value = less(value, b2, load(p2, at, lanes))
        store(row, at, less(value, b3, load(p3, at, lanes)))


@compiled
def solve(theta, factors, given, plan, inside, lanes, first, found):
    """``K(theta) u = g`` for the rows from ``first`` on, with their factors.

    ``given`` and ``found`` are ``(nodes, rows)``; nodes on the boundary are left alone.
    """
    fronts, index = plan
    ring, core, spots, of_core, lift = inside
    width, kind, rows = len(lanes), lift.dtype, given.shape[1]
    g, u = given.reshape(-1)[first:], found.reshape(-1)[first:]
    unknowns = len(spots)
    values = np.zeros((unknowns + 1) * width, kind)  # the last one stands for the boundary
    for s in range(unknowns):
        store(values, s * width, load(g, spots[s] * rows, lanes))
    for k in range(len(core)):
        _reduce(values, g, ring[k], core[k], lift, rows, lanes)
    flat = factors.reshape(-1)[first:]
    _forward(values, flat, fronts, index, rows, lanes)
    _back(values, flat, fronts, index, rows, lanes)
    values[unknowns * width :] = kind.type(0.0)
    for s in range(unknowns):
        store(u, spots[s] * rows, load(values, s * width, lanes))
    weight = theta.reshape(-1)[first:]
    for k in range(len(core)):
        scale = load(weight, k * rows, lanes)
        _fill(u, g, scale, values, ring[k], core[k], of_core, lift, rows, lanes)


@compiled
def _reduce(values, g, ring, core, lift, rows, lanes):
    """Bring the load inside of a block to its ring."""
    for e in range(len(ring)):
        at = ring[e] * len(lanes)
        total = load(values, at, lanes)
        for i in range(len(core)):
            total = plus(total, load(g, core[i] * rows, lanes), spread(lift[i, e], lanes))
        store(values, at, total)


@compiled
def _fill(u, g, scale, values, ring, core, of_core, lift, rows, lanes):
    """The values inside of a block: those of its load alone, and those lifted from its ring."""
    for i in range(len(core)):
        total = spread(lift.dtype.type(0.0), lanes)
        for j in range(len(core)):
            total = plus(total, load(g, core[j] * rows, lanes), spread(of_core[i, j], lanes))
        total = total / scale
        for e in range(len(ring)):
            total = plus(total, load(values, ring[e] * len(lanes), lanes), spread(lift[i, e], lanes))
        store(u, core[i] * rows, total)


@compiled
def _forward(values, factors, fronts, index, rows, lanes):
    """``L y = b`` in place."""
    width, place = len(lanes), 0
    for t in range(len(fronts)):
        n, pivots, begin = fronts[t, 0], fronts[t, 1], fronts[t, 2]
        for q in range(0, pivots, 4):
            count = min(4, pivots - q)
            where = index[begin + q : begin + n]
            m = n - q
            for b in range(count):
                at = where[b] * width
                total = load(values, at, lanes)
                column = place
                for a in range(b):
                    factor_of_it = load(factors, (column + b - a) * rows, lanes)
                    total = less(total, factor_of_it, load(values, where[a] * width, lanes))
                    column += m - a
                store(values, at, total * load(factors, column * rows, lanes))
            _forward_below(values, factors, where, place, count, m, rows, lanes)
            place += count * m - count * (count - 1) // 2


@compiled
def _forward_below(values, factors, where, place, count, m, rows, lanes):
    """Take up to four unknowns out of the equations below them."""
    width = len(lanes)
    y0 = load(values, where[0] * width, lanes)
    if count == 4:
        y1, y2 = load(values, where[1] * width, lanes), load(values, where[2] * width, lanes)
        y3 = load(values, where[3] * width, lanes)
        c1, c2, c3 = place + m - 1, place + 2 * m - 3, place + 3 * m - 6
        for i in range(4, m):
            at = where[i] * width
            total = less(load(values, at, lanes), y0, load(factors, (place + i) * rows, lanes))
            total = less(total, y1, load(factors, (c1 + i) * rows, lanes))
            total = less(total, y2, load(factors, (c2 + i) * rows, lanes))
            store(values, at, less(total, y3, load(factors, (c3 + i) * rows, lanes)))
        return
    if count == 3:
        y1, y2 = load(values, where[1] * width, lanes), load(values, where[2] * width, lanes)
        c1, c2 = place + m - 1, place + 2 * m - 3
        for i in range(3, m):
            at = where[i] * width
            total = less(load(values, at, lanes), y0, load(factors, (place + i) * rows, lanes))
            total = less(total, y1, load(factors, (c1 + i) * rows, lanes))
            store(values, at, less(total, y2, load(factors, (c2 + i) * rows, lanes)))
        return
    column = place
    for b in range(count):
        y0 = load(values, where[b] * width, lanes)
        for i in range(count, m):
            at = where[i] * width
            factor_of_it = load(factors, (column + i - b) * rows, lanes)
            store(values, at, less(load(values, at, lanes), y0, factor_of_it))
        column += m - b


@compiled
def _back(values, factors, fronts, index, rows, lanes):
    """``L^T x = y`` in place."""
    width, place = len(lanes), factors.shape[0]
    place = 0
    for t in range(len(fronts)):
        n, pivots = fronts[t, 0], fronts[t, 1]
        place += pivots * n - pivots * (pivots - 1) // 2
    for t in range(len(fronts) - 1, -1, -1):
        n, pivots, begin = fronts[t, 0], fronts[t, 1], fronts[t, 2]
        for q in range((pivots - 1) // 4 * 4, -1, -4):
            count = min(4, pivots - q)
            where = index[begin + q : begin + n]
            m = n - q
            place -= count * m - count * (count - 1) // 2
            _back_below(values, factors, where, place, count, m, rows, lanes)
            for b in range(count - 1, -1, -1):
                column = place + b * m - b * (b - 1) // 2
                at = where[b] * width
                total = load(values, at, lanes)
                for a in range(b + 1, count):
                    factor_of_it = load(factors, (column + a - b) * rows, lanes)
                    total = less(total, factor_of_it, load(values, where[a] * width, lanes))
                store(values, at, total * load(factors, column * rows, lanes))


@compiled
def _back_below(values, factors, where, place, count, m, rows, lanes):
    """Take the unknowns below out of up to four equations."""
    width = len(lanes)
    y0 = load(values, where[0] * width, lanes)
    if count == 4:
        y1, y2 = load(values, where[1] * width, lanes), load(values, where[2] * width, lanes)
        y3 = load(values, where[3] * width, lanes)
        c1, c2, c3 = place + m - 1, place + 2 * m - 3, place + 3 * m - 6
        for i in range(4, m):
            x = load(values, where[i] * width, lanes)
            y0 = less(y0, x, load(factors, (place + i) * rows, lanes))
            y1 = less(y1, x, load(factors, (c1 + i) * rows, lanes))
            y2 = less(y2, x, load(factors, (c2 + i) * rows, lanes))
            y3 = less(y3, x, load(factors, (c3 + i) * rows, lanes))
        store(values, where[1] * width, y1)
        store(values, where[2] * width, y2)
        store(values, where[3] * width, y3)
    elif count == 3:
        y1, y2 = load(values, where[1] * width, lanes), load(values, where[2] * width, lanes)
        c1, c2 = place + m - 1, place + 2 * m - 3
        for i in range(3, m):
            x = load(values, where[i] * width, lanes)
            y0 = less(y0, x, load(factors, (place + i) * rows, lanes))
            y1 = less(y1, x, load(factors, (c1 + i) * rows, lanes))
            y2 = less(y2, x, load(factors, (c2 + i) * rows, lanes))
        store(values, where[1] * width, y1)
        store(values, where[2] * width, y2)
    else:
        if count == 2:
            y1 = load(values, where[1] * width, lanes)
            for i in range(2, m):
                x = load(values, where[i] * width, lanes)
                y1 = less(y1, x, load(factors, (place + m - 1 + i) * rows, lanes))
            store(values, where[1] * width, y1)
        for i in range(count, m):
            x = load(values, where[i] * width, lanes)
            y0 = less(y0, x, load(factors, (place + i) * rows, lanes))
    store(values, where[0] * width, y0)


@compiled
def energies(left, right, nodes, entries, values, lanes, first, found):
    """``left^T K_k right`` of each block, into ``found`` ``(blocks, rows)``.

    ``left`` and ``right`` are ``(nodes, rows)``; ``entries`` are the places ``(i, j)`` of ``K`` that are not zero, with
    their ``values``.
    """
    rows = left.shape[1]
    a, b, out = left.reshape(-1)[first:], right.reshape(-1)[first:], found.reshape(-1)[first:]
    for k in range(len(nodes)):
        where = nodes[k]
        total = spread(values.dtype.type(0.0), lanes)
        part = total
        row = 0
        for e in range(len(entries)):
            i, j = entries[e, 0], entries[e, 1]
            if i != row:  # entries come row by row
                total = plus(total, part, load(a, where[row] * rows, lanes))
                part, row = spread(values.dtype.type(0.0), lanes), i
            part = plus(part, load(b, where[j] * rows, lanes), spread(values[e], lanes))
        store(out, k * rows, plus(total, part, load(a, where[row] * rows, lanes)))
