"""Fields looked up between their points, and clamped between the values around a point, with their adjoints.

The schemes are those of :mod:`dpcontrol.sim.staggered`. A field comes padded with two ghost points on each side and
flattened, ``(scenarios, points)``; what a point has travelled, in cells, is one array ``(scenarios, *shape)`` for each
axis. Whatever it is, NaN included, the place looked up lies inside of the padded field. Adjoints add to what they are
given. Two and three axes are written out: loops over corners would cost more than the arithmetic.
"""

# mypy: disallow-untyped-defs=False

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

OPTIONS: dict[str, Any] = {
    "cache": True,
    "nogil": True,
    "error_model": "numpy",
    "fastmath": {"contract"},
}


@njit(**OPTIONS)
def _cell(distance, place, n, around):
    """The lower corner on a padded axis of ``n + 4`` points, and how far beyond it the point lies.

    Without branches and with unsigned indices, so that loops over points become vector instructions.
    """
    whole = np.floor(distance)
    weight = distance - whole
    if around:
        at = place + (whole - n * np.floor(whole / n))
        at = (at - n if at >= n else at) + 2.0
    else:
        at = place + 2.0 + whole
    top = n + 2.0
    at = at if at < top else top  # NaN too
    at = at if at > 0.0 else 0.0
    return np.uint64(np.int64(at)), weight


@njit(**OPTIONS)
def _between(low, high, weight):
    return low + weight * (high - low)


@njit(**OPTIONS)
def blend2(padded, sign, x, y, around, out):
    """``out`` is the field at ``i + sign * (x, y)``."""
    scenarios, nx, ny = x.shape
    up, one = np.uint64(ny + 4), np.uint64(1)
    for s in range(scenarios):
        row = padded[s]
        for i in range(nx):
            for j in range(ny):
                a, p = _cell(sign * x[s, i, j], i, nx, around[0])
                b, q = _cell(sign * y[s, i, j], j, ny, around[1])
                k = a * up + b
                low = _between(row[k], row[k + one], q)
                high = _between(row[k + up], row[k + up + one], q)
                out[s, i, j] = _between(low, high, p)


@njit(**OPTIONS)
def blend3(padded, sign, x, y, z, around, out):
    """The same in three dimensions."""
    scenarios, nx, ny, nz = x.shape
    right, up, one = np.uint64(nz + 4), np.uint64((ny + 4) * (nz + 4)), np.uint64(1)
    for s in range(scenarios):
        row = padded[s]
        for i in range(nx):
            for j in range(ny):
                for m in range(nz):
                    a, p = _cell(sign * x[s, i, j, m], i, nx, around[0])
                    b, q = _cell(sign * y[s, i, j, m], j, ny, around[1])
                    c, r = _cell(sign * z[s, i, j, m], m, nz, around[2])
                    k = a * up + b * right + c
                    t = k + up
                    low = _between(
                        _between(row[k], row[k + one], r),
                        _between(row[k + right], row[k + right + one], r),
                        q,
                    )
                    high = _between(
                        _between(row[t], row[t + one], r),
                        _between(row[t + right], row[t + right + one], r),
                        q,
                    )
                    out[s, i, j, m] = _between(low, high, p)


@njit(**OPTIONS)
def pull_blend2(padded, sign, x, y, around, above, of_padded, of_x, of_y):
    """The adjoint of :func:`blend2`."""
    scenarios, nx, ny = x.shape
    up, one = np.uint64(ny + 4), np.uint64(1)
    for s in range(scenarios):
        row = padded[s]
        for i in range(nx):
            for j in range(ny):
                a, p = _cell(sign * x[s, i, j], i, nx, around[0])
                b, q = _cell(sign * y[s, i, j], j, ny, around[1])
                k = a * up + b
                g = above[s, i, j]
                d0, d1 = row[k + one] - row[k], row[k + up + one] - row[k + up]
                rise = row[k + up] - row[k]
                of_x[s, i, j] += sign * g * (rise + q * (d1 - d0))
                of_y[s, i, j] += sign * g * (d0 + p * (d1 - d0))
                g1 = g * p
                g0 = g - g1
                of_padded[s, k] += g0 - g0 * q
                of_padded[s, k + one] += g0 * q
                of_padded[s, k + up] += g1 - g1 * q
                of_padded[s, k + up + one] += g1 * q


@njit(**OPTIONS)
def pull_blend3(padded, sign, x, y, z, around, above, of_padded, of_x, of_y, of_z):
    """The adjoint of :func:`blend3`."""
    scenarios, nx, ny, nz = x.shape
    right, up, one = np.uint64(nz + 4), np.uint64((ny + 4) * (nz + 4)), np.uint64(1)
    for s in range(scenarios):
        row = padded[s]
        for i in range(nx):
            for j in range(ny):
                for m in range(nz):
                    a, p = _cell(sign * x[s, i, j, m], i, nx, around[0])
                    b, q = _cell(sign * y[s, i, j, m], j, ny, around[1])
                    c, r = _cell(sign * z[s, i, j, m], m, nz, around[2])
                    k = a * up + b * right + c
                    t = k + up
                    g = above[s, i, j, m]
                    d00, d01 = row[k + one] - row[k], row[k + right + one] - row[k + right]
                    d10, d11 = row[t + one] - row[t], row[t + right + one] - row[t + right]
                    f00, f01 = row[k] + r * d00, row[k + right] + r * d01
                    f10, f11 = row[t] + r * d10, row[t + right] + r * d11
                    e0, e1 = f01 - f00, f11 - f10
                    of_x[s, i, j, m] += sign * g * ((f10 - f00) + q * (e1 - e0))
                    of_y[s, i, j, m] += sign * g * (e0 + p * (e1 - e0))
                    d0, d1 = d00 + q * (d01 - d00), d10 + q * (d11 - d10)
                    of_z[s, i, j, m] += sign * g * (d0 + p * (d1 - d0))
                    g1 = g * p
                    g0 = g - g1
                    g01, g11 = g0 * q, g1 * q
                    g00, g10 = g0 - g01, g1 - g11
                    of_padded[s, k] += g00 - g00 * r
                    of_padded[s, k + one] += g00 * r
                    of_padded[s, k + right] += g01 - g01 * r
                    of_padded[s, k + right + one] += g01 * r
                    of_padded[s, t] += g10 - g10 * r
                    of_padded[s, t + one] += g10 * r
                    of_padded[s, t + right] += g11 - g11 * r
                    of_padded[s, t + right + one] += g11 * r


@njit(**OPTIONS)
def clamp2(padded, x, y, around, value):
    """``value`` becomes ``max(low, min(value, high))`` with the corners around ``i - (x, y)``."""
    scenarios, nx, ny = x.shape
    up, one = np.uint64(ny + 4), np.uint64(1)
    for s in range(scenarios):
        row = padded[s]
        for i in range(nx):
            for j in range(ny):
                a, _ = _cell(-x[s, i, j], i, nx, around[0])
                b, _ = _cell(-y[s, i, j], j, ny, around[1])
                k = a * up + b
                low = high = row[k]
                for at in (k + one, k + up, k + up + one):
                    low, high = min(low, row[at]), max(high, row[at])
                value[s, i, j] = _clamped(value[s, i, j], low, high)


@njit(**OPTIONS)
def clamp3(padded, x, y, z, around, value):
    """The same in three dimensions."""
    scenarios, nx, ny, nz = x.shape
    right, up, one = np.uint64(nz + 4), np.uint64((ny + 4) * (nz + 4)), np.uint64(1)
    for s in range(scenarios):
        row = padded[s]
        for i in range(nx):
            for j in range(ny):
                for m in range(nz):
                    a, _ = _cell(-x[s, i, j, m], i, nx, around[0])
                    b, _ = _cell(-y[s, i, j, m], j, ny, around[1])
                    c, _ = _cell(-z[s, i, j, m], m, nz, around[2])
                    k = a * up + b * right + c
                    low = high = row[k]
                    for start in (k, k + right, k + up, k + up + right):
                        low = min(low, min(row[start], row[start + one]))
                        high = max(high, max(row[start], row[start + one]))
                    value[s, i, j, m] = _clamped(value[s, i, j, m], low, high)


@njit(**OPTIONS)
def _clamped(value, low, high):
    """NaN stays NaN."""
    value = high if value > high else value
    return low if value < low else value


@njit(**OPTIONS)
def _shares(value, low, high, above):
    """Gradients in the value, in ``low`` and in ``high``: where two are equal they get half, as in torch."""
    middle = min(value, high)
    of_low, rest = 0.0, 1.0
    if low == middle:
        of_low = rest = 0.5
    elif low > middle:
        of_low, rest = 1.0, 0.0
    of_value, of_high = rest, 0.0
    if value == high:
        of_value = of_high = 0.5 * rest
    elif value > high:
        of_value, of_high = 0.0, rest
    return of_value * above, of_low * above, of_high * above


@njit(**OPTIONS)
def pull_clamp2(padded, x, y, around, value, above, of_value, of_padded):
    """The adjoint of :func:`clamp2`, ``value`` being what was clamped; equal corners share their gradient."""
    scenarios, nx, ny = x.shape
    up, one = np.uint64(ny + 4), np.uint64(1)
    for s in range(scenarios):
        row = padded[s]
        for i in range(nx):
            for j in range(ny):
                a, _ = _cell(-x[s, i, j], i, nx, around[0])
                b, _ = _cell(-y[s, i, j], j, ny, around[1])
                k = a * up + b
                places = (k, k + one, k + up, k + up + one)
                low = high = row[k]
                for at in places:
                    low, high = min(low, row[at]), max(high, row[at])
                own, lower, upper = _shares(value[s, i, j], low, high, above[s, i, j])
                of_value[s, i, j] += own
                if lower != 0:
                    lower /= _count(row, places, low)
                    for at in places:
                        of_padded[s, at] += lower if row[at] == low else 0
                if upper != 0:
                    upper /= _count(row, places, high)
                    for at in places:
                        of_padded[s, at] += upper if row[at] == high else 0


@njit(**OPTIONS)
def pull_clamp3(padded, x, y, z, around, value, above, of_value, of_padded):
    """The adjoint of :func:`clamp3`."""
    scenarios, nx, ny, nz = x.shape
    right, up, one = np.uint64(nz + 4), np.uint64((ny + 4) * (nz + 4)), np.uint64(1)
    for s in range(scenarios):
        row = padded[s]
        for i in range(nx):
            for j in range(ny):
                for m in range(nz):
                    a, _ = _cell(-x[s, i, j, m], i, nx, around[0])
                    b, _ = _cell(-y[s, i, j, m], j, ny, around[1])
                    c, _ = _cell(-z[s, i, j, m], m, nz, around[2])
                    k = a * up + b * right + c
                    t = k + up
                    places = (k, k + one, k + right, k + right + one, t, t + one, t + right, t + right + one)
                    low = high = row[k]
                    for at in places:
                        low, high = min(low, row[at]), max(high, row[at])
                    own, lower, upper = _shares(value[s, i, j, m], low, high, above[s, i, j, m])
                    of_value[s, i, j, m] += own
                    if lower != 0:
                        lower /= _count(row, places, low)
                        for at in places:
                            of_padded[s, at] += lower if row[at] == low else 0
                    if upper != 0:
                        upper /= _count(row, places, high)
                        for at in places:
                            of_padded[s, at] += upper if row[at] == high else 0


@njit(**OPTIONS)
def _count(row, places, value):
    """How many of the places have this value."""
    found = 0
    for at in places:
        found += 1 if row[at] == value else 0
    return found
