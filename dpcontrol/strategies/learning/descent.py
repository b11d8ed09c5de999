"""How networks that are trained through a simulator descend: optimizers of plain vectors, and a clip that is counted.

Everything is a value that can be stored: a training that goes on from it takes the same steps to the bit.
"""

from __future__ import annotations

import abc
import math
from typing import Any

import torch
from torch import Tensor

from dpcontrol import tree
from dpcontrol.tree import Tree

MEMORY_OF_NORMS = 50  # iterations
LARGEST_SIDE = 1024  # of a matrix that gets bases of its own
TINY = 1e-12


class Optimizer(abc.ABC):
    """From gradients to directions of about unit size in every entry, all ``(1, dimension)``."""

    @abc.abstractmethod
    def direction(self, gradient: Tensor) -> Tensor:
        """Where to go (against it) after seeing this gradient."""

    @abc.abstractmethod
    def pack(self) -> Tree:
        """Everything that later directions depend on."""

    @abc.abstractmethod
    def unpack(self, kept: Tree) -> None:
        """Go on from what :meth:`pack` gave."""


class Adam(Optimizer):
    r"""Momentum over root mean square, entry by entry.

    .. math:: d = \hat m / (\sqrt{\hat v} + \epsilon), \quad m \leftarrow \beta_1 m + (1 - \beta_1) g, \quad
        v \leftarrow \beta_2 v + (1 - \beta_2) g^2

    Source: D. Kingma, J. Ba, "Adam: a method for stochastic optimization", ICLR 2015.
    """

    def __init__(self, first: float = 0.9, second: float = 0.999) -> None:
        self._first, self._second, self._count = first, second, 0
        self._mean: Tensor | None = None
        self._square: Tensor | None = None

    def direction(self, gradient: Tensor) -> Tensor:
        if self._mean is None or self._square is None:
            self._mean, self._square = torch.zeros_like(gradient), torch.zeros_like(gradient)
        self._count += 1
        self._mean = torch.lerp(gradient, self._mean, self._first)
        self._square = torch.lerp(gradient.square(), self._square, self._second)
        return _unit(self._mean, self._square, self._first, self._second, self._count, TINY)

    def pack(self) -> Tree:
        return {"count": self._count, "mean": self._mean, "square": self._square}

    def unpack(self, kept: Tree) -> None:
        self._count, self._mean, self._square = kept["count"], kept["mean"], kept["square"]


class SOAP(Optimizer):
    r"""Adam in the eigenbases of Shampoo: for every matrix of weights with gradient ``G``

    .. math:: L \leftarrow \beta L + (1 - \beta) G G^T = Q_L \Lambda_L Q_L^T, \quad
        R \leftarrow \beta R + (1 - \beta) G^T G = Q_R \Lambda_R Q_R^T, \quad
        D = Q_L \, \mathrm{Adam}(Q_L^T G Q_R) \, Q_R^T.

    The bases follow by one step of orthogonal iteration every ``every`` gradients. Biases, and matrices with a side of
    more than 1024, are left to Adam; kernels of convolutions are matrices of output channels by the rest. Beside a
    gradient through a simulator it costs little; on the Burgers scenes it reaches in a quarter of the gradients what
    Adam reaches (``tests/benchmarks/results/burgers_policy_tuning.json``).

    Args:
        layout: the tree whose leaves, one after the other, are the entries of a gradient.
        first, second: decay of Adam's means; ``third``: of ``L`` and ``R``.
        every: gradients between two updates of the bases.

    Source: N. Vyas et al., "SOAP: improving and stabilizing Shampoo using Adam", arXiv:2409.11321 (2024).
    """

    def __init__(
        self, layout: Tree, *, first: float = 0.9, second: float = 0.99, third: float = 0.95, every: int = 10
    ) -> None:
        self._layout, self._every = layout, every
        self._first, self._second, self._third = first, second, third
        self._count = 0
        self._of: list[dict[str, Tensor]] = []

    def direction(self, gradient: Tensor) -> Tensor:
        leaves = [_matrix(leaf) for leaf in tree.leaves(tree.unravel(gradient[0], self._layout))]
        if not self._of:
            self._of = [_begun(leaf) for leaf in leaves]
        self._count += 1
        found = [self._of_one(leaf, kept) for leaf, kept in zip(leaves, self._of, strict=True)]
        return torch.cat([leaf.reshape(-1) for leaf in found])[None]

    def _of_one(self, gradient: Tensor, kept: dict[str, Tensor]) -> Tensor:
        kept["mean"] = torch.lerp(gradient, kept["mean"], self._first)
        if "left" not in kept:
            kept["square"] = torch.lerp(gradient.square(), kept["square"], self._second)
            return _unit(kept["mean"], kept["square"], self._first, self._second, self._count, TINY)
        left, right = kept["left basis"], kept["right basis"]
        turned = left.T @ gradient @ right
        kept["square"] = torch.lerp(turned.square(), kept["square"], self._second)
        mean = left.T @ kept["mean"] @ right
        # directions that are nothing but rounding must not become steps of full size
        least = kept["square"].max().sqrt() * torch.finfo(gradient.dtype).eps ** 0.5 + TINY
        step = left @ _unit(mean, kept["square"], self._first, self._second, self._count, least) @ right.T
        kept["left"] = torch.lerp(gradient @ gradient.T, kept["left"], self._third)
        kept["right"] = torch.lerp(gradient.T @ gradient, kept["right"], self._third)
        if self._count % self._every == 0:
            kept["left basis"] = _basis(torch.linalg.qr(kept["left"] @ left)[0])
            kept["right basis"] = _basis(torch.linalg.qr(kept["right"] @ right)[0])
        return step

    def pack(self) -> Tree:
        return {"count": self._count, "of": [dict(kept) for kept in self._of]}

    def unpack(self, kept: Tree) -> None:
        self._count, self._of = kept["count"], [dict(one) for one in kept["of"]]


OPTIMIZERS = ("soap", "adam")


def optimizer(name: str, layout: Tree) -> Optimizer:
    """One of :data:`OPTIMIZERS` for vectors of a layout."""
    return SOAP(layout) if name == "soap" else Adam()


class Clip:
    """Gradients whose norm is far above the usual are shortened, and counted.

    Args:
        factor: a norm of more than so many times the running geometric mean of earlier ones (after clipping, so that a
            few explosions do not lift it) is shortened to that.
    """

    def __init__(self, factor: float) -> None:
        self._factor = factor
        self.seen, self.clipped = 0, 0
        self._typical: float | None = None  # logarithm

    def shortened(self, norm: float) -> float:
        """What a gradient of this norm is multiplied by."""
        size = math.log(max(norm, 1e-300))
        typical = size if self._typical is None else self._typical
        excess = max(size - typical - math.log(self._factor), 0.0)
        self.seen += 1
        self.clipped += int(excess > 0)
        self._typical = typical + (size - excess - typical) / MEMORY_OF_NORMS
        return math.exp(-excess)

    def words(self) -> str:
        """How often, in words."""
        share = self.clipped / max(self.seen, 1)
        return f"the gradient was clipped in {share:.0%} of {self.seen} iterations"

    def pack(self) -> Tree:
        """Everything that later answers depend on."""
        return {"typical": self._typical, "counts": [self.seen, self.clipped]}

    def unpack(self, kept: Any) -> None:
        """Go on from what :meth:`pack` gave."""
        self._typical, (self.seen, self.clipped) = kept["typical"], kept["counts"]


def falling(done: float) -> float:
    """Half a cosine, from 1 at the beginning to 0 when all is done."""
    return 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


def _unit(
    mean: Tensor, square: Tensor, first: float, second: float, count: int, least: Tensor | float
) -> Tensor:
    spread = (square / (1 - second**count)).sqrt()
    return mean / ((1 - first**count) * (spread + least))


def _matrix(leaf: Tensor) -> Tensor:
    return leaf.reshape(len(leaf), -1) if leaf.ndim > 2 else leaf


def _begun(gradient: Tensor) -> dict[str, Tensor]:
    kept = {"mean": torch.zeros_like(gradient), "square": torch.zeros_like(gradient)}
    if gradient.ndim < 2 or max(gradient.shape) > LARGEST_SIDE:
        return kept
    kept["left"], kept["right"] = gradient @ gradient.T, gradient.T @ gradient
    # largest eigenvalue first: the order in which orthogonal iteration keeps its vectors
    kept["left basis"] = _basis(torch.linalg.eigh(kept["left"])[1].flip(1))
    kept["right basis"] = _basis(torch.linalg.eigh(kept["right"])[1].flip(1))
    return kept


def _basis(found: Tensor) -> Tensor:
    """Row by row in memory, as it comes back from a file: products round differently in another order."""
    return found.contiguous()
