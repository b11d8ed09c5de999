"""Scalar expressions: each distinct one is written once, constants are folded, derivatives are expressions again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

Number = float | int | bool


class Node:
    """An expression in a book, equal only to itself."""

    __slots__ = ("args", "book", "index", "op")

    def __init__(self, book: Book, index: int, op: str, args: tuple[Any, ...]) -> None:
        self.book, self.index, self.op, self.args = book, index, op, args

    def __bool__(self) -> bool:
        raise TypeError("a number that is not known yet was asked whether it is true")


Expression = Node | Number


class Operation(NamedTuple):
    """``source``: how it is written; ``number``: its value; ``partials``: what each argument gets of a cotangent.

    ``partials(book, d, result, *arguments)`` gives one expression for each argument, ``None`` for none. ``simple`` may
    give a simpler expression, or ``None``.
    """

    source: str
    number: Callable[..., Any]
    partials: Callable[..., tuple[Any, ...]] | None = None
    simple: Callable[..., Any] = lambda *_: None


@dataclass
class Book:
    """Expressions in the order in which they can be computed; leaves are ``("leaf", kind, place)``.

    ``operations`` say what they may be made of.
    """

    operations: Mapping[str, Operation]
    nodes: list[Node] = field(default_factory=list)
    known: dict[tuple[Any, ...], Node] = field(default_factory=dict)

    def leaf(self, kind: str, place: int) -> Node:
        """A number that is given when the loop runs."""
        return self._node("leaf", (kind, place))

    def __call__(self, op: str, *args: Expression) -> Expression:
        """The expression of an operation, perhaps a simpler one or one that is there already."""
        operation = self.operations[op]
        if not any(isinstance(arg, Node) for arg in args):
            return _value(operation.number, args)
        simpler = operation.simple(*args)
        return self._node(op, args) if simpler is None else simpler

    def _node(self, op: str, args: tuple[Any, ...]) -> Node:
        key = (op, *(arg.index if isinstance(arg, Node) else (type(arg), repr(arg)) for arg in args))
        if key not in self.known:
            self.known[key] = Node(self, len(self.nodes), op, args)
            self.nodes.append(self.known[key])
        return self.known[key]

    def needed(self, results: Iterable[Expression]) -> list[Node]:
        """What must be computed for some results, in order."""
        alive = {result.index for result in results if isinstance(result, Node)}
        for node in reversed(self.nodes):
            if node.index in alive:
                alive.update(arg.index for arg in node.args if isinstance(arg, Node))
        return [node for node in self.nodes if node.index in alive]

    def pull(self, results: Sequence[Expression], above: Sequence[Expression]) -> dict[int, Expression]:
        """Gradients of ``sum(above * results)`` in all leaves that they depend on, by index (reverse mode)."""
        gradients: dict[int, Expression] = {}

        def add(target: Any, share: Expression | None) -> None:
            if isinstance(target, Node) and share is not None:
                gradients[target.index] = self("add", gradients.get(target.index, 0.0), share)

        for result, cotangent in zip(results, above, strict=True):
            add(result, cotangent)
        for node in reversed(self.needed(results)):
            found = gradients.get(node.index)
            partials = None if node.op == "leaf" else self.operations[node.op].partials
            if found is None or partials is None:
                continue
            for arg, share in zip(node.args, partials(self, found, node, *node.args), strict=True):
                add(arg, share)
        return gradients


def _value(function: Callable[..., Any], args: tuple[Any, ...]) -> Number:
    """A constant, by the rules of floating-point arithmetic rather than of Python, which raises."""
    with np.errstate(all="ignore"):
        found = function(*(np.float64(arg) if isinstance(arg, float) else arg for arg in args))
    value: Number = found.item() if isinstance(found, np.generic) else found
    return value
