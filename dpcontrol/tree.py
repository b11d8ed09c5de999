"""Trees of tensors: a tensor, or a tuple, list, dict, named tuple or registered dataclass of trees.

States, controls, parameters, network weights and unknowns are trees. This is the only file that touches torch's
pytree module. ``None`` is a tree without leaves.
"""

from __future__ import annotations

import dataclasses
import math
import operator
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

Tree = Any
T = TypeVar("T")


def register(cls: type[T]) -> type[T]:
    """Class decorator: a frozen dataclass whose fields are all trees becomes a node of a tree."""
    names = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
    pytree.register_pytree_node(
        cls,
        lambda node: ([getattr(node, name) for name in names], None),
        lambda children, _: cls(*children),
        serialized_type_name=f"{cls.__module__}.{cls.__qualname__}",
    )
    return cls


def leaves(tree: Tree) -> list[Any]:
    """The leaves of a tree, in a fixed order (``None`` has none)."""
    found: list[Any] = []
    _collect(tree, found)
    return found


def _collect(tree: Tree, found: list[Any]) -> None:
    # Tensors and plain containers are most of all trees; without a detour they cost a fifth.
    if isinstance(tree, Tensor):
        found.append(tree)
    elif type(tree) is dict:
        for value in tree.values():
            _collect(value, found)
    elif type(tree) is tuple or type(tree) is list:
        for value in tree:
            _collect(value, found)
    elif tree is not None:
        found.extend(leaf for leaf in pytree.tree_leaves(tree) if leaf is not None)


def named_leaves(tree: Tree) -> list[tuple[str, Any]]:
    """Pairs of a readable path such as ``velocity[0]`` and the leaf that is found there."""
    found, _ = pytree.tree_flatten_with_path(tree)
    return [(pytree.keystr(path), leaf) for path, leaf in found if leaf is not None]


def map(function: Callable[..., Any], tree: Tree, *rest: Tree) -> Tree:
    """Apply ``function`` to every leaf (and to its partners in further trees of the same structure).

    Raises:
        ValueError: if a further tree has another structure.
    """
    if isinstance(tree, Tensor):
        return function(tree, *rest)
    if tree is None:
        return None
    kind = type(tree)
    if kind is dict:
        if any(type(other) is not dict or other.keys() != tree.keys() for other in rest):
            raise ValueError(f"trees of another structure: {describe(tree)} and {describe(list(rest))}")
        return {key: map(function, value, *(other[key] for other in rest)) for key, value in tree.items()}
    if kind is tuple or kind is list:
        if any(type(other) is not kind or len(other) != len(tree) for other in rest):
            raise ValueError(f"trees of another structure: {describe(tree)} and {describe(list(rest))}")
        return kind(map(function, *parts) for parts in zip(tree, *rest, strict=True))
    return pytree.tree_map(
        lambda leaf, *others: None if leaf is None else function(leaf, *others), tree, *rest
    )


def ordered_like(value: Tree, reference: Tree) -> Tree:
    """The same tree with the entries of its dicts in the order of another: lists of leaves go by that order."""
    kind = type(value)
    if kind is dict and type(reference) is dict and value.keys() == reference.keys():
        return {key: ordered_like(value[key], like) for key, like in reference.items()}
    if (kind is tuple or kind is list) and type(reference) is kind and len(value) == len(reference):
        return kind(ordered_like(part, like) for part, like in zip(value, reference, strict=True))
    return value


def same_structure(first: Tree, second: Tree) -> bool:
    """Whether two trees have the same nodes (leaves may differ in shape)."""
    return bool(pytree.tree_structure(first) == pytree.tree_structure(second))


def describe(tree: Tree) -> str:
    """One line about shapes and dtypes, for error messages: ``{u: (4, 32) float64}``."""
    if tree is None:
        return "None"
    if isinstance(tree, Tensor):
        return f"{tuple(tree.shape)} {str(tree.dtype).removeprefix('torch.')}"
    if isinstance(tree, dict):
        return "{" + ", ".join(f"{key}: {describe(value)}" for key, value in tree.items()) + "}"
    if isinstance(tree, (list, tuple)):
        return "(" + ", ".join(describe(value) for value in tree) + ")"
    return type(tree).__name__


def stack(trees: list[Tree], dim: int = 0) -> Tree:
    """Stack trees of equal structure leaf by leaf."""
    return map(lambda *parts: torch.stack(parts, dim), trees[0], *trees[1:])


def unbind(tree: Tree, dim: int = 0) -> list[Tree]:
    """Split every leaf along ``dim``: the list of trees whose ``stack`` is the input.

    Controls of a time loop are unbound once: the backward of indexing them step by step would allocate the whole
    sequence at every step.
    """
    flat, structure = pytree.tree_flatten(tree)
    length = next(leaf.shape[dim] for leaf in flat if leaf is not None)
    columns = [[None] * length if leaf is None else leaf.unbind(dim) for leaf in flat]
    return [pytree.tree_unflatten(list(row), structure) for row in zip(*columns, strict=True)]


def rows(tree: Tree, count: int) -> list[Tree]:
    """Like :func:`unbind`; a tree without leaves (``None``, say) is repeated ``count`` times."""
    return unbind(tree) if leaves(tree) else [tree] * count


def take(tree: Tree, indices: Tensor) -> Tree:
    """Select entries along the leading axis of every leaf."""
    return map(lambda leaf: leaf[indices.to(leaf.device)], tree)


def detach(tree: Tree) -> Tree:
    """The same numbers without their history."""
    return map(lambda leaf: leaf.detach() if isinstance(leaf, Tensor) else leaf, tree)


def to(tree: Tree, *, dtype: torch.dtype | None = None, device: torch.device | None = None) -> Tree:
    """Numbers and tensors as tensors of one dtype (floating leaves only) on one device."""

    def convert(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):  # at once: by way of float32 a number would lose half of its digits
            return torch.as_tensor(leaf, dtype=dtype, device=device)
        return leaf.to(dtype=dtype if leaf.is_floating_point() else None, device=device)

    return map(convert, tree)


def ravel(tree: Tree, batch: int = 0) -> Tensor:
    """One tensor ``(*batch axes, entries)``: each leaf is flattened behind its ``batch`` leading axes."""
    parts = [leaf.reshape(*leaf.shape[:batch], -1) for leaf in leaves(tree)]
    return torch.cat(parts, dim=-1)


def unravel(vector: Tensor, like: Tree, batch: int = 0) -> Tree:
    """The inverse of :func:`ravel`: ``like`` gives structure and trailing shapes, ``vector`` the batch axes."""
    flat, structure = pytree.tree_flatten(like)
    shapes = [None if leaf is None else leaf.shape[batch:] for leaf in flat]
    parts = iter(vector.split([math.prod(shape) for shape in shapes if shape is not None], dim=-1))
    rebuilt = [
        None if shape is None else next(parts).reshape((*vector.shape[:-1], *shape)) for shape in shapes
    ]
    return pytree.tree_unflatten(rebuilt, structure)


@dataclasses.dataclass(frozen=True)
class Shell:
    """A tree without its tensors; two are equal where the trees differ in their tensors only.

    It can be a key as long as what is left in it (numbers, names) can.
    """

    structure: Any
    others: tuple[Any, ...]
    places: tuple[int, ...]

    def fill(self, tensors: Any) -> Tree:
        """The same tree around other tensors (or whatever stands for them)."""
        filled = list(self.others)
        for place, tensor in zip(self.places, tensors, strict=True):
            filled[place] = tensor
        return pytree.tree_unflatten(filled, self.structure)


def shell(tree: Tree) -> tuple[list[Tensor], Shell]:
    """The tensors of a tree, and what is left without them."""
    flat, structure = pytree.tree_flatten(tree)
    places = tuple(i for i, leaf in enumerate(flat) if isinstance(leaf, Tensor))
    others = tuple(None if isinstance(leaf, Tensor) else leaf for leaf in flat)
    return [flat[i] for i in places], Shell(structure, others, places)


def split_tensors(tree: Tree) -> tuple[list[Tensor], Callable[[Any], Tree]]:
    """The tensors of a tree, and the function that builds the same tree around others; all else is kept as it is."""
    if isinstance(tree, Tensor):
        return [tree], operator.itemgetter(0)
    tensors: list[Tensor] = []
    rebuild = _rebuilder(tree, tensors)

    def fill(others: Any) -> Tree:
        given = list(others)
        if len(given) != len(tensors):
            raise ValueError(f"{len(given)} tensors for a tree of {len(tensors)}")
        return rebuild(iter(given))

    return tensors, fill


def _rebuilder(tree: Tree, tensors: list[Tensor]) -> Callable[[Iterator[Any]], Tree]:
    """Note the tensors of a tree, and return what builds it again from others in the same order."""
    if isinstance(tree, Tensor):
        tensors.append(tree)
        return next
    kind = type(tree)
    if kind is dict:
        entries = [(key, _rebuilder(value, tensors)) for key, value in tree.items()]
        return lambda others: {key: part(others) for key, part in entries}
    if kind is tuple or kind is list:
        parts = [_rebuilder(value, tensors) for value in tree]
        return lambda others: kind(part(others) for part in parts)
    flat, structure = pytree.tree_flatten(tree)
    if len(flat) == 1 and flat[0] is tree:  # no node: a number, a name, None
        return lambda others: tree
    inner = [_rebuilder(leaf, tensors) for leaf in flat]
    return lambda others: pytree.tree_unflatten([part(others) for part in inner], structure)


def nbytes(tree: Tree) -> int:
    """Bytes that the entries of all leaves take."""
    return sum(leaf.numel() * leaf.element_size() for leaf in leaves(tree))


def same_shapes(first: Tree, second: Tree, batch: int = 0) -> bool:
    """Whether two trees have the same nodes, and leaves of the same shapes behind their first ``batch`` axes."""
    return same_structure(first, second) and all(
        mine.shape[batch:] == its.shape[batch:]
        for mine, its in zip(leaves(first), leaves(second), strict=True)
    )


def size(tree: Tree) -> int:
    """Number of scalars in a tree."""
    return sum(leaf.numel() for leaf in leaves(tree))


def dot(first: Tree, second: Tree) -> Tensor:
    """Inner product of two trees of equal structure."""
    return torch.stack([(a * b).sum() for a, b in zip(leaves(first), leaves(second), strict=True)]).sum()


def norm(tree: Tree) -> Tensor:
    """Euclidean norm over all leaves (a diagnostic: its gradient at zero is not defined)."""
    return torch.linalg.vector_norm(torch.cat([leaf.reshape(-1) for leaf in leaves(tree)]))


def all_finite(tree: Tree, batch: int = 0) -> Tensor:
    """Whether all entries are finite, for each entry of the ``batch`` leading axes."""
    verdicts = [torch.isfinite(leaf).reshape(*leaf.shape[:batch], -1).all(-1) for leaf in leaves(tree)]
    return torch.stack(verdicts).all(0)
