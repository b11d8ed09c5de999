"""Real and complex transforms of many interleaved fields, for compiled loops.

Layout: ``width`` fields are interleaved. A field of ``n`` points is that of its even points, then that of its odd
points: the real and imaginary part of the numbers whose transform of half the length gives the real one (W. H. Press et
al., "Numerical Recipes", chapter 12.3). A spectrum is a pair of rows, real and imaginary part, with room for all
``n / 2 + 1`` columns, of which those that are not kept are zero. Complex transforms are those of Stockham: every pass
writes in order, with long inner loops over the fields and what is transformed already (C. Van Loan, "Computational
Frameworks for the Fast Fourier Transform", 1992, chapter 1.7).

``plan`` is the triple of :func:`~dpcontrol.kernels.spectral_rows.plan`: sizes, radices of the passes, roots of unity.
``work`` are three arrays of the size of all fields. Numba's cache on disk looks at the file of the outermost function
only: whoever changes this file alone must empty the cache of those that call it (``__pycache__``).
"""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import numpy as np

from dpcontrol.kernels.loops.compiling import compiled


@compiled
def forward(field, plan, width, work, spectrum):
    """The first columns of the spectrum of a field."""
    (points, columns), _, (_, _, cosines, sines) = plan
    h, half = points // 2, field.dtype.type(0.5)
    size, z = h * width, work[2]
    transform(field, 0, size, z, 0, size, plan, width, work)
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
def inverse(spectrum, plan, width, work, field):
    """The field of a spectrum, whose imaginary parts of the mean and of the shortest wave play no part."""
    (points, _), _, (_, _, cosines, sines) = plan
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
    transform(z, size, 0, field, size, 0, plan, width, work)


# -- complex transforms --------------------------------------------------------------------------------------------


@compiled
def transform(x, xr, xi, y, yr, yi, plan, width, work):
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
