"""Flow in vorticity form in Fourier space: a run of many steps of every scenario, and its adjoint.

The scheme is that of :class:`~dpcontrol.kernels.spectral_exponential.ExponentialKernel` with the term
:class:`~dpcontrol.kernels.spectral_terms.Advection`, all tables real but ``to_velocity``, of which the imaginary part
is taken. Scenarios are run one after another, from their first step to their last.

Layout of the work arrays, see :mod:`~dpcontrol.kernels.loops.transforms`: in a field up to 16 points along ``x`` are
interleaved, so that the real transform along ``y`` runs over them at once; in a spectrum the columns, of which only
those that are kept are there, so that the transform along ``x`` does. In between both are transposed. Tables are
``(scenarios or 1, rows, modes along x * columns)``.

``plan`` is the pair of the plans along ``y`` and of a real transform of twice the points along ``x``.
"""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import numpy as np

from dpcontrol.kernels.loops.compiling import compiled
from dpcontrol.kernels.loops.transforms import forward, inverse, transform


@compiled
def run(state, controls, forced, plan, scheme, tables, term, states, chunk):
    """The states behind every step of some scenarios.

    ``state`` and ``controls`` are pairs of flat memory and strides, for the axes (scenarios, x, y) and (steps,
    scenarios, x, y); ``scheme`` says of each stage but the first which node it starts from, where its sources begin,
    and all sources; ``tables`` are ``decay``, ``held``, ``inner``, ``outer``, ``force``; ``term`` the imaginary part of
    ``to_velocity`` and ``of_products``, each ``(2, modes * columns)``; ``states`` ``(steps, scenarios, x, y)`` is
    written. ``chunk`` is the first scenario and the one behind the last.
    """
    nodes, starts, sources = scheme
    last, stages = tables[0].shape[1] - 1, tables[3].shape[1]
    points, room, work, half = _room(plan, states)
    velocity, product = np.empty((2, points), states.dtype), np.empty(points, states.dtype)
    spectrum, after = np.zeros((2, room), states.dtype), np.zeros((2, room), states.dtype)
    force, rates = np.zeros((2, room), states.dtype), np.zeros((stages, 2, room), states.dtype)
    spare = np.zeros((2, room), states.dtype)
    for s in range(chunk[0], chunk[1]):
        decay, held, inner, outer, always = _of_scenario(tables, s)
        _load(state[0], s * state[1][0], state[1][1:], plan, product)
        _forward(product, plan, work, half, spectrum)
        for k in range(len(states)):
            _push_forces(controls, forced, k, s, plan, always[0], product, work, half, force)
            for i in range(stages):
                if i > 0:
                    _base(spectrum, force, decay[nodes[i - 1]], held[nodes[i - 1]], after)
                    for e in range(starts[i - 1], starts[i]):
                        _add_product(inner[e], rates[sources[e]], after)
                    _lift(after, term[0], plan, work, half, spare, velocity)
                else:
                    _lift(spectrum, term[0], plan, work, half, spare, velocity)
                _rate(velocity, term[1], plan, work, half, spare, product, rates[i])
            _base(spectrum, force, decay[last], held[last], after)
            for i in range(stages):
                _add_product(outer[i], rates[i], after)
            spectrum[:] = after
            _inverse(spectrum, plan, work, half, product)
            _store(product, plan, states[k, s])


@compiled
def pull(
    state, states, controls, forced, plan, scheme, tables, term, above, wanted, of_state, of_controls, of_tables, chunk
):  # fmt: skip
    """The vector-Jacobian product of :func:`run`: the stages of a step are computed again from its first state.

    ``above`` are the cotangents of ``states``, as flat memory and strides; ``wanted`` says whether gradients of the
    controls and of the tables are asked for; ``of_state``, ``of_controls`` and ``of_tables``, ``(rows, scenarios,
    2, modes * columns)`` with real and imaginary part, filled with zeros, are written.
    """
    nodes, starts, sources = scheme
    last, stages, kind = tables[0].shape[1] - 1, tables[3].shape[1], states.dtype
    points, room, work, half = _room(plan, states)
    velocity, product = np.empty((stages, 2, points), kind), np.empty((2, points), kind)
    spectrum, force, spare = np.zeros((2, room), kind), np.zeros((2, room), kind), np.zeros((2, room), kind)
    stage, carried = np.zeros((2, room), kind), np.zeros((2, room), kind)
    rates, of_rates = np.zeros((stages, 2, room), kind), np.zeros((stages, 2, room), kind)
    of_nodes = np.zeros((last + 1, 2, room), kind)
    for s in range(chunk[0], chunk[1]):
        decay, held, inner, outer, always = _of_scenario(tables, s)
        carried[:] = 0
        for k in range(len(states) - 1, -1, -1):
            if k > 0:
                _load_state(states[k - 1, s], plan, product[0])
            else:
                _load(state[0], s * state[1][0], state[1][1:], plan, product[0])
            _forward(product[0], plan, work, half, spectrum)
            _push_forces(controls, forced, k, s, plan, always[0], product[0], work, half, force)
            for i in range(stages):
                if i > 0:
                    _base(spectrum, force, decay[nodes[i - 1]], held[nodes[i - 1]], stage)
                    for e in range(starts[i - 1], starts[i]):
                        _add_product(inner[e], rates[sources[e]], stage)
                    _lift(stage, term[0], plan, work, half, spare, velocity[i])
                else:
                    _lift(spectrum, term[0], plan, work, half, spare, velocity[i])
                if i < stages - 1 or wanted[1]:
                    _rate(velocity[i], term[1], plan, work, half, spare, product[0], rates[i])
            _load(above[0], k * above[1][0] + s * above[1][1], above[1][2:], plan, product[0])
            _forward(product[0], plan, work, half, stage)
            _add(stage, carried)
            of_nodes[:], of_rates[:] = 0, 0
            _add(carried, of_nodes[last])
            for i in range(stages):
                _add_product(outer[i], carried, of_rates[i])
                if wanted[1]:
                    _note(rates[i], carried, of_tables[3][i, s])
            for i in range(stages - 1, 0, -1):
                _pull_term(velocity[i], of_rates[i], term, plan, work, half, spare, product, stage)
                _add(stage, of_nodes[nodes[i - 1]])
                for e in range(starts[i - 1], starts[i]):
                    _add_product(inner[e], stage, of_rates[sources[e]])
                    if wanted[1]:
                        _note(rates[sources[e]], stage, of_tables[2][e, s])
            stage[:], carried[:] = 0, 0
            for node in range(last + 1):
                _add_product(decay[node], of_nodes[node], carried)
                _add_product(held[node], of_nodes[node], stage)
                if wanted[1]:
                    _note(spectrum, of_nodes[node], of_tables[0][node, s])
                    _note(force, of_nodes[node], of_tables[1][node, s])
            if wanted[1]:
                _add_columns(stage, of_tables[4][0, s])
            if wanted[0]:
                _inverse(stage, plan, work, half, product[0])
                _store(product[0], plan, of_controls[k, s])
            _pull_term(velocity[0], of_rates[0], term, plan, work, half, spare, product, stage)
            _add(stage, carried)
        _inverse(carried, plan, work, half, product[0])
        _store(product[0], plan, of_state[s])


# -- the term and its adjoint --------------------------------------------------------------------------------------


@compiled
def _lift(spectrum, to_velocity, plan, work, half, spare, velocity):
    """Both components of the velocity on the grid."""
    for c in range(2):
        q = to_velocity[c]
        for p in range(np.uint64(len(q))):
            spare[0, p] = -q[p] * spectrum[1, p]
            spare[1, p] = q[p] * spectrum[0, p]
        _inverse(spare, plan, work, half, velocity[c])


@compiled
def _rate(velocity, of_products, plan, work, half, spare, product, rate):
    """``-u . grad omega`` from the products of the velocity."""
    u, v = velocity[0], velocity[1]
    for p in range(np.uint64(len(u))):
        product[p] = u[p] * v[p]
    _forward(product, plan, work, half, spare)
    for p in range(np.uint64(of_products.shape[1])):
        rate[0, p] = of_products[0, p] * spare[0, p]
        rate[1, p] = of_products[0, p] * spare[1, p]
    for p in range(np.uint64(len(u))):
        product[p] = (v[p] - u[p]) * (v[p] + u[p])
    _forward(product, plan, work, half, spare)
    _add_product(of_products[1], spare, rate)


@compiled
def _pull_term(velocity, of_rate, term, plan, work, half, spare, product, out):
    """Cotangent of the spectrum from that of the rate, through the velocity of the stage."""
    to_velocity, of_products = term
    u, v, first, second = velocity[0], velocity[1], product[0], product[1]
    two = u.dtype.type(2.0)
    for c in range(2):
        weight = of_products[c]
        for p in range(np.uint64(len(weight))):
            spare[0, p] = weight[p] * of_rate[0, p]
            spare[1, p] = weight[p] * of_rate[1, p]
        _inverse(spare, plan, work, half, product[c])
    for p in range(np.uint64(len(u))):
        of_uv, of_difference = first[p], two * second[p]
        first[p] = of_uv * v[p] - of_difference * u[p]
        second[p] = of_uv * u[p] + of_difference * v[p]
    for c in range(2):
        q = to_velocity[c]
        _forward(product[c], plan, work, half, spare)
        for p in range(np.uint64(len(q))):
            before_r, before_i = (
                out[0, p] if c else spare.dtype.type(0),
                out[1, p] if c else spare.dtype.type(0),
            )
            out[0, p] = before_r + q[p] * spare[1, p]
            out[1, p] = before_i - q[p] * spare[0, p]


@compiled
def _push_forces(controls, forced, k, s, plan, always, product, work, half, force):
    """The spectrum of all that acts in step ``k``."""
    if forced:
        place = k * controls[1][0] + s * controls[1][1]
        _load(controls[0], place, controls[1][2:], plan, product)
        _forward(product, plan, work, half, force)
        for p in range(np.uint64(len(always))):
            force[0, p] += always[p]
    else:
        for p in range(np.uint64(len(always))):
            force[0, p] = always[p]


# -- transforms of fields in two dimensions ------------------------------------------------------------------------


@compiled
def _room(plan, like):
    """Sizes of a field and of a part of a spectrum, and room for transforms."""
    points, modes = plan[0][0][0], plan[1][0][0] // 2
    room = (points // 2 + 1) * modes
    work = (
        np.empty(2 * room, like.dtype),
        np.empty(2 * room, like.dtype),
        np.empty(2 * room, like.dtype),
        np.empty(2 * room, like.dtype),
    )
    half = np.zeros((2, (points // 2 + 1) * _lanes(modes)), like.dtype)
    return points * modes, room, work, half


@compiled
def _lanes(modes):
    """How many points along ``x`` stand together: at most 16, so that caches hold them, and a divisor of all."""
    for lanes in range(16, 1, -1):
        if modes % lanes == 0:
            return lanes
    return 1


@compiled
def _forward(field, plan, work, half, spectrum):
    (points, columns), modes = plan[0][0], plan[1][0][0] // 2
    size, turned, lanes = modes * columns, work[3], _lanes(modes)
    for x0 in range(0, modes, lanes):
        forward(field[x0 * points : (x0 + lanes) * points], plan[0], lanes, work, half)
        for part in range(2):
            for x in range(lanes):
                begin = part * size + (x0 + x) * columns
                for c in range(columns):
                    turned[begin + c] = half[part, c * lanes + x]
    transform(turned, 0, size, spectrum.reshape(-1), 0, spectrum.shape[1], plan[1], columns, work)


@compiled
def _inverse(spectrum, plan, work, half, field):
    (points, columns), modes = plan[0][0], plan[1][0][0] // 2
    size, turned, lanes = modes * columns, work[3], _lanes(modes)
    scale = field.dtype.type(1.0 / modes)
    # real and imaginary parts exchanged: the inverse transform
    transform(spectrum.reshape(-1), spectrum.shape[1], 0, turned, size, 0, plan[1], columns, work)
    for x0 in range(0, modes, lanes):
        for part in range(2):
            for x in range(lanes):
                begin = part * size + (x0 + x) * columns
                for c in range(columns):
                    half[part, c * lanes + x] = scale * turned[begin + c]
        inverse(half, plan[0], lanes, work, field[x0 * points : (x0 + lanes) * points])


@compiled
def _load(memory, begin, strides, plan, field):
    points, modes = plan[0][0][0], plan[1][0][0] // 2
    lanes, h = _lanes(modes), points // 2
    for x in range(modes):
        base, place = x // lanes * lanes * points + x % lanes, begin + x * strides[0]
        for j in range(h):
            field[base + j * lanes] = memory[place + 2 * j * strides[1]]
            field[base + (h + j) * lanes] = memory[place + (2 * j + 1) * strides[1]]


@compiled
def _load_state(state, plan, field):
    points, modes = plan[0][0][0], plan[1][0][0] // 2
    lanes, h = _lanes(modes), points // 2
    for x in range(modes):
        base = x // lanes * lanes * points + x % lanes
        for j in range(h):
            field[base + j * lanes] = state[x, 2 * j]
            field[base + (h + j) * lanes] = state[x, 2 * j + 1]


@compiled
def _store(field, plan, state):
    points, modes = plan[0][0][0], plan[1][0][0] // 2
    lanes, h = _lanes(modes), points // 2
    for x in range(modes):
        base = x // lanes * lanes * points + x % lanes
        for j in range(h):
            state[x, 2 * j] = field[base + j * lanes]
            state[x, 2 * j + 1] = field[base + (h + j) * lanes]


# -- spectra, point by point ---------------------------------------------------------------------------------------


@compiled
def _base(spectrum, force, decay, held, out):
    """The linear part: ``decay s + held f``."""
    for p in range(np.uint64(len(decay))):
        out[0, p] = decay[p] * spectrum[0, p] + held[p] * force[0, p]
        out[1, p] = decay[p] * spectrum[1, p] + held[p] * force[1, p]


@compiled
def _add_product(table, spectrum, out):
    for p in range(np.uint64(len(table))):
        out[0, p] += table[p] * spectrum[0, p]
        out[1, p] += table[p] * spectrum[1, p]


@compiled
def _add(more, total):
    for p in range(np.uint64(more.shape[1])):
        total[0, p] += more[0, p]
        total[1, p] += more[1, p]


@compiled
def _add_columns(more, total):
    for p in range(np.uint64(total.shape[1])):
        total[0, p] += more[0, p]
        total[1, p] += more[1, p]


@compiled
def _note(factor, cotangent, total):
    """Add ``conj(factor) cotangent``."""
    for p in range(np.uint64(total.shape[1])):
        total[0, p] += factor[0, p] * cotangent[0, p] + factor[1, p] * cotangent[1, p]
        total[1, p] += factor[0, p] * cotangent[1, p] - factor[1, p] * cotangent[0, p]


@compiled
def _of_scenario(tables, s):
    """The tables of one scenario, each ``(rows, modes * columns)``."""
    return (
        tables[0][s % len(tables[0])],
        tables[1][s % len(tables[1])],
        tables[2][s % len(tables[2])],
        tables[3][s % len(tables[3])],
        tables[4][s % len(tables[4])],
    )
