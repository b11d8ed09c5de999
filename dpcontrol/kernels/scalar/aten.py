"""What torch's operations do to arrays of scalar expressions: NumPy moves the entries, the book does the arithmetic.

Views are views here as there, so that what is written in place arrives where it should. Only operations whose result
does not depend on numbers are here; everything else is refused by its name.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dpcontrol.kernels.scalar.expressions import Book, Node
from dpcontrol.kernels.scalar.operations import TRUTHS

Array = Any
"""A NumPy array of expressions."""
Function = Callable[..., Any]


class Unsupported(Exception):
    """Something that scalar expressions cannot say."""


def array(value: Any) -> Array:
    """Anything as an array of expressions; a tensor without axes stays one."""
    if isinstance(value, np.ndarray) and value.dtype == object:
        return value
    found = np.empty(np.shape(value), dtype=object)
    found[...] = value if isinstance(value, Node) else np.asarray(value).astype(object)
    return found


def table(book: Book) -> dict[str, Function]:
    """Torch's operations by name, writing into a book."""

    def each(function: Callable[..., Any], count: int) -> Function:
        entry = np.frompyfunc(function, count, 1)
        return lambda *args: array(entry(*(array(arg) for arg in args)))

    op = {name: functools.partial(book, name) for name in ALONE + TRUTHFUL + PAIRS}
    plain = {name: each(op[name], 1) for name in ALONE}
    plain |= {name: each(op[name], 2) for name in (*PAIRS, *TRUTHFUL)}
    add, mul, where = plain["add"], plain["mul"], each(functools.partial(book, "where"), 3)

    def scaled(function: Function) -> Function:
        return lambda a, b, alpha=1: function(a, b if alpha == 1 else mul(b, alpha))

    def folded(function: Function) -> Function:
        return lambda a, dim=None, keepdim=False, **_: _reduced(function, a, dim, keepdim)

    def clamp(a: Array, low: Any = None, high: Any = None) -> Array:
        found = a if low is None else where(plain["lt"](a, low), low, a)
        # what is not a number stays so; compared with the argument itself, as its derivative is
        return found if high is None else where(plain["gt"](found, high), high, found)

    def total(a: Array, dim: Any = None, keepdim: bool = False, **_: Any) -> Array:
        return _reduced(add, a, dim, keepdim, empty=0.0)

    def mean(a: Array, dim: Any = None, keepdim: bool = False, **_: Any) -> Array:
        found = total(a, dim, keepdim)
        return plain["div"](found, max(1, a.size // max(1, found.size)))

    def product(a: Array, b: Array) -> Array:
        terms = mul(np.expand_dims(a, -1), np.expand_dims(b, -3))
        return total(terms, -2)

    def quotient(a: Array, b: Any, rounding_mode: str | None = None) -> Array:
        found = plain["div"](a, b)
        return found if rounding_mode is None else plain[rounding_mode](found)

    def remainder(a: Array, b: Any) -> Array:
        return plain["sub"](a, mul(plain["floor"](plain["div"](a, b)), b))

    def sigmoid(a: Array) -> Array:
        return plain["div"](1.0, add(1.0, plain["exp"](plain["neg"](a))))

    def both(name: str) -> Function:
        function = each(functools.partial(book, name), 2)
        return lambda a, b: function(_true(a), _true(b))

    def cast(a: Array, dtype: Any = None, **_: Any) -> Array:
        if dtype is not None and not dtype.is_floating_point:
            raise Unsupported(f"a cast to {dtype}")
        return where(a, 1.0, 0.0) if _truths(a) else a

    return {
        **plain,
        "add": scaled(add),
        "sub": scaled(plain["sub"]),
        "rsub": lambda a, b, alpha=1: plain["sub"](b, a if alpha == 1 else mul(a, alpha)),
        "div": quotient,
        "remainder": remainder,
        "where": where,
        "clamp": clamp,
        "clamp_min": clamp,
        "clamp_max": lambda a, high: clamp(a, None, high),
        "relu": lambda a: where(plain["le"](a, 0.0), 0.0, a),
        "sigmoid": sigmoid,
        "reciprocal": lambda a: plain["div"](1.0, a),
        "rsqrt": lambda a: plain["div"](1.0, plain["sqrt"](a)),
        "square": lambda a: mul(a, a),
        **dict.fromkeys(("logical_and", "bitwise_and"), both("and")),
        **dict.fromkeys(("logical_or", "bitwise_or"), both("or")),
        **dict.fromkeys(
            ("logical_not", "bitwise_not"), lambda a: each(functools.partial(book, "not"), 1)(_true(a))
        ),
        "detach": each(functools.partial(book, "held"), 1),
        "isnan": lambda a: plain["ne"](a, a),
        "sum": total,
        "mean": mean,
        "prod": folded(mul),
        "amax": folded(plain["maximum"]),
        "amin": folded(plain["minimum"]),
        "mm": product,
        "bmm": product,
        "dot": lambda a, b: total(mul(a, b)),
        "mv": lambda a, b: total(mul(a, b), -1),
        "addmm": lambda c, a, b, beta=1, alpha=1: add(mul(c, beta), mul(product(a, b), alpha)),
        "_to_copy": cast,
        **MOVES,
    }


ALONE = (
    *(
        "neg",
        "abs",
        "sign",
        "sqrt",
        "exp",
        "log",
        "log1p",
        "expm1",
        "sin",
        "cos",
        "tan",
        "tanh",
        "sinh",
        "cosh",
    ),
    *("asin", "acos", "atan", "erf", "erfc", "floor", "ceil", "trunc", "round"),
)
PAIRS = ("add", "sub", "mul", "div", "pow", "atan2", "maximum", "minimum")
TRUTHFUL = ("lt", "le", "gt", "ge", "eq", "ne")


def _truths(a: Array) -> bool:
    return any(isinstance(x, bool) or (isinstance(x, Node) and x.op in TRUTHS) for x in a.flat)


def _true(a: Array) -> Array:
    if not all(isinstance(x, bool) or (isinstance(x, Node) and x.op in TRUTHS) for x in array(a).flat):
        raise Unsupported("logic with numbers")
    return a


def _reduced(function: Function, a: Array, dim: Any, keepdim: bool, empty: Any = None) -> Array:
    """Entries put together along some axes, in order."""
    axes = range(a.ndim) if dim is None or dim == [] else [dim] if isinstance(dim, int) else dim
    axes = sorted(axis % a.ndim for axis in axes)
    rest = [axis for axis in range(a.ndim) if axis not in axes]
    rows = a.transpose(*axes, *rest).reshape(-1, *(a.shape[axis] for axis in rest))
    if len(rows) == 0 and empty is None:
        raise Unsupported("a reduction over nothing")
    found = array(np.full(rows.shape[1:], empty)) if len(rows) == 0 else functools.reduce(function, rows)
    found = array(found)
    return found.reshape([1 if axis in axes else n for axis, n in enumerate(a.shape)]) if keepdim else found


def _along(axis: int, count: int, chosen: Any) -> tuple[Any, ...]:
    return (*[slice(None)] * (axis % count), chosen)


def _selected(a: Array, dim: int, index: int) -> Array:
    """A view also where nothing but a number is left."""
    start = index % a.shape[dim]
    return a[_along(dim, a.ndim, slice(start, start + 1))].squeeze(dim)


def _part(a: Array, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1) -> Array:
    return a[_along(dim, a.ndim, slice(start, end, step))]


def _written(a: Array, place: tuple[Any, ...], part: Array) -> Array:
    found = a.copy()
    found[place] = part
    return found


def _expanded(a: Array, shape: Sequence[int], **_: Any) -> Array:
    lead = len(shape) - a.ndim
    return np.broadcast_to(a, [a.shape[i - lead] if n == -1 else n for i, n in enumerate(shape)])


def _split(a: Array, sizes: int | Sequence[int], dim: int = 0) -> list[Array]:
    length = a.shape[dim]
    each = [min(sizes, length - i) for i in range(0, length, sizes)] if isinstance(sizes, int) else sizes
    return np.split(a, np.cumsum(each)[:-1].tolist(), dim)


def _indices(indices: Sequence[Any]) -> tuple[Any, ...]:
    if any(isinstance(entry, Node) for index in indices if index is not None for entry in index.flat):
        raise Unsupported("an index that depends on numbers")
    kinds = [index is not None for index in indices]
    if sum(a != b for a, b in itertools.pairwise(kinds)) > 1:
        raise Unsupported("indices with a gap between them")
    return tuple(
        slice(None) if i is None else np.array(i.tolist(), bool if _truths(i) else np.int64) for i in indices
    )


def _squeezed(a: Array, dim: Any = None) -> Array:
    axes = range(a.ndim) if dim is None else [dim] if isinstance(dim, int) else dim
    return a.squeeze(tuple(axis % a.ndim for axis in axes if a.shape[axis] == 1))


def _full(shape: Sequence[int], value: Any = 0.0) -> Array:
    return _expanded(array(value), shape).copy()  # to be written to


MOVES: dict[str, Function] = {
    **dict.fromkeys(("alias", "clone", "contiguous", "lift_fresh", "lift_fresh_copy"), lambda a, **_: a),
    **dict.fromkeys(("view", "_unsafe_view", "reshape"), lambda a, shape: a.reshape(shape)),
    "unsqueeze": lambda a, dim: np.expand_dims(a, dim),
    "squeeze": _squeezed,
    "expand": _expanded,
    "permute": lambda a, dims: a.transpose(dims),
    "transpose": np.swapaxes,
    "t": np.transpose,
    "select": _selected,
    "slice": _part,
    "unbind": lambda a, dim=0: [_selected(a, dim, i) for i in range(a.shape[dim])],
    "split": _split,
    "split_with_sizes": _split,
    "cat": lambda parts, dim=0: np.concatenate([part for part in parts if part.shape != (0,)], dim),
    "stack": lambda parts, dim=0: np.stack(parts, dim),
    "flip": np.flip,
    "roll": lambda a, shifts, dims=(): np.roll(a, shifts, tuple(dims) or None),
    "index": lambda a, indices: a[_indices(indices)],
    "index_select": lambda a, dim, index: a[_along(dim, a.ndim, _indices([index])[0])],
    "diagonal": lambda a, offset=0, dim1=0, dim2=1: np.diagonal(a, offset, dim1, dim2),
    "select_scatter": lambda a, part, dim, index: _written(a, _along(dim, a.ndim, index), part),
    "slice_scatter": lambda a, part, dim=0, start=None, end=None, step=1: _written(
        a, _along(dim, a.ndim, slice(start, end, step)), part
    ),
    "index_put": lambda a, indices, part, accumulate=False: (
        _refused("adding at indices") if accumulate else _written(a, _indices(indices), part)
    ),
    "copy": lambda a, part, *_: _expanded(part, a.shape),
    "fill": lambda a, value: _expanded(array(value), a.shape),
    "zero": lambda a: _full(a.shape),
    "full": lambda shape, value, **_: _full(shape, value),
    "full_like": lambda a, value, **_: _full(a.shape, value),
    "new_full": lambda a, shape, value, **_: _full(shape, value),
    **dict.fromkeys(("zeros", "empty"), lambda shape, **_: _full(shape)),
    **dict.fromkeys(("zeros_like", "empty_like"), lambda a, **_: _full(a.shape)),
    **dict.fromkeys(("new_zeros", "new_empty"), lambda a, shape, **_: _full(shape)),
    "ones": lambda shape, **_: _full(shape, 1.0),
    "ones_like": lambda a, **_: _full(a.shape, 1.0),
    "new_ones": lambda a, shape, **_: _full(shape, 1.0),
    "scalar_tensor": lambda value, **_: array(value),
    "arange": lambda *ends, **_: array(np.arange(*ends)),
}
"""What only moves entries, or makes constants."""


def _refused(what: str) -> Any:
    raise Unsupported(what)
