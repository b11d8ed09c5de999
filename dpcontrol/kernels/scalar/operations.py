"""What scalar expressions may be made of: each operation with its value, its derivative and how it is written.

At kinks the derivatives are those that torch chooses.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from dpcontrol.kernels.scalar.expressions import Book, Expression, Node, Operation


def _is(arg: Expression, value: float) -> bool:
    return not isinstance(arg, Node) and arg == value


def _power(a: Any, b: Any) -> Any:
    """Small whole powers as products, a root as a root."""
    if isinstance(b, Node):
        return None
    book = a.book
    cases: dict[float, Callable[[], Any]] = {
        0.0: lambda: 1.0,
        1.0: lambda: a,
        2.0: lambda: book("mul", a, a),
        3.0: lambda: book("mul", book("mul", a, a), a),
        4.0: lambda: book("mul", book("mul", a, a), book("mul", a, a)),
        0.5: lambda: book("sqrt", a),
        -1.0: lambda: book("div", 1.0, a),
    }
    make = cases.get(float(b))
    return None if make is None else make()


def _of_power(book: Book, d: Any, r: Any, a: Any, b: Any) -> tuple[Any, Any]:
    """In torch's way: nothing comes through an exponent of zero, nor in the exponent through a base of zero."""
    of_base = book("mul", d, book("mul", b, book("pow", a, book("sub", b, 1.0))))
    of_base = book("where", book("eq", b, 0.0), 0.0, of_base)
    if not isinstance(b, Node):
        return of_base, None
    flat = book("and", book("eq", a, 0.0), book("ge", b, 0.0))
    of_exponent = book("where", flat, 0.0, book("mul", r, book("log", a)))
    return of_base, book("mul", d, of_exponent)


def _of_extreme(kept: str, lost: str) -> Callable[..., tuple[Any, Any]]:
    """In torch's way: equal arguments share."""

    def partials(book: Book, d: Any, r: Any, a: Any, b: Any) -> tuple[Any, Any]:
        half, equal = book("mul", 0.5, d), book("eq", a, b)
        return (
            book("where", equal, half, book("where", book(lost, a, b), 0.0, d)),
            book("where", equal, half, book("where", book(kept, a, b), 0.0, d)),
        )

    return partials


def _where(c: Any, a: Any, b: Any) -> Any:
    if not isinstance(c, Node):
        return a if c else b
    same = a is b if isinstance(a, Node) or isinstance(b, Node) else repr(a) == repr(b)
    return a if same else None


def _unary(source: str, number: Callable[[float], float], slope: Callable[..., Any]) -> Operation:
    """A smooth function; ``slope(book, result, argument)`` is its derivative."""
    return Operation(source, number, lambda book, d, r, a: (book("mul", d, slope(book, r, a)),))


def _compared(sign: str, function: Callable[[Any, Any], Any]) -> Operation:
    return Operation(f"({{0}} {sign} {{1}})", function)


def _steps(source: str, function: Callable[[float], Any]) -> Operation:
    return Operation(source, function)


def _one_plus_square(book: Book, a: Any, sign: str = "add") -> Any:
    return book(sign, 1.0, book("mul", a, a))


def _bell(book: Book, a: Any) -> Any:
    return book("mul", 2 / math.sqrt(math.pi), book("exp", book("neg", book("mul", a, a))))


OPERATIONS: dict[str, Operation] = {
    "add": Operation(
        "({0} + {1})",
        operator.add,
        lambda book, d, r, a, b: (d, d),
        lambda a, b: b if _is(a, 0.0) else a if _is(b, 0.0) else None,
    ),
    "sub": Operation(
        "({0} - {1})",
        operator.sub,
        lambda book, d, r, a, b: (d, book("neg", d)),
        lambda a, b: a if _is(b, 0.0) else b.book("neg", b) if _is(a, 0.0) else None,
    ),
    "mul": Operation(
        "({0} * {1})",
        operator.mul,
        lambda book, d, r, a, b: (book("mul", d, b), book("mul", d, a)),
        lambda a, b: (
            b
            if _is(a, 1.0)
            else a
            if _is(b, 1.0)
            else b.book("neg", b)
            if _is(a, -1.0)
            else a.book("neg", a)
            if _is(b, -1.0)
            else None
        ),
    ),
    "div": Operation(
        "({0} / {1})",
        lambda a, b: np.float64(a) / np.float64(b),
        lambda book, d, r, a, b: (
            book("div", d, b),
            book("neg", book("mul", book("div", d, b), r)),
        ),
        lambda a, b: a if _is(b, 1.0) else None,
    ),
    "neg": Operation(
        "(-{0})",
        operator.neg,
        lambda book, d, r, a: (book("neg", d),),
        lambda a: a.args[0] if a.op == "neg" else None,
    ),
    "pow": Operation("({0} ** {1})", lambda a, b: np.float64(a) ** np.float64(b), _of_power, _power),
    "sqrt": _unary("math.sqrt({0})", np.sqrt, lambda book, r, a: book("div", 0.5, r)),
    "exp": _unary("math.exp({0})", np.exp, lambda book, r, a: r),
    "log": _unary("math.log({0})", np.log, lambda book, r, a: book("div", 1.0, a)),
    "log1p": _unary("math.log1p({0})", np.log1p, lambda book, r, a: book("div", 1.0, book("add", 1.0, a))),
    "expm1": _unary("math.expm1({0})", np.expm1, lambda book, r, a: book("add", r, 1.0)),
    "sin": _unary("math.sin({0})", np.sin, lambda book, r, a: book("cos", a)),
    "cos": _unary("math.cos({0})", np.cos, lambda book, r, a: book("neg", book("sin", a))),
    "tan": _unary("math.tan({0})", np.tan, lambda book, r, a: _one_plus_square(book, r)),
    "tanh": _unary("math.tanh({0})", np.tanh, lambda book, r, a: _one_plus_square(book, r, "sub")),
    "sinh": _unary("math.sinh({0})", np.sinh, lambda book, r, a: book("cosh", a)),
    "cosh": _unary("math.cosh({0})", np.cosh, lambda book, r, a: book("sinh", a)),
    "asin": _unary(
        "math.asin({0})",
        np.arcsin,
        lambda book, r, a: book("div", 1.0, book("sqrt", _one_plus_square(book, a, "sub"))),
    ),
    "acos": _unary(
        "math.acos({0})",
        np.arccos,
        lambda book, r, a: book("div", -1.0, book("sqrt", _one_plus_square(book, a, "sub"))),
    ),
    "atan": _unary(
        "math.atan({0})", np.arctan, lambda book, r, a: book("div", 1.0, _one_plus_square(book, a))
    ),
    "erf": _unary("math.erf({0})", math.erf, lambda book, r, a: _bell(book, a)),
    "erfc": _unary("math.erfc({0})", math.erfc, lambda book, r, a: book("neg", _bell(book, a))),
    "atan2": Operation(
        "math.atan2({0}, {1})",
        np.arctan2,
        lambda book, d, r, a, b: (
            book("mul", d, book("div", b, book("add", book("mul", a, a), book("mul", b, b)))),
            book("mul", d, book("div", book("neg", a), book("add", book("mul", a, a), book("mul", b, b)))),
        ),
    ),
    "abs": _unary("abs({0})", abs, lambda book, r, a: book("sign", a)),
    "maximum": Operation(
        "({0} if {0} >= {1} or {0} != {0} else {1})",
        lambda a, b: a if a >= b or a != a else b,
        _of_extreme("gt", "lt"),
    ),
    "minimum": Operation(
        "({0} if {0} <= {1} or {0} != {0} else {1})",
        lambda a, b: a if a <= b or a != a else b,
        _of_extreme("lt", "gt"),
    ),
    "where": Operation(
        "({1} if {0} else {2})",
        lambda c, a, b: a if c else b,
        lambda book, d, r, c, a, b: (None, book("where", c, d, 0.0), book("where", c, 0.0, d)),
        _where,
    ),
    "sign": _steps("(1.0 if {0} > 0.0 else -1.0 if {0} < 0.0 else 0.0)", lambda a: float((a > 0) - (a < 0))),
    "floor": _steps("np.floor({0})", np.floor),
    "ceil": _steps("np.ceil({0})", np.ceil),
    "trunc": _steps("np.trunc({0})", np.trunc),
    "round": _steps("np.rint({0})", np.rint),
    "lt": _compared("<", operator.lt),
    "le": _compared("<=", operator.le),
    "gt": _compared(">", operator.gt),
    "ge": _compared(">=", operator.ge),
    "eq": _compared("==", operator.eq),
    "ne": _compared("!=", operator.ne),
    "and": _compared("and", lambda a, b: bool(a and b)),
    "or": _compared("or", lambda a, b: bool(a or b)),
    "not": Operation("(not {0})", operator.not_),
    "held": Operation("{0}", lambda a: a),
}
TRUTHS = frozenset({"lt", "le", "gt", "ge", "eq", "ne", "and", "or", "not"})
"""Operations whose result is a truth value."""
