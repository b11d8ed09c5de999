"""From a step over tensors to scalar expressions: run once on numbers that know how they came about.

It is run for two scenarios, of which the first must do without the other one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from dpcontrol import tree
from dpcontrol.kernels.scalar.aten import Array, Unsupported, array, table
from dpcontrol.kernels.scalar.expressions import Book, Expression, Node
from dpcontrol.kernels.scalar.operations import OPERATIONS
from dpcontrol.tree import Tree

StepFunction = Callable[[Tree, Tree, Tree, Any], Tree]
LARGEST_STATE = 64
MOST_OPERATIONS = 1500
"""In the loop back: with those, compiling it takes up to ten seconds."""


@dataclass(frozen=True)
class Example:
    """What a step is called with: flat tensors of one step, and which coefficients have a row for each scenario."""

    state: list[Tensor]
    row: list[Tensor]
    coefficients: list[Tensor]
    build: tuple[Callable[[Any], Tree], Callable[[Any], Tree], Callable[[Any], Tree]]
    own: tuple[bool, ...]

    @property
    def scenarios(self) -> int:
        """How many there are."""
        return len(self.state[0])


@dataclass(frozen=True)
class Program:
    """One scenario's step in scalar expressions.

    Leaves are ``("x", i)``, ``("u", j)``, ``("p", l)``, ``("w", m)`` and ``("t", 0)``: the numbers of the state, of the
    row of inputs, of the coefficients, of ``captured`` tensors, and time; ``results`` is the next state.
    ``gradients`` are those of ``sum(d_i results_i)`` in the leaves ``x``, ``u`` and ``p``, with leaves ``("d", i)``.
    ``calls`` is the number of torch's operations in the step.
    """

    book: Book
    results: list[Expression]
    gradients: dict[tuple[str, int], Expression]
    captured: tuple[Tensor, ...]
    calls: int


def traced(step: StepFunction, example: Example) -> Program:
    """The program of ``step(state, (control, noise), coefficients, t)``.

    Raises:
        Unsupported: if there is none, with the reason.
    """
    size = sum(math.prod(leaf.shape[1:]) for leaf in example.state)
    if size > LARGEST_STATE:
        raise Unsupported(f"a state of {size} numbers, more than {LARGEST_STATE}")
    # a number of rows by which coefficients of another length cannot be taken for those of scenarios
    rows = 3 if example.scenarios == 2 else 2
    book = Book(OPERATIONS)
    watching = Watching(book)
    arguments = [
        *_known(book, "x", example.state, [True] * len(example.state), rows),
        *_known(book, "u", example.row, [True] * len(example.row), rows),
        *_known(book, "p", example.coefficients, example.own, rows),
    ]
    t = Known.of(torch.zeros((), dtype=torch.float64), array(book.leaf("t", 0)))
    a, b = len(example.state), len(example.state) + len(example.row)
    like_state, like_row, like_coefficients = example.build
    try:
        with torch.no_grad(), watching:
            after = step(
                like_state(arguments[:a]), like_row(arguments[a:b]), like_coefficients(arguments[b:]), t
            )
    except Unsupported:
        raise
    except Exception as error:
        said = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
        raise Unsupported(f"it fails with {type(error).__name__}: {said[:160]}") from error
    results = _results(after, like_state(arguments[:a]))
    if any(node.op == "leaf" and node.args[0] == "other" for node in book.needed(results)):
        raise Unsupported("a scenario whose step looks at another scenario")
    of_leaf = book.pull(results, [book.leaf("d", i) for i in range(len(results))])
    gradients = {
        node.args: of_leaf[node.index]
        for node in book.nodes
        if node.op == "leaf" and node.args[0] in ("x", "u", "p") and node.index in of_leaf
    }
    count = len(book.needed(gradients.values()))
    if count > MOST_OPERATIONS:
        raise Unsupported(f"{count} operations on the way back, more than {MOST_OPERATIONS}")
    return Program(book, results, gradients, tuple(watching.captured), watching.calls)


class Known(Tensor):
    """A tensor whose entries are known as expressions; its numbers cannot be looked at."""

    entries: Array
    numbers: Tensor

    @classmethod
    def of(cls, numbers: Tensor, entries: Array) -> Known:
        """Some numbers, for shapes and dtypes to be right, and their expressions."""
        found: Known = torch.Tensor._make_wrapper_subclass(
            cls, numbers.shape, numbers.stride(), numbers.storage_offset(), dtype=numbers.dtype
        )
        found.entries, found.numbers = entries, numbers
        return found

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        raise Unsupported("a tensor that outlives its step")


class Watching(TorchDispatchMode):
    """Does what torch's operations do to expressions as well; what is not known came in by the back door."""

    def __init__(self, book: Book) -> None:
        super().__init__()
        self.functions, self.book = table(book), book
        self.captured: dict[Tensor, Array] = {}
        self.calls = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, options = function._schema.name.removeprefix("aten::"), kwargs or {}
        in_place = name.endswith("_") and not name.startswith("_")
        if name == "_local_scalar_dense":
            return _number(self._entries(args[0]))
        rule = self.functions.get(name.removesuffix("_") if in_place else name)
        if rule is None:
            return self._decomposed(function, args, options)
        self.calls += 1
        fresh = name.startswith("lift_fresh")
        numbers = function(*_mapped(args, _numbers), **_mapped(options, _numbers))
        entries = rule(
            *_mapped(args, self._constant if fresh else self._entries), **_mapped(options, self._entries)
        )
        if len(self.book.nodes) > 8 * MOST_OPERATIONS:
            raise Unsupported(f"more than {MOST_OPERATIONS} operations")
        if in_place:
            args[0].entries[...] = entries
            return args[0]
        if isinstance(numbers, Tensor):
            return _checked(numbers, entries)
        return [_checked(*pair) for pair in zip(numbers, entries, strict=True)]

    def _decomposed(self, function: Any, args: Any, options: Mapping[str, Any]) -> Any:
        """In terms of other operations, if torch knows how."""
        from torch._decomp import decomposition_table

        with self:
            if function in decomposition_table:
                return decomposition_table[function](*args, **options)
            found = function.decompose(*args, **options)
        if found is NotImplemented:
            raise Unsupported(f"the operation {function._schema.name.removeprefix('aten::')}")
        return found

    def _entries(self, leaf: Tensor) -> Array:
        if isinstance(leaf, Known):
            return leaf.entries
        if leaf.requires_grad:
            raise Unsupported("a tensor that requires a gradient and is no argument of the step")
        if not leaf.is_floating_point():  # an index, a mask
            return self._constant(leaf)
        if leaf not in self.captured:
            count = sum(one.numel() for one in self.captured)
            given = [self.book.leaf("w", count + i) for i in range(leaf.numel())]
            self.captured[leaf] = array(given).reshape(leaf.shape)
        return self.captured[leaf]

    def _constant(self, leaf: Tensor) -> Array:
        return leaf.entries if isinstance(leaf, Known) else array(leaf.tolist()).reshape(leaf.shape)


def _number(entries: Array) -> Any:
    """What ``.item()`` gives, and whatever looks at a number."""
    value = entries.item()
    if isinstance(value, Node):
        raise Unsupported("a number that is taken out of a tensor (.item(), an if)")
    return value


def _mapped(value: Any, function: Callable[[Tensor], Any]) -> Any:
    """A function of the tensors in arguments."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, (list, tuple)):
        return type(value)(_mapped(one, function) for one in value)
    return {key: _mapped(one, function) for key, one in value.items()} if isinstance(value, dict) else value


def _numbers(leaf: Tensor) -> Tensor:
    return leaf.numbers if isinstance(leaf, Known) else leaf


def _checked(numbers: Tensor, entries: Array) -> Known:
    if tuple(numbers.shape) != entries.shape:
        raise Unsupported(f"entries of shape {entries.shape} where torch has {tuple(numbers.shape)}")
    return Known.of(numbers, entries)


def _count(leaf: Tensor, own: bool) -> int:
    return math.prod(leaf.shape[1:] if own else leaf.shape)


def _known(book: Book, kind: str, leaves: Sequence[Tensor], own: Sequence[bool], rows: int) -> list[Known]:
    """Tensors whose first row is one scenario's, and whose other rows are no scenario's; or a single one for all."""
    found, place = [], 0
    for leaf, several in zip(leaves, own, strict=True):
        count = _count(leaf, several)
        entries = [book.leaf(kind, place + i) for i in range(count)]
        if several:
            entries += [book.leaf("other", len(book.nodes) + i) for i in range(count * (rows - 1))]
        shape = (rows, *leaf.shape[1:]) if several else leaf.shape
        found.append(Known.of(torch.rand(shape, dtype=leaf.dtype), array(entries).reshape(shape)))
        place += count
    return found


def _results(after: Tree, before: Tree) -> list[Expression]:
    """The first scenario's state after the step."""
    (found, shell), (state, shell_before) = tree.shell(after), tree.shell(before)
    if shell != shell_before:
        raise Unsupported("a state of another structure after the step")
    results: list[Expression] = []
    for leaf, one in zip(found, state, strict=True):
        if not isinstance(leaf, Known) or leaf.shape != one.shape or leaf.dtype != one.dtype:
            raise Unsupported(f"a state of another shape or dtype after the step: {tree.describe(leaf)}")
        results += list(leaf.entries[0].reshape(-1))
    return results
