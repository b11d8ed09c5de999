"""``u_t + (u^2 / 2)_x = L u + F`` in Fourier space: a run of many steps of every scenario, and its adjoint.

The scheme is that of :class:`~dpcontrol.kernels.spectral_exponential.ExponentialKernel`, with real tables for the linear
part and imaginary ones for the flux. A few scenarios at a time are run from their first step to their last, transforms
included: all that they need stays in the innermost caches, and no call is paid for.

Layout of the work arrays: ``width`` scenarios are interleaved. A field of ``n`` points is that of its even points,
then that of its odd points: the real and imaginary part of the complex numbers whose transform of half the length gives
the real one (W. H. Press et al., "Numerical Recipes", chapter 12.3). A spectrum is a pair of arrays, real and imaginary
part. Complex transforms are those of Stockham: every pass writes in order, with long inner loops over scenarios and what
is transformed already (C. Van Loan, "Computational Frameworks for the Fast Fourier Transform", 1992, chapter 1.7).

``plan`` is the triple of :class:`~dpcontrol.kernels.spectral_rows.RowKernel`: sizes, radices of the passes, tables of
roots of unity. All functions stand in one file, because Numba's cache on disk looks at the file of the outermost one.
"""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import numpy as np

from dpcontrol.kernels.loops.compiling import compiled


@compiled
def run(state, controls, forced, plan, scheme, tables, states, chunk):
    """The states behind every step of some scenarios.

    ``state`` and ``controls`` are pairs of flat memory and strides, for the axes (scenarios, cells) and (steps,
    scenarios, cells); ``scheme`` says of each stage but the first which node it starts from, where its sources begin,
    and all sources; ``tables`` are ``decay``, ``held``, ``inner``, ``outer``, each ``(rows, scenarios or 1, columns)``;
    ``states`` ``(steps, scenarios, cells)`` is written. ``chunk`` is the first scenario, the one behind the last, and
    how many are run together.
    """
    begin, end, width = chunk
    points, columns = plan[0][0] * width, plan[0][1] * width
    room = points // 2 + width  # all columns, those that are not kept stay zero
    nodes, starts, sources = scheme
    last, stages = len(tables[0]) - 1, len(tables[3])
    decay, held, inner, outer = _shelves(tables, columns)
    work = _work(points, states)
    values, product = np.empty(points, states.dtype), np.empty(points, states.dtype)
    spectrum, after = np.zeros((2, room), states.dtype), np.zeros((2, room), states.dtype)
    force, rates = np.zeros((2, room), states.dtype), np.zeros((stages, 2, room), states.dtype)
    for s in range(begin, end, width):
        _spread(tables, s, width, decay, held, inner, outer)
        _load(state[0], s * state[1][0], state[1], width, values)
        _forward(values, plan, width, work, spectrum)
        for k in range(len(states)):
            if forced:
                _load(controls[0], k * controls[1][0] + s * controls[1][1], controls[1][1:], width, product)
                _forward(product, plan, width, work, force)
            for i in range(stages):
                if i > 0:
                    _base(spectrum, force, decay[nodes[i - 1]], held[nodes[i - 1]], forced, after)
                    for e in range(starts[i - 1], starts[i]):
                        _push(inner[e], rates[sources[e]], after)
                    _inverse(after, plan, width, work, values)
                _square(values, product)
                _forward(product, plan, width, work, rates[i])
            _base(spectrum, force, decay[last], held[last], forced, after)
            for i in range(stages):
                _push(outer[i], rates[i], after)
            _copy(after, spectrum)
            _inverse(spectrum, plan, width, work, values)
            _store(values, s, width, states[k])


@compiled
def pull(
    state, states, controls, forced, plan, scheme, tables, above, wanted, of_state, of_controls, of_tables, chunk
):  # fmt: skip
    """The vector-Jacobian product of :func:`run`: the stages of a step are computed again from its first state.

    ``above`` are the cotangents of ``states``, as flat memory and strides; ``wanted`` says whether gradients of the
    controls and of the tables are asked for; ``of_state``, ``of_controls`` and ``of_tables``, like ``tables`` for each
    scenario with a last axis for real and imaginary part, are written.
    """
    begin, end, width = chunk
    points, columns = plan[0][0] * width, plan[0][1] * width
    room = points // 2 + width  # all columns, those that are not kept stay zero
    nodes, starts, sources = scheme
    last, stages = len(tables[0]) - 1, len(tables[3])
    decay, held, inner, outer = _shelves(tables, columns)
    kind = states.dtype
    work, product = _work(points, states), np.empty(points, kind)
    values, spectrum, force = (
        np.empty((stages, points), kind),
        np.zeros((2, room), kind),
        np.zeros((2, room), kind),
    )
    stage, arriving = np.zeros((2, room), kind), np.zeros((2, room), kind)
    carried, rates = np.zeros((2, room), kind), np.zeros((stages, 2, room), kind)
    of_rates, of_nodes = np.zeros((stages, 2, room), kind), np.zeros((last + 1, 2, room), kind)
    sums = (
        np.empty((len(tables[0]) if wanted[1] else 0, 2, room), kind),
        np.empty((len(tables[1]) if wanted[1] else 0, 2, room), kind),
        np.empty((len(tables[2]) if wanted[1] else 0, 2, room), kind),
        np.empty((len(tables[3]) if wanted[1] else 0, 2, room), kind),
    )
    two = kind.type(2.0)
    for s in range(begin, end, width):
        _spread(tables, s, width, decay, held, inner, outer)
        carried[:] = 0
        sums[0][:], sums[1][:], sums[2][:], sums[3][:] = 0, 0, 0, 0
        for k in range(len(states) - 1, -1, -1):
            if k > 0:
                _load_state(states[k - 1], s, width, values[0])
            else:
                _load(state[0], s * state[1][0], state[1], width, values[0])
            _forward(values[0], plan, width, work, spectrum)
            if forced:
                _load(controls[0], k * controls[1][0] + s * controls[1][1], controls[1][1:], width, product)
                _forward(product, plan, width, work, force)
            for i in range(stages):
                if i > 0:
                    _base(spectrum, force, decay[nodes[i - 1]], held[nodes[i - 1]], forced, stage)
                    for e in range(starts[i - 1], starts[i]):
                        _push(inner[e], rates[sources[e]], stage)
                    _inverse(stage, plan, width, work, values[i])
                if i < stages - 1 or wanted[1]:
                    _square(values[i], product)
                    _forward(product, plan, width, work, rates[i])
            _load(above[0], k * above[1][0] + s * above[1][1], above[1][1:], width, product)
            _forward(product, plan, width, work, arriving)
            _add(arriving, carried)
            of_nodes[:], of_rates[:] = 0, 0
            _copy(carried, of_nodes[last])
            for i in range(stages):
                _push_back(outer[i], carried, of_rates[i])
                if wanted[1]:
                    _note(rates[i], carried, sums[3][i])
            for i in range(stages - 1, 0, -1):
                _inverse(of_rates[i], plan, width, work, product)
                _scale(values[i], two, product)
                _forward(product, plan, width, work, stage)
                _add(stage, of_nodes[nodes[i - 1]])
                for e in range(starts[i - 1], starts[i]):
                    _push_back(inner[e], stage, of_rates[sources[e]])
                    if wanted[1]:
                        _note(rates[sources[e]], stage, sums[2][e])
            stage[:], carried[:] = 0, 0
            for node in range(last + 1):
                _add_product(decay[node], of_nodes[node], carried)
                _add_product(held[node], of_nodes[node], stage)
                if wanted[1]:
                    _note(spectrum, of_nodes[node], sums[0][node])
                    if forced:
                        _note(force, of_nodes[node], sums[1][node])
            if wanted[0]:
                _inverse(stage, plan, width, work, product)
                _store(product, s, width, of_controls[k])
            _inverse(of_rates[0], plan, width, work, product)
            _scale(values[0], two, product)
            if k > 0:
                _forward(product, plan, width, work, stage)
                _add(stage, carried)
        _inverse(carried, plan, width, work, values[0])
        _add_field(values[0], product)
        _store(product, s, width, of_state)
        if wanted[1]:
            _collect(sums[0], plan, s, width, of_tables[0])
            _collect(sums[1], plan, s, width, of_tables[1])
            _collect(sums[2], plan, s, width, of_tables[2])
            _collect(sums[3], plan, s, width, of_tables[3])


# -- real transforms -----------------------------------------------------------------------------------------------


@compiled
def _forward(field, plan, width, work, spectrum):
    """The first columns of the spectrum of a field, from the transform of its even and odd points as one of half length."""
    (points, columns), _, (_, _, cosines, sines) = plan
    h, half = points // 2, field.dtype.type(0.5)
    size, z = h * width, work[2]
    _transform(field, 0, size, z, 0, size, plan, width, work)
    for v in range(width):
        spectrum[0, v], spectrum[1, v] = z[v] + z[size + v], 0
        if columns > h:
            spectrum[0, size + v], spectrum[1, size + v] = z[v] - z[size + v], 0
    if width == 1:  # one loop, for vector instructions
        for k in range(np.uint64(1), np.uint64(min(columns, h))):
            er, ei = half * (z[k] + z[size - k]), half * (z[size + k] - z[size + size - k])
            dr, di = half * (z[size + k] + z[size + size - k]), half * (z[size - k] - z[k])
            spectrum[0, k] = er + cosines[k] * dr - sines[k] * di
            spectrum[1, k] = ei + cosines[k] * di + sines[k] * dr
        return
    for k in range(1, min(columns, h)):
        a, b, cosine, sine = np.uint64(k * width), np.uint64((h - k) * width), cosines[k], sines[k]
        c, d = a + np.uint64(size), b + np.uint64(size)
        for v in range(np.uint64(width)):
            er, ei = half * (z[a + v] + z[b + v]), half * (z[c + v] - z[d + v])
            dr, di = half * (z[c + v] + z[d + v]), half * (z[b + v] - z[a + v])
            spectrum[0, a + v] = er + cosine * dr - sine * di
            spectrum[1, a + v] = ei + cosine * di + sine * dr


@compiled
def _inverse(spectrum, plan, width, work, field):
    """The field of a spectrum, whose imaginary parts of the mean and of the shortest wave play no part."""
    (points, columns), _, (_, _, cosines, sines) = plan
    h, scale = points // 2, field.dtype.type(1.0 / points)
    size, z = h * width, work[2]
    for v in range(width):
        z[v] = scale * (spectrum[0, v] + spectrum[0, size + v])
        z[size + v] = scale * (spectrum[0, v] - spectrum[0, size + v])
    if width == 1:  # one loop, for vector instructions
        for k in range(np.uint64(1), np.uint64(h)):
            ar, ai, br, bi = spectrum[0, k], spectrum[1, k], spectrum[0, size - k], spectrum[1, size - k]
            cosine, sine = scale * cosines[k], scale * sines[k]
            z[k] = scale * (ar + br) - cosine * (ai + bi) + sine * (ar - br)
            z[size + k] = scale * (ai - bi) + cosine * (ar - br) + sine * (ai + bi)
    else:
        for k in range(1, h):
            a, b = np.uint64(k * width), np.uint64((h - k) * width)
            cosine, sine = scale * cosines[k], scale * sines[k]
            for v in range(np.uint64(width)):
                ar, ai, br, bi = (
                    spectrum[0, a + v],
                    spectrum[1, a + v],
                    spectrum[0, b + v],
                    spectrum[1, b + v],
                )
                z[a + v] = scale * (ar + br) - cosine * (ai + bi) + sine * (ar - br)
                z[np.uint64(size) + a + v] = scale * (ai - bi) + cosine * (ar - br) + sine * (ai + bi)
    # real and imaginary parts exchanged: the inverse transform
    _transform(z, size, 0, field, size, 0, plan, width, work)


# -- complex transforms --------------------------------------------------------------------------------------------


@compiled
def _transform(x, xr, xi, y, yr, yi, plan, width, work):
    """``y_k = sum_j x_j e^{-2 pi i j k / h}`` for each scenario; ``r`` and ``i`` say where the parts begin."""
    (points, _), radices, (wr, wi, _, _) = plan
    h = points // 2
    left, stride, place, passes = h, width, 0, len(radices)
    source, sr, si = x, xr, xi
    for t in range(passes):
        r = radices[t]
        m = left // r
        target, tr, ti = (y, yr, yi) if t == passes - 1 else (work[t % 2], 0, h * width)
        if r == 4 and stride == 1:
            _first4(source, sr, si, target, tr, ti, wr, wi, m)
        elif r == 4:
            _pass4(source, sr, si, target, tr, ti, wr, wi, place, m, stride)
        elif r == 2:
            _pass2(source, sr, si, target, tr, ti, wr, wi, place, m, stride)
        elif r == 3:
            _pass3(source, sr, si, target, tr, ti, wr, wi, place, m, stride)
        else:
            _pass5(source, sr, si, target, tr, ti, wr, wi, place, m, stride)
        source, sr, si = target, tr, ti
        place, left, stride = place + (r - 1) * m, m, stride * r


@compiled
def _first4(x, xr, xi, y, yr, yi, wr, wi, m):
    """The first pass over a single scenario: the long loop is that over what is transformed together."""
    one = np.uint64(m)
    a, b = np.uint64(xr), np.uint64(xi)
    c, d = np.uint64(yr), np.uint64(yi)
    for p in range(one):
        ar, ai, br, bi = x[a + p], x[b + p], x[a + one + p], x[b + one + p]
        cr, ci = x[a + one + one + p], x[b + one + one + p]
        dr, di = x[a + one + one + one + p], x[b + one + one + one + p]
        er, ei, fr, fi = ar + cr, ai + ci, ar - cr, ai - ci
        gr, gi, hr, hi = br + dr, bi + di, bi - di, dr - br
        ur, ui, vr, vi, zr, zi = fr + hr, fi + hi, er - gr, ei - gi, fr - hr, fi - hi
        q = p + p + p + p
        y[c + q] = er + gr
        y[c + q + np.uint64(1)] = ur * wr[p] - ui * wi[p]
        y[c + q + np.uint64(2)] = vr * wr[one + p] - vi * wi[one + p]
        y[c + q + np.uint64(3)] = zr * wr[one + one + p] - zi * wi[one + one + p]
        y[d + q] = ei + gi
        y[d + q + np.uint64(1)] = ur * wi[p] + ui * wr[p]
        y[d + q + np.uint64(2)] = vr * wi[one + p] + vi * wr[one + p]
        y[d + q + np.uint64(3)] = zr * wi[one + one + p] + zi * wr[one + one + p]


@compiled
def _pass2(x, xr, xi, y, yr, yi, wr, wi, place, m, s):
    step, one = np.uint64(s * m), np.uint64(s)
    for p in range(m):
        c1, s1 = wr[place + p], wi[place + p]
        a, b = np.uint64(xr + s * p), np.uint64(xi + s * p)
        c, d = np.uint64(yr + 2 * s * p), np.uint64(yi + 2 * s * p)
        for q in range(one):
            ar, ai, br, bi = x[a + q], x[b + q], x[a + step + q], x[b + step + q]
            y[c + q] = ar + br
            y[d + q] = ai + bi
            ur, ui = ar - br, ai - bi
            y[c + one + q] = ur * c1 - ui * s1
            y[d + one + q] = ur * s1 + ui * c1


@compiled
def _pass3(x, xr, xi, y, yr, yi, wr, wi, place, m, s):
    step, one = np.uint64(s * m), np.uint64(s)
    half, root = x.dtype.type(0.5), x.dtype.type(0.8660254037844386)
    for p in range(m):
        c1, s1, c2, s2 = wr[place + p], wi[place + p], wr[place + m + p], wi[place + m + p]
        a, b = np.uint64(xr + s * p), np.uint64(xi + s * p)
        c, d = np.uint64(yr + 3 * s * p), np.uint64(yi + 3 * s * p)
        for q in range(one):
            ar, ai, br, bi = x[a + q], x[b + q], x[a + step + q], x[b + step + q]
            cr, ci = x[a + step + step + q], x[b + step + step + q]
            tr, ti, dr, di = br + cr, bi + ci, root * (bi - ci), root * (cr - br)
            y[c + q] = ar + tr
            y[d + q] = ai + ti
            mr, mi = ar - half * tr, ai - half * ti
            ur, ui, vr, vi = mr + dr, mi + di, mr - dr, mi - di
            y[c + one + q] = ur * c1 - ui * s1
            y[d + one + q] = ur * s1 + ui * c1
            y[c + one + one + q] = vr * c2 - vi * s2
            y[d + one + one + q] = vr * s2 + vi * c2


@compiled
def _pass4(x, xr, xi, y, yr, yi, wr, wi, place, m, s):
    step, one = np.uint64(s * m), np.uint64(s)
    for p in range(m):
        c1, s1, c2, s2 = wr[place + p], wi[place + p], wr[place + m + p], wi[place + m + p]
        c3, s3 = wr[place + 2 * m + p], wi[place + 2 * m + p]
        a, b = np.uint64(xr + s * p), np.uint64(xi + s * p)
        c, d = np.uint64(yr + 4 * s * p), np.uint64(yi + 4 * s * p)
        for q in range(one):
            ar, ai, br, bi = x[a + q], x[b + q], x[a + step + q], x[b + step + q]
            cr, ci = x[a + step + step + q], x[b + step + step + q]
            dr, di = x[a + step + step + step + q], x[b + step + step + step + q]
            er, ei, fr, fi = ar + cr, ai + ci, ar - cr, ai - ci
            gr, gi, hr, hi = br + dr, bi + di, bi - di, dr - br
            ur, ui, vr, vi, zr, zi = fr + hr, fi + hi, er - gr, ei - gi, fr - hr, fi - hi
            y[c + q] = er + gr
            y[d + q] = ei + gi
            y[c + one + q] = ur * c1 - ui * s1
            y[d + one + q] = ur * s1 + ui * c1
            y[c + one + one + q] = vr * c2 - vi * s2
            y[d + one + one + q] = vr * s2 + vi * c2
            y[c + one + one + one + q] = zr * c3 - zi * s3
            y[d + one + one + one + q] = zr * s3 + zi * c3


@compiled
def _pass5(x, xr, xi, y, yr, yi, wr, wi, place, m, s):
    step, one, kind = np.uint64(s * m), np.uint64(s), x.dtype.type
    two, three, four = step + step, step + step + step, step + step + step + step
    c1, c2 = kind(0.30901699437494745), kind(-0.8090169943749475)
    s1, s2 = kind(0.9510565162951535), kind(0.5877852522924731)
    for p in range(m):
        w1, w2, w3, w4 = place + p, place + m + p, place + 2 * m + p, place + 3 * m + p
        a, b = np.uint64(xr + s * p), np.uint64(xi + s * p)
        c, d = np.uint64(yr + 5 * s * p), np.uint64(yi + 5 * s * p)
        for q in range(one):
            ar, ai = x[a + q], x[b + q]
            tr, ti = x[a + step + q] + x[a + four + q], x[b + step + q] + x[b + four + q]
            ur, ui = x[a + two + q] + x[a + three + q], x[b + two + q] + x[b + three + q]
            vr, vi = x[a + step + q] - x[a + four + q], x[b + step + q] - x[b + four + q]
            zr, zi = x[a + two + q] - x[a + three + q], x[b + two + q] - x[b + three + q]
            y[c + q] = ar + tr + ur
            y[d + q] = ai + ti + ui
            gr, gi = ar + c1 * tr + c2 * ur, ai + c1 * ti + c2 * ui
            hr, hi = ar + c2 * tr + c1 * ur, ai + c2 * ti + c1 * ui
            kr, ki, lr, li = s1 * vr + s2 * zr, s1 * vi + s2 * zi, s2 * vr - s1 * zr, s2 * vi - s1 * zi
            e, f = c + one + q, d + one + q
            y[e] = (gr + ki) * wr[w1] - (gi - kr) * wi[w1]
            y[f] = (gr + ki) * wi[w1] + (gi - kr) * wr[w1]
            e, f = e + one, f + one
            y[e] = (hr + li) * wr[w2] - (hi - lr) * wi[w2]
            y[f] = (hr + li) * wi[w2] + (hi - lr) * wr[w2]
            e, f = e + one, f + one
            y[e] = (hr - li) * wr[w3] - (hi + lr) * wi[w3]
            y[f] = (hr - li) * wi[w3] + (hi + lr) * wr[w3]
            e, f = e + one, f + one
            y[e] = (gr - ki) * wr[w4] - (gi + kr) * wi[w4]
            y[f] = (gr - ki) * wi[w4] + (gi + kr) * wr[w4]


# -- spectra and fields, point by point ----------------------------------------------------------------------------


@compiled
def _base(spectrum, force, decay, held, forced, out):
    """The linear part: ``decay s + held f``."""
    for p in range(np.uint64(len(decay))):
        out[0, p] = decay[p] * spectrum[0, p]
        out[1, p] = decay[p] * spectrum[1, p]
    if forced:
        _add_product(held, force, out)


@compiled
def _add_product(table, spectrum, out):
    for p in range(np.uint64(len(table))):
        out[0, p] += table[p] * spectrum[0, p]
        out[1, p] += table[p] * spectrum[1, p]


@compiled
def _push(weight, rate, out):
    """Add ``i weight`` times a rate."""
    for p in range(np.uint64(len(weight))):
        out[0, p] -= weight[p] * rate[1, p]
        out[1, p] += weight[p] * rate[0, p]


@compiled
def _push_back(weight, cotangent, out):
    """Add ``-i weight`` times a cotangent."""
    for p in range(np.uint64(len(weight))):
        out[0, p] += weight[p] * cotangent[1, p]
        out[1, p] -= weight[p] * cotangent[0, p]


@compiled
def _note(factor, cotangent, total):
    """Add ``conj(factor) cotangent``."""
    for p in range(np.uint64(factor.shape[1])):
        total[0, p] += factor[0, p] * cotangent[0, p] + factor[1, p] * cotangent[1, p]
        total[1, p] += factor[0, p] * cotangent[1, p] - factor[1, p] * cotangent[0, p]


@compiled
def _add(more, total):
    for p in range(np.uint64(more.shape[1])):
        total[0, p] += more[0, p]
        total[1, p] += more[1, p]


@compiled
def _copy(spectrum, out):
    for p in range(np.uint64(spectrum.shape[1])):
        out[0, p] = spectrum[0, p]
        out[1, p] = spectrum[1, p]


@compiled
def _square(values, out):
    for p in range(np.uint64(len(values))):
        out[p] = values[p] * values[p]


@compiled
def _scale(values, factor, field):
    """Multiply a field by a factor and by values."""
    for p in range(np.uint64(len(values))):
        field[p] *= factor * values[p]


@compiled
def _add_field(more, total):
    for p in range(np.uint64(len(more))):
        total[p] += more[p]


# -- between memory and the work arrays ----------------------------------------------------------------------------


@compiled
def _load(memory, begin, strides, width, field):
    half = len(field) // (2 * width)
    for v in range(width):
        for j in range(half):
            place = begin + v * strides[0] + 2 * j * strides[1]
            field[j * width + v] = memory[place]
            field[(half + j) * width + v] = memory[place + strides[1]]


@compiled
def _load_state(states, begin, width, field):
    half = len(field) // (2 * width)
    for v in range(width):
        for j in range(half):
            field[j * width + v] = states[begin + v, 2 * j]
            field[(half + j) * width + v] = states[begin + v, 2 * j + 1]


@compiled
def _store(field, begin, width, states):
    half = len(field) // (2 * width)
    for v in range(width):
        for j in range(half):
            states[begin + v, 2 * j] = field[j * width + v]
            states[begin + v, 2 * j + 1] = field[(half + j) * width + v]


@compiled
def _work(points, like):
    """Room for transforms."""
    return np.empty(points, like.dtype), np.empty(points, like.dtype), np.empty(points, like.dtype)


@compiled
def _shelves(tables, columns):
    """Room for the tables of scenarios that are run together."""
    kind = tables[0].dtype
    return (
        np.empty((len(tables[0]), columns), kind),
        np.empty((len(tables[1]), columns), kind),
        np.empty((len(tables[2]), columns), kind),
        np.empty((len(tables[3]), columns), kind),
    )


@compiled
def _spread(tables, begin, width, decay, held, inner, outer):
    _spread_one(tables[0], begin, width, decay)
    _spread_one(tables[1], begin, width, held)
    _spread_one(tables[2], begin, width, inner)
    _spread_one(tables[3], begin, width, outer)


@compiled
def _spread_one(table, begin, width, out):
    shared = table.shape[1] == 1
    for row in range(len(table)):
        for v in range(width):
            s = 0 if shared else begin + v
            for k in range(table.shape[2]):
                out[row, k * width + v] = table[row, s, k]


@compiled
def _collect(sums, plan, begin, width, out):
    """Gradients of tables from their sums: columns that stand for a conjugate one as well count twice."""
    points, columns = plan[0]
    one = sums.dtype.type(1.0 / points)
    for row in range(len(sums)):
        for k in range(columns):
            weight = one if k == 0 or 2 * k == points else one + one
            for v in range(width):
                out[row, begin + v, k, 0] = weight * sums[row, 0, k * width + v]
                out[row, begin + v, k, 1] = weight * sums[row, 1, k * width + v]
