"""``u_t + (u^2 / 2)_x = L u + F`` in Fourier space: a run of many steps of every scenario, and its adjoint.

The scheme is that of :class:`~dpcontrol.kernels.spectral_exponential.ExponentialKernel`, with real tables for the
linear part and imaginary ones for the flux. A few scenarios at a time are run from their first step to their last,
transforms included: all that they need stays in the innermost caches, and no call is paid for.

See :mod:`~dpcontrol.kernels.loops.transforms` for the layout of the work arrays and for ``plan``.
"""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import numpy as np

from dpcontrol.kernels.loops.compiling import compiled
from dpcontrol.kernels.loops.transforms import forward, inverse


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
        forward(values, plan, width, work, spectrum)
        for k in range(len(states)):
            if forced:
                _load(controls[0], k * controls[1][0] + s * controls[1][1], controls[1][1:], width, product)
                forward(product, plan, width, work, force)
            for i in range(stages):
                if i > 0:
                    _base(spectrum, force, decay[nodes[i - 1]], held[nodes[i - 1]], forced, after)
                    for e in range(starts[i - 1], starts[i]):
                        _push(inner[e], rates[sources[e]], after)
                    inverse(after, plan, width, work, values)
                _square(values, product)
                forward(product, plan, width, work, rates[i])
            _base(spectrum, force, decay[last], held[last], forced, after)
            for i in range(stages):
                _push(outer[i], rates[i], after)
            _copy(after, spectrum)
            inverse(spectrum, plan, width, work, values)
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
            forward(values[0], plan, width, work, spectrum)
            if forced:
                _load(controls[0], k * controls[1][0] + s * controls[1][1], controls[1][1:], width, product)
                forward(product, plan, width, work, force)
            for i in range(stages):
                if i > 0:
                    _base(spectrum, force, decay[nodes[i - 1]], held[nodes[i - 1]], forced, stage)
                    for e in range(starts[i - 1], starts[i]):
                        _push(inner[e], rates[sources[e]], stage)
                    inverse(stage, plan, width, work, values[i])
                if i < stages - 1 or wanted[1]:
                    _square(values[i], product)
                    forward(product, plan, width, work, rates[i])
            _load(above[0], k * above[1][0] + s * above[1][1], above[1][1:], width, product)
            forward(product, plan, width, work, arriving)
            _add(arriving, carried)
            of_nodes[:], of_rates[:] = 0, 0
            _copy(carried, of_nodes[last])
            for i in range(stages):
                _push_back(outer[i], carried, of_rates[i])
                if wanted[1]:
                    _note(rates[i], carried, sums[3][i])
            for i in range(stages - 1, 0, -1):
                inverse(of_rates[i], plan, width, work, product)
                _scale(values[i], two, product)
                forward(product, plan, width, work, stage)
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
                inverse(stage, plan, width, work, product)
                _store(product, s, width, of_controls[k])
            inverse(of_rates[0], plan, width, work, product)
            _scale(values[0], two, product)
            if k > 0:
                forward(product, plan, width, work, stage)
                _add(stage, carried)
        inverse(carried, plan, width, work, values[0])
        _add_field(values[0], product)
        _store(product, s, width, of_state)
        if wanted[1]:
            _collect(sums[0], plan, s, width, of_tables[0])
            _collect(sums[1], plan, s, width, of_tables[1])
            _collect(sums[2], plan, s, width, of_tables[2])
            _collect(sums[3], plan, s, width, of_tables[3])


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
